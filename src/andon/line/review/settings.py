"""Settings of the reviews of a station, `[stations.NAME.review]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from andon.core.config import Seed, Share
from andon.line.config import LineConfig, first_twice
from andon.line.verdicts import Verdict

DefectType = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,39}$")]
"""1 to 40 letters, digits, blanks, `-` and `_`: it becomes the name of a folder."""
RESERVED = {
    "good",
    "ok",
    "normal",
    "bad",
    "defect",
    "mask",
    "masks",
    "ground_truth",
    "train",
    "test",
    "validation",
}
"""Names of folders that mean something else."""


class ReviewSettings(LineConfig):
    """Which parts people look at, and what they see before they have answered."""

    sample: Share = 0.005
    """Share of the parts that pass which is drawn at random when they are judged."""
    seed: Seed = 0
    """Of the random draw."""
    ng: bool = False
    """All parts with verdict NG are reviewed as well; REVIEW and ERROR are in any case."""
    second_opinion: Share = 0.05
    """Share of the reviewed parts that a second person judges without knowing the first answer."""
    blind: bool = True
    """Verdict, score and heat map are hidden until the answer."""
    defect_types: tuple[DefectType, ...] = ()
    """At most 9, keys 1 to 9; empty: no keys, any type by REST."""

    @field_validator("defect_types")
    @classmethod
    def _fit_the_keys(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if len(types) > 9:
            raise ValueError(f"has {len(types)} types, there are nine keys: join some")
        if twice := first_twice(name.lower() for name in types):
            raise ValueError(f"{twice!r} is there twice: remove one")
        if taken := next((name for name in types if name.lower() in RESERVED), None):
            raise ValueError(f"{taken!r} is the name of a folder with another meaning: choose another")
        return types

    @property
    def verdicts(self) -> frozenset[Verdict]:
        """Those of which every part is reviewed."""
        return frozenset({Verdict.REVIEW, Verdict.ERROR} | ({Verdict.NG} if self.ng else set()))
