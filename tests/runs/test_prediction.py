"""Predicting files: which pictures, in which order, and what is written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import names, texture, write_picture
from PIL import Image

import andon.core.images
import andon.report.maps
import andon.runs.predict
from andon.core.errors import DataError, OutputError
from andon.core.image_files import decode
from andon.core.listing import PassedBy
from andon.datasets.findings import FindingsLog
from andon.datasets.folder_scan import scan
from andon.detectors._base import Detector
from andon.detectors._saving import load_detector
from andon.runs.inputs import PassedByWarning, list_inputs, walk_archive
from andon.runs.predict import predict_files


@pytest.fixture(scope="module")
def detector(tiny_run) -> Detector:
    return load_detector(tiny_run)


def test_folders_are_searched_in_natural_order(tmp_path):
    for name in ("b10.png", "b2.png", "deep/a.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    passed = PassedBy()
    with pytest.warns(PassedByWarning):
        records = list_inputs([tmp_path, tmp_path / "notes.txt"], passed)
    assert passed.counts == {"no_picture": 1, "hidden": 1}
    assert [record.id for record in records] == ["b2.png", "b10.png", "deep/a.PNG", "notes.txt"]


def test_pictures_of_one_name_keep_apart(tmp_path):
    paths = [write_picture(tmp_path / folder / "same.png", texture(0)) for folder in ("a", "b")]
    other = write_picture(tmp_path / "c.png", texture(0))
    for inputs in ([*paths, other], [tmp_path / "a", tmp_path / "b", other]):
        ids = [record.id for record in list_inputs(inputs)]
        assert len(set(ids)) == 3
        assert ids[2] == "c.png"
        assert ids[0].endswith("a/same.png")
        assert not ids[0].startswith("/")


def test_bad_inputs_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.png does not exist"):
        list_inputs([tmp_path / "absent.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures that can be read: give a folder with png"):
        list_inputs([tmp_path / "empty"])


def test_answers_are_the_detectors(detector, dataset_folder):
    paths = sorted((dataset_folder / "test").rglob("*.png"))
    answers = predict_files(detector, list_inputs(paths))
    assert [answer.path for answer in answers] == [str(path) for path in paths]
    for path, answer in zip(paths, answers, strict=True):
        alone = detector.predict(path)
        assert answer.raw_score == pytest.approx(alone.raw_score, rel=1e-5)
        assert answer.verdict == ("NG" if answer.raw_score >= detector.fitted().image.value else "OK")
        assert answer.area == pytest.approx(float(alone.mask.mean()), abs=2 / alone.mask.size)
    assert json.loads(json.dumps([answer.to_json() for answer in answers]))


def damaged(folder: Path) -> list[Path]:
    good = [write_picture(folder / f"{k}.png", texture(k)) for k in range(2)]
    (folder / "1b.png").write_bytes(b"")
    (folder / "1c.png").write_bytes(good[0].read_bytes()[:500])
    return [good[0], folder / "1b.png", good[1], folder / "1c.png"]


def test_unreadable_pictures_cost_themselves_alone(detector, tmp_path):
    paths = damaged(tmp_path / "in")
    answers = predict_files(detector, list_inputs(paths), save=tmp_path / "out", maps=True)
    assert [answer.verdict == "unreadable" for answer in answers] == [False, True, False, True]
    assert "1c.png" in answers[3].reason
    assert answers[1].score is None
    files = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("[!.]*") if p.is_file()
    )
    assert files == [
        "heatmaps/0.png",
        "heatmaps/1.png",
        "maps/0.tiff",
        "maps/1.tiff",
        "masks/0.png",
        "masks/1.png",
        "predictions.csv",
    ]
    with (tmp_path / "out/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["verdict"] for row in rows] == [answer.verdict for answer in answers]
    assert float(rows[0]["score"]) == answers[0].score
    with Image.open(tmp_path / "out/masks/0.png") as mask:
        assert mask.size == (64, 64)
        assert np.asarray(mask).astype(bool).mean() == pytest.approx(answers[0].area)


@pytest.mark.parametrize("save", [False, True])
def test_every_file_is_decoded_once(detector, tmp_path, monkeypatch, save):
    paths = damaged(tmp_path / "in")
    opened: list[Path] = []
    for module in (andon.core.images, andon.report.maps):
        monkeypatch.setattr(module, "decode", lambda path, **how: opened.append(path) or decode(path, **how))
    folder = tmp_path / "out" if save else None
    predict_files(detector, list_inputs(paths), save=folder)
    predict_files(detector, list_inputs(paths[::2]), save=folder)
    assert sorted(opened) == sorted([*paths, *paths[::2]])


def test_answers_are_written_as_they_come(detector, tmp_path, monkeypatch):
    paths, out = damaged(tmp_path / "in"), tmp_path / "out"
    predict_files(detector, list_inputs(paths[:1]), save=out)
    real = andon.runs.predict._save

    def dies(prediction, *arguments):
        if prediction.record.image == paths[2]:
            raise KeyboardInterrupt
        real(prediction, *arguments)

    monkeypatch.setattr(andon.runs.predict, "_save", dies)
    with pytest.raises(KeyboardInterrupt):
        predict_files(detector, list_inputs(paths), save=out)
    with (out / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [str(path) for path in paths[:2]]
    assert (out / "heatmaps/0.png").is_file()


def test_a_jpeg_above_the_limit_is_answered_reduced_and_says_so(detector, tmp_path, monkeypatch):
    large = write_picture(tmp_path / "large.jpg", texture(0).repeat(4, axis=0).repeat(4, axis=1))
    refused = write_picture(tmp_path / "refused.png", texture(0).repeat(4, axis=0).repeat(4, axis=1))
    small = write_picture(tmp_path / "small.png", texture(1))
    monkeypatch.setenv("ANDON_MAX_PIXELS", "10000")
    expected = detector.predict(decode(large, reduce=True).pixels)
    answers = predict_files(detector, list_inputs([large, refused, small]), save=tmp_path / "out")
    assert answers[0].reason == "read at 1/4 of its width and height"
    assert answers[0].score == pytest.approx(expected.score, rel=1e-5)
    assert (answers[1].verdict, answers[2].reason) == ("unreadable", "")
    assert "has 65536 pixels" in answers[1].reason
    (file,) = (tmp_path / "out/heatmaps").glob("large*")
    with Image.open(file) as heat_map:
        assert heat_map.size == (64, 64)


def test_an_image_for_which_memory_does_not_suffice_costs_itself_alone(detector, tmp_path, monkeypatch):
    paths = damaged(tmp_path / "in")[::2]
    real = detector.prepare

    def prepare(pixels):
        if np.array_equal(pixels, decode(paths[0]).pixels):
            raise MemoryError
        return real(pixels)

    monkeypatch.setattr(detector, "prepare", prepare)
    answers = predict_files(detector, list_inputs(paths))
    assert [answer.verdict == "unreadable" for answer in answers] == [True, False]
    assert "does not fit into the free memory" in answers[0].reason


def test_nothing_readable(detector, tmp_path):
    answers = predict_files(detector, list_inputs(damaged(tmp_path)[1::2]))
    assert [answer.verdict for answer in answers] == ["unreadable", "unreadable"]


def test_place_that_cannot_be_written(detector, dataset_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        predict_files(detector, list_inputs([dataset_folder / "test/good/000.png"]), save=tmp_path / "file")


def test_own_output_is_no_input(detector, tmp_path, cli, tiny_run):
    image = write_picture(tmp_path / "line" / "a.png", texture(0))
    predict_files(detector, list_inputs([image]), save=tmp_path / "line" / "found", maps=True)
    for listed in (list_inputs, walk_archive):
        passed = PassedBy()
        with pytest.warns(PassedByWarning, match="passed by"):
            assert [record.image for record in listed([tmp_path / "line"], passed)] == [image]
        assert passed.counts == {"own_output": 3, "no_picture": 1}
    log = FindingsLog()
    assert scan(tmp_path / "line" / "found", log).folders == ()
    assert len(log.notes) == 3
    assert "lies inside" in cli("predict", tiny_run, image.parent, "--save", image.parent / "s").complaint()
    assert not (image.parent / "s").exists()


def test_heat_maps_do_not_take_the_place_of_masks_of_the_user(cli, tiny_run, tmp_path, monkeypatch):
    image = write_picture(tmp_path / "set" / "defect" / "a.png", texture(0))
    own = write_picture(tmp_path / "set" / "masks" / "a.png", texture(1))
    before = own.read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{image}\n".encode())))
    for ways in ([image.parent], [image.parent, "--out", tmp_path / "t.csv"], ["-"]):
        said = cli("predict", tiny_run, *ways, "--save", tmp_path / "set").complaint()
        assert f"{own.parent} holds files that andon did not write" in said
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["defect", "masks"]
    assert own.read_bytes() == before
