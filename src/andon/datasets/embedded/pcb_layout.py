"""Layout of the circuit board: components, traces and holes, the same for every seed.

Positions and lengths are in pixels at f = 1, relative to the middle of the board, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["ic", "resistor", "capacitor", "led", "header"]
Point = tuple[float, float]

BOARD_HALF = 108.0
BOARD_CORNER = 7.0
HOLES: tuple[Point, ...] = ((-97, -97), (97, -97), (-97, 97), (97, 97))
HOLE_RADIUS = 4.5


@dataclass(frozen=True, slots=True)
class Part:
    """A component; its coordinate u runs along `half[0]`."""

    name: str
    kind: Kind
    x: float
    y: float
    half: Point
    """Half sides of the body; for round components (radius, radius)."""
    turned: bool = False
    """Whether it is rotated by 90 degrees."""
    pins: int = 0
    """Pins per side of an IC, or of the header."""
    label: Point = (0, 0)
    """Position of the printed name relative to the component."""

    @property
    def round(self) -> bool:
        """Whether rotation is invisible."""
        return self.kind in ("capacitor", "led")


PIN_PITCH = 7.0
HEADER_PITCH = 10.0
PARTS: tuple[Part, ...] = (
    Part("U1", "ic", -38, -30, (30, 16), pins=8, label=(-37, 16)),
    Part("U2", "ic", 52, -46, (19, 14), pins=5, label=(-27, -7)),
    Part("U3", "ic", 46, 38, (23, 14), pins=6, label=(-31, 0)),
    Part("R1", "resistor", -58, -78, (6.5, 3.4), label=(0, -9)),
    Part("R2", "resistor", -26, -78, (6.5, 3.4), label=(0, -9)),
    Part("R3", "resistor", 8, -78, (6.5, 3.4), label=(0, -9)),
    Part("R4", "resistor", 10, -30, (6.5, 3.4), turned=True, label=(9, 0)),
    Part("R5", "resistor", -46, 36, (6.5, 3.4), label=(0, -9)),
    Part("R6", "resistor", -10, 36, (6.5, 3.4), label=(0, -9)),
    Part("C1", "capacitor", -89, -72, (11, 11), label=(0, 17)),
    Part("C2", "capacitor", -89, -34, (11, 11), label=(0, 17)),
    Part("C3", "capacitor", 89, -68, (10, 10), label=(0, 16)),
    Part("C4", "capacitor", 90, -4, (10, 10), label=(0, 16)),
    Part("C5", "capacitor", -84, 36, (12, 12), label=(0, 18)),
    Part("D1", "led", 66, 86, (7, 7), label=(14, 0)),
    Part("J1", "header", -42, 92, (41, 5), pins=8, label=(48, 5)),
)
TITLE = ("AD-256", 38.0, 97.0)
"""Text printed on the board, and its position."""

# Start, end, and whether there is a via at the end.
TRACES: tuple[tuple[Point, Point, bool], ...] = (
    ((-62.5, -9), (-77, 86), False),
    ((-55.5, -9), (-67, 86), False),
    ((-48.5, -9), (-57, 86), False),
    ((-41.5, -9), (-47, 86), False),
    ((-34.5, -9), (-37, 86), False),
    ((-27.5, -9), (-27, 86), False),
    ((-20.5, -9), (-17, 86), False),
    ((-13.5, -9), (-7, 86), False),
    ((-62.5, -51), (-65, -78), False),
    ((-48.5, -51), (-51, -78), False),
    ((-34.5, -51), (-33, -78), False),
    ((-20.5, -51), (-19, -78), False),
    ((38, -65), (15, -78), False),
    ((52, -65), (60, -90), True),
    ((66, -65), (84, -68), False),
    ((38, -27), (10, -37), False),
    ((45, -27), (28.5, 19), False),
    ((52, -27), (42.5, 19), False),
    ((59, -27), (49.5, 19), False),
    ((66, -27), (85, -4), False),
    ((28.5, 57), (8, 76), True),
    ((42.5, 57), (62, 86), False),
    ((63.5, 57), (92, 44), True),
    ((-79, 36), (-53, 36), False),
    ((-39, 36), (-17, 36), False),
    ((-3, 36), (10, 10), True),
)

# 3 x 5 dot matrix, rows from the top, three bits each.
GLYPHS = {
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 3, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
    "A": (2, 5, 7, 5, 5), "C": (7, 4, 4, 4, 7), "D": (6, 5, 5, 5, 6), "E": (7, 4, 6, 4, 7), "F": (7, 4, 6, 4, 4),
    "H": (5, 5, 7, 5, 5), "J": (1, 1, 1, 5, 7), "L": (4, 4, 4, 4, 7), "M": (5, 7, 7, 5, 5), "P": (7, 5, 7, 4, 4),
    "R": (6, 5, 6, 5, 5), "T": (7, 2, 2, 2, 2), "U": (5, 5, 5, 5, 7), "X": (5, 5, 2, 5, 5), "-": (0, 0, 7, 0, 0),
}  # fmt: skip
