"""VisA as published and reorganised, as a tiny tree with the pitfalls of the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import (
    SHAPE,
    all_by_id,
    ids,
    mvtec_tree,
    write_image,
    write_mask,
)

from andon.core.errors import DataError
from andon.datasets import check_dataset, has_pixel_truth, list_categories, load_ground_truth, open_dataset

VISA_DEFECTS = {"000": ("burnt", (1,)), "001": ("burnt,small holes", (1, 5)), "002": ("other", (9,))}


def visa_tree(root: Path, name: str = "cashew", normal: int = 12) -> Path:
    """3-digit stems occur among normal and anomalous images; masks hold class indices, so they look black."""
    images = root / name / "Data" / "Images"
    rows, notes = [], []
    for k in range(normal + 2):
        path = write_image(images / "Normal" / f"{k:03}.JPG").relative_to(root).as_posix()
        rows.append(f"{name},{'train' if k < normal else 'test'},normal,{path},")
        notes.append(f"{path},normal,")
    for stem, (kinds, values) in VISA_DEFECTS.items():
        path = write_image(images / "Anomaly" / f"{stem}.JPG").relative_to(root).as_posix()
        mask = np.zeros(SHAPE, np.uint8)
        for number, value in enumerate(values):
            mask[4 * number : 4 * number + 3, 2:7] = value
        truth = write_mask(root / name / "Data" / "Masks" / "Anomaly" / f"{stem}.png", mask)
        rows.append(f"{name},test,anomaly,{path},{truth.relative_to(root).as_posix()}")
        notes.append(f'{path},"{kinds}",{truth.relative_to(root).as_posix()}')
    (root / "split_csv").mkdir(exist_ok=True)
    table = root / "split_csv" / "1cls.csv"
    before = table.read_text() if table.exists() else "object,split,label,image,mask\n"
    table.write_text(before + "\n".join(rows) + "\n")
    (root / name / "image_anno.csv").write_text("image,label,mask\n" + "\n".join(notes) + "\n")
    return root


def test_visa(tmp_path: Path) -> None:
    root = visa_tree(visa_tree(tmp_path / "VisA"), "pcb1")
    assert list_categories(root) == ["cashew", "pcb1"]
    data = open_dataset(root, "cashew")
    assert (data.layout, len(data.train), len(data.validation), len(data.test)) == ("visa", 10, 2, 5)
    found = all_by_id(data)
    good, bad = (found[f"cashew/Data/Images/{kind}/000"] for kind in ("Normal", "Anomaly"))
    assert (good.label, good.masks) == (0, ()) and good.split != "test"
    assert (bad.label, bad.defect_type, bad.mask_kind) == (1, "burnt", "classes")
    several = found["cashew/Data/Images/Anomaly/001"]
    assert several.defect_type == "burnt+small holes"
    assert load_ground_truth(several, SHAPE).union.sum() == 30
    assert all(has_pixel_truth(record, load_ground_truth(record, SHAPE)) for record in data.test)


def test_visa_masks_of_classes_are_no_fault(tmp_path: Path) -> None:
    data = open_dataset(visa_tree(tmp_path), "cashew")
    assert check_dataset(data).errors == ()


def test_visa_one_object_and_one_object_alone(tmp_path: Path) -> None:
    root = visa_tree(tmp_path / "VisA")
    for path in (root, root / "cashew"):
        assert open_dataset(path).category == "cashew"
    assert ids(open_dataset(root).test) == ids(open_dataset(root / "cashew").test)


def test_visa_hold_out_repeats_and_can_be_left_out(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    assert ids(open_dataset(root).validation) == ids(open_dataset(root).validation)
    assert len(open_dataset(root, hold_out=False).train) == 12


def test_visa_reorganised(tmp_path: Path) -> None:
    """`<root>/1cls/<object>` is found from the root, and is a plain tree from `1cls`."""
    folder = mvtec_tree(tmp_path / "VisA" / "1cls" / "candle", defects={"bad": 2}, masks=False)
    for stem in ("000", "001"):
        write_mask(folder / "ground_truth" / "bad" / f"{stem}.png")
    data = open_dataset(tmp_path / "VisA")
    assert (data.layout, data.category) == ("visa", "candle")
    plain = open_dataset(tmp_path / "VisA" / "1cls")
    assert plain.layout == "mvtec_ad"
    for each in (data, plain):
        assert [len(record.masks) for record in each.test] == [1, 1, 0, 0, 0]
        assert any("VisA candle has 900: the copy may be partial" in line for line in each.findings.warnings)


def test_visa_missing_files_are_named(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    (root / "cashew/Data/Images/Normal/003.JPG").unlink()
    (root / "cashew/Data/Masks/Anomaly/002.png").unlink()
    (root / "cashew/image_anno.csv").unlink()
    data = open_dataset(root)
    text = " / ".join(data.findings.errors)
    assert "1 picture named in" in text and "cashew/Data/Images/Normal/003" in text
    assert "1 of 3 anomalous pictures have no mask" in text
    assert {record.defect_type for record in data.test} == {"good", "anomaly"}
    assert any("the kinds of defect are not known" in note for note in data.findings.notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cashew,train,normal,../../secret.JPG,", "may lie outside"),
        ("cashew,train,normal,/etc/secret.JPG,", "may lie outside"),
        ("cashew,learn,normal,cashew/a.JPG,", "split is 'learn'"),
        ("cashew,test,odd,cashew/a.JPG,", "label 'odd'"),
        ("cashew,train", "label ''"),
    ],
)
def test_visa_bad_tables(tmp_path: Path, row: str, message: str) -> None:
    root = visa_tree(tmp_path)
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text() + row + "\n")
    with pytest.raises(DataError, match=message):
        open_dataset(root)
    table.write_text("object,image\ncashew,a\n")
    with pytest.raises(DataError, match="lacks columns"):
        open_dataset(root)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(root)


def test_visa_anomalous_in_train_is_left_out(tmp_path: Path) -> None:
    root = visa_tree(tmp_path)
    table = root / "split_csv" / "1cls.csv"
    table.write_text(table.read_text().replace("cashew,test,anomaly", "cashew,train,anomaly", 1))
    data = open_dataset(root)
    assert all(record.label == 0 for record in [*data.train, *data.validation])
    assert any("is anomalous in train" in line for line in data.findings.errors)
