"""A running line with a judge that does what a test says."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from andon.core.errors import DataError
from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.settings import LineSettings, StationSettings
from andon.line.station import Part, Station
from andon.line.verdicts import Cause, Region, Verdict
from andon.thresholds.evidence import Evidence

PATIENCE = 20.0
"""Seconds after which a test gives up waiting."""


def picture(colour: int = 90) -> bytes:
    """A small PNG."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), (colour, 80, 70)).save(stream, "PNG")
    return stream.getvalue()


PICTURE = picture()


class FakeJudge:
    """Judges by the part id's first letters, which are written into the image: OK, NG, REVIEW, ERROR, raise, nan, hang."""

    def __init__(self, pack: Path = Path("fake.andon"), *, threads: int = 1) -> None:
        self.name, self.sha256 = pack.stem, f"{pack.stem:0<64}"[:64]
        self.thresholds = Thresholds(1.0, 1.0)
        self.evidence, self.images = Evidence(), dict[str, bytes]()
        self.go = threading.Event()
        """Lets a hanging judgement go on."""
        self.judged: list[tuple[bytes, Thresholds]] = []
        self.check: Callable[[], None] = lambda: None

    def self_check(self) -> None:
        self.check()

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        self.judged.append((image, thresholds))
        word = image.split(b"|")[1].decode() if b"|" in image else "OK"
        if word == "raise":
            raise RuntimeError("the judge fell over")
        if word == "hang":
            self.go.wait(PATIENCE)
            word = "OK"
        if word == "nan":
            return Judgement(Verdict.OK, score_raw=float("nan"), score=float("nan"))
        if word == "ERROR":
            return Judgement.failed(Cause.JUDGE_FAILED, "told to")
        score = {"OK": 0.5, "REVIEW": 1.0, "NG": 2.0}[word]
        return Judgement(Verdict[word], score, score, (Region(1, 2, 3, 4, score),), ms={"judge": 1.0})


def part(number: int, word: str = "OK", **changes: Any) -> Part:
    """A part that `FakeJudge` judges as `word`."""
    image = PICTURE + f"|{word}|{number}".encode()
    return Part(**{"image": image, "request_id": f"request-{number}", "part_id": f"part-{number}", **changes})


def settings(
    data: Path, *names: str, line: Mapping[str, Any] = MappingProxyType({}), **changes: Any
) -> LineSettings:
    """A line with the stations `names` (default: press), whose cycle is long enough for a busy computer.

    `line`: settings of the line, `changes`: of the stations.
    """
    values = {"cycle_s": 30.0, **changes}
    stations = tuple(
        StationSettings(**{"name": name, "model": Path(f"{name}.andon"), **values})
        for name in names or ("press",)
    )
    return LineSettings(data=data, stations=stations, **line)


@contextmanager
def running(
    data: Path,
    *names: str,
    judge: Callable[..., Any] = FakeJudge,
    shoot: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Iterator[Line]:
    """A started line whose stations are ready; `shoot`: what takes images on request, by station."""
    line = Line(settings(data, *names, **changes), open_judge=judge, shoot=shoot)
    line.start()
    try:
        until(lambda: all(station.is_verified or station.faults for station in line.stations.values()))
        yield line
    finally:
        for station in line.stations.values():
            if isinstance(station.model, FakeJudge):
                station.model.go.set()
        line.stop(2.0)


def answer(station: Station, number: int, word: str = "OK", **changes: Any) -> Any:
    """The committed row of a part."""
    return station.submit(part(number, word, **changes)).result(PATIENCE).recorded.row


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not become true")
        time.sleep(0.002)


class BadModel(FakeJudge):
    """A model whose self-check fails."""

    def self_check(self) -> None:
        raise DataError("it does not answer here as where it was made")
