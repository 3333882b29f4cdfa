"""Runs: complete and repeatable folders, nothing half-written, nothing of others removed, resume equals uninterrupted."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import RUN_SETTINGS, names, set_options, texture, write_picture
from tiny import TINY

from andon.cli.main import main
from andon.core.config import from_yaml, to_yaml
from andon.core.errors import (
    AndonError,
    ConfigError,
    DataError,
    InterruptedRun,
    OutputError,
    UsageError,
    WeightsError,
)
from andon.core.own_output import mark
from andon.core.progress import NoProgress
from andon.datasets import open_dataset
from andon.detectors._base import Detector
from andon.detectors._recipes import Recipe, RecipeFile, create, load_recipe, resolve
from andon.detectors._saving import load_detector
from andon.nn.training import Trainer
from andon.report.evaluation import Report
from andon.runs import source
from andon.runs.evaluate import evaluate_run
from andon.runs.export import export_run
from andon.runs.fit import fit_run
from andon.runs.folder import (
    DescribedRun,
    changing,
    check_output,
    clear,
    last_scores,
    put_aside,
    read_recipe,
    read_scores,
)
from andon.runs.source import Source


def tiny_recipe(**changes: object) -> Recipe:
    settings = RUN_SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return resolve(load_recipe("efficientad_ast/starter"), settings)


def fit(run: Path, data: Path, recipe: Recipe | None = None, **options):
    return fit_run(run, Source(str(data)), recipe or tiny_recipe(), device="cpu", **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def state(run: Path) -> bytes:
    return (run / "detector/state.safetensors").read_bytes()


# Settings ---------------------------------------------------------------------------------------------------------


def test_settings_go_to_the_recipe_or_to_the_detector():
    recipe = tiny_recipe(seed=3, hold_out=False, epochs=5)
    assert (recipe.seed, recipe.hold_out, recipe.config.epochs) == (3, False, 5)
    assert recipe.config.teacher.clamp == 1.9  # the recipe's
    assert recipe.config.student.slope == 0.01  # the default


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sed", "unknown setting 'sed'; did you mean seed?"),
        ("teacher.epoch", "unknown setting 'teacher.epoch'; did you mean teacher.epochs?"),
        ("detector", "unknown setting 'detector'"),
        ("config", "unknown setting 'config'"),
    ],
)
def test_unknown_settings(key, message):
    with pytest.raises(ConfigError) as caught:
        tiny_recipe(**{key: 1})
    assert str(caught.value).startswith(message)


# A finished run ---------------------------------------------------------------------------------------------------


def test_run_folder_holds_everything_to_repeat_it(tiny_run, dataset_folder):
    assert sorted(tree(tiny_run)) == [
        "detector/detector.json",
        "detector/state.safetensors",
        "recipe.yaml",
        "training.json",
    ]
    recipe = read_recipe(tiny_run)
    assert recipe["data"]["path"] == str(dataset_folder)
    assert (recipe["data"]["category"], recipe["data"]["layout"]) == ("cloth", "mvtec_ad")
    assert recipe["data"]["train"] + recipe["data"]["validation"] == 12
    assert recipe["weights"][0]["sha256"] == "random"
    assert set(recipe["versions"]) >= {"andon", "torch", "timm", "python"}


def test_the_recipe_of_a_run_gives_the_same_run_again(tiny_run, dataset_folder, tmp_path):
    stored = from_yaml((tiny_run / "recipe.yaml").read_text(), where="recipe.yaml")
    again = RecipeFile.parse({key: stored[key] for key in RecipeFile.model_fields})
    fit(tmp_path / "again", dataset_folder, resolve(again, {}))
    assert state(tmp_path / "again") == state(tiny_run)


def test_a_run_opens_its_data_and_builds_its_networks_once(cli, dataset_folder, tmp_path, monkeypatch):
    counted: Counter[str] = Counter()

    def count(target: object, name: str) -> None:
        real = getattr(target, name)

        def counting(*arguments: object, **options: object) -> object:
            counted[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(target, name, counting)

    count(Detector, "__init__")
    count(source, "open_dataset")
    for command in (["fit", "--out", tmp_path / "fit"], ["demo", "--out", tmp_path / "demo"]):
        counted.clear()
        name, *out = command
        assert cli(name, dataset_folder, *set_options(), *out).code == 0
        assert counted == {"__init__": 1, "open_dataset": 1}


def test_a_detector_is_built_anew_where_it_is_not_untouched(dataset_folder):
    data = open_dataset(dataset_folder)
    fresh = create(tiny_recipe())
    network, trainer = fresh.student, Trainer(device="cpu")
    assert fresh.fit(data.train, data.validation, trainer=trainer).student is network
    first = {name: value.clone() for name, value in fresh.state_dict().items()}
    again = fresh.fit(data.train, data.validation, trainer=Trainer(device="cpu"))
    assert again.student is not network
    loaded = create(tiny_recipe())
    loaded.load_state_dict(first)
    loaded.fit(data.train, data.validation, trainer=Trainer(device="cpu"))
    for other in (again, loaded):
        assert all(torch.equal(value, first[name]) for name, value in other.state_dict().items())


def test_another_seed_gives_another_run(tiny_run, dataset_folder, tmp_path):
    fit(tmp_path / "again", dataset_folder, tiny_recipe(seed=1))
    assert state(tmp_path / "again") != state(tiny_run)


def test_without_hold_out_all_good_pictures_are_learned_from(dataset_folder, tmp_path):
    detector, dataset = fit(tmp_path / "run", dataset_folder, tiny_recipe(hold_out=False))
    assert (len(dataset.train), len(dataset.validation)) == (12, 0)
    assert detector.fitted().source == "train"


# The output folder ------------------------------------------------------------------------------------------------


def test_folder_in_use_is_refused(own_run, dataset_folder, tmp_path):
    before = tree(own_run)
    with pytest.raises(OutputError, match=r"is not empty: --overwrite replaces"):
        fit(own_run, dataset_folder)
    assert tree(own_run) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        fit(tmp_path / "file", dataset_folder)
    with pytest.raises(OutputError, match="cannot be written"):
        fit(tmp_path / "file/run", dataset_folder)


def test_overwrite_removes_only_files_of_andon(own_run, dataset_folder):
    ours = [
        "report.html",
        "heatmaps/stain/a.png",
        "masks/stain/a.png",
        "maps/good/a.tiff",
        "figures/roc_image.png",
    ]
    theirs = [
        "notes.txt",
        "figures/mine.svg",
        "heatmaps/stain/readme.txt",
        "photos/a.png",
        "detector/old/a.bin",
    ]
    for name in ours + theirs:
        (own_run / name).parent.mkdir(parents=True, exist_ok=True)
        (own_run / name).write_text(name)
    (own_run / ".recipe.yaml.1.part").write_text("of a process that was killed")
    (own_run / ".model.1.parts").mkdir()
    (own_run / ".model.1.parts/model.bin").write_text("of a process that was killed")
    fit(own_run, dataset_folder, tiny_recipe(seed=1), overwrite=True)
    left = tree(own_run)
    assert set(left) == {
        *theirs,
        "recipe.yaml",
        "training.json",
        "detector/detector.json",
        "detector/state.safetensors",
    }
    assert all(left[name] == name.encode() for name in theirs)
    assert not (own_run / "maps").exists()
    assert not (own_run / ".model.1.parts").exists()


def test_overwrite_leaves_a_data_set_alone(own_dataset, dataset_folder):
    (own_dataset / "ground_truth").rename(own_dataset / "masks")
    before = tree(own_dataset)
    with pytest.raises(OutputError, match=r"holds masks/stain/000_mask\.png but no recipe\.yaml"):
        fit(own_dataset, dataset_folder, overwrite=True)
    assert tree(own_dataset) == before


def test_a_folder_of_pictures_is_never_written_into(tmp_path, dataset_folder):
    (tmp_path / "good").mkdir()
    (tmp_path / "good/0.png").write_bytes(b"a picture")
    with pytest.raises(OutputError, match=r"holds 0\.png but no recipe\.yaml"):
        fit(tmp_path / "good", dataset_folder, overwrite=True)
    assert tree(tmp_path / "good") == {"0.png": b"a picture"}


def test_overwrite_works_beside_files_of_others(dataset_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    fit(tmp_path / "run", dataset_folder, overwrite=True)
    clear(tmp_path / "run")
    assert tree(tmp_path / "run") == {"notes.txt": b"mine"}


class Killed(BaseException):
    """Stands for the end of the process."""


def test_overwrite_that_is_killed_while_it_clears_can_be_repeated(own_run, dataset_folder, monkeypatch):
    for name in ("report.json", "heatmaps/good/0.png", "features.safetensors", "model.onnx"):
        (own_run / name).parent.mkdir(parents=True, exist_ok=True)
        (own_run / name).write_bytes(b"")
    mark(own_run / "heatmaps")
    (own_run / "notes.txt").write_text("mine")
    unlink, gone = Path.unlink, []

    def kill(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if not path.name.endswith(".part"):
            gone.append(path.relative_to(own_run).as_posix())
            raise Killed

    monkeypatch.setattr(Path, "unlink", kill)
    while True:
        held = tree(own_run)
        try:
            clear(own_run)
        except Killed:
            assert len(tree(own_run)) == len(held) - 1
            check_output(own_run, overwrite=True, resume=False)
            following = {"report.json", "heatmaps/good/0.png", "model.onnx"} & set(tree(own_run))
            assert not following or (own_run / "detector/detector.json").is_file()
        else:
            break
    assert gone[-1] == "recipe.yaml"
    assert set(tree(own_run)) == {"notes.txt"}


@pytest.mark.parametrize("at", [1, 3])
def test_fit_works_after_an_overwrite_that_was_killed(own_run, dataset_folder, monkeypatch, at):
    with monkeypatch.context() as killed, pytest.raises(Killed):
        unlink, gone = Path.unlink, []

        def kill(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok=missing_ok)
            if path.is_relative_to(own_run) and not path.name.endswith(".part"):
                gone.append(path)
                if len(gone) == at:
                    raise Killed

        killed.setattr(Path, "unlink", kill)
        fit(own_run, dataset_folder, overwrite=True)
    assert (own_run / "recipe.yaml").is_file()
    fit(own_run, dataset_folder, overwrite=True)
    assert load_detector(own_run / "detector").name


def test_clear_removes_an_empty_folder(own_run):
    clear(own_run)
    assert not own_run.exists()
    clear(own_run)


def test_empty_and_absent_folders_are_fine(tmp_path):
    check_output(tmp_path, overwrite=False, resume=False)
    check_output(tmp_path / "absent", overwrite=False, resume=False)


# One process at a time --------------------------------------------------------------------------------------------


def test_a_second_process_changes_nothing(own_run, dataset_folder, capsys, monkeypatch):
    before = tree(own_run)
    calls = [
        lambda: fit(own_run, dataset_folder),
        lambda: fit(own_run, dataset_folder, overwrite=True),
        lambda: fit(own_run, dataset_folder, resume=True),
        lambda: evaluate_run(own_run),
        lambda: export_run(own_run, own_run / "model.onnx"),
    ]
    with changing(own_run):
        for call in calls:
            with pytest.raises(DataError, match="another process is changing"):
                call()
        options = ["--false-reject-rate", "0.2", "--reason", "test"]
        for command in (["fit", str(dataset_folder), "--out"], ["threshold", *options], ["evaluate"]):
            monkeypatch.setattr("sys.argv", ["andon", *command, str(own_run)])
            with pytest.raises(SystemExit, match="2"):
                main()
            assert "another process is changing" in capsys.readouterr().err
    assert tree(own_run) == before


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}], ids=str)
@pytest.mark.parametrize("old", [False, True])
def test_a_run_is_held_while_it_is_fitted(own_run, tmp_path, dataset_folder, monkeypatch, options, old):
    run = own_run if old else tmp_path / "deep/run"
    if old and not options:
        return  # refused
    if old and "resume" in options:
        (run / "detector/detector.json").unlink()
    refused = []

    def learn(*_, **__):
        with pytest.raises(DataError, match="another process is changing"), changing(run):
            pass
        refused.append(run)
        raise DataError("no")

    monkeypatch.setattr(Detector, "fit", learn)
    monkeypatch.setattr(type(create(tiny_recipe())), "fit", learn)
    with pytest.raises(DataError, match="no"):
        fit(run, dataset_folder, **options)
    assert refused == [run]
    assert not (tmp_path / "deep").exists()
    with changing(run, make=True):
        assert run.is_dir()


def test_a_folder_that_is_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr("andon.runs.folder.lock", lambda handle: run.rmdir() or True)
    with pytest.raises(DataError, match="another process is changing"), changing(run):
        pass


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with changing(tmp_path):
        pass


# Nothing half-written ---------------------------------------------------------------------------------------------


def test_old_run_stays_when_the_new_one_cannot_start(own_run, own_dataset, dataset_folder, tmp_path):
    before = tree(own_run)
    with pytest.raises(DataError, match="does not exist"):
        fit(own_run, tmp_path / "absent", overwrite=True)
    with pytest.raises(WeightsError, match="not on this machine"):
        fit(own_run, dataset_folder, tiny_recipe(extractor__weights="resnet18.tv_in1k"), overwrite=True)
    (own_dataset / "train/good/003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"003\.png cannot be read"):
        fit(own_run, own_dataset, overwrite=True)
    assert tree(own_run) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": "validation", "hold_out": False},
        {"threshold": "labels"},
        {"penalty__folder": "absent", "student__penalty": 1.0},
    ],
    ids=str,
)
def test_old_run_is_back_when_the_new_one_learns_nothing(own_run, dataset_folder, changes):
    """Faults that are found after the old run was put aside."""
    (own_run / "heatmaps/good").mkdir(parents=True)
    mark(own_run / "heatmaps")
    (own_run / "heatmaps/good/0.png").write_bytes(b"")
    (own_run / "report.json").write_bytes(b"{}")
    (own_run / "notes.txt").write_text("mine")
    before = tree(own_run)
    with pytest.raises((ConfigError, DataError)):
        fit(own_run, dataset_folder, tiny_recipe(**changes), overwrite=True)
    assert tree(own_run) == before
    assert not (own_run / "checkpoints").exists()


def test_overwrite_follows_a_link_to_another_disk(own_run, dataset_folder, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mark(elsewhere)
    (elsewhere / "0.png").write_bytes(b"old")
    (own_run / "heatmaps").symlink_to(elsewhere)
    before = tree(own_run)
    rename = Path.rename

    def same_disk(path: Path, target: Path) -> Path:
        if "heatmaps" in path.parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", same_disk)
    with pytest.raises(ConfigError):
        fit(own_run, dataset_folder, tiny_recipe(threshold="labels"), overwrite=True)
    assert tree(own_run) == before
    assert (elsewhere / "0.png").read_bytes() == b"old"


def test_what_a_killed_overwrite_put_aside_is_removed_by_the_next(own_run, dataset_folder, tiny_run):
    put_aside(own_run)
    assert {"recipe.yaml", ".replaced/recipe.yaml", ".replaced/detector/state.safetensors"} <= set(
        tree(own_run)
    )
    check_output(own_run, overwrite=True, resume=False)
    fit(own_run, dataset_folder, overwrite=True)
    assert set(tree(own_run)) == set(tree(tiny_run))


def test_failed_run_leaves_no_folder(own_dataset, tmp_path):
    (own_dataset / "train/good/003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"003\.png"):
        fit(tmp_path / "deep/down/run", own_dataset)
    assert not (tmp_path / "deep").exists()


def test_failed_run_leaves_the_files_of_others(own_dataset, tmp_path):
    (own_dataset / "train/good/003.png").write_bytes(b"no picture")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(DataError):
        fit(tmp_path / "run", own_dataset, overwrite=True)
    assert tree(tmp_path / "run") == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("victim", "learned"),
    [
        ("recipe.yaml", False),
        ("teacher.safetensors", False),
        pytest.param("student.safetensors", True, marks=pytest.mark.slow),
        pytest.param("training.json", True, marks=pytest.mark.slow),
        pytest.param("state.safetensors", True, marks=pytest.mark.slow),
        ("detector.json", True),
    ],
)
def test_full_disk_leaves_what_was_learned_and_nothing_else(
    dataset_folder, tmp_path, monkeypatch, victim, learned
):
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if f".{victim}." in path.name:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left") as error:
        fit(tmp_path / "run", dataset_folder)
    assert (tmp_path / "run").exists() is learned
    assert str(error.value).endswith("then the same command with --resume continues") is learned
    if learned:
        monkeypatch.undo()
        fit(tmp_path / "run", dataset_folder, resume=True)
        assert (tmp_path / "run/detector/detector.json").is_file()


def test_full_disk_while_caching_features_costs_only_speed(dataset_folder, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("ANDON_HOME", "/dev/full/home")
    fit(tmp_path / "run", dataset_folder)
    assert state(tmp_path / "run") == state(tiny_run)


def test_error_that_nobody_foresaw_leaves_nothing(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "minimise", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", dataset_folder)
    assert not (tmp_path / "run").exists()


# Interrupted runs -------------------------------------------------------------------------------------------------


class Interrupting(NoProgress):
    """Ctrl-C at a step of a stage."""

    def __init__(self, description: str, at: int) -> None:
        self.description, self.at = description, at

    def task(self, description, total, *, done=0):
        import contextlib
        import signal

        seen = [done]

        class Task:
            def advance(_, amount: int = 1, note: str = "") -> None:  # noqa: N805
                seen[0] += amount
                if description == self.description and seen[0] == self.at:
                    signal.raise_signal(signal.SIGINT)

        return contextlib.nullcontext(Task())


LONGER = {"teacher__epochs": 2, "epochs": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def uninterrupted(dataset_folder, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("longer") / "run"
    fit(run, dataset_folder, tiny_recipe(**LONGER))
    return run


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        pytest.param("training teacher", 2, marks=pytest.mark.slow),
        ("training student", 1),
        ("extracting training features", 1),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(
    uninterrupted, dataset_folder, tmp_path, stage, step, monkeypatch
):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))  # features are not there yet
    run, recipe = tmp_path / "run", tiny_recipe(**LONGER)
    with pytest.raises(InterruptedRun, match="run the same command with --resume to continue"):
        fit(run, dataset_folder, recipe, progress=Interrupting(stage, step))
    assert (run / "checkpoints").is_dir()
    assert not (run / "detector").exists()
    with pytest.raises(OutputError, match=r"holds an unfinished run: --resume continues it"):
        fit(run, dataset_folder, recipe)
    with pytest.raises(DataError, match=r"its fit was not finished: continue it with .* --resume"):
        load_detector(run)
    with pytest.raises(DataError, match="holds an unfinished run"):
        evaluate_run(run)
    fit(run, dataset_folder, recipe, resume=True)
    assert state(run) == state(uninterrupted)
    assert (run / "detector/detector.json").read_bytes() == (
        uninterrupted / "detector/detector.json"
    ).read_bytes()
    assert not (run / "checkpoints").exists()


def test_resume_refuses_another_recipe_or_other_pictures(own_dataset, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InterruptedRun):
        fit(run, own_dataset, progress=Interrupting("training teacher", 1))
    with pytest.raises(ConfigError, match="another config"):
        fit(run, own_dataset, tiny_recipe(epochs=9), resume=True)
    with pytest.raises(ConfigError, match="another seed"):
        fit(run, own_dataset, tiny_recipe(seed=9), resume=True)
    with pytest.raises(ConfigError, match="another gate"):
        fit(run, own_dataset, tiny_recipe(gate=True), resume=True)
    write_picture(own_dataset / "train/good/005.png", texture(999))
    with pytest.raises(DataError, match="the pictures changed"):
        fit(run, own_dataset, resume=True)
    assert (run / "checkpoints").is_dir()


def test_resume_refuses_other_weights(own_run, dataset_folder):
    file = own_run / "recipe.yaml"
    settings = from_yaml(file.read_text(), where="recipe.yaml")
    settings["weights"][0]["sha256"] = "0" * 64
    file.write_text(to_yaml(settings))
    with pytest.raises(DataError, match="the weights changed since"):
        fit(own_run, dataset_folder, resume=True)


def test_resume_of_a_run_that_was_killed_at_its_end_removes_the_checkpoints(own_run, dataset_folder):
    (own_run / "checkpoints").mkdir()
    (own_run / "checkpoints/student.safetensors").write_bytes(b"")
    fit(own_run, dataset_folder, resume=True)
    assert not (own_run / "checkpoints").exists()


def test_resume_of_a_finished_run_only_reads_it(own_run, dataset_folder):
    before = tree(own_run)
    detector, _ = fit(own_run, dataset_folder, resume=True)
    assert detector.calibration is not None
    assert tree(own_run) == before


def test_resume_where_there_is_no_run(dataset_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("x")
    with pytest.raises(OutputError, match="holds no run to continue"):
        fit(tmp_path / "run", dataset_folder, resume=True)
    fit(tmp_path / "new", dataset_folder, resume=True)
    assert (tmp_path / "new/detector/detector.json").is_file()


# Unreadable pictures ----------------------------------------------------------------------------------------------


def test_unreadable_pictures_are_skipped_when_asked_and_written_down(own_dataset, tmp_path):
    (own_dataset / "train/good/003.png").write_bytes(b"no picture")
    (own_dataset / "train/good/005.png").write_bytes((own_dataset / "train/good/005.png").read_bytes()[:900])
    _, dataset = fit(tmp_path / "run", own_dataset, skip_unreadable=True)
    used = [record.id for record in [*dataset.train, *dataset.validation]]
    assert len(used) == 10
    data = read_recipe(tmp_path / "run")["data"]
    assert data["train"] + data["validation"] == 10
    assert {key.rsplit("/", 1)[-1] for key in data["skipped"]} == {"003", "005"}


def test_empty_pictures_are_named(own_dataset, tmp_path):
    (own_dataset / "train/good/003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"003\.png is empty"):
        fit(tmp_path / "run", own_dataset)


def test_nothing_readable_is_an_error(own_dataset, tmp_path):
    for path in (own_dataset / "train/good").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no training pictures"):
        fit(tmp_path / "run", own_dataset, skip_unreadable=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["tpu", "", "cuda:99"])
def test_device_that_is_not_here(dataset_folder, tmp_path, device):
    with pytest.raises(ConfigError, match="choose one of auto, cpu"):
        fit_run(tmp_path / "run", Source(str(dataset_folder)), tiny_recipe(), device=device)


# Evaluating -------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(monkeypatch):
    """Evaluating without the second that drawing the report takes."""
    monkeypatch.setattr(Report, "save", lambda report, folder, **_: (folder / "report.json").write_text("{}"))
    return lambda run, **options: evaluate_run(run, latency=False, **options)


def test_evaluation_is_written_and_removed_by_overwrite(own_run):
    report = evaluate_run(own_run, latency=False, maps=True)
    assert len(report.cases) == 8
    assert {"report.json", "report.html", "predictions.csv"} <= set(names(own_run))
    clear(own_run)
    assert not own_run.exists()


@pytest.mark.parametrize("name", ["recipe.yaml", "training.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"a: 1", b"\xff\xfe\xfd", None], ids=range(6))
def test_damaged_run_files_are_named(evaluate, own_run, name, content):
    if content is None:
        (own_run / name).unlink()
    else:
        (own_run / name).write_bytes(content)
    with pytest.raises(UsageError, match=name.replace(".", r"\.")):
        evaluate(own_run)
    assert not (own_run / "report.json").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": "abc"}, "seed='abc'"),
        ({"seed": 2**64}, "seed="),
        ({"hold_out": [1]}, "hold_out="),
        ({"labelled": "foo"}, "labelled"),
        ({"exclude": 5}, "exclude=5"),
        ({"config": 5}, "config=5"),
        ({"weights": 5}, "weights=5"),
        ({"data": 5}, "data=5"),
        ({"data": {"path": 5}}, "data.path=5"),
        ({"data": {"added": 5}}, "data.added=5"),
        ({"data": {"added": {"a": 5}}}, "data.added.a=5"),
        ({"data": {"train": "many"}}, "data.train='many'"),
        ({"data": {"labelled": [1]}}, "data.labelled"),
        ({"data": {"choice": {"chosen": 1}}}, "data.choice.chosen=1"),
    ],
    ids=str,
)
def test_recipe_of_a_run_with_another_type_is_named(own_run, changes, key):
    file = own_run / "recipe.yaml"
    values = from_yaml(file.read_text(), where="")
    data = changes.get("data", {})
    whole = values["data"] | data if isinstance(data, dict) else data
    file.write_text(to_yaml(values | changes | {"data": whole}))
    with pytest.raises(DataError) as caught:
        read_recipe(own_run)
    assert key in str(caught.value)
    assert f"{file}" in str(caught.value)
    assert "bring back the original or fit again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipe_of_a_run_is_read_as_it_was_written(tiny_run):
    values = from_yaml((tiny_run / "recipe.yaml").read_text(), where="")
    assert read_recipe(tiny_run) == values
    more = {"sessions": {"pictures": {"a": 1}, "held_out": ["a"], "in_turn": True}, "more": [1.5, None]}
    choice = {
        "chosen": "a",
        "settings": {"score": "x"},
        "auroc": {"a": 1.0},
        "gain": 0.5,
        "images": {"b": "c"},
    }
    whole = values | {"data": values["data"] | more | {"choice": choice}, "later": {"x": 1}}
    assert _described(whole) == whole


def _described(values):
    return DescribedRun.parse(values).model_dump(mode="json", by_alias=True, exclude_unset=True)


SCORES = "id,defect_type,label,score,raw_score,is_anomalous,path\n" + "".join(
    f"{k},good,{k % 2},0.1234567,{k}.7654321,0,/data/{k}.png\n" for k in range(8)
)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:-1], "last line is cut off"),
        (lambda text: text[: text.index(",0.1234567,3") + 3], "last line is cut off"),
        (lambda text: text[: text.index("3.76") + 2], "last line is cut off"),
        (lambda text: text[: text.index("3.76") + 2] + "\n", "line 5 is none of andon's"),
        (lambda text: text[: text.index("4,good")], "4 of 8 pictures"),
        (lambda text: text.split("\n")[0] + "\n", "0 of 8 pictures"),
        (lambda text: text.replace("good,1", "good,yes"), "line 3 is none of andon's"),
        (lambda text: text.replace("good", "x" * 200_000, 1), "field limit"),
        (lambda text: text.replace("raw_score", "raw"), "'raw_score' is missing"),
        (lambda text: "", "cut off"),
    ],
    ids=range(10),
)
def test_scores_that_are_not_whole_are_refused(tmp_path, damage, words):
    (tmp_path / "predictions.csv").write_text(SCORES)
    (tmp_path / "report.json").write_text('{"images": {"evaluated": 8}}')
    assert len(read_scores(tmp_path)) == len(last_scores(tmp_path)) == 8
    (tmp_path / "predictions.csv").write_text(damage(SCORES))
    for read in (read_scores, last_scores):
        with pytest.raises(DataError, match="evaluate the run again") as caught:
            read(tmp_path)
        assert words in str(caught.value)
    (tmp_path / "predictions.csv").write_text(SCORES)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"report\.json beside it cannot be read"):
        read_scores(tmp_path)


def test_run_that_is_none(evaluate, tmp_path):
    with pytest.raises(DataError, match="is not a run folder"):
        evaluate(tmp_path)


def test_data_that_moved_can_be_given_anew(evaluate, own_run, dataset_folder, tmp_path):
    moved = shutil.copytree(dataset_folder, tmp_path / "moved")
    text = (own_run / "recipe.yaml").read_text()
    (own_run / "recipe.yaml").write_text(text.replace(str(dataset_folder), str(tmp_path / "gone")))
    with pytest.raises(DataError, match="say where it is with --data"):
        evaluate(own_run)
    assert len(evaluate(own_run, data=Source(str(moved))).cases) == 8


def test_test_pictures_drawn_anew_among_those_learned_from_are_refused(dataset_folder, tmp_path):
    """The seed chooses the good test pictures of one folder: another number of them, other test pictures."""
    data, run = tmp_path / "own", tmp_path / "run"
    shutil.copytree(dataset_folder / "train/good", data / "normal")
    shutil.copytree(dataset_folder / "test/stain", data / "defect")
    fit(run, data, resolve(load_recipe("padim/starter"), TINY["padim"]))
    assert evaluate_run(run, latency=False).cases
    write_picture(data / "normal/new.png", texture(300))
    with pytest.raises(DataError, match=r"changed since .*run learned from them, .* with --data"):
        evaluate_run(run, latency=False)
    assert evaluate_run(run, data=Source(str(data)), latency=False).cases


def test_nothing_to_evaluate(evaluate, own_run, own_dataset):
    shutil.rmtree(own_dataset / "test")
    with pytest.raises(DataError, match=r"has no test pictures.*andon predict"):
        evaluate(own_run, data=Source(str(own_dataset)))


def test_unreadable_test_pictures(evaluate, own_run, own_dataset):
    (own_dataset / "test/stain/001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"001\.png"):
        evaluate(own_run, data=Source(str(own_dataset)))
    assert not (own_run / "report.json").exists()
    report = evaluate(own_run, data=Source(str(own_dataset)), skip_unreadable=True)
    assert len(report.cases) == 7
    assert list(report.skipped) == ["cloth/test/stain/001"]
    assert "1 unreadable pictures were skipped" in " ".join(report.notes)


def test_mask_of_another_size(evaluate, own_run, own_dataset):
    write_picture(own_dataset / "ground_truth/stain/002_mask.png", texture(0, 32)[:, :, 0])
    with pytest.raises(DataError, match=r"002_mask\.png is 32 x 32 pixels but .*002\.png is 64 x 64"):
        evaluate(own_run, data=Source(str(own_dataset)))
    assert not (own_run / "report.json").exists()


def test_mask_without_picture_is_reported_and_harmless(evaluate, own_run, own_dataset):
    write_picture(own_dataset / "ground_truth/stain/099_mask.png", texture(0)[:, :, 0])
    from andon.datasets import check_dataset, open_dataset

    findings = check_dataset(open_dataset(own_dataset))
    assert "099_mask.png" in " ".join(findings.errors + findings.warnings)
    assert len(evaluate(own_run, data=Source(str(own_dataset))).cases) == 8


# A detector that was tampered with --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detector.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_changed_detector_is_refused(own_run, name, damage):
    file = own_run / "detector" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        position = content.index(b'"value": ') + 10 if name == "detector.json" else len(content) - 5
        content[position] = ord("7") if content[position] != ord("7") else ord("8")
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    file.write_bytes(content)
    if damage == "remove":
        file.unlink()
    with pytest.raises(DataError) as caught:
        load_detector(own_run)
    assert "\n" not in str(caught.value)
    assert str(own_run) in str(caught.value)


def test_state_of_another_detector_is_refused(own_run, uninterrupted):
    shutil.copy(uninterrupted / "detector/state.safetensors", own_run / "detector/state.safetensors")
    with pytest.raises(DataError, match="was changed after it was saved"):
        load_detector(own_run)


def test_loss_that_is_not_finite_says_so_and_keeps_what_is_of_use(dataset_folder, tmp_path):
    with pytest.raises(AndonError, match="is not finite"):
        fit(tmp_path / "run", dataset_folder, tiny_recipe(teacher_optimiser__lr=1e30, teacher__epochs=20))
    assert not (tmp_path / "run").exists()
