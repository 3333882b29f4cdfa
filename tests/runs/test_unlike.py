"""Images unlike the training images: a verdict with notes and one warning of each kind, or refused with --strict."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import texture, write_picture

from andon.detectors._saving import load_detector
from andon.runs.stream import answer_lines
from andon.runtime.model import FORMAT, Model
from andon.runtime.predictor import UnlikeTrainingWarning
from andon.runtime.sessions import Outputs


@pytest.fixture(scope="module")
def detector(tiny_run):
    return load_detector(tiny_run)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One image like the training images, three in grey, one of half the size."""
    folder = tmp_path_factory.mktemp("mixed")
    write_picture(folder / "a.png", texture(50))
    for k in range(3):
        write_picture(folder / f"grey{k}.png", texture(k)[:, :, 0])
    write_picture(folder / "half.png", np.ascontiguousarray(texture(51)[:32, :32]))
    return folder


def test_warned_of_once_for_each_kind(cli, tiny_run, mixed, tmp_path):
    found = cli("predict", tiny_run, mixed, "--json", "--save", tmp_path / "out")
    assert found.code == 0
    warnings = [line for line in found.err.splitlines() if "unlike" in line]
    assert len(warnings) == 2
    assert f"{mixed}/grey0.png and 2 more: unlike the training pictures (less colour, or grey" in warnings[0]
    assert (
        f"{mixed}/half.png: unlike the training pictures (32 x 32 pixels, learned from 64 x 64)"
        in warnings[1]
    )
    answers = json.loads(found.out)["predictions"]
    assert [[note["code"] for note in answer["notes"]] for answer in answers] == [
        [],
        *3 * [["grey"]],
        ["size"],
    ]
    assert answers[4]["notes"][0]["text"] == "32 x 32 pixels, learned from 64 x 64"
    with (tmp_path / "out/predictions.csv").open(newline="") as stream:
        assert [row["notes"] for row in csv.DictReader(stream)] == ["", "grey", "grey", "grey", "size"]


def test_strict_refuses_them(cli, tiny_run, mixed, tmp_path):
    found = cli("predict", tiny_run, mixed, "--strict", "--json", "--save", tmp_path / "out")
    assert found.code == 2
    assert "4 of 5 pictures have no verdict (ERROR)" in found.err
    first, *others = json.loads(found.out)["predictions"]
    assert first["verdict"] in {"OK", "NG"}
    assert {(one["verdict"], one["score"]) for one in others} == {("ERROR", None)}
    assert others[3]["reason"] == "unlike the training pictures: 32 x 32 pixels, learned from 64 x 64"
    assert [path.name for path in (tmp_path / "out/heatmaps").glob("*.png")] == ["a.png"]


@pytest.mark.parametrize("strict", [False, True])
def test_archives(cli, tiny_run, mixed, tmp_path, strict):
    table = tmp_path / "table.csv"
    found = cli("predict", tiny_run, mixed, "--out", table, *["--strict"] * strict)
    assert found.code == (2 if strict else 0)
    assert found.err.count("unlike the training pictures") == 2
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["notes"] for row in rows] == ["", "grey", "grey", "grey", "size"]
    assert [row["verdict"] == "ERROR" for row in rows] == [False, *4 * [strict]]


def test_a_stream_warns_at_the_first_of_each_kind(detector, mixed):
    written: list[str] = []
    lines = [str(path).encode() + b"\n" for path in sorted(mixed.glob("*.png"))]
    answer_lines(detector, lines, written.append, strict=True, warn=written.append)
    answers = [json.loads(line) for line in written if line.startswith("{")]
    assert [answer["verdict"] == "ERROR" for answer in answers] == [False, *4 * [True]]
    assert [k for k, line in enumerate(written) if "unlike the training pictures (" in line] == [2, 6]


def test_python(tiny_run, mixed):
    detector = load_detector(tiny_run)
    with pytest.warns(UnlikeTrainingWarning, match=r"half\.png is unlike the training pictures \(32 x 32"):
        found = detector.predict(mixed / "half.png")
    assert [note.code for note in found.notes] == ["size"]
    assert detector.predict(mixed / "half.png").notes == found.notes  # warned of once
    assert not detector.predict(mixed / "a.png").notes
    with pytest.warns(UnlikeTrainingWarning, match="this picture is unlike"):
        assert detector.predict(texture(0)[:, :, 0]).notes[0].code == "grey"


def test_exported_networks_and_saved_detectors_carry_it(detector, mixed):
    def session(images):
        maps = np.zeros(images.shape[:3], np.float32)
        return Outputs(np.zeros(1, np.float32), np.zeros(1, np.float32), maps)

    fitted = detector.fitted()
    assert fitted.seen is not None and fitted.seen.lowest.width == 64
    model = Model(session, {"format": FORMAT, "detector": "x", "calibration": fitted.to_json()})
    found = next(model.judged([mixed / "half.png"]))
    assert [note.code for note in found.notes] == ["size"]
    older = fitted.to_json()
    del older["seen"]
    model = Model(session, {"format": FORMAT, "detector": "x", "calibration": older})
    assert not model.predict(mixed / "half.png").notes
    assert replace(fitted, seen=None) == model.fitted()
