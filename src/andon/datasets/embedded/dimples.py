"""Dimpled rubber pads with point clouds, in the layout of MVTec 3D-AD.

    <root>/embedded_3d/dimples/{train,validation}/good/{rgb,xyz}/000.{png,tiff}
    <root>/embedded_3d/dimples/test/<type>/{rgb,xyz,gt}/000.{png,tiff,png}

A round rubber pad with 7 x 7 dimples lies on a tilted table under diffuse light. `bump` and `dent` change only the points,
`stain` only the colours, `hole` both. Points are missing at steep edges, in the shadow of the pad, in random spots and
sometimes in a corner. Orthographic projection, one point per pixel, in metres; the field of view is 128 mm high.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.core.errors import DataError
from andon.datasets.embedded.generation import PROFILES, Profile, png
from andon.datasets.embedded.primitives import Blob, coverage, turned, value_noise
from andon.datasets.embedded.random_streams import SPLIT_IDS

NAME = "dimples"
VERSION = 1
"""Increased whenever the same arguments give different files."""
DEFECTS = ("bump", "dent", "hole", "stain")
STREAM_ID = 100
"""First element of the spawn key; the other embedded sets have theirs in `random_streams`."""

FIELD = 0.128
"""Height of the field of view, metres."""
TABLE = 0.5
"""Distance of the table from the camera, metres."""
RADIUS, THICKNESS, EDGE = 0.046, 0.016, 0.004
"""Radius and thickness of the pad and width of its rounded edge, metres."""
PITCH, DIMPLE_RADIUS, DIMPLE_DEPTH = 0.0105, 0.0036, 0.0015
NOISE = 1e-4
"""Standard deviation of a measured depth, metres."""
STEP = 2.0**-17
"""Resolution of a measured depth, metres (7.6 micrometres); rounding makes the files smaller."""
PAD_COLOUR, TABLE_COLOUR, STAIN_COLOUR, PIT_COLOUR = np.array(
    [(0.72, 0.42, 0.20), (0.20, 0.22, 0.25), (0.40, 0.30, 0.24), (0.12, 0.08, 0.06)], np.float32
)

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its points and mask."""

    colours: npt.NDArray[np.uint8]
    """(H, W, 3)."""
    points: npt.NDArray[np.float32]
    """(H, W, 3) metres, (0, 0, 0) where nothing was measured."""
    mask: npt.NDArray[np.bool_]
    """(H, W)."""


@dataclass(frozen=True, slots=True)
class _Pad:
    """Geometry of the pad in metres; `x` and `y` are the coordinates of the pixels in the frame of the pad."""

    x: Plane
    y: Plane
    height: Plane
    """(H, W) above the table, dimples included."""
    dimples: Plane
    """(H, W) relative depth of the dimple at a pixel, in [0, 1]."""


def generate(root: Path, profile: str = "small", size: int = 256, seed: int = 0) -> Path:
    """Write the set below `root` and return `root`; `size` is the height and width in pixels, 128 to 512.

    The decoded content of the files depends on the arguments alone. Raises `DataError` for other sizes.
    """
    if not 128 <= size <= 512:
        raise DataError(f"size is {size}, must be 128 to 512 pixels (height of the pictures)")
    for split, defect, index in planned_images(PROFILES[profile]):
        kind = "good" if defect is None else defect
        sample = render(split, defect, index, size=size, seed=seed)
        folder = Path(root) / "embedded_3d" / NAME / split / kind
        _write(folder / "rgb" / f"{index:03d}.png", png(sample.colours))
        _write(folder / "xyz" / f"{index:03d}.tiff", _tiff(sample.points))
        if split == "test":
            _write(folder / "gt" / f"{index:03d}.png", png(sample.mask.astype(np.uint8) * np.uint8(255)))
    return Path(root)


def planned_images(profile: Profile) -> list[tuple[str, str | None, int]]:
    """(split, defect type, index) of all images, good ones first."""
    counts = (("train", profile.train), ("validation", profile.validation), ("test", profile.good))
    good: list[tuple[str, str | None, int]] = [
        (split, None, k) for split, count in counts for k in range(count)
    ]
    return good + [("test", defect, k) for defect in DEFECTS for k in range(profile.defective)]


def render(split: str, defect: str | None, index: int, *, size: int = 256, seed: int = 0) -> Sample:
    """Draw one image. The streams of pad, colours and sensor do not depend on the drawing of the defect."""
    defect_id = 0 if defect is None else 1 + DEFECTS.index(defect)
    root = np.random.SeedSequence(seed, spawn_key=(STREAM_ID, SPLIT_IDS[split], defect_id, index))
    scene, surface, sensor, own = (np.random.Generator(np.random.PCG64DXSM(child)) for child in root.spawn(4))
    pad = _draw_pad(scene, size)
    table = _draw_table(scene, size)
    colours = _draw_colours(surface, pad)
    height, mask = pad.height, np.zeros((size, size), np.bool_)
    if defect is not None:
        height, colours, mask = _spoil(defect, own, pad, colours)
    return Sample(_expose(sensor, colours), _measure(sensor, table - height, height), mask)


def _draw_pad(rng: np.random.Generator, size: int) -> _Pad:
    pixel = FIELD / size
    rows, columns = (
        (np.arange(size, dtype=np.float32) + 0.5) * pixel - FIELD / 2,
        np.arange(size, dtype=np.float32),
    )
    cx, cy = rng.uniform(-0.006, 0.006, 2)
    x, y = turned(
        (columns[None, :] + 0.5) * pixel - FIELD / 2, rows[:, None], cx, cy, rng.uniform(-0.25, 0.25)
    )
    radius = np.hypot(x, y)
    rim = np.clip((radius - (RADIUS - EDGE)) / EDGE, 0, 1)  # the edge is a quarter circle
    body = np.where(radius < RADIUS, (THICKNESS - EDGE) + EDGE * np.sqrt(1 - rim**2), 0.0)
    u, v = (axis - PITCH * np.clip(np.rint(axis / PITCH), -3, 3) for axis in (x, y))
    cells = np.hypot(PITCH * np.clip(np.rint(x / PITCH), -3, 3), PITCH * np.clip(np.rint(y / PITCH), -3, 3))
    dimples = np.clip(1 - (u**2 + v**2) / DIMPLE_RADIUS**2, 0, 1) * (cells < RADIUS - 2 * EDGE)
    warp = value_noise(rng, size, size, size / 3) * 2e-4 * (radius < RADIUS)
    return _Pad(
        x,
        y,
        (body - DIMPLE_DEPTH * dimples + warp).astype(np.float32),
        dimples.astype(np.float32),
    )


def _draw_table(rng: np.random.Generator, size: int) -> Plane:
    """(H, W) depth of the table, tilted by up to 2 degrees about both axes."""
    across = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    tilt_x, tilt_y = rng.uniform(-0.035, 0.035, 2) * FIELD
    return np.asarray(TABLE + tilt_x * across[None, :] + tilt_y * across[:, None], np.float32)


def _draw_colours(rng: np.random.Generator, pad: _Pad) -> Plane:
    """(H, W, 3) reflectance under diffuse light: no shading, darker dimples."""
    size = len(pad.height)
    on_pad = coverage(np.asarray(RADIUS - np.hypot(pad.x, pad.y), np.float32) * np.float32(size / FIELD))[
        ..., None
    ]
    grain = value_noise(rng, size, size, 3.0, 2) * 0.02 + value_noise(rng, size, size, size / 5) * 0.02
    rubber = PAD_COLOUR * (1 - 0.35 * pad.dimples[..., None])
    out = TABLE_COLOUR * (1 - on_pad) + rubber * on_pad + grain[..., None]
    return np.asarray(out * np.float32(rng.uniform(0.9, 1.1)), np.float32)


def _spoil(
    defect: str, rng: np.random.Generator, pad: _Pad, colours: Plane
) -> tuple[Plane, Plane, npt.NDArray[np.bool_]]:
    """Height, colours and mask with a defect at a random position on the pad."""
    angle, off = rng.uniform(0, 2 * np.pi), RADIUS * 0.62 * np.sqrt(rng.uniform())
    cx, cy = off * np.cos(angle), off * np.sin(angle)
    pixel = FIELD / len(pad.height)
    if defect in {"bump", "dent"}:
        reach = rng.uniform(0.006, 0.010)
        amount = rng.uniform(0.0020, 0.0035)
        share = np.clip(1 - ((pad.x - cx) ** 2 + (pad.y - cy) ** 2) / reach**2, 0, 1) ** 2
        change = (amount if defect == "bump" else -amount) * share
        return np.asarray(pad.height + change, np.float32), colours, np.asarray(np.abs(change) > 5e-4)
    radius = rng.uniform(0.0025, 0.004) if defect == "hole" else rng.uniform(0.004, 0.008)
    blob = Blob.draw(rng, cx / pixel, cy / pixel, radius / pixel, 0.25, rng.uniform(1.0, 1.4))
    distance = blob.distance(*(np.asarray(axis / np.float32(pixel), np.float32) for axis in (pad.x, pad.y)))
    paint, strength = (PIT_COLOUR, 1.0) if defect == "hole" else (STAIN_COLOUR, rng.uniform(0.55, 0.8))
    cover = coverage(distance, 1.0 if defect == "hole" else 4.0)[..., None] * np.float32(strength)
    painted = np.asarray(colours * (1 - cover) + paint * cover, np.float32)
    inside = distance > 0
    height = pad.height - np.where(inside, np.float32(rng.uniform(0.005, 0.009)), 0) * (defect == "hole")
    return np.asarray(height, np.float32), painted, inside


def _expose(rng: np.random.Generator, colours: Plane) -> npt.NDArray[np.uint8]:
    blurred = ndimage.gaussian_filter(colours, (0.6, 0.6, 0))
    noisy = blurred + rng.standard_normal(blurred.shape, dtype=np.float32) * np.float32(0.008)
    return np.asarray(np.clip(np.rint(255 * noisy), 0, 255), np.uint8)


def _measure(rng: np.random.Generator, depth: Plane, height: Plane) -> npt.NDArray[np.float32]:
    """(H, W, 3) points with noise and missing points."""
    size = len(depth)
    pixel = FIELD / size
    noisy = depth + rng.standard_normal(depth.shape, dtype=np.float32) * np.float32(NOISE)
    z = np.rint(noisy / STEP) * STEP
    across = ((np.arange(size) + 0.5) * pixel - FIELD / 2).astype(np.float32)
    points = np.stack([np.broadcast_to(across, z.shape), np.broadcast_to(across[:, None], z.shape), z], 2)
    steep = np.hypot(*np.gradient(depth, pixel)) > rng.uniform(2.0, 4.0)
    # The projector is on the left.
    shadow = np.roll(height, max(1, round(0.002 / pixel)), axis=1) - height > THICKNESS / 2
    spots = value_noise(rng, size, size, size / 32) > 2.6
    missing = steep | shadow | spots
    if rng.uniform() < 0.15:
        rows, columns = (
            slice(0, size // 10) if rng.uniform() < 0.5 else slice(-size // 10, None) for _ in range(2)
        )
        missing[rows, columns] = True
    return np.where(missing[..., None], np.float32(0), points).astype(np.float32)


def _tiff(points: npt.NDArray[np.float32]) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, points, photometric="rgb", compression="zlib", metadata=None)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
