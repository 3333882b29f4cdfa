"""What is drawn of a stored inspection: preview, heat layer at fixed scale, overlay."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from PIL import Image, ImageDraw

from andon.core.opening import open_image, upright_size
from andon.line.store.thumbnails import reduced, thumbnail
from andon.line.verdicts import Region

SIDE = 1280
"""Longest side of a preview and an overlay in pixels."""
THRESHOLD = 127.5
"""Value of a stored map at the threshold: 0 to 255 is 0 to 2 x threshold."""
FAINT = 0.5
"""Multiple of the threshold up to which the heat layer is transparent."""


class Drawings:
    """The last pictures that were drawn. Many pages ask for the same one at once; it is drawn once."""

    def __init__(self, most: int = 64) -> None:
        self._most, self._lock = most, threading.Lock()
        self._drawn: OrderedDict[tuple[str, int], Future[bytes | None]] = OrderedDict()

    def get(self, name: str, row: int, draw: Callable[[], bytes | None]) -> bytes | None:
        """What `draw` returns for this row; None is not kept, because the file may be written later."""
        with self._lock:
            drawn = self._drawn.get((name, row))
            is_new = drawn is None
            if drawn is None:
                drawn = self._drawn[(name, row)] = Future()
                while len(self._drawn) > self._most:
                    self._drawn.popitem(last=False)
        if is_new:
            try:
                drawn.set_result(draw())
            except BaseException as error:
                drawn.set_exception(error)
            if drawn.exception() or drawn.result() is None:
                with self._lock:
                    self._drawn.pop((name, row), None)
        return drawn.result()


def preview(image: bytes, side: int = SIDE) -> bytes | None:
    """JPEG of at most `side` pixels; None for what cannot be decoded."""
    return thumbnail(io.BytesIO(image), side)


def heat_layer(image: bytes, anomaly_map: bytes, regions: tuple[Region, ...]) -> bytes | None:
    """PNG with transparency to be laid over the preview: yellow from half the threshold, red from the threshold on, dark at
    twice; regions outlined. None where the image cannot be decoded.
    """
    layer = _layer(image, anomaly_map, regions)
    return None if layer is None else _png(layer)


def overlay(image: bytes, anomaly_map: bytes, regions: tuple[Region, ...]) -> bytes | None:
    """JPEG of the image under its heat layer; None where it cannot be decoded."""
    layer, below = _layer(image, anomaly_map, regions), reduced(io.BytesIO(image), SIDE)
    if layer is None or below is None:
        return None
    fitting = layer.resize(below.size)
    below.paste(fitting, mask=fitting.getchannel("A"))
    buffer = io.BytesIO()
    below.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _layer(image: bytes, anomaly_map: bytes, regions: tuple[Region, ...]) -> Image.Image | None:
    full = _size(image)
    if full is None:
        return None
    scale = min(1.0, SIDE / max(full))
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    layer = _colours(anomaly_map).resize(size, Image.Resampling.BILINEAR)
    draw, width = ImageDraw.Draw(layer), max(1, max(size) // 320)
    for x, y, w, h, _ in regions:
        box = [x * scale, y * scale, max((x + w) * scale - 1, x * scale), max((y + h) * scale - 1, y * scale)]
        grown = [box[0] - width, box[1] - width, box[2] + width, box[3] + width]
        draw.rectangle(grown, outline=(0, 0, 0, 255), width=width)
        draw.rectangle(box, outline=(255, 255, 255, 255), width=width)
    return layer


def _colours(anomaly_map: bytes) -> Image.Image:
    """RGBA image of a stored map: the same colour for the same multiple of the threshold, on every part."""
    with Image.open(io.BytesIO(anomaly_map)) as opened:
        values = np.asarray(opened.convert("L"), np.float32) / THRESHOLD  # 1.0 = threshold
    above = np.clip(values - 1.0, 0.0, 1.0)
    below = np.clip((values - FAINT) / (1.0 - FAINT), 0.0, 1.0)
    layer = np.empty((*values.shape, 4), np.uint8)
    layer[..., 0] = 255 - 105 * above
    layer[..., 1] = 225 * (1.0 - below)
    layer[..., 2] = 0
    layer[..., 3] = 150 * below + 60 * above
    return Image.fromarray(layer)


def _size(image: bytes) -> tuple[int, int] | None:
    """Width and height of the upright image."""
    try:
        with open_image(io.BytesIO(image)) as opened:
            height, width = upright_size(opened)
            return width, height
    except (OSError, ValueError, SyntaxError):
        return None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
