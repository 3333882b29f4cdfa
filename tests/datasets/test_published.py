"""BTAD, MPDD, MTD and MVTec AD 2 as tiny trees with the pitfalls of the real ones, and published counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    SHAPE,
    all_by_id,
    mvtec_tree,
    write_image,
    write_images,
    write_mask,
)

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

# --- BTAD and MPDD: trees of MVTec AD with other names ---


def test_btad(tmp_path: Path) -> None:
    """Good is `ok`; images are bmp, masks png or bmp; stems repeat in ok and ko, and belong to ko alone."""
    root = tmp_path / "BTech_Dataset_transformed"
    for name, mask_suffix in (("01", ".png"), ("03", ".bmp")):
        write_images(root / name / "train" / "ok", 12, ".bmp")
        write_images(root / name / "test" / "ok", 3, ".bmp")
        for image in write_images(root / name / "test" / "ko", 3, ".bmp"):
            write_mask(root / name / "ground_truth" / "ko" / f"{image.stem}{mask_suffix}")
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
        write_image(root / "MT_Free" / "Imgs" / f"exp1_num_{k}p.jpg", size=size, mode="L")
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
        write_image(root / f"MT_{kind}" / "Imgs" / f"{name}.jpg", mode="L")
        write_mask(root / f"MT_{kind}" / "Imgs" / f"{name}.png", mask)
    write_image(root / "overview.jpg")
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
        write_image(folder / "train" / "good" / f"{k:03}_regular.png")
    for k in range(3):
        write_image(folder / "validation" / "good" / f"{k:03}_regular.png")
    for kind in ("good", "bad"):
        for k in range(2):
            for light in ("regular", "underexposed", "shift_1"):
                write_image(folder / "test_public" / kind / f"{k:03}_{light}.png")
                if kind == "bad":
                    write_mask(folder / "test_public/ground_truth/bad" / f"{k:03}_{light}_mask.png")
    for k in range(private):
        write_image(folder / "test_private" / f"{k:03}_regular.png", size=(24, 16))
        write_image(folder / "test_private_mixed" / f"{k:03}_mixed.png", size=(24, 16))
    return root


def test_ad_2(tmp_path: Path) -> None:
    root = ad_2_tree(ad_2_tree(tmp_path / "mvtec_ad_2"), "rice")
    assert list_categories(root) == ["can", "rice"]
    data = open_dataset(root, "can")
    assert (data.layout, len(data.train), len(data.validation)) == ("mvtec_ad_2", 12, 3)
    assert Counter(data.test.labels) == {0: 6, 1: 6, None: 6}
    found = all_by_id(data)
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
    for image in (root / "can/validation/good").iterdir():
        image.unlink()
    data = open_dataset(root / "can")
    assert None not in data.test.labels and len(data.validation) == 2
    assert "found 0 unlabelled test pictures, MVTec AD 2 can has 642" in " ".join(data.findings.warnings)


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
