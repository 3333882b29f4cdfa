"""From a detector to one file that other runtimes execute. The onnx package and PyTorch's exporter live here.

The exported network takes images as they come from a camera, uint8 of any size, and holds everything else: resizing,
normalisation, the detector, the scale of the displayed score, the map at the image's own size. Every file is executed and
compared with the detector before it is kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from andon.core.errors import AndonError, ConfigError
from andon.core.files import file_sha256, from_json, writing, writing_errors
from andon.core.records import Prediction
from andon.core.region import InspectionRegion
from andon.core.version import VERSION
from andon.detectors._base import Detector
from andon.exporting.installed import check_installed
from andon.exporting.resizing import enlarged, resized
from andon.runtime.model import FORMAT, Model, open_model
from andon.runtime.runtimes import FILE_DIGEST, METADATA, UNSEALED, WEIGHTS_DIGEST, sealed
from andon.thresholds.display import AffineDisplay

Image = npt.NDArray[np.uint8]
Format = Literal["onnx", "openvino"]

OPSET = 18
LARGEST = 1_900_000_000
"""Bytes of learned numbers that an ONNX file is given; the format ends at 2 GiB."""
TOLERANCE = 1e-3
"""Largest difference of scores and maps to the detector's, in display units (0 = typical good, 1 = threshold)."""
OUTPUTS = {
    "raw_score": "(B,), higher is more anomalous",
    "score": "(B,): 0 = a typical good picture, 1 = the threshold at the time of the export",
    "anomaly_map": "(B, H, W): 0 = a typical good pixel, 1 = the pixel threshold at the time of the export",
    "verdict": "(B,) int32: 0 OK, 1 a person decides, 2 NG, 3 a value is NaN or infinite; by the thresholds at the export",
}
OUTPUTS_OF_TILES = {
    "raw_score": "(B,), largest cell of a tile's map; the picture's score follows from all tiles, see score_rule",
    "score": "(B,), the same on the scale of anomaly_map",
    "anomaly_map": "(B, h, w) of a tile, to be blended: 0 = a typical good pixel, 1 = the pixel threshold at the export",
}
SIZES = ((60, 97), (311, 140), (480, 640))
"""(H, W) of images of noise that a file is tried on; for tiles, a quarter of these more than a tile."""


class ExportError(AndonError):
    """The exported network does not predict as the detector does."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and compared with its detector."""

    path: Path
    runtime: str
    difference: float
    """Largest difference of a score, in display units."""
    map_difference: float
    images: int
    """Number of images compared."""


class ExportedDetector(nn.Module):
    """(B, H, W, 3) uint8 of any size to raw score (B,), displayed score (B,), displayed map (B, H, W) and verdict (B,).

    The verdict, see `OUTPUTS`, is for programs without andon, which applies the thresholds itself. Of a detector that cuts images
    into tiles it is the network for tiles, of their size only: maps (B, h, w) keep the detector's own grid, there is no
    verdict, and `andon.runtime` fills what is not inspected, cuts and blends.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.calibration = detector.fitted()
        area = self.calibration.region
        self.inspected = None if area is None or detector.tiling is not None else Inspected(area)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[1], images.shape[2]
        inside = None if self.inspected is None else self.inspected(height, width)
        if self.inspected is not None and inside is not None:
            images = torch.where(inside[None, :, :, None], images, self.inspected.fill)
        analysis = self.detector.analyse(resized(images, self.detector.input_size))
        if self.detector.tiling is not None:
            return self._of_tiles(analysis.anomaly_map[:, 0].float())
        raw = analysis.score.float()
        cells = displayed(analysis.anomaly_map[:, 0].float(), self.calibration.pixel_display)
        verdict = self._verdict(raw, cells)
        shown = enlarged(cells, (height, width))
        if inside is not None:
            shown = torch.where(inside[None], shown, torch.zeros_like(shown))
        return raw, displayed(raw, self.calibration.score_display), shown, verdict

    def _verdict(self, raw: Tensor, cells: Tensor) -> Tensor:
        look = self.calibration.look
        verdict = torch.where(raw < self.calibration.image.value, 0, 2)
        if look is not None:
            verdict = torch.where((raw >= look.value) & (verdict == 0), 1, verdict)
        finite = torch.isfinite(raw) & torch.isfinite(cells).flatten(1).all(1)
        return torch.where(finite, verdict, 3).to(torch.int32)

    def _of_tiles(self, maps: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, h, w) of single tiles as they are to be blended; scores stand for the largest cell of each."""
        largest = maps.flatten(1).amax(1)
        display = self.calibration.pixel_display
        return largest, displayed(largest, display), displayed(maps, display)


class Inspected(nn.Module):
    """Sides of an image to its inspected pixels (H, W), as `InspectionRegion.at` but for the check of the proportions."""

    mask: Tensor
    fill: Tensor

    def __init__(self, area: InspectionRegion) -> None:
        super().__init__()
        self.register_buffer("mask", torch.from_numpy(area.mask.copy()))
        self.register_buffer("fill", torch.tensor(area.fill, dtype=torch.uint8))

    def forward(self, height: int, width: int) -> Tensor:
        rows, columns = (
            places(new, old, self.mask.device)
            for new, old in zip((height, width), self.mask.shape, strict=True)
        )
        return self.mask[rows][:, columns]


def places(new: int, old: int, device: torch.device) -> Tensor:
    """(new,): as `andon.core.region.nearest_indices`."""
    twice = 2 * torch.arange(new, dtype=torch.int64, device=device) + 1
    sides = torch.scalar_tensor(2 * new, dtype=torch.int64, device=device)
    return torch.div(twice * old, sides, rounding_mode="floor")


def displayed(raw: Tensor, display: AffineDisplay) -> Tensor:
    """As `AffineDisplay`, in tensors: exactly 1 at the threshold, below 1 for everything below it."""
    shown = 1 + (raw - display.threshold) / display.span
    just_below = float(np.nextafter(np.float32(1), np.float32(0)))
    return torch.where(raw < display.threshold, shown.clamp_max(just_below), shown)


def export(
    detector: Detector, path: Path, *, form: Format = "onnx", images: Sequence[Image] = ()
) -> Exported:
    """Write a detector as .onnx, or as .xml and .bin for OpenVINO, and compare its predictions with the detector's.

    Compared are `images` and others of noise and other sizes. Raises `ConfigError` for a detector that cannot be exported and
    for missing packages, `ExportError` where the predictions differ by more than `TOLERANCE`. What stood at `path` before is
    replaced at the end.
    """
    _check_exportable(detector)
    check_installed("onnxruntime" if form == "onnx" else "openvino")
    with _staged(path) as made:
        if form == "onnx":
            _write_onnx(detector, made)
        else:
            source = made.with_name("source.onnx")
            _write_onnx(detector, source)
            _write_openvino(source, made)
        found = compare(detector, open_model(made), path, images)
        _put_in_place(made, path)
    return found


def write_network(detector: Detector, path: Path) -> None:
    """Write a detector as .onnx, without executing it. Raises `ConfigError` for a detector that cannot be exported."""
    _check_exportable(detector)
    _write_onnx(detector, path)


def compare(detector: Detector, model: Model, path: Path, images: Sequence[Image]) -> Exported:
    """Raise `ExportError` unless a model predicts as the detector does, on `images` and on noise."""
    found = compare_all(detector, [model], path, images)[0]
    if isinstance(found, ExportError):
        raise found
    return found


def compare_all(
    detector: Detector, models: Sequence[Model], path: Path, images: Sequence[Image]
) -> list[Exported | ExportError]:
    """What comes out when each model is compared with the detector, which answers once; `path` is the file of them all.

    Compared are `images` and others of noise. Raises `ExportError` where the detector itself has no finite answer.
    """
    tried = [*(image[None] for image in images), *noise(detector)]
    found = [_Difference() for _ in models]
    for batch in tried:
        for expected in (predictions := list(detector.judged(list(batch)))):
            if expected.error:
                raise ExportError(
                    f"the {detector.name} has no finite answer to compare with: {expected.error}"
                )
        for model, difference in zip(models, found, strict=True):
            if difference.fits:
                raws = model.scan(list(batch), batch_size=len(batch))
                for raw, expected in zip(raws, predictions, strict=True):
                    difference.add(model.judge(raw), expected)
    count = sum(len(batch) for batch in tried)
    return [
        Exported(path, model.session.name, difference.score, difference.map, count)
        if difference.fits
        else ExportError(
            f"the exported {detector.name} differs from the detector by {max(difference.score, difference.map):.2g} of the scale "
            f"between a good picture and the threshold (at most {TOLERANCE:g} is allowed): it was not written"
        )
        for model, difference in zip(models, found, strict=True)
    ]


@dataclass
class _Difference:
    """How far predictions are from those of the detector, in display units."""

    score: float = 0.0
    map: float = 0.0
    fits: bool = True

    def add(self, found: Prediction, expected: Prediction) -> None:
        scale = np.maximum(1, np.abs(expected.anomaly_map))  # far beyond the threshold, rounding grows
        worst = float((np.abs(found.anomaly_map - expected.anomaly_map) / scale).max())
        self.map = max(self.map, worst)
        self.score = max(self.score, abs(found.score - expected.score) / max(1.0, abs(expected.score)))
        same = found.verdict == expected.verdict
        self.fits = self.fits and same and self.score <= TOLERANCE and self.map <= TOLERANCE


def _sides(detector: Detector) -> str:
    if detector.tiling is None:
        return "any H and W from 8 pixels on"
    return f"tiles of H = W = {detector.tiling.size} pixels of the picture"


def describe(detector: Detector, **more: Any) -> dict[str, Any]:
    """What an exported network says about itself: everything but the numbers of the network."""
    return {
        "format": FORMAT,
        "andon": VERSION,
        "detector": detector.name,
        "score_rule": detector.stated_rule,
        "tiles": detector.tiling.to_json() if detector.tiling is not None else None,
        "input": f"images: uint8 (B, H, W, 3), RGB, {_sides(detector)}",
        "batch": 1 if detector.one_at_a_time else "any",
        "outputs": OUTPUTS if detector.tiling is None else OUTPUTS_OF_TILES,
        "opset": OPSET,
        "calibration": detector.fitted().to_json(),
        "weights": list(detector.used_weights),
        FILE_DIGEST: UNSEALED,
        **more,
    }


def refuse_depth(detector: Detector, file: str) -> None:
    """Raise `ConfigError` for a detector that looks at depth, which `file`, a kind of file, has no place for."""
    if detector.depth_planes is not None:
        raise ConfigError(
            f"this {detector.name} looks at depth, and {file} takes pictures alone: use the run, or fit without depth"
        )


def _check_exportable(detector: Detector) -> None:
    detector.fitted()
    refuse_depth(detector, "a network file")
    size = sum(tensor.numel() * tensor.element_size() for tensor in detector.state_dict().values())
    if size > LARGEST:
        raise ConfigError(
            f"this {detector.name} holds {size / 1e9:.1f} GB of learned numbers and an ONNX file at most 2: fit a smaller one "
            "(`andon recipes`), or use the run itself"
        )


def _write_onnx(detector: Detector, path: Path) -> None:
    import onnx

    batch = torch.export.Dim("batch", min=1, max=1024)
    height, width = (torch.export.Dim(name, min=8, max=65536) for name in ("height", "width"))
    sides: dict[int, Any] = {1: height, 2: width}
    shape = (96, 80)
    if detector.tiling is not None:  # runtimes then refuse a whole image instead of resizing it
        sides, shape = {}, (detector.tiling.size, detector.tiling.size)
    example = torch.zeros(1 if detector.one_at_a_time else 2, *shape, 3, dtype=torch.uint8)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            ExportedDetector(detector).eval(),
            (example,),
            dynamic_shapes=(sides if detector.one_at_a_time else {0: batch, **sides},),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS if detector.tiling is None else OUTPUTS_OF_TILES),
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA: json.dumps(describe(detector))})
    onnx.checker.check_model(model)
    with writing(path) as part:
        part.write_bytes(sealed(model.SerializeToString()))


def _write_openvino(source: Path, path: Path) -> None:
    """Write .xml and .bin; the description in the .xml holds the hashes of both."""
    import openvino

    model, later = openvino.Core().read_model(str(source)), "bin".ljust(64, "-")
    place = ["framework", METADATA]
    described = from_json(model.get_rt_info(place).astype(str))
    model.set_rt_info(json.dumps(described | {WEIGHTS_DIGEST: later, FILE_DIGEST: UNSEALED}), place)
    with writing_errors(path):
        openvino.save_model(model, str(path), compress_to_fp16=False)
        text = path.read_text(encoding="utf-8")
        assert text.count(later) == 1
        path.write_bytes(sealed(text.replace(later, file_sha256(path.with_suffix(".bin"))).encode()))


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A file of the same name in a folder beside `path`, which is removed afterwards."""
    folder = path.with_name(f".{path.name}.{os.getpid()}.parts")
    try:
        with writing_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(made: Path, path: Path) -> None:
    """Both files are complete before they take their places; an earlier .xml is never left beside another .bin."""
    with writing_errors(path):
        if path.suffix == ".xml":
            path.unlink(missing_ok=True)
            made.with_suffix(".bin").replace(path.with_suffix(".bin"))
        made.replace(path)


def noise(detector: Detector) -> Iterator[Image]:
    """Batches of noise of other shapes than the detector's own, three at a time where it takes several."""
    rng, area = np.random.default_rng(0), detector.fitted().region
    tile = 0 if detector.tiling is None else detector.tiling.size
    for height, width in ((tile + h // 4, tile + w // 4) if tile else (h, w) for h, w in SIZES):
        if area is not None:  # which has proportions of its own
            scale = max(height / area.mask.shape[0], tile / min(area.mask.shape))
            height, width = (max(8, round(side * scale)) for side in area.mask.shape)
        count = 1 if detector.one_at_a_time or tile else 3
        coarse = rng.integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        yield np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter reports its own inner affairs."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
