"""Images of records as tensors: read, resize, change, batch.

Resizing is bilinear with antialiasing and half-pixel centres, on float32, for training, evaluation and export alike
(docs/reference/data.md, "Images").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.image_files import Decoded, check_measured, decode, read_points, read_size
from andon.core.progress import NoProgress, Progress, track

if TYPE_CHECKING:
    from torch import Tensor

    from andon.core.records import Batch, Record
    from andon.core.region import InspectionRegion

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

AHEAD = 2
"""Items that are loaded ahead, each by its own thread."""


def points_of(record: Record, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(H, W, 3) points of a record whose image has `shape`, zeros outside the inspected region.

    Raises `DataError` where the record has no point cloud or it cannot be used.
    """
    if record.depth is None:
        raise DataError(
            f"{record.image} has no point cloud: give data in the layout of MVTec 3D-AD (rgb/ and xyz/ folders), "
            "or use a detector that needs pictures alone"
        )
    points = read_points(record.depth, shape)
    return points if record.region is None else inspected_points(points, record.region, record.depth)


def inspected_points(
    points: npt.NDArray[np.float32], region: InspectionRegion | None, who: object
) -> npt.NDArray[np.float32]:
    """Points (H, W, 3) with zeros outside the region. Raises `DataError`, which names `who`, where hardly one is measured."""
    number = points.shape[0] * points.shape[1]
    if region is not None:
        points = region.without_points(points)
        number = int(np.count_nonzero(region.at((points.shape[0], points.shape[1]))))
    check_measured(points, who, number)
    return points


def read_decoded(
    record: Record, *, with_points: bool = False, reduce: bool = False, eight_bits: bool = False
) -> Decoded:
    """A record's image as stored; `with_points` its pixels are (H, W, 6), the colours followed by x, y, z in metres.

    With `reduce` a JPEG above the limit of pixels is decoded at 1/2, 1/4 or 1/8 of its width and height. With `eight_bits`
    images that have no more bits are uint8.
    """
    decoded = decode(record.image, bit_depth=record.bit_depth, reduce=reduce, eight_bits=eight_bits)
    if not with_points:
        return decoded
    pixels = decoded.pixels
    points = points_of(record, (pixels.shape[0], pixels.shape[1]))
    return replace(decoded, pixels=np.concatenate([pixels, points], axis=2))


def read_image(record: Record, *, with_points: bool = False) -> npt.NDArray[np.float32]:
    """(H, W, 3) in [0, 1] of a record's image as stored; `with_points` (H, W, 6), followed by x, y, z in metres."""
    return read_decoded(record, with_points=with_points).pixels


def read_pixels(record: Record) -> npt.NDArray[np.float32]:
    """(H, W, 3) in [0, 1] of a record's image; pixels outside the inspected region get the fill colour."""
    pixels = read_image(record)
    return pixels if record.region is None else record.region.filled(pixels, record.image)


def as_uint8(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pixels of uint8, or float32 in [0, 1], as uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else np.round(pixels * 255).astype(np.uint8)


def as_float(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Pixels of uint8 or float32 as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels


def to_tensor(pixels: npt.NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """(H, W, 3) in [0, 1] as a tensor (3, h, w), resized to `size` = (h, w)."""
    import torch

    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    return resize(image[None], size)[0]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) resized to (B, C, h, w): bilinear, antialiased, half-pixel centres. All images are resized by this."""
    from torch.nn import functional as F

    if tuple(images.shape[-2:]) == size:
        return images.contiguous()
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True, slots=True)
class View:
    """Changes made to an image before it enters a network."""

    zoom: bool = False
    """Resize to twice the size and crop the centre (EfficientAD's penalty images)."""
    colour: Literal["keep", "grey", "tint"] = "keep"
    """`grey`: luma in all channels; `tint`: luma of the ImageNet-normalised values, an error of published code kept for
    reproduction."""
    brightness: float = 1.0
    """Factor on all values; the result is clipped to [0, 1]."""

    @property
    def key(self) -> str:
        """Name of this view in the keys of cached features; empty for the unchanged image."""
        parts = ["zoom"] * self.zoom + [self.colour] * (self.colour != "keep")
        return "-".join(parts + [f"light{self.brightness:g}"] * (self.brightness != 1.0))


UNCHANGED = View()
_LUMA = (0.2989, 0.587, 0.114)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def apply_view(pixels: npt.NDArray[np.float32], size: tuple[int, int], view: View = UNCHANGED) -> Tensor:
    """(H, W, 3) in [0, 1] as a tensor (3, h, w) changed by `view`. Values may leave [0, 1] with `tint`."""
    import torch

    height, width = size
    image = to_tensor(pixels, (2 * height, 2 * width) if view.zoom else size)
    if view.zoom:
        top, left = height // 2, width // 2
        image = image[:, top : top + height, left : left + width].contiguous()
    if view.brightness != 1.0:
        image = (image * view.brightness).clamp(0.0, 1.0)
    if view.colour == "keep":
        return image
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ((_MEAN, _STD) if view.colour == "tint" else ((0.0,) * 3, (1.0,) * 3))
    )
    luma = torch.tensor(_LUMA).view(3, 1, 1)
    grey: Tensor = ((image - mean) / std * luma).sum(0, keepdim=True)
    return grey * std + mean


def prefetch(load: Callable[[Item], Loaded], items: Iterable[Item], ahead: int = AHEAD) -> Iterator[Loaded]:
    """`load(item)` of all items, in order; `ahead` items are loaded by threads meanwhile, without any where it is 0.

    Items are drawn in the caller's thread, only as they are needed. What `load` raises is raised in the item's turn.
    """
    if not ahead:
        yield from map(load, items)
        return
    source = iter(items)
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        waiting = deque(pool.submit(load, item) for item in islice(source, ahead))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(load, item) for item in islice(source, 1))
            yield loaded


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter; drawn as they are needed."""
    source = iter(items)
    return iter(lambda: list(islice(source, size)), [])


def load_batch(records: Sequence[Record], size: tuple[int, int], view: View = UNCHANGED) -> Batch:
    """Decode and resize the images of some records."""
    import torch

    from andon.core.records import Batch

    shown, sizes = [], []
    for record in records:
        pixels = read_pixels(record)
        sizes.append((pixels.shape[0], pixels.shape[1]))
        shown.append(apply_view(pixels, size, view))
    return Batch(torch.stack(shown), tuple(records), tuple(sizes))


def batches(
    records: Sequence[Record],
    size: tuple[int, int],
    batch_size: int,
    *,
    view: View = UNCHANGED,
    ahead: int = AHEAD,
) -> Iterator[Batch]:
    """Batches of `records` in order (see `load_batch`); threads decode up to `ahead` batches in advance."""
    return prefetch(lambda some: load_batch(some, size, view), chunks(records, batch_size), ahead)


class CachedImages:
    """Images of records by position, decoded on first use; up to `limit` bytes are kept in memory."""

    def __init__(
        self,
        records: Sequence[Record],
        size: tuple[int, int],
        *,
        view: View = UNCHANGED,
        limit: int = 1 << 30,
    ) -> None:
        self.records, self.size, self.view = records, size, view
        self._room = limit // (3 * size[0] * size[1] * 4)
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """(B, 3, h, w) in [0, 1]."""
        import torch

        return torch.stack([self._image(k) for k in positions])

    def _image(self, k: int) -> Tensor:
        if k in self._kept:
            return self._kept[k]
        image = load_batch([self.records[k]], self.size, self.view).image[0]
        if len(self._kept) < self._room:
            self._kept[k] = image
        return image


def load_depth(
    records: Sequence[Record],
    planes: Callable[[npt.NDArray[np.float32]], Tensor],
    *,
    progress: Progress | None = None,
    workers: int = 2,
) -> Tensor:
    """(N, C, h, w): `planes` of each record's point cloud. Images are not decoded, only their size is read."""
    import torch

    def one(record: Record) -> Tensor:
        return planes(points_of(record, read_size(record.image)))

    with ThreadPoolExecutor(workers) as pool:
        found = track(progress or NoProgress(), pool.map(one, records), "reading point clouds", len(records))
        return torch.stack(list(found))
