"""Published data sets beyond MVTec AD and LOCO, each as a tiny tree with the pitfalls of the real one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SIDE, mvtec_tree, write_mask, write_picture, write_pictures

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets import check_dataset, has_pixel_truth, list_categories, load_ground_truth, open_dataset
from andon.datasets.dataset import Dataset, Records
from andon.datasets.published.counts import (
    BTAD,
    MPDD,
    MTD,
    MVTEC_AD_2,
    VISA,
    Counts,
    compare,
    compare_any,
)
from andon.datasets.splits import held_out

SHAPE = (SIDE, SIDE)


def ids(records: Records) -> list[str]:
    return [record.id for record in records]


def by_id(data: Dataset) -> dict[str, Record]:
    return {record.id: record for record in [*data.train, *data.validation, *data.test]}


# --- VisA ---

VISA_DEFECTS = {"000": ("burnt", (1,)), "001": ("burnt,small holes", (1, 5)), "002": ("other", (9,))}


def visa_tree(root: Path, name: str = "cashew", normal: int = 12) -> Path:
    """3-digit stems occur among normal and anomalous pictures; masks hold class indices, so they look black."""
    images = root / name / "Data" / "Images"
    rows, notes = [], []
    for k in range(normal + 2):
        path = write_picture(images / "Normal" / f"{k:03}.JPG").relative_to(root).as_posix()
        rows.append(f"{name},{'train' if k < normal else 'test'},normal,{path},")
        notes.append(f"{path},normal,")
    for stem, (kinds, values) in VISA_DEFECTS.items():
        path = write_picture(images / "Anomaly" / f"{stem}.JPG").relative_to(root).as_posix()
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
    found = by_id(data)
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


# --- BTAD and MPDD: trees of MVTec AD with other names ---


def test_btad(tmp_path: Path) -> None:
    """Good is `ok`; pictures are bmp, masks png or bmp; stems repeat in ok and ko, and belong to ko alone."""
    root = tmp_path / "BTech_Dataset_transformed"
    for name, mask_suffix in (("01", ".png"), ("03", ".bmp")):
        write_pictures(root / name / "train" / "ok", 12, ".bmp")
        write_pictures(root / name / "test" / "ok", 3, ".bmp")
        for picture in write_pictures(root / name / "test" / "ko", 3, ".bmp"):
            write_mask(root / name / "ground_truth" / "ko" / f"{picture.stem}{mask_suffix}")
    assert list_categories(root) == ["01", "03"]
    for name in ("01", "03"):
        data = open_dataset(root, name)
        assert data.layout == "mvtec_ad"
        assert [(r.label, r.defect_type, len(r.masks)) for r in data.test] == [(0, "good", 0)] * 3 + [
            (1, "ko", 1)
        ] * 3
        assert {r.image.stem for r in data.test if r.label} == {
            r.image.stem for r in data.test if not r.label
        }
        assert data.findings.errors == ()
        assert any(f"BTAD {name} has" in line for line in data.findings.warnings)


@pytest.mark.parametrize("mark", ["", "_mask"])
def test_mpdd_masks_with_and_without_mark(tmp_path: Path, mark: str) -> None:
    folder = mvtec_tree(tmp_path / "connector", defects={"parts_mismatch": 2}, masks=False)
    for stem in ("000", "001"):
        write_mask(folder / "ground_truth" / "parts_mismatch" / f"{stem}{mark}.png")
    data = open_dataset(folder)
    assert [len(record.masks) for record in data.test if record.label] == [1, 1]
    assert "found 12 train pictures, MPDD connector has 128" in " ".join(data.findings.warnings)


# --- MTD ---


def mtd_tree(root: Path, free: int = 21) -> Path:
    """Names whose letters a careless suffix rule would eat, tiles of all sizes, soft and empty masks."""
    for k in range(free):
        size = (16 + k, 20)
        write_picture(root / "MT_Free" / "Imgs" / f"exp1_num_{k}p.jpg", size=size, mode="L")
        write_mask(root / "MT_Free" / "Imgs" / f"exp1_num_{k}p.png", np.zeros(size[::-1], np.uint8))
    soft = np.zeros(SHAPE, np.uint8)
    soft[2:8, 2:8] = 100
    soft[3:7, 3:7] = 128
    soft[4:6, 4:6] = 255
    for kind, name, mask in (
        ("Crack", "exp2_num_png", soft),
        ("Uneven", "exp3_num_45042", np.zeros(SHAPE, np.uint8)),
        ("Fray", "exp1_num_1p", soft),
    ):
        write_picture(root / f"MT_{kind}" / "Imgs" / f"{name}.jpg", mode="L")
        write_mask(root / f"MT_{kind}" / "Imgs" / f"{name}.png", mask)
    write_picture(root / "overview.jpg")
    return root


def test_mtd(tmp_path: Path) -> None:
    root = mtd_tree(tmp_path / "Magnetic-tile-defect-datasets.-master")
    data = open_dataset(root)
    assert data.layout == "mtd" and open_dataset(tmp_path).layout == "mtd"
    assert (len(data.train), len(data.validation)) == (15, 2)  # 21 - 4 to test, rounded down; 17 - 2
    assert Counter(r.defect_type for r in data.test) == {"good": 4, "Crack": 1, "Uneven": 1, "Fray": 1}
    found = {record.defect_type: record for record in data.test if record.label}
    assert found["Crack"].image.name == "exp2_num_png.jpg" and found["Crack"].masks[0].suffix == ".png"
    assert int(load_ground_truth(found["Crack"], SHAPE).union.sum()) == 16  # above 127, not above 0
    empty = found["Uneven"]
    assert empty.label == 1 and not has_pixel_truth(empty, load_ground_truth(empty, SHAPE))
    assert check_dataset(data).errors == ()
    assert any("empty mask" in line for line in check_dataset(data).warnings)


def test_mtd_soft_pixels_of_a_free_tile_are_not_marked(tmp_path: Path) -> None:
    root = mtd_tree(tmp_path / "mtd")
    record = next(r for r in open_dataset(root).test if r.label == 0)
    size = record.masks[0]
    grey = np.full((20, 16), 90, np.uint8)
    write_mask(size, grey)
    assert load_ground_truth(record, (20, 16)).defects == ()
    write_mask(size, grey + 60)
    with pytest.raises(DataError, match="labelled good"):
        load_ground_truth(record, (20, 16))


def test_mtd_test_share_is_rounded_down() -> None:
    """952 free tiles: 190 to test, then 77 of 762 to validation; the first ones by digest."""
    keys = [f"MT_Free/Imgs/{k}.jpg" for k in range(952)]
    test = held_out(keys, 20, 0, round_down=True)
    assert len(test) == 190 and len(held_out(keys, 20, 0)) == 191
    order = sorted(keys, key=lambda key: hashlib.sha256(f"0:{key}".encode()).hexdigest())
    assert test == set(order[:190])
    assert len(held_out([key for key in keys if key not in test], 10, 0)) == 77


def test_mtd_files_without_partner(tmp_path: Path) -> None:
    root = mtd_tree(tmp_path / "mtd")
    write_mask(root / "MT_Crack" / "Imgs" / "lonely.png")
    (root / "MT_Fray" / "Imgs" / "exp1_num_1p.png").unlink()
    errors = " / ".join(open_dataset(root).findings.errors)
    assert "1 masks without a picture" in errors and "lonely.png" in errors
    assert "1 of 3 anomalous pictures have no mask" in errors


def test_mtd_without_free_tiles(tmp_path: Path) -> None:
    (tmp_path / "MT_Free" / "Imgs").mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures in MT_Free/Imgs"):
        open_dataset(tmp_path)


# --- MVTec AD 2 ---


def ad_2_tree(root: Path, name: str = "can", private: int = 3) -> Path:
    folder = root / name
    for k in range(12):
        write_picture(folder / "train" / "good" / f"{k:03}_regular.png")
    for k in range(3):
        write_picture(folder / "validation" / "good" / f"{k:03}_regular.png")
    for kind in ("good", "bad"):
        for k in range(2):
            for light in ("regular", "underexposed", "shift_1"):
                write_picture(folder / "test_public" / kind / f"{k:03}_{light}.png")
                if kind == "bad":
                    write_mask(folder / "test_public/ground_truth/bad" / f"{k:03}_{light}_mask.png")
    for k in range(private):
        write_picture(folder / "test_private" / f"{k:03}_regular.png", size=(24, 16))
        write_picture(folder / "test_private_mixed" / f"{k:03}_mixed.png", size=(24, 16))
    return root


def test_ad_2(tmp_path: Path) -> None:
    root = ad_2_tree(ad_2_tree(tmp_path / "mvtec_ad_2"), "rice")
    assert list_categories(root) == ["can", "rice"]
    data = open_dataset(root, "can")
    assert (data.layout, len(data.train), len(data.validation)) == ("mvtec_ad_2", 12, 3)
    assert Counter(data.test.labels) == {0: 6, 1: 6, None: 6}
    found = by_id(data)
    bad = found["can/test_public/bad/001_shift_1"]
    assert bad.masks[0].name == "001_shift_1_mask.png" and bad.object_id == "test_public/bad/001"
    assert found["can/test_public/good/001_shift_1"].object_id == "test_public/good/001"
    private = found["can/test_private/002_regular"]
    assert (private.label, private.defect_type, private.group) == (None, "", "unknown")
    assert private.object_id == "test_private/002"
    assert len({record.object_id for record in data.test if record.label is not None}) == 4
    assert data.findings.errors == () and check_dataset(data).errors == ()
    assert "6 test pictures without label" in data.summary()


def test_ad_2_public_copy_alone(tmp_path: Path) -> None:
    root = ad_2_tree(tmp_path / "mvtec_ad_2", private=0)
    for picture in (root / "can/validation/good").iterdir():
        picture.unlink()
    data = open_dataset(root / "can")
    assert None not in data.test.labels and len(data.validation) == 2
    assert "found 0 unlabelled test pictures, MVTec AD 2 can has 642" in " ".join(data.findings.warnings)


# --- Real-IAD ---


def real_iad_tree(root: Path, size: str = "realiad_1024", name: str = "audiojack") -> Path:
    """Six good parts to learn from; one good, one bad part to test, whose second view shows no defect."""
    folder = root / size / name
    train, test = [], []

    def view(part: str, number: int, kind: str, mask: bool) -> dict[str, str | None]:
        stem = f"{part}/{name}_{number}"
        write_picture(folder / f"{stem}.jpg")
        if mask:
            write_mask(folder / f"{stem}_mask.png")
        return {
            "category": name,
            "anomaly_class": kind,
            "image_path": f"{stem}.jpg",
            "mask_path": f"{stem}_mask.png" if mask else None,
        }

    for part in range(6):
        train += [view(f"OK/S{part:04}", k, "OK", False) for k in range(3)]
    test += [view("OK/S0009", k, "OK", False) for k in range(3)]
    test += [view("NG/HS/S0001", k, "OK" if k == 1 else "HS", k != 1) for k in range(3)]
    values = {"meta": {"normal_class": "OK", "prefix": f"{name}/"}, "train": train, "test": test}
    for which in ("realiad_jsons", "realiad_jsons_fuiad_0.1"):
        table = root / "realiad_jsons" / which / f"{name}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        moved = {**values, "train": train + test[3:], "test": test[:3]} if "fuiad" in which else values
        table.write_text(json.dumps(moved))
    return root


def test_real_iad_parts_stay_together(tmp_path: Path) -> None:
    data = open_dataset(real_iad_tree(tmp_path / "Real-IAD"))
    assert (data.layout, data.category) == ("real_iad", "audiojack")
    assert (len(data.train), len(data.validation)) == (15, 3)  # 10 % of 18 views, whole parts
    assert not {r.object_id for r in data.train} & {r.object_id for r in data.validation}
    found = by_id(data)
    views = [found[f"audiojack/NG/HS/S0001/audiojack_{k}"] for k in range(3)]
    assert [(r.label, r.defect_type, len(r.masks)) for r in views] == [
        (1, "HS", 1),
        (0, "good", 0),
        (1, "HS", 1),
    ]
    assert {r.object_id for r in views} == {"audiojack/NG/HS/S0001"}
    assert check_dataset(data).errors == ()


def test_real_iad_choice_of_size_and_set(tmp_path: Path) -> None:
    root = real_iad_tree(real_iad_tree(tmp_path / "Real-IAD"), "realiad_256")
    (root / "realiad_jsons" / "realiad_jsons" / "unpacked_later.json").write_text("{}")
    assert list_categories(root) == ["audiojack"]
    assert "realiad_1024" in open_dataset(root).train[0].image.parts
    assert "realiad_256" in open_dataset(root / "realiad_256").train[0].image.parts
    data = open_dataset(root / "realiad_jsons" / "realiad_jsons_fuiad_0.1")
    mixed = [record for record in [*data.train, *data.validation] if "NG" in record.id]
    assert len(mixed) == 3 and all(record.label is None and not record.masks for record in mixed)
    assert any("train may hold defects" in note for note in data.findings.notes)


@pytest.mark.parametrize("path", ["../../../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg"])
@pytest.mark.parametrize("key", ["image_path", "mask_path"])
def test_real_iad_paths_may_not_leave_the_root(tmp_path: Path, path: str, key: str) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    table = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    values = json.loads(table.read_text())
    values["test"][-1][key] = path
    table.write_text(json.dumps(values))
    with pytest.raises(DataError, match="may lie outside"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "no lists train and test"),
        ('{"train": [1], "test": []}', "expected anomaly_class"),
        ('{"train": [], "test": []}', "no training pictures"),
    ],
)
def test_real_iad_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    (root / "realiad_jsons" / "realiad_jsons" / "audiojack.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(root)


def test_real_iad_anomalous_in_train_is_left_out(tmp_path: Path) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    table = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    values = json.loads(table.read_text())
    values["train"].append(values["test"].pop())
    table.write_text(json.dumps(values))
    (root / "realiad_1024/audiojack/NG/HS/S0001/audiojack_0_mask.png").unlink()
    data = open_dataset(root)
    assert all(record.label == 0 for record in [*data.train, *data.validation])
    errors = " / ".join(data.findings.errors)
    assert "1 anomalous pictures in train" in errors and "1 of 1 anomalous" not in errors


# --- published counts ---


def test_published_totals() -> None:
    """Sums the papers print."""

    def total(sets: dict[str, Counts], part: str) -> int:
        return sum(getattr(counts, part) for counts in sets.values())

    assert [total(VISA, part) for part in ("train", "good", "bad", "total")] == [8659, 962, 1200, 10821]
    assert total(BTAD, "total") == 2540
    assert [total(MPDD, part) for part in ("train", "good", "bad")] == [888, 176, 282]
    assert [MTD.train + MTD.good, MTD.bad, MTD.total] == [952, 392, 1344]
    parts = [total(MVTEC_AD_2, p) for p in ("train", "validation", "good", "bad", "unlabelled", "total")]
    assert parts == [2528, 302, 379, 705, 2 * 2045, 8004]


@settings(deadline=None, max_examples=25)
@given(
    counts=st.builds(
        Counts,
        train=st.integers(1, 5),
        good=st.integers(0, 3),
        defects=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 3), min_size=1),
        validation=st.integers(1, 3),
        unlabelled=st.integers(0, 3),
    ),
    lost=st.integers(0, 20),
)
def test_counts_agree_only_when_nothing_is_missing(counts: Counts, lost: int) -> None:
    record = Record(Path("a.png"), "a", label=0, defect_type="good")
    test = [record] * counts.good
    for kind, count in counts.defects.items():
        test += [replace(record, label=1, defect_type=kind)] * count
    test += [replace(record, label=None, defect_type="")] * counts.unlabelled
    kept = test[: max(0, len(test) - lost)]
    data = Dataset(
        "x",
        Path(),
        "part",
        "x",
        Records([record] * counts.train),
        Records([record] * counts.validation),
        Records(kept),
    )
    findings = compare(data, "Set", [counts])
    assert bool(findings.warnings) == (kept != test)
    assert bool(findings.notes) == (kept == test)
    stranger = replace(data, test=Records([*test, replace(record, label=1, defect_type="other")]))
    assert compare_any(stranger, {"Set": {"part": counts}}).lines() == []
