"""The coreset of patches and the relative distance from it, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from andon.detectors.east.patch_bank import AROUND, AXES, PatchBank, principal_axes


def patches(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * torch.linspace(3, 0.5, d) + 1


def test_axes_are_those_of_the_largest_variance():
    x = patches(500, 12)
    axes = principal_axes(x, 4).numpy()
    expected = np.linalg.svd((x - x.mean(0)).numpy(), full_matrices=False)[2][:4]
    np.testing.assert_allclose(axes @ axes.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.abs((axes * expected).sum(1)), 1, atol=1e-4)


@pytest.mark.parametrize("d", [8, AXES + 10])
def test_a_distance_is_relative_to_that_of_the_neighbours(d: int):
    bank, x = PatchBank(d, 40), patches(300, d, 1).view(3, 100, d)
    bank.learn(patches(400, d))
    axes, chosen = bank.axes_.numpy(), bank.patches_.numpy()
    assert axes.shape == (min(d, AXES), d)
    known = patches(400, d).numpy() @ axes.T
    assert cdist(chosen, known).min(1).max() < 1e-3  # the coreset is of what was learned from
    between = np.sort(cdist(chosen, chosen), 1)[:, 1 : AROUND + 1].mean(1)
    distance = cdist(x.flatten(0, 1).numpy() @ axes.T, chosen)
    nearest = distance.argmin(1)
    expected = distance.min(1) / (between[nearest] + between.mean())
    np.testing.assert_allclose(bank(x).flatten().numpy(), expected, rtol=1e-3)


def test_few_or_equal_patches_give_finite_distances():
    for learned in (patches(1, 6), torch.ones(20, 6), patches(3, 6)):
        bank = PatchBank(6, 50)
        bank.learn(learned)
        assert torch.isfinite(bank(patches(5, 6, 2))).all()
        assert len(bank.patches_) == max(1, len(learned) // 2)


def test_a_bank_is_loaded_as_it_was_saved():
    bank = PatchBank(6, 10)
    bank.learn(patches(60, 6))
    again = PatchBank(6, 10)
    again.load_state_dict(bank.state_dict())
    x = patches(9, 6, 3)
    assert torch.equal(again(x), bank(x))


def test_at_most_half_of_the_patches_are_kept_and_the_others_are_named():
    """What is kept lies at no distance: how far good patches lie from it can be seen of the others alone."""
    learned = patches(60, 6)
    for count in (10, 60, 1000):
        bank = PatchBank(6, count)
        others = bank.learn(learned)
        assert len(bank.patches_) == min(count, 30)
        assert len(others) == 60 - len(bank.patches_)
        kept = [k for k in range(60) if k not in others.tolist()]
        assert float(bank(learned[kept]).max()) == pytest.approx(0, abs=1e-3)
        assert float(bank(learned[others]).min()) > 0.01
