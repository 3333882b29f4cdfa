"""Patch networks: sizes of the table in docs/reference, and dense evaluation = the patch network at every position (I-34)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.detectors.uninformed_students.networks import PatchNetwork, pad_for
from andon.nn.backbones import count_parameters, multiply_adds

FIELDS = (17, 33, 65)


@pytest.mark.parametrize(
    ("patch", "count", "support", "stride", "giga"),
    [(65, 1_386_624, 60, 8, 90.8), (33, 1_616_000, 32, 4, 105.9), (17, 2_996_480, 17, 1, 196.3)],
)
def test_sizes_are_those_of_the_reference(patch, count, support, stride, giga):
    with torch.device("meta"):
        network = PatchNetwork(patch).eval()
        picture = torch.empty(1, 3, 256, 256)
        padded = pad_for(picture, network.support)
        assert count_parameters(network) == count
        assert (network.support, network.stride) == (support, stride)
        assert network(torch.empty(2, 3, patch, patch)).shape == (2, 128, 1, 1)
        assert network.dense(padded).shape == (1, 128, 256, 256)
        assert network(pad_for(picture, support, stride)).shape == (1, 128, 256 // stride, 256 // stride)

    per_pixel = sum(conv.weight.numel() for conv in network.convolutions)
    assert per_pixel * 256**2 / 1e9 == pytest.approx(giga, abs=0.05)  # as the reference counts
    with torch.device("meta"):
        counted = multiply_adds(_Dense(network), padded) / 1e9
    assert giga < counted < 1.25 * giga  # layers before the last run on the padding as well


class _Dense(torch.nn.Module):
    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.dense(images)


def test_the_complete_model_has_24_million_parameters():
    with torch.device("meta"):
        assert round(sum(4 * count_parameters(PatchNetwork(patch)) for patch in FIELDS) / 1e6, 1) == 24.0


def small(patch: int) -> PatchNetwork:
    torch.manual_seed(patch)
    return PatchNetwork(patch, width=0.1, descriptor=7).double().eval()


@pytest.mark.parametrize("patch", FIELDS)
@settings(deadline=None, max_examples=4)
@given(data=st.data())
def test_dense_equals_the_patch_network_at_every_position(patch, data):
    """I-34."""
    network = small(patch)
    height, width = (data.draw(st.integers(patch, patch + 14)) for _ in range(2))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    picture = torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        dense = network.dense(picture)
        assert dense.shape == (1, 7, height - network.support + 1, width - network.support + 1)
        r, c = (data.draw(st.integers(0, side - patch)) for side in (height, width))
        alone = network(picture[:, :, r : r + patch, c : c + patch])
        assert alone.shape == (1, 7, 1, 1)
        torch.testing.assert_close(dense[:, :, r, c], alone[:, :, 0, 0], rtol=1e-10, atol=1e-12)
        strided = network(picture)
        torch.testing.assert_close(
            strided, dense[:, :, :: network.stride, :: network.stride], rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("patch", FIELDS)
def test_a_descriptor_depends_on_its_support_and_nothing_else(patch):
    network = small(patch)
    picture = torch.rand(1, 3, patch + 5, patch + 5, dtype=torch.float64, requires_grad=True)
    touched = torch.zeros(patch + 5, patch + 5, dtype=torch.bool)
    for channel in network.dense(picture)[
        0, :, 2, 3
    ]:  # pools pass one pixel of four: several functions of them
        (gradient,) = torch.autograd.grad(channel, picture, retain_graph=True)
        touched |= (gradient != 0).any(1)[0]
    inside = torch.zeros_like(touched)
    inside[2 : 2 + network.support, 3 : 3 + network.support] = True
    assert not (touched & ~inside).any()
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (
        network.support,
    ) * 2


@settings(deadline=None, max_examples=20)
@given(support=st.sampled_from((17, 32, 60)), stride=st.sampled_from((1, 2, 4, 8)))
def test_padding_centres_each_cell_in_its_support(support, stride):
    columns = torch.arange(64.0).expand(1, 1, 64, 64)
    padded = pad_for(columns, support, stride)[0, 0, 0]
    first = padded[:support].clone()
    edge = (support - stride) // 2
    first[:edge] = -first[:edge]  # reflected: column -k shows column k
    assert abs(float(first.mean()) - (stride - 1) / 2) <= 0.5
    assert len(padded) == 64 + support - stride
