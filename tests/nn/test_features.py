"""The feature cache: one extraction per picture, the same bits again, and never a wrong one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import texture, write_picture
from torch import Tensor

from andon.core.errors import DataError
from andon.core.images import View, load_batch
from andon.core.records import Record
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.feature_cache import FeatureCache

CONFIG = BackboneConfig(weights="random", taps=("layer1", "layer2"), image_size=32)


class Counting(Backbone):
    """Counts the pictures that go through the network."""

    seen = 0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        Counting.seen += len(images)
        return super().forward(images)


@pytest.fixture(scope="module")
def backbone() -> Counting:
    return Counting.create(CONFIG)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return [Record(write_picture(tmp_path / f"in/{k}.png", texture(k)), str(k)) for k in range(6)]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[tap], b[tap]) for tap in a)


def count(cache: FeatureCache, records: list[Record], **options) -> tuple[int, dict[str, Tensor]]:
    before = Counting.seen
    features = cache.load(records, **options)
    return Counting.seen - before, features


def test_each_picture_is_extracted_once_and_comes_back_bit_for_bit(backbone, records):
    first, features = count(FeatureCache(backbone), records)
    assert first == 6
    assert {tap: tuple(value.shape) for tap, value in features.items()} == {
        "layer1": (6, 64, 8, 8),
        "layer2": (6, 128, 4, 4),
    }
    again, stored = count(FeatureCache(backbone), records)  # another object, as in another process
    assert again == 0
    assert same(features, stored)
    cache = FeatureCache(backbone)
    some, part = count(cache, records[::-1][:3])
    assert some == cache.computed == 0
    assert torch.equal(part["layer1"], features["layer1"].flip(0)[:3])


def test_features_are_those_of_the_network(backbone, records):
    features = FeatureCache(backbone).load(records)
    with torch.inference_mode():
        direct = backbone(load_batch(records, (32, 32)).image)
    for tap in CONFIG.taps:
        torch.testing.assert_close(features[tap], direct[tap])


def test_only_new_pictures_are_extracted(backbone, records):
    cache = FeatureCache(backbone)
    assert count(cache, records[:4])[0] == 4
    assert count(cache, records)[0] == 2
    assert cache.computed == 6


def test_pictures_with_the_same_content_are_extracted_once(backbone, records, tmp_path):
    copies = [
        Record(shutil.copy(r.image, tmp_path / f"copy-{r.id}.png"), f"copy-{r.id}") for r in records[:2]
    ]
    first, features = count(FeatureCache(backbone), [*records, *copies, records[0]])
    assert first == 6
    assert torch.equal(features["layer2"][6:], features["layer2"][[0, 1, 0]])


def test_changed_picture_is_extracted_again(backbone, records):
    cache = FeatureCache(backbone)
    before = cache.load(records)
    write_picture(records[2].image, texture(99))
    again, after = count(cache, records)
    assert again == 1
    assert not torch.equal(before["layer1"][2], after["layer1"][2])


def stored_files(home: Path) -> list[Path]:
    return sorted(p for p in (home / "features").rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "flip the last bit", "flip the first bit", "zeros", "no file"]
)
def test_damaged_file_is_computed_again(backbone, records, tmp_path, damage):
    _, features = count(FeatureCache(backbone), records)
    files = stored_files(tmp_path / "home")
    assert len(files) == 6
    content = bytearray(files[3].read_bytes())
    if damage == "cut":
        del content[-40:]
    elif damage.startswith("flip"):
        content[-1 if "last" in damage else 0] ^= 1
    else:
        content = bytearray(len(content) if damage == "zeros" else 0)
    files[3].write_bytes(content)
    if damage == "no file":
        files[3].unlink()
        files[3].mkdir()
    again, repaired = count(FeatureCache(backbone), records)
    assert again == 1
    assert same(features, repaired)
    if damage != "no file":
        assert count(FeatureCache(backbone), records)[0] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"taps": ("layer2",)},
        {"image_size": 40},
        {"network": "resnet34"},
        {"weights": "starter"},
        {"static_same_padding": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_the_features_changes_the_key(backbone, changes):
    other = Backbone.create(CONFIG.updated(changes))
    assert other.fingerprint() != backbone.fingerprint()
    assert FeatureCache(other).directory != FeatureCache(backbone).directory


def test_key_follows_the_content_of_the_weights(backbone, monkeypatch):
    other = Backbone.create(CONFIG)
    assert other.fingerprint() == backbone.fingerprint()
    object.__setattr__(other.weights, "sha256", "0" * 64)
    assert other.fingerprint() != backbone.fingerprint()


def test_views_are_kept_apart(backbone, records):
    cache = FeatureCache(backbone)
    plain = cache.load(records)
    for view in (View(zoom=True), View(colour="grey"), View(zoom=True, colour="grey"), View(colour="tint")):
        new, shown = count(cache, records, view=view)
        assert new == 6
        assert not torch.equal(shown["layer1"], plain["layer1"])
        assert count(cache, records, view=view)[0] == 0
    assert same(cache.load(records), plain)


@pytest.mark.parametrize("place", ["/dev/full/home", "/proc/nowhere"])
def test_folder_that_cannot_be_written_costs_only_time(backbone, records, monkeypatch, place):
    expected = FeatureCache(backbone, enabled=False).load(records)
    monkeypatch.setenv("ANDON_HOME", place)
    cache = FeatureCache(backbone)
    for _ in range(2):
        extracted, features = count(cache, records)
        assert extracted == 6
        assert same(features, expected)


def test_switched_off_it_leaves_the_disk_alone(backbone, records, tmp_path):
    cache = FeatureCache(backbone, enabled=False)
    assert [count(cache, records)[0] for _ in range(2)] == [6, 6]
    assert not (tmp_path / "home").exists()


def test_no_pictures(backbone):
    assert {tap: len(value) for tap, value in FeatureCache(backbone).load([]).items()} == {
        "layer1": 0,
        "layer2": 0,
    }


def test_unreadable_picture_is_named_whatever_lies_in_the_cache(backbone, records):
    records[4].image.unlink()
    with pytest.raises(DataError, match=r"4\.png does not exist"):
        FeatureCache(backbone).load(records)
