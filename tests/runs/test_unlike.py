"""Images unlike the training images: a verdict with notes and one warning of each kind, or refused with --strict."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from conftest import texture, write_picture

from andon.core.errors import DataError
from andon.detectors._saving import load_detector
from andon.runs.stream import answer_lines
from andon.runtime.model import FORMAT, Model
from andon.runtime.predictor import UnlikeTrainingWarning
from andon.runtime.runtimes import Outputs


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


def test_a_stream_answers_what_no_path_can_be(detector, mixed, tmp_path):
    """A NUL, a name that is too long, a link to itself: the paths behind them are answered."""
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    last = mixed / "a.png"
    long = b"rgb/" + 300 * b"x" + b".png"
    written: list[str] = []
    answer_lines(detector, [b"a\0b.png\n", long, bytes(tmp_path / "loop.png"), bytes(last)], written.append)
    answers = [json.loads(line) for line in written]
    assert [answer["verdict"] for answer in answers[:3]] == ["unreadable"] * 3
    assert answers[0]["path"] == "a\0b.png"
    assert "cannot be read" in answers[0]["reason"]
    assert (answers[3]["path"], answers[3]["verdict"] in {"OK", "NG"}) == (str(last), True)


def test_python(tiny_run, mixed):
    detector = load_detector(tiny_run)
    with pytest.warns(UnlikeTrainingWarning, match=r"half\.png is unlike the training pictures \(32 x 32"):
        found = detector.predict(mixed / "half.png")
    assert [note.code for note in found.notes] == ["size"]
    assert detector.predict(mixed / "half.png").notes == found.notes  # warned of once
    assert not detector.predict(mixed / "a.png").notes
    with pytest.warns(UnlikeTrainingWarning, match="this picture is unlike"):
        assert detector.predict(texture(0)[:, :, 0]).notes[0].code == "grey"


def without(*keys):
    """A change that takes away what lies below these keys of a description."""

    def change(values):
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return change


REGION = {"size": [64, 64], "fill": [1, 2, 3], "bits": base64.b64encode(zlib.compress(bytes(512))).decode()}


def region(**changes):
    return lambda values: values["calibration"].update(inspected=REGION | changes)


@pytest.mark.parametrize(
    "damage",
    [
        without("calibration"),
        without("detector"),
        without("calibration", "pixel"),
        without("calibration", "pixel", "value"),
        without("calibration", "score_display", "threshold"),
        lambda values: values.update(calibration="text"),
        lambda values: values.update(tiles={"size": "text"}),
        lambda values: values["calibration"].update(scores=None),
        lambda values: values["calibration"].update(seen={"count": 3}),
        region(bits="AAAA"),
        region(bits="no base64"),
        region(bits=base64.b64encode(zlib.compress(bytes(511))).decode()),
        region(bits=base64.b64encode(zlib.compress(bytes(1 << 20))).decode()),
        region(size=[-64, -64]),
        region(size=["64", 64]),
        region(size=[10**9, 10**9]),
        region(fill=[1, 2, 300]),
        region(fill=[1, 2]),
    ],
)
def test_damaged_descriptions_of_networks_are_refused(detector, damage):
    description = {"format": FORMAT, "detector": "x", "calibration": detector.fitted().to_json()}
    description = json.loads(json.dumps(description))
    damage(description)
    with pytest.raises(
        DataError, match=r"x\.onnx holds a description that cannot be understood \("
    ) as caught:
        Model(None, description, "x.onnx")
    assert "\n" not in str(caught.value)


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
