"""Judges stored images of golden parts: by the model of a station between two of its parts, or by a model that is not in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from functools import partial
from typing import NamedTuple

from andon.core.errors import DataError
from andon.line.andon_states import NotAllowed
from andon.line.golden.items import Item, Mode, Result, Seen, result
from andon.line.judge import Judgement, Judging, Thresholds
from andon.line.station import Station
from andon.line.verdicts import Cause, Verdict

LOG = logging.getLogger(__name__)
ImageOf = Callable[[Item], bytes]
"""Bytes of the image of a golden part. Raises `DataError`."""

LEAST_WAIT, WAIT_CYCLES = 30.0, 10
"""Longest wait for one image: the longer of these seconds and cycles of the station."""


class Checked(NamedTuple):
    """What came out, and by what."""

    results: tuple[Result, ...]
    model_sha256: str
    thresholds: Thresholds


def replay(
    station: Station, items: Iterable[Item], image_of: ImageOf, other: Thresholds | None = None
) -> Checked:
    """Judge stored images as the station judges parts; with `other`, by these thresholds.

    One image at a time goes between two parts, so that a part waits for one at most. Raises `NotAllowed` where the
    station finds no time, its model changes meanwhile or is not verified, or the station ends.
    """
    if not station.is_verified:
        raise NotAllowed(f"station {station.name} is not ready: wait until its model is verified")
    wait = max(LEAST_WAIT, WAIT_CYCLES * station.settings.cycle_s)
    used: Thresholds = station.thresholds
    sha256, results = station.model.sha256, []
    for item in items:
        try:
            image = image_of(item)
        except DataError as error:
            results.append(_without_image(item, error))
            continue
        future = station.between_parts(partial(_judged, image))
        try:
            by, thresholds, judgement = future.result(wait)
        except TimeoutError:
            future.cancel()
            raise NotAllowed(f"station {station.name} has no time between parts: try again later") from None
        except CancelledError:
            raise NotAllowed(
                f"station {station.name} is being shut down: judge golden parts after the start"
            ) from None
        if (by, thresholds) != (sha256, used):
            raise NotAllowed(f"model or thresholds of station {station.name} changed meanwhile: try again")
        results.append(result(item, Mode.FILES, Seen.of(judgement, other)))
    return Checked(tuple(results), sha256, other or used)


def judge_all(judge: Judging, items: Iterable[Item], image_of: ImageOf, thresholds: Thresholds) -> Checked:
    """Judge stored images by a verified model that is not in use yet."""
    results = []
    for item in items:
        try:
            image = image_of(item)
        except DataError as error:
            results.append(_without_image(item, error))
            continue
        results.append(result(item, Mode.FILES, Seen.of(_judgement(judge, image, thresholds))))
    return Checked(tuple(results), judge.sha256, thresholds)


def _judged(image: bytes, judge: Judging, thresholds: Thresholds) -> tuple[str, Thresholds, Judgement]:
    return judge.sha256, thresholds, _judgement(judge, image, thresholds)


def _judgement(judge: Judging, image: bytes, thresholds: Thresholds) -> Judgement:
    try:
        return judge.judge(image, thresholds)
    except Exception as error:
        LOG.exception("a golden part could not be judged")
        return Judgement.failed(Cause.JUDGE_FAILED, f"{type(error).__name__}: {error}")


def _without_image(item: Item, error: DataError) -> Result:
    return Result(item.name, Mode.FILES, Seen(Verdict.ERROR, None, Cause.NOT_AN_IMAGE.value), str(error))
