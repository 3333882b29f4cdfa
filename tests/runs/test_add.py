"""Good images added to a finished run: equal to one fit on all of them, the old run whole until then, what cannot be added."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import names, texture, write_dataset, write_picture
from tiny import TINY

from andon.core.errors import DataError, InterruptedRun, OutputError
from andon.core.records import Record
from andon.datasets import open_dataset
from andon.datasets.added import new_ids, passed_by, with_added
from andon.detectors._recipes import load_recipe, resolve
from andon.detectors._saving import load_detector
from andon.detectors.east import EAST
from andon.nn.stored_features import StoredFeatures
from andon.runs import add
from andon.runs.add import add_to_run
from andon.runs.fit import fit_run
from andon.runs.folder import FITTED, changing, read_recipe
from andon.runs.source import Source, open_data
from andon.thresholds.history import change

OLD, NEW = 7, 3
SETTINGS = TINY["east"] | {"extractor.taps": ["layer1"], "extractor.image_size": 32, "bank": 20}


def fitted(folder: Path, run: Path) -> Path:
    recipe = resolve(load_recipe("east/starter"), SETTINGS)
    fit_run(run, Source(str(folder)), recipe, device="cpu", keep_features=True)
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old/cloth` to learn from, `new` to add, `all/cloth` with both; names of the new images lie between the old ones."""
    root = tmp_path_factory.mktemp("added")
    write_dataset(root / "old/cloth", train=OLD, good=1, bad=1)
    for k in range(NEW):
        write_picture(root / f"new/{2 * k:03d}b.png", texture(300 + k))
    shutil.copytree(root / "old", root / "all")
    shutil.copytree(root / "new", root / "all/cloth/train/good", dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def before(data: Path) -> Path:
    """A run on the old images; not to be changed."""
    return fitted(data / "old/cloth", data / "before")


@pytest.fixture
def run(before: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return shutil.copytree(before, tmp_path / "run")


# What comes out -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def through_network() -> list[int]:
    """Images that passed through the network while the new ones were added, batch by batch."""
    return []


@pytest.fixture(scope="module")
def after(before: Path, data: Path, through_network: list[int]) -> Path:
    """A run to which the new images were added; not to be changed."""
    run = shutil.copytree(before, data / "after")
    for name in ("report.json", "model.onnx", "figures/roc.png", "detector/thresholds.json", "notes.txt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("of the old state")
    extract = EAST.extract_good

    def count(self: EAST, images: torch.Tensor) -> torch.Tensor:
        through_network.append(len(images))
        return extract(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EAST, "extract_good", count)
        add_to_run(run, data / "new", device="cpu")
    return run


def test_adding_equals_one_fit_on_all_images(after, data):
    at_once = fitted(data / "all/cloth", data / "at_once")
    one, other = load_detector(at_once), load_detector(after)
    assert one.calibration == other.calibration
    assert len(other.calibration.scores) == OLD + NEW
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=1e-5, msg=name)
    for key in ("fingerprint", "train", "folds"):
        assert read_recipe(at_once)["data"][key] == read_recipe(after)["data"][key]


def test_only_new_images_pass_through_the_network(after, through_network):
    assert sum(through_network) == NEW


def test_what_followed_from_the_old_state_is_gone_and_the_rest_is_there(after, data):
    expected = ["detector", "features.safetensors", "notes.txt", "recipe.yaml", "training.json"]
    assert names(after) == expected
    assert names(after / "detector") == ["detector.json", "state.safetensors"]
    dataset = open_data(after, read_recipe(after))
    assert [record.id for record in dataset.train][:3] == [
        f"cloth/train/good/{name}" for name in ("000", "000b", "001")
    ]
    assert len(dataset.train) == OLD + NEW


def test_images_added_one_by_one_are_learned_from_once(run, data, tmp_path, after):
    for k in range(NEW):
        image = write_picture(tmp_path / f"day{k}/{2 * k:03d}b.png", texture(300 + k))
        found = add_to_run(run, image.parent, device="cpu")
        assert len(found.dataset.train) == OLD + k + 1
    assert load_detector(run).calibration == load_detector(after).calibration


# An old run stays whole -----------------------------------------------------------------------------------------


def state(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_an_interruption_leaves_the_run_as_it_was(run, data, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    held = state(run)
    monkeypatch.setattr(EAST, "_learn_from", stop)
    with pytest.raises(InterruptedRun, match="is as it was, run the same command"):
        add_to_run(run, data / "new", device="cpu")
    assert state(run) == held


def test_two_at_once_do_not_mix(before, data, tmp_path):
    with changing(before), pytest.raises(DataError, match="another process is changing"):
        add_to_run(before, data)
    with changing(before):
        pass


def test_a_failed_exchange_of_files_is_undone(before, tmp_path, monkeypatch):
    run, staged = shutil.copytree(before, tmp_path / "run"), tmp_path / "run/.adding"
    held = state(run)
    shutil.copytree(before, staged)
    rename, calls = Path.rename, []

    def fail_once(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 4:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OutputError, match="cannot be written"):
        add._put_in_place(staged, run)
    shutil.rmtree(staged)
    assert state(run) == held


def test_a_kill_never_leaves_old_thresholds_with_a_new_detector(before, after, tmp_path, cli, data):
    """Whichever file was exchanged last, the run is the old one, the new one, or refused and put back."""
    rename, learned = Path.rename, load_detector(after).calibration
    for killed_at in range(1, 20):
        run = shutil.copytree(before, tmp_path / str(killed_at))
        fitted = load_detector(run).fitted()
        half = replace(fitted.image, value=fitted.image.value / 2)
        stricter = fitted.with_thresholds(half, fitted.pixel, fitted.look)
        change(run / "detector", stricter, reason="x", rule="half", who="anna")
        (run / "model.onnx").write_text("of the old state")
        held = state(run)
        for name in FITTED:
            (run / ".adding" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(after / name, run / ".adding" / name)
        calls: list[Path] = []

        def until_killed(self: Path, target: Path, calls: list[Path] = calls, last: int = killed_at) -> Path:
            calls.append(self)
            if len(calls) >= last:
                raise SystemExit
            return rename(self, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "rename", until_killed)
            with contextlib.suppress(SystemExit):
                add._put_in_place(run / ".adding", run)
        with contextlib.suppress(DataError):
            assert load_detector(run).calibration in (stricter, learned)
        if not (run / "detector/detector.json").exists():
            assert "adding pictures to it was cut short" in cli("predict", run, data / "new").complaint()
        add.put_back(run)
        shutil.rmtree(run / ".adding")
        if len(calls) < killed_at:
            break
        assert state(run) == held
    assert (
        len(calls) == 1 + 2 + 2 * 4 + 1
    )  # detector.json, what followed, the others out and in, detector.json
    assert state(run) == {name: content for name, content in state(after).items() if name in FITTED}


# What cannot be added -------------------------------------------------------------------------------------------


def test_known_and_test_images_are_named_and_left_out(data):
    old = data / "old/cloth"
    known, bad, new = old / "train/good/000.png", old / "test/stain/000.png", data / "new/000b.png"
    twice = data / "all/cloth/train/good/000b.png"
    assert passed_by(open_dataset(old, hold_out=False), [known, bad, new, twice]) == {
        known: "is learned from already (cloth/train/good/000)",
        bad: "is the test picture cloth/test/stain/000",
        twice: "is learned from already (000b.png)",
    }


def test_what_cannot_work_gets_one_line(cli, before, data, tmp_path):
    write_picture(tmp_path / "known/x.png", texture(0))
    write_picture(tmp_path / "damaged/x.png", texture(0)).write_bytes(b"no image")
    write_picture(tmp_path / "defect/x.png", texture(9))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ((data / "new", tmp_path), "is not a run folder"),
        ((empty, before), "holds no pictures that can be read"),
        ((data / "all/cloth", before), "give the folder in which its good pictures lie"),
        ((tmp_path / "known", before), "has no new picture: each of 1 picture is known"),
        ((tmp_path / "damaged", before), "x.png"),
        ((tmp_path / "defect", before), "--good defect`"),
        (
            (data / "new", before, "--set", "bank=3"),
            "keeps the settings and the folder of the run: leave out --set",
        ),
    ):
        assert message in cli("fit", "--add", *arguments).complaint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: write_picture(good / "000.png", texture(9)), "changed since"),
        (lambda good: (good / "000.png").unlink(), "now there are 6 in .*bring back those that are gone"),
        (lambda good: write_picture(good / "x.png", texture(9)), "give that to --add"),
    ],
)
def test_other_old_images_get_one_line(change, message, run, data, tmp_path, cli):
    moved = shutil.copytree(data / "old", tmp_path / "old") / "cloth"
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace(str(data / "old/cloth"), str(moved)))
    change(moved / "train/good")
    complaint = cli("fit", "--add", data / "new", run).complaint()
    assert re.search(message, complaint)


def test_trained_detectors_take_no_further_images(before, data, cli, monkeypatch):
    monkeypatch.setattr(EAST, "closed_form", False)
    complaint = cli("fit", "--add", data / "new", before).complaint()
    assert "is trained by gradient descent" in complaint
    assert "fit again on all pictures" in complaint


def test_held_out_images_are_not_mixed_with_added_ones(run, data, cli):
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("cross_fitted", "held_out"))
    assert "threshold_scores=held_out" in cli("fit", "--add", data / "new", run).complaint()


# Names, sessions, features --------------------------------------------------------------------------------------


def test_ids_are_those_of_the_folder_of_good_images(data):
    dataset = open_dataset(data / "old/cloth", hold_out=False)
    files = [Path("a/000.png"), Path("a/x.png"), Path("a/x.jpg")]
    expected = [f"cloth/train/good/{name}" for name in ("000-2", "x.png", "x.jpg")]
    assert list(new_ids(dataset, files)) == expected


@pytest.mark.parametrize(("how", "session"), [("auto", None), (r"^(\d)", "0"), ("none", None)])
def test_sessions_are_told_apart_as_in_one_folder(how, session, data):
    dataset = open_dataset(data / "old/cloth", hold_out=False)
    dataset = replace(dataset, train=[replace(record, session="monday") for record in dataset.train])
    found = with_added(dataset, {"cloth/train/good/000b": data / "new/000b.png"}, how)
    by_id = {record.id: record.session for record in found.train}
    assert by_id["cloth/train/good/000b"] == session
    assert by_id["cloth/train/good/001"] == ("monday" if how == "auto" else session)


def test_features_are_kept_for_the_same_settings_while_there_is_room(tmp_path):
    record = Record(write_picture(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8)), "a")
    file, features = tmp_path / "features.safetensors", torch.arange(6.0).view(2, 3)
    stored = StoredFeatures("these settings", room=24)
    stored.keep(record, features, (4, 6))
    stored.write(file)
    found, size = StoredFeatures.read(file, "these settings").find(record)
    assert torch.equal(found, features)
    assert size == (4, 6)
    assert StoredFeatures.read(file, "other settings").find(record) is None
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert StoredFeatures.read(file, "these settings").find(record) is None
    small = StoredFeatures("these settings", room=23)
    small.keep(record, features, (4, 6))
    small.write(tmp_path / "small.safetensors")
    assert names(tmp_path) == ["a.png", "features.safetensors"]
