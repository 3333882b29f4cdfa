"""From taps to what the flow sees: fixed projection and scale for other backbones (V6), several taps as a pyramid (V7 d)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.layers.adapter import FeatureAdapter


def features(shapes: dict[str, tuple[int, int, int]], count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {tap: 5 + 3 * torch.randn(count, *shape, generator=generator) for tap, shape in shapes.items()}


def test_the_projection_is_orthonormal_fixed_and_draws_no_global_number():
    before = torch.get_rng_state()
    adapter, again = (FeatureAdapter({"a": (20, 4, 4)}, project=6) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(adapter.projection, again.projection)
    rows = adapter.projection[:, :, 0, 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-6, rtol=0)
    x = features({"a": (20, 4, 4)})
    expected = torch.einsum("pc,bchw->bphw", rows, x["a"])
    torch.testing.assert_close(adapter.transform(x), expected)
    assert adapter.shape == (6, 4, 4)
    assert not list(adapter.parameters())  # never learned


@pytest.mark.parametrize("project", [None, 4])
def test_standardised_features_have_mean_0_and_deviation_1_over_the_training_pictures(project):
    shapes = {"a": (6, 4, 4), "b": (2, 2, 2)}
    adapter = FeatureAdapter(shapes, project=project, standardise=True)
    x = features(shapes, 20)
    for _ in range(2):  # learning twice equals learning once
        adapter.fit(x)
        cells = adapter.transform(x)
        torch.testing.assert_close(cells.mean((0, 2, 3)), torch.zeros(project or 8), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            cells.std((0, 2, 3), correction=0), torch.ones(project or 8), atol=1e-5, rtol=0
        )


def test_a_pyramid_joins_the_taps_on_the_grid_of_the_first():
    """The channels of EfficientNet-B5's blocks.5, .2 and .4: 304 + 64 + 176 = 544; finer taps are averaged, coarser enlarged."""
    shapes = {"blocks.5": (304, 6, 6), "blocks.2": (64, 24, 24), "blocks.4": (176, 3, 3)}
    adapter = FeatureAdapter(shapes)
    x = features(shapes)
    joined = adapter.transform(x)
    assert joined.shape[1:] == adapter.shape == (544, 6, 6)
    assert torch.equal(joined[:, :304], x["blocks.5"])
    means = x["blocks.2"].unflatten(3, (6, 4)).unflatten(2, (6, 4)).mean((3, 5))
    torch.testing.assert_close(joined[:, 304:368], means)
    enlarged = F.interpolate(x["blocks.4"], size=(6, 6), mode="bilinear", align_corners=False)
    assert torch.equal(joined[:, 368:], enlarged)


def test_more_channels_than_there_are_cannot_be_projected_to():
    with pytest.raises(ConfigError, match="cannot project 3 channels to 4: choose at most 3"):
        FeatureAdapter({"a": (3, 2, 2)}, project=4)
