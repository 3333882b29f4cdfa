"""Features of images by a frozen network, extracted once as far as they fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from andon.core.images import chunks, load_batch, prefetch
from andon.core.progress import track
from andon.core.records import Record
from andon.nn.stored_features import StoredFeatures
from andon.nn.training import Trainer

BATCH = 8
"""Images whose features are computed at a time."""
ROOM = 2 * 2**30
"""Bytes of features that are kept."""
Sized = tuple[Tensor, tuple[int, int]]
"""Features of an image, and its (H, W)."""


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
        """(B, ...) features of the chosen images (all by default) in their order; threads extract in advance."""
        wanted = range(len(self.records)) if chosen is None else chosen
        stream = prefetch(self._read, chunks(wanted, BATCH))
        for positions, fresh in track(self._trainer.progress, stream, what, -(-len(wanted) // BATCH)):
            self._note(fresh)
            yield torch.stack([fresh[k][0] if k in fresh else self._kept[k] for k in positions])

    def _take_stored(self, stored: StoredFeatures) -> None:
        """Take over features that an earlier fit kept, while there is room."""
        for k, record in enumerate(self.records):
            found = stored.find(record)
            if found is not None and self._room >= found[0].nbytes:
                features, self.sizes[k] = found
                self._room -= features.nbytes
                self._kept[k] = features.to(self._trainer.device)

    def _read(self, positions: list[int]) -> tuple[list[int], dict[int, Sized]]:
        """The positions, and features and (H, W) of the images without kept ones.

        Called in threads: two images at a time keep two cores busier than one image with two threads.
        """
        missing = [k for k in positions if k not in self._kept]
        if not missing:
            return positions, {}
        images = load_batch([self.records[k] for k in missing], self._size)
        with torch.no_grad():
            features = self._extract(images.image.to(self._trainer.device))
        return positions, dict(zip(missing, zip(features, images.sizes, strict=True), strict=True))

    def _note(self, fresh: dict[int, Sized]) -> None:
        """Keep what was read while there is room."""
        nbytes = sum(features.nbytes for features, _ in fresh.values())
        has_room = self._room >= nbytes
        self._room -= nbytes * has_room
        for k, (features, size) in fresh.items():
            self.sizes[k] = size
            if has_room:
                self._kept[k] = features
            if self._trainer.features is not None:
                self._trainer.features.keep(self.records[k], features, size)
