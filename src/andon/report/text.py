"""Numbers and reasons as text, for the page and the command line."""

from __future__ import annotations

import math
import re

from andon.metrics import Metric

DASH = "–"
"""Shown for an undefined value."""

REASONS = {
    "no_positives": "there is no anomalous sample",
    "no_negatives": "there is no good sample",
    "no_regions": "the masks mark no region",
    "no_masks": "the anomalous pictures have no masks",
    "few_vertices": "too few good pixels to measure false positive rates of 0.001 % to 0.01 %",
    "nothing_called": "nothing was called anomalous",
    "nothing_found": "no defect was found without the gate",
}
"""Why a metric is undefined, by `Metric.reason`."""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[kMGT]|ms|s|min|h)(?:\W|$))")


def percent(share: float) -> str:
    """A fraction as a percentage, with more digits close to 0 and 100; `0 %` and `100 %` are exact.

    >>> percent(0.9731), percent(0.99874), percent(1.0), percent(0.9999999), percent(float("nan"))
    ('97.3 %', '99.87 %', '100 %', '> 99.999 %', '–')
    """
    if math.isnan(share):
        return DASH
    margin = 100 * min(abs(share), abs(1 - share))
    if margin < 1e-9:  # exact up to the rounding of a sum
        return f"{100 * share:.0f} %"
    if margin < 0.0005:
        return "< 0.001 %" if share < 0.5 else "> 99.999 %"
    digits = 1 if margin >= 0.995 else 2 if margin >= 0.0995 else 3
    return f"{100 * share:.{digits}f} %"


def counted(name: str, metric: Metric) -> str:
    """`27 of 32 anomalous` of an `image_recall`, `1 of 25 good` of an `image_fpr`."""
    whole, what = (metric.n_neg, "good") if name.startswith("image_fpr") else (metric.n_pos, "anomalous")
    return f"{round(metric.value * whole):,} of {whole:,} {what}"


def rate(name: str, metric: Metric) -> str:
    """`84.4 % (27 of 32 anomalous; 95 % interval 67.2 % to 94.7 %)` of an `image_recall` or `image_fpr`."""
    low, high = metric.interval or (0.0, 1.0)
    return (
        f"{percent(metric.value)} ({counted(name, metric)}; 95 % interval {percent(low)} to {percent(high)})"
    )


def reason(metric: Metric) -> str:
    """Why the metric is undefined; empty if it is defined."""
    if not math.isnan(metric.value):
        return ""
    return REASONS.get(metric.reason or "", (metric.reason or "undefined").replace("_", " "))


def plural(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`, `1.2 M pixels`."""
    return f"{short(count)} {noun}{'' if count == 1 else 's'}"


def short(count: float) -> str:
    """A count, with a unit from 10,000 on: 9,999, 12.3 k, 4.56 M, 7.89 G."""
    if abs(count) < 10_000:
        return f"{count:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        if abs(count) < 999.5 * size or unit == "T":
            return f"{count / size:.3g} {unit}"
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """0.4 s, 38 s, 12 min 5 s, 1 h 42 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def milliseconds(value: float) -> str:
    """Three digits: 3.21 ms, 45.6 ms, 1,234 ms."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes of file names replaced by U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)


def unbroken(text: str) -> str:
    """The text with no-break spaces between numbers and their units."""
    return BEFORE_UNIT.sub("\u00a0", text)
