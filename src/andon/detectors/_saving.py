"""The saved form of a detector: `detector.json` and `state.safetensors`, each known by its hash; no pickle anywhere.

The description is read without PyTorch too: an exported network in a run folder takes its thresholds from there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from andon.core.errors import DataError
from andon.core.files import from_json, write_bytes, write_json
from andon.core.listing import images_below
from andon.thresholds.calibration import Calibration
from andon.thresholds.history import FILE as CHANGES
from andon.thresholds.history import read_changes, with_changes

if TYPE_CHECKING:
    from andon.detectors._base import Detector

FORMAT = 2
"""Version of the saved form."""
ADDING, BEFORE = ".adding", "before"
"""Folder in which the new state of a run is prepared while images are added, and in it the one for the files it replaces."""


def save_detector(detector: Detector, folder: Path) -> None:
    """Write a fitted detector into `folder`. Raises `NotFittedError` before `fit`.

    The history of thresholds in `folder` stays where it is that of this detector, and goes where it is that of another one.
    """
    from safetensors.torch import save

    found = detector.fitted()
    content = save(
        {key: value.detach().cpu().contiguous().clone() for key, value in detector.state_dict().items()}
    )
    description = {
        "format": FORMAT,
        "detector": detector.name,
        "config": detector.config.model_dump(mode="json"),
        "calibration": found.to_json(),
        "weights": list(detector.used_weights),
        "input_size": list(detector.input_size),
        "state_sha256": hashlib.sha256(content).hexdigest(),
    }
    if (folder / CHANGES).exists():
        if _holds(folder, description):
            return
        # Without detector.json the folder is refused: thresholds never apply to another detector.
        (folder / "detector.json").unlink(missing_ok=True)
        (folder / CHANGES).unlink()
    write_bytes(folder / "state.safetensors", content)
    checksum = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    write_json(folder / "detector.json", description | {"sha256": checksum})


def _holds(folder: Path, description: dict[str, Any]) -> bool:
    """Whether this detector is saved in `folder`, with its current thresholds."""
    try:
        content = (folder / "state.safetensors").read_bytes()
        saved = read_description(folder) | {"calibration": read_calibration(folder).to_json()}
    except (DataError, OSError):
        return False
    same_state = hashlib.sha256(content).hexdigest() == description["state_sha256"]
    return same_state and json.dumps(saved, sort_keys=True) == json.dumps(description, sort_keys=True)


def load_detector(folder: str | Path) -> Detector:
    """Load a saved detector, ready to predict, with its current thresholds.

    Raises `DataError` when the folder holds none, or when a file was changed since it was saved.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from andon.detectors._registry import detector_class, is_known

    source = detector_folder(folder)
    description = read_description(source)
    try:
        content = (source / "state.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise _missing(folder, error) from error
    except OSError as error:
        raise DataError(
            f"{folder} holds a state.safetensors that cannot be read: fit again or bring back the original"
        ) from error
    if hashlib.sha256(content).hexdigest() != description["state_sha256"]:
        raise DataError(
            f"{source / 'state.safetensors'} was changed after it was saved: bring back the original or fit again"
        )
    if not is_known(description["detector"]):
        raise DataError(
            f"{source} was saved by the detector {description['detector']!r}, which is not installed: install its package"
        )
    cls = detector_class(description["detector"])
    detector = cls(cls.Config.parse(description["config"], where=str(source)), pretrained=False)
    try:
        detector.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise DataError(
            f"{source} holds a state that does not fit its settings: bring back the original or fit again"
        ) from error
    detector.used_weights = tuple(description["weights"])
    detector.calibration = with_changes(
        Calibration.from_json(description["calibration"]), read_changes(source)
    )
    return detector.eval()


def read_calibration(folder: Path) -> Calibration:
    """The current thresholds of a saved detector, without PyTorch. Raises what `read_description` and `read_changes` raise."""
    return with_changes(Calibration.from_json(read_description(folder)["calibration"]), read_changes(folder))


def detector_folder(path: str | Path) -> Path:
    """Where the detector of a run folder lies; `path` itself where it is one already."""
    inside = Path(path) / "detector"
    return inside if (inside / "detector.json").is_file() else Path(path)


def read_description(folder: Path) -> dict[str, Any]:
    """The checked content of `detector.json`, without its hash. Raises `DataError` for none, another format or a changed file."""
    try:
        description = from_json((folder / "detector.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(folder, error) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds a detector.json that cannot be read: fit again or bring back the original"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise DataError(
            f"{folder} has detector format {found}, this andon reads {FORMAT}: use the andon that wrote it, or fit again"
        )
    checksum = description.pop("sha256", "")
    if hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest() != checksum:
        raise DataError(
            f"{folder / 'detector.json'} was changed after it was saved: bring back the original or fit again"
        )
    return description


def how_to_make(run: Path) -> str:
    """What to type where `run` is taken for a run and is none."""
    if (run / ADDING / BEFORE).is_dir():
        return (
            f"adding pictures to it was cut short; add them again: `andon fit --add FOLDER {quote(str(run))}`"
        )
    if (run / "checkpoints").is_dir():
        return f"its fit was not finished: continue it with `andon fit ... --out {quote(str(run))} --resume`"
    if run.is_dir() and next(images_below(run), None) is not None:
        return f"it holds pictures; learn from good ones first: `andon fit {quote(str(run))}`"
    return "give a folder made by `andon fit FOLDER`"


def _missing(folder: str | Path, error: FileNotFoundError) -> DataError:
    name = Path(str(error.filename)).name
    return DataError(f"{folder} holds no detector ({name} is missing): {how_to_make(Path(folder))}")
