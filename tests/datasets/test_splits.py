"""The hold-out rule depends on names and seed alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets.splits import folds, held_out, hold_out

NAMES = [f"train/good/{index:03d}.png" for index in range(20)]


@pytest.mark.parametrize(
    ("seed", "order"),
    [(42, ["019", "004", "003", "005"]), (0, ["010", "008", "006", "009"])],
)
def test_order_of_the_hold_out_rule(seed: int, order: list[str]) -> None:
    """The first four held out, in order, found by growing shares."""
    for count in range(1, 5):
        assert held_out(NAMES, 5 * count, seed) == {f"train/good/{stem}.png" for stem in order[:count]}


def test_validation_of_twenty_with_seed_42() -> None:
    assert held_out(NAMES, 10, 42) == {"train/good/004.png", "train/good/019.png"}


@given(
    st.sets(st.text(min_size=1), min_size=2, max_size=60), st.sampled_from([10, 20]), st.integers(0, 2**32)
)
@settings(deadline=None, max_examples=60)
def test_share_and_independence_of_order(keys: set[str], percent: int, seed: int) -> None:
    chosen = held_out(sorted(keys), percent, seed)
    exact = -(-len(keys) * percent // 100)  # n - floor((1 - share) n) is the share rounded up
    assert len(chosen) == exact
    assert chosen == held_out(sorted(keys, reverse=True), percent, seed)
    digests = {key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest() for key in keys}
    assert max(digests[key] for key in chosen) <= min(digests[key] for key in keys - chosen)


@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=40).filter(lambda keys: len(set(keys)) > 1))
@settings(deadline=None, max_examples=60)
def test_one_object_stays_on_one_side_and_something_is_kept(objects: list[str]) -> None:
    records = [Record(Path(f"/d/{n}.png"), str(n), object_id=name) for n, name in enumerate(objects)]
    kept, held = hold_out(records, 10, 0, base=Path("/d"), into="validation")
    assert kept and held and len(kept) + len(held) == len(records)
    assert not {record.object_id for record in kept} & {record.object_id for record in held}
    assert {record.split for record in held} == {"validation"}


@pytest.mark.parametrize("seed", range(6))
def test_a_small_and_a_large_object(seed: int) -> None:
    """Whichever object comes first, the other is kept."""
    assert len(held_out(["large"] * 99 + ["small"], 10, seed)) == 1


def test_a_larger_share_contains_the_smaller() -> None:
    assert held_out(NAMES, 10, 0) < held_out(NAMES, 20, 0)


def test_too_few_images_or_one_object() -> None:
    one = [Record(Path("/d/a.png"), "a")]
    with pytest.raises(DataError, match=r"has 1 picture of good parts.*needs at least 2"):
        hold_out(one, 10, 0, base=Path("/d"), into="validation")
    same = [Record(Path(f"/d/{n}.png"), str(n), object_id="part-7") for n in range(5)]
    with pytest.raises(DataError, match="one object 'part-7'"):
        hold_out(same, 10, 0, base=Path("/d"), into="validation")


@given(st.lists(st.sampled_from([*"abcdefghijkl", None]), min_size=1, max_size=80), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_folds_keep_objects_together_and_none_is_empty(objects: list[str | None], seed: int) -> None:
    records = [Record(Path(f"/d/{n}.png"), f"{n}.png", object_id=name) for n, name in enumerate(objects)]
    fold_of = folds(records, seed)
    keys = {record.object_id or record.id for record in records}
    count = min(10 if len(records) <= 60 else 5, len(keys))
    assert set(fold_of) == set(range(count))
    for name in set(objects) - {None}:
        assert (
            len({fold for fold, record in zip(fold_of, records, strict=True) if record.object_id == name})
            == 1
        )
    swapped = folds(records[::-1], seed)[::-1]
    assert swapped == fold_of


def test_folds_of_single_images_have_equal_sizes_in_the_order_of_the_hold_out_rule() -> None:
    records = [Record(Path(name), name) for name in NAMES]
    fold_of = dict(zip(NAMES, folds(records, 42, most=4), strict=True))
    assert [fold_of[f"train/good/{stem}.png"] for stem in ("019", "004", "003", "005")] == [0, 1, 2, 3]
    assert sorted(fold_of.values()) == sorted([0, 1, 2, 3] * 5)


def test_whole_sessions_are_in_one_fold() -> None:
    records = [Record(Path(f"{k}"), f"{k}", session=f"day {k % 4}") for k in range(20)]
    fold_of = folds(records, 0)
    assert fold_of[:4] * 5 == fold_of
    assert set(fold_of) == {0, 1, 2, 3}
