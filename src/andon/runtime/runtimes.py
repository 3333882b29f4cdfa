"""The runtimes that execute an exported network. ONNX Runtime and OpenVINO live here."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from andon.core.errors import ConfigError, DataError
from andon.core.files import file_sha256, from_json

RUNTIMES = ("onnx", "openvino")
"""Runtimes of exported networks; a run folder can besides be executed by torch."""
METADATA = "andon"
"""Key under which a network file holds its description (JSON)."""
WEIGHTS_DIGEST = "bin_sha256"
"""Key in the description of an .xml: hash of its .bin. Files of earlier exports have none."""
FILE_DIGEST = "file_sha256"
"""Key in the description: hash of the file with `UNSEALED` in the place of the hash. Files of earlier exports have none."""
UNSEALED = "unsealed".ljust(64, "-")
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}
"""Which runtime a network file is made for."""


class Outputs(NamedTuple):
    """Outputs of an exported network for B images."""

    raw_score: npt.NDArray[np.float32]
    """(B,), as the detector computes it."""
    score: npt.NDArray[np.float32]
    """(B,): 0 = a typical good image, 1 = the threshold as it was at the export."""
    anomaly_map: npt.NDArray[np.float32]
    """(B, H, W) at the images' own size: 0 = a typical good pixel, 1 = the pixel threshold as it was at the export."""


class Session(Protocol):
    """A network ready to run on this machine."""

    name: str
    """`onnx` or `openvino`, with the version of the runtime."""

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Run the network on (B, H, W, 3) images of one size."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A network file that was opened."""

    session: Session
    description: dict[str, Any]
    """What `andon export` wrote into it."""


def open_session(path: Path, runtime: str | None = None, *, threads: int | None = None) -> Opened:
    """Open a network file (.onnx, or .xml with its .bin) with a runtime (default: the one its suffix names).

    Raises `ConfigError` for a runtime that is unknown, not installed or does not read such a file, `DataError` for a file that
    is none of andon's.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"{path} is no exported network: give a .onnx or .xml file made by `andon export`, or a run folder"
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path, or make it with `andon export`")
    chosen = known_runtime(runtime or kind)
    if (kind, chosen) == ("openvino", "onnx"):
        raise ConfigError(
            f"{path} is made for openvino, which reads .xml and .onnx files, and onnx reads .onnx files alone: "
            "leave --runtime out, or export with --format onnx"
        )
    session, description = _OPENERS[chosen](path, threads)
    said = description.get(FILE_DIGEST)
    if said is not None and said != _digest(path.read_bytes().replace(str(said).encode(), UNSEALED.encode())):
        raise DataError(f"{path} has changed since it was exported: bring back the file, or export again")
    return Opened(session, description)


def sealed(content: bytes) -> bytes:
    """The content of a network file with its `FILE_DIGEST` in the place of `UNSEALED`."""
    place = UNSEALED.encode()
    assert content.count(place) == 1
    return content.replace(place, _digest(content).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def known_runtime(runtime: str) -> str:
    """Return `runtime`. Raises `ConfigError` where there is no such runtime, or where it is not installed."""
    from importlib.util import find_spec

    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is unknown: choose one of {', '.join(RUNTIMES)}")
    package = PACKAGES[runtime]
    if find_spec(package) is None:
        raise ConfigError(
            f"runtime {runtime} needs the package {package}, which is not installed: pip install {package}"
        )
    return runtime


def _open_onnx(path: Path, threads: int | None) -> tuple[Session, dict[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads or 0
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":  # as for PyTorch's threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises kinds of its own for damaged files
        raise _damaged(path, error) from error
    found = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return OnnxSession(session, f"onnx {onnxruntime.__version__}"), _description(path, found)


def _open_openvino(path: Path, threads: int | None) -> tuple[Session, dict[str, Any]]:
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 would move scores
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        found = _openvino_metadata(model, path)
    except Exception as error:  # the runtime raises RuntimeError for everything
        raise _damaged(path, error) from error
    description = _description(path, found)
    weights = path.with_suffix(".bin")
    if WEIGHTS_DIGEST in description and description[WEIGHTS_DIGEST] != file_sha256(weights):
        raise DataError(
            f"{weights} is not the file that was exported with {path.name}: bring back the two files of one "
            "export, or export again"
        )
    try:
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:
        raise _damaged(path, error) from error
    return OpenVinoSession(compiled, f"openvino {openvino.__version__.split('-')[0]}"), description


def _openvino_metadata(model: Any, path: Path) -> str | None:
    """The description in an OpenVINO file, or in the ONNX file that was read by OpenVINO."""
    for place in ([METADATA], ["framework", METADATA]):
        if model.has_rt_info(place):
            return str(model.get_rt_info(place).astype(str))
    return None


_OPENERS = {"onnx": _open_onnx, "openvino": _open_openvino}


class OnnxSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, session: Any, name: str) -> None:
        self._session, self.name = session, name

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        return Outputs(*self._session.run(list(Outputs._fields), {"images": images}))


class OpenVinoSession:
    """OpenVINO on the CPU, in float32."""

    def __init__(self, compiled: Any, name: str) -> None:
        self._compiled, self.name = compiled, name

    def __call__(self, images: npt.NDArray[np.uint8]) -> Outputs:
        found = self._compiled([images])
        return Outputs(*(np.array(found[name]) for name in Outputs._fields))


def _description(path: Path, text: str | None) -> dict[str, Any]:
    try:
        found = from_json(text or "")
    except ValueError as error:
        raise DataError(
            f"{path} holds no description by andon, so its scores have no meaning here: export it with `andon export`"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a description that is none of andon's: export it with `andon export`")
    return found


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return DataError(f"{path} cannot be opened ({reason[:200]}): export it again")
