"""What the training images look like, and how another image differs from them (docs/reference/data.md, "Unlike images").

An image is measured on about 64 x 64 of its pixels, so that the cost does not depend on its size. Bounds are the range of the
training images, widened by `MARGINS`. Needs no PyTorch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from andon.core.deep_images import bit_depth_of, is_deep_png, is_deep_tiff
from andon.core.errors import DataError
from andon.core.images import prefetch, read_decoded
from andon.core.opening import open_image
from andon.core.records import Note, Record

MEASURED = 60
"""Training images that are measured, evenly taken."""
LEAST_USED = 0.25
"""Largest value of a data set, as a share of the full range, below which a warning is given."""
GRID = 64
"""Rows and columns of the pixels that are measured."""
GOLDEN = 0.618034
"""Irrational step, so that the measured pixels do not fall into step with a pattern."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SIZE_FACTOR, PROPORTION_FACTOR = 1.25, 1.05
"""How far the side of an image, or width over height, may lie outside the range of the training images."""
FEW = 3
"""Margins are widened by (1 + FEW / number of training images)."""


class RangeWarning(UserWarning):
    """Images use little of the range of their values."""


class Trait(NamedTuple):
    """A measure whose range over the training images bounds that of others."""

    name: str
    margin: float
    """Allowed distance from the range, on the scale of `_scale`."""
    below: str
    """Code of an image below the range."""
    above: str
    """Code of an image above it; empty where that is nothing unusual."""


TRAITS = (
    Trait("brightness", 0.3, "dark", "bright"),
    Trait("highlights", 0.3, "dark", ""),
    Trait("chroma", 0.5, "grey", "colourful"),
    Trait("warmth", 0.12, "colour_balance", "colour_balance"),
    Trait("contrast", 0.4, "low_contrast", "high_contrast"),
    Trait("sharpness", 0.5, "blurred", "sharp"),
)
"""In the order in which they are compared: of an image outside several ranges the first is named, as others follow from it."""
WORDS = {
    "dark": "darker",
    "bright": "brighter",
    "grey": "less colour, or grey",
    "colourful": "more colour, or colour instead of grey",
    "colour_balance": "other colours, or red and blue swapped",
    "low_contrast": "less contrast",
    "high_contrast": "more contrast",
    "blurred": "blurred, or enlarged before",
    "sharp": "sharper, or noisier",
}


@dataclass(frozen=True, slots=True)
class Appearance:
    """Measures of one image."""

    width: int
    height: int
    """Pixels of the file, after EXIF rotation."""
    bits: int
    """Bits of a stored value: 8, 16 or 32 (float); 0 for arrays of floats, where it is not known."""
    brightness: float
    """Mean luma, in [0, 1]."""
    highlights: float
    """98th percentile of luma."""
    chroma: float
    """Mean difference of the largest and the smallest channel, over the brightness; 0 = grey."""
    warmth: float
    """Mean of red less blue, over the brightness."""
    contrast: float
    """90th less 10th percentile of luma, over the brightness; a small defect does not change it."""
    sharpness: float
    """Mean difference of neighbouring pixels, over the 90th less the 10th percentile of luma."""


class Measured(NamedTuple):
    """Means and quantiles of the measured pixels of one image, proportional to the scale of its values."""

    brightness: float
    highlights: float
    chroma: float
    warmth: float
    contrast: float
    """90th less 10th percentile of luma."""
    steps: float
    """Mean difference of neighbouring pixels."""


def measure(
    pixels: npt.NDArray[Any],
    bits: int,
    inside: npt.NDArray[np.bool_] | None = None,
    reduction: int = 1,
) -> Appearance:
    """The measures of pixels (H, W, 3 or more), uint8 or float32 in [0, 1], on the pixels `inside` (H, W) where there are some.

    `reduction` is the factor by which width and height of the file were divided while decoding.
    """
    height, width = pixels.shape[:2]
    return _appearance(_values(pixels, inside), width * reduction, height * reduction, bits)


def _values(pixels: npt.NDArray[Any], inside: npt.NDArray[np.bool_] | None) -> Measured:
    rows, columns = _places(pixels.shape[0]), _places(pixels.shape[1])
    here, right, below = (
        _colours(pixels, rows + down, columns + across) for down, across in ((0, 0), (0, 1), (1, 0))
    )
    if inside is not None and (chosen := _inside(inside, rows, columns)).any():
        here, right, below = here[:, chosen], right[:, chosen], below[:, chosen]
    luma = LUMA @ here
    steps = np.abs(LUMA @ right - luma) + np.abs(LUMA @ below - luma)
    low, high, highlights = _quantiles(luma, 0.1, 0.9, 0.98)
    return Measured(
        brightness=float(luma.mean()),
        highlights=highlights,
        chroma=float((here.max(0) - here.min(0)).mean()),
        warmth=float((here[0] - here[2]).mean()),
        contrast=high - low,
        steps=float(steps.mean()),
    )


def _appearance(values: Measured, width: int, height: int, bits: int) -> Appearance:
    over = max(values.brightness, 1e-3)
    return Appearance(
        width=width,
        height=height,
        bits=bits,
        brightness=values.brightness,
        highlights=values.highlights,
        chroma=values.chroma / over,
        warmth=values.warmth / over,
        contrast=values.contrast / over,
        sharpness=values.steps / max(values.contrast, 1e-3),
    )


def _quantiles(values: npt.NDArray[np.float32], *shares: float) -> list[float]:
    ordered = np.sort(values)
    return [float(ordered[int(share * values.size)]) for share in shares]


def _places(side: int) -> npt.NDArray[np.int64]:
    """Up to `GRID` indices below `side` - 1, one at an irregular place in each of as many equal parts."""
    count = min(GRID, side - 1)
    parts = np.arange(count)
    return ((parts + parts * GOLDEN % 1) * (side - 1) / count).astype(np.int64)


def _colours(
    pixels: npt.NDArray[Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """(3, N) colours in [0, 1] where the rows and columns cross."""
    found = np.ascontiguousarray(pixels[rows[:, None], columns, :3].reshape(-1, 3).T)
    return found.astype(np.float32) / np.float32(255) if found.dtype == np.uint8 else found


def _inside(
    inside: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """(N,), True where a pixel and the two that it is compared with are inside."""
    here, right, below = (
        inside[rows[:, None] + down, columns + across] for down, across in ((0, 0), (0, 1), (1, 0))
    )
    return (here & right & below).ravel()


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """What training images looked like."""

    count: int
    """Images that were measured."""
    lowest: Appearance
    """Smallest value of each measure."""
    highest: Appearance
    """Largest value of each."""
    proportions: tuple[float, float]
    """Smallest and largest width over height."""
    bits: tuple[int, ...]
    """Each number of bits that occurs."""
    bit_depth: int = 16
    """Bits that the values of files with more than 8 bits use."""
    largest: int | None = None
    """Largest stored value of such files; None where there are none."""
    brightest: float = 1.0
    """Largest value of all measured images, in [0, 1]."""

    @property
    def deep(self) -> bool:
        """Whether values have more than 8 bits."""
        return self.largest is not None or any(bits > 8 for bits in self.bits)

    @classmethod
    def of(cls, found: Sequence[Appearance]) -> TrainingImages:
        """The ranges of at least one image."""
        values = [asdict(one) for one in found]
        proportions = [one.width / one.height for one in found]
        return cls(
            count=len(found),
            lowest=Appearance(**{name: min(one[name] for one in values) for name in values[0]}),
            highest=Appearance(**{name: max(one[name] for one in values) for name in values[0]}),
            proportions=(min(proportions), max(proportions)),
            bits=tuple(sorted({one.bits for one in found})),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `detector.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingImages:
        """Inverse of `to_json`."""
        low, high = data["proportions"]
        return cls(
            count=int(data["count"]),
            lowest=Appearance(**data["lowest"]),
            highest=Appearance(**data["highest"]),
            proportions=(float(low), float(high)),
            bits=tuple(int(value) for value in data["bits"]),
            **{name: data[name] for name in ("bit_depth", "largest", "brightest") if name in data},
        )

    def warnings(self) -> list[str]:
        """Messages about images that use little of their range."""
        return range_warnings(self.brightest, self.count)

    def differences(self, image: Appearance, *, tiled: bool = False) -> tuple[Note, ...]:
        """How an image is unlike the training images, at most one note of each code; empty where it is like them.

        Of images that are cut into tiles, size and proportions are not compared.
        """
        form = () if tiled else self.form_differences(image.width, image.height)
        return (*form, *self._of_content(image))

    def form_differences(self, width: int, height: int) -> tuple[Note, ...]:
        """How size and proportions of an image are unlike those of the training images."""
        return tuple(self._of_form(width, height))

    def _of_form(self, width: int, height: int) -> Iterator[Note]:
        size = f"{width} x {height} pixels"
        if not _within(width / height, *self.proportions, PROPORTION_FACTOR):
            yield Note("proportion", f"{size}, learned from width : height {self._range(*self.proportions)}")
        low, high = self.lowest, self.highest
        area = np.sqrt(width * height)
        least, most = np.sqrt(low.width * low.height), np.sqrt(high.width * high.height)
        if not _within(area, least, most, SIZE_FACTOR):
            sides = [f"{one.width} x {one.height}" for one in (low, high)]
            yield Note("size", f"{size}, learned from {' to '.join(dict.fromkeys(sides))}")

    def _of_content(self, image: Appearance) -> Iterator[Note]:
        if image.bits and any(self.bits) and image.bits not in self.bits:
            known = " and ".join(str(bits) for bits in self.bits if bits)
            yield Note("bit_depth", f"{image.bits} bits per value, learned from {known}")
        for trait in TRAITS:
            value, low, high = (float(getattr(one, trait.name)) for one in (image, self.lowest, self.highest))
            margin = trait.margin * (1 + FEW / self.count)
            scaled, least, most = (_scale(trait.name, one) for one in (value, low, high))
            code = trait.below if scaled < least - margin else trait.above if scaled > most + margin else ""
            if code:
                yield Note(
                    code, f"{WORDS[code]}: {trait.name} {value:.2g}, learned from {self._range(low, high)}"
                )
                return

    @staticmethod
    def _range(low: float, high: float) -> str:
        return " to ".join(dict.fromkeys(f"{value:.2g}" for value in (low, high)))


def _within(value: float, low: float, high: float, factor: float) -> bool:
    return low / factor <= value <= high * factor


def _scale(name: str, value: float) -> float:
    """The scale on which ranges are widened: log odds of the brightness, the value of the warmth, logarithms of the others."""
    if name == "brightness":
        value = min(max(value, 0.01), 0.99)
        return float(np.log(value / (1 - value)))
    if name == "warmth":
        return value
    return float(np.log(value + (0.003 if name == "sharpness" else 0.03)))


def range_warnings(brightest: float, count: int) -> list[str]:
    """A warning where the largest value in [0, 1] of all images is below `LEAST_USED`, else nothing."""
    if brightest >= LEAST_USED:
        return []
    return [
        f"the brightest value of {count} pictures is {brightest:.1%} of the range: expose longer, or open the aperture, so that "
        "little is lost in noise"
    ]


def with_bit_depth(records: Sequence[Record], bit_depth: int) -> Sequence[Record]:
    """The records with `bit_depth` set."""
    return [replace(record, bit_depth=bit_depth) for record in records]


def look_at(records: Sequence[Record], bit_depth: int | Literal["auto"] = "auto") -> TrainingImages | None:
    """What up to `MEASURED` of the records look like, evenly taken, and how many bits their values use.

    Of files with more than 8 bits per value all are read, and with `auto` the fewest bits that hold them are taken. Warns by a
    `RangeWarning` where little of the range is used. Images that cannot be read are left out; None where none can.
    """
    even = set(np.linspace(0, len(records) - 1, min(MEASURED, len(records))).round().astype(int))
    chosen = [record for k, record in enumerate(records) if k in even or _may_be_deep(record.image)]
    looks = [look for look in prefetch(_look, chosen) if look is not None]
    if not looks:
        return None
    largest = max((look.largest for look in looks if look.largest is not None), default=None)
    bits = bit_depth if bit_depth != "auto" else 16 if largest is None else bit_depth_of(largest)
    found = replace(
        TrainingImages.of([look.at(bits) for look in looks]),
        bit_depth=bits,
        largest=largest,
        brightest=max(look.factor(bits) * look.brightest for look in looks),
    )
    for said in found.warnings():
        warnings.warn(said, RangeWarning, stacklevel=2)
    return found


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of one image, its values divided by 65535 if the file has more than 8 bits."""

    values: Measured
    size: tuple[int, int]
    """(W, H) in pixels of the file."""
    bits: int
    brightest: float
    largest: int | None

    def factor(self, bit_depth: int) -> float:
        """What turns the values into those that are read with `bit_depth`."""
        return 1.0 if self.largest is None else 65535 / (2**bit_depth - 1)

    def at(self, bit_depth: int) -> Appearance:
        """As read with `bit_depth`."""
        factor = self.factor(bit_depth)
        return _appearance(Measured(*(factor * value for value in self.values)), *self.size, self.bits)


def _may_be_deep(path: Path) -> bool:
    """Whether a file has more than 8 bits per value, by its header; True for one that Pillow cannot open."""
    try:
        with open_image(path) as opened:
            return is_deep_png(opened) or is_deep_tiff(opened) or opened.mode.startswith("I")
    except Exception:  # who learns from it names it
        return True


def _look(record: Record) -> _Look | None:
    with contextlib.suppress(DataError):  # who learns from it names it
        decoded = read_decoded(replace(record, bit_depth=16))
        shape = (decoded.pixels.shape[0], decoded.pixels.shape[1])
        inside = None if record.region is None else record.region.resized(shape)
        shown = decoded.pixels if inside is None else decoded.pixels[inside]
        return _Look(
            values=_values(decoded.pixels, inside),
            size=(shape[1] * decoded.reduction, shape[0] * decoded.reduction),
            bits=decoded.bits,
            brightest=float(shown.max(initial=0)),
            largest=decoded.largest,
        )
    return None
