"""EAST: its closed-form parts against independent formulas, and what the detector promises beyond the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from tiny import TINY

from andon.core.errors import ConfigError, DataError
from andon.datasets import open_dataset
from andon.detectors.east.composition import Composition, ledoit_wolf_covariance, with_moved_block
from andon.detectors.east.detector import EAST, EASTConfig, reliability
from andon.detectors.east.likelihood import PRIOR_CELLS, Likelihood, upper_percentile
from andon.detectors.east.mixture import (
    FLOOR,
    ClusterSums,
    GaussianMixture,
    cluster_centres,
    kmeans,
    sample_cells,
)
from andon.detectors.east.whitening import WhitenedFeatures
from andon.nn.backbones import count_parameters
from andon.nn.training import Trainer, seeded


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def summed(features: torch.Tensor, components: int) -> ClusterSums:
    """Sums over the clusters of (N, C, H, W) features."""
    generator = seeded("clusters")
    vectors = sample_cells(features, 8000, generator)
    found = cluster_centres(vectors, components, len(features) * features[0, 0].numel(), generator)
    sums = ClusterSums(found, features.shape[1])
    for chunk in features.split(7):
        sums.add(chunk)
    return sums


@pytest.fixture(scope="module")
def records() -> tuple[list, list]:
    data = open_dataset("embedded:fabric,profile=tiny,size=128")
    return list(data.train), list(data.test)


def test_whitening_gives_uncorrelated_channels_of_every_strength():
    mixed = torch.einsum("dc,nchw->ndhw", noise(6, 6), noise(20, 6, 8, 8, seed=1)) * 30 + 5
    layer = WhitenedFeatures({"a": (6, 8, 8)}, (8, 8))
    layer.fit(mixed.split(3))
    cells = layer(mixed).transpose(0, 1).flatten(1)
    assert torch.allclose(cells.mean(1), torch.zeros(6), atol=1e-3)
    assert torch.allclose(torch.cov(cells), torch.eye(6), atol=0.1)  # the weakest is held back by EPSILON


def test_taps_come_to_one_grid_averaged_where_finer_and_smoothed():
    layer = WhitenedFeatures({"fine": (1, 8, 8), "coarse": (1, 2, 2)}, (4, 4))
    fine = torch.arange(64.0).reshape(1, 1, 8, 8)
    joined = layer.join({"fine": fine, "coarse": torch.ones(1, 1, 2, 2)})
    assert joined.shape == (1, 2, 4, 4)
    by_hand = fine[0, 0, :6, :6].reshape(3, 2, 3, 2).mean((1, 3)).mean()  # 3 x 3 cells around cell (1, 1)
    assert joined[0, 0, 1, 1] == pytest.approx(float(by_hand), rel=1e-6)
    assert torch.allclose(joined[:, 1], torch.ones(1, 4, 4))


def test_centres_find_separate_clusters():
    truth = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    vectors = torch.cat([t + noise(200, 2, seed=k) for k, t in enumerate(truth)])
    found = kmeans(vectors, 2, seeded("clusters"))
    assert torch.allclose(found[found[:, 0].argsort()], truth, atol=0.5)


@pytest.mark.parametrize("axes", [2, 5, 8])
def test_likelihood_is_that_of_the_gaussians_it_stands_for(axes: int):
    channels = 8
    scale = torch.linspace(0.1, 4, channels)[:, None, None]
    features = noise(30, channels, 6, 6) * scale + 1
    mixture = GaussianMixture(channels, components=3, axes=axes)
    mixture.fit(summed(features, 3))
    expected = []
    for j in range(3):
        u, sign, rest = (getattr(mixture, name)[j].double().numpy() for name in ("axes_", "signs_", "rest_"))
        precision = rest * np.eye(channels) + u.T @ np.diag(sign) @ u
        density = multivariate_normal(mixture.means_[j].double().numpy(), np.linalg.inv(precision))
        cells = features[0].flatten(1).T.double().numpy()
        constant = channels / 2 * np.log(2 * np.pi)
        frequency = float(mixture.log_frequency_[j])
        expected.append(-density.logpdf(cells) - constant - frequency)
    got = mixture(features[:1]).amin(1).flatten().numpy()
    np.testing.assert_allclose(got, np.min(expected, axis=0), rtol=2e-4, atol=2e-3)


def test_all_axes_of_one_component_give_its_ledoit_wolf_covariance():
    features = noise(40, 5, 4, 4) * torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0])[:, None, None]
    mixture = GaussianMixture(5, components=1, axes=5)
    mixture.fit(summed(features, 1))
    cells = features.transpose(0, 1).flatten(1).double().numpy()
    n, covariance = cells.shape[1], np.cov(cells)
    shrunk = (n * covariance + 5 * np.diag(covariance).mean() * np.eye(5)) / (n + 5) + FLOOR * np.eye(5)
    ball = mixture.rest_[0] * torch.eye(5)
    precision = ball + mixture.axes_[0].T @ torch.diag(mixture.signs_[0]) @ mixture.axes_[0]
    np.testing.assert_allclose(np.linalg.inv(precision.double().numpy()), shrunk, rtol=1e-3, atol=1e-4)


def test_sums_of_parts_are_those_of_the_whole():
    features = noise(12, 5, 4, 4) + 2
    whole = summed(features, 2)
    parts = [ClusterSums(whole.centres, 5) for _ in range(3)]
    for k in range(12):
        parts[k % 3].add(features[k : k + 1])
    together = parts[0] + parts[1] + parts[2]
    labels = torch.cdist(features.transpose(0, 1).flatten(1).T, whole.centres).argmin(1)
    for j in range(2):
        members = features.transpose(0, 1).flatten(1).T[labels == j].double().numpy()
        n, mean, covariance = together.moments(j)
        assert n == len(members)
        np.testing.assert_allclose(mean, members.mean(0), rtol=1e-6)
        np.testing.assert_allclose(covariance, np.cov(members.T), rtol=1e-4, atol=1e-5)
    assert torch.equal(together.log_frequency(), whole.log_frequency())
    assert float(together.log_frequency().exp().sum()) == pytest.approx(1)


def fitted_likelihood(pictures: torch.Tensor, *, relative: bool) -> Likelihood:
    """Of (N, V, C, H, W) features of one tap."""
    c, h, w = pictures.shape[2:]
    layer = Likelihood(
        {"a": (c, h, w)}, (h, w), components=2, axes=4, share=0.05, scaled=True, relative=relative
    )
    own = pictures.clone()
    layer.whiten(own)
    layer.fit(own, torch.arange(len(own)) % 3, seeded("likelihood"), lambda: None)
    return layer


def test_good_images_have_standard_scores_and_one_anomalous_cell_has_not():
    pictures = noise(40, 1, 4, 8, 8)
    layer = fitted_likelihood(pictures, relative=False)
    fresh = noise(60, 4, 8, 8, seed=7)
    maps, scores = layer(layer.features(fresh))
    assert maps.shape == (60, 1, 8, 8) and scores.shape == (60,)
    assert abs(float(maps.mean())) < 0.1 and float(maps.std()) == pytest.approx(1, abs=0.15)
    assert abs(float(scores.mean())) < 0.6 and 0.5 < float(scores.std()) < 2
    fresh[0, :, 3, 3] += 8
    strange, score = layer(layer.features(fresh[:1]))
    assert int(strange.flatten().argmax()) == 3 * 8 + 3 and float(score[0]) > 4


def test_the_percentile_is_subtracted_up_to_that_of_good_images():
    pictures = noise(30, 1, 4, 8, 8) * torch.linspace(0.8, 1.2, 30)[:, None, None, None, None]
    bright = pictures[29] * 1.0
    relative, absolute = (fitted_likelihood(pictures, relative=flag) for flag in (True, False))
    assert relative(relative.features(bright))[1] < absolute(absolute.features(bright))[1]
    far = (
        noise(1, 4, 8, 8, seed=3) * 9
    )  # no good picture is like this: subtracting its own percentile would hide it
    assert float(relative(relative.features(far))[1][0]) > 10


def test_the_upper_percentile_leaves_four_fifths_of_the_cells_below():
    maps = noise(5, 1, 8, 10)
    assert (maps.flatten(1) < upper_percentile(maps)[:, None]).float().mean(1).tolist() == pytest.approx(
        [0.8] * 5
    )


def test_each_component_is_scaled_by_its_own_deviation():
    calm, restless = noise(40, 4, 8, 4) * 0.2, noise(40, 4, 8, 4, seed=1)
    restless = restless * restless.abs()  # long tails
    pictures = torch.cat([calm - 20, restless + 20], 3)[:, None]
    layer = fitted_likelihood(pictures, relative=False)
    nll = layer.mixture(layer.features(pictures[:, 0]))
    layer._fit_statistics(nll)
    values, group = (part.flatten().numpy() for part in nll.double().min(1))
    assert set(group) == {0, 1}
    within = [values[group == k] for k in range(2)]
    squares = [((v - v.mean()) ** 2).sum() for v in within]
    common = sum(squares) / len(values)
    expected = [
        np.sqrt((s + PRIOR_CELLS * common) / (len(v) + PRIOR_CELLS))
        for s, v in zip(squares, within, strict=True)
    ]
    np.testing.assert_allclose(1 / layer.scale_.numpy(), expected, rtol=1e-5)
    scaled = layer._scale(nll).flatten().numpy()  # the clusters are far apart: one component each
    np.testing.assert_allclose(
        scaled, (values - values.mean()) / np.array(expected)[group], rtol=1e-3, atol=1e-3
    )


def test_between_components_the_scale_changes_smoothly():
    layer = fitted_likelihood(noise(12, 1, 4, 8, 8), relative=False)
    layer.scale_.copy_(torch.tensor([1.0, 3.0]))
    a, b = torch.tensor([[10.0, 10.0 + 1e-4], [10.0 + 1e-4, 10.0]])[:, :, None, None].split(1)
    assert float((layer._scale(a) - layer._scale(b)).abs()) < 0.01
    far = torch.tensor([10.0, 90.0])[None, :, None, None]
    assert float(layer._scale(far)) == pytest.approx(10 - float(layer.nll_mean_))


def test_synthetic_anomalies_are_scored_by_the_other_folds():
    pictures = noise(12, 1, 4, 8, 8)
    layer = Likelihood({"a": (4, 8, 8)}, (8, 8), components=2, axes=4, share=0.05, scaled=True, relative=True)
    own = pictures.clone()
    layer.whiten(own)
    fold_of = torch.arange(12) % 3
    same = [own[fold_of == fold, 0] for fold in range(3)]
    good, synthetic = layer.fit(own, fold_of, seeded("folds"), lambda: None, synthetic=same)
    assert torch.allclose(good, synthetic, atol=1e-4)  # without a defect they are as good as the good ones
    assert float(good.mean()) == pytest.approx(0, abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 99))
def test_reliability_is_the_squared_rank_correlation(n: int, m: int, seed: int):
    good, wrong = noise(n, seed=seed), noise(m, seed=seed + 1) + 1
    area = roc_auc_score([0] * n + [1] * m, torch.cat([good, wrong]))
    assert reliability(good, wrong) == pytest.approx(max(0.0, 2 * area - 1) ** 2)
    assert reliability(good, wrong[:0]) == 1


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), d=st.integers(1, 12), seed=st.integers(0, 99))
def test_shrinkage_is_that_of_ledoit_and_wolf(n: int, d: int, seed: int):
    x = noise(n, d, seed=seed).double() * torch.linspace(0.1, 3, d)
    np.testing.assert_allclose(
        ledoit_wolf_covariance(x).numpy(), LedoitWolf().fit(x.numpy()).covariance_, rtol=1e-9, atol=1e-12
    )


def test_histograms_do_not_depend_on_the_order_inside_a_region_and_sum_to_one():
    layer = Composition(5, 3, [2])
    layer.words_.copy_(noise(5, 3))
    f = noise(2, 6, 8, 8, seed=3)
    histogram = layer.histogram(f)
    assert histogram.shape == (2, 20)
    assert torch.allclose(histogram.reshape(2, 5, 4).sum(1), torch.ones(2, 4), atol=1e-6)
    shuffled = f.clone()
    shuffled[:, :, :4, :4] = f[:, :, :4, :4].flip(2, 3)
    assert torch.allclose(layer.histogram(shuffled), histogram, atol=1e-6)


def test_histograms_are_a_softmax_over_distances():
    layer = Composition(3, 2, [1])
    layer.words_.copy_(noise(3, 2))
    f = noise(1, 2, 4, 4, seed=5)
    distances = torch.cdist(f[0].flatten(1).T, layer.words_).square()
    assert torch.allclose(layer.histogram(f)[0], (-distances / 4.0).softmax(1).mean(0), atol=1e-6)


@pytest.mark.parametrize(("grid", "factor"), [(3, 3), (4, 1), (5, 5)])
def test_regions_are_equal_where_their_borders_cut_cells(grid: int, factor: int):
    layer, f = Composition(3, 2, [grid]), noise(1, 2, 8, 8, seed=5)
    layer.words_.copy_(noise(3, 2))
    finer = f.repeat_interleave(factor, 2).repeat_interleave(factor, 3)  # here no border cuts a cell
    shares = (-torch.cdist(finer[0].flatten(1).T, layer.words_).square() / 4.0).softmax(1)
    maps = shares.T.reshape(1, 3, *finer.shape[2:])
    expected = torch.nn.functional.avg_pool2d(maps, finer.shape[2] // grid).flatten(1)
    assert torch.allclose(layer.histogram(f), expected, atol=1e-6)


def test_the_histograms_of_several_grids_are_concatenated():
    both, f = Composition(3, 2, [1, 2]), noise(2, 2, 8, 8, seed=5)
    both.words_.copy_(noise(3, 2))
    one, two = Composition(3, 2, [1]), Composition(3, 2, [2])
    for layer in (one, two):
        layer.words_.copy_(both.words_)
    assert torch.equal(both.histogram(f), torch.cat([one.histogram(f), two.histogram(f)], 1))


@settings(deadline=None, max_examples=20)
@given(side=st.integers(2, 12), share=st.floats(0.05, 1.0), seed=st.integers(0, 99))
def test_a_moved_block_is_made_of_cells_of_the_same_picture(side: int, share: float, seed: int):
    f = noise(2, 1, side, side, seed=seed)
    wrong = with_moved_block(f, share, torch.Generator().manual_seed(seed))
    for k in range(2):
        assert set(wrong[k].flatten().tolist()) <= set(f[k].flatten().tolist())
    changed = int((wrong != f).flatten(1).sum(1).max())
    assert changed <= max(1, round(share * side)) ** 2


def learned(records: list, **changes: object) -> EAST:
    detector = EAST(EASTConfig().updated(TINY["east"] | changes))
    detector.fit(records, trainer=Trainer(seed=1, device="cpu"))
    return detector


@pytest.fixture(scope="module")
def plain(records: tuple[list, list]) -> EAST:
    return learned(records[0])


def test_learning_leaves_the_extractor_untouched_and_trains_nothing(records: tuple[list, list]):
    detector = EAST(EASTConfig().updated(TINY["east"]))
    before = {k: v.clone() for k, v in detector.extractor.state_dict().items()}
    detector.fit(records[0], trainer=Trainer(seed=1, device="cpu"))
    assert all(torch.equal(v, before[k]) for k, v in detector.extractor.state_dict().items())
    assert count_parameters(detector) == count_parameters(detector.extractor)
    assert 0 <= float(detector.composition_weight_) <= 1


@pytest.mark.slow
def test_score_parts_can_be_taken_alone(records: tuple[list, list]):
    one = records[1][:3]
    scores = {s: learned(records[0], score=s).predict(one) for s in ("all", "likelihood", "composition")}
    everything = learned(records[0])
    for name in ("likelihood", "composition"):
        extras = [found.extras[name] for found in everything.scan(one)]
        assert [p.raw_score for p in scores[name]] == pytest.approx(extras, rel=1e-5)
    assert [p.raw_score for p in scores["all"]] != [p.raw_score for p in scores["likelihood"]]


def test_the_finest_tap_speaks_for_itself_and_the_louder_one_counts(records: tuple[list, list]):
    detector = learned(records[0], score="likelihood", weighted=False)
    alone = learned(records[0], score="likelihood", **{"fine.use": False})
    pairs = zip(detector.scan(records[1][:3]), alone.scan(records[1][:3]), strict=True)
    assert all(found.raw_score >= other.raw_score - 1e-4 for found, other in pairs)
    assert "finest" in detector.score_rule and "finest" not in alone.score_rule


def test_synthetic_anomalies_weight_the_likelihoods(records: tuple[list, list], plain: EAST):
    assert learned(records[0], weighted=False).likelihood_weights_.tolist() == [1, 1]
    assert plain.likelihood_weights_.max() == 1 and plain.likelihood_weights_.min() >= 0


def test_brightness_copies_stop_at_the_limit(records: tuple[list, list], plain: EAST):
    few = learned(records[0], examples=len(records[0]))
    assert not torch.equal(few.teacher.features.matrix_, plain.teacher.features.matrix_)
    assert torch.equal(
        few.teacher.features.matrix_, learned(records[0], brightness=[]).teacher.features.matrix_
    )


def test_what_cannot_work_is_said(records: tuple[list, list]):
    with pytest.raises(DataError, match="at least 2"):
        EAST(EASTConfig().updated(TINY["east"])).fit(records[0][:1])
    with pytest.raises(ConfigError, match="closed form"):
        EAST(EASTConfig().updated(TINY["east"] | {"selection": "validation"}))
    with pytest.raises(ConfigError, match="none of the taps"):
        EAST(EASTConfig().updated(TINY["east"] | {"grid_tap": "layer3"}))
