"""One Gaussian per position, learned in one pass (PaDiM, arXiv 2011.08785, Eq. 1 and 2; spec 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from andon.core.errors import DataError

EXACT_BYTES = 2**30
"""Sums of products are kept in float64 as long as they take no more than this."""
BLOCK_NUMBERS = 2**24
"""Numbers of the matrices that are factorised at a time (128 MiB in float64)."""


class PositionGaussians:
    """Means and covariances of (N, P, d) vectors that arrive in batches.

    Memory: (P, d, d) sums of products, and one batch. They are float64 up to `EXACT_BYTES`; beyond, they are float32 and
    `whitening` turns them into its result in their own place, so the result and a batch are all that is ever held. Sums are
    taken around the running mean (Chan, Golub and LeVeque 1983), which float32 keeps to about 1e-6 of a variance.
    """

    def __init__(self, positions: int, size: int, device: torch.device) -> None:
        dtype = torch.float64 if 8 * positions * size**2 <= EXACT_BYTES else torch.float32
        self.count = 0
        self.mean = torch.zeros(positions, size, dtype=torch.float64, device=device)
        self.products = torch.zeros(positions, size, size, dtype=dtype, device=device)

    @staticmethod
    def bytes_needed(positions: int, size: int) -> int:
        """Peak of the sums and the result, without batches."""
        exact = 8 * positions * size**2
        return exact + exact // 2 if exact <= EXACT_BYTES else exact // 2

    def add(self, x: Tensor) -> None:
        """Take in (B, P, d) vectors."""
        if x.dtype != self.products.dtype:
            x = x.to(self.products.dtype)
        batch = len(x)
        mean = x.mean(0)
        shift = mean - self.mean  # (P, d)
        joint = (self.count * batch / (self.count + batch)) ** 0.5
        rows = torch.cat([x - mean, (joint * shift).to(x.dtype)[None]]).transpose(0, 1)  # (P, B + 1, d)
        self.products.baddbmm_(rows.transpose(1, 2), rows)
        self.count += batch
        self.mean += shift * (batch / self.count)

    def covariance(self, positions: slice, regularisation: float) -> Tensor:
        """(p, d, d) float64: the unbiased covariance plus `regularisation` times the identity.

        Raises `DataError` with fewer than two vectors.
        """
        if self.count < 2:
            raise DataError(
                f"a covariance needs at least 2 training pictures, there is {self.count}: add good pictures"
            )
        sigma = self.products[positions].double() / (self.count - 1)
        sigma.diagonal(dim1=1, dim2=2).add_(regularisation)
        return sigma

    def whitening(self, regularisation: float) -> Tensor:
        """(P, d, d) float32 lower triangles W with WᵀW = Σ⁻¹. Uses up the sums.

        Raises `DataError` with fewer than two vectors, or where a covariance is singular in the precision it was summed in.
        """
        positions, size = self.mean.shape
        in_place = self.products.dtype == torch.float32
        out = self.products if in_place else torch.empty_like(self.products, dtype=torch.float32)
        identity = torch.eye(size, dtype=torch.float64, device=self.products.device)
        step = max(1, BLOCK_NUMBERS // size**2)
        for start in range(0, positions, step):
            block = slice(start, start + step)
            factor, failed = torch.linalg.cholesky_ex(self.covariance(block, regularisation))
            if bool(failed.any()):
                raise DataError(
                    f"a covariance of {size} features cannot be inverted at regularisation={regularisation:g}: raise it"
                )
            out[block] = torch.linalg.solve_triangular(factor, identity, upper=False).float()
        return out


def mahalanobis(x: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """(B, P, d) vectors, (P, d) means, (P, d, d) triangles W to the distances √((x-μ)ᵀ Σ⁻¹ (x-μ)) = ‖W (x-μ)‖, (B, P)."""
    centred = (x - mean).permute(1, 2, 0)  # (P, d, B)
    return (whitening @ centred).square().sum(1).sqrt().T
