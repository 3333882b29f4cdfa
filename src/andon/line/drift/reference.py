"""What passed parts of a station looked like: the reference that drift is measured against, and how it is learned.

A reference belongs to a station and a packed model. Its size does not grow with the number of its parts beyond `LEVELS` quantiles
of each number.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtri

from andon.line.drift.charts import Floats, autocorrelation, ewma_limit, to_normal
from andon.line.drift.numbers import CELLS, DARKEST, SIDE, Numbers, Reduced, Template, measure

NAMES = (*Numbers._fields, "score")
"""Numbers that are watched, in this order."""
LEVELS = 401
"""Quantiles of a number that are kept."""
TEMPLATE_PARTS = 50
"""First parts of a reference: their mean is the mean good image."""
FLOORS = np.array([0.004, 0.01, 0.01, 0.001, 0.001, 0.002, 0.002, 0.002, 0.005, 0.005])
"""Smallest standard deviation of each of `NAMES` that counts: a line that repeats itself exactly calls nobody for less."""


@dataclass(frozen=True)
class Reference:
    """Distribution of each number over passed parts."""

    count: int
    """Parts."""
    template: Template
    levels: Floats
    """(`NAMES`, `LEVELS`) quantiles from 0 to 1."""
    centring: Floats
    """(2, `NAMES`) mean and standard deviation, at least 1, of what `deviates` gives for these parts without it."""
    rho: Floats
    """(`NAMES`,) autocorrelation of neighbouring parts."""
    cells: Floats
    """(`CELLS`, `CELLS`) mean brightness of each cell."""
    timing: tuple[float, float]
    """Medians: milliseconds of judging, seconds between two parts."""

    @classmethod
    def of(cls, template: Template, values: Floats, cells: Floats, timing: Floats) -> Reference:
        """From the numbers (N, `NAMES`), cells (N, `CELLS`, `CELLS`), milliseconds and seconds (N, 2) of parts in their order."""
        levels = np.quantile(values, np.linspace(0, 1, LEVELS), axis=0).T
        zeros = np.zeros(len(NAMES))
        plain = cls(
            len(values),
            template,
            levels,
            np.array([zeros, zeros + 1]),
            zeros,
            np.ones((CELLS, CELLS)),
            (0, 0),
        )
        deviates = plain.deviates(values)
        return cls(
            len(values),
            template,
            levels,
            np.array([deviates.mean(0), np.maximum(deviates.std(0), 1.0)]),
            np.array([autocorrelation(column) for column in deviates.T]),
            np.maximum(cells.mean(0), DARKEST),
            (float(np.median(timing[:, 0])), float(np.median(timing[:, 1]))),
        )

    @cached_property
    def centre(self) -> Floats:
        """(`NAMES`,) medians."""
        return np.asarray(self.levels[:, LEVELS // 2])

    @cached_property
    def scale(self) -> Floats:
        """(`NAMES`,) standard deviations by the quantiles of 16 and 84 %, at least `FLOORS`."""
        low, high = (self.levels[:, round(share * (LEVELS - 1))] for share in (0.16, 0.84))
        return np.asarray(np.maximum((high - low) / 2, FLOORS))

    @cached_property
    def limits(self) -> Floats:
        """(`NAMES`,) largest in-control |EWMA| of each number, standard deviations."""
        return np.array([ewma_limit(float(rho), self.count) for rho in self.rho])

    def deviates(self, values: Floats) -> Floats:
        """(..., `NAMES`) as standard normal deviates; of numbers that hardly varied, as multiples of the floor.

        Bounded for all alike, so that no single part makes an alarm.
        """
        most = float(ndtri(1 - 0.5 / self.count))
        straight = np.clip(self.sigmas(values), -most, most)
        columns = [
            straight[..., k] if self.is_flat[k] else to_normal(values[..., k], self.levels[k], self.count)
            for k in range(len(NAMES))
        ]
        mean, deviation = self.centring
        return np.asarray((np.stack(columns, axis=-1) - mean) / deviation)

    def sigmas(self, values: Floats) -> Floats:
        """(..., `NAMES`) distance from the median in standard deviations, not bounded."""
        return np.asarray((values - self.centre) / self.scale)

    @cached_property
    def is_flat(self) -> list[bool]:
        """Whether each number varied less than its floor."""
        low, high = (self.levels[:, round(share * (LEVELS - 1))] for share in (0.16, 0.84))
        return [bool(flat) for flat in (high - low) / 2 < FLOORS]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "count": self.count,
            "template": packed(self.template.luma),
            "by_centroid": self.template.by_centroid,
            "levels": packed(self.levels),
            "centring": packed(self.centring),
            "rho": packed(self.rho),
            "cells": packed(self.cells),
            "timing": list(self.timing),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reference:
        """Inverse of `to_json`."""
        judging, interval = data["timing"]
        return cls(
            int(data["count"]),
            Template(unpacked(data["template"], SIDE, SIDE), bool(data["by_centroid"])),
            unpacked(data["levels"], len(NAMES), LEVELS),
            unpacked(data["centring"], 2, len(NAMES)),
            unpacked(data["rho"], len(NAMES)),
            unpacked(data["cells"], CELLS, CELLS),
            (float(judging), float(interval)),
        )


@dataclass
class Learner:
    """Learns a reference from the passed parts that come: first the mean good image, then the distributions."""

    wanted: int
    """Parts."""
    who: str
    why: str
    first: list[Reduced] = field(default_factory=list)
    template: Template | None = None
    rows: list[list[float]] = field(default_factory=list)
    """Of each part: `NAMES`, cells, milliseconds, seconds."""

    def add(self, image: Reduced, score: float, judging_ms: float, interval_s: float) -> Reference | None:
        """Take a passed part; the reference when it is complete."""
        if self.template is None:
            self.first.append(image)
            if len(self.first) == TEMPLATE_PARTS:
                self.template = Template.of([each.luma for each in self.first])
                self.first.clear()
            return None
        numbers = measure(image, self.template)
        self.rows.append([*numbers, score, *image.cells.ravel(), judging_ms, interval_s])
        return self._learned() if len(self.rows) >= self.wanted else None

    @property
    def progress(self) -> int:
        """Parts that were taken, those of the mean good image included."""
        return len(self.first) + len(self.rows) + (0 if self.template is None else TEMPLATE_PARTS)

    @property
    def total(self) -> int:
        """Parts that are needed."""
        return self.wanted + TEMPLATE_PARTS

    def _learned(self) -> Reference:
        assert self.template is not None
        values, split = np.array(self.rows), len(NAMES)
        cells = values[:, split:-2].reshape(-1, CELLS, CELLS)
        return Reference.of(self.template, values[:, :split], cells, values[:, -2:])

    def to_json(self) -> dict[str, Any]:
        """Plain data; the first images are not among it, they are taken again."""
        template = self.template
        return {
            "wanted": self.wanted,
            "who": self.who,
            "why": self.why,
            "template": None if template is None else packed(template.luma),
            "by_centroid": template is not None and template.by_centroid,
            "rows": packed(np.array(self.rows)),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Learner:
        """Inverse of `to_json`."""
        found = cls(int(data["wanted"]), data["who"], data["why"])
        if data["template"] is not None:
            found.template = Template(unpacked(data["template"], SIDE, SIDE), bool(data["by_centroid"]))
            found.rows = unpacked(data["rows"], -1, len(NAMES) + CELLS**2 + 2).tolist()
        return found


def packed(values: Floats) -> str:
    """Single precision, base 64."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype("<f4")).tobytes()).decode()


def unpacked(text: str, *shape: int) -> Floats:
    """Inverse of `packed`; -1 stands for the length of one side."""
    found = np.frombuffer(base64.b64decode(text), np.dtype("<f4")).astype(np.float64)
    return found.reshape(shape if found.size or -1 not in shape else (0, *shape[1:]))
