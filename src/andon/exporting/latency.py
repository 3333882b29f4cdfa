"""Latency of predictions, whole and by stage (docs/reference/metrics.md, "Latency").

Warm-up first, device synchronised on both sides of every call, garbage collection off, several inputs in turn.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from andon.core.images import as_uint8, read_image
from andon.core.records import Record
from andon.runtime import Model

if TYPE_CHECKING:
    import torch

    from andon.detectors._base import Detector

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to warm up and to measure."""

    warmup_calls: int = 10
    warmup_seconds: float = 1.0
    calls: int = 100
    seconds: float = 5.0
    """At least this long and at least `calls`, ..."""
    most_calls: int = 1000
    """... but at most so many calls ..."""
    most_seconds: float = 30.0
    """... or so many seconds; warming up takes no longer either."""


QUICK = Effort(warmup_calls=5, warmup_seconds=0.3, calls=30, seconds=1.0, most_seconds=8.0)
"""What `evaluate` spends; `andon latency` spends `Effort()`."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of single calls, batch 1."""

    scope: str
    """`predict`: decoded image in memory to score, verdict and map at its own size."""
    n: int
    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    machine: str

    @property
    def throughput(self) -> float:
        """Images per second, from the mean."""
        return 1000.0 / self.mean

    def to_json(self) -> dict[str, Any]:
        """Plain data for `report.json`."""
        return asdict(self)


IN_TURN = 8
"""Images that are predicted in turn."""
HELD = 100_000_000
"""Bytes of decoded images after which no further one is held in turn."""


def summarise(milliseconds: Sequence[float], *, scope: str, machine: str) -> Latency:
    """Mean, sample deviation, minimum and linear percentiles of single calls."""
    values = np.asarray(milliseconds, dtype=np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(values, [50, 90, 95, 99]))
    return Latency(
        scope=scope,
        n=values.size,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min=float(values.min()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        max=float(values.max()),
        machine=machine,
    )


def measure(
    call: Callable[[int], object],
    *,
    scope: str,
    machine: str = "",
    synchronise: Callable[[], None] = lambda: None,
    effort: Effort | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Time `call(k)` for k = 0, 1, ...; `synchronise` waits for the device and runs before the start and before the stop."""
    effort = effort or Effort()
    began, count = clock(), 0
    while count < effort.warmup_calls or clock() - began < effort.warmup_seconds * 1e9:
        if count and clock() - began > effort.most_seconds * 1e9:
            break
        call(count)
        count += 1
    synchronise()
    times: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = clock()
        while True:
            elapsed = (clock() - began) / 1e9
            enough = len(times) >= effort.calls and elapsed >= effort.seconds
            if enough or len(times) >= effort.most_calls or (times and elapsed >= effort.most_seconds):
                break
            synchronise()
            start = clock()
            call(len(times))
            synchronise()
            times.append((clock() - start) / 1e6)
    finally:
        if collecting:
            gc.enable()
    return summarise(times, scope=scope, machine=machine)


def predict_latency(
    detector: Detector,
    images: Sequence[Record | npt.NDArray[np.uint8]],
    *,
    effort: Effort | None = None,
) -> Latency:
    """Time `predict` on decoded images (8 in turn, of large ones fewer), with the effort of `QUICK` unless told.

    Files among `images` are decoded first.
    """
    decoded: list[npt.NDArray[Any]] = []
    for image in images[:IN_TURN]:
        if sum(pixels.nbytes for pixels in decoded) > HELD:
            break
        if isinstance(image, Record):
            pixels = read_image(detector.as_learned(image), with_points=detector.needs_points)
            decoded.append(pixels if detector.needs_points else as_uint8(pixels))
        else:
            decoded.append(image)
    device = detector.device()
    return measure(
        lambda k: next(detector.judged([decoded[k % len(decoded)]], ahead=0)),
        scope="predict",
        machine=describe_machine(device),
        synchronise=synchroniser(device),
        effort=effort or QUICK,
    )


def stage_latency(
    predictor: Detector | Model, records: Sequence[Record], *, effort: Effort | None = None
) -> dict[str, Latency]:
    """Milliseconds of each stage and of all together (`total`), from files in the system's cache, batch 1.

    Exported networks resize inside, so `network` holds it there. For images in tiles `network` is everything from the
    decoded image to the blended map.
    """
    if isinstance(predictor, Model):
        machine, wait = describe_machine(runtime=predictor.session.name), synchroniser(None)
    else:
        machine, wait = describe_machine(predictor.device()), synchroniser(predictor.device())
    turn = list(records[:IN_TURN])
    calls: list[list[tuple[str, float]]] = []

    def call(k: int) -> None:
        marks: list[tuple[str, float]] = []

        def mark(stage: str) -> None:
            wait()
            marks.append((stage, time.perf_counter()))

        mark("")
        next(predictor.judged([turn[k % len(turn)]], ahead=0, mark=mark))
        calls.append(marks)

    total = measure(call, scope="total", machine=machine, synchronise=wait, effort=effort)
    measured = calls[-total.n :]
    found: dict[str, Latency] = {}
    for j, (stage, _) in enumerate(measured[0][1:], start=1):
        spent = [1000 * (marks[j][1] - marks[j - 1][1]) for marks in measured]
        found[stage] = summarise(spent, scope=stage, machine=machine)
    return found | {"total": total}


def synchroniser(device: torch.device | None) -> Callable[[], None]:
    """What waits until a device has done everything it was given; nothing to wait for where there is none."""
    if device is None:
        return lambda: None
    import torch

    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def describe_machine(device: torch.device | None = None, *, runtime: str | None = None) -> str:
    """Processor, threads and torch version (or another runtime that executes the network) in one line."""
    system = f"{platform.system()} {platform.machine()}"
    if runtime is not None:
        return f"{processor()}, {os.cpu_count()} cores, {runtime}, {system}"
    import torch

    name = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {system}"


def processor() -> str:
    """Name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
