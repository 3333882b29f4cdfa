"""Frozen features, computed once per picture and kept on disk.

The key of a cached file is the hash of the picture's bytes under the fingerprint of the extractor (network, weights,
taps, padding, size). Features are float32: the cache never changes a result.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from andon.backbones import Backbone
from andon.errors import OutputError
from andon.files import write_bytes
from andon.home import cache_dir
from andon.images import WHOLE, View, batches
from andon.progress import NoProgress, Progress, track
from andon.structures import Record

BATCH_SIZE = 4


class FeatureCache:
    """Features of pictures under one backbone.

    `directory=None` uses `<home>/features`; `enabled=False` computes without touching the disk.
    """

    def __init__(self, backbone: Backbone, *, directory: Path | None = None, enabled: bool = True) -> None:
        self.backbone = backbone
        root = directory if directory is not None else cache_dir() / "features"
        self.directory = root / backbone.fingerprint()[:32]
        self.enabled = enabled
        self.computed = 0
        """Pictures that had to be extracted by this object."""

    def load(
        self, records: Sequence[Record], *, view: View = WHOLE, progress: Progress | None = None, what: str = "features"
    ) -> dict[str, Tensor]:
        """Features of all records, {tap: (N, C, h, w)} float32 on the CPU; each picture is extracted at most once ever."""
        files = self._files(records, view)
        missing = [k for k, file in enumerate(files) if not (self.enabled and file.is_file())]
        shapes = self.backbone.shapes
        out = {tap: torch.empty(len(records), *shape) for tap, shape in shapes.items()}
        for k in sorted(set(range(len(records))) - set(missing)):
            if not self._read(files[k], out, k):
                missing.append(k)
        self._extract(records, files, sorted(missing), out, view, progress or NoProgress(), what)
        return out

    def _files(self, records: Sequence[Record], view: View) -> list[Path]:
        with ThreadPoolExecutor(2) as pool:
            digests = list(pool.map(_picture_hash, (record.image for record in records)))
        kind = "" if view == WHOLE else f"-{'zoom' if view.zoom else 'whole'}-{view.colour}"
        return [self.directory / digest[:2] / f"{digest}{kind}.safetensors" for digest in digests]

    def _read(self, file: Path, out: dict[str, Tensor], k: int) -> bool:
        """Copy a cached file into row k; a damaged one is treated as absent."""
        try:
            for tap, value in load(file.read_bytes()).items():
                out[tap][k] = value
        except (SafetensorError, OSError, KeyError, RuntimeError):
            return False
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
        with contextlib.suppress(OutputError):  # a full disk costs speed, not the run
            write_bytes(file, save(features))


def _picture_hash(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return "unreadable"  # decoding it will say why
