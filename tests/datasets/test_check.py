"""`check_dataset` finds what would make results wrong, and names the files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import texture, write_picture
from PIL import Image
from trees import SIDE, loco_tree, mvtec_tree, write_image, write_images, write_mask

from andon.core.errors import DataError
from andon.datasets import Findings, check_dataset, load_ground_truth, open_dataset


@pytest.fixture
def bottle(tmp_path: Path) -> Path:
    folder = mvtec_tree(tmp_path / "bottle", train=20)
    write_images(folder / "validation" / "good", 5)
    return folder


def only_error(findings: Findings) -> str:
    assert len(findings.errors) == 1, findings.lines()
    assert findings.errors
    return findings.errors[0]


def test_nothing_wrong(bottle: Path) -> None:
    findings = check_dataset(bottle)
    assert not findings.errors and not findings.warnings
    assert findings.notes == (
        "bottle (mvtec_ad): 20 train, 5 validation, 3 good and 5 anomalous test pictures",
    )
    assert check_dataset(open_dataset(bottle), workers=1) == findings
    assert not check_dataset(loco_tree(bottle.parent / "pins")).errors


def test_unreadable_images(bottle: Path) -> None:
    whole = (bottle / "train/good/003.png").read_bytes()
    (bottle / "train/good/003.png").write_bytes(whole[: len(whole) // 2])
    (bottle / "test/crack/001.png").write_bytes(b"no picture")
    errors = check_dataset(bottle).errors
    assert len(errors) == 2 and "003.png" in errors[0] and "001.png" in errors[1]


def test_unreadable_mask(bottle: Path) -> None:
    (bottle / "ground_truth/crack/001_mask.png").write_bytes(b"no picture")
    assert "001_mask.png cannot be read" in only_error(check_dataset(bottle))


def test_size_of_a_mask(bottle: Path) -> None:
    write_mask(bottle / "ground_truth/crack/001_mask.png", size=(SIDE, 2 * SIDE))
    assert "001_mask.png is 16 x 32 pixels but" in only_error(check_dataset(bottle))


def test_masks_and_images_without_each_other(bottle: Path) -> None:
    (bottle / "ground_truth/crack/001_mask.png").rename(bottle / "ground_truth/crack/009_mask.png")
    errors = "\n".join(check_dataset(bottle).errors)
    assert "009_mask.png" in errors and "bottle/test/crack/001" in errors


def test_mask_of_a_good_image(bottle: Path) -> None:
    write_mask(bottle / "ground_truth/good/000_mask.png", 0)
    assert not check_dataset(bottle).errors
    write_mask(bottle / "ground_truth/good/000_mask.png")
    assert "which is labelled good" in only_error(check_dataset(bottle))


def test_masks_that_are_not_black_and_white(bottle: Path) -> None:
    smooth = np.zeros((SIDE, SIDE), np.uint8)
    smooth[4:8, 4:8], smooth[4, 4:8] = 255, 128
    write_mask(bottle / "ground_truth/crack/001_mask.png", smooth)
    assert "001_mask.png holds 2 values besides 0 (128, 255)" in only_error(check_dataset(bottle))


def test_a_mask_is_refused_by_the_words_of_the_evaluation(bottle: Path) -> None:
    write_mask(bottle / "ground_truth/crack/001_mask.png", np.full((SIDE, SIDE), 255, np.uint8))
    (record,) = (r for r in open_dataset(bottle).test if r.id.endswith("crack/001"))
    with pytest.raises(DataError, match="seems inverted") as refused:
        load_ground_truth(record, (SIDE, SIDE))
    assert only_error(check_dataset(bottle)) == str(refused.value)


def test_empty_masks_are_a_warning(bottle: Path) -> None:
    write_mask(bottle / "ground_truth/crack/001_mask.png", 0)
    findings = check_dataset(bottle)
    assert not findings.errors
    assert findings.warnings == (
        "1 anomalous pictures have an empty mask and are left out of pixel metrics: bottle/test/crack/001",
    )


def test_no_masks_at_all_is_fine(tmp_path: Path) -> None:
    findings = check_dataset(mvtec_tree(tmp_path / "part", masks=False))
    assert not findings.errors and "no masks: only image metrics can be computed" in findings.notes


def test_values_outside_the_defects_config(tmp_path: Path) -> None:
    folder = loco_tree(tmp_path / "pins", masks={"logical_anomalies": [[255], [17]]})
    assert "001/000.png holds the value 17" in only_error(check_dataset(folder))


def test_anomalous_images_in_train(bottle: Path) -> None:
    write_images(bottle / "train" / "crack", 1)
    assert "holds 1 picture in train" in only_error(check_dataset(bottle))


def test_the_same_file_in_train_and_test(bottle: Path) -> None:
    shutil.copy(bottle / "train/good/007.png", bottle / "test/good/002.png")
    error = only_error(check_dataset(bottle))
    assert "in test and train: bottle/train/good/007, bottle/test/good/002" in error


def test_the_same_file_twice_elsewhere_is_a_warning(bottle: Path) -> None:
    shutil.copy(bottle / "train/good/007.png", bottle / "train/good/008.png")
    shutil.copy(bottle / "train/good/001.png", bottle / "validation/good/001.png")
    shutil.copy(bottle / "test/crack/000.png", bottle / "test/crack/001.png")
    findings = check_dataset(bottle)
    assert not findings.errors and len(findings.warnings) == 3


def test_few_images(tmp_path: Path) -> None:
    write_images(tmp_path / "few", 6)
    assert check_dataset(tmp_path / "few").warnings == (
        "few has 5 pictures for train, 10 or more are advised",
        "few has 1 picture for validation, 5 or more are advised",
    )


def test_sizes_and_modes_are_notes(bottle: Path) -> None:
    write_image(bottle / "train/good/000.png", size=(20, 30), mode="L")
    Image.new("RGBA", (SIDE, SIDE), (1, 2, 3, 100)).save(bottle / "train/good/001.png")
    findings = check_dataset(bottle)
    assert not findings.errors and not findings.warnings
    notes = "\n".join(findings.notes)
    assert "2 sizes: 16 x 16 (32), 20 x 30 (1)" in notes
    assert "3 pixel modes: RGB (31), L (1), RGBA (1)" in notes


def test_all_categories_of_a_root(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "a"), mvtec_tree(tmp_path / "b", train=1)
    findings = check_dataset(tmp_path)
    assert "a (mvtec_ad)" in "\n".join(findings.notes)
    assert "needs at least 2" in only_error(findings)
    assert not check_dataset(tmp_path, "a").errors


def test_faults_of_the_data_are_returned_not_raised(tmp_path: Path) -> None:
    assert "does not exist" in only_error(check_dataset(tmp_path / "nowhere"))
    assert check_dataset(tmp_path / "nowhere").lines()[0].startswith("error: ")


@pytest.mark.parametrize(("bits", "warned"), [(16, False), (12, False), (10, False), (7, True)])
def test_a_data_set_that_uses_little_of_its_range_is_named(tmp_path, bits, warned):
    for k in range(12):
        grey = texture(k)[:, :, 0].astype(np.uint16)
        grey[0, 0] = 255
        write_picture(tmp_path / f"good/{k}.png", (grey * 257) >> (16 - bits))
    findings = check_dataset(tmp_path)
    assert any("of the range" in line for line in findings.warnings) == warned
    assert any(f"bit depth: {max(bits, 10)} (" in note for note in findings.notes)


def test_summary_where_all_good_images_are_learned_from(dataset_folder):
    data = open_dataset(dataset_folder)
    good = len(data.train) + len(data.validation)
    summary = data.summary(all_learned=True)
    assert f": {good} good pictures to learn from, " in summary and "anomalous to test" in summary
    assert "validation" not in summary
