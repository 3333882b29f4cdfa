"""Curves and histograms as PNG, drawn with Matplotlib without pyplot, so that reports share no state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from andon.metrics import Curve, Metric
from andon.report.text import percent

if TYPE_CHECKING:
    from andon.nn.stage import Stage
    from andon.report.report import Report

GOOD, ANOMALOUS = "#0072b2", "#d55e00"
"""Blue and vermilion (Okabe and Ito), distinguishable with any colour vision."""
TERMS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
INK, QUIET = "#1f2933", "#7b8794"
DPI = 200
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
}
POINT: Any = {"markersize": 7.5, "clip_on": False, "zorder": 5, "linestyle": "none"}
LINEAR_TO = 2.0
"""If scores exceed `WIDE`, the axis is logarithmic beyond this score."""
WIDE = 6.0


def draw_figures(report: Report) -> dict[str, bytes]:
    """PNG content by name: loss, roc_image, roc_pixel, pr_image, pr_pixel, scores; those without data are left out."""
    with rc_context(STYLE):
        figures = {
            "loss": _losses(report.stages),
            "roc_image": _roc(report.image_curve, report.metrics, "image"),
            "roc_pixel": _roc(report.pixel_curve, report.metrics, "pixel"),
            "pr_image": _precision_recall(report.image_curve, report.metrics, "image"),
            "pr_pixel": _precision_recall(report.pixel_curve, report.metrics, "pixel"),
            "scores": _scores(report),
        }
        return {name: _png(figure) for name, figure in figures.items() if figure is not None}


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


# --- curves -------------------------------------------------------------------------------------------------


def _roc(curve: Curve | None, metrics: Mapping[str, Metric], level: str) -> Figure | None:
    """ROC curve with the point of the fixed threshold; None without a curve."""
    if curve is None:
        return None
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate("chance", (0.6, 0.6), (5, -3), textcoords="offset points", va="top", color=QUIET)
    axes.plot(curve.fpr, curve.tpr, color=INK, clip_on=False)
    axes.set_xlabel(f"{_good(level)} called anomalous")
    axes.set_ylabel(f"{_anomalous(level)} found")
    axes.set_title(f"ROC, {_title(level)}: area {percent(metrics[f'{level}_auroc'].value)}")
    _fixed_point(
        axes, metrics.get(f"{level}_fpr"), metrics.get(f"{level}_recall"), "false positive rate", "recall"
    )
    _key(axes, loc="lower right", bbox_to_anchor=(1.0, 0.0))
    return figure


def _precision_recall(curve: Curve | None, metrics: Mapping[str, Metric], level: str) -> Figure | None:
    """Precision-recall curve with the points of the fixed threshold and of F1-max; None without a curve."""
    if curve is None:
        return None
    figure, axes = _square()
    share = curve.n_pos / (curve.n_pos + curve.n_neg)
    rare = share < 0.5
    axes.axhline(share, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        f"chance {percent(share)}",
        (0.02, share),
        (0, 4 if rare else -4),
        textcoords="offset points",
        va="bottom" if rare else "top",
        color=QUIET,
    )
    axes.step(curve.recall, curve.precision, where="pre", color=INK, clip_on=False)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(f"Precision and recall, {_title(level)}: AP {percent(metrics[f'{level}_ap'].value)}")
    recall, precision = (metrics.get(f"{level}_f1_max_{rate}") for rate in ("recall", "precision"))
    if recall is not None and precision is not None:
        text = "F1-max (oracle)"
        axes.plot(
            recall.value, precision.value, "o", color="white", markeredgecolor=QUIET, label=text, **POINT
        )
    recall, precision = (metrics.get(f"{level}_{rate}") for rate in ("recall", "precision"))
    _fixed_point(axes, recall, precision, "recall", "precision")
    _key(
        axes,
        loc="lower left" if rare else "upper left",
        bbox_to_anchor=(0.0, share + (0.07 if rare else -0.07)),
    )
    return figure


def _fixed_point(axes: Axes, x: Metric | None, y: Metric | None, x_name: str, y_name: str) -> None:
    """Draws the point of the fixed threshold if both its rates are defined."""
    if x is None or y is None or math.isnan(x.value) or math.isnan(y.value):
        return
    text = f"fixed threshold:\n{percent(x.value)} {x_name},\n{percent(y.value)} {y_name}"
    axes.plot(x.value, y.value, "o", color=ANOMALOUS, markeredgecolor="white", label=text, **POINT)


def _key(axes: Axes, **place: Any) -> None:
    """Legend of the points."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, handletextpad=0.2, labelspacing=0.7, borderaxespad=0.4, **place)


def _square() -> tuple[Figure, Axes]:
    """An empty square plot of two rates."""
    figure = Figure(figsize=(4.1, 4.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _title(level: str) -> str:
    return "pictures" if level == "image" else "pixels"


def _good(level: str) -> str:
    return "good pictures" if level == "image" else "pixels outside the masks"


def _anomalous(level: str) -> str:
    return "anomalous pictures" if level == "image" else "pixels of the masks"


# --- losses -------------------------------------------------------------------------------------------------


def _losses(stages: Mapping[str, Stage]) -> Figure | None:
    """One panel per stage with a loss curve, each loss term labelled at its end; None without curves."""
    known = {name: stage for name, stage in stages.items() if len(stage.curve) > 1}
    if not known:
        return None
    columns = min(len(known), 2)
    rows = -(-len(known) // columns)
    figure = Figure(figsize=(8.4 if columns == 2 else 5.6, 2.9 * rows), layout="constrained")
    for position, (name, stage) in enumerate(known.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        axes.set_title(name.replace("_", " "))
        _losses_of(axes, stage)
        axes.set_xlabel("step")
        if position % columns == 1 or columns == 1:
            axes.set_ylabel("loss")
    return figure


def _losses_of(axes: Axes, stage: Stage) -> None:
    terms = list(dict.fromkeys(name for point in stage.curve for name in point if name != "step"))
    steps = np.array([point["step"] for point in stage.curve])
    values = np.array([[point.get(term, math.nan) for term in terms] for point in stage.curve])
    _loss_axis(axes, values)
    axes.set_xlim(0, steps[-1])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    colours = [TERMS[k % len(TERMS)] for k in range(len(terms))]
    for term, colour, line in zip(terms, colours, values.T, strict=True):
        axes.plot(steps, line, color=colour, linewidth=1.2, label=term)
    _label_ends(axes, [term.replace("_", " ") for term in terms], colours, [line[-1] for line in values.T])
    if stage.kept_epoch is not None and stage.epochs:
        kept = stage.kept_epoch * stage.steps / stage.epochs
        axes.axvline(kept, color=QUIET, linewidth=0.8)
        axes.annotate(
            f"epoch {stage.kept_epoch} kept",
            (kept, 1),
            (-3, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            color=QUIET,
            annotation_clip=True,
        ).set_in_layout(False)


def _loss_axis(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """Logarithmic if all values are positive and span a factor of 8; else linear, scaled without the first 2 % of points."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 8 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1.0,) if finite.max() > 100 * finite.min() else (1.0, 2.0, 5.0))
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    settled = values[len(values) // 50 :]
    settled = settled[np.isfinite(settled)]
    low, high = float(settled.min()), float(settled.max())
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - room, high + room)


def _label_ends(axes: Axes, texts: Sequence[str], colours: Sequence[str], ends: Sequence[float]) -> None:
    """Names of lines to the right of their last points, moved apart where they would overlap."""
    axes.autoscale_view()
    heights = axes.transData.transform([(0, end if math.isfinite(end) else 0) for end in ends])[:, 1]
    low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    shares = (heights - low) / (high - low)
    gap = 0.09
    order = np.argsort(shares)
    placed = np.clip(shares[order], 0.02, 0.98)
    for k in range(1, len(placed)):
        placed[k] = max(placed[k], placed[k - 1] + gap)
    placed -= max(0.0, float(placed[-1]) - 0.98)
    for k in range(len(placed) - 2, -1, -1):
        placed[k] = min(placed[k], placed[k + 1] - gap)
    for index, height in zip(order, placed, strict=True):
        axes.annotate(
            texts[index],
            (1.02, height),
            xycoords="axes fraction",
            va="center",
            color=colours[index],
            annotation_clip=False,
        )


# --- scores -------------------------------------------------------------------------------------------------


def _scores(report: Report) -> Figure | None:
    """Histograms of the displayed scores of good and of anomalous images, with the threshold."""
    kinds = [
        (
            title,
            colour,
            np.array([case.score for case in report.cases if (case.record.label == 1) == anomalous]),
        )
        for title, colour, anomalous in (("good", GOOD, False), ("anomalous", ANOMALOUS, True))
    ]
    kinds = [(title, colour, values[np.isfinite(values)]) for title, colour, values in kinds]
    kinds = [kind for kind in kinds if kind[2].size]
    if not kinds:
        return None
    edges, wide = _score_bins(np.concatenate([values for _, _, values in kinds]))
    figure = Figure(figsize=(8.4, 1.1 + 1.35 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, colour, values) in zip(panels, kinds, strict=True):
        axes.hist(values, bins=list(edges), color=colour, edgecolor="white", linewidth=0.5)
        axes.axvline(1, color=INK, linewidth=1.2)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_ylabel("pictures")
        called = int(np.count_nonzero(values >= 1))
        axes.set_title(
            f"{title}: {values.size - called} below the threshold, {called} at or above", color=colour
        )
    if wide:
        panels[-1].set_xscale("symlog", linthresh=LINEAR_TO, linscale=1.0)
        ticks = _score_ticks(edges)
        panels[-1].set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlim(edges[0], edges[-1])
    panels[-1].set_xlabel(
        "score: 0 = typical good picture, 1 = threshold" + (", logarithmic beyond 2" if wide else "")
    )
    return figure


def _score_bins(values: npt.NDArray[np.float64], count: int = 40) -> tuple[npt.NDArray[np.float64], bool]:
    """Edges of bins, one of them at 1, so that no bin contains the threshold; and whether the axis is logarithmic."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.5)
    wide = high > WIDE or low < -WIDE
    shown = _squeezed(np.array([low, 1.0, high])) if wide else np.array([low, 1.0, high])
    width = (shown[2] - shown[0]) / count
    below, above = (
        math.ceil((shown[1] - shown[0]) / width + 0.1),
        math.ceil((shown[2] - shown[1]) / width + 0.1),
    )
    edges = shown[1] + width * np.arange(-below, above + 1)
    edges = _stretched(edges) if wide else edges
    edges[below] = 1.0
    return edges, wide


def _squeezed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear up to `LINEAR_TO`, logarithmic beyond, like the symlog axis."""
    size = np.abs(values) / LINEAR_TO
    return np.sign(values) * np.where(size <= 1, size, 1 + np.log10(np.maximum(size, 1)))


def _stretched(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse of `_squeezed`."""
    size = np.abs(values)
    return np.sign(values) * LINEAR_TO * np.where(size <= 1, size, 10.0 ** (np.maximum(size, 1) - 1))


def _score_ticks(edges: npt.NDArray[np.float64]) -> list[float]:
    """0, 1, 2, 5, 10, 20, 50, ... within the axis, and the same below 0."""
    sizes = [1.0, 2.0, *(digit * 10.0**power for power in range(7) for digit in (5, 10, 20))]
    ticks = [0.0, *sizes, *(-size for size in sizes)]
    return sorted({tick for tick in ticks if edges[0] <= tick <= edges[-1]})
