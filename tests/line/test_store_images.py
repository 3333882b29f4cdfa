"""Images beside the database: complete or not there, found again at the start, left out when the disk is full."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from andon.line.store import DiskLevel, ImageState, Store, images
from andon.line.verdicts import Cause, Verdict
from line.disk import GB, with_room
from line.storing import part


def png(side: int = 400, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side // 2), 100).save(buffer, "PNG")
    return buffer.getvalue()


def settled(store: Store, row: int) -> ImageState:
    """State of the image once it is no longer pending."""
    for _ in range(200):
        found = store.inspection(row)
        assert found is not None
        if found.image_state is not ImageState.PENDING:
            return found.image_state
        time.sleep(0.01)
    raise AssertionError("still pending")


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch):
    monkeypatch.setattr(images, "SETTLE_ROWS", 1)


def test_image_and_map_are_kept_as_they_came(store, folder):
    image = png()
    row = store.record(part(1, verdict=Verdict.NG, image=image, image_suffix=".PNG", map=b"map")).result().row
    assert settled(store, row.id) is ImageState.STORED
    assert (store.image(row), store.map(row)) == (image, b"map")
    assert row.image_key.endswith(f"/{row.id}_NG.png")
    assert row.image_bytes == len(image) + 3
    small = Image.open(io.BytesIO(store.thumbnail(row)))
    assert (small.format, small.size) == ("JPEG", (320, 160))
    assert store.thumbnail(row) == store.thumbnail(row)
    assert len([*folder.glob("thumbnails/*/*/*/*/*.jpg")]) == 1


@pytest.mark.parametrize(("data", "brightest"), [(b"no image", None), (png(40, "I;16"), 255)])
def test_thumbnails_of_other_content(store, data, brightest):
    row = store.record(part(1, image=data)).result().row
    settled(store, row.id)
    small = store.thumbnail(row)
    assert (None if small is None else np.asarray(Image.open(io.BytesIO(small))).max()) == brightest


def test_without_an_image_there_is_none(store):
    row = store.record(part(1)).result().row
    assert row.image_state is ImageState.NONE
    assert store.image(row) is store.map(row) is store.thumbnail(row) is None


@pytest.mark.parametrize(
    ("free", "policy", "verdict", "answered", "state"),
    [
        (100 * GB, "error", Verdict.OK, Verdict.OK, ImageState.STORED),
        (5 * GB, "error", Verdict.OK, Verdict.OK, ImageState.NOT_STORED),
        (5 * GB, "error", Verdict.NG, Verdict.NG, ImageState.STORED),
        (60_000_000, "error", Verdict.OK, Verdict.ERROR, ImageState.NOT_STORED),
        (60_000_000, "ok_without_image", Verdict.OK, Verdict.OK, ImageState.NOT_STORED),
        (60_000_000, "ok_without_image", Verdict.NG, Verdict.NG, ImageState.NOT_STORED),
    ],
)
def test_what_a_full_disk_leaves_out(store, monkeypatch, free, policy, verdict, answered, state):
    with_room(monkeypatch, free)
    row = store.record(part(1, verdict=verdict, image=b"x", on_full_disk=policy)).result().row
    assert (row.verdict, settled(store, row.id)) == (answered, state)
    assert row.cause == (Cause.DISK_FULL if answered is Verdict.ERROR else "")
    with_room(monkeypatch, 500 * GB)
    again = store.record(part(2, image=b"x", on_full_disk=policy)).result().row
    assert (again.verdict, settled(store, again.id)) == (Verdict.OK, ImageState.STORED)


def test_levels_of_the_disk(store, monkeypatch):
    for free, level in [(60 * GB, 0), (40 * GB, 1), (9 * GB, 2), (10_000_000, 3)]:
        with_room(monkeypatch, free)
        assert store.disk() is DiskLevel(level)


def test_an_image_that_cannot_be_written_is_lost_and_said(store, monkeypatch):
    def full(_path, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "write_durably", full)
    row = store.record(part(1, image=b"x")).result().row
    assert row.verdict is Verdict.OK
    assert settled(store, row.id) is ImageState.LOST
    assert store.images_lost == 1
    monkeypatch.undo()
    assert settled(store, store.record(part(2, image=b"x")).result().id) is ImageState.STORED


def test_more_than_memory_allows_is_lost_and_said(store, monkeypatch):
    monkeypatch.setattr(images, "WAITING_BYTES", 10)
    row = store.record(part(1, image=b"x" * 11)).result().row
    assert settled(store, row.id) is ImageState.LOST


def test_rows_are_settled_while_images_come_steadily(store, monkeypatch):
    monkeypatch.setattr(images, "SETTLE_ROWS", 10_000)
    monkeypatch.setattr(images, "SETTLE_SECONDS", 0.3)
    first = store.record(part(0, image=b"x")).result().row
    for number in range(1, 100):
        time.sleep(0.05)
        store.record(part(number, image=b"x")).result()
        if store.inspection(first.id).image_state is ImageState.STORED:
            break
    assert number < 50


def test_what_a_crash_left_apart_is_put_right(store, folder, reopen):
    rows = [store.record(part(n, image=b"x")).result().row for n in range(3)]
    store.close()
    kept, gone, _other = (folder / row.image_key for row in rows)
    gone.unlink()
    half, stray = kept.with_name("9_OK.png.part"), kept.with_name("77_OK.png")
    half.write_bytes(b"ha")
    stray.write_bytes(b"stray")
    with reopen() as first:
        first.write(
            lambda c: c.exec_driver_sql(f"UPDATE inspection SET image_state = 1 WHERE id < {rows[2].id}")
        ).result()
    stray.write_bytes(b"stray")
    half.write_bytes(b"ha")
    with reopen() as again:
        found = again.recovery
        assert (found.stored, found.lost, found.unfinished, found.quarantined) == (1, 1, 1, 1)
        states = [again.inspection(row.id).image_state for row in rows]
    assert states == [ImageState.STORED, ImageState.LOST, ImageState.STORED]
    assert not half.exists() and not stray.exists() and kept.exists()
    assert [file.name for file in (folder / "quarantine").rglob("*.png")] == ["77_OK.png"]
