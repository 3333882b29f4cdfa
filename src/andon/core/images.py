"""Images from disk: one way to decode, one way to resize (spec A.2).

Pillow and tifffile live here. Resizing is bilinear with antialiasing and half-pixel centres, on float32, for
training, evaluation and export alike.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from andon.core.errors import DataError
from andon.core.progress import NoProgress, Progress, track

if TYPE_CHECKING:
    from torch import Tensor

    from andon.core.records import Batch, Record

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Image files, compared in lower case."""
IGNORED = frozenset({"thumbs.db", "__macosx", ".ds_store"})
MIN_SIDE = 8
"""Images smaller than this in either direction are refused."""

MAX_PIXELS = 500_000_000
"""Larger images are refused; line-scan cameras deliver more than Pillow's own limit allows."""
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class AlphaWarning(UserWarning):
    """Transparent pixels were composited on black."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image."""

    pixels: npt.NDArray[np.float32]
    """(H, W, 3) float32 in [0, 1]."""
    mode: str
    """Pillow mode of the file."""


def is_image(path: Path) -> bool:
    """Whether the name is that of an image (suffix known, not hidden, not an operating system's leftover)."""
    return (
        path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.name.lower() not in IGNORED
    )


def list_images(folder: Path) -> list[Path]:
    """Images directly inside `folder`, in natural order; zero-byte files are included so that they are named later."""
    return sorted(
        (p for p in folder.iterdir() if is_image(p) and p.is_file()), key=lambda p: natural_key(p.name)
    )


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which `img2` comes before `img10`."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    for ch in name + "\0":
        if ch.isascii() and ch.isdigit():
            digits += ch
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        if ch != "\0":
            parts.append((1, ch.lower()))
    parts.append((2, name))
    return tuple(parts)


def decode(path: Path, *, bit_depth: int = 16) -> Decoded:
    """Read an image: EXIF orientation applied, any mode to three channels, 16-bit scaled and not clipped.

    `bit_depth` is the depth used inside 16-bit files (12 for many industrial cameras). Transparent pixels are
    composited on black with an `AlphaWarning`. Raises `DataError` that names the file when it cannot be read.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(
                f"{path} is empty (0 bytes): copy it again or remove it, or pass --skip-unreadable"
            )
        with Image.open(path) as opened:
            _check_size(path, *opened.size)  # before anything is decoded
            mode = opened.mode
            picture = ImageOps.exif_transpose(opened)
            picture.load()
        return Decoded(_to_float(picture, path, bit_depth), mode)
    except (DataError, AlphaWarning):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except UnidentifiedImageError as error:
        if path.suffix.lower() in {".tif", ".tiff"}:
            return _decode_tiff(path, bit_depth)
        raise DataError(
            f"{path} cannot be read as a picture (damaged, or not what its suffix says): "
            "replace or remove it, or pass --skip-unreadable"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(
            f"{path} cannot be read ({_reason(error)}): replace or remove it, or pass --skip-unreadable"
        ) from error


def _check_size(path: Path, width: int, height: int) -> None:
    """Refuse images that are too small to show anything, or too large for the memory."""
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path} is {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed: remove it"
        )
    if width * height > MAX_PIXELS:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} has more than {MAX_PIXELS} pixels: cut it into tiles")


def _reason(error: Exception) -> str:
    """What a decoder says in one line, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _to_float(picture: Image.Image, path: Path, bit_depth: int) -> npt.NDArray[np.float32]:
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float32)
        scaled = _scale_float(values, path) if picture.mode == "F" else _scale_deep(values, path, bit_depth)
        return np.repeat(scaled[:, :, None], 3, axis=2)
    if picture.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or (
        picture.mode == "P" and "transparency" in picture.info
    ):
        rgba = picture.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            warnings.warn(f"{path} has transparent pixels: shown on black", AlphaWarning, stacklevel=3)
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    values = np.array(picture, dtype=np.float32)
    values /= np.float32(255)  # in place: large images are not held twice
    return values


def _scale_float(values: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float32]:
    """Float values, which have to be in [0, 1] already."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(f"{path} holds float values outside [0, 1]: scale them or save as 16-bit")
    return values


def _scale_deep(values: npt.NDArray[np.float32], path: Path, bit_depth: int) -> npt.NDArray[np.float32]:
    """16-bit values to [0, 1]."""
    full = float(2**bit_depth - 1)
    if values.min() < 0 or values.max() > full:
        raise DataError(
            f"{path} holds values from {values.min():.0f} to {values.max():.0f}, outside 0 to {full:.0f}: "
            "save it as 8- or 16-bit"
        )
    return values / np.float32(full)


def _decode_tiff(path: Path, bit_depth: int) -> Decoded:
    """TIFF kinds that Pillow does not know, such as 16-bit RGB."""
    import tifffile

    try:
        values = tifffile.imread(path)
    except Exception as error:  # tifffile raises many kinds for damaged files
        raise DataError(
            f"{path} cannot be read ({_reason(error)}): replace or remove it, or pass --skip-unreadable"
        ) from error
    if values.ndim == 2:
        values = values[:, :, None].repeat(3, axis=2)
    if values.ndim != 3 or values.shape[2] not in (3, 4) or values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} is a TIFF of shape {values.shape} and type {values.dtype}: save it as 8- or 16-bit RGB"
        )
    _check_size(path, values.shape[1], values.shape[0])
    colours = values[:, :, :3].astype(np.float32)
    if values.dtype == np.uint8:
        return Decoded(colours / np.float32(255), "RGB")
    return Decoded(_scale_deep(colours, path, bit_depth), "RGB;16")


def save_exactly(stem: Path, pixels: npt.NDArray[np.float32]) -> Path:
    """Write (H, W, 3) in [0, 1] as `stem`.png where 8 bits hold it, else as 16-bit `stem`.tif; returns the file."""
    eight = np.round(pixels * np.float32(255)).astype(np.uint8)
    if np.array_equal(eight.astype(np.float32) / np.float32(255), pixels):
        path = stem.with_name(f"{stem.name}.png")
        Image.fromarray(eight).save(path, compress_level=1)
        return path
    import tifffile

    path = stem.with_name(f"{stem.name}.tif")
    tifffile.imwrite(path, np.round(pixels * np.float32(65535)).astype(np.uint16), photometric="rgb")
    return path


def read_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image after EXIF orientation, from the header where that is enough."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if opened.getexif().get(274, 1) in {5, 6, 7, 8}:
                width, height = height, width
            return height, width
    except Exception:  # Pillow raises many kinds for damaged files; decoding names the file or knows better
        pixels = decode(path).pixels
        return pixels.shape[0], pixels.shape[1]


def read_mask(path: Path) -> npt.NDArray[np.integer]:
    """Values of a mask file as stored, (H, W): palette indices stay indices, nothing is converted or rotated."""
    try:
        with Image.open(path) as opened:
            opened.load()
            values = np.asarray(opened)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"mask {path} cannot be read ({_reason(error)}): replace or remove it") from error
    if values.ndim == 3:
        colours = 1 if values.shape[2] == 2 else 3  # transparency is no colour
        values = values[:, :, :colours].max(axis=2)
    return values.astype(np.int64) if values.dtype == np.bool_ else values


def read_points(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Organised point cloud of an image of `shape` = (H, W): (H, W, 3) float32, x, y, z in metres, 0 where nothing was seen.

    Raises `DataError` that names the file when it cannot be read, or when it does not hold one point per pixel.
    """
    import tifffile

    try:
        values = tifffile.imread(path)
        if not values.size:
            raise ValueError("it holds no values")
    except FileNotFoundError as error:
        raise DataError(f"point cloud {path} does not exist: check the path") from error
    except Exception as error:  # tifffile raises many kinds for damaged files
        raise DataError(
            f"point cloud {path} cannot be read ({_reason(error)}): replace it by a float32 TIFF"
        ) from error
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.float32:
        raise DataError(
            f"point cloud {path} is {' x '.join(map(str, values.shape))} {values.dtype}, not organised as "
            "H x W x 3 float32: export one point (x, y, z in metres) per pixel"
        )
    if values.shape[:2] != tuple(shape):
        raise DataError(
            f"point cloud {path} is {values.shape[1]} x {values.shape[0]} points but its picture is "
            f"{shape[1]} x {shape[0]}: export one point per pixel"
        )
    return np.asarray(values)


def points_of(record: Record, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Points (H, W, 3) of a record whose image has `shape`, those that are inspected.

    Raises `DataError` where it has none, or unusable ones.
    """
    if record.depth is None:
        raise DataError(
            f"{record.image} has no point cloud: give data in the layout of MVTec 3D-AD (rgb/ and xyz/ folders), "
            "or use a detector that needs pictures alone"
        )
    points = read_points(record.depth, shape)
    return points if record.inspected is None else record.inspected.without_points(points)


def read_pixels(record: Record) -> npt.NDArray[np.float32]:
    """(H, W, 3) in [0, 1] of a record's image, with one fixed colour where it is not inspected."""
    pixels = decode(record.image).pixels
    return pixels if record.inspected is None else record.inspected.filled(pixels, record.image)


def to_tensor(pixels: npt.NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) in [0, 1] to (3, h, w), resized to `size` = (h, w): bilinear, antialiased, half-pixel centres."""
    import torch

    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    return resize(image[None], size)[0]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, C, h, w): bilinear, antialiased, half-pixel centres. The one definition of resizing images."""
    from torch.nn import functional as F

    if tuple(images.shape[-2:]) == size:
        return images.contiguous()
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True, slots=True)
class View:
    """How a decoded image is shown to a network, before anything else."""

    zoom: bool = False
    """Resize to twice the size and keep the centre (EfficientAD's penalty images)."""
    colour: Literal["keep", "grey", "tint"] = "keep"
    """`grey` removes colour; `tint` removes it from the ImageNet-normalised values, as published code did by mistake."""
    light: float = 1.0
    """Factor on the brightness, clipped to [0, 1]."""

    @property
    def key(self) -> str:
        """Name of this view in cached files; empty for the image as it is."""
        parts = ["zoom"] * self.zoom + [self.colour] * (self.colour != "keep")
        return "-".join(parts + [f"light{self.light:g}"] * (self.light != 1.0))


WHOLE = View()
_LUMA = (0.2989, 0.587, 0.114)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def show(pixels: npt.NDArray[np.float32], size: tuple[int, int], view: View = WHOLE) -> Tensor:
    """(H, W, 3) in [0, 1] to (3, h, w) as `view` says. `tint` may leave [0, 1]."""
    import torch

    height, width = size
    image = to_tensor(pixels, (2 * height, 2 * width) if view.zoom else size)
    if view.zoom:
        top, left = height // 2, width // 2
        image = image[:, top : top + height, left : left + width].contiguous()
    if view.light != 1.0:
        image = (image * view.light).clamp(0.0, 1.0)
    if view.colour == "keep":
        return image
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ((_MEAN, _STD) if view.colour == "tint" else ((0.0,) * 3, (1.0,) * 3))
    )
    luma = torch.tensor(_LUMA).view(3, 1, 1)
    grey: Tensor = ((image - mean) / std * luma).sum(0, keepdim=True)
    return grey * std + mean


def load_batch(
    records: Sequence[Record],
    size: tuple[int, int],
    view: View = WHOLE,
    planes: Callable[[npt.NDArray[np.float32]], Tensor] | None = None,
) -> Batch:
    """Decode and resize some records.

    `planes` makes further channels (C, h, w) of `size` from the points (H, W, 3) beside an image.
    """
    import torch

    from andon.core.records import Batch

    images, sizes = [], []
    for record in records:
        pixels = read_pixels(record)
        sizes.append((pixels.shape[0], pixels.shape[1]))
        image = show(pixels, size, view)
        images.append(image if planes is None else torch.cat([image, planes(points_of(record, sizes[-1]))]))
    return Batch(torch.stack(images), tuple(records), tuple(sizes))


def batches(
    records: Sequence[Record],
    size: tuple[int, int],
    batch_size: int,
    *,
    view: View = WHOLE,
    planes: Callable[[npt.NDArray[np.float32]], Tensor] | None = None,
    ahead: int = 2,
) -> Iterator[Batch]:
    """Batches of `records` in order (see `load_batch`); threads decode `ahead` batches while the caller works."""
    chunks = [records[i : i + batch_size] for i in range(0, len(records), batch_size)]
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        waiting = deque(pool.submit(load_batch, chunk, size, view, planes) for chunk in chunks[:ahead])
        for k in range(len(chunks)):
            batch = waiting.popleft().result()
            if k + ahead < len(chunks):
                waiting.append(pool.submit(load_batch, chunks[k + ahead], size, view, planes))
            yield batch


class Pictures:
    """Images by their position, decoded and resized when first asked for; as many as `limit` bytes hold stay in memory."""

    def __init__(
        self, records: Sequence[Record], size: tuple[int, int], *, view: View = WHOLE, limit: int = 1 << 30
    ) -> None:
        self.records, self.size, self.view = records, size, view
        self._room = limit // (3 * size[0] * size[1] * 4)
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """(B, 3, h, w) in [0, 1]."""
        import torch

        return torch.stack([self._picture(k) for k in positions])

    def _picture(self, k: int) -> Tensor:
        if k in self._kept:
            return self._kept[k]
        picture = load_batch([self.records[k]], self.size, self.view).image[0]
        if len(self._kept) < self._room:
            self._kept[k] = picture
        return picture


def load_depth(
    records: Sequence[Record],
    planes: Callable[[npt.NDArray[np.float32]], Tensor],
    *,
    progress: Progress | None = None,
    workers: int = 2,
) -> Tensor:
    """`planes` of the point cloud beside each image, (N, C, h, w); images are not decoded, only their size is read."""
    import torch

    def one(record: Record) -> Tensor:
        return planes(points_of(record, read_size(record.image)))

    with ThreadPoolExecutor(workers) as pool:
        found = track(progress or NoProgress(), pool.map(one, records), "reading point clouds", len(records))
        return torch.stack(list(found))
