"""Carrying a run to where it is used: what `andon export`, `andon pack` and `andon latency` do with a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.files import check_place
from andon.core.images import as_uint8, read_image
from andon.core.progress import Progress
from andon.core.records import Record
from andon.datasets import Dataset
from andon.exporting.latency import Effort, Latency
from andon.runs.folder import changing, last_scores, read_recipe
from andon.runs.inputs import list_inputs
from andon.runs.source import run_data

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.exporting.network import Exported

EXPORTED = {"onnx": "model.onnx", "openvino": "model.xml"}
"""Files in a run folder where `andon export` puts networks."""
COMPARED, HELD = 8, 400_000_000
"""Own images on which an exported network is compared with its detector, and the bytes after which no further one is read."""


def export_run(
    run: Path,
    path: Path,
    *,
    int8_limit: float | None = None,
    data: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Export the detector of a run to `path`; with `int8_limit` in 8-bit integers, if that costs no more image AUROC.

    The file is compared on held-out good images of the run where they can be found. Raises what `export` raises, and
    before anything is computed `OutputError` where `path` cannot be written.
    """
    from andon.detectors._saving import load_detector
    from andon.exporting.network import export

    with changing(run) if path.resolve().is_relative_to(run.resolve()) else nullcontext():
        check_place(path)
        detector, notes = load_detector(run), []
        images: list[npt.NDArray[np.uint8]] = []
        try:
            dataset = run_data(run, data)
        except DataError as error:
            if data is not None or int8_limit is not None:
                raise
            notes.append(f"compared on synthetic pictures alone ({error})")
        else:
            images = [as_uint8(pixels) for pixels in good_images(dataset, detector)]
        if too_deep := detector.fitted().too_deep:
            notes.append(f"scores and verdicts of this file are not those of the run, since {too_deep}")
        if int8_limit is None:
            found = export(
                detector, path, form="onnx" if path.suffix == ".onnx" else "openvino", images=images
            )
            return summary(found) | {"notes": notes}
        from andon.exporting.int8 import export_int8

        loss = export_int8(detector, path, dataset, limit=int8_limit, progress=progress)
        return {
            "path": str(path),
            "bytes": path.stat().st_size,
            "int8": loss.to_json(),
            "said": loss.describe(),
            "notes": notes,
        }


def summary(found: Exported) -> dict[str, Any]:
    """What `andon export --json` prints."""
    size = found.path.stat().st_size
    if found.path.suffix == ".xml":
        size += found.path.with_suffix(".bin").stat().st_size
    return {
        "path": str(found.path),
        "bytes": size,
        "runtime": found.runtime,
        "difference": found.difference,
        "map_difference": found.map_difference,
        "compared": found.images,
        "said": f"{found.images} pictures scored by {found.runtime}, largest difference to the detector "
        f"{found.difference:.2g} of the way from a good picture to the threshold",
    }


def pack_run(run: Path, path: Path, *, data: str | None = None) -> dict[str, Any]:
    """Pack a run with check images from its own data set, or from `data`; returns the manifest."""
    from andon.exporting.packed import pack

    check_place(path)
    dataset = run_data(run, data)
    bad = [record for record in dataset.test if record.label == 1]
    return pack(run, path, _good(dataset), bad, recipe=read_recipe(run), tests=last_scores(run))


def run_latency(
    run: Path,
    images: Sequence[Path] = (),
    *,
    runtime: str | None = None,
    threads: int | None = None,
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Milliseconds of each stage, on the images named or on test images of the run (good ones where it has none)."""
    from andon.exporting.latency import stage_latency
    from andon.runs.loading import open_predictor

    if not images and not run.is_dir():
        raise DataError(f"{run} has no pictures of its own: name some, or a folder of them")
    records = list_inputs(images) if images else _test_images(run)
    found = open_predictor(run, runtime, threads=threads, progress=progress)
    return stage_latency(found.predictor, records, effort=effort)


def _test_images(run: Path) -> list[Record]:
    dataset = run_data(run)
    return list(dataset.test) or _good(dataset)


def good_images(dataset: Dataset, detector: Detector) -> list[npt.NDArray[np.float32]]:
    """(H, W, 3) in [0, 1] of some good images as the detector reads them, those that were not learned from first."""
    found: list[npt.NDArray[np.float32]] = []
    for record in _good(dataset)[:COMPARED]:
        if sum(pixels.nbytes for pixels in found) < HELD:
            found.append(read_image(detector.as_learned(record)))
    return found


def _good(dataset: Dataset) -> list[Record]:
    """Good images, those that were not learned from first."""
    return [
        *dataset.validation,
        *(record for record in dataset.test if record.label == 0),
        *dataset.train,
    ]
