"""Names the cause and the place of a drift, and says what to look at. It never advises to move a threshold."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from andon.line.drift.charts import Floats
from andon.line.drift.numbers import CELLS
from andon.line.drift.reference import NAMES, Reference


class Cause(StrEnum):
    """What makes good parts look different."""

    LIGHT = "light"
    BLUR = "blur"
    SHIFT = "shift"
    COLOUR = "colour"
    NEW_PRODUCT = "new product"
    UNKNOWN = "unknown"
    """The numbers of the image do not say."""


ADVICE = {
    Cause.LIGHT: "check lamps, covers, exposure and light from outside",
    Cause.BLUR: "clean the lens, check focus and vibration",
    Cause.SHIFT: "check the fixture, the trigger and the mount of the camera",
    Cause.COLOUR: "check the lamps and the white balance of the camera",
    Cause.NEW_PRODUCT: "check that this product belongs to this model",
    Cause.UNKNOWN: "look at the last parts in the history",
}
KEEP = "do not raise the threshold"
"""Said with every advice: it would let bad parts pass and leaves the cause."""
EVIDENCE = {
    Cause.LIGHT: ("brightness", "evenness"),
    Cause.BLUR: ("sharpness",),
    Cause.SHIFT: ("x", "y"),
    Cause.COLOUR: ("red", "blue"),
}
"""Numbers that speak for a cause; the one that moved most, in standard deviations, decides."""
GROUPS = (("brightness", "evenness"), ("contrast",), ("sharpness",), ("red", "blue"))
"""Numbers that a single other cause moves together; it moves at most two of these groups."""
LEAST_LIKE = 0.2
"""Where the likeness of good parts reaches down to this, it says nothing about the product."""
UNLIKE = 0.55
"""Share of the likeness of good parts below which an image shows another product."""
MOVED = 0.5
"""Share of its limit beyond which a number has moved, once one is beyond its limit."""
FAR, MOST_GROUPS = 1.0, 3
"""So many groups that moved, now by at least so many standard deviations, are another product."""
ECHO = 0.3
"""Weight of the evenness where the position moved: a part that lies elsewhere makes cells uneven as well."""
ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")
WORDS = {
    "brightness": ("darker", "brighter"),
    "evenness": ("more even", "less even"),
    "sharpness": ("blurred", "sharper"),
    "x": ("to the left", "to the right"),
    "y": ("upwards", "downwards"),
    "red": ("less red", "more red"),
    "blue": ("less blue", "more blue"),
    "contrast": ("less contrast", "more contrast"),
    "likeness": ("less like the mean good image", "more like the mean good image"),
    "score": ("lower scores", "higher scores"),
}


class Named(NamedTuple):
    """A cause with its evidence."""

    cause: Cause
    number: str
    """The number that moved most, of those that speak for the cause."""
    place: str
    """Where on the image; empty for the whole image or where that does not apply."""
    words: str
    """E.g. `darker by 4.0 sigma`."""

    def text(self, since: str) -> str:
        """One line for people; `since`: time of day."""
        where = f", {self.place}" if self.place else ""
        return f"{self.cause}{where}, {self.words} since {since}: {ADVICE[self.cause]}; {KEEP}"


class Evidence(NamedTuple):
    """What the cause is judged by; arrays (`NAMES`,) and (`CELLS`, `CELLS`)."""

    level: Floats
    """Moving averages of the distances from the reference, standard deviations."""
    recent: Floats
    """Fast moving averages of the values."""
    share: Floats
    """Moving averages of the normal deviates over their limits."""
    cells: Floats
    """Relative change of the brightness of the cells."""


def name_cause(reference: Reference, seen: Evidence) -> Named:
    """Cause of a drift at the part at which it is found."""
    moved = dict(zip(NAMES, seen.level, strict=True))
    outside = {name for name, share in zip(NAMES, seen.share, strict=True) if share > MOVED}
    cause = Cause.NEW_PRODUCT if _is_other_product(reference, seen) else _largest(moved, outside)
    number = max(EVIDENCE.get(cause) or outside or NAMES, key=lambda name: abs(moved[name]))
    by = abs(float(reference.sigmas(seen.recent)[NAMES.index(number)]))
    if cause is not Cause.LIGHT or not (place := place_of(seen.cells)):
        return Named(cause, number, "", f"{WORDS[number][int(moved[number] > 0)]} by {by:.1f} sigma")
    brighter = float(seen.cells.ravel()[int(np.abs(seen.cells).argmax())]) > 0
    return Named(cause, number, place, f"{WORDS['brightness'][int(brighter)]} by {by:.1f} sigma")


def place_of(cells: Floats) -> str:
    """Where the brightness changed, e.g. `upper left`; empty where most of the image did."""
    size = np.abs(cells)
    chosen = size >= size.max() / 2
    if np.count_nonzero(chosen) > 0.6 * CELLS**2:
        return ""
    places = np.linspace(-1, 1, CELLS)
    weight = np.where(chosen, size, 0.0)
    down, right = ((weight.sum(axis) * places).sum() / weight.sum() for axis in (1, 0))
    words = [ROWS[_third(float(down))], COLUMNS[_third(float(right))]]
    return " ".join(word for word in words if word) or "middle"


def _third(place: float) -> int:
    return int(place > -0.3) + int(place > 0.3)


def _largest(moved: dict[str, float], outside: set[str]) -> Cause:
    """The cause whose evidence moved most."""
    even = ECHO if outside & {"x", "y"} else 1.0
    size = {name: abs(by) for name, by in moved.items()} | {"evenness": even * max(moved["evenness"], 0.0)}
    strength = {
        cause: max(size[name] for name in names) for cause, names in EVIDENCE.items() if outside & {*names}
    }
    return max(strength, key=lambda cause: strength[cause]) if strength else Cause.UNKNOWN


def _is_other_product(reference: Reference, seen: Evidence) -> bool:
    far = np.abs(reference.sigmas(seen.recent)) >= FAR
    moved = {
        name for name, share, is_far in zip(NAMES, seen.share, far, strict=True) if is_far and share > MOVED
    }
    if len([group for group in GROUPS if moved & {*group}]) >= MOST_GROUPS:
        return True
    like = NAMES.index("likeness")
    usual = float(reference.centre[like])
    says = usual - 2 * float(reference.scale[like]) > LEAST_LIKE
    return says and bool(seen.recent[like] < UNLIKE * usual)
