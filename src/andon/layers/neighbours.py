"""Nearest neighbours in a bank of vectors, in pieces, with exact distances.

The fast form ‖q‖² - 2 q·b + ‖b‖² (also that of `torch.cdist`) loses small distances between long vectors, and what it loses
depends on the sizes of the matrices, so on how many images are asked at once. Here it only finds the neighbours; their
distances are computed again from the differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 4096
"""Vectors compared at a time, on either side: the largest intermediate has PIECE² numbers (64 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest vectors of a bank, nearest first."""

    distance: Tensor
    """(Q, k) Euclidean."""
    index: Tensor
    """(Q, k) int64, positions in the bank."""


def nearest(queries: Tensor, bank: Tensor, k: int = 1) -> Neighbours:
    """The k nearest of `bank` (N, D) for each of `queries` (Q, D); all of them where the bank holds fewer than k.

    Distances are those to the vectors found, computed from differences: 0 for equal vectors. A vector may be passed over
    only for one whose squared distance is larger by no more than the rounding of a matrix product of the centred vectors.
    """
    # An exported network takes any number of queries, and cutting them up would fix that number.
    pieces = [queries] if torch.compiler.is_exporting() else torch.split(queries, PIECE)
    found = [_nearest(piece, bank, min(k, len(bank))) for piece in pieces]
    return Neighbours(torch.cat([f.distance for f in found]), torch.cat([f.index for f in found]))


def merged(a: Neighbours, b: Neighbours, k: int) -> Neighbours:
    """The k nearest of two finds for the same queries; all of them where there are fewer."""
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
    """(Q, k) positions of the nearest vectors of a piece, by the fast form."""
    centre = piece.mean(0)  # short vectors leave little to round
    b = piece - centre
    fast = torch.addmm(b.square().sum(1), queries - centre, b.T, alpha=-2)  # squared distance - ‖q‖²
    if k == 1:
        return fast.argmin(1, keepdim=True)  # several times faster than topk
    return fast.topk(k, dim=1, largest=False).indices
