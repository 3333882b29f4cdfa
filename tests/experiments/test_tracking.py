"""Trackers show what the run folder holds: every curve point, every number, once; read back with the libraries' own readers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from andon.core.errors import AndonError, ConfigError, DataError
from andon.experiments import sweep as sweeps
from andon.experiments.sweep import Job, sweep
from andon.experiments.trackers import open_tracker, read_tracked_run
from andon.runs.folder import clear

REPORT = {
    "metrics": {
        "image_auroc": {"value": 0.9375},
        "image_auroc@stain": {"value": 0.5},
        "aupro_0.30": {"value": None},
        "aupimo": {"value": math.nan},
    },
    "thresholds": {"image": {"value": 8.5, "rule": "conformal", "oracle": False}},
    "teacher": {},
    "time": {"fit_seconds": 12.5, "stages": {"student": {"seconds": 3, "kept_epoch": None}}},
    "latency_ms": {"p50": 4.25, "machine": "a machine"},
    "parameters": 683072,
}


@pytest.fixture
def reported(own_run: Path) -> Path:
    (own_run / "report.json").write_text(json.dumps(REPORT).replace("NaN", "null"))
    return own_run


def expected_losses(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Straight from training.json."""
    found: dict[str, list[tuple[int, float]]] = {}
    for stage, values in json.loads((run / "training.json").read_text()).items():
        for point in values["curve"]:
            for term in point.keys() - {"step"}:
                found.setdefault(f"loss/{stage}/{term}", []).append((int(point["step"]), point[term]))
    assert found
    return found


NUMBERS = {
    "test/image_auroc": 0.9375,
    "test/image_auroc@stain": 0.5,
    "thresholds.image.value": 8.5,
    "time.fit_seconds": 12.5,
    "time.stages.student.seconds": 3.0,
    "latency_ms.p50": 4.25,
    "parameters": 683072.0,
}


def test_what_is_shown_of_a_run(reported):
    shown = read_tracked_run(reported)
    assert shown.numbers == NUMBERS
    assert shown.name.startswith("efficientad_ast/starter")
    assert shown.name.endswith("seed 0")
    assert shown.settings["student.width"] == "16"
    assert shown.settings["weights"] == "random"
    assert "version.torch" in shown.settings
    (reported / "report.json").unlink()
    assert read_tracked_run(reported).numbers == {}
    with pytest.raises(DataError, match="not a run folder"):
        read_tracked_run(reported / "detector")


def test_judged_epochs_are_curves_too(reported):
    stages = json.loads((reported / "training.json").read_text())
    stages["student"] = {
        **next(iter(stages.values())),
        "curve": [{"step": 1.0, "a": None}],
        "judged": [{"epoch": 2.0, "b": 0.5}],
    }
    (reported / "training.json").write_text(json.dumps(stages))
    points = [point for point in read_tracked_run(reported).curves if "/student/" in point.name]
    assert [(p.name, p.step, p.value) for p in points] == [("judged/student/b", 2, 0.5)]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(reported):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    show = open_tracker("tensorboard")
    show(reported)
    show(reported)  # again: once all the same
    (events,) = (reported / "tensorboard").iterdir()
    read = EventAccumulator(str(events), size_guidance={"scalars": 0})
    read.Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    wanted = expected_losses(reported) | {name: [(0, value)] for name, value in NUMBERS.items()}
    assert found.keys() == wanted.keys()
    for tag, points in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points]
        assert [v for _, v in found[tag]] == pytest.approx([v for _, v in points], rel=1e-6)
    clear(reported)
    assert not (reported / "tensorboard").exists()


@pytest.mark.filterwarnings("ignore")
def test_mlflow(reported, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    uri = f"file://{tmp_path}/tracked"
    show = open_tracker(f"mlflow:{uri}")
    show(reported)
    show(reported)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(f"andon {read_tracked_run(reported).dataset}")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == read_tracked_run(reported).name
    assert run.data.params["student.width"] == "16"
    plain = {name.replace("@", "."): value for name, value in NUMBERS.items()}
    assert {name: run.data.metrics[name] for name in plain} == plain
    for name, points in expected_losses(reported).items():
        history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        assert history == points


def test_unknown_trackers_and_missing_libraries(monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown tracker 'mlfow'; did you mean mlflow\?"):
        open_tracker("mlfow")
    with pytest.raises(ConfigError, match="takes no place"):
        open_tracker("tensorboard:elsewhere")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    for name in ("tensorboard", "mlflow"):
        with pytest.raises(ConfigError, match=r'pip install "andon\[track\]"'):
            open_tracker(name)


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_is_said_in_one_line(reported, monkeypatch):
    pytest.importorskip("mlflow")
    from andon.experiments import trackers as tracking

    def refuse(*_: Any) -> None:
        from mlflow.exceptions import MlflowException

        raise MlflowException("the server is away. Try later.\nand more")

    monkeypatch.setattr(tracking, "_send", refuse)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with pytest.raises(AndonError, match=r"did not take .*\(the server is away\).* shows it again"):
        open_tracker(f"mlflow:file://{reported}/x")(reported)


def test_command(cli, own_run, monkeypatch):
    shown: list[Path] = []
    monkeypatch.setattr("andon.experiments.trackers.open_tracker", lambda name: shown.append)
    monkeypatch.setattr(
        "andon.runs.evaluate.evaluate_run",
        lambda *_, **__: SimpleNamespace(to_json=lambda: {"seen": str(shown)}),
    )
    found = cli("evaluate", own_run, "--track", "tensorboard", "--json")
    assert (found.code, shown) == (0, [own_run])  # once, after the evaluation
    assert '"seen": "[]"' not in found.out


def test_a_sweep_shows_each_run_it_completes(tmp_path, monkeypatch):
    jobs = [Job("padim/starter", "data", "fabric", "auto", seed) for seed in range(4)]
    monkeypatch.setattr(sweeps, "finished", lambda job, out: object() if job.seed == 0 else None)
    shown: list[Path] = []
    sweep(
        jobs,
        tmp_path,
        runner=lambda left, out, device: ((job, "bad" if job.seed == 2 else "") for job in left),
        after=shown.append,
    )
    assert shown == [jobs[1].folder(tmp_path), jobs[3].folder(tmp_path)]
