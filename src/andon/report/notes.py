"""Sentences of a report on what its numbers rest on: labels, inspected region, missing masks, bins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.findings import first_few
from andon.datasets.masks import load_ground_truth
from andon.datasets.sessions import Sessions
from andon.metrics import Metric, Pimo, PixelHistogram, PixelRanking
from andon.metrics.pimo import RELIABLE_VERTICES
from andon.report.report import Case
from andon.thresholds.session_rates import session_rates

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.thresholds.calibration import Calibration


def pixel_notes(
    ranking: PixelRanking | PixelHistogram, metrics: dict[str, Metric], pimo: Pimo
) -> Iterator[str]:
    """Error bound of binned pixel metrics, and AUPIMO of too few thresholds."""
    bounds = [metric.error_bound for metric in metrics.values() if metric.error_bound is not None]
    if isinstance(ranking, PixelHistogram) and bounds:
        yield (
            "pixel metrics were computed from bins, in bounded memory: their error is at most "
            f"{max(bounds):.1g}"
        )
    if not np.isnan(pimo.mean) and pimo.n_vertices < RELIABLE_VERTICES:
        yield (
            f"AUPIMO is computed from {pimo.n_vertices} thresholds, fewer than the {RELIABLE_VERTICES} that make it "
            "reliable: it takes more good test pixels"
        )


def label_notes(detector: Detector, labelled: int) -> tuple[str, ...]:
    """One sentence on labelled anomalous images that were moved from the test set to training; empty without any."""
    if not labelled:
        return ()
    use = detector.label_use
    what = f"used for {use}" if use else f"not used: this {detector.name} learns from good pictures only"
    return (f"{labelled} labelled anomalous pictures were taken out of the test and {what}",)


def good_notes(
    excluded: Sequence[str], sessions: Mapping[str, Any] | None, calibration: Calibration
) -> Iterator[str]:
    """Good images that were left out of learning, and the sessions that the false-reject rate holds for, with its values."""
    if excluded:
        yield f"{plural(len(excluded), 'good picture')} left out of learning on request: {', '.join(excluded)}"
    if sessions is not None:
        yield Sessions.from_json(sessions).describe()
    rates = session_rates(calibration)
    if rates is not None:
        yield rates.describe()


def region_notes(calibration: Calibration, cases: Sequence[Case]) -> Iterator[str]:
    """Share of the inspected region, and images all of whose defects lie outside it."""
    if calibration.region is None:
        return
    yield (
        f"{100 * calibration.region.share:.3g} % of each picture is inspected; the rest (hatched in heat maps) changes no "
        "score and counts in no pixel metric"
    )
    hidden = [case.record.id for case in cases if _hidden(case)]
    if hidden:
        yield (
            f"{plural(len(hidden), 'picture')} with defects that lie wholly outside the inspected region still count as "
            f"anomalous: {first_few(hidden)}"
        )


def _hidden(case: Case) -> bool:
    """Whether the image has annotated defects, all of them outside the inspected region."""
    if case.has_mask or case.record.region is None:
        return False
    return bool(load_ground_truth(replace(case.record, region=None), case.size).defects)


def image_notes(
    records: Sequence[Record], cases: Sequence[Case], skipped: dict[str, str], errors: dict[str, str]
) -> tuple[str, ...]:
    """Images without masks, images that the gate changed to good, unreadable images, images without a finite score."""
    notes = []
    without = sum(1 for case in cases if case.record.label == 1 and not case.has_mask and not _hidden(case))
    anomalous = sum(1 for record in records if record.label == 1)
    if anomalous and without == anomalous:
        notes.append("no masks were given, so only image metrics are computed")
    elif without:
        notes.append(
            f"{without} anomalous pictures have no mask or an empty one and are left out of the pixel metrics"
        )
    hidden = sum(1 for case in cases if case.gated is False and case.is_anomalous)
    if hidden:
        notes.append(
            f"behind the gate {hidden} flagged pictures count as good, since none of their pixels is marked"
        )
    if skipped:
        notes.append(f"{len(skipped)} unreadable pictures were skipped")
    if errors:
        notes.append(f"{len(errors)} pictures have the verdict ERROR (no finite score) and are in no metric")
    return tuple(notes)
