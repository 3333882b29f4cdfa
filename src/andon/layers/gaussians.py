"""Gaussians of feature vectors by position, and the Mahalanobis distance from them.

PaDiM (arXiv 2011.08785) has a Gaussian for each position. EAST lets neighbouring positions share a covariance. Both may draw
each covariance towards the common one, as regularised discriminant analysis does (Friedman, JASA 84, 1989).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from andon.core.errors import DataError

EXACT_BYTES = 2**30
"""Sums of products are float64 as long as they take no more than this, float32 beyond."""
LEAST_VARIANCE = 1e-6
"""Of a feature: below it, as with images that are all alike, regularisation has this unit."""
BLOCK_NUMBERS = 2**18
"""Numbers that are summed or factorised at a time (2 MiB in float64, which caches hold)."""

TRIANGLE = 4
"""Steps in which the lower triangular W is read: five eighths of its numbers, which take longer to read than to multiply."""


class PositionGaussians:
    """Means and covariances of (N, P, d) vectors that arrive in batches; each `group` of neighbouring positions shares one.

    Products are summed around the running mean (Chan, Golub and LeVeque 1983), which keeps a relative error of about 1e-6 of
    a variance in float32. Float32 sums are overwritten by `whitening`, so that the peak is the result and one batch.
    """

    def __init__(self, positions: int, size: int, device: torch.device, *, group: int = 1) -> None:
        """`group` divides `positions`; positions 0 to group - 1 share a covariance, and so on."""
        groups = positions // group
        dtype = torch.float64 if 8 * groups * size**2 <= EXACT_BYTES else torch.float32
        self.count = 0
        self.group = group
        self.mean = torch.zeros(positions, size, dtype=torch.float64, device=device)
        self.products = torch.zeros(groups, size, size, dtype=dtype, device=device)

    @staticmethod
    def bytes_needed(groups: int, size: int, *, copied: bool = False) -> int:
        """Peak memory of the sums and the result, without batches; `copied`: with the copy that `without` makes."""
        exact = 8 * groups * size**2
        sums, result = (exact, exact // 2) if exact <= EXACT_BYTES else (exact // 2, 0)
        return sums * (1 + copied) + result

    def add(self, x: Tensor) -> None:
        """Add a batch of vectors (B, P, d)."""
        self._update(x, 1)

    def without(self, batches: Iterable[Tensor]) -> PositionGaussians:
        """The sums without batches that were added before; these sums stay as they are."""
        rest = copy.copy(self)
        rest.mean, rest.products = self.mean.clone(), self.products.clone()
        for batch in batches:
            rest._update(batch, -1)
        return rest

    def only(self, groups: Tensor) -> PositionGaussians:
        """Those of some groups alone, by their positions (n,); these sums stay as they are."""
        some = copy.copy(self)
        size = self.mean.shape[1]
        groups = groups.to(self.mean.device)
        some.mean = self.mean.view(-1, self.group, size)[groups].reshape(-1, size)
        some.products = self.products[groups]
        return some

    def _update(self, x: Tensor, sign: int) -> None:
        """Add (sign 1) or take away (-1) a batch of vectors (B, P, d)."""
        batch, _, size = x.shape
        count = self.count + sign * batch
        joint = (self.count * batch / count) ** 0.5
        step = max(1, BLOCK_NUMBERS // (batch * self.group * size))
        for start in range(0, len(self.products), step):
            products = self.products[start : start + step]
            mean = self.mean[start * self.group : (start + step) * self.group]
            part = x[:, start * self.group : (start + step) * self.group].to(products.dtype)
            centre = part.mean(0)
            shift = centre - mean  # (p, d)
            rows = torch.cat([part - centre, (joint * shift).to(part.dtype)[None]])  # (B + 1, p, d)
            rows = rows.transpose(0, 1).reshape(len(products), -1, size)
            products.baddbmm_(rows.transpose(1, 2), rows, alpha=sign)
            mean += sign * shift * (batch / count)
        self.count = count

    def common(self) -> Tensor:
        """(d, d) float64: mean of the unbiased covariances of all positions."""
        return self.products.mean(0, dtype=torch.float64) / self._degrees

    @property
    def _degrees(self) -> int:
        """Degrees of freedom of a covariance."""
        return (self.count - 1) * self.group

    def covariance(
        self, products: Tensor, regularisation: float, common: Tensor | None = None, share: float = 0.0
    ) -> Tensor:
        """(g, d, d) float64: the unbiased covariance of groups with these `products` (g, d, d), of which `share` is replaced by
        `common`, plus a multiple of the identity.

        The multiple is `regularisation`, in units of the mean variance of `common` where that is given. Raises `DataError`
        with fewer than two vectors.
        """
        if self.count < 2:
            raise DataError(
                f"a covariance needs at least 2 training pictures, there is {self.count}: add good pictures"
            )
        sigma = products.double() / self._degrees
        if common is not None:
            sigma = (1 - share) * sigma + share * common
            regularisation *= max(float(common.diagonal().mean()), LEAST_VARIANCE)
        sigma.diagonal(dim1=1, dim2=2).add_(regularisation)
        return sigma

    def whitening(self, regularisation: float, share: float = 0.0, *, in_place: bool = True) -> Tensor:
        """(P / group, d, d) float32 lower triangular W with WᵀW = Σ⁻¹; float32 sums cannot be used afterwards if `in_place`.

        `share` of each covariance is that of all positions together (Friedman 1989); 0 = each group's own alone.

        Raises `DataError` with fewer than two vectors, or where a covariance is singular in the precision it was summed in.
        """
        groups, size, _ = self.products.shape
        overwrite = in_place and self.products.dtype == torch.float32
        out = self.products if overwrite else torch.empty_like(self.products, dtype=torch.float32)
        identity = torch.eye(size, dtype=torch.float64, device=self.products.device)
        common = self.common() if share > 0 else None
        step = max(1, BLOCK_NUMBERS // size**2)
        for start in range(0, groups, step):
            block = slice(start, start + step)
            sigma = self.covariance(self.products[block], regularisation, common, share)
            factor, failed = torch.linalg.cholesky_ex(sigma)
            if bool(failed.any()):
                raise DataError(
                    f"a covariance of {size} features cannot be inverted at regularisation={regularisation:g}: raise it"
                )
            out[block] = torch.linalg.solve_triangular(factor, identity, upper=False).float()
        return out


def mahalanobis(x: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """(B, P) distances √((x-μ)ᵀ Σ⁻¹ (x-μ)) = ‖W (x-μ)‖ of vectors (B, P, d); means (P, d), W (P / group, d, d) triangular."""
    positions, size = mean.shape
    groups = len(whitening)
    centred = (x - mean).view(-1, groups, positions // groups, size).transpose(0, 1)
    rows = centred.reshape(groups, -1, size)  # (G, B·group, d)
    step = -(-size // TRIANGLE)
    squares = rows.new_zeros(rows.shape[:2])
    for start in range(0, size, step):
        part = whitening[:, start : start + step, : start + step]  # right of it are zeros
        squares = squares + (rows[:, :, : start + step] @ part.transpose(1, 2)).square().sum(2)
    return squares.sqrt().view(groups, -1, positions // groups).transpose(0, 1).reshape(-1, positions)
