"""Greedy k-centre selection (PatchCore, arXiv 2106.08265, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def random_projection(size: int, target: int, generator: torch.Generator) -> Tensor:
    """(size, target) Gaussian matrix that keeps distances on average (Johnson-Lindenstrauss)."""
    return torch.randn(size, target, generator=generator).div_(target**0.5)


def greedy_centres(
    vectors: Tensor, count: int, start: int = 0, *, advance: Callable[[], object] = lambda: None
) -> Tensor:
    """(count,) distinct positions in `vectors` (N, d), in the order of their selection.

    `start` is the first; each next one is the vector farthest from all selected before, so the covering radius is at most
    twice the best possible. One pass over the vectors per selection and three numbers per vector, nothing of size N x N.
    `advance` is called after each. Raises `ValueError` when `count` is not between 1 and N.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"cannot select {count} of {len(vectors)} vectors")
    x = vectors - vectors.mean(0)  # short vectors leave little to round
    norms = x.square().sum(1)
    squared = torch.full_like(norms, torch.inf)  # distance to the nearest selected vector
    to_newest = torch.empty_like(norms)
    selected = torch.empty(count, dtype=torch.long, device=x.device)
    newest = torch.tensor([start], device=x.device)
    for k in range(count):
        selected[k] = newest[0]
        centre = x.index_select(0, newest)[0]
        torch.addmv(norms, x, centre, alpha=-2, out=to_newest)
        to_newest += centre.square().sum()
        torch.minimum(squared, to_newest, out=squared)
        squared.index_fill_(0, newest, -torch.inf)  # never again, however many are equal to it
        newest = squared.argmax(0, keepdim=True)
        advance()
    return selected
