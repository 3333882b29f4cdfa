"""`andon demo`: what it learns from by default, and `--all`, which continues."""

from __future__ import annotations

import json

from conftest import names
from made_results import make_result

from andon.cli.demo import FLASH
from andon.core.files import write_json, write_text
from andon.datasets import open_dataset
from andon.datasets.embedded import CATEGORIES
from andon.experiments.sweep import Job, _identity


def test_demo_takes_the_default_detector_and_photographs(cli, tmp_path, monkeypatch):
    taken = []

    def fit_run(out, source, recipe, **options):
        taken.append((str(out), source.path, recipe.name, recipe.exclude))
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("andon.runs.fit.fit_run", fit_run)
    said = cli("demo").err
    assert taken == [("runs/demo", "embedded:cookies", "east/lite0", (FLASH,))]
    assert f"left out: {FLASH}" in said
    for command in (["demo", "--set", "exclude=[]"], ["demo", "embedded:fabric"]):
        assert "left out" not in cli(*command).err
        assert taken.pop()[3] == ()
    assert len(open_dataset("embedded:cookies", exclude=[FLASH]).excluded) == 1


def test_demo_all_makes_every_run_and_continues(cli, tmp_path, monkeypatch):
    made: list[Job] = []

    def runner(jobs, out, device):
        for job in jobs:
            made.append(job)
            finish(job, out)
            yield job, ""

    monkeypatch.setattr("andon.experiments.sweep.one_by_one", runner)
    outcome = cli("demo", "--all", "--out", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    first = list(made)
    assert {job.category for job in first} == {"cookies", *CATEGORIES}
    assert first[0].category == "cookies"
    assert {job.recipe.split("/")[0] for job in first} >= {"east", "patchcore", "efficientad_ast"}
    assert len(first) == json.loads(outcome.out)["runs"]
    assert {"tables.md", "results.csv"} <= set(names(tmp_path))
    (first[3].folder(tmp_path) / "result.json").unlink()
    made.clear()
    assert cli("demo", "--all", "--out", tmp_path).code == 0
    assert made == [first[3]]


def test_demo_all_takes_everything(cli, tmp_path):
    for options in (["x"], ["--detector", "padim"], ["--recipe", "starter"], ["--set", "seed=1"]):
        assert "leave DATA, --detector, --recipe and --set out" in cli("demo", "--all", *options).complaint()


def finish(job: Job, out) -> None:
    """Write what a finished run of `andon benchmark` leaves, as far as tables read it."""
    write_json(
        job.folder(out) / "report.json",
        make_result(job.recipe, job.category).report | {"images": {"evaluated": 0}},
    )
    write_text(job.folder(out) / "predictions.csv", "id,label,raw_score\n")
    write_json(job.folder(out) / "result.json", {"job": _identity(job), "peak_memory": 1})
