"""Work on a Ray cluster: the same results as here, whatever nodes are lost, with and without a shared disk."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import texture, write_picture
from tiny import TINY

from andon.core.errors import ConfigError, InterruptedRun
from andon.experiments import cluster as module
from andon.experiments.cluster import Cluster
from andon.experiments.sweep import RESULT, Job, finished, one_by_one, plan, run_job, sweep
from andon.runs.archive import predict_archive

DATA = "embedded:fabric,profile=tiny,size=128"


def test_a_packed_run_comes_back_whole(tmp_path):
    run, home = tmp_path / "run", tmp_path / "home"
    for name in (
        "recipe.yaml",
        "detector/detector.json",
        "detector/state.safetensors",
        "report.json",
        RESULT,
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(name.encode())
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints/student.safetensors").write_bytes(b"of an unfinished run")
    (home / "notes.txt").write_text("somebody's")
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = module.write_bytes
        patch.setattr(
            module, "write_bytes", lambda p, c: (written.append(p.relative_to(home).as_posix()), real(p, c))
        )
        module._unpack_run(module._pack(run), home)
    assert written[0] == "recipe.yaml"
    assert written[-2:] == ["detector/detector.json", RESULT]
    found = {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()}
    assert found == set(written) | {"notes.txt"}
    assert all((home / name).read_bytes() == name.encode() for name in written)


def test_ray_that_is_not_installed_is_said_with_the_way_out(monkeypatch, tmp_path, cli):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ("benchmark", "embedded:fabric", "--detectors", "padim", "--out", tmp_path / "b")
    assert 'pip install "andon[cluster]"' in cli(*arguments, "--ray", "auto").complaint()


def test_a_node_with_other_versions_refuses(tmp_path):
    versions = module._versions() | {"torch": "1.0"}
    job = Job("padim/starter", DATA, "fabric", "auto", 0)
    failure, content = module._make_run(job, DATA, tmp_path / "absent", "cpu", versions)
    assert "the caller 1.0: install the same everywhere" in failure
    assert content == b""


def test_a_run_of_a_node_is_the_run_of_this_machine(tmp_path, monkeypatch):
    """`_make_run` as a node runs it: in the caller's folder where it is seen, packed otherwise."""
    monkeypatch.setattr(module, "run_job", lambda job, out, device, data: (job.folder(out) / "x").parent.mkdir(parents=True) or (job.folder(out) / "x").write_text(data))  # fmt: skip  # noqa: E501
    job = Job("padim/starter", "data", "fabric", "auto", 0)
    with module._mark(tmp_path) as mark:
        assert module._make_run(job, "/data", mark, "cpu", module._versions()) == ("", b"")
    assert (job.folder(tmp_path) / "x").read_text() == "/data"
    assert not mark.exists()
    failure, content = module._make_run(job, "/data", mark, "cpu", module._versions())
    assert not failure
    module._unpack(content, tmp_path / "home")
    assert (tmp_path / "home" / "x").read_text() == "/data"


class TaskFault(Exception):  # noqa: N818 (stands for Ray's own)
    pass


class Lost(Exception):  # noqa: N818
    pass


def fake_ray(outcome: Any, cancelled: list[str]) -> Any:
    """As much of Ray as `_next_ended` asks for; the first of the tasks ends with `outcome`."""

    def get(reference: str) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return SimpleNamespace(
        wait=lambda left, num_returns: (left[:num_returns], left[num_returns:]),
        get=get,
        cancel=cancelled.append,
        exceptions=SimpleNamespace(RayTaskError=TaskFault, RayError=Lost),
    )


def test_how_a_task_may_end():
    cancelled: list[str] = []
    assert module._next_ended(fake_ray(("", b"x"), cancelled), ["a", "b"]) == ("a", "", b"x")
    fault = fake_ray(TaskFault("Traceback\n  somewhere\nKeyError: 'x'\n"), cancelled)
    assert module._next_ended(fault, ["a", "b"]) == ("a", "KeyError: 'x'", None)
    reference, failure, _ = module._next_ended(fake_ray(Lost("node died\nmore"), cancelled), ["a", "b"])
    assert (reference, failure) == ("a", "its worker was lost 4 times (out of memory?): node died")
    assert cancelled == []
    with pytest.raises(InterruptedRun, match="same command continues"):
        module._next_ended(fake_ray(KeyboardInterrupt(), cancelled), ["a", "b"])
    assert cancelled == ["a", "b"]


# On a cluster of several nodes on this machine --------------------------------------------------------------------


class Machines:
    """A head without cores and nodes of one core each."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self.ray = RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000},
        )
        self.nodes = [self.add() for _ in range(nodes)]

    def add(self) -> Any:
        return self.ray.add_node(num_cpus=1, object_store_memory=100_000_000)

    @property
    def address(self) -> str:
        return str(self.ray.address)

    def kill(self, node: Any) -> None:
        self.ray.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)


@pytest.fixture
def machines(monkeypatch) -> Iterator[Callable[[int], Machines]]:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    started: list[Machines] = []

    def start(nodes: int) -> Machines:
        started.append(Machines(nodes))
        return started[-1]

    yield start
    import ray

    ray.shutdown()
    for each in started:
        each.ray.shutdown()


def numbers(run: Path) -> dict[str, Any]:
    """What a run found, without times and the pictures' machine."""
    report = json.loads((run / "report.json").read_text())
    return {key: report[key] for key in ("metrics", "thresholds", "protocol", "weights", "seed")}


def files(run: Path) -> set[str]:
    return {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [True, False], ids=["shared disk", "own disks"])
def test_a_sweep_survives_the_loss_of_a_node(machines, tmp_path, monkeypatch, capsys, shared):
    """A node is killed while it makes a run: every run is there, equal to the local one; a second call makes nothing."""
    if not shared:
        monkeypatch.setattr(module, "_mark", unseen)
    jobs = plan(DATA, ["padim"], seeds=3, settings=TINY["padim"])
    place = tmp_path / "cluster"
    there = machines(2)
    killer = threading.Thread(target=kill_a_working_node, args=(there,))
    killer.start()
    outcome = sweep(jobs, place, device="cpu", runner=Cluster(there.address, cores=1).runs)
    killer.join()
    assert capsys.readouterr().out == ""  # what Ray says about the loss is no result
    assert len(there.nodes) == 1
    assert outcome.failures == {}
    assert len(outcome.results) == 3
    assert not list(place.glob(".cluster-*"))
    run_job(jobs[0], tmp_path / "here", "cpu")
    assert numbers(jobs[0].folder(place)) == numbers(jobs[0].folder(tmp_path / "here"))
    assert files(jobs[0].folder(place)) == files(jobs[0].folder(tmp_path / "here"))
    state = "detector/state.safetensors"
    here = (jobs[0].folder(tmp_path / "here") / state).read_bytes()
    assert (jobs[0].folder(place) / state).read_bytes() == here
    times = [(job.folder(place) / RESULT).stat().st_mtime_ns for job in jobs]
    again = sweep(
        jobs, place, device="cpu", runner=one_by_one
    )  # continues what the cluster began: nothing is left
    assert len(again.results) == 3
    assert [(job.folder(place) / RESULT).stat().st_mtime_ns for job in jobs] == times
    assert all(finished(job, place) for job in jobs)


def unseen(folder: Path) -> Any:
    """A mark that no node finds, as where disks are not shared."""
    import contextlib

    return contextlib.nullcontext(folder / "nowhere" / "mark")


def kill_a_working_node(there: Machines) -> None:
    """Wait until a node works, then kill it in the middle of the run."""
    import ray
    from ray._private.state import available_resources_per_node

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if not ray.is_initialized():
            continue
        free = available_resources_per_node()
        for node in there.nodes:
            if node.node_id in free and free[node.node_id].get("CPU", 0) < 1:
                time.sleep(4)
                there.kill(node)
                return


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_archive_survives_the_loss_of_a_node(machines, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    for k in range(64):
        write_picture(tmp_path / "in" / f"{k % 4}" / f"{k}.png", texture(k))
    there = machines(2)
    table, killed = tmp_path / "t.csv", []

    class Watching:
        """Kills a node once a few lines are there."""

        def task(self, description: str, total: int, *, done: int = 0) -> Any:
            import contextlib

            class Task:
                def advance(self, amount: int = 1, note: str = "") -> None:
                    if not killed:
                        killed.append(there.nodes[0])
                        there.kill(there.nodes[0])

            return contextlib.nullcontext(Task())

    new, verdicts = predict_archive(
        tiny_run,
        [tmp_path / "in"],
        table,
        save=tmp_path / "maps",
        cluster=Cluster(there.address, cores=1),
        progress=Watching(),
    )
    assert len(killed) == 1
    assert (new, verdicts.total()) == (64, 64)
    alone = tmp_path / "alone.csv"
    predict_archive(tiny_run, [tmp_path / "in"], alone, save=tmp_path / "maps alone")
    assert scores(table) == pytest.approx(scores(alone), rel=1e-5)
    assert files(tmp_path / "maps") == files(tmp_path / "maps alone")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    new, verdicts = predict_archive(
        tiny_run, [tmp_path / "in"], table, cluster=Cluster(there.address, cores=1)
    )
    assert (new, verdicts["unreadable"]) == (1, 1)
    with pytest.raises(ConfigError, match="no node of the Ray cluster has 64 cores"):
        predict_archive(tiny_run, [tmp_path / "in"], table, cluster=Cluster(there.address, cores=64))


def scores(table: Path) -> dict[str, float]:
    import csv

    with table.open(newline="") as stream:
        found = [(row["path"], float(row["raw_score"])) for row in csv.DictReader(stream)]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("ray")
    jobs = [Job("padim/starter", DATA, "fabric", "auto", 0)]
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 "):
        sweep(jobs, tmp_path, runner=Cluster("127.0.0.1:9").runs)
