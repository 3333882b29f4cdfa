"""Features of frozen backbones, computed once per image and cached on disk.

A file's key is the hash of the image's bytes (and of the inspected region, if there is one), in a folder named by the backbone's
fingerprint (network, weights, taps, padding, size). Features are float32, so the cache never changes a result. A file is
safetensors preceded by its SHA-256; a damaged file is computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from andon.core.errors import OutputError
from andon.core.files import checked, file_sha256, with_checksum, write_bytes
from andon.core.images import UNCHANGED, View, batches
from andon.core.paths import cache_dir
from andon.core.progress import NoProgress, Progress, track
from andon.core.records import Record
from andon.nn.backbones import Backbone

BATCH_SIZE = 4


class FeatureCache:
    """Features of images under one backbone.

    `directory=None` uses `<home>/features`; `enabled=False` computes without touching the disk.
    """

    def __init__(self, backbone: Backbone, *, directory: Path | None = None, enabled: bool = True) -> None:
        self.backbone = backbone
        root = directory if directory is not None else cache_dir() / "features"
        self.directory = root / backbone.fingerprint()[:32]
        self.enabled = enabled
        self.computed = 0
        """Images extracted by this object, not found in the cache."""

    def load(
        self,
        records: Sequence[Record],
        *,
        view: View = UNCHANGED,
        progress: Progress | None = None,
        what: str = "features",
    ) -> dict[str, Tensor]:
        """Features of all records, {tap: (N, C, h, w)} float32 on the CPU, from the cache where possible."""
        files = self._files(records, view)
        out = {tap: torch.empty(len(records), *shape) for tap, shape in self.backbone.shapes.items()}
        missing = [k for k, file in enumerate(files) if not (self.enabled and self._read(file, out, k))]
        first = {files[k]: k for k in reversed(missing)}  # images with the same content are extracted once
        self._extract(records, files, sorted(first.values()), out, view, progress or NoProgress(), what)
        for k in sorted(set(missing) - set(first.values())):
            for tap in out.values():
                tap[k] = tap[first[files[k]]]
        return out

    def _files(self, records: Sequence[Record], view: View) -> list[Path]:
        with ThreadPoolExecutor(2) as pool:
            digests = list(pool.map(_image_hash, (record.image for record in records)))
        view_key = f"-{view.key}" if view.key else ""
        keys = [
            digest + view_key + _area_key(record) for digest, record in zip(digests, records, strict=True)
        ]
        return [self.directory / key[:2] / f"{key}.features" for key in keys]

    def _read(self, file: Path, out: dict[str, Tensor], k: int) -> bool:
        """Copy a cached file into row k; False if it is missing or damaged."""
        try:
            body = checked(file.read_bytes())
        except (OSError, ValueError):
            return False
        for tap, value in load(body).items():
            out[tap][k] = value
        return True

    def _extract(
        self,
        records: Sequence[Record],
        files: Sequence[Path],
        missing: Sequence[int],
        out: dict[str, Tensor],
        view: View,
        progress: Progress,
        what: str,
    ) -> None:
        size = self.backbone.config.image_size
        position = 0
        stream = batches([records[k] for k in missing], (size, size), BATCH_SIZE, view=view)
        for batch in track(progress, stream, f"extracting {what}", -(-len(missing) // BATCH_SIZE)):
            with torch.inference_mode():
                features = self.backbone(batch.image.to(self.backbone.mean.device))
            for row in range(len(batch.records)):
                k = missing[position]
                single = {tap: value[row].float().cpu().contiguous() for tap, value in features.items()}
                for tap, value in single.items():
                    out[tap][k] = value
                if self.enabled:
                    self._write(files[k], single)
                position += 1
                self.computed += 1

    def _write(self, file: Path, features: dict[str, Tensor]) -> None:
        with contextlib.suppress(OutputError, OSError):  # a full disk must not stop the run
            write_bytes(file, with_checksum(save(features)))


def _area_key(record: Record) -> str:
    """Part of the key: the inspected region, if there is one, and the bit depth, unless it is that of the file."""
    area = "" if record.region is None else f"-area{record.region.sha256[:32]}"
    return area if record.bit_depth == 16 else f"{area}-bits{record.bit_depth}"


def _image_hash(path: Path) -> str:
    with contextlib.suppress(OSError):
        return file_sha256(path)
    return "unreadable"  # decoding raises the error
