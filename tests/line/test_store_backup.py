"""Backup and restore: the same rows and images on another computer, checked; what was changed meanwhile shows."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time

import pytest

from andon.core.errors import DataError, OutputError
from andon.line.store import ImageState, Store, audit, images, rows
from andon.line.store.audit import Entry
from andon.line.store.backup import backup, restore
from andon.line.verdicts import Verdict
from line.storing import part


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch):
    monkeypatch.setattr(images, "SETTLE_ROWS", 1)


def fill(store: Store, parts: int = 5) -> None:
    rows = [
        store.record(part(n, image=b"image%d" % n, map=b"map", verdict=Verdict.NG)).result()
        for n in range(parts)
    ]
    store.audit(Entry("a", "b")).result()
    while any(store.inspection(row.id).image_state is not ImageState.STORED for row in rows):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def made(empty_store, tmp_path_factory):
    """Folder with a store of five parts and its backup."""
    top = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "SETTLE_ROWS", 1)
        with Store.open(shutil.copytree(empty_store, top / "store")) as store:
            fill(store)
            backup(store.folder, top / "backup")
    return top


@pytest.fixture
def saved(made, tmp_path):
    """(open store with five parts, its backup)."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with Store.open(tmp_path / "store") as store:
        yield store, tmp_path / "backup"


def test_a_restored_line_is_the_same(saved, tmp_path):
    store, copy = saved
    store.record(part(77)).result()  # after the backup
    restored = restore(copy, tmp_path / "new")
    assert (restored.rows, restored.images, restored.damaged) == (5, 5, 0)
    with Store.open(tmp_path / "new") as new:
        assert new.inspections() == store.inspections(before_id=6)
        assert [new.image(row) for row in new.inspections()] == [b"image%d" % n for n in range(5)][::-1]
        assert {new.map(row) for row in new.inspections()} == {b"map"}
        head = new.ask(audit.check)
        assert head == restored.head
        assert head.seq == 2
        assert new.record(part(100)).result().id == 6


def test_a_backup_is_one_moment_and_checks_without_andon(made):
    copy = made / "backup"
    manifest = json.loads((copy / "manifest.json").read_text())
    assert (manifest["rows"], manifest["images"], manifest["missing"]) == (5, 5, 0)
    assert sorted(path.name for path in copy.iterdir()) == [
        "SHA256SUMS",
        "andon.sqlite",
        "images",
        "manifest.json",
        "maps",
    ]
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=copy)
    assert done.returncode == 0
    image = next((copy / "images").rglob("*.png"))
    assert image.stat().st_nlink == 2  # no second copy on the same disk


def test_without_hard_links_files_are_copied(sqlite_store, tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(18, "Invalid cross-device link")

    fill(sqlite_store, 1)
    monkeypatch.setattr(os, "link", refuse)
    assert backup(sqlite_store.folder, tmp_path / "backup").images == 1
    assert restore(tmp_path / "backup", tmp_path / "new").images == 1


def test_a_missing_image_is_counted(sqlite_store, tmp_path):
    fill(sqlite_store)
    (sqlite_store.folder / sqlite_store.inspection(2).image_key).unlink()
    assert backup(sqlite_store.folder, tmp_path / "backup").missing == 1
    assert restore(tmp_path / "backup", tmp_path / "new").damaged == 1


def test_a_damaged_image_is_lost_and_said(saved, tmp_path):
    store, copy = saved
    image = copy / store.inspection(3).image_key
    image.unlink()
    image.write_bytes(b"changed")
    assert restore(copy, tmp_path / "new").damaged == 1
    with Store.open(tmp_path / "new") as new:
        assert new.inspection(3).image_state is ImageState.LOST
        assert new.image(new.inspection(3)) is None


def with_golden_and_candidate(store: Store) -> tuple[str, str]:
    """Paths of a golden image and a candidate that rows name."""
    for key in (keys := ("golden/a.png", "candidates/b.andon")):
        (store.folder / key).parent.mkdir()
        (store.folder / key).write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()

    def add(connection):
        named = {"station_id": rows.ensure(connection, "station", {"name": "press"}), "who": "a", "why": "b"}
        golden = rows.add(connection, "golden_set", **named, at=1)
        values = {"set_id": golden, "image_key": keys[0], "image_sha256": sha256}
        rows.add(connection, "golden_item", **values, name="a", kind="good", has_part=False)
        rows.add(connection, "candidate", **named, at=1, file=keys[1], sha256=sha256, name="b")

    store.write(add).result()
    return keys


@pytest.mark.parametrize("changed", [None, b"changed"], ids=["gone", "changed"])
def test_golden_images_and_candidates_that_are_missing_are_listed(sqlite_store, tmp_path, cli, changed):
    fill(sqlite_store)
    keys = with_golden_and_candidate(sqlite_store)
    copy = tmp_path / "backup"
    manifest = backup(sqlite_store.folder, copy)
    assert (manifest.missing_for_good, manifest.missing_maps) == ([], 0)
    image = sqlite_store.inspection(2)
    for key in (*keys, image.map_key):
        (copy / key).unlink()
        if changed is not None:
            (copy / key).write_bytes(changed)
    done = cli("restore", copy, "--data", tmp_path / "new")
    assert done.code == 2
    for text in (*keys, "5 images, 1 maps are damaged or missing", "2 files (golden images, candidates)"):
        assert text in done.err
    restored = restore(copy, tmp_path / "again")
    assert (restored.images, restored.damaged, restored.damaged_maps) == (5, 0, 1)
    assert restored.missing_for_good == sorted(keys)
    for key in keys:
        (sqlite_store.folder / key).unlink()
    (sqlite_store.folder / image.map_key).unlink()
    done = cli("backup", tmp_path / "other", "--data", sqlite_store.folder, "--json")
    assert (done.code, json.loads(done.out)["missing_for_good"]) == (2, sorted(keys))
    assert json.loads(done.out)["missing_maps"] == 1
    assert all(key in done.err for key in keys)
    assert restore(tmp_path / "other", tmp_path / "third").missing_for_good == sorted(keys)


def test_a_backup_of_an_earlier_andon_is_restored(saved, tmp_path):
    _store, copy = saved
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("missing_maps", "missing_for_good"):
        del manifest[name]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert restore(copy, tmp_path / "new").images == 5


def rewritten(copy, content: bytes) -> None:
    """A database of other content, with sums and manifest that agree with it."""
    (copy / "andon.sqlite").write_bytes(content)
    sums = (copy / "SHA256SUMS").read_text().split("\n")
    sums[0] = f"{hashlib.sha256(content).hexdigest()}  andon.sqlite"
    (copy / "SHA256SUMS").write_text("\n".join(sums))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sums_sha256"] = hashlib.sha256((copy / "SHA256SUMS").read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))


def without_audit(copy) -> bytes:
    database = sqlite3.connect(copy / "andon.sqlite")
    database.execute("DROP TRIGGER audit_no_delete")
    database.execute("DELETE FROM audit")
    database.commit()
    database.close()
    return (copy / "andon.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda copy: (copy / "manifest.json").unlink(), "no complete backup"),
        (lambda copy: (copy / "manifest.json").write_text("{}"), "no complete backup"),
        (lambda copy: (copy / "SHA256SUMS").write_text("a  ../../b\n"), "was changed"),
        (lambda copy: (copy / "andon.sqlite").unlink(), "changed since the backup"),
        (lambda copy: (copy / "andon.sqlite").write_bytes(b"x"), "changed since the backup"),
        (lambda copy: rewritten(copy, without_audit(copy)), "at the end are missing"),
    ],
)
def test_an_unsound_backup_is_refused_and_leaves_nothing(saved, tmp_path, damage, words):
    _store, copy = saved
    damage(copy)
    with pytest.raises(DataError, match=words) as caught:
        restore(copy, tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert not [*tmp_path.glob(".*")]


def test_files_outside_the_backup_are_refused(saved, tmp_path):
    _store, copy = saved
    sums = (copy / "SHA256SUMS").read_text().replace("maps/", "../maps/")
    (copy / "SHA256SUMS").write_text(sums)
    rewritten(copy, (copy / "andon.sqlite").read_bytes())
    with pytest.raises(DataError, match="outside the backup"):
        restore(copy, tmp_path / "new")


def test_places_that_cannot_be_used(saved, tmp_path):
    store, copy = saved
    with pytest.raises(OutputError, match="not empty"):
        backup(store.folder, copy)
    with pytest.raises(DataError, match="in use by process"):
        restore(copy, store.folder)
    with pytest.raises(DataError, match="pg_dump"):
        backup(tmp_path, tmp_path / "other")
    store.close()
    with pytest.raises(OutputError, match="not empty"):
        restore(copy, store.folder)
    (tmp_path / "empty").mkdir()
    assert restore(copy, tmp_path / "empty").rows == 5


def test_a_backup_while_parts_are_stored(sqlite_store, tmp_path):
    waiting = [sqlite_store.record(part(n)) for n in range(100)]
    manifest = backup(sqlite_store.folder, tmp_path / "backup")
    assert [future.result().id for future in waiting] == [*range(1, 101)]
    assert restore(tmp_path / "backup", tmp_path / "new").rows == manifest.rows
    with Store.open(tmp_path / "new") as new:
        assert sum(new.counts("press", since=0).values()) == manifest.rows


def test_the_commands(made, tmp_path, cli):
    done = cli("backup", tmp_path / "backup", "--data", made / "store", "--json")
    assert (done.code, json.loads(done.out)["rows"]) == (0, 5)
    head = json.loads(done.out)["audit_head"]
    done = cli("restore", tmp_path / "backup", "--data", tmp_path / "new")
    assert (done.code, "5 verdicts, 5 images; the audit is sound" in done.err) == (0, True)
    done = cli("audit", "verify", "--data", tmp_path / "new", "--head", head)
    assert (done.code, "2 rows, the audit is sound" in done.err) == (0, True)
    wrong = cli("audit", "verify", "--data", tmp_path / "new", "--head", f"9:{head[2:]}")
    assert (wrong.code, "rows 3 to 9 at the end are missing" in wrong.err) == (2, True)
    for arguments, words in [
        (("audit", "verify", "--data", tmp_path), "no andon.sqlite"),
        (("audit", "verify", "--database", "mysql://x/y"), "not supported"),
        (("audit", "verify", "--data", made / "store", "--head", "x"), "NUMBER:HASH"),
        (("backup", tmp_path / "new", "--data", made / "store"), "not empty"),
        (("restore", tmp_path / "nothing", "--data", tmp_path / "other"), "no complete backup"),
    ]:
        assert words in cli(*arguments).complaint()
