"""Runs with sessions and with good images that were left out: stored, shown, repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import set_options, texture, write_picture

from andon.datasets.sessions import Sessions, sessions_of
from andon.runs.folder import read_recipe
from andon.runs.source import run_data

FIT = ("--device", "cpu", *set_options())


@pytest.fixture
def days(own_dataset: Path) -> Path:
    """The data set with three days of training images, told apart by folders and by names."""
    for k, path in enumerate(sorted((own_dataset / "train/good").iterdir())):
        day = f"day{k // 4}"
        (own_dataset / "train/good" / day).mkdir(exist_ok=True)
        path.rename(own_dataset / "train/good" / day / f"{day}_{path.name}")
    return own_dataset


def test_a_run_keeps_its_sessions_exclusions_and_names_of_folders(days, tmp_path, cli, capsys):
    run = tmp_path / "run"
    (days / "train/good").rename(days / "train/Serie A")
    command = (
        "fit",
        days,
        "--out",
        run,
        "--good",
        "serie a",
        "--exclude",
        "day1_005.png",
        "--exclude",
        "train/Serie A/day2/day2_011",
        *FIT,
    )
    done = cli(*command)
    assert done.code == 0, done.err
    assert (
        "left out on request: 2 (cloth/train/Serie A/day1/day1_005, cloth/train/Serie A/day2/day2_011)"
        in done.out
    )
    assert "sessions: whole sessions were held out (1 of 3: day" in done.out
    recipe = read_recipe(run)
    assert recipe["exclude"] == ["cloth/train/Serie A/day1/day1_005", "cloth/train/Serie A/day2/day2_011"]
    assert recipe["sessions"] == "auto"
    assert recipe["good"] == ["serie a"]
    assert recipe["data"]["sessions"]["pictures"] == {"day0": 4, "day1": 3, "day2": 3}
    held = recipe["data"]["sessions"]["held_out"]
    data = run_data(run)
    assert {record.session for record in data.validation} == set(held)
    other = cli(*command, "--sessions", "none", "--resume")
    assert "was started with another sessions" in other.complaint()
    assert "another exclude" in cli(*command[:8], *FIT, "--resume").complaint()
    for name in ("day1/day1_005.png", "day2/day2_011.png"):  # removed for good after fitting
        (days / "train/Serie A" / name).unlink()
    shown = cli("evaluate", run, "--json")
    report = json.loads(shown.out)
    assert report["protocol"]["excluded"] == recipe["exclude"]
    assert any(note.startswith("2 good pictures left out of learning on request") for note in report["notes"])
    assert any(note.startswith("whole sessions were held out (1 of 3") for note in report["notes"])
    shown = cli("threshold", run, "--json")
    measured = json.loads(shown.out)["measured"]
    for name in ("image_recall", "image_fpr"):
        assert measured[name] == report["metrics"][name]
    text = cli("threshold", run).out
    assert " of 4 anomalous; 95 % interval " in text and " of 4 good; 95 % interval " in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sessions", "("), "is no regular expression"),
        (("--sessions", r"\d"), "has 0 groups"),
        (("--sessions", "^shift(.)"), "matches none of 12 file names"),
        (("--sessions", "exif"), "none of the 12 good pictures has an EXIF day"),
        (("--exclude", "train/good/0011.png"), "did you mean cloth/train/good/0"),
        (("--exclude", "test/stain/000.png"), "is none of the 12 good pictures"),
    ],
)
def test_wrong_sessions_and_exclusions_get_one_line(options, message, dataset_folder, tmp_path, cli):
    assert message in cli("fit", dataset_folder, "--out", tmp_path / "run", *options, *FIT).complaint()
    assert message in cli("data", "check", dataset_folder, *options).complaint()
    assert not (tmp_path / "run").exists()


def test_data_check_lists_sessions(days, dataset_folder, cli):
    assert (
        "3 sessions of good pictures (folders or manifest): day0 (4), day1 (4), day2 (4)"
        in cli("data", "check", days).out
    )
    by_name = cli(
        "data", "check", days, "--sessions", r"_(\d\d\d)\.", "--exclude", "day0_003.png", "--json"
    ).out
    assert json.loads(by_name)["cloth"]["sessions"]["pictures"] == {
        f"{k:03d}": 1 for k in range(12) if k != 3
    }
    assert "sessions: nothing is known about them" in cli("data", "check", dataset_folder).out


def test_what_the_promise_holds_for():
    assert (
        Sessions({}, ()).describe()
        == "nothing is known about sessions: the promised rate holds for pictures like these"
    )
    assert Sessions({"monday": 9}, ()).describe() == (
        "all pictures are of one session (monday): the promised rate holds for pictures like these"
    )
    assert "the promised rate holds for these sessions" in Sessions({"a": 9, "b": 9}, ()).describe()
    assert "each of 2 sessions was scored by what" in Sessions({"a": 9, "b": 9}, (), True).describe()
    assert "(1 of 3: c)" in Sessions({"a": 9, "b": 9, "c": 3}, ("c",)).describe()


def test_one_session_is_said_by_data_of_one_day(tmp_path):
    from andon.datasets import open_dataset

    for k in range(10):
        write_picture(tmp_path / "cup" / "normal" / "monday" / f"{k}.png", texture(k))
    assert sessions_of(open_dataset(tmp_path / "cup")) == Sessions({"monday": 10}, ())
