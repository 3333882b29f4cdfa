"""The linear autoencoder of whole images against NumPy, and what it sees that single places do not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from andon.detectors.east.linear_autoencoder import FOLDS, WholeImages, fit_coder, principal_axes, remainder


def planted(n: int, size: int, rank: int, seed: int = 0) -> torch.Tensor:
    """(n, 1, size) vectors of `rank` large axes and small noise."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(size, rank)))[0]
    x = random.normal(size=(n, rank)) * 5 @ axes.T + 0.1 * random.normal(size=(n, size))
    return torch.from_numpy(x.astype(np.float32))[:, None]


def test_axes_are_those_of_the_singular_value_decomposition():
    x = planted(30, 50, 6)[:, 0]
    found = principal_axes(x, x @ x.T, 4)
    expected = np.linalg.svd(x.double().numpy(), full_matrices=False)[2][:4]
    np.testing.assert_allclose(np.abs(found.double().numpy() @ expected.T), np.eye(4), atol=1e-4)
    rest = remainder(x, found).double().numpy()
    np.testing.assert_allclose(rest, x.numpy() - x.numpy() @ expected.T @ expected, atol=1e-4)


def test_what_remains_is_measured_on_images_left_out():
    x = planted(40, 60, 6)
    coder = fit_coder(x)
    assert len(coder.axes) == 20
    scaled = ((x[:, 0] - coder.mean) * coder.scale).double().numpy()
    left_out = np.zeros_like(scaled)
    for fold in range(FOLDS):
        chosen = np.arange(40) % FOLDS == fold
        axes = np.linalg.svd(scaled[~chosen], full_matrices=False)[2][:20]
        left_out[chosen] = scaled[chosen] - scaled[chosen] @ axes.T @ axes
    np.testing.assert_allclose(coder.spread.numpy(), np.sqrt((left_out**2).mean(0)), rtol=1e-3)
    np.testing.assert_allclose(coder.held_out * coder.spread, left_out, atol=1e-3)


def test_a_copy_belongs_to_its_image_and_is_not_judged():
    x = planted(12, 20, 3)
    both = torch.cat([x, x + 100], 1)
    assert fit_coder(both).held_out.shape == (12, 20)


@pytest.fixture(scope="module")
def learned() -> tuple[WholeImages, torch.Tensor]:
    """Maps (N, P, d) of 8 x 8 cells, block by block, whose upper left and lower right quarter are bright together or not."""
    generator = torch.Generator().manual_seed(1)
    maps = 0.1 * torch.randn(16, 40, 8, 8, generator=generator)
    bright = torch.rand(16, generator=generator) < 0.5
    maps[bright, :, :4, :4] += 1
    maps[bright, :, 4:, 4:] += 1
    network = WholeImages((40, 8, 8), block=2)
    cells = in_blocks(maps)
    network.learn(network.whole(cells)[:, None], torch.linspace(4, 6, 13))
    return network, cells


def in_blocks(maps: torch.Tensor) -> torch.Tensor:
    """(B, d, 8, 8) to (B, 64, d) in blocks of 2 x 2 cells."""
    rows = [
        maps[:, :, r + i, c + j]
        for r in range(0, 8, 2)
        for c in range(0, 8, 2)
        for i in (0, 1)
        for j in (0, 1)
    ]
    return torch.stack(rows, 1)


def test_a_wrong_combination_of_parts_is_seen_where_it_is(learned: tuple[WholeImages, torch.Tensor]):
    network, cells = learned
    good = network(cells)
    wrong = 0.0 * torch.ones(1, 40, 8, 8)
    wrong[:, :, :4, :4] += 1  # each quarter by itself looks like a good one
    found = network(in_blocks(wrong))
    assert found.max() > good.max() + 2 * good.amax(1).std()
    grid = torch.stack([in_blocks(torch.arange(64.0).view(1, 1, 8, 8))[0, :, 0], found[0]])
    by_place = grid[1][grid[0].argsort()].view(8, 8)
    squares = by_place.view(2, 4, 2, 4).transpose(1, 2).flatten(2)  # 4 x 4 cells share a level
    assert (squares == squares[..., :1]).all()
    assert min(by_place[0, 0], by_place[7, 7]) > max(by_place[0, 7], by_place[7, 0])


def test_levels_stand_beside_the_other_score(learned: tuple[WholeImages, torch.Tensor]):
    """Its median a deviation below that of the other score, its deviation the same, on images left out."""
    network, cells = learned
    coder = fit_coder(network.whole(cells)[:, None])
    own = (
        coder.held_out.view(16, 40, 4).square().mean(1).sqrt().amax(1) * network.level_[0] + network.level_[1]
    )
    other = torch.linspace(4, 6, 13)
    assert float(own.median()) == pytest.approx(float(other.median() - other.std()), abs=1e-4)
    assert float(own.std()) == pytest.approx(float(other.std()), rel=1e-4)


def test_what_is_loaded_has_its_own_number_of_axes(learned: tuple[WholeImages, torch.Tensor]):
    network, cells = learned
    other = WholeImages((40, 8, 8), block=2)
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(cells), network(cells))
    other.load_state_dict({})
    assert not other.is_learned
