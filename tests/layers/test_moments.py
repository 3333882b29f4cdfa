"""Statistics over many maps."""

import pytest
import torch

from andon.layers.moments import channel_statistics


def test_statistics_are_those_of_all_parts_together():
    x = 300 + 2 * torch.randn(7, 5, 6, 6)
    mean, std = channel_statistics(torch.split(x, 3))
    torch.testing.assert_close(mean, x.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(std, x.std((0, 2, 3), correction=0, keepdim=True), rtol=1e-4, atol=1e-5)
    assert channel_statistics([torch.ones(2, 3, 4, 4)])[1].max() == pytest.approx(1e-6)
