"""Patch embeddings against the reference written out: unfold, resize, pool, join, pool (I-21)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from andon.layers.patches import ConcatEmbedding, PatchEmbedding, pooling_kernel


def reference(features: dict[str, torch.Tensor], tap_size: int, size: int) -> torch.Tensor:
    grid = next(iter(features.values())).shape[2:]
    levels = []
    for x in features.values():
        batch, _, height, width = x.shape
        unfolded = F.unfold(x, 3, padding=1).view(batch, -1, height, width)  # (channel, row, column)
        unfolded = F.interpolate(unfolded, size=grid, mode="bilinear", align_corners=False)
        vectors = unfolded.permute(0, 2, 3, 1).flatten(0, 2)  # (B*H*W, C*9)
        levels.append(F.adaptive_avg_pool1d(vectors[:, None], tap_size)[:, 0])
    stacked = torch.stack(levels, 1).flatten(1)[:, None]
    pooled = F.adaptive_avg_pool1d(stacked, size)[:, 0]
    return pooled.view(batch, *grid, size).permute(0, 3, 1, 2)


@settings(deadline=None, max_examples=25)
@given(
    channels=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    tap_size=st.integers(1, 40),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_it_is_the_reference(channels, tap_size, size, seed):
    generator = torch.Generator().manual_seed(seed)
    sides = (6, 3, 2)
    shapes = {f"t{k}": (c, sides[k], sides[k] + 1) for k, c in enumerate(channels)}
    features = {t: torch.randn(2, *s, generator=generator, dtype=torch.float64) for t, s in shapes.items()}
    embedding = PatchEmbedding(shapes, size=size, tap_size=tap_size).double()
    assert embedding.shape == (size, *shapes["t0"][1:])
    torch.testing.assert_close(embedding(features), reference(features, tap_size, size), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1024, 384])
def test_each_half_sees_one_tap_and_the_deep_tap_is_its_local_mean(size):
    shapes = {"layer2": (512, 4, 4), "layer3": (1024, 2, 2)}
    features = {t: torch.randn(1, *s, generator=torch.Generator().manual_seed(0)) for t, s in shapes.items()}
    embedding = PatchEmbedding(shapes, size=size)
    before = embedding(features)
    after = embedding(features | {"layer3": features["layer3"] + 1})
    assert torch.equal(before[:, : size // 2], after[:, : size // 2])
    assert (before[:, size // 2 :] != after[:, size // 2 :]).any(dim=(2, 3)).all()
    after = embedding(features | {"layer2": features["layer2"] + 1})
    assert torch.equal(before[:, size // 2 :], after[:, size // 2 :])
    alone = PatchEmbedding({"layer3": (1024, 2, 2)})(features)
    torch.testing.assert_close(alone, F.avg_pool2d(features["layer3"], 3, 1, 1))
    assert not embedding.state_dict()


def test_windows_of_layer2_are_five_entries_of_one_channel():
    weight, groups = pooling_kernel(512, 1024)
    assert groups == 512
    assert weight.shape == (1024, 1, 3, 3)
    assert (weight > 0).sum(dim=(1, 2, 3)).unique().tolist() == [5]


def test_concatenation_keeps_all_channels():
    shapes = {"a": (3, 4, 4), "b": (5, 2, 2)}
    features = {t: torch.randn(2, *s) for t, s in shapes.items()}
    embedding = ConcatEmbedding(shapes)
    out = embedding(features)
    assert out.shape == (2, *embedding.shape) == (2, 8, 4, 4)
    corner = features["a"][0, 0, :2, :2].sum() / 9  # zeros of the border count
    torch.testing.assert_close(out[0, 0, 0, 0], corner)
