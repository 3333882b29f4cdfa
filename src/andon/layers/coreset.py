"""Greedy k-centre selection (PatchCore, arXiv 2106.08265, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

POOL = 4096
"""Farthest vectors among which the next ones are selected before all distances are brought up to date."""
BLOCK_NUMBERS = 2**22
"""Distances computed at a time (16 MiB)."""


def random_projection(size: int, target: int, generator: torch.Generator) -> Tensor:
    """(size, target) Gaussian matrix that keeps distances on average (Johnson-Lindenstrauss)."""
    return torch.randn(size, target, generator=generator).div_(target**0.5)


def greedy_centres(
    vectors: Tensor, count: int, start: int = 0, *, advance: Callable[[int], object] = lambda done: None
) -> Tensor:
    """(count,) distinct positions in `vectors` (N, d), in the order of their selection.

    `start` is the first; each next one is the vector farthest from all selected before, so the covering radius is at most
    twice the best possible. `advance` is called with the number of vectors selected since the last call. Raises `ValueError`
    when `count` is not between 1 and N.

    Distances to the selected vectors only shrink, so those of all N are upper bounds until they are brought up to date. The
    next vectors are therefore selected within a pool of the farthest ones, exactly, for as long as the farthest of the pool
    is at least as far as the bound of every vector outside; then all N are updated by one matrix product.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"cannot select {count} of {len(vectors)} vectors")
    x = vectors - vectors.mean(0)  # short vectors leave little to round
    norms = x.square().sum(1)
    squared = torch.full_like(norms, torch.inf)  # distance to the nearest selected vector, or an upper bound
    selected = torch.empty(count, dtype=torch.long, device=x.device)
    selected[0] = start
    done, applied = 1, 0
    advance(1)
    while done < count:
        newest = selected[applied:done]
        _shrink(squared, x, norms, newest)
        squared[newest] = -torch.inf  # never again, however many are equal to it
        applied = done
        farthest = squared.topk(min(POOL + 1, len(x)))
        pool, outside = farthest.indices[:POOL], farthest.values[POOL:].max() if len(x) > POOL else -torch.inf
        found = _select(x[pool], norms[pool], squared[pool], float(outside), count - done)
        selected[done : done + len(found)] = pool[found]
        done += len(found)
        advance(len(found))
    return selected


def _shrink(squared: Tensor, x: Tensor, norms: Tensor, newest: Tensor) -> None:
    """Lower `squared` (N,), in place, to the squared distances of all vectors to the newest selected ones."""
    centres, lengths = x[newest].T.contiguous(), norms[newest]
    step = max(1, BLOCK_NUMBERS // len(newest))
    for first in range(0, len(x), step):
        rows = slice(first, first + step)
        nearest = torch.addmm(lengths, x[rows], centres, alpha=-2).amin(1) + norms[rows]
        torch.minimum(squared[rows], nearest, out=squared[rows])


def _select(x: Tensor, norms: Tensor, squared: Tensor, outside: float, most: int) -> Tensor:
    """Positions in the pool `x` (M, d), farthest first, until the farthest left is nearer than `outside`; at least one."""
    found: list[Tensor] = []
    to_newest = torch.empty_like(norms)
    while len(found) < most:
        newest = squared.argmax(0, keepdim=True)
        if found and not float(squared[newest]) >= outside:
            break
        found.append(newest)
        centre = x.index_select(0, newest)[0]
        torch.addmv(norms, x, centre, alpha=-2, out=to_newest)
        to_newest += norms[newest]
        torch.minimum(squared, to_newest, out=squared)
        squared.index_fill_(0, newest, -torch.inf)
        if len(found) == len(x):
            break
    return torch.cat(found)
