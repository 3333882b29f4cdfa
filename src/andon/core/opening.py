"""Image files opened and not yet decoded: format, pages, upright size, EXIF, checksums."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from andon.core.errors import DataError
from andon.core.listing import JPEG_SUFFIXES

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Formats of Pillow that are tried, whatever the suffix; the content of a file says which one it is."""
WITH_EXIF = JPEG_SUFFIXES | {".tif", ".tiff", ".webp"}
"""Suffixes of the formats in which cameras write EXIF."""
WIDTH, HEIGHT, NEW_SUBFILE_TYPE, REDUCED_OR_MASK = 256, 257, 254, 0b101
"""TIFF tags of the stored size, the one that says what a page is, and its bits for a reduced copy and a transparency mask."""
ORIENTATION, EXIF_FOLDER, DATE_TIME_ORIGINAL = 274, 0x8769, 0x9003
"""EXIF tags."""
ON_ITS_SIDE = frozenset({5, 6, 7, 8})
"""Orientations in which width and height change places."""
CAPTURE_DAY = re.compile(r"(\d{4})[:/-](\d{2})[:/-](\d{2})")
"""Start of EXIF's `2024:05:31 12:00:00`."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
BLOCK = 2**20
"""Bytes that are read at a time to compute a checksum."""
Image.MAX_IMAGE_PIXELS = None  # `max_pixels` takes its place, before anything is decoded


@contextlib.contextmanager
def open_image(source: Path | BinaryIO, *, checked: bool = False) -> Iterator[Image.Image]:
    """A file of one of `FORMATS`, recognised by its content, not yet decoded. It is never mapped into memory.

    With `checked` the checksums of a PNG are compared, which Pillow leaves out for pixels. Raises `UnidentifiedImageError`
    for any other content, `OSError` for wrong checksums.
    """
    with contextlib.ExitStack() as stack:
        # Pillow maps files that it knows by name: it scrambles TIFFs on their side, and a file that shrinks kills the process
        stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        if checked:
            check_png(stream)
        yield stack.enter_context(Image.open(stream, formats=FORMATS))


def load(image: Image.Image) -> None:
    """Decode an image that somebody else opened, without mapping its file (see `open_image`)."""
    if not isinstance(image, ImageFile.ImageFile):
        image.load()
        return
    name, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = name


def check_png(stream: BinaryIO) -> None:
    """Raise `OSError` for a PNG that is cut short or has a chunk with a wrong checksum; the stream is rewound."""
    stream.seek(0)
    name = b"" if stream.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE else b"IEND"
    while name != b"IEND":
        head = stream.read(8)
        left, name = int.from_bytes(head[:4], "big"), head[4:]
        checksum = zlib.crc32(name)
        while left and (block := stream.read(min(left, BLOCK))):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
        stored = stream.read(4)
        if len(stored) < 4:
            raise OSError("image file is truncated")
        if stored != checksum.to_bytes(4, "big"):
            raise OSError(f"wrong checksum of the chunk {name.decode('ascii', 'replace')}")
    stream.seek(0)


def check_pages(opened: Image.Image, path: Path | str) -> None:
    """Raise `DataError` for a stack or an animation; smaller copies of the first page, which cameras add, are none."""
    count = getattr(opened, "n_frames", 1)
    if count > 1 and opened.format in ("TIFF", "MPO"):
        first = opened.size
        count = 1 + sum(_is_page(opened, first, k) for k in range(1, count))
        opened.seek(0)
    if count > 1:
        raise several_pages(path, count)


def _is_page(opened: Image.Image, first: tuple[int, int], number: int) -> bool:
    """Whether page `number` is an image of its own, not a copy that is smaller than the `first` page or a transparency mask."""
    opened.seek(number)
    if opened.format == "MPO":
        return opened.size[0] >= first[0] or opened.size[1] >= first[1]
    tags = getattr(opened, "tag_v2", {})
    return not int(tags.get(NEW_SUBFILE_TYPE, 0)) & REDUCED_OR_MASK


def several_pages(path: Path | str, count: int) -> DataError:
    """The error of a file with several pages."""
    return DataError(
        f"{path} holds {count} pages (a stack or an animation), of which none is chosen silently: save each as a file of "
        "its own"
    )


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """(H, W) after EXIF orientation, of an image that is not decoded yet."""
    tags = getattr(opened, "tag_v2", {})  # of a TIFF, whose `size` is turned in newer versions of Pillow
    width, height = (int(tags.get(tag, side)) for tag, side in zip((WIDTH, HEIGHT), opened.size, strict=True))
    return (width, height) if opened.getexif().get(ORIENTATION, 1) in ON_ITS_SIDE else (height, width)


def read_day(path: Path) -> str | None:
    """Day on which an image was taken, `2024-05-31`, from EXIF DateTimeOriginal; None without it. No pixel is decoded."""
    if path.suffix.lower() not in WITH_EXIF:
        return None
    try:
        with open_image(path) as opened:
            text = str(opened.getexif().get_ifd(EXIF_FOLDER).get(DATE_TIME_ORIGINAL, ""))
    except Exception:  # `decode` names the file
        return None
    found = CAPTURE_DAY.match(text)
    return "-".join(found.groups()) if found else None
