"""The tables of a report as text: key numbers with explanations, metrics by defect type, stages, sanity checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from andon.metrics import Metric
from andon.metrics.counts import exact_interval
from andon.metrics.results import MEAN_OF
from andon.nn.sanity_checks import SanityCheck
from andon.report.examples import verdict
from andon.report.report import Report
from andon.report.text import DASH, counted, duration, milliseconds, percent, plural, reason, short

MEANINGS = {
    "image_auroc": (
        "image AUROC",
        "Chance that an anomalous picture scores higher than a good one, at no particular threshold; 50 % is chance.",
    ),
    "image_recall": (
        "recall",
        "Share of the anomalous pictures that are called anomalous, at the fixed threshold.",
    ),
    "image_fpr": (
        "false-reject rate",
        "Share of the good pictures that are called anomalous, at the fixed threshold.",
    ),
    "image_auroc@mean": (
        "image AUROC, mean of logical and structural",
        "The main image metric of MVTec LOCO AD; both kinds of defect have the same weight.",
    ),
    "part_auroc": (
        "part AUROC",
        "As image AUROC, for parts with several pictures: the score of a part is the largest of its pictures.",
    ),
    "image_ap": (
        "image AP",
        "Average precision: the area under the precision-recall curve.",
    ),
    "image_precision": (
        "image precision",
        "Share of the pictures called anomalous that are anomalous, at the fixed threshold.",
    ),
    "image_f1": (
        "image F1",
        "Harmonic mean of precision and recall at the fixed threshold, which was set without test labels.",
    ),
    "image_f1_max": (
        "image F1-max (oracle)",
        "F1 at the best of all thresholds. It is chosen with the test labels, so this is an upper bound.",
    ),
    "pixel_auroc": (
        "pixel AUROC",
        "As image AUROC, for single pixels and masks. Where defects are small it is high even for poor maps.",
    ),
    "pixel_ap": (
        "pixel AP",
        "Average precision for single pixels; sensitive to false positives where defects are small.",
    ),
    "pixel_precision": (
        "pixel precision",
        "Share of the marked pixels that lie in a mask, at the fixed pixel threshold.",
    ),
    "pixel_recall": (
        "pixel recall",
        "Share of the masks' pixels that are marked, at the fixed pixel threshold.",
    ),
    "pixel_f1": ("pixel F1", "Harmonic mean of pixel precision and recall at the fixed pixel threshold."),
    "pixel_f1_max": (
        "pixel F1-max (oracle)",
        "F1 at the best of all pixel thresholds. It is chosen with the test masks, so this is an upper bound.",
    ),
    "aupro_0.30": (
        "AUPRO 0.30",
        "Mean share of each defect region that is marked, over thresholds that mark up to 30 % of the other pixels.",
    ),
    "aupro_0.05": ("AUPRO 0.05", "As AUPRO 0.30, up to 5 % of the other pixels: stricter."),
    "image_precision_gated": (
        "image precision, gated",
        "As image precision; behind the gate a picture is anomalous if its score and a pixel reach their thresholds.",
    ),
    "image_recall_gated": (
        "image recall, gated",
        "As recall, behind the gate.",
    ),
    "pixel_precision_gated": (
        "pixel precision, gated",
        "As pixel precision, with no pixel marked in pictures whose score is below the image threshold.",
    ),
    "pixel_recall_gated": ("pixel recall, gated", "As pixel recall, behind the gate."),
    "pixel_f1_gated": ("pixel F1, gated", "Harmonic mean of the two behind the gate."),
    "defects_lost": (
        "defects lost to the gate",
        "Share of the defects with a marked pixel whose picture scores below the image threshold: the gate loses them.",
    ),
    "auspro_0.05": (
        "AU-sPRO 0.05",
        "As AUPRO 0.05, where a defect counts as fully found once its saturation area is marked.",
    ),
    "auspro_0.05@mean": (
        "AU-sPRO 0.05, mean of logical and structural",
        "The main pixel metric of MVTec LOCO AD; both kinds of defect have the same weight.",
    ),
    "aupimo": (
        "AUPIMO",
        "Mean share of a picture's mask that is marked, over thresholds that mark 0.001 % to 0.01 % of the good pixels.",
    ),
}
"""Metrics of the summary in their order: name and explanation."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number of the summary."""

    name: str
    value: str
    meaning: str
    basis: str = ""
    """Numbers of images, pixels or regions it is computed from, and its interval or error bound."""
    oracle: bool = False
    """Whether its threshold was chosen with test labels."""


def summary_rows(report: Report) -> list[tuple[str, str, str]]:
    """(name, value, explanation with sample sizes) for each key number, in reading order."""
    return [
        (row.name, row.value, f"{row.meaning} [{row.basis}]" if row.basis else row.meaning)
        for row in [*verdict_rows(report), *metric_rows(report), *cost_rows(report)]
    ]


def verdict_rows(report: Report) -> list[Row]:
    """Counts at the fixed image threshold, with exact 95 % confidence intervals of their rates."""
    found = verdict(report.cases)
    rows = []
    if found.n_anomalous:
        text = (
            f"Anomalous pictures called anomalous. Escape rate {_rate(found.n_escapes, found.n_anomalous)}."
        )
        rows.append(Row("caught", f"{found.n_caught} of {found.n_anomalous}", text))
    if found.n_good:
        text = f"Good pictures called anomalous. False-reject rate {_rate(found.n_rejected, found.n_good)}."
        rows.append(Row("falsely rejected", f"{found.n_rejected} of {found.n_good}", text))
    return rows


def metric_rows(report: Report) -> list[Row]:
    """The metrics of `MEANINGS` that the report has; undefined ones with a dash and the reason.

    If no pixel is annotated, the pixel metrics share one row.
    """
    rows = []
    pixels = report.metrics.get("pixel_auroc")
    no_pixels = pixels is not None and pixels.n_pos == 0
    for key, (name, meaning) in MEANINGS.items():
        metric = report.metrics.get(key)
        if metric is None or (no_pixels and not key.startswith("image_")):
            continue
        why = reason(metric)
        text = f"Undefined: {why}." if why else meaning
        rows.append(Row(name, percent(metric.value), text, "" if why else basis(key, metric), metric.oracle))
    if no_pixels and pixels is not None:
        rows.append(Row("pixel metrics, AUPRO", DASH, f"Undefined: {reason(pixels)}."))
    return rows


def cost_rows(report: Report) -> list[Row]:
    """Threshold, training time and time per image."""
    training = sum(stage.seconds for stage in report.stages.values())
    rows = [Row("threshold", f"{report.calibration.image.value:.6g}", guarantee(report))]
    if report.stages:
        rows.append(Row("training time", duration(training), "All stages together, calibration included."))
    if report.latency is not None:
        rows.append(
            Row(
                "time per picture",
                milliseconds(report.latency.p50),
                f"Median; 95 % of the pictures within {milliseconds(report.latency.p95)}, from the decoded picture to "
                "score, verdict and map.",
                plural(report.latency.n, "call"),
            )
        )
    return rows


def guarantee(report: Report) -> str:
    """The false-reject rate that the image threshold guarantees, in words."""
    text = report.calibration.image.describe()
    if report.calibration.source == "train":
        return f"{text} But no good pictures were held out: the threshold was set on training pictures, so no rate is guaranteed."
    return text


def basis(name: str, metric: Metric) -> str:
    """The numbers of images, pixels or regions a metric is computed from, and its interval or error bound."""
    return _counts(name, metric) + _uncertainty(metric)


def _uncertainty(metric: Metric) -> str:
    """Bootstrap interval or error bound; empty without either."""
    if metric.interval is not None:
        low, high = metric.interval
        return f"; 95 % interval {percent(low)} to {percent(high)}"
    return "" if metric.error_bound is None else f"; error at most {metric.error_bound:.1g}"


def _counts(name: str, metric: Metric) -> str:
    if name in ("image_recall", "image_fpr"):
        return counted(name, metric)
    if name.startswith("image_"):
        return f"{metric.n_pos:,} anomalous, {metric.n_neg:,} good"
    if name.startswith("defects_lost"):
        return f"{plural(metric.n_pos, 'defect')} found without the gate, {metric.n_neg:,} missed"
    if name.startswith("aupro"):
        return f"{plural(metric.n_pos, 'region')}, {short(metric.n_neg)} other pixels"
    if name.startswith("auspro"):
        return f"{plural(metric.n_pos, 'defect')}, {short(metric.n_neg)} other pixels"
    if name.startswith("aupimo"):
        return f"{metric.n_pos:,} anomalous, {metric.n_neg:,} good"
    return f"{short(metric.n_pos)} mask pixels, {short(metric.n_neg)} other pixels"


# --- further tables of the page -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the table by defect type."""

    name: str
    kind: str
    """`group` (logical, structural), `mean` of these, or `type`."""
    caught: str
    values: tuple[str, ...]
    """Metrics in the order of `BREAKDOWN`."""


BREAKDOWN = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro_0.30": "AUPRO 0.30",
    "aupro_0.05": "AUPRO 0.05",
    "auspro_0.05": "AU-sPRO 0.05",
    "aupimo": "AUPIMO",
}
"""Columns of the table by defect type."""


def breakdown(report: Report) -> tuple[list[str], list[Part]]:
    """Headings and lines: logical, structural and their mean, then each defect type. Empty columns are left out."""
    tags = {name.split("@", 1)[1] for name in report.metrics if "@" in name}
    groups = [tag for tag in ("mean", *MEAN_OF) if tag in tags]
    order = [*groups, *sorted(tags.difference(groups))]
    columns = [key for key in BREAKDOWN if any(_defined(report, f"{key}@{tag}") for tag in tags)]
    parts = [
        Part(
            name="mean of logical and structural" if tag == "mean" else tag,
            kind="mean" if tag == "mean" else "group" if tag in groups else "type",
            caught="" if tag == "mean" else _caught(report.metrics.get(f"image_recall@{tag}")),
            values=tuple(_value(report.metrics.get(f"{key}@{tag}")) for key in columns),
        )
        for tag in order
    ]
    return [BREAKDOWN[key] for key in columns], parts


def all_metrics(report: Report) -> Iterator[tuple[str, str, str]]:
    """Name in `report.json`, value and sample sizes (or the reason why it is undefined) of each pooled metric."""
    for name, metric in report.metrics.items():
        if "@" not in name:
            why = reason(metric)
            note = why or basis(name, metric) + (", oracle" if metric.oracle else "")
            yield name, DASH if why else f"{metric.value:.4f}", note


def alternative_rows(report: Report) -> list[tuple[str, str]]:
    """Name and image AUROC of the further image scores, those of the teacher first."""
    names = sorted(report.alternatives, key=lambda name: not name.startswith("teacher"))
    return [(name.replace("_", " "), _value(report.alternatives[name])) for name in names]


def stage_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """Name, epochs, steps, time and a remark for each training stage."""
    rows = []
    for name, stage in report.stages.items():
        remarks = []
        if stage.kept_epoch is not None:
            remarks.append(f"state of epoch {stage.kept_epoch} kept")
        if stage.selection_seconds >= 0.05:
            remarks.append(f"{duration(stage.selection_seconds)} of it for choosing the epoch")
        epochs, steps = (f"{count:,}" if count else DASH for count in (stage.epochs, stage.steps))
        rows.append((name.replace("_", " "), epochs, steps, duration(stage.seconds), ", ".join(remarks)))
    return rows


def sanity_check_rows(report: Report) -> list[tuple[str, str, str, bool]]:
    """Name, value, required bound and result of each sanity check."""
    checks = [
        SanityCheck.from_json(values) for stage in report.stages.values() for values in stage.sanity_checks
    ]
    return [
        (check.name, DASH if math.isnan(check.value) else f"{check.value:.3g}", check.wanted, check.passed)
        for check in checks
    ]


def _rate(part: int, whole: int) -> str:
    """A rate and its exact 95 % confidence interval."""
    low, high = exact_interval(part, whole)
    return f"{percent(part / whole)}, with 95 % confidence between {percent(low)} and {percent(high)}"


def _defined(report: Report, name: str) -> bool:
    return name in report.metrics and not math.isnan(report.metrics[name].value)


def _value(metric: Metric | None) -> str:
    if metric is None or math.isnan(metric.value):
        return DASH
    return percent(metric.value)


def _caught(recall: Metric | None) -> str:
    """`38 of 40`, from a recall and its count."""
    if recall is None or math.isnan(recall.value):
        return DASH
    return f"{round(recall.value * recall.n_pos)} of {recall.n_pos}"
