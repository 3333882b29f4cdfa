"""Nearest neighbours in a memory bank, in blocks, with exact distances.

The expansion ‖q‖² - 2 q·b + ‖b‖² (also that of `torch.cdist`) rounds small distances between long vectors away, by an amount that
depends on the matrix sizes and therefore on the batch size. Here it only selects the neighbours; their distances are recomputed
from the differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 4096
"""Vectors per block, of queries and of bank: the largest intermediate has PIECE² entries (64 MiB in float32)."""


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
    fast = torch.addmm(b.square().sum(1), queries - centre, b.T, alpha=-2)  # squared distance - ‖q‖²
    if k == 1:
        return fast.argmin(1, keepdim=True)  # several times faster than topk
    return fast.topk(k, dim=1, largest=False).indices
