"""EAST: its closed-form parts against independent formulas, and what the detector promises beyond the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import mahalanobis
from tiny import TINY

from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.datasets import open_dataset
from andon.detectors._recipes import load_recipe, resolve
from andon.detectors._saving import load_detector
from andon.detectors.east import EAST, EASTConfig
from andon.detectors.east.detector import SHARES
from andon.layers.augment import disturbed
from andon.layers.gaussians import PositionGaussians
from andon.nn.training import Trainer


def tiny(**changes: object) -> EASTConfig:
    """Settings at which EAST learns in a second, from images large enough for statistics of its cells."""
    changes = TINY["east"] | {"extractor.image_size": 64} | changes
    config = resolve(load_recipe("starter", "east"), changes).config
    assert isinstance(config, EASTConfig)
    return config


@pytest.fixture(scope="module")
def records() -> tuple[list, list]:
    data = open_dataset("embedded:bolt,profile=tiny,size=128")
    return [*data.train, *data.validation], list(data.test)


@pytest.fixture(scope="module")
def fitted(records: tuple[list, list]) -> EAST:
    return EAST(tiny()).fit(records[0], trainer=Trainer(seed=3))


@pytest.fixture(scope="module")
def features(fitted: EAST, records: tuple[list, list]) -> torch.Tensor:
    """(2 N, P, d) of all good images, and of their disturbed copies."""
    from andon.core.images import load_batch

    with torch.inference_mode():
        images = load_batch(records[0], fitted.input_size).image
        return torch.cat([fitted.extract(images), fitted.extract(disturbed(images))])


def test_a_gaussian_has_the_mean_of_its_cell_and_the_covariance_of_its_block(
    fitted: EAST, features: torch.Tensor
):
    x = features.double().numpy()  # (N, P, d)
    centred = x - x.mean(0)
    n, positions, size = x.shape
    blocks = centred.reshape(n, positions // 4, 4, size)
    own = np.einsum("ngkd,ngke->gde", blocks, blocks) / (4 * (n - 1))
    common = own.mean(0)
    share = float(fitted.common_)
    sigma = (1 - share) * own + share * common + 0.001 * np.trace(common) / size * np.eye(size)
    gaussian, _ = fitted.distances(features[:1])
    for cell in (0, 5, positions - 1):
        expected = mahalanobis(x[0, cell], x[:, cell].mean(0), np.linalg.inv(sigma[cell // 4]))
        assert float(gaussian[0, cell]) == pytest.approx(expected, rel=1e-3)


def test_the_neighbour_distance_is_the_mean_around_a_cell_and_counts_double(
    fitted: EAST, features: torch.Tensor
):
    gaussian, neighbour = fitted.distances(features[:1])
    assert len(fitted.bank.patches_) == TINY["east"]["bank"]
    plain, mean = (fitted.blocks.in_place(x)[0, 0].numpy() for x in (fitted.bank(features[:1]), neighbour))
    assert mean[3, 4] == pytest.approx(plain[2:5, 3:6].mean(), rel=1e-4)
    assert mean[0, 0] == pytest.approx(plain[:2, :2].mean(), rel=1e-4)
    (g, n), (g_deviation, n_deviation) = fitted.statistics_.T
    sums = (gaussian - g) / g_deviation + 2 * (neighbour - n) / n_deviation
    torch.testing.assert_close(fitted.analyse_features(features[:1]).score, sums.amax(1))


def test_blocks_are_neighbouring_cells_and_go_back_in_place(fitted: EAST):
    _, height, width = fitted.embedding.shape
    place = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    size = fitted.embedding.shape[0]
    images = torch.rand(1, 3, *fitted.input_size)
    with torch.inference_mode():
        cells = fitted.extract(images)
        plain = fitted.embedding(fitted.extractor(images))
    assert torch.equal(cells[0, :4], plain[0, :, :2, :2].reshape(size, 4).T)
    order = cells.new_zeros(1, height * width)
    for k in range(height * width):  # find the place of each cell by its vector
        order[0, k] = (plain[0].flatten(1).T - cells[0, k]).abs().sum(1).argmin()
    assert torch.equal(fitted.blocks.in_place(order), place)


class Features:
    """Features in memory, as `KeptFeatures` gives them."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self.records = [Record(Path("none.png"), "none")] * len(x)

    def batches(self, chosen: list[int]) -> list[torch.Tensor]:
        return [self.x[list(chosen), None]]


def test_the_share_is_the_one_of_the_largest_held_out_likelihood():
    generator = torch.Generator().manual_seed(0)

    def learned(spread: torch.Tensor, n: int) -> float:
        detector = EAST(tiny())
        size, height, width = detector.embedding.shape
        x = torch.randn(n, height * width, size, generator=generator) * spread
        sums = PositionGaussians(height * width, size, torch.device("cpu"), group=4)
        sums.add(x)
        detector._choose_share(Features(x), sums, range(n))
        return float(detector.common_)

    positions = EAST(tiny()).embedding.shape[1] * EAST(tiny()).embedding.shape[2]
    alike = learned(torch.ones(positions, 1), 8)
    different = learned(torch.logspace(-2, 2, positions // 4).repeat_interleave(4)[:, None], 200)
    assert alike == pytest.approx(
        max(SHARES)
    )  # all blocks are alike: the common covariance is the better estimate
    assert different == pytest.approx(
        min(SHARES)
    )  # each block has a scale of its own, and there are images enough to tell


def test_distances_of_held_out_images_are_standardised(fitted: EAST):
    assert (fitted.statistics_ > 0).all()
    typical = np.median(fitted.calibration.maxima)
    assert -1 < fitted.calibration.pixel_display.inverse(np.float32(0)) < typical


def test_the_parts_of_the_score_can_be_taken_alone(records: tuple[list, list], fitted: EAST):
    both = next(iter(fitted.scan(records[1][:1])))
    for part in ("gaussian", "neighbour"):
        alone = EAST(tiny(score=part)).fit(records[0], trainer=Trainer(seed=3))
        found = next(iter(alone.scan(records[1][:1])))
        assert found.raw_score == pytest.approx(both.extras[part], rel=1e-4)
        assert not found.extras


def test_composition_raises_scores_and_is_saved(records: tuple[list, list], tmp_path, monkeypatch):
    monkeypatch.setattr("andon.detectors.east.detector.FEWEST", 8)
    many = [*records[0], *(record for record in records[1] if record.label == 0)]
    settings = {"threshold_scores": "held_out", "bank": 50}
    alone = EAST(tiny(composition=False, **settings)).fit(many[:-4], many[-4:], trainer=Trainer(seed=3))
    found = EAST(tiny(**settings)).fit(many[:-4], many[-4:], trainer=Trainer(seed=3))
    before, after = list(alone.scan(many)), list(found.scan(many))
    for old, new in zip(before, after, strict=True):
        whole = max(old.raw_score, new.extras["composition"])
        assert new.raw_score == pytest.approx(whole, rel=1e-4, abs=1e-4)
    assert any(new.raw_score > old.raw_score + 0.01 for old, new in zip(before, after, strict=True))
    found.save(tmp_path)
    again = list(load_detector(tmp_path).scan(many[:3]))
    assert [one.raw_score for one in again] == pytest.approx([one.raw_score for one in after[:3]], rel=1e-5)
    assert not found.fit(many[:6], many[6:8], trainer=Trainer(seed=3)).composes  # too few
    assert EAST(tiny(score="gaussian")).composition is None


def test_learning_without_cross_fitting_gives_the_same_detector(records: tuple[list, list], fitted: EAST):
    held_out = EAST(tiny(threshold_scores="held_out"))
    held_out.fit(sorted(records[0], key=lambda record: record.id), records[0][:4], trainer=Trainer(seed=3))
    for name, value in fitted.state_dict().items():
        torch.testing.assert_close(held_out.state_dict()[name], value, rtol=1e-4, atol=1e-4)


def test_a_region_leaves_the_rest_out_of_the_statistics(records: tuple[list, list], tmp_path):
    mask = np.zeros((128, 128), np.uint8)
    mask[:, :64] = 255
    Image.fromarray(mask).save(tmp_path / "region.png")
    found = EAST(tiny()).fit(records[0], trainer=Trainer(seed=3), region=tmp_path / "region.png")
    prediction = next(iter(found.scan(records[1][:1])))
    assert np.isfinite(prediction.raw_map).all()
    assert float(found.statistics_[1, 1]) > 1e-3  # cells that are all alike would have no spread


def test_what_cannot_work_is_said(records: tuple[list, list]):
    with pytest.raises(ConfigError, match="no epochs to choose"):
        EAST(tiny(selection="validation"))
    with pytest.raises(ConfigError, match="block=3 does not divide"):
        EAST(tiny(block=3))
    with pytest.raises(ConfigError, match="memory_gib"):
        EAST(tiny(memory_gib=1e-4)).fit(records[0])
    with pytest.raises(DataError, match="good pictures"):
        EAST(tiny()).fit(records[0][:2])


def test_a_coreset_as_large_as_the_patches_leaves_the_gaussian_its_say(records: tuple[list, list]):
    """Standardised by patches of the coreset itself, whose distance is 0, the other distance outweighed it a million times."""
    statistics = {}
    for bank in (20, 10_000):
        detector = EAST(tiny(bank=bank)).fit(records[0], trainer=Trainer(seed=1, device="cpu"))
        statistics[bank] = detector.statistics_[1]
    assert (statistics[10_000] > 0.01).all()
    assert 0.1 < float(statistics[10_000][1] / statistics[20][1]) < 10
