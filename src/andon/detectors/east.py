"""EAST: the likelihood of whitened features under a closed-form mixture, and what the picture is made of.

The successor of EfficientAD-AST. The published model follows its own teacher's likelihood and falls behind it; EAST keeps that
likelihood and drops what did not improve on it. One frozen extractor is called once. Its features are whitened without
dropping a direction (Rippel et al., arXiv 2005.14140). The teacher is a mixture of Gaussians with place-dependent weights,
fitted in closed form: in one piece per appearance it does what a normalizing flow does, without training. The second
part compares how much of each appearance the picture holds (missing, surplus, swapped parts). Each part is
standardised on good pictures it has not seen (cross-fitting), and the second is trusted as far as it tells such pictures
from copies with a misplaced block: no label of the data at hand is needed.

`docs/results/east.md` says what was tried, what it gave and what was dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from andon.backbones import Backbone, BackboneConfig
from andon.conditions import FEWEST_HELD_OUT, Condition
from andon.config import Amount, Config, Count
from andon.detector import Analysis, Detector, DetectorConfig, weight_lines
from andon.errors import ConfigError, DataError
from andon.features import FeatureCache
from andon.images import WHOLE, View
from andon.layers.composition import Composition, with_moved_block
from andon.layers.mixture import SAMPLE, ClusterSums, GaussianMixture, clusters, sample
from andon.layers.whitening import WhitenedFeatures
from andon.metrics import auroc
from andon.structures import Record
from andon.training import Trainer, seeded

CHUNK = 8
"""Pictures that pass through a closed-form part at a time."""
BLOCK = 3 / 16
"""Side of a misplaced block, as a share of the picture's."""
MADE_UP = 4
"""Pictures with a misplaced block for every good one."""
MOST_TRUST = 0.25
"""A misplaced block is a coarse defect: telling it apart is worth this much at most."""
LOGISTIC = math.pi / math.sqrt(3)
"""Steepness of the logistic distribution with deviation 1."""
Folds = Annotated[int, Field(ge=2, le=20)]


class TeacherConfig(Config):
    """The mixture."""

    components: Count = 32
    """Gaussians, at most."""
    axes: Count = 128
    """Axes of each Gaussian with a variance of their own; all others share one."""
    by_place: bool = True
    """Let the weight of a component depend on the place; off: the same everywhere."""


class CompositionConfig(Config):
    """The amounts of each appearance."""

    words: Count = 16
    """Clusters that are counted."""
    channels: Count = 16
    """Leading whitened channels that clusters are made of."""
    parts: Count = 2
    """The picture is cut into parts x parts equal pieces, each counted for itself."""


class EASTConfig(DetectorConfig):
    """Settings of EAST; the defaults are those of the recipe `starter`."""

    extractor: BackboneConfig = BackboneConfig(taps=("layer1", "layer2", "layer3"), image_size=256)
    grid_tap: str | None = None
    """Tap whose grid is used; None: the last but one."""
    light: tuple[Amount, ...] = (0.85, 1.15)
    """Brightness factors of further copies of every training picture; lamps age."""
    examples: Count = 900
    """Pictures, copies included, that are held in memory; copies beyond are not made."""
    teacher: TeacherConfig = TeacherConfig()
    composition: CompositionConfig = CompositionConfig()
    folds: Folds = 3
    """Parts the good pictures are cut into; each is scored by what was learned from the others, to know ordinary scores."""
    score: Literal["both", "teacher", "composition"] = "both"
    """Image score: the excess of both parts over ordinary good pictures, or one part alone."""
    relative: bool = True
    """Take the median of a picture's likelihood map as its zero, as far as good pictures differ in it."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of the cells, those with the largest values, whose mean is the teacher's image score."""


class EAST(Detector):
    """Whitened features, likelihood, composition; see the module's docstring."""

    Config = EASTConfig
    config: EASTConfig
    ordinary_: Tensor
    trust_: Tensor
    most_: Tensor

    def __init__(self, config: EASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        if c.selection != "budget":
            raise ConfigError(
                f"east is fitted in closed form, it has no epochs to choose: selection={c.selection} is not possible, use budget"
            )
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        tap = c.grid_tap or c.extractor.taps[max(0, len(c.extractor.taps) - 2)]
        if tap not in self.extractor.shapes:
            raise ConfigError(f"grid_tap={tap} is none of the taps {', '.join(c.extractor.taps)}: name one")
        grid = self.extractor.shapes[tap][1:]
        self.features = WhitenedFeatures(self.extractor.shapes, grid)
        channels = self.features.channels
        self.teacher = GaussianMixture(channels, grid, components=c.teacher.components, axes=c.teacher.axes)
        self.composition = Composition(
            c.composition.words, min(c.composition.channels, channels), c.composition.parts
        )
        # The largest median of a good picture's map.
        self.register_buffer("most_", torch.zeros(()))
        # Mean and deviation on good pictures of: a cell of the map, the teacher's score, the composition's score.
        self.register_buffer("ordinary_", torch.tensor([[0.0, 1.0]] * 3))
        self.register_buffer("trust_", torch.ones(()))  # in the composition, 0 to MOST_TRUST
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.extractor.image_size, self.config.extractor.image_size

    @property
    def untiled(self) -> str:
        counts = self.config.score == "composition"
        return "since score=composition counts what the whole picture holds" if counts else ""

    @property
    def score_rule(self) -> str:
        teacher = f"mean of the largest {100 * self.config.share:g} % cells of the likelihood map"
        composition = "distance of the amounts of each appearance"
        return {
            "both": f"excess over good pictures of: {teacher}, and {composition}",
            "teacher": teacher,
            "composition": composition,
        }[self.config.score]

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        c = self.config
        if len(train) < 2:
            raise DataError(
                f"east compares good pictures with each other and needs at least 2, there is {len(train)}: add good pictures"
            )
        with trainer.timed("features"):
            pictures = self._joined(train, trainer)
        folds = min(c.folds, len(train))
        total = len(train) + (folds + 1) * c.teacher.components
        with trainer.timed("memory_bank"), trainer.progress.task("fitting", total) as bar:
            self._fit(pictures, folds, trainer.seed, lambda: bar.advance(1, ""))
        trainer.condition(
            "memory_bank",
            Condition("good pictures scored by what others taught", len(train), least=FEWEST_HELD_OUT),
        )
        trainer.condition(
            "memory_bank", Condition("trust in the composition", float(self.trust_), least=0, most=MOST_TRUST)
        )

    def _joined(self, train: Sequence[Record], trainer: Trainer) -> Tensor:
        """Features of the pictures as they are and in other light, not yet whitened: (N, lights, C, H, W)."""
        cache = FeatureCache(self.extractor)
        room = max(0, self.config.examples // len(train) - 1)
        views = (WHOLE, *(View(light=factor) for factor in self.config.light[:room]))
        pictures = torch.empty(len(train), len(views), self.features.channels, *self.features.grid)
        for light, view in enumerate(views):
            what = f"training features{f' at {view.light:g} of the light' if view.key else ''}"
            with trainer.progress.task(f"extracting {what}", len(train)) as bar:
                for start in range(0, len(train), CHUNK):
                    taps = cache.load(train[start : start + CHUNK], view=view)
                    pictures[start : start + CHUNK, light] = self.features.join(taps)
                    bar.advance(min(CHUNK, len(train) - start), "")
        return pictures.to(trainer.device)

    def _fit(self, pictures: Tensor, folds: int, seed: int, advance: Callable[[], object]) -> None:
        """Everything, from (N, lights, C, H, W) features, which are whitened in place.

        Parts are fitted to all lights, what is ordinary is learned from the true one.
        """
        generator, misplaced = seeded(seed, "east"), seeded(seed, "misplaced")
        fold_of = torch.arange(len(pictures)) % folds
        self.features.fit(pictures)
        for picture in pictures:
            picture.copy_(self.features(picture))
        vectors = sample(pictures.flatten(0, 1), SAMPLE, generator)
        self.composition.choose_words(vectors, generator)
        cells = pictures.shape[:2].numel() * pictures.shape[3:].numel()
        found = clusters(vectors, self.config.teacher.components, cells, generator)
        sums = [ClusterSums(found, self.features.channels, self.features.grid) for _ in range(folds)]
        amounts, made_up = [], []
        for picture, fold in zip(pictures, fold_of.tolist(), strict=True):
            sums[fold].add(picture)
            amounts.append(self.composition.amounts(picture))
            wrong = with_moved_block(picture[:1].expand(MADE_UP, -1, -1, -1), BLOCK, misplaced)
            made_up.append(self.composition.amounts(wrong))
            advance()
        self._learn_ordinary(
            pictures[:, 0], sums, torch.stack(amounts), torch.stack(made_up), fold_of, advance
        )
        self._fit_parts(sums, torch.stack(amounts), advance)

    def _fit_parts(self, sums: Sequence[ClusterSums], amounts: Tensor, advance: Callable[[], object]) -> None:
        """Teacher and composition, from what some of the pictures add up to."""
        total = reduce(add, sums)
        by_place = self.config.teacher.by_place and self.tiling is None  # a place in a tile means nothing
        self.teacher.fit(total, by_place=by_place, advance=advance)
        self.composition.fit(amounts.flatten(0, 1))

    def _learn_ordinary(
        self,
        pictures: Tensor,
        sums: Sequence[ClusterSums],
        amounts: Tensor,
        made_up: Tensor,
        fold_of: Tensor,
        advance: Callable[[], object],
    ) -> None:
        """What good pictures score when they were not learned from, and how far the composition can be trusted.

        `amounts` (N, lights, size) are those of the `pictures` (N, C, H, W) in every light, `made_up` (N, `MADE_UP`, size).
        """
        maps, distances, wrong = [], [], []
        for fold in range(len(sums)):
            held_out = fold_of == fold
            self._fit_parts([s for k, s in enumerate(sums) if k != fold], amounts[~held_out], advance)
            maps += [self.teacher(picture[None]) for picture in pictures[held_out]]
            distances.append(self.composition.distance(amounts[held_out, 0]))
            wrong.append(self.composition.distance(made_up[held_out].flatten(0, 1)))
        nll = torch.cat(maps)
        self.most_.copy_(medians(nll).max())
        relative = self._relative(nll)
        for row, values in enumerate((relative, self._peak(relative), torch.cat(distances))):
            deviation, mean = torch.std_mean(values, correction=0)
            self.ordinary_[row] = torch.stack([mean, deviation.clamp_min(1e-6)])
        good, bad = torch.cat(distances).tolist(), torch.cat(wrong).tolist()
        told_apart = auroc(good + bad, [0] * len(good) + [1] * len(bad))
        rank_correlation = max(0.0, 2 * told_apart - 1)
        self.trust_.fill_(min(rank_correlation**2, MOST_TRUST))

    # Answering -----------------------------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        f = self.features(self.features.join(self.extractor(images)))
        relative = self._relative(self.teacher(f))
        peak = self._unusual(self._peak(relative), 1)
        composition = self._unusual(self.composition(f), 2)
        # Fisher's method: evidence adds up as -log p, here under logistic tails. What is ordinary adds next to nothing.
        both = F.softplus(LOGISTIC * peak) + self.trust_ * F.softplus(LOGISTIC * composition)
        scores = {"both": both, "teacher": peak, "composition": composition}
        chosen = scores.pop(self.config.score)
        return Analysis(self._unusual(relative, 0), chosen, scores)

    def _relative(self, nll: Tensor) -> Tensor:
        """The map less its own median: light and focus change the whole picture. Never less more than good pictures need."""
        if not self.config.relative:
            return nll
        return nll - torch.minimum(medians(nll), self.most_)[:, None, None, None]

    def _peak(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) to (B,): the mean of the largest cells."""
        flat = maps.flatten(1)
        return flat.topk(max(1, round(self.config.share * flat.shape[1])), dim=1).values.mean(1)

    def _unusual(self, x: Tensor, row: int) -> Tensor:
        """Deviations above the mean of good pictures."""
        return (x - self.ordinary_[row, 0]) / self.ordinary_[row, 1]


def medians(maps: Tensor) -> Tensor:
    """(B, 1, H, W) to the median of each map (B,), the lower of two middle values; by an operator that can be exported."""
    flat = maps.flatten(1)
    cells = flat.shape[1]
    return flat.topk(cells - (cells - 1) // 2, dim=1).values[:, -1]
