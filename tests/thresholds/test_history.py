"""Thresholds changed after fitting: their false-reject rate, their cost, their history; scores stay as they are."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import DataError
from andon.detectors._saving import load_detector
from andon.runs import thresholds
from andon.runs.loading import load
from andon.thresholds import history
from andon.thresholds.costs import cheapest

SCORES = st.lists(st.floats(-5, 5, width=32), min_size=5, max_size=20)


@settings(deadline=None, max_examples=25)
@given(SCORES, SCORES, st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.001, 0.9))
def test_no_threshold_is_cheaper(good, anomalous, escape, reject, rate):
    found = cheapest(good, anomalous, escape=escape, reject=reject, defect_rate=rate)

    def cost(threshold):
        missed = sum(x < threshold for x in anomalous) / len(anomalous)
        rejected = sum(x >= threshold for x in good) / len(good)
        return rate * escape * missed + (1 - rate) * reject * rejected

    assert found.cost == pytest.approx(cost(found.value))
    for threshold in [*good, *anomalous, 10.0, -10.0]:
        assert found.cost <= cost(threshold) + 1e-9
    assert found.value_interval[0] <= found.value_interval[1]
    assert found.cost_interval[0] <= found.cost_interval[1]


def test_expensive_escapes_lower_the_threshold():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 1, 100), rng.normal(2, 1, 100)
    by_price = [cheapest(good, bad, escape=e, reject=1, defect_rate=0.1).value for e in (1, 10, 100)]
    assert by_price == sorted(by_price, reverse=True)
    assert by_price[0] > by_price[-1]
    with pytest.raises(DataError, match="at least 5"):
        cheapest(good, bad[:4], escape=1, reject=1, defect_rate=0.1)


def test_supported_rate_in_words():
    assert thresholds.supported_rate(120) == (
        "120 good pictures support at most 0.83 % false rejects on average; for 0.1 % bring 999"
    )
    assert thresholds.supported_rate(6).endswith("for 5 % bring 19")


@pytest.fixture
def more(tmp_path):
    """40 good pictures that were not learned from."""
    for k in range(40):
        write_picture(tmp_path / "more" / f"{k}.png", texture(1000 + k))
    return tmp_path / "more"


def test_rate_from_more_good_pictures(own_run, more, dataset_folder):
    before = load_detector(own_run)
    picture = next(iter(sorted((dataset_folder / "test/stain").iterdir())))
    old = before.predict(picture)
    _, count = thresholds.by_rate(own_run, 0.05, look=0.2, good=[more], reason="a new lamp")
    after = load_detector(own_run)
    assert count == len(before.fitted().scores) + 40
    found = after.fitted()
    assert found.look is not None
    assert found.look.value < found.image.value
    scores = [after.predict(path).raw_score for path in more.iterdir()]
    assert sum(score >= found.image.value for score in scores) <= 0.05 * (count + 1)
    assert found.score_display(np.float32(found.image.value)) == 1
    assert found.pixel_display(np.float32(found.pixel.value)) == 1
    assert found.score_display(np.float32(found.score_display.typical)) == pytest.approx(0, abs=1e-6)
    new = after.predict(picture)
    assert new.raw_score == old.raw_score
    np.testing.assert_array_equal(new.raw_map, old.raw_map)
    answers = [after.predict(path) for path in [*more.iterdir(), picture]]
    assert all((answer.score >= 1) == (answer.verdict == "NG") for answer in answers)
    assert all(((answer.anomaly_map >= 1) == answer.mask).all() for answer in answers)
    assert {"look", "OK"} <= {answer.verdict for answer in answers}


def test_too_few_pictures_and_pictures_that_were_learned(own_run, dataset_folder):
    with pytest.raises(DataError, match=r"0\.1 % was asked for, that takes 999"):
        thresholds.by_rate(own_run, 0.001, reason="x")
    with pytest.raises(DataError, match="has learned from all"):
        thresholds.by_rate(own_run, 0.05, good=[dataset_folder / "train"], reason="x")
    assert not (own_run / "detector/thresholds.json").exists()


def test_copies_count_once(own_run, more, dataset_folder, tmp_path, cli):
    """The rate that they are to support asks for independent pictures."""
    copies = shutil.copytree(more, tmp_path / "copies")
    known = shutil.copy(dataset_folder / "train/good/000.png", tmp_path / "known.png")
    with pytest.warns(
        thresholds.LeftOutWarning,
        match=r"of 121 pictures 1 that the run knows and 80 that are copies of others are left out",
    ):
        _, count = thresholds.by_rate(own_run, 0.05, good=[more, more, copies, known], reason="x")
    assert count == len(load_detector(own_run).fitted().scores) + 40
    (own_run / "detector/thresholds.json").unlink()
    given = ["--good", more] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        refused = cli("threshold", own_run, "--false-reject-rate", "0.01", *given, "--reason", "x")
    assert "80 that are copies of others are left out" in refused.err
    assert refused.code == 2
    assert "1 % was asked for, that takes 99" in refused.err


def test_data_without_labelled_test_pictures_is_named(own_run, more):
    """Not: the run has learned from them."""
    with pytest.raises(DataError, match=r"more has no labelled test pictures: give a data set"):
        thresholds.by_cost(own_run, str(more), escape=200, reject=5, defect_rate=0.01, reason="x")


def test_pictures_that_were_learned_support_no_rate(own_run, more, cli):
    """A run that held nothing out: its own scores are those of training pictures, and only further pictures count."""
    assert "good pictures support at most" in cli("threshold", own_run).out
    detector = load_detector(own_run)
    detector.calibration = replace(detector.fitted(), source="train and 3 labelled anomalous pictures")
    detector.save(own_run / "detector")
    assert "training pictures say nothing about new ones" in " ".join(cli("threshold", own_run).out.split())
    with pytest.raises(
        DataError, match=r"nothing was held out.* 5 % was asked for, that takes 19: add some with --good"
    ):
        thresholds.by_rate(own_run, 0.05, reason="x")
    change, count = thresholds.by_rate(own_run, 0.05, good=[more], reason="x")
    assert count == 40
    assert "from 40 good pictures" in change.rule


def test_every_change_is_kept_and_can_be_undone(own_run, more):
    fitted = load_detector(own_run).fitted()
    thresholds.by_rate(own_run, 0.05, good=[more], reason="first")
    first = load_detector(own_run).fitted()
    thresholds.by_rate(own_run, 0.1, good=[more], reason="second")
    folder = own_run / "detector"
    history.undo(folder, fitted, reason="too many looks")
    assert load_detector(own_run).fitted().image == first.image
    changes = history.read_changes(folder)
    assert [c.reason for c in changes] == ["first", "second", "too many looks"]
    assert all(c.who and c.when for c in changes)
    (folder / "thresholds.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be understood"):
        load_detector(own_run)


@pytest.mark.parametrize("name", ["image", "pixel", "look"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", '"1e9"', "true", "1" + "0" * 400])
def test_thresholds_that_are_no_finite_numbers_are_refused(own_run, name, value, dataset_folder, cli):
    fitted = load_detector(own_run).fitted()
    history.change(own_run / "detector", replace(fitted, look=fitted.image), reason="x", rule="x")
    file = own_run / "detector/thresholds.json"
    saved = json.loads(file.read_text())
    saved["changes"][-1][name]["value"] = "here"
    file.write_text(json.dumps(saved).replace('"here"', value))
    with pytest.raises(DataError, match=rf"the {name} threshold is .*, not a finite number.*bring back"):
        history.read_changes(own_run / "detector")
    if (name, value) == ("image", "NaN"):
        picture = dataset_folder / "test/stain/000.png"
        for runtime in ("auto", "torch"):
            said = cli("predict", own_run, picture, "--runtime", runtime).complaint()
            assert "the image threshold is nan, not a finite number" in said


@pytest.mark.parametrize("name", ["image", "pixel"])
def test_a_missing_threshold_is_refused(own_run, name):
    history.change(own_run / "detector", load_detector(own_run).fitted(), reason="x", rule="x")
    file = own_run / "detector/thresholds.json"
    saved = json.loads(file.read_text())
    saved["changes"][-1][name] = None
    file.write_text(json.dumps(saved))
    with pytest.raises(DataError, match=f"the {name} threshold is None"):
        history.read_changes(own_run / "detector")


@pytest.mark.parametrize("name", ["image", "pixel", "look"])
def test_a_threshold_that_is_nan_passes_nothing(own_run, name):
    fitted = load_detector(own_run).fitted()
    broken = replace(fitted, **{name: replace(fitted.image, value=float("nan"))})
    found = broken.judge(np.zeros((8, 8), np.float32), -100.0)
    assert (found.verdict, found.is_anomalous) == ("ERROR", True)
    assert f"the {name} threshold is nan" in found.error


def test_a_detector_that_is_saved_keeps_its_own_thresholds_alone(own_run, monkeypatch):
    folder = own_run / "detector"
    fitted = load_detector(folder).fitted()
    history.change(folder, replace(fitted, image=replace(fitted.image, value=999.0)), reason="x", rule="x")
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = load_detector(folder)
    loaded.save(folder)  # the same one: history and thresholds as fitted stay
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    loaded.calibration = fitted.with_thresholds(replace(fitted.image, value=3.0), fitted.pixel, None)
    with monkeypatch.context() as patch:
        patch.setattr("andon.detectors._saving.write_bytes", None)
        with pytest.raises(TypeError):
            loaded.save(folder)  # killed before anything new is written
        with pytest.raises(DataError, match="holds no detector"):
            load_detector(folder)
    loaded.save(folder)
    assert not (folder / "thresholds.json").exists()
    assert load_detector(folder).fitted().image.value == 3.0


def test_thresholds_travel_with_the_packed_detector(own_run, more, tmp_path, monkeypatch):
    from andon.exporting import packed as packing
    from andon.runs.export import pack_run

    monkeypatch.setattr(packing, "_network", lambda detector, pictures: (None, "left out here"))
    thresholds.by_rate(own_run, 0.05, look=0.2, good=[more], reason="a new lamp")
    pack_run(own_run, tmp_path / "x.andon")
    assert load(tmp_path / "x.andon").fitted() == load_detector(own_run).fitted()


def test_command(own_run, more, dataset_folder, cli):
    shown = cli("threshold", own_run)
    assert "good pictures support at most" in shown.out
    assert "reason" in cli("threshold", own_run, "--false-reject-rate", "0.1", "--good", more).complaint()
    assert "--escape-cost" in cli("threshold", own_run, "--labelled", dataset_folder).complaint()
    assert "choose one" in cli("threshold", own_run, "--undo", "--false-reject-rate", "0.1").complaint()
    assert "nothing to undo" in cli("threshold", own_run, "--undo", "--reason", "x").complaint()
    assert "no detector" in cli("threshold", more).complaint()
    assert (
        "at least 5 good"
        in cli(
            "threshold",
            own_run,
            "--labelled",
            dataset_folder,
            "--escape-cost",
            200,
            "--reject-cost",
            5,
            "--reason",
            "x",
        ).err
    )
    found = cli(
        "threshold",
        own_run,
        "--false-reject-rate",
        "0.1",
        "--good",
        more,
        "--reason",
        "night shift",
        "--json",
    )
    assert [c["reason"] for c in json.loads(found.out)["changes"]] == ["night shift"]
    assert "night shift" in cli("threshold", own_run).out


def test_by_cost(own_run, tmp_path, cli):
    from conftest import write_dataset

    data = write_dataset(tmp_path / "labelled", train=1, good=6, bad=6)
    for k in range(6):  # others than those of the run
        write_picture(data / f"test/good/{k:03d}.png", texture(500 + k))
    before = load_detector(own_run).fitted()
    _, best = thresholds.by_cost(own_run, str(data), escape=200, reject=5, defect_rate=0.01, reason="prices")
    after = load_detector(own_run).fitted()
    assert after.image.value == pytest.approx(best.value)
    assert after.pixel == before.pixel
    assert "cheapest threshold on 12 labelled pictures" in cli("threshold", own_run).out.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.xdist_group("network")
@pytest.mark.usefixtures("exported_once")
def test_thresholds_hold_for_a_network_that_was_exported_before(own_run, more, dataset_folder):
    """The verdict follows the run's thresholds in every runtime."""
    picture = sorted((dataset_folder / "test/good").iterdir())[0]
    before = load(own_run, "onnx").predict(picture)
    thresholds.by_rate(own_run, 0.1, look=0.4, good=[more], reason="a new lamp")
    detector, model = load_detector(own_run), load(own_run, "onnx")
    assert model.fitted() == detector.fitted()
    verdicts = [detector.predict(path).verdict for path in more.iterdir()]
    assert {"OK", "look"} <= set(verdicts)
    assert [model.predict(path).verdict for path in more.iterdir()] == verdicts
    after = model.predict(picture)
    assert after.raw_score == before.raw_score
    assert after.score == pytest.approx(detector.predict(picture).score, abs=1e-3)


@pytest.mark.parametrize("command", ["threshold", "predict", "export", "latency"])
def test_an_edited_detector_is_refused_by_every_command(own_run, dataset_folder, tmp_path, cli, command):
    file = own_run / "detector/detector.json"
    description = json.loads(file.read_text())
    description["calibration"]["image"]["value"] *= 2
    file.write_text(json.dumps(description))
    images = [dataset_folder / "test/good/000.png"] if command in {"predict", "latency"} else []
    assert "was changed after it was saved" in cli(command, own_run, *images).complaint()
