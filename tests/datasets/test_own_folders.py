"""Own folders: normal/ and defect/, or a folder of good images."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import (
    by_id,
    stems,
    write_image,
    write_images,
    write_mask,
)

from andon.core.errors import DataError
from andon.datasets import open_dataset


def test_normal_and_defect_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "parts" / "Normal", 20)
    write_images(tmp_path / "parts" / "defects" / "dent", 2)
    write_images(tmp_path / "parts" / "defects", 3)
    write_mask(tmp_path / "parts" / "masks" / "dent" / "001.png")
    data = open_dataset(tmp_path / "parts")
    assert data.layout == "folders"
    assert (len(data.train), len(data.validation)) == (14, 2)  # 20 - 4 to test, 16 - 2 to validation
    kinds = [record.defect_type for record in data.test]
    assert (kinds.count("good"), kinds.count("dent"), kinds.count("defects")) == (4, 2, 3)
    assert by_id(data.test)["parts/defects/dent/001"].masks
    ids = [record.id for part in (data.train, data.validation, data.test) for record in part]
    assert len(set(ids)) == 25


def test_masks_directly_in_the_mask_folder_of_a_single_defect_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "parts" / "ok", 6)
    write_images(tmp_path / "parts" / "ko", 2)
    write_mask(tmp_path / "parts" / "gt" / "000_mask.png")
    write_mask(tmp_path / "parts" / "gt" / "001_mask.png")
    data = open_dataset(tmp_path / "parts")
    assert {record.id: bool(record.masks) for record in data.test if record.label == 1} == {
        "parts/ko/000": True,
        "parts/ko/001": True,
    }
    assert not data.findings.errors
    write_images(tmp_path / "parts" / "ko" / "dent", 1)
    assert any("masks directly in" in error for error in open_dataset(tmp_path / "parts").findings.errors)


def test_mask_folder_inside_the_defect_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "parts" / "ok", 6)
    write_images(tmp_path / "parts" / "ko", 2)
    write_mask(tmp_path / "parts" / "ko" / "masks" / "001.png")
    bad = [record for record in open_dataset(tmp_path / "parts").test if record.label == 1]
    assert [(record.defect_type, len(record.masks)) for record in bad] == [("ko", 0), ("ko", 1)]


def test_defect_types_beside_the_good_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "parts" / "good", 6)
    write_images(tmp_path / "parts" / "crack", 2)
    data = open_dataset(tmp_path / "parts")
    assert [record.defect_type for record in data.test] == ["crack", "crack", "good", "good"]
    assert any("crack" in note for note in data.notes)
    write_images(tmp_path / "parts" / "bad", 1)
    assert any("crack" in warning for warning in open_dataset(tmp_path / "parts").findings.warnings)


def test_only_a_good_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "parts" / "good", 10)
    data = open_dataset(tmp_path / "parts")
    assert (data.category, len(data.train), len(data.validation), len(data.test)) == ("parts", 9, 1, 0)


def test_flat_folder(tmp_path: Path) -> None:
    for suffix, count in ((".png", 6), (".JPG", 4)):
        for index in range(count):
            write_image(tmp_path / "photos" / f"{suffix[1:]}{index}{suffix}")
    data = open_dataset(tmp_path / "photos")
    assert (data.layout, data.category) == ("flat", "photos")
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 1, 0)
    assert set(data.train.labels) == {0} and not data.has_masks


def test_flat_folder_does_not_learn_masks(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    write_mask(tmp_path / "photos" / "001_mask.png")
    data = open_dataset(tmp_path / "photos", hold_out=False)
    assert stems(data.train) == ["000", "001", "002"]
    assert any("001_mask.png" in note for note in data.notes)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images(tmp_path: Path, count: int) -> None:
    write_images(tmp_path / "a" / "good", count)
    write_images(tmp_path / "a" / "bad", 1)
    with pytest.raises(DataError, match="needs at least 3"):
        open_dataset(tmp_path / "a")
    write_images(tmp_path / "b", 1)
    with pytest.raises(DataError, match=r"has 1 picture of good parts.* needs at least 2: add pictures"):
        open_dataset(tmp_path / "b")
    assert len(open_dataset(tmp_path / "b", hold_out=False).train) == 1
