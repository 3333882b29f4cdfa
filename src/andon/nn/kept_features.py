"""Features of images by a frozen network, extracted once as far as they fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from andon.core.images import chunks, load_batch, prefetch
from andon.core.progress import track
from andon.core.records import Batch, Record
from andon.nn.stored_features import StoredFeatures
from andon.nn.training import Trainer

BATCH = 8
"""Images whose features are computed at a time."""
ROOM = 2 * 2**30
"""Bytes of features that are kept."""


class KeptFeatures:
    """Features of images by their position; those beyond `room` bytes are extracted again whenever they are asked for."""

    def __init__(
        self,
        records: Sequence[Record],
        extract: Callable[[Tensor], Tensor],
        size: tuple[int, int],
        trainer: Trainer,
        *,
        room: int = ROOM,
    ) -> None:
        """`extract` maps images (B, 3, h, w) of the given size, on the trainer's device, to features (B, ...)."""
        self.records = records
        self.sizes: dict[int, tuple[int, int]] = {}
        """(H, W) of each image that was read."""
        self._extract, self._size, self._trainer, self._room = extract, size, trainer, room
        self._kept: dict[int, Tensor] = {}
        if trainer.features is not None:
            self._take_stored(trainer.features)

    def __len__(self) -> int:
        return len(self.records)

    def keep(self) -> None:
        """Extract the features of as many images as there is room for."""
        for batch in self.batches():
            if self._room < batch.nbytes:
                break

    def batches(
        self, chosen: Sequence[int] | None = None, what: str = "extracting features"
    ) -> Iterator[Tensor]:
        """(B, ...) features of the chosen images (all by default) in their order; threads decode in advance."""
        wanted = range(len(self.records)) if chosen is None else chosen
        stream = prefetch(self._load, chunks(wanted, BATCH))
        for positions, missing, images in track(
            self._trainer.progress, stream, what, -(-len(wanted) // BATCH)
        ):
            fresh = {} if images is None else self._fresh(missing, images)
            yield torch.stack([fresh[k] if k in fresh else self._kept[k] for k in positions])

    def _take_stored(self, stored: StoredFeatures) -> None:
        """Take over features that an earlier fit kept, while there is room."""
        for k, record in enumerate(self.records):
            found = stored.find(record)
            if found is not None and self._room >= found[0].nbytes:
                features, self.sizes[k] = found
                self._room -= features.nbytes
                self._kept[k] = features.to(self._trainer.device)

    def _load(self, positions: list[int]) -> tuple[list[int], list[int], Batch | None]:
        """The positions, those without kept features, and the images of these."""
        missing = [k for k in positions if k not in self._kept]
        images = load_batch([self.records[k] for k in missing], self._size) if missing else None
        return positions, missing, images

    def _fresh(self, missing: Sequence[int], images: Batch) -> dict[int, Tensor]:
        """Features of images by position; kept while there is room."""
        with torch.no_grad():
            features = self._extract(images.image.to(self._trainer.device))
        found = dict(zip(missing, features, strict=True))
        self.sizes.update(zip(missing, images.sizes, strict=True))
        if self._room >= features.nbytes:
            self._room -= features.nbytes
            self._kept |= found
        if self._trainer.features is not None:
            for k, one in found.items():
                self._trainer.features.keep(self.records[k], one, self.sizes[k])
        return found
