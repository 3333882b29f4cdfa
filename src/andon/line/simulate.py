"""Parts for load tests: images are sent to a running server, or written into a drop folder, at a rate and with faults.

Every answer counts, and a part that is sent twice has to get one inspection.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from andon.client import Answer, Client, ClientError
from andon.core.errors import DataError, OutputError
from andon.core.files import writing_errors
from andon.line.cameras.folder import SUFFIXES
from andon.line.inbox.files import ANSWERS

SENDERS = 64
"""Parts that may be on their way."""
FAULTS = ("half an image", "no image", "sent twice")
"""Taken in turn."""
FOLDER_SECONDS = 30.0
"""Longest time for an answer from a folder."""
TAKEN_SECONDS = 2.0
"""Longest time from the answer until the file is out of the folder; one that is still there is kept there."""


@dataclass
class Result:
    """What came back."""

    sent: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Parts by verdict, or by the code of the error."""
    contradictions: int = 0
    """Parts sent twice that got two inspections."""
    ms: list[float] = field(default_factory=list)
    """From request to answer."""
    judge_ms: list[float] = field(default_factory=list)
    """Of these, judging."""

    def to_json(self) -> dict[str, Any]:
        """Plain values: counts, and percentiles in milliseconds."""
        return {
            "sent": self.sent,
            "per_second": round(self.sent / self.seconds, 2) if self.seconds else None,
            "answers": dict(sorted(self.answers.items())),
            "contradictions": self.contradictions,
            "ms": percentiles(self.ms),
            "judge_ms": percentiles(self.judge_ms),
        }


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """p50, p99 and largest; empty without values."""
    if not ms:
        return {}
    p50, p99, largest = np.percentile(ms, (50, 99, 100))
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "largest": round(float(largest), 1)}


def images(paths: Iterable[Path]) -> list[Path]:
    """Image files, those in folders included. Raises `DataError`."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in inside if file.is_file() and file.suffix.lower() in SUFFIXES]
    if not found:
        raise DataError("there are no images to send: give image files or folders with some")
    return found


def run(
    send: Callable[[bytes, str, int], list[Answer]],
    files: Sequence[Path],
    *,
    rate: float,
    seconds: float,
    faults: float = 0.0,
) -> Result:
    """Send `rate` parts a second, `faults` of them (0 to 1) with a fault. `send(content, suffix, times)` returns the answers."""
    result, lock = Result(), threading.Lock()

    def one(number: int) -> None:
        file = files[number % len(files)]
        fault = _fault(number, faults)
        content, times = _spoiled(file.read_bytes(), fault), 2 if fault == FAULTS[2] else 1
        begin = time.perf_counter()
        try:
            answers = send(content, file.suffix, times)
        except ClientError as error:
            with lock:
                result.answers[error.code] += 1
            return
        took = (time.perf_counter() - begin) * 1e3
        with lock:
            if times == 1:
                result.ms.append(took)
            result.answers[answers[0].cause or answers[0].verdict] += 1
            rows = {answer.id for answer in answers} - {None}
            result.contradictions += len(rows) > 1
            if "judge" in (judged := answers[0].data.get("ms", {})):
                result.judge_ms.append(judged["judge"])

    sending: list[Future[None]] = []
    begin = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as pool:
        for number in range(round(rate * seconds)):
            time.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            sending.append(pool.submit(one, number))
        for future in sending:
            future.result()
        result.sent = len(sending)
        result.seconds = time.perf_counter() - begin
    return result


def to_server(client: Client, station: str) -> Callable[[bytes, str, int], list[Answer]]:
    """Sends parts to a station of a server."""

    def send(content: bytes, _suffix: str, times: int) -> list[Answer]:
        request_id = f"simulated-{uuid.uuid4().hex}"
        return [client.inspect(station, content, request_id=request_id) for _ in range(times)]

    return send


def to_folder(folder: Path) -> Callable[[bytes, str, int], list[Answer]]:
    """Writes parts into a drop folder and waits for their answers. Raises `OutputError` where it cannot be written.

    A part that is sent twice is a file that comes again, with its name and time, after the first one was taken.
    """
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}: give the folder of a station")

    def send(content: bytes, suffix: str, times: int) -> list[Answer]:
        name = f"simulated-{uuid.uuid4().hex}{suffix}"
        written = _drop(folder, name, content)
        answers = [_answer(folder, name)]
        if times > 1 and _is_taken(folder / name):
            with writing_errors(folder):
                _answered(folder, name).unlink()
            _drop(folder, name, content, mtime_ns=written)
            answers.append(_answer(folder, name))
        return answers

    return send


def _drop(folder: Path, name: str, content: bytes, mtime_ns: int | None = None) -> int:
    """Write a file that appears complete; returns its time. The same file again has the same time."""
    hidden = folder / f".{name}"
    with writing_errors(folder):
        hidden.write_bytes(content)
        if mtime_ns is not None:
            os.utime(hidden, ns=(mtime_ns, mtime_ns))
        written = hidden.stat().st_mtime_ns
        hidden.rename(folder / name)
    return written


def _answer(folder: Path, name: str) -> Answer:
    """The answer to a file. Raises `ClientError` where none comes."""
    end = time.monotonic() + FOLDER_SECONDS
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = json.loads(_answered(folder, name).read_text(encoding="utf-8"))
            return Answer(found["verdict"], found["id"], found["cause"], found)
        if time.monotonic() > end:
            raise ClientError(f"{name} got no answer", code="no answer")
        time.sleep(0.005)


def _answered(folder: Path, name: str) -> Path:
    """Where the answer to a file appears."""
    return folder / ANSWERS / f"{name}.json"


def _is_taken(file: Path) -> bool:
    """Whether a judged file leaves the folder; it does not where the station keeps files (`after = "keep"`)."""
    end = time.monotonic() + TAKEN_SECONDS
    while file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _fault(number: int, share: float) -> str:
    """The fault of a part, the faulty ones evenly spread; empty for the others."""
    before, now = int(number * share), int((number + 1) * share)
    return FAULTS[before % len(FAULTS)] if now > before else ""


def _spoiled(content: bytes, fault: str) -> bytes:
    if fault == FAULTS[0]:
        return content[: len(content) // 2]
    return b"no image" if fault == FAULTS[1] else content
