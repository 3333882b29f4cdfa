"""Published rows: they can be planned as written, their averages follow from their categories, and the table compares right."""

from __future__ import annotations

import math
import statistics

import pytest
from conftest import ROOT
from made_results import make_result

from andon.core.errors import ConfigError, DataError
from andon.datasets.published.counts import MVTEC_AD
from andon.detectors._recipes import load_recipe, resolve
from andon.experiments import reproduction as module
from andon.experiments import sweep as sweeps
from andon.experiments.reproduction import (
    AVERAGE,
    Reproduction,
    load_reproduction,
    plan_reproduction,
    reproduction_names,
    reproduction_table,
)

PAPER_BESIDE_OTHERS = {"padim-r18", "padim-wrn50", "efficientad-s", "efficientad-m"}
"""Rows whose averages are the paper's and whose categories are another implementation's."""


@pytest.mark.parametrize("name", reproduction_names())
def test_a_row_can_be_planned_as_it_is_written(name):
    row = load_reproduction(name)
    resolved = resolve(load_recipe(row.recipe), row.set)
    assert row.published
    assert all(0 < value <= 100 for values in row.published.values() for value in values.values())
    weights = str(resolved.config)
    assert "starter" not in weights
    assert row.estimate
    assert len(row.published.keys() - {AVERAGE}) <= row.categories


@pytest.mark.parametrize("name", reproduction_names())
def test_averages_follow_from_the_categories(name):
    """Where a source prints all categories, their mean is the printed average, to the rounding of both."""
    row = load_reproduction(name)
    for metric, average in row.published.get(AVERAGE, {}).items():
        values = [v[metric] for c, v in row.published.items() if c != AVERAGE and metric in v]
        if len(values) == row.categories:
            allowed = 1.05 if name in PAPER_BESIDE_OTHERS else 0.11
            assert statistics.fmean(values) == pytest.approx(average, abs=allowed), metric
    if row.dataset == "mvtec_ad":
        assert row.published.keys() - {AVERAGE} <= set(MVTEC_AD)


def tiny_row(**changes: object) -> Reproduction:
    values: dict[str, object] = {
        "title": "PaDiM, two cloths",
        "source": "nowhere",
        "dataset": "mvtec_ad",
        "recipe": "padim/starter",
        "set": {"hold_out": False},
        "categories": 2,
        "published": {"fabric": {"image_auroc": 90.0}, AVERAGE: {"image_auroc": 88.0, "pixel_auroc": 97.0}},
        "estimate": "a second",
        "note": "Take care.",
    }
    return Reproduction.parse(values | changes)


def test_the_table_compares_means_over_seeds():
    results = [
        make_result("padim/starter", category, seed, auroc=value)
        for (category, seed), value in {
            ("fabric", 0): 0.90,
            ("fabric", 1): 0.94,
            ("bolt", 0): 0.80,
            ("bolt", 1): 0.70,
        }.items()
    ]
    table = reproduction_table(tiny_row(), results)
    assert table.columns[:4] == ("category", "im AUROC", "im AUROC, published", "im AUROC, difference")
    assert table.rows == (
        ("fabric", "92.0", "90.0", "+2.0", "95.0", "–", "–"),
        ("bolt", "75.0", "–", "–", "95.0", "–", "–"),
        (AVERAGE, "83.5", "88.0", "-4.5", "95.0", "97.0", "-2.0"),
    )
    assert table.notes[-1] == "Take care."


def test_an_incomplete_average_is_not_measured_and_test_selection_is_said():
    table = reproduction_table(
        tiny_row(), [make_result("padim/starter", "fabric", auroc=math.nan, selected=True)]
    )
    assert table.rows == (
        ("fabric", "–", "90.0", "–", "95.0", "–", "–"),
        (AVERAGE, "–", "88.0", "–", "–", "97.0", "–"),
    )
    assert any("1 of 2 categories" in note for note in table.notes)
    assert any("optimistic" in note for note in table.notes)


def test_other_data_is_refused():
    row = tiny_row(published={"carpet": {"image_auroc": 90.0}})
    with pytest.raises(DataError, match=r"needs mvtec_ad, and embedded:.* lacks carpet"):
        plan_reproduction(row, "embedded:fabric,profile=tiny,size=128")
    with pytest.raises(DataError, match="is laid out as mvtec_ad"):
        plan_reproduction(tiny_row(dataset="visa"), "embedded:fabric,profile=tiny,size=128")
    with pytest.raises(ConfigError, match="did you mean patchcore-10"):
        load_reproduction("patchcore-100")


def test_command(cli, monkeypatch, tmp_path):
    listed = cli("reproduce")
    assert all(name in listed.out for name in reproduction_names())
    assert "needs its data: `andon reproduce ast DATA`" in cli("reproduce", "ast").complaint()
    monkeypatch.setattr(module, "load_reproduction", lambda name: tiny_row())
    monkeypatch.setattr(
        sweeps, "finished", lambda job, out: make_result(job.recipe, job.category, job.seed, auroc=0.95)
    )
    done = cli(
        "reproduce", "own", "embedded:fabric,profile=tiny,size=128", "--out", tmp_path / "r", "--seeds", "2"
    )
    assert done.code == 0
    assert "| fabric | 95.0 | 90.0 | +5.0 |" in done.out
    assert (tmp_path / "r" / "published.tex").is_file()
    assert (tmp_path / "r" / "results.csv").is_file()


def test_the_documentation_names_every_row():
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for name in reproduction_names():
        row = load_reproduction(name)
        assert f"| `{name}` | {row.title} | `{row.recipe}` | {row.estimate} |" in page
