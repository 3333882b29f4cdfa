"""Labelled anomalies: which images leave the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from andon.core.errors import DataError
from andon.datasets import open_dataset
from andon.datasets.dataset import Records
from andon.datasets.labelled_anomalies import move_labelled


def test_labelled_images_leave_the_test(dataset_folder):
    whole = open_dataset(dataset_folder)
    for seed in range(4):
        moved = move_labelled(whole, 2, seed)
        ids = {record.id for record in moved.labelled}
        assert len(ids) == 2
        assert moved.labelled.labels == (1, 1)
        assert {record.split for record in moved.labelled} == {"train"}
        assert [r.id for r in moved.test] == [r.id for r in whole.test if r.id not in ids]
        assert (moved.train, moved.validation) == (whole.train, whole.validation)
        assert move_labelled(whole, 2, seed).labelled == moved.labelled
    draws = {tuple(r.id for r in move_labelled(whole, 1, seed).labelled) for seed in range(20)}
    assert len(draws) == 4  # each of the four is drawn by some seed
    assert move_labelled(whole, 0, 0) is whole


def test_parts_and_copies_of_a_labelled_image_leave_the_test_too(own_dataset):
    content = (own_dataset / "test/stain/000.png").read_bytes()
    (own_dataset / "test/stain/copy.png").write_bytes(content)
    (own_dataset / "ground_truth/stain/copy_mask.png").write_bytes(
        (own_dataset / "ground_truth/stain/000_mask.png").read_bytes()
    )
    whole = open_dataset(own_dataset)
    for seed in range(20):
        moved = move_labelled(whole, 1, seed)
        (chosen,) = moved.labelled
        twins = {"000", "copy"} if Path(chosen.id).name in {"000", "copy"} else {Path(chosen.id).name}
        left = {Path(r.id).name for r in whole.test if r.label} - {
            Path(r.id).name for r in moved.test if r.label
        }
        assert left == twins
    same_part = replace(whole, test=Records(replace(r, object_id=f"part {r.label}") for r in whole.test))
    with pytest.raises(DataError, match="leave none to test on"):
        move_labelled(same_part, 1, 0)


def test_halves_of_two_seeds_complement_each_other(dataset_folder):
    """Cross-fitting: every defect is tested once, and learned from once."""
    whole = open_dataset(dataset_folder)
    bad = {r.id for r in whole.test if r.label}
    for draw in range(3):
        first, second = (move_labelled(whole, "half", seed) for seed in (2 * draw, 2 * draw + 1))
        tested = [{r.id for r in found.test if r.label} for found in (first, second)]
        assert tested[0] | tested[1] == bad
        assert not tested[0] & tested[1]
        assert {r.id for r in first.labelled} == tested[1]
    drawn = {tuple(r.id for r in move_labelled(whole, "half", 2 * draw).labelled) for draw in range(20)}
    assert len(drawn) > 1


@pytest.mark.parametrize("count", [4, 5])
def test_something_has_to_be_left_to_test_on(dataset_folder, count):
    with pytest.raises(DataError, match="has 4 pictures of defects"):
        move_labelled(open_dataset(dataset_folder), count, 0)
