"""Rows of parts: before they are judged, after it, and where a verdict must not leave."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from andon.line.judge import Judgement, suffix_of
from andon.line.parts import InUse, Job, Part
from andon.line.review.sample import Draw
from andon.line.settings import StationSettings
from andon.line.store import NewInspection
from andon.line.verdicts import Cause, Queued, Verdict


def base_row(part: Part, settings: StationSettings, in_use: InUse, now: int) -> NewInspection:
    """The row of a part that was not judged."""
    return NewInspection(
        station=settings.name,
        request_id=part.request_id,
        trigger_no=part.trigger_no,
        part_id=part.part_id,
        lot=part.lot,
        recipe=in_use.recipe,
        model_sha256=in_use.judge.sha256,
        threshold_version=in_use.thresholds.version,
        t_trigger=now if part.t_trigger is None else part.t_trigger,
        t_done=now,
        verdict=Verdict.ERROR,
        score_raw=None,
        score=None,
        cause=Cause.NOT_READY.value,
        image_sha256=hashlib.sha256(part.image).hexdigest(),
        image=part.image if Verdict.ERROR.name in settings.keep_images else None,
        image_suffix=suffix_of(part.image),
        on_full_disk=settings.on_full_disk,
        review_why=Queued.ERROR,
        triggered=part.triggered,
    )


def judged_row(
    job: Job,
    judgement: Judgement,
    in_use: InUse,
    ms: Mapping[str, float],
    now: int,
    draw: Draw,
    keep_images: Collection[str],
) -> NewInspection:
    """The row with what was found; `ms`: milliseconds of stages before the judgement. Drawn parts keep their image."""
    kept = draw.rate is not None or judgement.verdict.name in keep_images
    return replace(
        job.base,
        recipe=in_use.recipe,
        model_sha256=in_use.judge.sha256,
        threshold_version=in_use.thresholds.version,
        t_done=now,
        verdict=judgement.verdict,
        score_raw=judgement.score_raw,
        score=judgement.score,
        regions=judgement.regions,
        ms={**ms, **judgement.ms},
        cause="" if judgement.cause is None else judgement.cause.value,
        image=job.part.image if kept else None,
        map=judgement.map if kept else None,
        review_why=draw.why,
        sample_rate=draw.rate,
    )


def held_row(new: NewInspection, cause: Cause) -> NewInspection:
    """The row while the station may not give OK: a part that is not NG is ERROR, and no sample of what passed."""
    if new.verdict in (Verdict.NG, Verdict.ERROR):
        return new
    return replace(new.failed(cause), review_why=Queued.ERROR, sample_rate=None)


def golden_row(new: NewInspection) -> NewInspection:
    """The row of a golden part: ERROR, whatever was found, so that it is taken off the line like a bad part."""
    return new.failed(Cause.GOLDEN_PART)
