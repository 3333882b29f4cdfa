"""Settings of EAST."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.core.config import Amount, Count
from andon.detectors._config import ClosedFormConfig
from andon.nn.backbones import BackboneConfig


class EASTConfig(ClosedFormConfig):
    """Settings of EAST; the defaults are those of the recipe `lite0`."""

    extractor: BackboneConfig = BackboneConfig(
        network="tf_efficientnet_lite0", weights="lite0", taps=("blocks.2", "blocks.4"), image_size=384
    )
    score: Literal["both", "gaussian", "neighbour"] | None = None
    """Sum of the two standardised distances, or one of them alone; null = both, and in tiles, which have no fixed place,
    the neighbour distance."""
    block: Count = 2
    """Side in cells of the blocks whose cells share a covariance."""
    common: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the common covariance in that of each block; null = the best of `SHARES` by held-out likelihood."""
    regularisation: Amount = 0.001
    """Added to the diagonal of each covariance, in units of the mean variance of the common one."""
    bank: Count = 1000
    """Patches in the coreset, at most."""
    copies: bool = True
    """Learn from a copy of each training image too: in other light, shifted, and every other one compressed."""
    composition: bool = True
    """See parts that are missing or in the wrong combination too, by a linear autoencoder of whole images. Takes part where the
    score is `both`, the cells divide into squares of 2 x 2 blocks, and there are 25 images."""
    memory_gib: Amount = 8.0
    """Memory that fitting may take, in GiB; a fit that needs more, or more than the machine has, is refused before it starts."""

    @property
    def scored(self) -> Literal["both", "gaussian", "neighbour"]:
        """`score`, or what takes its place."""
        return self.score or ("both" if self.tile.size is None else "neighbour")
