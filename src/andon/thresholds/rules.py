"""Threshold rules: from held-out good images alone, or from labelled images.

`conformal` is the default. The rank of a new good image among n held-out scores is uniform over n + 1 places (Vovk,
Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, https://doi.org/10.1007/b106715, Sec. 2.2). A threshold just
above the k-th smallest score, k = n + 1 - floor(alpha (n + 1)), therefore rejects a new good image with probability at most
alpha, for any detector and any distribution. An image is anomalous when its score is `>=` the threshold, so the threshold is
the next floating-point number after the k-th score. See docs/reference/metrics.md, "Thresholds".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.metrics.parts import largest_per_object
from andon.metrics.ranking import Scores, as_scores, checked, rank

CONFIDENCE = 0.95
"""Probability with which `Guarantee.upper_rate` holds."""
ROOM = 0.002
"""Share of the distance from the median good score to the threshold, or of one displayed unit, see `with_room`."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The false-reject rate that n good scores guarantee for a threshold. Rates are fractions in [0, 1]."""

    alpha: float
    """False-reject rate asked for."""
    n: int
    """Independent good scores: parts where images of one part share an object id, else images."""
    k: int
    """The threshold lies just above the k-th smallest score."""
    order_statistic: float
    """That score."""
    expected_rate: float
    """False-reject rate on average over validation sets, (n + 1 - k) / (n + 1)."""
    upper_rate: float
    """Upper bound of the false-reject rate of this threshold, with 95 % confidence; cross-fitted, that of CV+ on average."""
    folds: int = 0
    """Folds in which the scores were cross-fitted; 0 = the images were held out."""

    @property
    def reached(self) -> bool:
        """Whether n is large enough for `alpha`."""
        return self.expected_rate <= self.alpha + 1e-12


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score from which on (`>=`) a sample is called anomalous, and where it comes from."""

    value: float
    """Exactly representable in the dtype in which scores are compared; +inf calls only +inf."""
    rule: str
    """`conformal`, `labelled_f1` or `cost`; `f1_max` from the labels of the test."""
    parameter: float | None = None
    """alpha of `conformal`."""
    n: int = 0
    """Independent scores it was computed from."""
    n_scores: int = 0
    """All scores it was computed from; more than `n` where parts have several images."""
    guarantee: Guarantee | None = None
    """Only for `conformal`."""
    oracle: bool = False
    """Whether labels were used; such a threshold is for analysis, never for a line."""

    def describe(self) -> str:
        """One sentence for people."""
        if self.guarantee is not None:
            return _describe_guarantee(self.guarantee, parts=self.n_scores > self.n)
        number = f"{self.value:.6g}"
        if self.rule == "cost":
            return f"{number}, the cheapest threshold on {self.n} labelled pictures; no false-reject rate is guaranteed."
        if self.rule == "labelled_f1":
            return (
                f"{number}, the best F1 on {self.n} good and labelled anomalous pictures; no false-reject rate is "
                "guaranteed."
            )
        return f"{number}, chosen with the labels of {self.n} samples by {self.rule}; for analysis only."

    def to_json(self) -> dict[str, Any]:
        """Plain data for an artefact; `from_json` brings it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Threshold:
        """Inverse of `to_json`."""
        guarantee = data.get("guarantee")
        return cls(**{**data, "guarantee": None if guarantee is None else Guarantee(**guarantee)})


# --- from good scores ---------------------------------------------------------------------------------------


def conformal(
    scores: npt.ArrayLike,
    alpha: float = 0.05,
    *,
    object_ids: Sequence[Hashable | None] | None = None,
    on_small: Literal["error", "max"] = "error",
    folds: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Threshold:
    """Threshold that rejects at most a share `alpha` of new good images, on average over validation sets.

    `scores` (n,) are those of good validation images, used neither in training nor to choose anything.
    Images with the same object id (None = a part of its own) count as one, with their largest score. Given
    the maxima of validation maps it is the pixel threshold that leaves a share 1 - alpha of good images
    without any marked pixel. With `folds` the scores were cross-fitted in so many folds, and the guarantee is that of
    CV+ (Barber et al. 2021). `dtype` is the one in which scores are compared.

    With fewer than `smallest_n(alpha)` parts, `on_small="max"` takes the largest score, whose expected rate
    is 1 / (n + 1) > alpha; by default DataError says how many are missing. Also DataError for no scores and
    for an infinite k-th score.
    """
    from scipy import special  # takes long to import, and answers do without

    if not 0 < alpha < 1:
        raise ValueError(
            f"alpha is {alpha}; it is a false-reject rate and must lie between 0 and 1, e.g. 0.05"
        )
    given = _good_scores(scores, dtype)
    ordered = np.sort(given if object_ids is None else largest_per_object(given, object_ids))
    n = ordered.size
    k = max(1, n + 1 - math.floor(alpha * (n + 1) + 1e-9))
    if k == n + 1:
        if on_small == "error":
            reachable = math.ceil(1e4 / (n + 1)) / 1e4
            raise DataError(
                f"{n} scored good pictures cannot guarantee a false-reject rate of {_percent(alpha)}, that takes "
                f"{smallest_n(alpha)}: add pictures, ask for a rate of {reachable} (false_reject_rate), or accept the largest "
                "score as the threshold (few_images=max)"
            )
        k = n
    score = ordered[k - 1]
    value = np.nextafter(score, score.dtype.type(np.inf))
    if not np.isfinite(value):
        raise DataError(
            f"score {k} of {n} good validation pictures is {score}: no finite threshold lies above it; "
            "check the detector on these pictures"
        )
    guarantee = Guarantee(
        alpha=alpha,
        n=n,
        k=k,
        order_statistic=float(score),
        expected_rate=(n + 1 - k) / (n + 1),
        upper_rate=(
            worst_rate((n + 1 - k) / (n + 1), n, folds)
            if folds
            else float(special.betaincinv(n + 1 - k, k, CONFIDENCE))
        ),
        folds=folds,
    )
    return Threshold(float(value), "conformal", alpha, n=n, n_scores=given.size, guarantee=guarantee)


def with_room(
    threshold: Threshold, scores: npt.ArrayLike, *, least: float = 0.0, dtype: npt.DTypeLike = np.float32
) -> Threshold:
    """The threshold raised by `ROOM` of its distance to the median good score, or of `least`; its guarantee still holds.

    The score that sets the threshold lies one rounding error below it, and runtimes round differently. The margin keeps the
    verdict of that image the same in all of them.
    """
    distance = threshold.value - float(np.median(np.asarray(scores, np.float64)))
    return replace(threshold, value=_rounded(threshold.value + ROOM * max(distance, least, 0.0), dtype))


def worst_rate(alpha: float, n: int, folds: int) -> float:
    """Largest false-reject rate of CV+ at level `alpha` with n images in K folds (Barber et al. 2021, Theorem 4)."""
    excess = min(2 * (1 - 1 / folds) / (n / folds + 1), (1 - folds / n) / (folds + 1))
    return min(1.0, 2 * alpha + excess)


def smallest_n(alpha: float) -> int:
    """Fewest good images for which `conformal(alpha)` exists: 9, 19, 99 for 0.1, 0.05, 0.01."""
    return max(1, math.ceil((1 - 1e-9) / alpha) - 1)


# --- from labelled images that are not in the test -----------------------------------------------------------


def labelled_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Threshold:
    """Half-way between the threshold with the largest F1 and the next lower score, of (n,) scores with labels 0 and 1.

    For labelled images that were set aside from the test; with the labels of the test it would be an
    oracle. Raises `DataError` without anomalous samples.
    """
    _require_anomalous(labels)
    values, _ = checked(scores, labels)
    best = f1_max_threshold(values, labels).value
    lower = float(values[values < best].max(initial=-np.inf))
    middle = _rounded((best + lower) / 2, np.float32)
    return from_labelled(middle if lower < middle <= best else best, values.size)


def from_labelled(value: float, n: int) -> Threshold:
    """A threshold that `n` good and labelled anomalous images chose by F1; rounded to float32."""
    return Threshold(_rounded(value, np.float32), "labelled_f1", None, n=n, n_scores=n)


# --- from labels, for analysis only -------------------------------------------------------------------------


def f1_max_threshold(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Threshold:
    """The largest threshold with the largest F1."""
    _require_anomalous(labels)
    ranking = rank(scores, labels)
    return _oracle(ranking.summary().f1_max.threshold, "f1_max", None, ranking.n_pos + ranking.n_neg)


def _require_anomalous(labels: npt.ArrayLike) -> None:
    if not np.any(np.asarray(labels) == 1):
        raise DataError(
            "no anomalous sample, so there is no best threshold; use the conformal rule on validation scores"
        )


def _oracle(value: float, rule: str, parameter: float | None, n: int) -> Threshold:
    return Threshold(float(value), rule, parameter, n=n, n_scores=n, oracle=True)


def _good_scores(scores: npt.ArrayLike, dtype: npt.DTypeLike) -> Scores:
    given: Scores = as_scores(scores).astype(dtype)
    if given.size == 0:
        raise DataError(
            "no good validation score, so no threshold can be learned; hold out some good pictures"
        )
    return given


def _rounded(value: float, dtype: npt.DTypeLike) -> float:
    return float(np.asarray(value, dtype=dtype))


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _describe_guarantee(guarantee: Guarantee, parts: bool) -> str:
    """E.g. "59 good images support a false-reject rate of 5 %: ..."."""
    what = f"good {'parts' if parts else 'pictures'}"
    if guarantee.folds:
        what += f" (each scored by what the others teach, in {guarantee.folds} folds)"
        rates = (
            f"about {_percent(guarantee.expected_rate)} is expected, and the worst case of the rule (CV+) is "
            f"{_percent(guarantee.upper_rate)}"
        )
    else:
        rates = (
            f"{_percent(guarantee.expected_rate)} is expected, and with 95 % confidence it is at most "
            f"{_percent(guarantee.upper_rate)}"
        )
    if guarantee.reached:
        return f"{guarantee.n} {what} support a false-reject rate of {_percent(guarantee.alpha)}: {rates}."
    return (
        f"{guarantee.n} {what} do not support a false-reject rate of {_percent(guarantee.alpha)}, that "
        f"takes {smallest_n(guarantee.alpha)}; the threshold is just above their largest score: {rates}."
    )
