"""EAST: likelihood of whitened features under a mixture of Gaussians, and the composition of the image.

The successor of EfficientAD-AST, fitted in closed form. Three scores from one frozen extractor:

- `teacher`: likelihood of all taps together. Features are whitened, all directions kept (Rippel et al., arXiv 2005.14140); the
  density is a mixture of Gaussians (`mixture.py`) and takes the place of AST's normalizing flow.
- `fine`: the same for the finest tap alone, where thin defects are not outvoted by the many channels of the coarser taps. The
  map and score of the likelihood are the larger of the two, each times its reliability weight.
- `composition`: distance of visual-word histograms, for logical anomalies (missing, surplus, swapped parts).

Each score is standardised on good images that it was not fitted to (cross-fitting). Reliability weights come from the AUROC
between these scores and those of synthetic anomalies; no label of the data is used. Formulas:
``docs/reference/models/east.md``; what was tried and dropped: ``docs/results/east.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Config, Count
from andon.core.errors import ConfigError, DataError
from andon.core.images import UNCHANGED, View, load_batch
from andon.core.records import Record
from andon.datasets.synthetic import with_anomalies
from andon.detectors._base import Analysis, Detector, DetectorConfig, weight_lines
from andon.detectors.east.composition import Composition, with_moved_block
from andon.detectors.east.likelihood import Likelihood
from andon.detectors.east.mixture import SAMPLE, sample_cells
from andon.metrics import auroc
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.feature_cache import FeatureCache
from andon.nn.sanity_checks import FEWEST_HELD_OUT, SanityCheck
from andon.nn.training import Trainer, derive_seed, seeded

CHUNK = 8
"""Images computed at a time."""
BLOCK = 3 / 16
"""Side of the moved block of a synthetic logical anomaly, as a share of the image's."""
MOVED_BLOCKS = 4
"""Synthetic logical anomalies for each good image."""
MAX_COMPOSITION_WEIGHT = 0.5
"""Upper bound of the composition's reliability weight: a moved block is a coarse anomaly and easily detected."""
LOGISTIC = math.pi / math.sqrt(3)
"""1 / scale of the logistic distribution with standard deviation 1."""
Folds = Annotated[int, Field(ge=2, le=20)]


class TeacherConfig(Config):
    """The mixture of Gaussians over all taps."""

    components: Count = 64
    """Largest number of Gaussians."""
    axes: Count = 64
    """Principal axes of each Gaussian with a variance of their own; all others share one variance."""


class FineConfig(Config):
    """The mixture of Gaussians over the first (finest) tap."""

    use: bool = True
    """Whether it takes part in map and score."""
    components: Count = 64
    """Largest number of Gaussians."""
    axes: Count = 64
    """Principal axes of each Gaussian with a variance of their own; all others share one variance."""


class CompositionConfig(Config):
    """Histograms of visual words."""

    words: Count = 16
    """Visual words (k-means centres)."""
    channels: Count = 8
    """Leading whitened channels in which words are compared."""
    grids: Annotated[tuple[Count, ...], Field(min_length=1)] = (3, 4)
    """For each g of these, the image has a g x g grid of regions with a histogram each."""


class EASTConfig(DetectorConfig):
    """Settings of EAST; the defaults are those of the recipe `starter`."""

    extractor: BackboneConfig = BackboneConfig(
        taps=("layer1", "layer2", "layer3"), image_size=256, edges="mirror"
    )
    grid_tap: str | None = None
    """Tap whose grid the anomaly map has; None: the last but one."""
    brightness: tuple[Amount, ...] = (0.85, 1.15)
    """Brightness augmentation: factors of further copies of every training image."""
    examples: Count = 900
    """Largest number of training images in memory, copies included; copies beyond it are not made."""
    teacher: TeacherConfig = TeacherConfig()
    """Likelihood of all taps together."""
    fine: FineConfig = FineConfig()
    """Likelihood of the first tap alone."""
    composition: CompositionConfig = CompositionConfig()
    folds: Folds = 3
    """Folds of the cross-fitting."""
    score: Literal["all", "likelihood", "composition"] = "all"
    """Image score: likelihood and composition combined, or one of them alone."""
    scaled: bool = True
    """Divide the likelihood of each Gaussian by its own standard deviation on good images."""
    weighted: bool = True
    """Weight the two likelihoods by their reliability on synthetic anomalies; false: both by 1."""
    synthetic: Count = 48
    """Largest number of synthetic anomalies for these weights."""
    relative: bool = True
    """Subtract the 80th percentile of the likelihood map, capped at the largest one of a good image."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Image score of a likelihood: mean over this share of the cells, those with the largest values."""


class EAST(Detector):
    """Two likelihoods and a composition over one frozen extractor; see the module's docstring."""

    Config = EASTConfig
    config: EASTConfig
    composition_statistics_: Tensor
    composition_weight_: Tensor
    likelihood_weights_: Tensor

    def __init__(self, config: EASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        if c.selection != "budget":
            raise ConfigError(
                f"east is fitted in closed form, it has no epochs to choose: selection={c.selection} is not possible, use budget"
            )
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        taps = c.extractor.taps
        tap = c.grid_tap or taps[max(0, len(taps) - 2)]
        if tap not in self.extractor.shapes:
            raise ConfigError(f"grid_tap={tap} is none of the taps {', '.join(taps)}: name one")
        self.teacher = self._likelihood(c.teacher, taps, tap)
        self.fine = self._likelihood(c.fine, taps[:1], tap) if c.fine.use else None
        channels = min(c.composition.channels, self.teacher.features.channels)
        self.composition = Composition(c.composition.words, channels, c.composition.grids)
        # Mean and deviation of the composition's distance on good images.
        self.register_buffer("composition_statistics_", torch.tensor([0.0, 1.0]))
        self.register_buffer("composition_weight_", torch.ones(()))
        self.register_buffer("likelihood_weights_", torch.ones(len(self.likelihoods)))  # the largest is 1
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    def _likelihood(
        self, config: TeacherConfig | FineConfig, taps: Sequence[str], grid_tap: str
    ) -> Likelihood:
        shapes = self.extractor.shapes
        return Likelihood(
            {tap: shapes[tap] for tap in taps},
            shapes[grid_tap][1:],
            components=config.components,
            axes=config.axes,
            share=self.config.share,
            scaled=self.config.scaled,
            relative=self.config.relative,
        )

    @property
    def likelihoods(self) -> dict[str, Likelihood]:
        """The likelihoods in use, by name."""
        return {"teacher": self.teacher} | ({} if self.fine is None else {"fine": self.fine})

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.extractor.image_size, self.config.extractor.image_size

    @property
    def untiled(self) -> str:
        counts = self.config.score == "composition"
        return "since score=composition counts what the whole picture holds" if counts else ""

    @property
    def score_rule(self) -> str:
        likelihood = f"mean of the largest {100 * self.config.share:g} % cells of the likelihood map"
        if self.fine is not None:
            likelihood += " (the larger of all taps and the finest)"
        composition = "Mahalanobis distance of the visual-word histogram"
        return {
            "all": f"combined standardised scores of: {likelihood}, and {composition}",
            "likelihood": likelihood,
            "composition": composition,
        }[self.config.score]

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        if len(train) < 2:
            raise DataError(
                f"east compares good pictures with each other and needs at least 2, there is {len(train)}: add good pictures"
            )
        with trainer.timed("features"):
            features = self._training_features(train, trainer)
        folds = min(self.config.folds, len(train))
        fold_of = torch.arange(len(train)) % folds
        weighted = self.config.weighted and len(self.likelihoods) > 1
        with trainer.timed("synthetic_anomalies"):
            synthetic = self._synthetic_features(train, folds, trainer) if weighted else []
        with trainer.timed("fit"):
            self._fit_likelihoods(features, fold_of, synthetic, trainer)
            self._fit_composition(features, fold_of, trainer.seed)
        self._check_fit(len(train), trainer)

    def _check_fit(self, images: int, trainer: Trainer) -> None:
        """Sanity checks of the cross-fitting and the reliability weights."""
        weight = float(self.composition_weight_)
        trainer.sanity_check("fit", SanityCheck("cross-fitted good pictures", images, least=FEWEST_HELD_OUT))
        trainer.sanity_check(
            "fit",
            SanityCheck(
                "reliability weight of the composition", weight, least=0, most=MAX_COMPOSITION_WEIGHT
            ),
        )
        for name, value in zip(self.likelihoods, self.likelihood_weights_.tolist(), strict=True):
            trainer.sanity_check(
                "fit", SanityCheck(f"reliability weight of the likelihood {name}", value, least=0, most=1)
            )

    def _training_features(self, train: Sequence[Record], trainer: Trainer) -> Tensor:
        """Joined features, not yet whitened, of the images at V brightnesses, the original first: (N, V, C, H, W)."""
        cache = FeatureCache(self.extractor)
        room = max(0, self.config.examples // len(train) - 1)
        views = (UNCHANGED, *(View(brightness=factor) for factor in self.config.brightness[:room]))
        joint = self.teacher.features
        features = torch.empty(len(train), len(views), joint.channels, *joint.grid)
        for v, view in enumerate(views):
            what = f"training features{f' at brightness {view.brightness:g}' if view.key else ''}"
            with trainer.progress.task(f"extracting {what}", len(train)) as bar:
                for start in range(0, len(train), CHUNK):
                    taps = cache.load(train[start : start + CHUNK], view=view)
                    features[start : start + CHUNK, v] = joint.join(taps)
                    bar.advance(min(CHUNK, len(train) - start), "")
        return features.to(trainer.device)

    def _synthetic_features(self, train: Sequence[Record], folds: int, trainer: Trainer) -> list[Tensor]:
        """Joined features (M, C, H, W), not yet whitened, of synthetic anomalies made from the images of each fold."""
        size, joint = self.input_size, self.teacher.features
        per_fold = -(-self.config.synthetic // folds)
        features = []
        with trainer.progress.task("making synthetic anomalies", folds) as bar:
            for fold in range(folds):
                records = train[fold::folds][:per_fold]
                good = list(load_batch(records, size).image.permute(0, 2, 3, 1).numpy())
                inspected = [r.region.resized(size) if r.region is not None else None for r in records]
                seed = derive_seed(trainer.seed, "made up", fold)  # the name is part of the random stream
                found = with_anomalies(good, inspected, seed=seed)
                parts = [torch.empty(0, joint.channels, *joint.grid, device=trainer.device)]
                for start in range(0, len(found), CHUNK):
                    images = torch.from_numpy(np.stack(found[start : start + CHUNK])).permute(0, 3, 1, 2)
                    with torch.inference_mode():
                        parts.append(joint.join(self.extractor(images.to(trainer.device))))
                features.append(torch.cat(parts))
                bar.advance(1, "")
        return features

    def _fit_likelihoods(
        self, features: Tensor, fold_of: Tensor, synthetic: Sequence[Tensor], trainer: Trainer
    ) -> None:
        """Fit both likelihoods and their reliability weights; leaves `features` whitened as the teacher's."""
        fits = int(fold_of.max()) + 2  # without each fold, then on all
        steps = sum(len(features) + fits * len(part.mixture.means_) for part in self.likelihoods.values())
        weights = {}
        with trainer.progress.task("fitting", steps) as bar:
            for name, part in reversed(self.likelihoods.items()):  # the teacher, which whitens in place, last
                own = features if name == "teacher" else self._finest(features).clone()
                part.whiten(own)
                anomalous = [part.features(x if name == "teacher" else self._finest(x)) for x in synthetic]
                generator = seeded(trainer.seed, "east", name)
                scores = part.fit(own, fold_of, generator, lambda: bar.advance(1, ""), synthetic=anomalous)
                weights[name] = reliability(*scores)
        largest = max(weights.values()) or 1.0
        self.likelihood_weights_.copy_(torch.tensor([weights[name] / largest for name in self.likelihoods]))

    def _finest(self, joined: Tensor) -> Tensor:
        """(..., C, H, W) joined features of all taps to those of the first tap."""
        return joined[..., : self.extractor.shapes[self.config.extractor.taps[0]][0], :, :]

    def _fit_composition(self, features: Tensor, fold_of: Tensor, seed: int) -> None:
        """Fit the composition to whitened features (N, V, C, H, W), its statistics and its reliability weight.

        The Gaussian sees all brightnesses; statistics and weight come from the original one, cross-fitted.
        """
        words, moved = seeded(seed, "words"), seeded(seed, "misplaced")
        self.composition.fit_words(sample_cells(features.flatten(0, 1), SAMPLE, words), words)
        histograms = torch.stack([self.composition.histogram(image) for image in features])
        copies = (image[:1].expand(MOVED_BLOCKS, -1, -1, -1) for image in features)
        synthetic = torch.stack(
            [self.composition.histogram(with_moved_block(copy, BLOCK, moved)) for copy in copies]
        )
        good, anomalous = [], []
        for fold in range(int(fold_of.max()) + 1):
            held_out = fold_of == fold
            self.composition.fit(histograms[~held_out].flatten(0, 1))
            good.append(self.composition.distance(histograms[held_out, 0]))
            anomalous.append(self.composition.distance(synthetic[held_out].flatten(0, 1)))
        deviation, mean = torch.std_mean(torch.cat(good), correction=0)
        self.composition_statistics_.copy_(torch.stack([mean, deviation.clamp_min(1e-6)]))
        weight = reliability(torch.cat(good), torch.cat(anomalous))
        self.composition_weight_.fill_(min(weight, MAX_COMPOSITION_WEIGHT))
        self.composition.fit(histograms.flatten(0, 1))

    # Inference -----------------------------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        joined = self.teacher.features.join(self.extractor(images))
        f = self.teacher.features(joined)
        anomaly_map, likelihood = self.teacher(f)
        if self.fine is not None:
            fine_map, fine = self.fine(self.fine.features(self._finest(joined)))
            weight, fine_weight = self.likelihood_weights_[0], self.likelihood_weights_[1]
            anomaly_map = torch.maximum(weight * anomaly_map, fine_weight * fine_map)
            likelihood = torch.maximum(weight * likelihood, fine_weight * fine)
        mean, deviation = self.composition_statistics_[0], self.composition_statistics_[1]
        composition = (self.composition(f) - mean) / deviation
        # Fisher's method, -Σ log p; softplus is -log p of the upper tail of a logistic distribution.
        combined = F.softplus(LOGISTIC * likelihood)
        combined = combined + self.composition_weight_ * F.softplus(LOGISTIC * composition)
        scores = {"all": combined, "likelihood": likelihood, "composition": composition}
        chosen = scores.pop(self.config.score)
        return Analysis(anomaly_map, chosen, scores)


def reliability(good: Tensor, anomalous: Tensor) -> float:
    """Reliability weight in [0, 1] of scores: max(0, 2 AUROC - 1)² of anomalous against good; 1 where either is empty."""
    if not (len(good) and len(anomalous)):
        return 1.0
    labels = [0] * len(good) + [1] * len(anomalous)
    return max(0.0, 2 * auroc(torch.cat([good, anomalous]).tolist(), labels) - 1) ** 2
