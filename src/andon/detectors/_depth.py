"""Input of AST and EfficientAD-AST: features of a frozen backbone, relative depth of the part, or both concatenated.

The depth map (``docs/reference/models/ast.md``) is unshuffled to the grid of the features: the depth values of a cell become its
channels. The foreground mask weights the cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Config, Count
from andon.core.errors import ConfigError
from andon.core.images import View, load_depth
from andon.core.records import Record
from andon.detectors._base import Detector, DetectorConfig
from andon.detectors._relief import network_planes
from andon.layers.adapter import FeatureAdapter
from andon.nn.backbones import Backbone, BackboneConfig, weight_lines
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Trainer

PLAIN = View()
CHUNK = 8
"""Images computed at a time outside of training."""


class AdaptedExtractorConfig(BackboneConfig):
    """The frozen feature extractor, projection and standardisation of its features."""

    project: Count | None = None
    """Channels after a fixed random orthonormal projection; None = no projection."""
    standardise: bool = False
    """Standardise each feature channel over the training images."""


class DepthConfig(Config):
    """The depth map, in the modes `depth` and `combined`."""

    side: int = Field(default=192, ge=8, le=2048)
    """Both sides of the depth map are resized to this many pixels."""
    cell: Count = 8
    """Depth pixels per feature cell in each direction; they become cell² channels. Must divide `side`."""
    distance: Amount = 7e-3
    """Smallest distance of the part from the background, in metres."""
    dilate: Count = 8
    """Side of the square that dilates the foreground, in pixels of the depth map."""
    mask: Literal["soft", "binary"] = "soft"
    """Weight of a cell: the bilinearly resized foreground (authors' code), or 1 where that is above 0 (paper)."""
    norm: Literal["cells", "mask"] = "cells"
    """Divisor of masked losses: the number of cells (paper), or the sum of the mask, which makes small and large parts equal."""


class DepthDetectorConfig(DetectorConfig):
    """Settings of a detector on colour, depth or both."""

    mode: Literal["rgb", "depth", "combined"] = "rgb"
    """Input: the colour image, the depth map beside it, or both."""
    extractor: AdaptedExtractorConfig = AdaptedExtractorConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    depth: DepthConfig = DepthConfig()


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input of the networks for a batch of images."""

    f: Tensor
    """(B, C, h, w) features, unshuffled depth, or both concatenated."""
    mask: Tensor
    """(B, 1, h, w) weight of each cell in [0, 1]; all 1 without depth."""

    def at(self, indices: Tensor, device: torch.device) -> Inputs:
        """The images at `indices`, on a device."""
        return Inputs(self.f[indices].to(device), self.mask[indices].to(device))

    @staticmethod
    def joined(parts: Sequence[Inputs]) -> Inputs:
        """Concatenation over images."""
        return Inputs(torch.cat([part.f for part in parts]), torch.cat([part.mask for part in parts]))

    def chunks(self, device: torch.device) -> Iterator[Inputs]:
        """All images in order, `CHUNK` at a time, on a device."""
        for indices in torch.split(torch.arange(len(self)), CHUNK):
            yield self.at(indices, device)

    def __len__(self) -> int:
        return len(self.f)


class DepthDetector(Detector):
    """A detector whose networks take `Inputs`. A subclass calls `create_inputs` and builds networks of the shape it returns."""

    config: DepthDetectorConfig
    extractor: Backbone | None
    adapter: FeatureAdapter | None

    @classmethod
    def check(cls, config: DetectorConfig) -> None:
        """As the base, in the modes that have a backbone."""
        assert isinstance(config, DepthDetectorConfig)
        if config.mode != "depth":
            super().check(config)

    def create_inputs(self, *, pretrained: bool) -> tuple[int, int, int]:
        """Create extractor and adapter (modes with colour); returns the shape (C, h, w) of `Inputs.f`.

        Raises `ConfigError` if the grids of depth and features differ.
        """
        c = self.config
        self.extractor = self.adapter = None
        channels, grid = 0, (c.depth.side // c.depth.cell, c.depth.side // c.depth.cell)
        if c.mode != "depth":
            self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
            self.adapter = FeatureAdapter(
                self.extractor.shapes, project=c.extractor.project, standardise=c.extractor.standardise
            )
            channels, *cells = self.adapter.shape
            self.used_weights = weight_lines(self.extractor)
            if c.mode == "combined":
                _check_grids(c, (cells[0], cells[1]))
            grid = cells[0], cells[1]
        if c.mode != "rgb":
            _check_cells(c.depth)
            channels += c.depth.cell**2
        if channels < 2:
            raise ConfigError(
                "the flow splits the features in two and needs at least 2 channels: choose another tap"
            )
        return channels, *grid

    @property
    def input_size(self) -> tuple[int, int]:
        side = self.config.depth.side if self.config.mode == "depth" else self.config.extractor.image_size
        return side, side

    @property
    def input_channels(self) -> int:
        return 3 if self.config.mode == "rgb" else 5

    @property
    def depth_planes(self) -> Callable[[npt.NDArray[np.float32]], Tensor] | None:
        """Depth and foreground as two further channels, upsampled to the image by repetition (undone by `inputs`)."""
        return None if self.config.mode == "rgb" else self._planes_at_input_size

    def _planes_at_input_size(self, points: npt.NDArray[np.float32]) -> Tensor:
        repeat = self.input_size[0] // self.config.depth.side
        return self._planes(points).repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)

    def _planes(self, points: npt.NDArray[np.float32]) -> Tensor:
        c = self.config.depth
        return torch.from_numpy(network_planes(points, c.side, distance=c.distance, dilate=c.dilate))

    def load_inputs(
        self, records: Sequence[Record], trainer: Trainer, *, what: str, view: View = PLAIN, fit: bool = False
    ) -> Inputs:
        """`Inputs` of all records, on the CPU; `fit` learns the standardisation of the features first."""
        planes = None
        if self.config.mode != "rgb":
            side = self.config.depth.side
            read = load_depth(records, self._planes, progress=trainer.progress) if records else None
            planes = torch.empty(0, 2, side, side) if read is None else read
        colours = None
        if self.extractor is not None and self.adapter is not None:
            raw = FeatureCache(self.extractor).load(records, view=view, progress=trainer.progress, what=what)
            if fit:
                self.adapter.fit(raw)
            colours = self.adapter.transform(raw)
        return self.joined(colours, planes)

    def joined(self, colours: Tensor | None, planes: Tensor | None) -> Inputs:
        """`Inputs` from features (B, C, h, w) and from depth and foreground (B, 2, side, side); None: not in this mode."""
        if planes is None:
            assert colours is not None
            return Inputs(colours, colours.new_ones(colours.shape[0], 1, *colours.shape[2:]))
        depth = F.pixel_unshuffle(planes[:, :1], self.config.depth.cell)
        f = depth if colours is None else torch.cat([colours, depth], 1)
        mask = F.interpolate(planes[:, 1:], size=f.shape[2:], mode="bilinear", align_corners=False)
        return Inputs(f, mask if self.config.depth.mask == "soft" else (mask > 0).to(f.dtype))

    def inputs(self, images: Tensor) -> Inputs:
        """`Inputs` of images (B, 3 or 5, H, W) as `analyse` takes them."""
        colours = None
        if self.extractor is not None and self.adapter is not None:
            colours = self.adapter.transform(self.extractor(images[:, :3]))
        if self.config.mode == "rgb":
            return self.joined(colours, None)
        step = self.input_size[0] // self.config.depth.side
        return self.joined(colours, images[:, 3:, ::step, ::step])

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """Elements of a loss (B, C, h, w), weighted by the mask so that their mean is normalised as `DepthConfig.norm` says."""
        weighted = x * mask
        return weighted / mask.mean().clamp_min(1e-6) if self.config.depth.norm == "mask" else weighted


def _check_cells(c: DepthConfig) -> None:
    if c.side % c.cell:
        raise ConfigError(f"depth.cell={c.cell} does not divide depth.side={c.side}: choose a divisor of it")


def _check_grids(c: DepthDetectorConfig, grid: tuple[int, int]) -> None:
    """Depth map and features need the same grid, and the image size must be a multiple of the depth map's."""
    side, size, cell = c.depth.side, c.extractor.image_size, c.depth.cell
    if grid != (side // cell, side // cell):
        raise ConfigError(
            f"features have {grid[0]} x {grid[1]} cells, the depth map {side // cell} x {side // cell}: set "
            f"depth.side={grid[0] * cell}, or another depth.cell"
        )
    if size % side:
        raise ConfigError(
            f"extractor.image_size={size} is no multiple of depth.side={side}: set depth.cell to a divisor of {size // grid[0]}"
        )
