"""report.html: a self-contained page to read on a screen, to print and to sign."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from andon.core.errors import DataError
from andon.core.region import inspected_pixels
from andon.datasets.masks import load_ground_truth
from andon.report import examples, tables
from andon.report.maps import (
    FOUND,
    TRUTH,
    case_mask,
    case_pixels,
    data_uri,
    full_map,
    heat_map,
    marked,
    png_uri,
    read_image,
    scale_uri,
)
from andon.report.report import Case, Report
from andon.report.text import DASH, milliseconds, percent, plural, printable, reason, short, unbroken

CURVES = {
    "roc_image": "ROC curve of the pictures",
    "pr_image": "Precision and recall of the pictures",
    "roc_pixel": "ROC curve of the pixels",
    "pr_pixel": "Precision and recall of the pixels",
}
"""Square figures in the order of the page, with their alternative texts."""
THUMBNAIL_SIDE = 192
"""Longest side in pixels of the oddest good images."""
SELECTIONS = {
    "budget": "training ends after a fixed budget",
    "validation": "the epoch is chosen on held-out good pictures",
    "synthetic": "the epoch is chosen on held-out good pictures and synthetic anomalies on them",
    "labels": "the epoch is chosen on held-out good and labelled anomalous pictures that are not in the test",
    "test": "the epoch was chosen on test labels",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the four views of an image."""

    title: str
    image: str
    """`data:` URI; empty if there is no image."""
    text: str = ""
    """Text in place of an image."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An image of the page with its verdict in words."""

    name: str
    verdict: str
    wrong: bool
    score: str
    facts: str
    height: int
    width: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A good image with a high score."""

    name: str
    image: str
    """`data:` URI; empty where the file is not known or cannot be read."""
    text: str


def render(report: Report, figures: Mapping[str, bytes]) -> str:
    """The page as HTML text; `figures` holds PNG content by name, as returned by `draw_figures`."""
    drawn = {name: png_uri(content) for name, content in figures.items()}
    example = examples.examples(report)
    groups = [*examples.errors(report), *([example] if example is not None else [])]
    columns, parts = tables.breakdown(report)
    return _template().render(
        report=report,
        style=Markup(_data("style.css")),
        verdict=examples.verdict(report.cases).sentence(),
        warnings=cautions(report),
        verdict_rows=tables.verdict_rows(report),
        metric_rows=tables.metric_rows(report),
        guarantee=tables.guarantee(report),
        image_threshold=f"{report.calibration.image.value:.6g}",
        pixel_threshold=f"{report.calibration.pixel.value:.6g}",
        pixel_guarantee=report.calibration.pixel.describe(),
        display_note=report.calibration.pixel_display.note,
        odd="" if report.odd is None else report.odd.describe(),
        thumbnails=thumbnails(report),
        columns=columns,
        parts=parts,
        curves=[(drawn[name], text) for name, text in CURVES.items() if name in drawn],
        scores=drawn.get("scores"),
        losses=drawn.get("loss"),
        missing=missing(report),
        groups=[
            (group.title, group.text, [_exhibit(case, report) for case in group.cases]) for group in groups
        ],
        scale=scale_uri(),
        alternatives=tables.alternative_rows(report),
        stages=tables.stage_rows(report),
        sanity_checks=tables.sanity_check_rows(report),
        costs=costs(report),
        selection=SELECTIONS.get(report.selection, report.selection),
        all_metrics=list(tables.all_metrics(report)),
    )


def cautions(report: Report) -> list[tuple[str, str]]:
    """(heading, sentence) for each limitation that a reader must know before the numbers."""
    out = []
    if report.selection == "test":
        out.append(
            (
                "Selected on test labels",
                "The epoch was chosen by its result on these test pictures. The numbers are too optimistic for new pictures; "
                "use them only to reproduce a published result.",
            )
        )
    if report.label_use:
        out.append(
            (
                "Labelled defects were used",
                f"{report.labelled} anomalous pictures were taken out of the test and used for {report.label_use}. Compare only "
                "with detectors that were evaluated on the same remaining pictures, and state that they used no labels.",
            )
        )
    if report.calibration.source == "train":
        out.append(
            (
                "No held-out pictures",
                "The thresholds were set on training pictures, so no false-reject rate is guaranteed for new good pictures. "
                "Fit again with more good pictures, so that some can be held out.",
            )
        )
    guarantee = report.calibration.image.guarantee
    if guarantee is not None and not guarantee.reached:
        out.append(("Few held-out pictures", report.calibration.image.describe()))
    if any(line.get("name") == "starter" for line in report.weights):
        out.append(
            (
                "Weights for tests",
                "The features come from the small network with which andon is tested; its licence is for research. A recipe "
                "`lite0` takes ImageNet weights under Apache-2.0, which are usually better.",
            )
        )
    return out


def thumbnails(report: Report) -> list[Thumbnail]:
    """The oddest good images behind the thresholds, the highest score first."""
    known = {record.id: record for record in report.good_images}
    out = []
    for odd in report.odd.images if report.odd is not None else ():
        image = ""
        if odd.name in known:
            with contextlib.suppress(DataError):
                read = read_image(known[odd.name].image, report.calibration.bit_depth)
                image = data_uri(read, THUMBNAIL_SIDE)
        out.append(
            Thumbnail(odd.name, image, f"score {odd.score:.2f}{', far above the rest' if odd.apart else ''}")
        )
    return out


def missing(report: Report) -> list[str]:
    """Sentences that name the curves the page lacks, and why."""
    labels = {case.record.label == 1 for case in report.cases}
    out = []
    if report.image_curve is None:
        kind = "anomalous" if True not in labels else "good"
        out.append(f"No image curves: there are no {kind} test pictures.")
    if report.pixel_curve is None:
        metric = report.metrics.get("pixel_auroc")
        why = reason(metric) if metric is not None else ""
        out.append(f"No pixel curves: {why or 'no pixel metrics were computed'}.")
    if not any(len(stage.curve) > 1 for stage in report.stages.values()):
        out.append("No loss curves: no stage of this detector recorded one.")
    return out


def costs(report: Report) -> list[tuple[str, str]]:
    """Size and speed as (name, value)."""
    tiles = [] if report.tiling is None else [("tiles", report.tiling.describe())]
    each = "picture" if report.tiling is None else "tile"
    rows = [
        *tiles,
        ("input", f"{report.input_size[1]} × {report.input_size[0]} pixels"),
        ("parameters", short(report.parameters)),
        (f"multiply-adds per {each}", short(report.multiply_adds)),
    ]
    if report.latency is not None:
        found = report.latency
        rows += [
            ("time per picture, median (p50)", milliseconds(found.p50)),
            ("time per picture, 95 % within (p95)", milliseconds(found.p95)),
            (
                "time per picture, mean",
                f"{milliseconds(found.mean)} ({plural(found.n, 'call')}, one picture at a time)",
            ),
            ("pictures per second, from the mean", f"{found.throughput:.3g}"),
        ]
    else:
        rows.append(("time per picture", "not measured"))
    return [*rows, ("machine", report.machine or DASH)]


# --- images -----------------------------------------------------------------------------------------------


def _exhibit(case: Case, report: Report) -> Exhibit:
    image, raw = case_pixels(case), full_map(case, report.calibration)
    inside = inspected_pixels(case.record, case.size)
    shown = np.asarray(report.calibration.pixel_display(raw), np.float32)
    mask = case_mask(case, raw, report.calibration)
    anomalous = case.record.label == 1
    panels = (
        Panel("picture", data_uri(image)),
        Panel("heat map", data_uri(heat_map(image, shown, inside))),
        Panel("marked by the detector", data_uri(marked(image, mask, FOUND))),
        _truth(case, image),
    )
    kind = (case.record.defect_type or "anomalous") if anomalous else "good"
    return Exhibit(
        name=case.record.id,
        verdict=f"{kind}, {'called anomalous' if case.is_anomalous else 'called good'}",
        wrong=anomalous != case.is_anomalous,
        score=f"{case.score:.2f}",
        facts=f"largest map value {float(shown.max()):.2f}, {percent(float(mask.mean()))} of the pixels marked",
        height=case.size[0],
        width=case.size[1],
        panels=panels,
    )


def _truth(case: Case, image: Any) -> Panel:
    title = "ground truth"
    if case.record.label != 1:
        return Panel(title, "", "good: no defect")
    if not case.has_mask:
        return Panel(title, "", "no mask was given, or it marks no inspected pixel")
    return Panel(title, data_uri(marked(image, load_ground_truth(case.record, case.size).union, TRUTH)))


# --- template -----------------------------------------------------------------------------------------------


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: unbroken(printable(value)) if type(value) is str else value,
    )
    return environment.from_string(_data("template.html.j2"))


def _data(name: str) -> str:
    return resources.files("andon.report").joinpath(name).read_text(encoding="utf-8")
