"""Neighbours, coresets, Gaussians, smoothing and the centre crop against plain forms and their identities."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial.distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import andon.core.memory_budget
import andon.layers.coreset
import andon.layers.gaussians
import andon.layers.neighbours
from andon.core.errors import ConfigError, DataError
from andon.core.memory_budget import require_memory
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.coreset import greedy_centres, random_projection
from andon.layers.gaussians import PositionGaussians, mahalanobis
from andon.layers.neighbours import Neighbours, merged, nearest
from andon.layers.smoothing import Smoothing, gaussian_matrix

CPU = torch.device("cpu")


def vectors(count: int, size: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Neighbours --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    queries=st.integers(1, 30),
    bank=st.integers(1, 60),
    k=st.integers(1, 12),
    piece=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_pieces_give_what_a_plain_search_gives(queries, bank, k, piece, seed):
    q, b = vectors(queries, 5, seed), vectors(bank, 5, seed + 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(andon.layers.neighbours, "PIECE", piece)
        found = nearest(q, b, k)
    plain = torch.from_numpy(scipy.spatial.distance.cdist(q.numpy(), b.numpy()))
    expected = plain.sort(1)
    assert torch.equal(found.index, expected.indices[:, :k])
    torch.testing.assert_close(found.distance, expected.values[:, : min(k, bank)])


def test_near_duplicates_far_from_the_origin_keep_their_distances():
    """Where `torch.cdist`'s fast form, whose rounding grows with the length of the vectors, sees nothing."""
    base = 1000 + vectors(1, 64, 0, torch.float32)
    bank = base + 1e-2 * vectors(40, 64, 1, torch.float32)
    query = bank[:30] + 1e-3 * vectors(30, 64, 2, torch.float32)
    found = nearest(query, bank)
    truth = scipy.spatial.distance.cdist(query.double().numpy(), bank.double().numpy())
    assert found.index[:, 0].tolist() == truth.argmin(1).tolist() == list(range(30))
    np.testing.assert_allclose(found.distance[:, 0], truth.min(1), rtol=1e-4)
    fast = torch.cdist(query, bank, compute_mode="use_mm_for_euclid_dist")
    assert not np.allclose(fast.min(1).values, truth.min(1), rtol=0.1)
    assert nearest(bank, bank).distance.max() == 0


def test_the_answer_does_not_depend_on_the_other_queries():
    q, b = vectors(70, 33, 0, torch.float32), vectors(500, 33, 1, torch.float32)
    together = nearest(q, b, 3)
    alone = torch.cat([nearest(q[k : k + 1], b, 3).distance for k in range(70)])
    torch.testing.assert_close(together.distance, alone, rtol=0, atol=1e-6)


def test_finds_are_merged_nearest_first():
    a = Neighbours(torch.tensor([[1.0, 4.0]]), torch.tensor([[7, 8]]))
    b = Neighbours(torch.tensor([[0.5, 2.0]]), torch.tensor([[1, 2]]))
    both = merged(a, b, 3)
    assert both.distance.tolist() == [[0.5, 1.0, 2.0]]
    assert both.index.tolist() == [[1, 7, 2]]
    assert merged(a, b, 9).index.tolist() == [[1, 7, 2, 8]]


# Coreset -----------------------------------------------------------------------------------------------------------


def plain_greedy(x: torch.Tensor, count: int, start: int) -> list[int]:
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    chosen = [start]
    while len(chosen) < count:
        chosen.append(int(distances[chosen].min(0).values.argmax()))
    return chosen


def radius(x: torch.Tensor, centres: torch.Tensor) -> float:
    return float(torch.cdist(x, x[centres], compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max())


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 30),
    start=st.integers(0, 29),
    seed=st.integers(0, 99),
    pool=st.sampled_from([1, 2, 5, 29, 4096]),
)
def test_greedy_selection_is_the_textbook_one(count, start, seed, pool):
    """Whatever the number of vectors among which the next ones are selected at a time."""
    x = vectors(30, 4, seed)
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(andon.layers.coreset, "POOL", pool)
        chosen = greedy_centres(x, count, start, advance=steps.append)
    assert chosen.tolist() == plain_greedy(x, count, start)
    assert sum(steps) == count


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_covering_radius_is_at_most_twice_the_best(count, seed):
    """I-27."""
    x = vectors(9, 2, seed)
    best = min(radius(x, torch.tensor(c)) for c in combinations(range(9), count))
    assert radius(x, greedy_centres(x, count)) <= 2 * best + 1e-12


def test_more_centres_never_cover_worse():
    """I-27."""
    x = vectors(60, 6, 3)
    chosen = greedy_centres(x, 60)
    radii = [radius(x, chosen[:k]) for k in range(1, 61)]
    assert all(b <= a for a, b in pairwise(radii))
    assert radii[-1] == 0


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_equal_vectors_are_selected_once_each(offset):
    x = torch.full((12, 3), offset) + torch.tensor([0.0, 0.5, 0.25])
    x[5] += 1
    chosen = greedy_centres(x, 12, 2).tolist()
    assert sorted(chosen) == list(range(12))
    assert chosen[:2] == [2, 5]


@pytest.mark.parametrize("count", [0, 4])
def test_more_centres_than_vectors_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} of 3"):
        greedy_centres(torch.zeros(3, 2), count)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_distances_to_a_coreset_are_between_those_to_the_bank_and_one_radius_more(count, seed):
    """I-28."""
    bank, queries = vectors(40, 5, seed), 2 * vectors(25, 5, seed + 1)
    chosen = greedy_centres(bank, count)
    full, thin = (nearest(queries, x).distance for x in (bank, bank[chosen]))
    assert (full <= thin + 1e-12).all()
    assert (thin <= full + radius(bank, chosen) + 1e-12).all()


def test_a_random_projection_keeps_distances_on_average():
    x = vectors(60, 400, 0, torch.float32)
    reduced = x @ random_projection(400, 128, torch.Generator().manual_seed(0))
    ratio = torch.pdist(reduced) / torch.pdist(x)
    assert abs(float(ratio.mean()) - 1) < 0.02
    assert 0.7 < ratio.min() < ratio.max() < 1.3


# Gaussians ---------------------------------------------------------------------------------------------------------


def learned(x: torch.Tensor, batch: int) -> PositionGaussians:
    gaussians = PositionGaussians(x.shape[1], x.shape[2], CPU)
    for part in torch.split(x, batch):
        gaussians.add(part)
    return gaussians


@pytest.mark.parametrize("exact", [True, False])
@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(2, 20),
    batch=st.integers(1, 8),
    seed=st.integers(0, 99),
    offset=st.sampled_from([0, 100]),
)
def test_one_pass_gives_the_covariance_of_two(exact, count, batch, seed, offset):
    """I-31."""
    x = (vectors(count, 3 * 4, seed).view(count, 3, 4) + offset).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(andon.layers.gaussians, "EXACT_BYTES", 2**30 if exact else 0)
        gaussians = learned(x, batch)
        assert gaussians.products.dtype == (torch.float64 if exact else torch.float32)
        covariances = gaussians.covariance(gaussians.products, 0.25)
    for p in range(3):
        samples = x[:, p].double().numpy()
        expected = np.cov(samples, rowvar=False) + 0.25 * np.eye(4)
        tolerance = 1e-6 if exact else 1e-4
        np.testing.assert_allclose(covariances[p], expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(gaussians.mean[p], samples.mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("exact", "block"), [(2**30, 2**24), (2**30, 1), (0, 1)])
def test_distances_are_scipys(monkeypatch, exact, block):
    """I-30."""
    monkeypatch.setattr(andon.layers.gaussians, "EXACT_BYTES", exact)
    monkeypatch.setattr(andon.layers.gaussians, "BLOCK_NUMBERS", block)
    x = vectors(30, 5 * 6, 0).view(30, 5, 6).float() * 3 + 7  # more pictures than dimensions
    gaussians = learned(x, 8)
    covariances = gaussians.covariance(gaussians.products, 0.01).clone()
    assert torch.linalg.eigvalsh(covariances).min() >= 0.01 - 1e-5
    storage = gaussians.products.data_ptr()
    mean, whitening = gaussians.mean.float(), gaussians.whitening(0.01)
    assert (whitening.data_ptr() == storage) == (
        exact == 0
    )  # beyond the limit the result takes the place of the sums
    asked = vectors(4, 30, 1).view(4, 5, 6).float() * 5
    distances = mahalanobis(asked, mean, whitening)
    for b in range(4):
        for p in range(5):
            inverse = np.linalg.inv(covariances[p].numpy())
            expected = scipy.spatial.distance.mahalanobis(asked[b, p].double(), gaussians.mean[p], inverse)
            assert float(distances[b, p]) == pytest.approx(expected, rel=1e-4)
    assert mahalanobis(mean[None], mean, whitening).abs().max() == 0
    assert mahalanobis(x, mean, whitening).square().mean() <= 6  # the expected square is below the dimension


def test_fewer_pictures_than_dimensions_are_enough():
    x = vectors(3, 2 * 10, 0).view(3, 2, 10).float()
    whitening = learned(x, 2).whitening(0.01)
    assert torch.isfinite(whitening).all()


def test_covariances_that_cannot_be_had_are_said_in_one_line():
    with pytest.raises(DataError, match="at least 2 training pictures, there is 1"):
        learned(vectors(1, 4, 0).view(1, 2, 2), 1).whitening(0.01)
    with pytest.raises(DataError, match="regularisation=0: raise it"):
        learned(torch.ones(4, 2, 3), 2).whitening(0.0)


def test_the_prediction_of_memory_is_that_of_the_papers_table():
    """3.8 GB for 3136 positions of 550 channels, in one place; float64 sums beside the result while they are small."""
    assert PositionGaussians.bytes_needed(3136, 550) == 4 * 3136 * 550**2
    assert PositionGaussians.bytes_needed(3136, 100) == 12 * 3136 * 100**2
    assert PositionGaussians.bytes_needed(3136, 100, copied=True) == 20 * 3136 * 100**2


def test_sums_without_some_batches_are_those_of_the_others():
    x = vectors(20, 2 * 3, 0).view(20, 2, 3)
    rest = learned(x, 4).without([x[4:7], x[12:13]])
    alone = learned(torch.cat([x[:4], x[7:12], x[13:]]), 5)
    assert rest.count == alone.count == 16
    torch.testing.assert_close(rest.mean, alone.mean)
    torch.testing.assert_close(rest.products, alone.products)


# Maps --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 40), sigma=st.sampled_from([0.3, 1.0, 4.0]), seed=st.integers(0, 99))
def test_smoothing_is_scipys(size, sigma, seed):
    maps = vectors(2 * size, size, seed).view(2, 1, size, size)
    expected = [scipy.ndimage.gaussian_filter(m[0].numpy(), sigma) for m in maps]
    found = Smoothing(size, sigma).double()(maps)
    np.testing.assert_allclose(found[:, 0], np.stack(expected), atol=1e-6)
    torch.testing.assert_close(gaussian_matrix(size, sigma).sum(1), torch.ones(size))


def test_no_smoothing_only_enlarges():
    cells = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert torch.equal(Smoothing(2, 0.0)(cells), cells)
    assert Smoothing(8, 0.0)(cells).shape == (1, 1, 8, 8)


@settings(deadline=None, max_examples=30)
@given(side=st.integers(1, 20), centre=st.integers(1, 20))
def test_the_border_of_a_pasted_map_has_its_minimum(side, centre):
    if centre > side:
        with pytest.raises(ConfigError, match="smaller than the centre"):
            resized_side(side, centre)
        return
    assert resized_side(side, centre) == side
    picture = torch.rand(2, 1, side, side)
    cropped = crop_centre(picture, centre)
    assert cropped.shape == (2, 1, centre, centre)
    filled = paste_centre(cropped, side)
    assert filled.shape == picture.shape
    assert torch.equal(crop_centre(filled, centre), cropped)
    top = (side - centre) // 2
    for k in range(2):  # pixel by pixel, in plain Python
        inner = cropped[k, 0].tolist()
        least = min(min(row) for row in inner)
        for r, row in enumerate(filled[k, 0].tolist()):
            for c, value in enumerate(row):
                seen = top <= r < top + centre and top <= c < top + centre
                assert value == (inner[r - top][c - top] if seen else least)


def test_without_a_crop_the_picture_is_seen_whole():
    assert resized_side(None, 64) == 64
    picture = torch.rand(1, 3, 64, 64)
    assert torch.equal(crop_centre(picture, 64), picture)


def test_too_much_memory_is_refused_with_the_way_out():
    require_memory(2**30, 1.0, "a bank", "use less")
    with pytest.raises(
        ConfigError, match=r"a bank would take 2\.0 GiB, memory_gib=1 are allowed: use less, or raise"
    ):
        require_memory(2**31, 1.0, "a bank", "use less")
    with pytest.raises(ConfigError, match=r"would take 0\.031 GiB, memory_gib=0\.01 are allowed"):
        require_memory(2**25, 0.01, "a bank", "use less")


def test_no_more_than_the_machine_has_is_promised(tmp_path, monkeypatch):
    """Whatever memory_gib says: the least of what is built in and what a container may take."""
    built_in = andon.core.memory_budget.machine_memory()
    assert built_in is not None
    assert built_in > 2**28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(andon.core.memory_budget, "CGROUP_LIMITS", (str(tmp_path / "absent"), str(limit)))
    limit.write_text("max\n")
    whole = andon.core.memory_budget.machine_memory()
    assert whole is not None
    assert whole >= built_in
    limit.write_text(f"{2**30}\n")
    assert andon.core.memory_budget.machine_memory() == 2**30
    require_memory(2**30, 8.0, "a bank", "use less")
    with pytest.raises(ConfigError, match=r"a bank would take 2\.0 GiB, this machine has 1\.0: use less$"):
        require_memory(2**31, 8.0, "a bank", "use less")


def test_covariances_are_drawn_towards_the_common_one():
    """Against a double-precision loop: half a position's own covariance, half the mean of all, and a share of its variance."""
    vectors = torch.randn(9, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gaussians = PositionGaussians(5, 4, torch.device("cpu"))
    for part in vectors.split(2):
        gaussians.add(part)
    own = [np.cov(vectors[:, p].numpy().T) for p in range(5)]
    mean = sum(own) / 5
    whitening = gaussians.whitening(0.001, 0.5).double()
    for p in range(5):
        expected = 0.5 * own[p] + 0.5 * mean + 0.001 * np.trace(mean) / 4 * np.eye(4)
        found = torch.linalg.inv(whitening[p].T @ whitening[p]).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
