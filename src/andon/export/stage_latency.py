"""Where the time of one answer goes: decoding, resizing, network, post-processing, on this machine and runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from andon.core.images import points_of, read_pixels, to_tensor
from andon.core.records import Record
from andon.core.region import with_region
from andon.export.latency import Effort, Latency, describe_machine, measure, summarise, synchroniser
from andon.runtime import Model
from andon.runtime.model import read

if TYPE_CHECKING:
    from andon.detectors._base import Detector

PICTURES = 8
"""Images answered in turn."""
Stage = tuple[str, float]


def stage_latency(
    judge: Detector | Model, records: Sequence[Record], *, effort: Effort | None = None
) -> dict[str, Latency]:
    """Milliseconds of each stage and of all together (`total`), from files in the system's cache, batch 1.

    Networks of other runtimes resize inside, so `network` holds it there. For images in tiles `network` is
    everything from the decoded image to the blended map, or with other runtimes to the verdict.
    """
    turn = list(records[:PICTURES])
    answer, machine, wait = _of_model(judge, turn) if isinstance(judge, Model) else _of_detector(judge, turn)
    calls: list[list[Stage]] = []

    def call(k: int) -> None:
        marks: list[Stage] = []

        def mark(stage: str) -> None:
            wait()
            marks.append((stage, time.perf_counter()))

        mark("")
        answer(k % len(turn), mark)
        calls.append(marks)

    total = measure(call, scope="total", machine=machine, synchronise=wait, effort=effort)
    measured = calls[-total.n :]
    found: dict[str, Latency] = {}
    for j, (stage, _) in enumerate(measured[0][1:], start=1):
        spent = [1000 * (marks[j][1] - marks[j - 1][1]) for marks in measured]
        found[stage] = summarise(spent, scope=stage, machine=machine)
    return found | {"total": total}


Answer = Callable[[int, Callable[[str], None]], None]


def _of_detector(detector: Detector, turn: Sequence[Record]) -> tuple[Answer, str, Callable[[], None]]:
    import torch

    from andon.detectors._base import enlarge

    device, planes = detector.device(), detector.depth_planes
    turn = with_region(turn, detector.fitted().region)

    def answer_in_tiles(k: int, mark: Callable[[str], None]) -> None:
        pixels = read_pixels(turn[k])
        mark("decode")
        analysis = detector.analyse_tiles(pixels, where=str(turn[k].image))
        mark("network")
        raw_map = enlarge(analysis.anomaly_map[0], (pixels.shape[0], pixels.shape[1]))
        detector.fitted().judge(raw_map, float(analysis.score[0]), turn[k])
        mark("post-processing")

    def answer(k: int, mark: Callable[[str], None]) -> None:
        pixels = read_pixels(turn[k])
        shape = (pixels.shape[0], pixels.shape[1])
        points = points_of(turn[k], shape) if planes is not None else None
        mark("decode")
        image = to_tensor(pixels, detector.input_size)
        if planes is not None and points is not None:
            image = torch.cat([image, planes(points)])
        mark("resize")
        with torch.inference_mode():
            analysis = detector.analyse(image[None].to(device))
        mark("network")
        raw_map = enlarge(analysis.anomaly_map[0].float().cpu(), shape)
        detector.fitted().judge(raw_map, float(analysis.score[0]), turn[k])
        mark("post-processing")

    chosen = answer if detector.tiling is None else answer_in_tiles
    return chosen, describe_machine(device), synchroniser(device)


def _of_model(model: Model, turn: Sequence[Record]) -> tuple[Answer, str, Callable[[], None]]:
    def answer(k: int, mark: Callable[[str], None]) -> None:
        pixels, record = read(turn[k])
        mark("decode")
        if model.tiling is not None:
            model.answer(pixels, record)
            mark("network")
            return
        found = model.session(pixels[None])
        mark("network")
        model.judge(found, record)
        mark("post-processing")

    return answer, f"{describe_machine(runtime=model.session.name)}", lambda: None
