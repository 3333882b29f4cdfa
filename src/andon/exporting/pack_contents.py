"""What a packed file may hold: members and their sizes, manifest, list of check images. Checked before anything is used.

A file whose hashes are right may still hold what `andon pack` never writes. Each such file is a `DataError` of one line.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.errors import DataError
from andon.core.files import from_json, write_bytes
from andon.core.image_files import decode, max_pixels, save_exactly
from andon.core.images import as_uint8
from andon.core.tiling import Pixels

FORMAT = 1
MEMBERS = re.compile(
    r"manifest\.json|recipe\.yaml|checks\.json|tests\.json|model\.onnx|detector/(detector\.json|state\.safetensors|thresholds\.json)|checks/\d{3}\.(png|tif)"
)
"""What a packed file may hold, and nothing else."""
NEEDED = ("recipe.yaml", "checks.json", "detector/detector.json", "detector/state.safetensors")
LONGEST = 8_000_000_000
"""Bytes of a packed file that is read."""
TEXT_BYTES, IMAGE_BYTES, STATE_BYTES = 50_000_000, 200_000_000, 4_000_000_000
"""Largest member that is text, a check image, or the learned state or the network."""
FEWEST_CHECKS, MOST_CHECKS = 10, 50


@dataclass(frozen=True, slots=True)
class Check:
    """An image of known score and verdict."""

    file: str
    raw_score: float
    is_anomalous: bool
    origin: str
    """Path of the image it was taken from, relative to its data set."""


def wrong_content(path: Path, name: str) -> DataError:
    """The error for a member whose content is not what `pack` writes."""
    return DataError(
        f"{path}: {name} is not what `andon pack` writes: bring back the original, or pack the run again"
    )


def check_length(path: Path) -> None:
    """Raise `DataError` for a file that is too long to be read into memory."""
    if path.stat().st_size > LONGEST:
        raise DataError(f"{path} is longer than {LONGEST} bytes: it is no packed detector")


def check_members(path: Path, entries: Sequence[zipfile.ZipInfo], length: int) -> None:
    """Raise `DataError` for members that `pack` does not write, before any is unpacked; `length`: bytes of the file."""
    names = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        if not MEMBERS.fullmatch(name):
            raise DataError(f"{path} holds {name!r}, which this andon does not know: nothing of it is used")
        if names.count(name) > 1 or entry.compress_type != zipfile.ZIP_STORED:
            raise DataError(
                f"{path} holds {name} twice or compressed, which `andon pack` never does: it is no packed detector"
            )
        if entry.file_size > _largest(name):
            raise DataError(
                f"{path}: {name} has {entry.file_size} bytes, at most {_largest(name)} are read: it is no packed detector"
            )
    if sum(entry.file_size for entry in entries) > length:
        raise DataError(f"{path} states more bytes than it has: bring back the original")
    if "manifest.json" not in names:
        raise DataError(
            f"{path} holds no manifest.json, so it is no packed detector: make one with `andon pack`"
        )


def _largest(name: str) -> int:
    """Bytes that a member may have."""
    if name.startswith("checks/"):
        return IMAGE_BYTES
    return STATE_BYTES if name.endswith((".onnx", ".safetensors")) else TEXT_BYTES


def checked_manifest(path: Path, members: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest, after every member was found to be as it says."""
    try:
        manifest = from_json(members["manifest.json"])
        made = manifest["format"]
        hashes = {name: member["sha256"] for name, member in manifest.get("members", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} has a damaged manifest: bring back the original") from error
    if made != FORMAT:
        raise DataError(
            f"{path} has pack format {made} (made by andon {manifest.get('andon', '?')}), this andon reads {FORMAT}: "
            "use that andon, or pack the run again"
        )
    missing = [name for name in (*hashes, *NEEDED) if name not in members]
    if missing:
        raise DataError(f"{path} lacks {missing[0]}: bring back the original, or pack the run again")
    for name, content in members.items():
        if name == "manifest.json":
            continue
        if hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise DataError(
                f"{path}: {name} was changed after it was made: bring back the original, or pack the run again"
            )
    if not isinstance(manifest.get("network"), str):
        raise wrong_content(path, "manifest.json")
    return dict(manifest)


def read_checks(path: Path, members: Mapping[str, bytes]) -> list[Check]:
    """The check images that checks.json lists. Raises `DataError` where they are too few to prove anything, or damaged."""
    try:
        checks = [_check(values) for values in from_json(members["checks.json"])]
    except (ValueError, TypeError, KeyError) as error:
        raise wrong_content(path, "checks.json") from error
    names = {check.file for check in checks}
    if not FEWEST_CHECKS <= len(names) == len(checks) <= MOST_CHECKS:
        raise DataError(
            f"{path} lists {len(names)} different check pictures, {FEWEST_CHECKS} to {MOST_CHECKS} are needed to prove it: "
            "bring back the original, or pack the run again"
        )
    absent = sorted(names - members.keys())
    if absent:
        raise DataError(f"{path} lacks {absent[0]}: bring back the original, or pack the run again")
    return checks


def image_member(stem: str, pixels: npt.NDArray[np.float32], *, exact: bool) -> tuple[str, bytes]:
    """Name and content of a check image (H, W, 3) in [0, 1]: PNG of 8 bits, or with `exact` TIFF of 16 where it has more."""
    if exact:
        with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
            made = save_exactly(Path(scratch) / "check", pixels)
            return f"{stem}{made.suffix}", made.read_bytes()
    stream = io.BytesIO()
    Image.fromarray(as_uint8(pixels)).save(stream, format="PNG")
    return f"{stem}.png", stream.getvalue()


def read_image_member(path: Path, name: str, content: bytes) -> Pixels:
    """(H, W, 3) of a check image. Raises `DataError` where it is no RGB PNG or 16-bit TIFF below the limit of pixels."""
    try:
        if name.endswith(".tif"):
            return _sixteen_bits(content)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
            if opened.mode != "RGB" or opened.width * opened.height > max_pixels():
                raise ValueError(f"{opened.mode}, {opened.width} x {opened.height}")
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError, DataError) as error:  # SyntaxError: Pillow, for broken PNG
        raise wrong_content(path, name) from error


def _sixteen_bits(content: bytes) -> Pixels:
    with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
        file = Path(scratch) / "check.tif"
        write_bytes(file, content)
        decoded = decode(file)
    if decoded.mode != "RGB;16":
        raise ValueError(decoded.mode)
    return np.asarray(decoded.pixels, np.float32)


def read_tests(path: Path, members: Mapping[str, bytes]) -> dict[str, tuple[bool, float]]:
    """Whether each test image is anomalous, and its raw score, by id; empty where the file holds none. Raises `DataError`."""
    if "tests.json" not in members:
        return {}
    try:
        found = {str(name): (bad, score) for name, bad, score in from_json(members["tests.json"])}
        if not all(isinstance(bad, bool) and _is_finite(score) for bad, score in found.values()):
            raise ValueError("a field has another type")
    except (ValueError, TypeError) as error:
        raise wrong_content(path, "tests.json") from error
    return found


def _is_finite(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)


def _check(values: Any) -> Check:
    """A check image as checks.json describes it. Raises `ValueError` or `TypeError` where fields or types differ."""
    check = Check(**values)
    texts, score = (check.file, check.origin), check.raw_score
    if not all(isinstance(text, str) for text in texts) or not isinstance(check.is_anomalous, bool):
        raise TypeError("a field has another type")
    if not _is_finite(score):
        raise ValueError("the score is no finite number")
    return check
