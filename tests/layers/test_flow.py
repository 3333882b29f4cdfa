"""The flow of the AST teacher: identities I-1 to I-8 of docs/reference, and FrEIA as an independent implementation."""

import math

import FrEIA.modules
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from andon.layers.flow import CouplingBlock, Flow, negative_log_likelihood
from andon.layers.positional import positional_encoding


def trained(flow: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, the zero-initialised gammas too, a value away from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return flow.eval()


def small_flow(channels: int = 6, clamp: float = 1.9) -> Flow:
    return trained(Flow(channels, 4, 5, (3, 3, 3, 5), clamp).double())


def inputs(
    channels: int = 6, size: int = 3, batch: int = 2, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)
    c = torch.randn(batch, 4, size, size, generator=generator, dtype=torch.float64)
    return x, c


def test_untrained_flow_is_a_permutation_with_log_det_zero():
    """I-1."""
    flow = Flow(7, 4, 5, (3, 3, 3, 5), 3.0).double()
    x, c = inputs(7)
    z, log_det = flow(x, c)
    expected = x
    for block in flow.blocks:
        expected = expected[:, block.permutation]
    assert torch.equal(z, expected)
    assert torch.equal(log_det, torch.zeros_like(log_det))


@given(channels=st.integers(2, 9), clamp=st.floats(0.5, 4.0), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_inverse_undoes_forward(channels, clamp, seed):
    """I-2 and I-5."""
    flow = trained(Flow(channels, 4, 5, (3, 5), clamp).double(), seed)
    x, c = inputs(channels, seed=seed)
    z, log_det = flow(x, c)
    back, inverse_log_det = flow.inverse(z, c)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-8)


def test_inverse_undoes_forward_in_single_precision():
    """I-2, at the width of the published flow's features."""
    flow = trained(Flow(304, 4, 16, (3, 3, 3, 5), 3.0), 2)
    with torch.no_grad():
        for block in flow.blocks:
            for network in (block.r1, block.r2):
                for parameter in network.parameters():
                    parameter.mul_(0.3)  # as strong as after training: latents of about deviation 1
        x, c = (v.float() for v in inputs(304))
        z, _ = flow(x, c)
        back, _ = flow.inverse(z, c)
    assert ((back - x).norm() / x.norm()).item() < 1e-4
    assert not torch.allclose(z.std(), x.std(), rtol=1e-3)


def test_log_determinant_against_autograd():
    """I-3."""
    flow = small_flow()
    x, c = inputs(batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v.view_as(x), c)[0].flatten(), x.flatten())
    _, expected = torch.linalg.slogdet(jacobian)
    _, log_det = flow(x, c)
    assert log_det.shape == (1, 3, 3)
    assert log_det.sum().item() == pytest.approx(expected.item(), abs=1e-9)


def test_log_scales_stay_within_the_soft_clamp():
    """I-4."""
    block = trained(CouplingBlock(6, 4, 5, 3, clamp=0.7, seed=0).double())
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(50)
    x, c = inputs()
    _, log_det = block(x, c)
    assert log_det.abs().max() <= 0.99903 * 0.7 * 6 + 1e-12
    assert log_det.abs().max() > 0.5 * 0.7  # the bound is approached, not avoided


def test_permutations_are_reproducible_and_leave_global_state_alone():
    """I-6."""
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = CouplingBlock(10, 4, 5, 3, 1.9, seed=3).permutation
    torch.set_rng_state(torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(first, CouplingBlock(10, 4, 5, 3, 1.9, seed=3).permutation)
    assert first.tolist() == np.random.RandomState(3).permutation(10).tolist()


def test_likelihood_is_that_of_a_standard_normal():
    """I-7."""
    z = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nll = negative_log_likelihood(z, torch.zeros(2, 3, 3, dtype=torch.float64))
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) - 2.5 * math.log(2 * math.pi)
    torch.testing.assert_close(nll, expected)


def test_the_condition_matters():
    """I-8."""
    flow = small_flow()
    x, c = inputs()
    assert not torch.allclose(flow(x, c)[0], flow(x, c.flip(-1))[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_coupling_equals_freia():
    """FrEIA's GLOW coupling with the same sub-networks and clamp, at 1 x 1 where its log-determinant is per position too."""
    block = trained(CouplingBlock(6, 4, 5, 3, clamp=1.9, seed=0).double())
    networks = iter([block.r1, block.r2])  # FrEIA builds its subnet1 (our r1) first
    reference = FrEIA.modules.GLOWCouplingBlock(
        [(6, 1, 1)],
        dims_c=[(4, 1, 1)],
        subnet_constructor=lambda *_: next(networks),
        clamp=1.9,
        clamp_activation=lambda s: 0.636 * torch.atan(s / 1.9),
    )
    x, c = inputs(size=1)
    ours, log_det = block(x, c)
    (theirs,), their_log_det = reference([x[:, block.permutation]], c=[c])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(log_det[:, 0, 0], their_log_det)


def test_positional_encoding_by_hand():
    code = positional_encoding(32, 5, 7)
    assert code.shape == (32, 5, 7)
    for i, row, column in ((0, 0, 0), (3, 2, 6), (7, 4, 1)):
        omega = 10_000 ** (-2 * i / 16)
        assert code[2 * i, row, column] == pytest.approx(math.sin(column * omega), abs=1e-6)
        assert code[2 * i + 1, row, column] == pytest.approx(math.cos(column * omega), abs=1e-6)
        assert code[16 + 2 * i, row, column] == pytest.approx(math.sin(row * omega), abs=1e-6)
        assert code[17 + 2 * i, row, column] == pytest.approx(math.cos(row * omega), abs=1e-6)


def test_positional_encoding_refuses_odd_widths():
    with pytest.raises(ValueError, match="divisible by 4"):
        positional_encoding(30, 4, 4)
