"""Nothing in a data set is left out silently, and names of folders say what they hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from trees import all_by_id, by_id, mvtec_tree, write_image, write_images, write_mask

from andon.core.errors import DataError
from andon.datasets import open_dataset
from andon.datasets.check import check_dataset
from andon.datasets.folder_names import FolderNames, meaning
from andon.datasets.labelled_anomalies import move_labelled


def test_folders_inside_the_known_ones_are_read(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part", defects={"crack": 1})
    write_images(folder / "train" / "good" / "may" / "day1", 4)
    write_images(folder / "test" / "good" / "day2", 2)
    write_images(folder / "test" / "crack" / "day1", 2)
    write_images(folder / "test" / "crack" / "day2" / "late", 2)
    write_mask(folder / "ground_truth" / "crack" / "day1" / "001_mask.png")
    data = open_dataset(folder)
    assert data.layout == "mvtec_ad"
    assert (len(data.train) + len(data.validation), len(data.test)) == (16, 10)
    found = all_by_id(data)
    assert found["part/train/good/may/day1/000"].session == "may/day1"
    assert found["part/test/crack/day2/late/001"].defect_type == "crack"
    assert {name for name, record in found.items() if record.masks} == {"part/test/crack/day1/001"}
    # 000 is there twice without a folder of masks of its own
    assert [error for error in data.findings.errors if "several pictures of one name" in error]
    assert not [warning for warning in data.findings.warnings if "not read" in warning]


def test_masks_of_folders_inside_may_lie_together(tmp_path: Path) -> None:
    write_images(tmp_path / "part" / "ok", 6)
    write_image(tmp_path / "part" / "bad" / "dent" / "am" / "x.png")
    write_image(tmp_path / "part" / "bad" / "dent" / "pm" / "y.png")
    for name in "xy":
        write_mask(tmp_path / "part" / "masks" / "dent" / f"{name}.png")
    data = open_dataset(tmp_path / "part")
    bad = [record for record in data.test if record.label]
    assert [(record.defect_type, len(record.masks)) for record in bad] == [("dent", 1), ("dent", 1)]
    assert not data.findings.errors


def test_what_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_images(folder / "extra", 4)
    write_image(folder / "train" / "loose.png")
    write_images(folder / "train" / "good" / "bad", 3)
    (folder / "test" / "crack" / "a.gif").write_bytes(b"x")
    (folder / "readme.txt").write_bytes(b"x")
    findings = open_dataset(folder, exclude=["005.png"]).findings
    (unread,) = [warning for warning in findings.warnings if "are not read" in warning]
    assert "5 pictures" in unread
    assert "extra (4)" in unread
    assert "train (1)" in unread
    assert any("a.gif" in warning for warning in findings.warnings)
    assert any("readme.txt" in note for note in findings.notes)
    assert any("3 pictures and is named like a folder of bad parts" in error for error in findings.errors)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    for k in range(6):
        write_image(tmp_path / "part" / "normal" / os.fsdecode(b"teil_\xfc%d.png" % k), seed=k)
    for k in range(3):
        write_image(tmp_path / "part" / "anomalous" / os.fsdecode(b"\xff\xfe bad%d.png" % k), seed=k)
    data = move_labelled(open_dataset(tmp_path / "part"), 1, seed=0)
    assert (len(data.train) + len(data.validation), len(data.test), len(data.labelled)) == (4, 4, 1)
    assert len({records.fingerprint() for records in (data.train, data.test, data.labelled)}) == 3
    assert not check_dataset(data).errors


def test_linked_folders_are_read_in_one_place(tmp_path: Path) -> None:
    write_images(tmp_path / "pool", 5)
    folder = mvtec_tree(tmp_path / "part")
    (folder / "train" / "good" / "pool").symlink_to(tmp_path / "pool")
    write_images(folder / "kept", 2)
    (folder / "test" / "dirt").symlink_to(folder / "kept")
    data = open_dataset(folder)
    assert (len(data.train) + len(data.validation), len(data.test)) == (17, 10)
    assert not [warning for warning in data.findings.warnings if "not read" in warning]


def test_a_folder_that_is_no_category_is_named(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "bottle")
    write_images(tmp_path / "cable" / "trian" / "good", 2)
    for findings in (open_dataset(tmp_path).findings, check_dataset(tmp_path)):
        assert any("cable" in warning and "no category" in warning for warning in findings.warnings)


def test_folders_that_a_manifest_lists_are_read(tmp_path: Path) -> None:
    images = [*write_images(tmp_path / "left", 6), *write_images(tmp_path / "right", 6)]
    rows = "".join(f"{path.relative_to(tmp_path)},good\n" for path in images)
    (tmp_path / "manifest.csv").write_text(f"image,label\n{rows}")
    for findings in (open_dataset(tmp_path).findings, check_dataset(tmp_path)):
        assert not [warning for warning in findings.warnings if "not read" in warning]


def test_images_beside_those_of_a_manifest(tmp_path: Path) -> None:
    images = write_images(tmp_path / "part", 6)
    rows = "".join(f"{path.name},good\n" for path in images[:5])
    (tmp_path / "part" / "manifest.csv").write_text(f"image,label\n{rows}")
    assert any(
        "1 picture beside" in note and "005.png" in note for note in open_dataset(tmp_path / "part").notes
    )


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("pass", "fail"),
        ("OK", "NOK"),
        ("good_images", "bad_images"),
        ("Good parts", "Bad parts"),
        ("Gut", "Schlecht"),
        ("bon", "mauvais"),
        ("i.O.", "n.i.O."),
        ("Conforme", "Défauts"),
        ("defect-free", "NotOK"),
        ("0_good", "1_bad"),
        ("良品", "不良"),
    ],
)
def test_names_of_folders_are_guessed(good: str, bad: str) -> None:
    assert (meaning(good), meaning(bad)) == ("good", "bad")


@pytest.mark.parametrize(
    "name", ["crack", "good_bad", "train", "bottle", "images", "2024", "", "no", "broken_large"]
)
def test_names_that_say_nothing(name: str) -> None:
    assert meaning(name) is None


def test_guesses_are_said_and_can_be_confirmed(tmp_path: Path) -> None:
    write_images(tmp_path / "part" / "pass", 6)
    write_images(tmp_path / "part" / "fail", 3)
    data = open_dataset(tmp_path / "part")
    assert (data.layout, len(data.test)) == ("folders", 5)
    assert len(data.findings.guesses) == 2
    assert "--good pass confirms it" in data.findings.guesses[0]
    sure = open_dataset(tmp_path / "part", good=["pass"], bad=[str(tmp_path / "part/fail/")])
    assert sure.findings.guesses == ()
    assert len(sure.test) == 5
    swapped = open_dataset(tmp_path / "part", good=["fail"], bad=["PASS"])
    assert [record.label for record in swapped.test].count(1) == 6
    with pytest.raises(DataError, match=r"no folder 'pas' .*did you mean pass"):
        open_dataset(tmp_path / "part", good=["pas"])
    assert len(open_dataset(tmp_path / "part", good=["pas"], lenient=True).test) == 5


def test_folders_whose_names_say_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "part" / "A", 6)
    write_images(tmp_path / "part" / "B", 4)
    with pytest.raises(DataError, match=r"2 categories.*A, B; .*--good NAME"):
        open_dataset(tmp_path / "part")
    data = open_dataset(tmp_path / "part", good=["A"], bad=["B"])
    assert [record.label for record in data.test].count(1) == 4
    both = open_dataset(tmp_path / "part", good=["A", "B"])
    assert {record.session for record in by_id([*both.train, *both.validation]).values()} == {"A", "B"}
    assert len(both.train) + len(both.validation) == 10


def test_bad_parts_are_not_learned_as_good_ones(tmp_path: Path) -> None:
    write_images(tmp_path / "part" / "Schlecht", 6)
    for path in (tmp_path / "part" / "Schlecht", tmp_path / "part"):
        with pytest.raises(DataError, match=r"learns from good ones.*--good Schlecht"):
            open_dataset(path)
    assert len(open_dataset(tmp_path / "part" / "Schlecht", good=["schlecht"]).train) == 5


def test_a_folder_of_other_formats_says_so(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / f"{k}.gif").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no pictures that can be read \(passed by: 4 x .*0\.gif"):
        open_dataset(tmp_path)


def test_told_names_count_in_any_case_and_as_paths() -> None:
    names = FolderNames(good=("a/Serie 1/",), bad=("good",))
    assert names.is_good("SERIE 1") and names.is_bad("Good") and not names.is_good("good")
    assert names.unknown(["serie 1"]) == ["good"]
