"""Features of the good images of a run, kept in a file for a later fit with further images.

The file is safetensors: one float32 tensor for each image, named by `content_key`, and in its metadata the size
of the image and the hash of the tensor. What is damaged, or was made by other weights or settings, is extracted again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from andon.core.errors import OutputError
from andon.core.files import from_json, writing
from andon.core.records import Record
from andon.datasets.dataset import content_key

STORED_ROOM = 2**30
"""Bytes of features that a run keeps; where those of all images take more, none are kept."""


class StoredFeatures:
    """Features (...) by image: those an earlier fit kept, and those that `keep` adds for the next one."""

    def __init__(self, made_by: str, *, room: int = STORED_ROOM) -> None:
        """`made_by` tells apart what features depend on beside the image."""
        self.made_by = made_by
        self.complete = True
        """Whether the features of all images passed to `keep` fit into `room` bytes."""
        self._left = room
        self._file: Path | None = None
        self._earlier: dict[str, tuple[int, int, str]] = {}
        self._kept: dict[str, tuple[Tensor, tuple[int, int]]] = {}

    @classmethod
    def read(cls, file: Path, made_by: str, *, room: int = STORED_ROOM) -> StoredFeatures:
        """With the features in `file`, none where it is missing, unreadable or was made by something else."""
        stored = cls(made_by, room=room)
        try:
            with safe_open(file, "pt") as content:
                about = content.metadata() or {}
            if about.get("made_by") == made_by:
                stored._earlier = {
                    key: (h, w, sha) for key, (h, w, sha) in from_json(about["images"]).items()
                }
                stored._file = file
        except (OSError, SafetensorError, KeyError, ValueError):
            stored._earlier = {}
        return stored

    def find(self, record: Record) -> tuple[Tensor, tuple[int, int]] | None:
        """Features of an image on the CPU and its size (H, W); None where they are not known."""
        key = content_key(record)
        if key not in self._kept and self._file is not None and key in self._earlier:
            height, width, sha = self._earlier[key]
            try:
                with safe_open(self._file, "pt") as content:
                    features: Tensor = content.get_tensor(key)
            except (OSError, SafetensorError):
                return None
            if _hash(features) != sha:
                return None
            self.keep(record, features, (height, width))
            return features, (height, width)
        return self._kept.get(key)

    def keep(self, record: Record, features: Tensor, size: tuple[int, int]) -> None:
        """Keep the features of an image (H, W), as long as there is room."""
        key = content_key(record)
        if not self.complete or key in self._kept:
            return
        self._left -= features.nbytes
        if self._left < 0:
            self.complete = False
            self._kept.clear()
        else:
            self._kept[key] = features.cpu(), size

    def write(self, file: Path) -> None:
        """Write what was kept, if anything; nothing is written where the disk is full."""
        if not self._kept:
            return
        tensors = {key: features.contiguous().numpy() for key, (features, _) in self._kept.items()}
        images = {key: (*size, _hash(features)) for key, (features, size) in self._kept.items()}
        with contextlib.suppress(OutputError, OSError, SafetensorError), writing(file) as part:
            save_file(tensors, part, metadata={"made_by": self.made_by, "images": json.dumps(images)})


def _hash(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().data).hexdigest()
