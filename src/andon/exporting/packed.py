"""One file that holds a detector and check images, by which every machine proves that it predicts as the one that made it.

PART.andon is a zip archive (no pickle) whose last 64 bytes are the hash of all others:

    manifest.json        format, versions, origin of weights and data, size and hash of every member
    recipe.yaml          how the detector was fitted
    detector/            detector.json (settings, thresholds, the scores behind them), state.safetensors, thresholds.json
    model.onnx           the same network for other runtimes, where it can be exported
    tests.json           truth and raw score of each image of the last evaluation, where there was one
    checks.json          expected raw score and verdict of the check images
    checks/000.png ...   the check images, as decoded; .tif where they have more than 8 bits
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from andon.core.errors import AndonError, ConfigError, DataError, UsageError
from andon.core.files import from_json, write_bytes
from andon.core.images import as_uint8, read_image
from andon.core.records import Record
from andon.core.tiling import Pixels
from andon.core.version import VERSION
from andon.detectors._saving import read_calibration
from andon.exporting.pack_contents import (
    FEWEST_CHECKS,
    FORMAT,
    MOST_CHECKS,
    Check,
    check_length,
    check_members,
    checked_manifest,
    image_member,
    read_checks,
    read_image_member,
    read_tests,
    wrong_content,
)
from andon.runtime import Model
from andon.runtime.runtimes import PACKAGES, known_runtime, open_session
from andon.thresholds.calibration import Calibration
from andon.thresholds.evidence import Labelled
from andon.thresholds.history import FILE

if TYPE_CHECKING:
    from andon.detectors._base import Detector

SUFFIX = ".andon"
TOLERANCE = 1e-3
"""Largest difference of a check image's score, in display units (0 = typical good, 1 = threshold)."""
DIGEST = 64
"""Hexadecimal digits at the end of the file."""
RUNTIMES = ("torch", "onnx", "openvino")


class ProofError(AndonError):
    """A packed detector does not predict here as it did where it was made."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came out when the check images were scored here."""

    runtime: str
    images: int
    difference: float
    """Largest difference of a score, in display units."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"runtime": self.runtime, "pictures": self.images, "difference": self.difference}


def pack(
    run: Path,
    path: Path,
    good: Sequence[Record],
    others: Sequence[Record] = (),
    *,
    recipe: Mapping[str, Any],
    tests: Labelled | None = None,
) -> dict[str, Any]:
    """Write the fitted detector of a run, whose recipe.yaml says `recipe`, as one file; returns its manifest.

    `tests` are scores of images whose truth is known, by which thresholds are chosen later.

    Check images are taken evenly from `good` and from `others` (defective ones, where there are some). Raises `DataError`
    where there are too few, and `ConfigError` for a detector that looks at depth.
    """
    from andon.detectors._saving import load_detector
    from andon.exporting.network import refuse_depth

    detector = load_detector(run)
    refuse_depth(detector, "a packed detector")
    exact = bool(detector.fitted().too_deep) or detector.fitted().seen is None
    chosen = _chosen(good, others)
    members: dict[str, bytes] = {
        "recipe.yaml": (run / "recipe.yaml").read_bytes(),
        **{
            f"detector/{name}": (run / "detector" / name).read_bytes()
            for name in ("detector.json", "state.safetensors", FILE)
            if name != FILE or (run / "detector" / name).exists()
        },
    }
    checks, images = [], []
    for k, record in enumerate(chosen):
        read = read_image(detector.as_learned(record))
        name, content = image_member(f"checks/{k:03d}", read, exact=exact)
        pixels = read_image_member(path, name, content)
        found = next(detector.judged([pixels], ahead=0))
        if found.error:
            raise DataError(f"{record.image}: {found.error}: a check picture needs a score, leave it out")
        checks.append(
            {
                "file": name,
                "raw_score": found.raw_score,
                "is_anomalous": found.is_anomalous,
                "origin": record.id,
            }
        )
        members[name] = content
        images.append(pixels)
    members["checks.json"] = _json(checks)
    if tests:
        members["tests.json"] = _json([[name, bad, score] for name, (bad, score) in tests.items()])
    network, why_not = _network(detector, images)
    if network is not None:
        members["model.onnx"] = network
    manifest = _manifest(recipe, detector, members, why_not)
    members["manifest.json"] = _json(manifest)
    write_bytes(path, _sealed(members))
    return manifest


def _chosen(good: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    """Up to `FEWEST_CHECKS` images, spread evenly over those given, half of them defective where there are some."""
    half = min(len(others), FEWEST_CHECKS // 2)
    found = [*_spread(good, FEWEST_CHECKS - half), *_spread(others, half)]
    if len(found) < FEWEST_CHECKS:
        found = [*_spread(good, len(good)), *_spread(others, len(others))][:MOST_CHECKS]
    if len(found) < FEWEST_CHECKS:
        raise DataError(
            f"a packed detector carries at least {FEWEST_CHECKS} check pictures and there are {len(found)}: "
            "name a folder with more of them with --data"
        )
    return found


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    return [
        records[k]
        for k in sorted({round(x) for x in np.linspace(0, len(records) - 1, min(count, len(records)))})
    ]


def _network(detector: Detector, images: Sequence[Pixels]) -> tuple[bytes | None, str]:
    """The detector as ONNX file, or why there is none."""
    from andon.exporting.network import export

    if detector.fitted().too_deep:
        return None, detector.fitted().too_deep
    eight = [as_uint8(pixels) for pixels in images if pixels.dtype == np.uint8]
    if len(eight) < len(images):
        return None, "the pictures have more than 8 bits, which a network file rounds to 8"
    with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
        path = Path(scratch) / "model.onnx"
        try:
            export(detector, path, images=eight)
        except AndonError as error:
            return None, str(error)
        return path.read_bytes(), ""


def _manifest(
    recipe: Mapping[str, Any], detector: Detector, members: Mapping[str, bytes], why_not: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "andon": VERSION,
        "detector": detector.name,
        "recipe": recipe["name"],
        "versions": recipe.get("versions", {}),
        "weights": list(detector.used_weights),
        "data": recipe["data"],
        "network": why_not or "model.onnx",
        "members": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(members.items())
        },
    }


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=1, allow_nan=False).encode()


def _sealed(members: Mapping[str, bytes]) -> bytes:
    """A zip archive, the same for the same members, that ends with its own hash."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(members, key=lambda name: (name != "manifest.json", name)):
            entry = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            archive.writestr(entry, members[name], zipfile.ZIP_STORED)
        archive.comment = b"0" * DIGEST
    content = stream.getvalue()[:-DIGEST]
    return content + hashlib.sha256(content).hexdigest().encode()


# Opening -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed file whose content was found whole."""

    path: Path
    manifest: dict[str, Any]
    members: dict[str, bytes]

    def checks(self) -> list[Check]:
        """The check images with scores and verdicts. Raises `DataError` where they are not what `pack` writes."""
        return read_checks(self.path, self.members)

    def tests(self) -> Labelled:
        """Truth and raw score of the images of the last evaluation; empty where the file holds none. Raises `DataError`."""
        return read_tests(self.path, self.members)

    def image(self, check: Check) -> Pixels:
        """(H, W, 3) pixels of a check image. Raises `DataError` where it is not what `pack` writes."""
        return read_image_member(self.path, check.file, self.members[check.file])

    def open(self, runtime: str | None = None, *, threads: int | None = None) -> Detector | Model:
        """The detector (torch), or its network (onnx, openvino, auto: one of them that is installed, torch where there is none).

        By default torch where it is installed. Raises `ConfigError` for a runtime that is not here, `DataError` where the file
        holds no network.
        """
        no_network = self._no_network()
        chosen = self._automatic(no_network) if runtime == "auto" else runtime
        chosen = chosen or ("torch" if find_spec("torch") is not None else "onnx")
        if chosen not in RUNTIMES:
            raise ConfigError(f"runtime {chosen!r} is unknown: choose one of {', '.join(RUNTIMES)}")
        with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
            try:
                if chosen == "torch":
                    return self._torch(Path(scratch), threads)
                if no_network:
                    raise DataError(
                        f"{self.path} holds no network ({no_network}): PyTorch alone answers with it (--runtime torch), "
                        "a line does not"
                    )
                return self._network(Path(scratch), chosen, threads)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise wrong_content(self.path, "detector/detector.json") from error
            except UsageError as error:  # of a file in `scratch`, which is gone when the message is read
                raise type(error)(str(error).replace(scratch, str(self.path))) from error

    def _no_network(self) -> str:
        """Why other runtimes do not answer as PyTorch does; empty where they do."""
        if "model.onnx" not in self.members:
            return str(self.manifest["network"])
        try:
            described = from_json(self.members["detector/detector.json"])
            return Calibration.from_json(described["calibration"]).too_deep
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise wrong_content(self.path, "detector/detector.json") from error

    @staticmethod
    def _automatic(no_network: str) -> str | None:
        """The runtime that opens the file without PyTorch; None where there is none."""
        here = [name for name, package in PACKAGES.items() if find_spec(package) is not None]
        return here[0] if here and not no_network else None

    def _torch(self, scratch: Path, threads: int | None) -> Detector:
        if find_spec("torch") is None:
            raise ConfigError("runtime torch is not installed: use --runtime onnx, or pip install andon")
        from andon.detectors._saving import load_detector

        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._unpack_detector(scratch)
        return load_detector(scratch)

    def _unpack_detector(self, scratch: Path) -> None:
        for name, content in self.members.items():
            if name.startswith("detector/"):
                write_bytes(scratch / name.removeprefix("detector/"), content)

    def _network(self, scratch: Path, runtime: str, threads: int | None) -> Model:
        known_runtime(runtime)
        write_bytes(scratch / "model.onnx", self.members["model.onnx"])
        found = open_session(scratch / "model.onnx", runtime, threads=threads)
        self._unpack_detector(scratch)
        return Model(found.session, found.description, str(self.path), read_calibration(scratch))

    def prove(self, predictor: Detector | Model) -> Proof:
        """Score the check images here. Raises `ProofError` where a score or a verdict is not as it was."""
        display, largest = predictor.fitted().score_display, 0.0
        for check in self.checks():
            try:
                found = next(predictor.judged([self.image(check)], ahead=0))
            except RuntimeError as error:  # PyTorch's, of settings and numbers that do not fit each other
                raise wrong_content(self.path, "detector/detector.json") from error
            expected = float(display(np.float32(check.raw_score)))
            difference = abs(found.score - expected) / max(1.0, abs(expected))
            if found.error or not difference <= TOLERANCE or found.is_anomalous != check.is_anomalous:
                raise ProofError(
                    f"{self.path} does not answer here ({predictor.runtime}) as where it was made: {check.file} scores "
                    f"{found.score:.4f} "
                    f"({_verdict(found.is_anomalous)}) instead of {expected:.4f} ({_verdict(check.is_anomalous)}); "
                    "do not use it on this machine with this runtime"
                )
            largest = max(largest, difference)
        return Proof(predictor.runtime, len(self.checks()), largest)


def _verdict(is_anomalous: bool) -> str:
    return "NG" if is_anomalous else "OK"


def read_pack(path: Path) -> Packed:
    """Read a packed file and check that it is whole.

    Raises `DataError` for a file that is none, is damaged or was changed, holds what this andon does not know, or lacks
    what it needs.
    """
    try:
        check_length(path)
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            check_members(path, entries, len(content))
            members = {entry.filename: archive.read(entry) for entry in entries}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path, or make it with `andon pack`") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} is no packed detector, or damaged ({error}): bring back the original"
        ) from error
    manifest = checked_manifest(path, members)
    whole = hashlib.sha256(content[:-DIGEST]).hexdigest().encode() == content[-DIGEST:]
    if not whole:
        raise DataError(
            f"{path} was changed after it was made: bring back the original, or pack the run again"
        )
    return Packed(path, manifest, members)


def open_pack(path: Path, runtime: str | None = None, *, threads: int | None = None) -> Detector | Model:
    """Read a packed detector, let it prove itself on this machine with a runtime, and return it.

    Raises `DataError` where the file is not whole, `ConfigError` where the runtime is not here, `ProofError` where the
    predictions are not those of the machine that made it.
    """
    packed = read_pack(path)
    predictor = packed.open(runtime, threads=threads)
    packed.prove(predictor)
    return predictor
