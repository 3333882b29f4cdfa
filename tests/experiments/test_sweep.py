"""Sweeps: what is planned, what is made again and what is not, and the tables over the results."""

from __future__ import annotations

import csv
import json
import math
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from made_results import make_result
from tiny import TINY

from andon.core.errors import ConfigError, DataError, InterruptedRun
from andon.core.files import write_json, write_text
from andon.datasets.embedded import CATEGORIES
from andon.experiments import sweep as module
from andon.experiments.comparison import TEXTURES, comparison, per_category, spread, write_tables
from andon.experiments.published import published_for
from andon.experiments.reproduction import load_reproduction
from andon.experiments.sweep import DamagedRunWarning, Job, budgeted, finished, plan, run_job, sweep
from andon.experiments.tables import Table

DATA = "embedded:fabric,profile=tiny,size=128"


def test_plan_takes_default_recipes_and_all_categories():
    jobs = plan("embedded:", ["east", "east/lite0"], seeds=2)
    assert {job.recipe for job in jobs} == {"east/lite0"}
    assert {job.category for job in jobs} == {*CATEGORIES}
    assert [job.seed for job in jobs] == [0] * len(CATEGORIES) + [1] * len(CATEGORIES)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"recipes": ["padimm"]}, ConfigError, "padimm"),
        ({"recipes": ["efficientad_ast/startr"]}, ConfigError, "efficientad_ast/starter"),
        ({"recipes": []}, ConfigError, "no detector is named"),
        ({"recipes": ["efficientad_ast"], "seeds": 0}, ConfigError, "seeds is 0: a number from 1"),
        ({"recipes": ["efficientad_ast"], "seeds": 10**20}, ConfigError, "a number from 1 to 1,000 is"),
        ({"recipes": ["efficientad_ast"], "categories": ["fabrik"]}, DataError, "did you mean fabric"),
        ({"recipes": ["efficientad_ast"], "settings": {"epoch": 1}}, ConfigError, "did you mean"),
    ],
)
def test_plan_refuses_unknown_names(arguments, error, words):
    with pytest.raises(error, match=words):
        plan("embedded:fabric", **arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::andon.thresholds.display.DegenerateRangeWarning")  # one held-out picture
def test_a_job_is_run_once_and_continued(tmp_path, monkeypatch):
    settings = TINY["efficientad_ast"] | {"epochs": 2, "teacher.epochs": 2}
    job = Job("efficientad_ast/starter", DATA, "fabric", "auto", 0, settings)
    other = Job("efficientad_ast/starter", DATA, "fabric", "auto", 1, settings)
    assert finished(job, tmp_path) is None
    made = []

    def here(each: Job, out, device: str) -> str:
        made.append(each.seed)
        if each.seed == 1:
            return "the pictures ran away"
        run_job(each, out, device)
        return ""

    monkeypatch.setattr(module, "_in_own_process", here)
    outcome = sweep([job, other], tmp_path)
    assert made == [0, 1]
    assert list(outcome.failures.values()) == ["the pictures ran away"]
    (done,) = outcome.results
    assert 0 <= done.value("image_auroc") <= 1
    assert done.peak_memory > 50_000_000
    sweep([job, other], tmp_path)
    assert made == [0, 1, 1]
    changed = Job(job.recipe, job.data, job.category, job.layout, job.seed, {**settings, "epochs": 3})
    with pytest.raises(ConfigError, match="other data or settings"):
        sweep([changed], tmp_path)


def test_results_of_images_that_changed_are_not_taken_over(own_dataset, tmp_path):
    job = Job("padim/starter", str(own_dataset), "cloth", "auto", 1, TINY["padim"])
    run_job(job, tmp_path / "out")
    assert finished(job, tmp_path / "out") is not None
    image = own_dataset / "test/good/000.png"
    before = image.read_bytes()
    image.write_bytes((own_dataset / "test/good/001.png").read_bytes())
    with pytest.raises(
        ConfigError, match=r"cloth changed since .*: bring them back, or choose another --out"
    ):
        finished(job, tmp_path / "out")
    image.write_bytes(before)
    assert finished(job, tmp_path / "out") is not None
    (own_dataset / "train/good/000.png").unlink()
    with pytest.raises(ConfigError, match="changed since"):
        finished(job, tmp_path / "out")


@pytest.mark.slow
def test_a_job_in_its_own_process(tmp_path):
    job = Job("efficientad_ast/starter", DATA, "fabric", "auto", 0, TINY["efficientad_ast"])
    outcome = sweep([job], tmp_path)
    assert not outcome.failures
    assert outcome.results[0].peak_memory > 100_000_000


@pytest.mark.slow
def test_a_failing_process_is_named(tmp_path):
    job = Job("efficientad_ast/starter", "embedded:nothing", "", "auto", 0)
    outcome = sweep([job], tmp_path)
    assert "unknown embedded data set" in next(iter(outcome.failures.values()))
    assert outcome.results == []


@pytest.mark.slow
def test_sigterm_stops_the_run_too(tmp_path):
    """The run under way is told and keeps its state; nothing is left running."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from andon.cli.main import main; main()", "benchmark", DATA]
    options = ["--detectors", "efficientad_ast/starter", "--categories", "fabric", "--out", str(out)]
    process = subprocess.Popen(command + options, stderr=subprocess.PIPE, text=True)
    run = out / "runs/efficientad_ast-starter/fabric/seed-0"
    deadline = time.monotonic() + 60
    while not (run / "checkpoints").is_dir() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped; the same command continues" in said
    assert (run / "checkpoints").is_dir()


def test_interruption_is_passed_on(tmp_path, monkeypatch):
    """What `recv` raises on Ctrl-C ends the job's process and the sweep."""
    ended = []

    class Context:
        def Pipe(self, duplex):  # noqa: N802
            return Interrupted(), Interrupted()

        def Process(self, **_):  # noqa: N802
            return SimpleNamespace(
                start=lambda: None, terminate=lambda: ended.append("told"), join=lambda: ended.append("gone")
            )

    monkeypatch.setattr(module, "get_context", lambda _: Context())
    with pytest.raises(InterruptedRun, match="same command continues"):
        sweep([Job("efficientad_ast/starter", DATA, "fabric", "auto", 0)], tmp_path)
    assert ended == ["told", "gone"]


class Interrupted:
    def recv(self) -> None:
        raise KeyboardInterrupt

    def close(self) -> None: ...


def test_deviation_is_over_seeds_of_category_means():
    results = [
        make_result(category=category, seed=seed, auroc=value)
        for seed, values in enumerate([(0.9, 0.7), (0.8, 0.9), (1.0, 0.65)])
        for category, value in zip(("fabric", "bolt"), values, strict=True)
    ]
    table = comparison(results)[0]
    assert table.columns[:4] == ("detector", "fabric", "bolt", "all")
    means = [80.0, 85.0, 82.5]
    assert table.rows[0][3] == f"{statistics.fmean(means):.1f} ± {statistics.stdev(means):.1f}"
    assert table.rows[0][1] == "90.0 ± 10.0"
    assert table.rows[0][-2:] == ("starter", "–")


def test_an_incomplete_seed_does_not_enter_an_average():
    results = [
        make_result(category="fabric"),
        make_result(category="bolt"),
        make_result(category="fabric", seed=1),
    ]
    assert comparison(results)[0].rows[0][3] == "90.0"


def test_an_undefined_category_is_left_out_of_an_average_and_counted():
    results = [make_result(category="fabric"), make_result(category="bolt", auroc=math.nan)]
    assert comparison(results)[0].rows[0][1:4] == ("90.0", "–", "90.0 (1 of 2)")


def test_the_official_headlines_stand_side_by_side():
    values = {"image_auroc@mean": 0.8, "image_auroc@logical": 0.7, "image_auroc@structural": 0.9}
    table = comparison([make_result(**values, **{"auspro_0.05@mean": 0.5})])[-1]
    assert table.columns[1:5] == ("mean", "logical", "structural", "AU-sPRO mean")
    assert table.rows[0][1:5] == ("80.0", "70.0", "90.0", "50.0")


def test_undefined_metrics_are_dashes_and_test_selection_is_said():
    table = comparison([make_result(selected=True, **{"aupro_0.30": math.nan})])[2]
    assert table.rows[0][1] == "–"
    assert table.rows[0][-1] == "test labels"
    assert any("optimistic" in note for note in table.notes)


def test_published_rows_stand_beside_measured_ones():
    own = per_category([make_result("padim/starter", "bottle", dataset="mvtec_ad")], "padim/starter")
    assert (own.rows[-1][0], own.rows[-1][1], own.rows[-1][2]) == ("PaDiM (published)", "97.9", "95.0")
    loco = comparison(
        [
            make_result(
                "ast/starter",
                "pushpins",
                dataset="mvtec_loco",
                **{"image_auroc@mean": 0.8, "image_auroc@logical": 0.7, "image_auroc@structural": 0.9},
            )
        ]
    )[-1]
    assert loco.rows[0][:4] == ("ast/starter", "80.0", "70.0", "90.0")
    assert ("PatchCore (published)", "80.3", "75.8", "84.8") in [row[:4] for row in loco.rows]
    thesis = next(row for row in loco.rows if row[0] == "EfficientAD-S (thesis' run) (published)")
    assert thesis[2:4] == ("86.1", "94.2")  # printed 95.8


def test_published_averages_stand_below_measured_ones_by_texture_and_object():
    """The published averages on MVTec AD, printed errors corrected."""
    several = [
        make_result("padim/starter", category, dataset="mvtec_ad")
        for category in ("bottle", "carpet", "wood")
    ]
    image, pixel, *rest = comparison(several)
    assert image.columns == (
        "detector",
        "bottle",
        "carpet",
        "wood",
        "all",
        "texture",
        "object",
        "weights",
        "selected on",
    )
    rows = {row[0]: row[1:] for row in image.rows}
    assert rows["padim/starter"][-2:] == ("starter", "–")
    assert rows["PaDiM (published)"] == ("–", "–", "–", "95.0", "98.1", "93.4", "ImageNet", "–")
    assert rows["EfficientAD-AST (published)"][3:] == (
        "97.0",
        "99.2",
        "95.9",
        "ImageNet",
        "test labels",
    )  # not 95.4
    assert "Uninformed Students (published)" not in {row[0] for row in pixel.rows}  # the printed 88.4 is none
    assert all(
        "(published)" not in row[0] for table in rest[1:] for row in table.rows
    )  # seconds do not compare
    (note,) = [note for note in image.notes if note.startswith("Published")]
    assert "over the whole data set" in note
    assert "PaDiM: anomalib, WRN50-2" in note
    single = comparison(several[:1])[0]
    assert len(single.rows) == 1  # nothing is averaged, so nothing stands beside it


def test_nothing_published_stands_beside_data_that_only_looks_alike():
    """A user's own folders in the layout of MVTec AD."""
    own = [make_result("padim/starter", category, dataset="mvtec_ad") for category in ("bottle", "my_part")]
    for table in (*comparison(own), per_category(own, "padim/starter")):
        assert "(published)" not in table.markdown()


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("efficientad-ast", "EfficientAD-AST"),
        ("efficientad-s-thesis", "EfficientAD-S (thesis' run)"),
        ("padim-wrn50", "PaDiM"),
        ("spade-repository", "SPADE"),
        ("patchcore-25", "PatchCore 25 %"),
        ("ast", "AST"),
    ],
)
def test_published_texture_and_object_averages_follow_from_the_categories(row, name):
    categories = load_reproduction(row).published
    line = next(line for line in published_for("mvtec_ad") if line.name == name)
    for group, values in (("texture", line.texture), ("object", line.object)):
        members = [c for c in categories if c != "average" and (c in TEXTURES) == (group == "texture")]
        for metric, average in values.items():
            printed = [categories[c][metric] for c in members if metric in categories[c]]
            if len(printed) == len(members):
                assert statistics.fmean(printed) == pytest.approx(average, abs=0.06), (group, metric)


def test_columns_of_the_published_tables():
    """Tables 3 to 6: pixel and image quality, latency, times of both stages, the epoch that was kept, the teacher."""
    run = make_result(
        "efficientad_ast/published",
        "bottle",
        dataset="mvtec_ad",
        selected=True,
        pixel_f1=0.3,
        pixel_recall=0.6,
        pixel_precision=0.2,
        image_f1=0.9,
        image_recall=0.8,
        image_precision=0.7,
    )
    stages = {"teacher": {"seconds": 30.0}, "student": {"seconds": 20.0, "epochs": 12, "kept_epoch": 2}}
    run.report["time"]["stages"] = stages
    run.report["teacher"].update(auroc_mean=0.99, auroc_max=0.98)
    table = per_category([run], "efficientad_ast/published")
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    quality = "px AUROC 95.0, px F1 30.0, px recall 60.0, px precision 20.0, im AUROC 90.0, im F1 90.0, im recall 80.0"
    costs = "im precision 70.0, latency (ms) 20.0, fit (s) 12, student (s) 20, final epoch 2.0"
    teacher = "T AUC mean 99.0, T AUC max 98.0, teacher (s) 30"
    expected = [text.rsplit(" ", 1) for text in f"{quality}, {costs}, {teacher}".split(", ")]
    assert list(shown.items()) == [("category", "bottle"), *map(tuple, expected)]
    printed = dict(zip(table.columns, table.rows[-1], strict=True))
    assert (printed["student (s)"], printed["final epoch"], printed["teacher (s)"]) == (
        "2326.4",
        "9.4",
        "3783.3",
    )
    assert any("ImageNet weights, epoch selected on test labels" in note for note in table.notes)


def test_files(tmp_path):
    write_tables([make_result(), make_result(seed=1, auroc=0.8)], tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [float(row["image_auroc"]) for row in rows] == [0.9, 0.8]
    assert rows[0]["teacher_max"] == ""
    cells = list(csv.DictReader((tmp_path / "tables.csv").read_text().splitlines()))
    assert {
        "table": "image AUROC (%)",
        "row": "padim/starter",
        "column": "fabric",
        "value": "85.0 ± 7.1",
    } in cells
    assert "85.0 ± 7.1" in (tmp_path / "tables.md").read_text()
    latex = (tmp_path / "tables.tex").read_text()
    assert "85.0 $\\pm$ 7.1" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}")


def test_latex_escapes_and_markdown_shape():
    table = Table("a_b", ("x", "y"), (("1 %", "2 & 3"),), ("note_1",))
    assert "1 \\% & 2 \\& 3 \\\\" in table.latex()
    assert "\\caption{a\\_b}" in table.latex()
    assert table.markdown().splitlines()[2:5] == ["| x | y |", "|---|---|", "| 1 % | 2 & 3 |"]


def test_spread_units():
    assert spread([0.5], "image_auroc") == "50.0"
    assert spread([12.4, 12.6], "fit_seconds") == "12 ± 0"
    assert spread([], "latency_ms") == "–"


def test_command(tmp_path, monkeypatch, cli):
    arguments = (
        "benchmark",
        "embedded:fabric",
        "--detectors",
        "efficientad_ast/starter",
        "--out",
        tmp_path / "b",
    )
    monkeypatch.setattr(module, "_in_own_process", lambda *_: "no")
    refused = cli(*arguments)
    assert refused.code == 1
    assert "no run succeeded" in refused.err
    monkeypatch.setattr(
        module, "finished", lambda job, out: make_result("efficientad_ast/starter", seed=job.seed)
    )
    done = cli(*arguments, "--seeds", "2", "--json")
    assert done.code == 0
    assert json.loads(done.out)["runs"] == 2
    assert (tmp_path / "b" / "tables.tex").is_file()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            (name, content)
            for name in ("result.json", "report.json")
            for content in ("", "{", "{}", "[]", "[" * 100_000)
        ),
        ("report.json", None),
        ("report.json", '{"metrics": {"image_auroc": 5}}'),
        ("predictions.csv", "id,label,raw_score\na,0,0."),
        ("predictions.csv", None),
    ],
    ids=range(14),
)
def test_a_finished_run_with_a_damaged_file_is_made_again(tmp_path, monkeypatch, name, content):
    job, other = (Job("padim/starter", DATA, "fabric", "auto", seed) for seed in (0, 1))
    made = []

    def finish(each: Job, out, device: str) -> str:
        made.append(each.seed)
        run = each.folder(out)
        write_json(run / "report.json", make_result().report | {"images": {"evaluated": 1}})
        write_text(run / "predictions.csv", "id,label,raw_score\na,0,0.5\n")
        write_json(run / "result.json", {"job": module._identity(each), "peak_memory": 1})
        return ""

    monkeypatch.setattr(module, "_in_own_process", finish)
    assert len(sweep([job, other], tmp_path).results) == 2
    file = job.folder(tmp_path) / name
    file.unlink() if content is None else file.write_text(content)
    with pytest.warns(DamagedRunWarning) as said:
        outcome = sweep([job, other], tmp_path)
    assert [str(each.message) for each in said] == [
        f"{file} is missing or damaged, so the run counts as not finished and is made again"
    ]
    assert (made, len(outcome.results)) == ([0, 1, 0], 2)
    file.unlink()
    if name != "result.json":
        monkeypatch.setattr(module, "_in_own_process", lambda *_: "the disk is full")
        with pytest.warns(DamagedRunWarning) as said:
            outcome = sweep([job, other], tmp_path)
        assert (len(said), len(outcome.failures), len(outcome.results)) == (1, 1, 1)


def test_budget_scales_every_count_of_epochs_and_steps_but_not_what_was_set():
    assert budgeted("padim/starter", 0.25, {}) == {}
    changes = budgeted("efficientad_ast/starter", 0.25, {"epochs": 5})
    assert changes == {"teacher.epochs": 3, "epochs": 5}
    assert budgeted("efficientad/starter", 0.001, {})["steps"] == 2
    assert budgeted("efficientad/starter", 1.0, {}) == {}


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "1e308"])
@pytest.mark.parametrize("command", ["benchmark", "ablate"])
def test_a_budget_that_no_training_can_have(command, budget, tmp_path, cli):
    refused = cli(command, DATA, "--budget", budget, "--out", tmp_path / "out")
    assert "a share of the recipe's training above 0" in refused.complaint()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["benchmark", "--detectors", ","], "--detectors ',' names none: give names"),
        (["benchmark", "--detectors", ""], "--detectors '' names none"),
        (["benchmark", "--categories", ","], "--categories ',' names none"),
        (["benchmark", "--seeds", "-2"], "seeds is -2: a number from 1 to 1,000 is needed"),
        (["ablate", "--seeds", "0"], "seeds is 0: a number from 1 to 1,000 is needed"),
        (["ablate", "--seeds", "-2"], "seeds is -2"),
    ],
)
def test_a_sweep_of_nothing_is_refused_and_finished_tables_stay(arguments, words, tmp_path, cli):
    (tmp_path / "ablation.md").write_text("a finished table")
    assert words in cli(arguments[0], DATA, *arguments[1:], "--out", tmp_path).complaint()
    assert (tmp_path / "ablation.md").read_text() == "a finished table"


@pytest.mark.parametrize("command", ["benchmark", "ablate"])
def test_a_seed_is_no_setting_of_a_sweep(command, tmp_path, cli):
    said = cli(command, DATA, "--set", "seed=7", "--out", tmp_path / "out").complaint()
    assert "seed=7 cannot be set for many runs: seeds are set by --seeds" in said
    assert not (tmp_path / "out").exists()


def test_taps_that_one_of_the_networks_lacks_are_refused_before_the_first_run():
    settings = {"extractor.taps": ["layer2"]}
    plan(DATA, ["padim/starter"], settings=settings)
    plan(DATA, ["ast/starter"], settings={"mode": "depth", "extractor.taps": ["blocks.4"]})  # has no backbone
    with pytest.raises(ConfigError) as caught:
        plan(DATA, ["efficientad_ast/starter", "efficientad_ast/lite0"], settings=settings)
    network = "network tf_efficientnet_lite0 has no tap 'layer2'; its stages: blocks.0, "
    assert str(caught.value).startswith(f"recipe efficientad_ast/lite0 with these settings: {network}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("no"), "1 of 2 runs failed, 1 of them for a reason that lasts: change what"),
        (DataError("no"), "1 of 2 runs failed; the same command tries them again"),
    ],
)
def test_what_fails_for_its_settings_is_not_said_to_be_worth_another_try(
    error, words, tmp_path, cli, monkeypatch
):
    failed = []
    messages = SimpleNamespace(send=failed.append)

    def fail(*_):
        raise error

    monkeypatch.setattr(module, "run_job", fail)
    job = Job("padim/starter", DATA, "fabric", "auto", 0)
    module._run_in_child(messages, job, tmp_path, "cpu")
    outcome = module.Outcome([make_result(seed=1)], {"seed-0": failed[0]})
    monkeypatch.setattr(module, "sweep", lambda *_, **__: outcome)
    refused = cli("benchmark", DATA, "--detectors", "padim/starter", "--out", tmp_path)
    assert (refused.code, words in refused.err) == (1, True), refused.err
    again = isinstance(error, ConfigError)
    assert ("seed-0: no; this run fails again until that is changed" in refused.err) == again


def test_an_ablation_without_a_result_leaves_the_tables_of_the_one_before(tmp_path, cli, monkeypatch):
    (tmp_path / "ablation.md").write_text("a finished table")
    monkeypatch.setattr(module, "_in_own_process", lambda *_: "the disk is full")
    refused = cli("ablate", DATA, "--out", tmp_path)
    assert (refused.code, "no run succeeded" in refused.err) == (1, True)
    assert (tmp_path / "ablation.md").read_text() == "a finished table"
