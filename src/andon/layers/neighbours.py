"""Nearest neighbours in a memory bank, in blocks, with exact distances.

The expansion ‖q‖² - 2 q·b + ‖b‖² (also that of `torch.cdist`) rounds small distances between long vectors away, by an amount that
depends on the matrix sizes and therefore on the batch size. Here it only selects the neighbours; their distances are recomputed
from the differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PIECE = 4096
"""Vectors per block, of queries and of bank: the largest intermediate has PIECE² entries (64 MiB in float32)."""
FOLD = 16
"""Rows into which the distances of a query are folded."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest vectors of a bank, nearest first."""

    distance: Tensor
    """(Q, k) Euclidean distances."""
    index: Tensor
    """(Q, k) int64 indices in the bank."""


def nearest(queries: Tensor, bank: Tensor, k: int = 1) -> Neighbours:
    """The k nearest vectors of `bank` (N, D) for each of `queries` (Q, D); all of them if N < k.

    Distances are exact (0 for equal vectors). Of two vectors whose squared distances differ by less than the rounding of a matrix
    product of centred vectors, either may be returned.
    """
    # Splitting would fix the number of queries of an exported network.
    pieces = [queries] if torch.compiler.is_exporting() else torch.split(queries, PIECE)
    found = [_nearest(piece, bank, min(k, len(bank))) for piece in pieces]
    return Neighbours(torch.cat([f.distance for f in found]), torch.cat([f.index for f in found]))


def merged(a: Neighbours, b: Neighbours, k: int) -> Neighbours:
    """The k nearest out of two results for the same queries; all of them if there are fewer."""
    distance, index = torch.cat([a.distance, b.distance], 1), torch.cat([a.index, b.index], 1)
    chosen = distance.topk(min(k, distance.shape[1]), dim=1, largest=False, sorted=True)
    return Neighbours(chosen.values, index.gather(1, chosen.indices))


def _nearest(queries: Tensor, bank: Tensor, k: int) -> Neighbours:
    found = Neighbours(
        queries.new_empty(queries.shape[0], 0), queries.new_empty(queries.shape[0], 0, dtype=torch.long)
    )
    for start in range(0, len(bank), PIECE):
        piece = bank[start : start + PIECE]
        index = _candidates(queries, piece, min(k, len(piece)))
        columns = [(queries - piece[column]).square().sum(1).sqrt() for column in index.unbind(1)]
        found = merged(found, Neighbours(torch.stack(columns, 1), index + start), k)
    return found


def _candidates(queries: Tensor, piece: Tensor, k: int) -> Tensor:
    """(Q, k) indices of the nearest vectors of a block, by the expansion."""
    centre = piece.mean(0)  # smaller norms, smaller rounding errors
    b = piece - centre
    bank = torch.cat([b, b.square().sum(1, keepdim=True)], 1)
    missing = -len(bank) % FOLD if k == 1 else 0
    if missing:
        bank = torch.cat([bank, bank[-1:].expand(missing, -1)])
    # One product, since runtimes add ‖b‖² in a pass of its own: half the squared distance - half of ‖q‖².
    fast = F.pad(centre - queries, (0, 1), value=0.5) @ bank.T
    if k == 1:
        return _smallest(fast).clamp_max(len(piece) - 1)
    return fast.topk(k, dim=1, largest=False).indices


def _smallest(x: Tensor) -> Tensor:
    """(Q, 1) index of the smallest number of each row of (Q, N), where FOLD divides N.

    Rows are folded: first the minima of columns, by vector instructions, then positions among few numbers. `argmin` of all of
    them takes runtimes several times as long.
    """
    folded = x.view(-1, FOLD, x.shape[1] // FOLD)
    column = folded.amin(1).argmin(1, keepdim=True)  # (Q, 1)
    row = folded.gather(2, column[:, None].expand(-1, FOLD, 1)).argmin(1)  # (Q, 1)
    return row * folded.shape[2] + column
