"""Cameras with 10 to 14 bits in files of 16: learned, stored, applied and checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import texture, write_picture
from PIL import Image
from tiny import TINY

from andon.api import create
from andon.core.appearance import RangeWarning
from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.detectors._saving import load_detector
from andon.exporting.packed import open_pack, pack, read_pack
from andon.nn.feature_cache import _area_key
from andon.nn.training import Trainer
from andon.runs.kept import kept_model
from andon.runs.loading import open_predictor

BITS = 12


def twelve_bits(seed: int) -> np.ndarray:
    grey = texture(seed)[:, :, 0].astype(np.uint16) << (BITS - 8)
    grey[0, 0] = 2**BITS - 1
    return grey


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    for k in range(8):
        write_picture(folder / "good" / f"{k}.png", twelve_bits(k))
        write_picture(folder / "eight" / f"{k}.png", (twelve_bits(k) >> 4).astype(np.uint8))
    return folder


def fitted(folder: Path, **settings: object):
    records = [Record(path, path.stem, split="train", label=0) for path in sorted(folder.glob("*.png"))]
    tiny = {key.replace(".", "__"): value for key, value in TINY["padim"].items()}
    detector = create("padim", "starter", **{**tiny, **settings})
    return detector.fit(records, trainer=Trainer(seed=0, device="cpu"))


@pytest.fixture(scope="module")
def detector(folder):
    return fitted(folder / "good")


def test_learned_and_scored_as_the_same_images_in_eight_bits(folder, detector):
    assert detector.fitted().bit_depth == BITS
    eight = fitted(folder / "eight")
    assert eight.fitted().bit_depth == 16
    score, same = detector.predict(folder / "good/3.png").score, eight.predict(folder / "eight/3.png").score
    assert score == pytest.approx(same, abs=0.05)
    assert not detector.predict(folder / "good/3.png").notes
    assert detector.fitted().scores == pytest.approx(eight.fitted().scores, rel=0.05)


def test_saved_and_applied_everywhere(folder, detector, tmp_path):
    detector.save(tmp_path)
    loaded, path = load_detector(tmp_path), folder / "good/2.png"
    assert loaded.fitted().seen == detector.fitted().seen
    with Image.open(path) as opened:
        answers = [detector.predict(path), loaded.predict(path), loaded.predict(opened)]
    assert len({answer.raw_score for answer in answers}) == 1
    record = loaded.as_learned(Record(path, "2"))
    assert record.bit_depth == BITS
    assert _area_key(record) == "-bits12"
    assert _area_key(Record(path, "2")) == ""


def test_no_network_answers_for_it(folder, detector, tmp_path):
    """Pack and run answer by PyTorch, whether the pictures of the run can still be found or not."""
    run, packed = tmp_path / "run", tmp_path / "part.andon"
    detector.save(run / "detector")
    (run / "recipe.yaml").write_text("name: padim/starter")
    paths = [
        *sorted((folder / "good").glob("*.png")),
        *(write_picture(tmp_path / f"{k}.png", twelve_bits(50 + k)) for k in range(4)),
    ]
    good = [Record(path, path.stem, label=0) for path in paths]
    manifest = pack(run, packed, good, recipe={"name": "padim/starter", "data": {}})
    assert "more than 8 bits, which a network file rounds to 8" in manifest["network"]
    with pytest.raises(ConfigError, match="more than 8 bits"):
        kept_model(run)
    with pytest.raises(ConfigError, match=r"not executed by onnx, .* --runtime torch executes it"):
        open_predictor(run, "onnx")
    found = read_pack(packed)
    check = found.checks()[0]
    np.testing.assert_allclose(found.image(check)[:, :, 0], twelve_bits(0) / 4095, atol=1e-5)
    assert check.raw_score == pytest.approx(detector.predict(paths[0]).raw_score, abs=1e-4)
    earlier = replace(found, members={**found.members, "model.onnx": b"rounds to 8 bits"})
    for predictor in (open_pack(packed, "auto"), earlier.open("auto"), open_predictor(run, "auto").predictor):
        assert predictor.runtime.startswith("torch")
        assert predictor.predict(paths[-1]).raw_score == detector.predict(paths[-1]).raw_score
    with pytest.raises(DataError, match=r"holds no network \(it learned .*: PyTorch alone"):
        earlier.open("onnx")


def test_other_depths_are_noted_or_refused(folder, detector, tmp_path):
    (found,) = detector.judged([folder / "eight/0.png"])
    assert [note.code for note in found.notes] == ["bit_depth"]
    brighter = write_picture(tmp_path / "brighter.png", twelve_bits(0) * 2)
    with pytest.raises(DataError, match=r"brighter\.png holds values up to 8190, more than the 12 bits"):
        detector.predict(brighter)


def test_it_can_be_set(folder):
    with pytest.warns(RangeWarning, match=r"25\.0% of the range"):
        found = fitted(folder / "good", bit_depth=14).fitted()
    assert found.bit_depth == 14
    assert json.loads(json.dumps(found.to_json()))["seen"]["bit_depth"] == 14
    with pytest.raises(DataError, match=r"more than the 10 bits .* --set bit_depth=12"):
        fitted(folder / "good", bit_depth=10)


def test_data_check_and_fit_say_it(cli, folder, tmp_path):
    found = cli("data", "check", folder / "good")
    line = "bit depth: 12 (0 to 4095), the largest value of the training pictures is 4095"
    assert line in found.out
    test = tmp_path / "set"
    for k in range(4):
        write_picture(test / "train/good" / f"{k}.png", twelve_bits(k))
    write_picture(test / "test/good/0.png", twelve_bits(0) * 2)
    refused = cli("data", "check", test)
    assert refused.code == 2
    assert "1 picture with values above the 12 bits of the training pictures" in refused.out
    assert "fit with --set bit_depth=14" in refused.out
