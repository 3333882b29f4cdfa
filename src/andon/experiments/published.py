"""Published results, shown beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from andon.core.config import from_yaml


@dataclass(frozen=True, slots=True)
class Published:
    """One row of a published table."""

    name: str
    """Name in the publication."""
    detector: str
    """Name of the detector in andon."""
    source: str
    weights: str = "ImageNet"
    selected: str = "–"
    values: dict[str, float] = field(default_factory=dict)
    """Averages over the data set in percent, by metric name."""
    texture: dict[str, float] = field(default_factory=dict)
    """As `values`, over the textures."""
    object: dict[str, float] = field(default_factory=dict)
    """As `values`, over the objects."""

    def cell(self, metric: str, group: str = "all") -> str:
        """Value for `all`, `texture` or `object` as text; a dash where none was published."""
        values = {"all": self.values, "texture": self.texture, "object": self.object}[group]
        return f"{values[metric]:.1f}" if metric in values else "–"

    def has(self, metric: str) -> bool:
        """Whether any value of the metric was published."""
        return any(metric in values for values in (self.values, self.texture, self.object))


@cache
def _rows() -> dict[str, tuple[Published, ...]]:
    text = resources.files("andon").joinpath("assets/published.yaml").read_text(encoding="utf-8")
    content = from_yaml(text, where="assets/published.yaml")
    return {dataset: tuple(Published(**row) for row in rows) for dataset, rows in content.items()}


def published_for(dataset: str) -> tuple[Published, ...]:
    """Published averages on a data set (`mvtec_ad`, `mvtec_loco`), empty for others."""
    return _rows().get(dataset, ())
