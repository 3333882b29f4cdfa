"""Exported networks with convolutions in 8-bit integers. ONNX Runtime's quantiser lives here.

Ranges come from good training images. The loss of accuracy is measured on held-out images before the file is kept,
and written into it; thresholds and scales stay those of the detector.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import AndonError, ConfigError, DataError
from andon.core.files import write_bytes
from andon.core.images import as_float, as_uint8, read_image, to_tensor
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.datasets import Dataset
from andon.detectors._base import Detector
from andon.exporting.network import describe, export
from andon.metrics import auroc
from andon.nn.training import Trainer
from andon.runtime import Model, open_model
from andon.runtime.runtimes import METADATA, sealed

EXTRACTOR = "detector.extractor."
"""Beginning of the names of an extractor's weights."""
CALIBRATED = 24
"""Good images that the ranges of activations are taken from."""


class QuantisationError(AndonError):
    """Eight bits cost more than was allowed."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What 8-bit integers cost."""

    images: int
    """Held-out images scored by both networks."""
    image_auroc_before: float | None
    """None where there are no labelled images of both kinds."""
    image_auroc_after: float | None
    verdicts_changed: int
    difference: float
    """Largest change of a score, in display units (0 = typical good, 1 = threshold)."""
    convolutions: int
    """Convolutions in 8-bit integers."""

    @property
    def lost(self) -> float:
        """Image AUROC that was lost or, without labels, the share of verdicts that changed."""
        if self.image_auroc_before is None or self.image_auroc_after is None:
            return self.verdicts_changed / max(self.images, 1)
        return self.image_auroc_before - self.image_auroc_after

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        values = asdict(self)
        return {"pictures": values.pop("images"), **values}

    def describe(self) -> str:
        """In words."""
        changed = f"{self.verdicts_changed} of {self.images} verdicts changed"
        if self.image_auroc_before is None or self.image_auroc_after is None:
            return changed
        return (
            f"image AUROC {self.image_auroc_before:.4f} before, {self.image_auroc_after:.4f} after, {changed}"
        )


def export_int8(
    detector: Detector, path: Path, dataset: Dataset, *, limit: float, progress: Progress | None = None
) -> Loss:
    """Write the detector as ONNX file whose convolutions compute in 8-bit integers.

    Raises `QuantisationError`, and writes nothing, where that costs more than `limit` image AUROC on the labelled test
    images (without any: turns more than this share of the verdicts on held-out good ones).
    """
    held_out = [record for record in (*dataset.validation, *dataset.test) if record.label is not None]
    if not held_out:
        raise DataError("--int8 measures what it costs on held-out pictures, and there are none: give --data")
    with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
        whole, small = Path(scratch) / "whole.onnx", Path(scratch) / "small.onnx"
        export(detector, whole)
        train = [detector.as_learned(record) for record in dataset.train[:CALIBRATED]]
        with detector.cut(train, Trainer(device="cpu"), "calibration") as good:
            tile = detector.tiling
            size = detector.input_size if tile is None else (tile.size, tile.size)
            convolutions = _quantise(whole, small, good[:CALIBRATED], size)
        _describe(small, describe(detector))
        loss = _compare(
            open_model(whole), open_model(small), held_out, convolutions, progress or NoProgress()
        )
        if loss.lost > limit:
            raise QuantisationError(
                f"8-bit integers cost too much here: {loss.describe()}, and {limit:g} is allowed; "
                "nothing was written; export without --int8, or raise --int8-limit"
            )
        _describe(small, describe(detector, int8=loss.to_json()))
        write_bytes(path, small.read_bytes())
    return loss


def _quantise(source: Path, target: Path, records: Sequence[Record], size: tuple[int, int]) -> int:
    """Write the network with quantised convolutions; returns how many there are."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class CalibrationImages(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.left = iter(records)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            record = next(self.left, None)
            return None if record is None else {"images": _small(record, size)[None]}

    prepared = source.with_name("prepared.onnx")
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared)).graph
        chosen = _convolutions(graph)
        if not chosen:  # the quantiser would take all that there is
            raise ConfigError(
                "this network has no convolutions, which are all that 8 bits are for: export without --int8"
            )
        quantize_static(
            str(prepared),
            str(target),
            CalibrationImages(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=_with_activations(graph, chosen),
        )
    return len(chosen)


def _convolutions(graph: Any) -> list[str]:
    """Names of the convolutions that compute in 8 bits: those of the frozen extractor, or all where there is none.

    What follows an extractor compares features with good ones, and small differences are what it is about.
    """
    found = {node.name: node.input[1] for node in graph.node if node.op_type == "Conv"}
    inside = [name for name, weight in found.items() if weight.startswith(EXTRACTOR)]
    return inside or list(found)


def _with_activations(graph: Any, convolutions: Sequence[str]) -> list[str]:
    """Names of convolutions and of the ReLUs and ReLU6s behind them.

    The range of an output is then that behind its activation: before a ReLU6 most of it would be spent on what is cut off.
    """
    outputs = {node.output[0] for node in graph.node if node.name in set(convolutions)}
    behind = [
        node.name for node in graph.node if node.op_type in {"Relu", "Clip"} and node.input[0] in outputs
    ]
    return [*convolutions, *behind]


def _small(record: Record, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(h, w, 3) at the network's own size: ranges do not depend on the camera, and memory stays small."""
    resized = to_tensor(as_float(as_uint8(read_image(record))), size)
    return np.asarray((resized * 255).round().permute(1, 2, 0).numpy(), np.uint8)


def _describe(path: Path, description: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA: json.dumps(description)})
    path.write_bytes(sealed(model.SerializeToString()))


def _compare(
    before: Model, after: Model, records: Sequence[Record], convolutions: int, progress: Progress
) -> Loss:
    scores: list[tuple[float, float]] = []
    shown, changed = 0.0, 0
    with progress.task("measuring what 8 bits cost", len(records)) as bar:
        for a, b in zip(before.judged(records), after.judged(records), strict=True):
            scores.append((a.raw_score, b.raw_score))
            shown, changed = max(shown, abs(a.score - b.score)), changed + (a.verdict != b.verdict)
            bar.advance()
    labels = [record.label or 0 for record in records]
    both = 0 < sum(labels) < len(labels)
    old, new = (auroc([pair[k] for pair in scores], labels) if both else None for k in range(2))
    return Loss(len(records), old, new, changed, shown, convolutions)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser gives advice on preparing networks, which was followed."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().setLevel(level)
