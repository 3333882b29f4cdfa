"""EAST: the likelihood of whitened features under a closed-form mixture, and what the image is made of.

The successor of EfficientAD-AST. The published model follows its own teacher's likelihood and falls behind it; EAST keeps that
likelihood and drops what did not improve on it. One frozen extractor is called once. Its features are whitened without
dropping a direction (Rippel et al., arXiv 2005.14140). The teacher is a mixture of Gaussians, fitted in closed form: in
one piece per appearance it does what a normalizing flow does, without training. A second, smaller one looks at the finest tap
alone, where a thin defect is not outvoted by the many channels of the others; the more alarmed of the two counts. The last part
compares how much of each appearance the image holds (missing, surplus, swapped parts). Each part is standardised on good
images it has not seen (cross-fitting) and trusted as far as it tells such images from copies with made-up defects: no label
of the data at hand is needed.

`docs/results/east.md` says what was tried, what it gave and what was dropped.
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
from andon.core.images import WHOLE, View, load_batch
from andon.core.records import Record
from andon.datasets.synthetic import with_anomalies
from andon.detectors._base import Analysis, Detector, DetectorConfig, weight_lines
from andon.detectors.east.composition import Composition, with_moved_block
from andon.detectors.east.likelihood import Likelihood
from andon.detectors.east.mixture import SAMPLE, sample
from andon.metrics import auroc
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.feature_cache import FeatureCache
from andon.nn.sanity_checks import FEWEST_HELD_OUT, SanityCheck
from andon.nn.training import Trainer, derive_seed, seeded

CHUNK = 8
"""Images that pass through a closed-form part at a time."""
BLOCK = 3 / 16
"""Side of a misplaced block, as a share of the image's."""
MISPLACED = 4
"""Images with a misplaced block for every good one."""
MOST_TRUST = 0.5
"""A misplaced block is a coarse defect: telling it apart is worth this much at most."""
LOGISTIC = math.pi / math.sqrt(3)
"""Steepness of the logistic distribution with deviation 1."""
Folds = Annotated[int, Field(ge=2, le=20)]


class TeacherConfig(Config):
    """The mixture of Gaussians over all taps."""

    components: Count = 64
    """Gaussians, at most."""
    axes: Count = 64
    """Axes of each Gaussian with a variance of their own; all others share one."""


class FineConfig(Config):
    """A smaller mixture, of the first tap alone."""

    use: bool = True
    """Whether it has a say."""
    components: Count = 64
    """Gaussians, at most."""
    axes: Count = 64
    """Axes of each Gaussian with a variance of their own; all others share one."""


class CompositionConfig(Config):
    """The amounts of each appearance."""

    words: Count = 16
    """Clusters that are counted."""
    channels: Count = 8
    """Leading whitened channels that clusters are made of."""
    parts: Annotated[tuple[Count, ...], Field(min_length=1)] = (3, 4)
    """The image is cut into p x p equal parts for each of these numbers, each part counted for itself."""


class EASTConfig(DetectorConfig):
    """Settings of EAST; the defaults are those of the recipe `starter`."""

    extractor: BackboneConfig = BackboneConfig(
        taps=("layer1", "layer2", "layer3"), image_size=256, edges="mirror"
    )
    grid_tap: str | None = None
    """Tap whose grid is used; None: the last but one."""
    light: tuple[Amount, ...] = (0.85, 1.15)
    """Brightness factors of further copies of every training image; lamps age."""
    examples: Count = 900
    """Images, copies included, that are held in memory; copies beyond are not made."""
    teacher: TeacherConfig = TeacherConfig()
    """Likelihood of all taps together."""
    fine: FineConfig = FineConfig()
    """Likelihood of the first tap alone."""
    composition: CompositionConfig = CompositionConfig()
    folds: Folds = 3
    """Parts the good images are cut into; each is scored by what was learned from the others, to know ordinary scores."""
    score: Literal["all", "likelihood", "composition"] = "all"
    """Image score: the excess of likelihood and composition over ordinary good images, or one of them alone."""
    scaled: bool = True
    """Measure the likelihood of each Gaussian in deviations of its own: a part's edge differs more than its face."""
    weighed: bool = True
    """Weigh the likelihoods by how well they tell good images from made-up defects; otherwise they are equals."""
    made_up: Count = 48
    """Good images that get a made-up defect, at most, to weigh likelihoods by."""
    relative: bool = True
    """Take what four fifths of an image's cells stay below as the zero of its map, as far as good images differ in it."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the cells, those with the largest values, whose mean is the image score of a likelihood."""


class EAST(Detector):
    """Whitened features, likelihoods, composition; see the module's docstring."""

    Config = EASTConfig
    config: EASTConfig
    usual_: Tensor
    trust_: Tensor
    weights_: Tensor

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
        self.composition = Composition(c.composition.words, channels, c.composition.parts)
        # Mean and deviation of the composition's distance on good images; trust in it, 0 to MOST_TRUST.
        self.register_buffer("usual_", torch.tensor([0.0, 1.0]))
        self.register_buffer("trust_", torch.ones(()))
        self.register_buffer("weights_", torch.ones(len(self.likelihoods)))  # the largest is 1
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
        """Those in use, by name."""
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
        composition = "distance of the amounts of each appearance"
        return {
            "all": f"excess over good pictures of: {likelihood}, and {composition}",
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
            pictures = self._joined(train, trainer)
        folds = min(self.config.folds, len(train))
        fold_of = torch.arange(len(train)) % folds
        weighed = self.config.weighed and len(self.likelihoods) > 1
        with trainer.timed("made_up"):
            made_up = self._made_up(train, folds, trainer) if weighed else []
        with trainer.timed("memory_bank"):
            self._fit_likelihoods(pictures, fold_of, made_up, trainer)
            self._fit_composition(pictures, fold_of, trainer.seed)
        trainer.sanity_check(
            "memory_bank",
            SanityCheck("good pictures scored by what others taught", len(train), least=FEWEST_HELD_OUT),
        )
        trainer.sanity_check(
            "memory_bank",
            SanityCheck("trust in the composition", float(self.trust_), least=0, most=MOST_TRUST),
        )
        for name, weight in zip(self.likelihoods, self.weights_.tolist(), strict=True):
            trainer.sanity_check(
                "memory_bank", SanityCheck(f"weight of the likelihood {name}", weight, least=0, most=1)
            )

    def _joined(self, train: Sequence[Record], trainer: Trainer) -> Tensor:
        """Features of the images as they are and in other light, not yet whitened: (N, lights, C, H, W)."""
        cache = FeatureCache(self.extractor)
        room = max(0, self.config.examples // len(train) - 1)
        views = (WHOLE, *(View(brightness=factor) for factor in self.config.light[:room]))
        features = self.teacher.features
        pictures = torch.empty(len(train), len(views), features.channels, *features.grid)
        for light, view in enumerate(views):
            what = f"training features{f' at {view.brightness:g} of the light' if view.key else ''}"
            with trainer.progress.task(f"extracting {what}", len(train)) as bar:
                for start in range(0, len(train), CHUNK):
                    taps = cache.load(train[start : start + CHUNK], view=view)
                    pictures[start : start + CHUNK, light] = features.join(taps)
                    bar.advance(min(CHUNK, len(train) - start), "")
        return pictures.to(trainer.device)

    def _made_up(self, train: Sequence[Record], folds: int, trainer: Trainer) -> list[Tensor]:
        """Joined features of images with a made-up defect, of each fold, (M, C, H, W), not yet whitened."""
        size, features = self.input_size, self.teacher.features
        each = -(-self.config.made_up // folds)
        made_up = []
        with trainer.progress.task("making up defects", folds) as bar:
            for fold in range(folds):
                records = train[fold::folds][:each]
                pictures = list(load_batch(records, size).image.permute(0, 2, 3, 1).numpy())
                seen = [r.region.resized(size) if r.region is not None else None for r in records]
                found = with_anomalies(pictures, seen, seed=derive_seed(trainer.seed, "made up", fold))
                parts = [torch.empty(0, features.channels, *features.grid, device=trainer.device)]
                for start in range(0, len(found), CHUNK):
                    images = torch.from_numpy(np.stack(found[start : start + CHUNK])).permute(0, 3, 1, 2)
                    with torch.inference_mode():
                        parts.append(features.join(self.extractor(images.to(trainer.device))))
                made_up.append(torch.cat(parts))
                bar.advance(1, "")
        return made_up

    def _fit_likelihoods(
        self, pictures: Tensor, fold_of: Tensor, made_up: Sequence[Tensor], trainer: Trainer
    ) -> None:
        """Fit each to (N, lights, C, H, W) and weigh them by `made_up`; the teacher's whitening stays in `pictures`."""
        rounds = int(fold_of.max()) + 2
        steps = sum(len(pictures) + rounds * len(part.mixture.means_) for part in self.likelihoods.values())
        found = {}
        with trainer.progress.task("fitting", steps) as bar:
            # The teacher, which whitens in place, comes last.
            for name, part in reversed(self.likelihoods.items()):
                own = pictures if name == "teacher" else self._finest(pictures).clone()
                part.whiten(own)
                wrong = [part.features(p if name == "teacher" else self._finest(p)) for p in made_up]
                generator = seeded(trainer.seed, "east", name)
                scores = part.fit(own, fold_of, generator, lambda: bar.advance(1, ""), made_up=wrong)
                found[name] = trust(*scores)
        most = max(found.values()) or 1.0
        self.weights_.copy_(torch.tensor([found[name] / most for name in self.likelihoods]))

    def _finest(self, joined: Tensor) -> Tensor:
        """(..., C, H, W) joined features of all taps to those of the first tap, which `fine` looks at."""
        return joined[..., : self.extractor.shapes[self.config.extractor.taps[0]][0], :, :]

    def _fit_composition(self, pictures: Tensor, fold_of: Tensor, seed: int) -> None:
        """Amounts of each appearance in whitened (N, lights, C, H, W), and how far they can be trusted.

        They are fitted to all lights; what is ordinary is learned from the true one.
        """
        words, misplaced = seeded(seed, "words"), seeded(seed, "misplaced")
        self.composition.choose_words(sample(pictures.flatten(0, 1), SAMPLE, words), words)
        amounts = torch.stack([self.composition.amounts(picture) for picture in pictures])
        copies = (picture[:1].expand(MISPLACED, -1, -1, -1) for picture in pictures)
        wrong = torch.stack(
            [self.composition.amounts(with_moved_block(copy, BLOCK, misplaced)) for copy in copies]
        )
        good, bad = [], []
        for fold in range(int(fold_of.max()) + 1):
            held_out = fold_of == fold
            self.composition.fit(amounts[~held_out].flatten(0, 1))
            good.append(self.composition.distance(amounts[held_out, 0]))
            bad.append(self.composition.distance(wrong[held_out].flatten(0, 1)))
        deviation, mean = torch.std_mean(torch.cat(good), correction=0)
        self.usual_.copy_(torch.stack([mean, deviation.clamp_min(1e-6)]))
        self.trust_.fill_(min(trust(torch.cat(good), torch.cat(bad)), MOST_TRUST))
        self.composition.fit(amounts.flatten(0, 1))

    # Answering -----------------------------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        joined = self.teacher.features.join(self.extractor(images))
        f = self.teacher.features(joined)
        anomaly_map, likelihood = self.teacher(f)
        if self.fine is not None:
            fine_map, fine = self.fine(self.fine.features(self._finest(joined)))
            weight, fine_weight = self.weights_[0], self.weights_[1]
            anomaly_map = torch.maximum(weight * anomaly_map, fine_weight * fine_map)
            likelihood = torch.maximum(weight * likelihood, fine_weight * fine)
        composition = (self.composition(f) - self.usual_[0]) / self.usual_[1]
        # Fisher's method: evidence adds up as -log p, here under logistic tails. What is ordinary adds next to nothing.
        everything = F.softplus(LOGISTIC * likelihood) + self.trust_ * F.softplus(LOGISTIC * composition)
        scores = {"all": everything, "likelihood": likelihood, "composition": composition}
        chosen = scores.pop(self.config.score)
        return Analysis(anomaly_map, chosen, scores)


def trust(good: Tensor, wrong: Tensor) -> float:
    """Squared rank correlation of scores with being wrong, 0 where they are the wrong way round; 1 where nothing is known."""
    if not (len(good) and len(wrong)):
        return 1.0
    labels = [0] * len(good) + [1] * len(wrong)
    return max(0.0, 2 * auroc(torch.cat([good, wrong]).tolist(), labels) - 1) ** 2
