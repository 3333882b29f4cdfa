"""The layout of MVTec 3D-AD, and the embedded set that has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from trees import SIDE, mvtec_tree, write_image, write_mask

from andon.core.errors import DataError
from andon.datasets import check_dataset, list_categories, load_ground_truth, open_dataset
from andon.datasets.embedded import dimples
from andon.detectors._relief import relief


def write_points(path: Path, shape: tuple[int, ...] = (SIDE, SIDE, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*path.as_posix().encode()])
    tifffile.imwrite(path, rng.random(shape, dtype=np.float32), photometric="rgb")


def tree(folder: Path, *, validation: int = 2) -> Path:
    counts = {
        ("train", "good"): 6,
        ("validation", "good"): validation,
        ("test", "good"): 2,
        ("test", "hole"): 2,
    }
    for (split, kind), count in counts.items():
        for k in range(count):
            where = folder / split / kind
            write_image(where / f"rgb/{k:03d}.png")
            write_points(where / f"xyz/{k:03d}.tiff")
            if split == "test":
                write_mask(where / f"gt/{k:03d}.png", 0 if kind == "good" else 255)
    return folder


def test_images_points_and_masks_are_paired_by_name(tmp_path: Path):
    data = open_dataset(tree(tmp_path / "bagel"))
    assert (data.layout, data.category) == ("mvtec3d", "bagel")
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 4)
    assert data.findings.errors == ()
    for record in [*data.train, *data.validation, *data.test]:
        assert record.depth == record.image.parent.parent / "xyz" / f"{record.image.stem}.tiff"
    assert data.train[0].id == "bagel/train/good/rgb/000"
    assert [(r.defect_type, r.label, r.group) for r in data.test[::2]] == [
        ("good", 0, "good"),
        ("hole", 1, "anomalous"),
    ]
    assert data.test[3].masks == (tmp_path / "bagel/test/hole/gt/001.png",)
    assert load_ground_truth(data.test[2], (SIDE, SIDE)).union.sum() == 20
    assert not load_ground_truth(data.test[0], (SIDE, SIDE)).union.any()


def test_it_is_told_from_mvtec_ad(tmp_path: Path):
    tree(tmp_path / "bagel")
    mvtec_tree(tmp_path / "bottle")
    assert open_dataset(tmp_path, "bagel").layout == "mvtec3d"
    assert open_dataset(tmp_path, "bottle").layout == "mvtec_ad"
    assert list_categories(tmp_path / "bagel") == ["bagel"]


def test_validation_is_held_out_where_there_is_none(tmp_path: Path):
    data = open_dataset(tree(tmp_path / "bagel", validation=0))
    assert (len(data.train), len(data.validation)) == (5, 1)
    assert {record.split for record in data.validation} == {"validation"}


def test_missing_and_unfit_clouds_are_found(tmp_path: Path):
    folder = tree(tmp_path / "bagel")
    (folder / "train/good/xyz/003.tiff").unlink()
    write_points(folder / "test/hole/xyz/000.tiff", (SIDE, SIDE + 1, 3))
    errors = check_dataset(folder).errors
    assert any("bagel/train/good/rgb/003" in error and "point cloud" in error for error in errors)
    assert any("hole/xyz/000.tiff is 17 x 16 points" in error for error in errors)
    assert len(errors) == 2


def test_the_fingerprint_follows_the_points(tmp_path: Path):
    folder = tree(tmp_path / "bagel")
    before = open_dataset(folder).train.fingerprint()
    write_points(folder / "train/good/xyz/000.tiff", (SIDE, SIDE, 3))
    assert open_dataset(folder).train.fingerprint() == before
    tifffile.imwrite(
        folder / "train/good/xyz/000.tiff", np.zeros((SIDE, SIDE, 3), np.float32), photometric="rgb"
    )
    assert open_dataset(folder).train.fingerprint() != before


def test_embedded_dimples_are_a_sound_data_set():
    data = open_dataset("embedded:dimples,profile=tiny,size=128")
    assert (data.layout, data.name, len(data.train), len(data.validation)) == ("mvtec3d", "embedded", 8, 4)
    assert {record.defect_type for record in data.test} == {"good", *dimples.DEFECTS}
    findings = check_dataset(data)
    assert findings.errors == ()
    assert "dimples" not in list_categories("embedded:")
    with pytest.raises(DataError, match="dimples"):
        open_dataset("embedded:dimple")


def test_images_are_the_same_whenever_they_are_drawn():
    once, again = (dimples.render("test", "hole", 1, size=128, seed=3) for _ in range(2))
    assert np.array_equal(once.colours, again.colours)
    assert np.array_equal(once.points, again.points)
    assert not np.array_equal(once.colours, dimples.render("test", "hole", 1, size=128, seed=4).colours)
    with pytest.raises(DataError, match="128 to 512"):
        dimples.generate(Path("unused"), size=64)


@pytest.mark.parametrize("defect", dimples.DEFECTS)
def test_defects_show_in_what_they_change_and_only_under_the_mask(defect, monkeypatch):
    for index in range(3):
        bad = dimples.render("test", defect, index, size=128)
        with monkeypatch.context() as patch:
            patch.setattr(dimples, "_spoil", lambda kind, rng, pad, colours: (pad.height, colours, None))
            twin = dimples.render("test", defect, index, size=128)
        assert 0.0005 < bad.mask.mean() < 0.05
        colour = np.abs(bad.colours.astype(int) - twin.colours).max(2)
        both = (bad.points[..., 2] != 0) & (twin.points[..., 2] != 0)
        depth = np.where(both, np.abs(bad.points[..., 2] - twin.points[..., 2]), 0)
        near = _widened(bad.mask, 5)
        assert (colour[~near] == 0).all()
        assert (depth[~near] < 6e-4).all()
        assert (np.median(colour[bad.mask]) > 8) == (defect in {"hole", "stain"})
        seen = depth[bad.mask & both]
        if defect == "stain":
            assert seen.max() == 0
        else:
            assert seen.max() > 1e-3


def _widened(mask: np.ndarray, by: int) -> np.ndarray:
    out = mask.copy()
    for r in range(-by, by + 1):
        for c in range(-by, by + 1):
            out |= np.roll(mask, (r, c), (0, 1))
    return out


def test_good_pads_stand_out_from_the_table_and_points_are_missing():
    for index in range(4):
        sample = dimples.render("train", None, index, size=128)
        found = relief(sample.points)
        area = np.pi * (dimples.RADIUS / dimples.FIELD) ** 2
        assert found.foreground.mean() == pytest.approx(area, rel=0.1)
        assert 0.005 < (sample.points[..., 2] == 0).mean() < 0.15
        assert sample.points.dtype == np.float32
        assert not sample.mask.any()
