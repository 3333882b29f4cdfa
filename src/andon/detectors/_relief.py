"""From organised point clouds to relative depth and foreground, as in AST (Rudolph et al., arXiv 2210.07829).

Steps and constants: docs/reference/models.md, "AST".

A structured-light camera gives one point (x, y, z in metres) per pixel, (0, 0, 0) where it measured nothing. The product lies
on a flat background. AST uses the depth of the product relative to its mean, and the foreground mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.core.image_files import measured_points

Depth = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CORNER = 2
"""Side in pixels of the corner squares that the background is estimated from."""
FILL_PASSES = 3
CENTIMETRES = 100.0


@dataclass(frozen=True, slots=True)
class Relief:
    """Relative depth and foreground of a point cloud."""

    depth: Depth
    """(H, W) depth less the mean depth of the foreground, in centimetres, positive behind it; 0 on the background."""
    foreground: Mask
    """(H, W), True on the product. Where no foreground is found: True everywhere, and `depth` is 0."""


def relief(points: npt.NDArray[np.float32], *, distance: float = 7e-3) -> Relief:
    """Relative depth and foreground of an organised point cloud (H, W, 3) in metres.

    The foreground is what is more than `distance` metres from the background surface through the corners.
    """
    z = fill_holes(depth_of(points))
    inside = foreground(z, distance)
    if not inside.any():
        return Relief(np.zeros_like(z), np.ones_like(inside))
    mean = z[inside].mean(dtype=np.float64)
    return Relief(np.where(inside, (z - mean) * CENTIMETRES, 0.0).astype(np.float32), inside)


def depth_of(points: npt.NDArray[np.float32]) -> Depth:
    """(H, W) depth z of points (H, W, 3), 0 where a point is missing (`measured_points`)."""
    return np.where(measured_points(points), points[:, :, -1].astype(np.float32), np.float32(0))


def fill_holes(z: Depth, passes: int = FILL_PASSES) -> Depth:
    """Replace each missing (zero) pixel by the mean of the measured ones among its eight neighbours, `passes` times.

    A pass reads the result of the pass before it. The paper's code leaves the first row and column unfilled; here they
    are filled too.
    """
    height, width = z.shape
    for _ in range(passes):
        if z.all():
            break
        padded = np.pad(z.astype(np.float64), 1)
        windows = [padded[r : r + height, c : c + width] for r in range(3) for c in range(3)]
        total = np.sum(windows, axis=0)
        count = np.sum([window != 0 for window in windows], axis=0)
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        z = np.where(z == 0, mean, z).astype(np.float32)
    return z


def foreground(z: Depth, distance: float) -> Mask:
    """(H, W), True where the depth is measured and more than `distance` metres from the background.

    Without a measured corner there is no background and every measured pixel is foreground.
    """
    surface = background(z)
    measured: Mask = z != 0
    if surface is not None:
        measured &= np.abs(surface - z) > distance
    return measured


def background(z: Depth) -> npt.NDArray[np.float64] | None:
    """(H, W) bilinear surface through the mean measured depths of the four corners; None without a measured corner.

    A missing corner is extrapolated from the plane of least slope through the measured ones.
    """
    height, width = z.shape
    near, far = slice(0, CORNER), slice(-CORNER, None)
    depths = [_mean_measured(z[rows, columns]) for rows in (near, far) for columns in (near, far)]
    corners = _complete(np.array(depths))
    if corners is None:
        return None
    upper_left, upper_right, lower_left, lower_right = corners
    v = _fractions(height)[:, None]
    u = _fractions(width)[None, :]
    upper = upper_left + u * (upper_right - upper_left)
    lower = lower_left + u * (lower_right - lower_left)
    return np.asarray(upper + v * (lower - upper))


def _mean_measured(square: Depth) -> float:
    values = square[square != 0]
    return float(values.mean(dtype=np.float64)) if values.size else np.nan


def _complete(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Depths of the four corners (upper left, upper right, lower left, lower right), NaN ones extrapolated from the others."""
    known = np.isfinite(corners)
    if not known.any():
        return None
    places = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float64)
    middle, level = places[known].mean(0), corners[known].mean()
    # The minimum-norm solution is the plane of least slope.
    slopes = np.linalg.lstsq(places[known] - middle, corners[known] - level, rcond=None)[0]
    return np.asarray(np.where(known, corners, level + (places - middle) @ slopes), np.float64)


def _fractions(size: int) -> npt.NDArray[np.float64]:
    """Position of each pixel between the centres of the corner squares, which are at 0 and 1."""
    centre = (min(CORNER, size) - 1) / 2
    return np.asarray((np.arange(size) - centre) / max(size - 1 - 2 * centre, 1), np.float64)


def resize_map(values: npt.NDArray[np.floating], size: tuple[int, int]) -> Depth:
    """(H, W) resized to `size` = (h, w): bilinear, half-pixel centres, no antialiasing, edges repeated (as in AST's code)."""
    rows, columns = _positions(values.shape[0], size[0]), _positions(values.shape[1], size[1])
    along_rows = _interpolate(values.astype(np.float64), rows)
    return np.asarray(_interpolate(along_rows.T, columns).T, np.float32)


def _positions(old: int, new: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1), np.float64)


def _interpolate(values: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of `values` at fractional positions."""
    low = at.astype(np.intp)
    high = np.minimum(low + 1, len(values) - 1)
    t = (at - low)[:, None]
    return np.asarray((1 - t) * values[low] + t * values[high])


def network_planes(points: npt.NDArray[np.float32], side: int, *, distance: float, dilate: int) -> Depth:
    """(2, side, side): relative depth in centimetres, and the foreground (0 or 1) dilated by a square of `dilate` pixels.

    `points` is an organised point cloud (H, W, 3) in metres; see `relief` for `distance`.
    """
    found = relief(points, distance=distance)
    mask = resize_map(found.foreground.astype(np.float32), (side, side)) > 0
    # Of a square with an even side, the larger half lies before the pixel, as in `scipy.ndimage.binary_dilation`, which the
    # authors use: 8 pixels around pixel 12 are 8 to 15.
    origin = 0 if dilate % 2 else -1
    widened = ndimage.maximum_filter(mask.astype(np.uint8), size=dilate, mode="constant", origin=origin)
    return np.stack([resize_map(found.depth, (side, side)), widened.astype(np.float32)])
