"""Greedy k-centre selection (PatchCore, arXiv 2106.08265, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def random_projection(size: int, target: int, generator: torch.Generator) -> Tensor:
    """(size, target) Gaussian matrix that preserves distances in expectation (Johnson-Lindenstrauss)."""
    return torch.randn(size, target, generator=generator).div_(target**0.5)


def greedy_centres(
    vectors: Tensor, count: int, start: int = 0, *, advance: Callable[[], object] = lambda: None
) -> Tensor:
    """(count,) indices of distinct `vectors` (N, d), in the order of selection.

    The first is `start`; each further one is the vector farthest from all selected ones. The covering radius is at most twice
    the smallest possible one. Memory is O(N), time O(count N d). `advance` is called after each selection. Raises
    `ValueError` when `count` is not between 1 and N.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"cannot select {count} of {len(vectors)} vectors")
    x = vectors - vectors.mean(0)  # smaller norms, smaller rounding errors
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
        squared.index_fill_(0, newest, -torch.inf)  # selected once, even if other vectors are equal
        newest = squared.argmax(0, keepdim=True)
        advance()
    return selected
