"""Detectors that are fitted in closed form: features of a frozen network, an estimate from them, a judgement by it.

Fitting costs little, so that every good image can be scored by what was learned from the others (cross-fitting): a class of
this kind says how an estimate follows from features, and the features are extracted once for all folds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.core.text import plural
from andon.core.tiling import image_of
from andon.detectors._base import Analysis, Detector, DetectorConfig, raw_batch
from andon.nn.kept_features import ROOM, KeptFeatures
from andon.nn.training import Trainer
from andon.runtime.predictor import RawPrediction


class ClosedForm(Detector):
    """Base of detectors fitted in closed form; subclasses define `extract`, `estimate` and `analyse_features`."""

    closed_form = True
    reads_again: ClassVar[bool] = False
    """Whether `estimate` asks for the features of an image more than once."""

    def __init__(self, config: DetectorConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        if self.config.selection != "budget":
            raise ConfigError(
                f"{self.name} is fitted in closed form, it has no epochs to choose: selection={self.config.selection} is not "
                "possible, use budget"
            )

    # What a detector defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images to features (B, ...) that do not depend on what was learned from other images."""

    @abstractmethod
    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        """Learn from the chosen images alone."""

    @abstractmethod
    def analyse_features(self, features: Tensor) -> Analysis:
        """`analyse` of images with these features (B, ...)."""

    def extract_good(self, images: Tensor) -> Tensor:
        """(B, C, H, W) training images to what `estimate` reads (B, ...): `extract`, and maybe features of copies."""
        return self.extract(images)

    def as_extracted(self, features: Tensor) -> Tensor:
        """The part of `extract_good` (B, ...) that `extract` gives."""
        return features

    def begin(self, images: int, trainer: Trainer) -> None:
        """What comes before any of so many images is read: draws that `extract` depends on, checks of memory."""

    def estimate_without(
        self, features: KeptFeatures, folds: Sequence[Sequence[int]], trainer: Trainer
    ) -> Iterator[None]:
        """Learn without the images of the first fold, yield, without those of the second, and so on; at last from all.

        A detector whose estimate can be updated does so here.
        """
        everything = range(len(features))
        for fold in folds:
            left_out = set(fold)
            self.estimate(features, [k for k in everything if k not in left_out], trainer)
            yield
        self.estimate(features, everything, trainer)

    # What every such detector gets ---------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        return self.analyse_features(self.extract(images))

    @torch.no_grad()
    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        self.begin(len(train), trainer)
        features = KeptFeatures(
            train, self.extract_good, self.input_size, trainer, room=ROOM if self.reads_again else 0
        )
        self.estimate(features, range(len(train)), trainer)

    @torch.no_grad()
    def cross_fit(
        self, good: Sequence[Record], fold_of: Sequence[int], trainer: Trainer
    ) -> Iterator[RawPrediction]:
        with self.cut(good, trainer, "train") as parts:
            fold_of_id = dict(zip((record.id for record in good), fold_of, strict=True))
            part_folds = fold_of if self.tiling is None else [fold_of_id[image_of(tile)] for tile in parts]
            count = max(fold_of) + 1
            folds = [[k for k, fold in enumerate(part_folds) if fold == number] for number in range(count)]
            self._check_tiles(len(parts), max(map(len, folds)))
            self.begin(len(parts), trainer)
            features = KeptFeatures(parts, self.extract_good, self.input_size, trainer, room=ROOM)
            with trainer.timed("features"):
                features.keep()
            with trainer.progress.task("cross-fitting", count + 1) as bar, trainer.silent():
                for number, _ in enumerate(self.estimate_without(features, folds, trainer)):
                    if self.tiling is None:
                        yield from self._judged(features, folds[number], trainer)
                    else:
                        yield from self.scan(
                            [r for r, fold in zip(good, fold_of, strict=True) if fold == number]
                        )
                    bar.advance()

    def _check_tiles(self, tiles: int, fold: int) -> None:
        """Raise `DataError` where too few tiles are left without the largest fold."""
        if self.tiling is not None and tiles - fold < self.fewest_images:
            raise DataError(
                f"{plural(tiles, 'tile')} cannot give cross-fitted thresholds, since {self.name} needs {self.fewest_images} to "
                f"learn from and a fold leaves {tiles - fold}: raise tile.learn (now {self.config.tile.learn}) to at least the "
                "number of pictures"
            )

    def _judged(
        self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer
    ) -> Iterator[RawPrediction]:
        """Raw results of images from their features."""
        done = 0
        for batch in features.batches(chosen):
            with trainer.timed("calibration"):
                raw = raw_batch(self.analyse_features(self.as_extracted(batch)))
                found = []
                for row in range(len(batch)):
                    k = chosen[done + row]
                    record = features.records[k]
                    found.append(self.at_full_size(raw, row, record, features.sizes[k], record.region))
            yield from found
            done += len(batch)
