"""Comparison tables over the runs of a sweep: mean and standard deviation over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.files import write_text
from andon.datasets.published.counts import MVTEC_AD, MVTEC_LOCO
from andon.experiments.published import Published, published_for
from andon.experiments.tables import Table, as_csv
from andon.metrics.results import NO_MASKS

if TYPE_CHECKING:
    from andon.experiments.sweep import Result

TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood", "fabric", "brushed_metal"})
"""Textures of MVTec AD and of the embedded sets; all other categories are objects."""
COMPARED = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro_0.30": "AUPRO 0.30",
    "image_recall": "recall at the fixed threshold",
    "image_fpr": "false-reject rate at the fixed threshold",
    "fit_seconds": "fit seconds",
    "latency_ms": "latency p50 (ms)",
    "peak_memory": "peak memory (GB)",
}
"""Metrics with a comparison table of their own, and its title."""
PER_CATEGORY = {
    "pixel_auroc": "px AUROC",
    "pixel_f1": "px F1",
    "pixel_recall": "px recall",
    "pixel_precision": "px precision",
    "pixel_f1_gated": "px F1 (gated)",
    "pixel_recall_gated": "px recall (gated)",
    "pixel_precision_gated": "px precision (gated)",
    "defects_lost": "defects lost to the gate",
    "image_auroc": "im AUROC",
    "image_f1": "im F1",
    "image_recall": "im recall",
    "image_precision": "im precision",
    "pixel_f1_max": "px F1-max (oracle)",
    "image_f1_max": "im F1-max (oracle)",
    "latency_ms": "latency (ms)",
    "fit_seconds": "fit (s)",
    "student_seconds": "student (s)",
    "final_epoch": "final epoch",
    "teacher_mean": "T AUC mean",
    "teacher_max": "T AUC max",
    "teacher_seconds": "teacher (s)",
}
"""Columns of the table of a single detector."""
BY_GROUP = {
    "image_auroc@mean": "mean",
    "image_auroc@logical": "logical",
    "image_auroc@structural": "structural",
    "auspro_0.05@mean": "AU-sPRO mean",
    "auspro_0.05@logical": "AU-sPRO logical",
    "auspro_0.05@structural": "AU-sPRO structural",
}
"""Columns of the table of logical and structural anomalies; the two means are the headline metrics of MVTec LOCO AD."""
DECIMALS = {
    "fit_seconds": 0,
    "latency_ms": 1,
    "peak_memory": 2,
    "student_seconds": 0,
    "teacher_seconds": 0,
    "final_epoch": 1,
}
"""Decimals of values that are no fractions; fractions are shown in percent with one decimal."""


def measured(result: Result, name: str) -> float:
    """Value of a run: a metric by name, or time, latency, memory and teacher AUROC; NaN where there is none."""
    report = result.report
    stages: Mapping[str, Mapping[str, Any]] = report["time"].get("stages", {})
    student = stages.get("student", {})
    own: Mapping[str, Callable[[], float | None]] = {
        "fit_seconds": lambda: report["time"]["fit_seconds"],
        "latency_ms": lambda: (report["latency_ms"] or {}).get("p50"),
        "peak_memory": lambda: None if result.peak_memory is None else result.peak_memory / 1e9,
        "teacher_mean": lambda: report["teacher"].get("auroc_mean"),
        "teacher_max": lambda: report["teacher"].get("auroc_max"),
        "teacher_seconds": lambda: stages.get("teacher", {}).get("seconds"),
        "student_seconds": lambda: student.get("seconds"),
        "final_epoch": lambda: student.get("kept_epoch") or student.get("epochs") or None,
    }
    if name not in own:
        return result.value(name)
    value = own[name]()
    return float("nan") if value is None else float(value)


def check_figures(result: Result) -> None:
    """Raise `ValueError`, `TypeError`, `KeyError` or `AttributeError` where the report of a run lacks what tables show."""
    for name in {*COMPARED, *PER_CATEGORY, *BY_GROUP, *result.report["metrics"]}:
        measured(result, name)
    for text in (
        result.report["machine"],
        result.report["detector"],
        result.report["dataset"],
        result.weights,
    ):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
    _selected([result])


def write_tables(results: Sequence[Result], out: Path) -> list[Table]:
    """Write the tables into `out` and return them.

    `results.csv` has one row per run, `tables.csv` one row per table cell (published values included); `tables.md` and
    `tables.tex` hold the tables.
    """
    tables = [*comparison(results), *(per_category(results, name) for name in _names(results))]
    write_text(out / "results.csv", _csv(results))
    write_text(out / "tables.md", "\n".join(table.markdown() for table in tables))
    write_text(out / "tables.tex", "\n".join(table.latex() for table in tables))
    cells = [cell for table in tables for cell in table.cells()]
    write_text(out / "tables.csv", as_csv([("table", "row", "column", "value"), *cells]))
    return tables


def comparison(results: Sequence[Result]) -> list[Table]:
    """One table per metric of `COMPARED`: detectors by categories, with averages over all, textures and objects.

    Published averages follow below the measured rows. Results of several data sets have the mean over the sets instead; a
    table of all metrics in this mean is the first one.
    """
    tables = [_mean_table(results)] if _several(results) else []
    tables += [_by_category(results, metric) for metric in COMPARED if _measurable(results, metric)[0]]
    logical = _by_group(results)
    return [*tables, logical] if logical is not None else tables


def _by_category(results: Sequence[Result], metric: str) -> Table:
    """Detectors by categories or data sets, and their averages."""
    categories, without = _measurable(results, metric)
    groups = _groups(categories, results)
    published = _published(results) if groups else ()
    beside = [] if metric in DECIMALS else [line for line in published if line.has(metric)]
    rows = []
    for name in _names(results):
        mine = [result for result in results if result.job.name == name]
        cells = [_over_seeds(mine, metric, (category,)) for category in categories]
        cells += [_over_seeds(mine, metric, members) for members in groups.values()]
        rows.append((name, *cells, mine[0].weights, _selected(mine)))
    for line in beside:
        cells = [*("–" for _ in categories), *(line.cell(metric, group) for group in groups)]
        rows.append((f"{line.name} (published)", *cells, line.weights, line.selected))
    columns = ("detector", *categories, *groups, "weights", "selected on")
    notes = (*_without_masks(without), *_notes(results), *_sources(beside))
    return Table(_unit(metric, COMPARED[metric]), columns, tuple(rows), notes)


def _mean_table(results: Sequence[Result]) -> Table:
    """Detectors by metrics, each in the mean over the data sets."""
    measurable = {metric: _measurable(results, metric) for metric in COMPARED}
    rows = []
    for name in _names(results):
        mine = [result for result in results if result.job.name == name]
        cells = [_over_seeds(mine, metric, targets) for metric, (targets, _) in measurable.items()]
        rows.append((name, *cells, mine[0].weights, _selected(mine)))
    titles = [_unit(metric, title) for metric, title in COMPARED.items()]
    without = list(dict.fromkeys(name for _, names in measurable.values() for name in names))
    return Table(
        f"Mean over {len(_targets(results))} data sets",
        ("detector", *titles, "weights", "selected on"),
        tuple(rows),
        (*_without_masks(without), *_notes(results)),
    )


def _measurable(results: Sequence[Result], metric: str) -> tuple[list[str], list[str]]:
    """Names of the data sets on which a metric is shown, and of those left out because they have no masks.

    None is left out of results of a single data set.
    """
    names = _targets(results)
    if not _several(results):
        return names, []
    masked = {
        result.job.target
        for result in results
        if result.report["metrics"].get(metric, {}).get("reason") != NO_MASKS
    }
    return [name for name in names if name in masked], [name for name in names if name not in masked]


def _without_masks(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"Left out of pixel metrics and their mean, because there are no masks: {', '.join(names)}.",)


def _by_group(results: Sequence[Result]) -> Table | None:
    """Image AUROC and AU-sPRO of logical and structural anomalies; None where the data has no such groups."""
    grouped = [result for result in results if not math.isnan(result.value("image_auroc@logical"))]
    if not grouped:
        return None
    metrics = {
        key: title
        for key, title in BY_GROUP.items()
        if any(not math.isnan(result.value(key)) for result in grouped)
    }
    categories = _targets(grouped)
    published = _published(grouped)
    rows = []
    for name in _names(grouped):
        mine = [result for result in grouped if result.job.name == name]
        rows.append(
            (
                name,
                *(_over_seeds(mine, metric, categories) for metric in metrics),
                mine[0].weights,
                _selected(mine),
            )
        )
    rows += [
        (f"{line.name} (published)", *(line.cell(metric) for metric in metrics), line.weights, line.selected)
        for line in published
    ]
    return Table(
        "By kind of anomaly: image AUROC, AU-sPRO up to an FPR of 0.05 (%)",
        ("detector", *metrics.values(), "weights", "selected on"),
        tuple(rows),
        (*_notes(grouped), *_sources(published)),
    )


def per_category(results: Sequence[Result], name: str) -> Table:
    """Table of one detector: a row per category, then the averages."""
    mine = [result for result in results if result.job.name == name]
    categories = _targets(mine)
    shown = {
        metric: title
        for metric, title in PER_CATEGORY.items()
        if any(not math.isnan(measured(r, metric)) for r in mine)
    }
    rows = [
        (category, *(_over_seeds(mine, metric, (category,)) for metric in shown)) for category in categories
    ]
    rows += [
        (
            group if _several(mine) else f"average, {group}",
            *(_over_seeds(mine, metric, members) for metric in shown),
        )
        for group, members in _groups(categories, mine).items()
    ]
    published = [line for line in _published(mine) if line.detector == mine[0].report["detector"]]
    rows += [(f"{line.name} (published)", *(line.cell(metric) for metric in shown)) for line in published]
    notes = (
        f"Weights: {mine[0].weights}. Epoch selected on: {_selected(mine)}.",
        *_notes(mine),
        *_sources(published, whose=True),
    )
    what = "data set" if _several(mine) else "category"
    return Table(f"{name}, per {what} (%)", (what, *shown.values()), tuple(rows), notes)


def _published(results: Sequence[Result]) -> tuple[Published, ...]:
    """Published values on the data set of the results; none for other data in the same layout."""
    dataset = str(results[0].report["dataset"])
    categories = {"mvtec_ad": set(MVTEC_AD), "mvtec_loco": set(MVTEC_LOCO)}
    known = categories.get(dataset, set())
    if _several(results):
        return ()
    return published_for(dataset) if all(result.job.category in known for result in results) else ()


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.job.name for result in results))


def _targets(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.job.target for result in results))


def _several(results: Sequence[Result]) -> bool:
    """Whether the results are of several data sets, which are not averaged as the categories of one are."""
    return len({result.job.data for result in results}) > 1


def _groups(categories: Sequence[str], results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """Groups to average: all categories, and textures and objects where there are both; all sets where there are several."""
    if _several(results):
        return {"mean over sets": tuple(categories)}
    textures = tuple(c for c in categories if c in TEXTURES)
    objects = tuple(c for c in categories if c not in TEXTURES)
    groups = {"all": tuple(categories)} if len(categories) > 1 else {}
    return groups | ({"texture": textures, "object": objects} if textures and objects else {})


def _over_seeds(results: Sequence[Result], metric: str, categories: Sequence[str]) -> str:
    """Mean over the categories per seed, then mean and standard deviation over the seeds; a dash where there is none.

    Categories with an undefined value are left out and counted; seeds with a missing run are skipped.
    """
    by_seed: dict[int, list[float]] = {}
    for result in results:
        if result.job.target in categories:
            by_seed.setdefault(result.job.seed, []).append(measured(result, metric))
    complete = [values for values in by_seed.values() if len(values) == len(categories)]
    defined = [[value for value in values if not math.isnan(value)] for values in complete]
    means = [statistics.fmean(values) for values in defined if values]
    fewest = min((len(values) for values in defined if values), default=0)
    counted = f" ({fewest} of {len(categories)})" if 0 < fewest < len(categories) else ""
    return spread(means, metric) + counted


def spread(values: Sequence[float], metric: str) -> str:
    """Mean and sample standard deviation as text, in the unit of the metric."""
    if not values:
        return "–"
    scale, decimals = (1.0, DECIMALS[metric]) if metric in DECIMALS else (100.0, 1)
    text = f"{scale * statistics.fmean(values):.{decimals}f}"
    if len(values) > 1:
        text += f" ± {scale * statistics.stdev(values):.{decimals}f}"
    return text


def _unit(metric: str, title: str) -> str:
    return title if metric in DECIMALS else f"{title} (%)"


def _selected(results: Sequence[Result]) -> str:
    uses = sorted(
        {f"{result.labelled} labelled ({result.label_use})" for result in results if result.label_use}
    )
    return "; ".join(["test labels"] * any(result.on_test for result in results) + uses) or "–"


def _notes(results: Sequence[Result]) -> tuple[str, ...]:
    seeds = sorted({result.job.seed for result in results})
    notes = [f"Mean ± deviation over {len(seeds)} seeds." if len(seeds) > 1 else f"One seed ({seeds[0]})."]
    machines = sorted({str(result.report["machine"]) for result in results})
    notes.append("Machine: " + "; ".join(machines) + ".")
    counts = sorted({result.labelled for result in results} - {0})
    if counts:
        notes.append(
            f"{' or '.join(map(str, counts))} labelled anomalous pictures per category were taken out of the test, chosen by the "
            "seed; who used them is said under “selected on”."
        )
    if any(result.on_test for result in results):
        notes.append(
            "“test labels”: the epoch was selected on test labels, as published; such numbers are optimistic."
        )
    return tuple(notes)


def _sources(lines: Sequence[Published], *, whose: bool = False) -> tuple[str, ...]:
    """Sources of published values; `whose` adds weights and selection, for tables without these columns."""
    if not lines:
        return ()
    sources = [
        f"{line.name}: {line.source}" + (f" ({line.weights} weights{_on(line)})" if whose else "")
        for line in lines
    ]
    return (f"Published averages are over the whole data set. {'; '.join(sources)}.",)


def _on(line: Published) -> str:
    return "" if line.selected == "–" else f", epoch selected on {line.selected}"


def _csv(results: Sequence[Result]) -> str:
    """One row per run, one column per metric of any run."""
    names = list(dict.fromkeys(name for result in results for name in result.report["metrics"]))
    own = ["fit_seconds", "latency_ms", "peak_memory", "teacher_mean", "teacher_max", "teacher_seconds"]
    own += ["student_seconds", "final_epoch"]
    rows: list[Sequence[object]] = [
        [
            "recipe",
            "label",
            "category",
            "data_set",
            "seed",
            "weights",
            "selected_on_test_labels",
            "labelled_anomalous",
            "label_use",
            *own,
            *names,
        ]
    ]
    for result in results:
        numbers = [measured(result, name) for name in [*own, *names]]
        cells = ["" if math.isnan(number) else repr(number) for number in numbers]
        job = result.job
        rows.append(
            [
                job.recipe,
                job.name,
                job.category,
                job.target,
                job.seed,
                result.weights,
                result.on_test,
                result.labelled,
                result.label_use,
                *cells,
            ]
        )
    return as_csv(rows)
