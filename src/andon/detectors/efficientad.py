"""EfficientAD: a student that imitates a patch description network and an autoencoder.

Paper: Batzner, Heckler, König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies",
arXiv 2303.14535 (Algorithms 1 to 3, Tables 6 to 8). The first half of the student's channels, S1, learns the normalised output T
of the teacher on good images, the second half, S2, the output of the autoencoder A, which learns T through a bottleneck. M_ST =
(T - S1)² shows structural anomalies, M_AE = (A - S2)² logical ones: M = ½ M_ST + ½ M_AE, each normalised by quantiles.

Where the paper and the common implementation (nelson1425/EfficientAD) differ, the implementation is followed and a switch gives
the paper. Differs from both: images are augmented after resizing rather than before, and the image score is the maximum of the
map at the input size, where the implementation takes it at the image's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Amount, Config, Count, Share
from andon.core.errors import WeightsError
from andon.core.images import CachedImages, View, batches
from andon.core.progress import track
from andon.core.records import Record
from andon.datasets.penalty_images import penalty_records
from andon.detectors._base import PREDICT_BATCH, Analysis, Detector, DetectorConfig
from andon.layers.augment import jitter_one, some_grey
from andon.layers.residual_student import hard_mean
from andon.nn.pdn import LOST_CELLS, STRIDE, Size, grid, pdn, teacher_state
from andon.nn.sanity_checks import AUTOENCODER_EXPLAINS, STUDENT_EXPLAINS, Explained
from andon.nn.stage import EarlyStopping
from andon.nn.training import Draw, OptimiserConfig, Trainer
from andon.nn.weights import IMAGENET_MEAN, IMAGENET_STD, RANDOM, WeightFile, entries, locate

TARGET_BYTES = 2 << 30
"""Memory for the teacher's outputs on training images; those beyond it are computed again at each step."""
QUANTILES = (0.9, 0.995)
"""a and b of Sec. 3.4: quantiles of the maps of good images, mapped to 0 and 0.1."""
ImageSize = Annotated[int, Field(ge=128, multiple_of=64)]


class TeacherConfig(Config):
    """The frozen teacher; the student has the same layers and twice the outputs."""

    size: Size = "small"
    """Layers of the patch description network: EfficientAD-S or EfficientAD-M."""
    width: Count | None = None
    """Channels of its first layer, None = the paper's (128, medium 256); must match the weights."""
    channels: Count = 384
    """Output channels; must match the weights."""
    weights: str = "teacher_small"
    """Name in the weight store (`andon weights list`), or `random` for untrained weights drawn from seed 0."""


class PenaltyConfig(Config):
    """Out-of-distribution images, on which the student is penalised for large outputs (Sec. 3.2)."""

    weight: Amount = 1.0
    """Weight of the penalty, the mean of S1(P)²; 0 switches it off."""
    folder: str | None = None
    """Folder of photographs (the paper: ImageNet); None = procedural images."""
    grey_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    """Probability that such an image is converted to grey."""


class EfficientADConfig(DetectorConfig):
    """Settings of EfficientAD; the defaults are EfficientAD-S."""

    teacher: TeacherConfig = TeacherConfig()
    image_size: ImageSize = 256
    """Both sides of the image are resized to this many pixels, a multiple of 64."""
    padding: bool = False
    """Zero padding in the patch networks (64 x 64 outputs for 256 pixels, the paper's algorithms) or none (56 x 56, faster)."""
    p_hard: Share = 0.999
    """Hard feature loss: only elements of (T - S1)² above this quantile of their image are back-propagated; 0 = all."""
    penalty: PenaltyConfig = PenaltyConfig()
    quantile_grid: Literal["cell", "input"] = "cell"
    """Resolution of the map quantiles: the networks' grid (implementation), or maps upsampled to pixels (paper)."""
    steps: Count = 70_000
    """Optimiser steps."""
    batch_size: Count = 1
    """Images per optimiser step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=1e-4, decay_last=0.05)
    patience: Count = 10
    """Epochs without improvement after which training ends, where `selection` measures epochs."""


class Autoencoder(nn.Module):
    """(B, 3, X, X) images to (B, channels, cells, cells) through a bottleneck of 64 dimensions (Table 8)."""

    def __init__(self, side: int, cells: int, channels: int) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 64)
        self.encoder = nn.Sequential()
        for a, b in pairwise(widths):
            self.encoder.extend([nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()])
        self.encoder.append(nn.Conv2d(64, 64, side // 32))  # the bottleneck: whole grid, no ReLU
        self.sizes = (side // 64 - 1, side // 32, side // 16 - 1, side // 8, side // 4 - 1, side // 2 - 1)
        self.decoder = nn.ModuleList(nn.Conv2d(64, 64, 4, padding=2) for _ in self.sizes)
        self.cells = cells
        self.head = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, channels, 3, padding=1)
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)  # (B, 64, 1, 1)
        for size, conv in zip(self.sizes, self.decoder, strict=True):
            x = torch.relu(conv(_upsampled(x, size)))
            x = F.dropout(x, 0.2, self.training)  # elements, not whole channels
        out: Tensor = self.head(_upsampled(x, self.cells))
        return out


class EfficientAD(Detector):
    """Distilled teacher, student, autoencoder; see the module's docstring."""

    Config = EfficientADConfig
    config: EfficientADConfig
    mean: Tensor
    std: Tensor
    teacher_mean_: Tensor
    teacher_std_: Tensor
    map_range_: Tensor

    def __init__(self, config: EfficientADConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c, t = self.config, self.config.teacher
        self.teacher, weights = _teacher(t, c.padding, pretrained)
        self.student = pdn(t.size, t.width, 2 * t.channels, padding=c.padding)
        self.autoencoder = Autoencoder(c.image_size, grid(c.image_size, c.padding), t.channels)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("teacher_mean_", torch.zeros(1, t.channels, 1, 1))
        self.register_buffer("teacher_std_", torch.ones(1, t.channels, 1, 1))
        self.register_buffer(  # (student, autoencoder) x (q_a, q_b)
            "map_range_", torch.tensor([[0.0, 0.1], [0.0, 0.1]])
        )
        self.used_weights = (weights.describe(),)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.image_size, self.config.image_size

    @property
    def score_rule(self) -> str:
        return "maximum (after enlarging) of the combined map"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        """Algorithm 1: teacher statistics, training, map normalisation."""
        with trainer.timed("teacher"):
            targets = self._fit_teacher_statistics(train, trainer)
        cached = CachedImages(train, self.input_size)
        penalty = CachedImages(
            penalty_records(self.config.penalty.folder), self.input_size, view=View(zoom=True)
        )

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            chosen = draw.indices.tolist()
            images = cached(chosen)
            augmented = jitter_one(images, draw.generator).to(trainer.device)
            outside = self._draw_penalty(penalty, len(chosen), draw).to(trainer.device)
            images = images.to(trainer.device)
            if all(k < len(targets) for k in chosen):
                target = torch.stack([targets[k] for k in chosen]).to(trainer.device)
            else:
                target = self.target(images)
            return self.losses(images, target, augmented, outside)

        self._minimise(loss, train, validation, trainer)
        with trainer.timed("normalisation"):
            self._fit_map_range(validation or train, trainer)
            self._check_explained(validation or train, trainer)

    @property
    def frozen(self) -> dict[str, nn.Module]:
        return {"teacher": self.teacher}

    def _check_explained(self, good: Sequence[Record], trainer: Trainer) -> None:
        """Sanity checks: shares of the teacher's variance that student and autoencoder explain on good images."""
        student, autoencoder = Explained(), Explained()
        with torch.inference_mode():
            for batch in batches(good, self.input_size, PREDICT_BATCH):
                images = batch.image.to(trainer.device)
                t = self.target(images)
                student.add(t, self.student(self._normalise(images)).chunk(2, dim=1)[0])
                autoencoder.add(t, self.autoencoder(self._normalise(images)))
        trainer.sanity_check("student", student.sanity_check("student", "the teacher's", STUDENT_EXPLAINS))
        trainer.sanity_check(
            "student", autoencoder.sanity_check("autoencoder", "the teacher's", AUTOENCODER_EXPLAINS)
        )

    def _fit_teacher_statistics(self, train: Sequence[Record], trainer: Trainer) -> list[Tensor]:
        """Mean and deviation of each teacher channel over all training images and patches.

        Returns the normalised outputs (C, h, w) of the first images, as many as fit into `TARGET_BYTES`.
        """
        total = torch.zeros(2, self.config.teacher.channels, dtype=torch.float64)
        count = 0
        kept: list[Tensor] = []
        stream = batches(train, self.input_size, PREDICT_BATCH)
        for batch in track(trainer.progress, stream, "teacher", -(-len(train) // PREDICT_BATCH)):
            with torch.no_grad():
                found = self.teacher(self._normalise(batch.image.to(trainer.device))).cpu()
            wide = found.double().transpose(0, 1).flatten(1)  # (C, n)
            total += torch.stack([wide.sum(1), wide.square().sum(1)])
            count += wide.shape[1]
            room = TARGET_BYTES // (found[0].numel() * found.element_size()) - len(kept)
            kept += [one.contiguous() for one in found[: max(room, 0)]]
        mean = total[0] / count
        deviation = (total[1] / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
        self.teacher_mean_.copy_(mean.view(1, -1, 1, 1))
        self.teacher_std_.copy_(deviation.view(1, -1, 1, 1))
        m, s = self.teacher_mean_[0].cpu(), self.teacher_std_[0].cpu()
        return [one.sub_(m).div_(s) for one in kept]

    def _draw_penalty(self, penalty: CachedImages, count: int, draw: Draw) -> Tensor:
        """Out-of-distribution images P: centre crops at twice the size, some grey; none where the weight is 0."""
        if self.config.penalty.weight == 0:
            return torch.empty(0, 3, *self.input_size)
        images = penalty(torch.randint(len(penalty), (count,), generator=draw.generator).tolist())
        return some_grey(images, self.config.penalty.grey_share, draw.generator)

    def losses(self, images: Tensor, target: Tensor, augmented: Tensor, outside: Tensor) -> dict[str, Tensor]:
        """L_ST and its penalty, L_AE and L_STAE of images in [0, 1] (Eq. 1 to 5); `target` is T(images)."""
        with torch.no_grad():
            target_augmented = self.target(augmented)
        a = self.autoencoder(self._normalise(augmented)).float()
        seen = [images, augmented, outside]
        s = self.student(self._normalise(torch.cat(seen))).float()
        (s1, _), (_, s2), (s_outside, _) = (part.chunk(2, dim=1) for part in s.split([len(x) for x in seen]))
        terms = {
            "student": hard_mean((target - s1).square(), self.config.p_hard),
            "autoencoder": (target_augmented - a).square().mean(),
            "student_autoencoder": (a - s2).square().mean(),
        }
        if len(outside):
            terms["penalty"] = self.config.penalty.weight * s_outside.square().mean()
        return terms

    def _minimise(
        self,
        loss: Callable[[Draw], Mapping[str, Tensor]],
        train: Sequence[Record],
        validation: Sequence[Record],
        trainer: Trainer,
    ) -> None:
        c = self.config
        nothing = torch.empty(0, 3, *self.input_size, device=trainer.device)

        def held_out_loss() -> Mapping[str, float]:
            found = 0.0
            for batch in batches(validation, self.input_size, PREDICT_BATCH):
                images = batch.image.to(trainer.device)
                with torch.inference_mode():
                    terms = self.losses(images, self.target(images), images, nothing)
                found += float(torch.stack(list(terms.values())).sum()) * len(images) / len(validation)
            return {"loss": found}

        def selection_auroc() -> Mapping[str, float]:
            return self.test_auroc(trainer.selection)

        measure = held_out_loss if c.selection == "validation" else selection_auroc
        trainer.minimise(
            "student",
            loss,
            {"student": self.student, "autoencoder": self.autoencoder},
            trainer.sampler("student", len(train), c.batch_size),
            steps=c.steps,
            optimiser=c.optimiser,
            stopping=None
            if c.selection == "budget"
            else EarlyStopping(measure, c.patience, higher_is_better=c.selection != "validation"),
        )

    def _fit_map_range(self, good: Sequence[Record], trainer: Trainer) -> None:
        """Quantiles q_a and q_b of both maps over all values of good images (Sec. 3.4)."""
        parts = []
        for batch in batches(good, self.input_size, PREDICT_BATCH):
            with torch.inference_mode():
                maps = self.raw_maps(batch.image.to(trainer.device)).cpu().transpose(0, 1)  # (2, B, h, w)
            inside = self.inspected(maps.shape[2], maps.shape[3], self._lost)
            parts.append(maps if inside is None else maps[:, :, inside.cpu()])
        values = torch.cat([part.flatten(1) for part in parts], 1).numpy()  # (2, n)
        self.map_range_.copy_(torch.from_numpy(np.quantile(values, QUANTILES, axis=1).T.astype(np.float32)))

    # Inference -----------------------------------------------------------------------------------------------------

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def target(self, images: Tensor) -> Tensor:
        """T: the teacher's output (B, C, h, w) on images in [0, 1], each channel standardised over the training images."""
        found = self.teacher(self._normalise(images)).float()
        return cast("Tensor", (found - self.teacher_mean_) / self.teacher_std_)

    @property
    def _lost(self) -> int:
        """Values of the raw maps that are lost on each side, where networks do not pad."""
        return (
            0 if self.config.padding else LOST_CELLS * (STRIDE if self.config.quantile_grid == "input" else 1)
        )

    def raw_maps(self, images: Tensor) -> Tensor:
        """M_ST and M_AE (B, 2, h, w), not normalised, at the resolution of `quantile_grid`."""
        s1, s2 = self.student(self._normalise(images)).chunk(2, dim=1)
        a = self.autoencoder(self._normalise(images))
        maps = torch.stack([(self.target(images) - s1).square().mean(1), (a - s2).square().mean(1)], 1)
        return maps if self.config.quantile_grid == "cell" else _upsampled(maps, STRIDE * maps.shape[-1])

    def analyse(self, images: Tensor) -> Analysis:
        low, high = self.map_range_[:, 0].view(1, 2, 1, 1), self.map_range_[:, 1].view(1, 2, 1, 1)
        maps = 0.1 * (self.raw_maps(images) - low) / (high - low).clamp_min(1e-12)  # q_a -> 0, q_b -> 0.1
        maps = self.quieted(F.pad(maps, [self._lost] * 4))  # outputs lost without padding count as 0
        combined = maps.mean(1, keepdim=True)  # ½ + ½
        maxima = (
            _upsampled(torch.cat([combined, maps], 1), self.config.image_size).flatten(2).amax(2)
        )  # (B, 3)
        return Analysis(
            combined, maxima[:, 0], {"max_student": maxima[:, 1], "max_autoencoder": maxima[:, 2]}
        )


def _upsampled(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def _teacher(config: TeacherConfig, padding: bool, pretrained: bool) -> tuple[nn.Sequential, WeightFile]:
    """The frozen teacher and its weights. Raises `WeightsError` when they are missing or of another network."""
    name, network = config.weights, f"pdn_{config.size}"
    if pretrained and name != RANDOM and name not in {entry.name for entry in entries()}:
        raise WeightsError(
            f"teacher weights {name!r} are not on this machine: bring a file with `andon weights add FILE --name {name} "
            f"--network {network}`, make them with `andon pretrain pdn --name {name} --set size={config.size}`, "
            "or use the recipe efficientad/starter, which works without"
        )
    weights = locate(name if pretrained else RANDOM, network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = pdn(config.size, config.width, config.channels, padding=padding)
    if weights.state is not None:
        state = teacher_state(weights.state, network, what=f"weights {name!r}")
        width, channels = len(state["0.weight"]), len(next(reversed(state.values())))
        if (width, channels) != (len(cast("Tensor", teacher[0].weight)), config.channels):
            raise WeightsError(
                f"weights {name!r} are of a teacher with width {width} and {channels} channels: set "
                f"teacher.width={width} and teacher.channels={channels}, or choose other weights"
            )
        teacher.load_state_dict({key: value.float() for key, value in state.items()})
    return teacher.requires_grad_(False), weights
