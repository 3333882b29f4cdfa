"""Loading what predicts, from whatever it was made: a run, a detector folder, an exported network or a packed file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.runtime import Model

EXPORTED = {"onnx": "model.onnx", "openvino": "model.xml"}
"""Files in a run folder where andon export puts networks."""


def load(path: str | Path, runtime: str | None = None, *, threads: int | None = None) -> Detector | Model:
    """A `Predictor`: predict, stream and fitted are those of Detector, whatever it was made from.

    path is a run folder or the folder a detector was saved to (executed by torch, or by the network that andon export
    put beside it), an exported network (.onnx, .xml), or a packed detector (.andon), which proves itself first. threads
    limits the cores used. Raises DataError for anything else, ConfigError for a runtime that cannot execute it here.
    """
    path = Path(path)
    if runtime not in (None, "torch", "onnx", "openvino"):
        raise ConfigError(f"runtime {runtime!r} is unknown: choose torch, onnx or openvino")
    if path.suffix == ".andon":
        from andon.exporting.packed import open_pack

        return open_pack(path, runtime, threads=threads)
    if path.suffix in {".onnx", ".xml"}:
        if runtime == "torch":
            raise ConfigError(
                f"{path} is an exported network, torch executes run folders: give the run, or leave --runtime out"
            )
        from andon.runtime import open_model

        return open_model(path, runtime, threads=threads)
    if runtime in (None, "torch"):
        from andon.detectors._saving import load_detector

        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return load_detector(path)
    return _exported(path, runtime, threads)


def _exported(run: Path, runtime: str, threads: int | None) -> Model:
    """The network that was exported into a run folder, with the current thresholds of the run."""
    from andon.detectors._saving import detector_folder, read_description
    from andon.runtime import Model, open_model
    from andon.thresholds.calibration import Calibration
    from andon.thresholds.history import read_changes, with_changes

    network = run / EXPORTED[runtime]
    if not network.is_file():
        raise DataError(
            f"{run} has not been exported for {runtime}: `andon export {run} --format {runtime}` does it"
        )
    model = open_model(network, runtime, threads=threads)
    folder = detector_folder(run)
    if not (folder / "detector.json").is_file():
        return model
    fitted = Calibration.from_json(read_description(folder)["calibration"])
    if fitted.scores != model.fitted().scores:
        raise DataError(
            f"{network} was exported from another detector than the one that is there now: `andon export {run} --format "
            f"{runtime}` makes it anew"
        )
    calibration = with_changes(fitted, read_changes(folder))
    return Model(model.session, model.description | {"calibration": calibration.to_json()}, str(network))
