"""Labelled anomalous images choose among variants of a detector: by how much, which images may, what every report says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import texture, write_dataset, write_picture
from tiny import TINY

from andon.core.errors import UsageError
from andon.detectors._recipes import load_recipe, resolve
from andon.detectors.east import EAST
from andon.report.report import Report
from andon.runs.choose import decide
from andon.runs.evaluate import evaluate_run
from andon.runs.fit import fit_run
from andon.runs.folder import read_recipe
from andon.runs.source import Source

FOLDS = [[0, 4], [1, 5], [2, 6], [3, 7]]
GOOD = np.arange(100.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cloth`, and `bad` with eight stained images that are not in it."""
    root = tmp_path_factory.mktemp("choice")
    write_dataset(root / "cloth", train=5, good=1, bad=1)
    for k in range(8):
        pixels = texture(400 + k)
        pixels[10 + k : 26 + k, 20:40] = (230, 20, 20)
        write_picture(root / f"bad/{k}.png", pixels)
    return root


# The rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "chosen"), [(1.0, "default"), (3.0, "other")])
def test_the_default_is_kept_unless_beaten_by_two_points(better, chosen):
    """Each score above one more good image is a hundredth of AUROC."""
    bad = {"default": np.full(8, 50.5), "other": np.full(8, 50.5 + better)}
    name, gain = decide(dict.fromkeys(bad, GOOD), bad, FOLDS)
    assert name == chosen
    assert gain == pytest.approx(better / 100)


def test_a_variant_that_one_image_speaks_for_gains_nothing_on_the_others():
    bad = {"default": np.full(8, 50.5), "other": np.array([99.5, *[48.5] * 7])}
    name, gain = decide(dict.fromkeys(bad, GOOD), bad, FOLDS)
    assert (49 - 7 * 2) / 8 / 100 > 0.02  # better on all eight together
    assert name == "default"
    assert gain < 0.02


# A run ----------------------------------------------------------------------------------------------------------


def test_the_choice_is_in_the_run_and_in_its_report(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        EAST, "variants", {"default": {}, "neighbour": {"score": "neighbour"}, "same": {"bank": 20}}
    )
    monkeypatch.setattr("andon.runs.choose.MARGIN", -1.0)
    monkeypatch.setattr("andon.runs.choose._auroc", lambda good, bad: float(bad.mean()))
    monkeypatch.setattr(Report, "save", lambda *_, **__: None)
    folder = shutil.copytree(data / "cloth", tmp_path / "cloth")
    settings = TINY["east"] | {
        "extractor.taps": ["layer1"],
        "extractor.image_size": 32,
        "bank": 20,
        "copies": False,
    }
    recipe = resolve(load_recipe("east/starter"), settings)
    fitted = fit_run(tmp_path / "run", Source(str(folder)), recipe, device="cpu", choose_by=data / "bad")
    stored = read_recipe(tmp_path / "run")
    choice = stored["data"]["choice"]
    assert list(choice["auroc"]) == ["default", "neighbour"]
    assert stored["config"]["score"] == fitted[0].config.score
    assert (choice["chosen"] == "neighbour") == (fitted[0].config.score == "neighbour")
    assert len(choice["images"]) == 8
    shutil.copy(data / "bad/0.png", folder / "test/stain/copy.png")
    report = evaluate_run(tmp_path / "run", latency=False)
    assert report.to_json()["protocol"]["selection"] == "selected on 8 labelled pictures"
    assert "selected on 8 labelled pictures" in report.notes
    assert "copy" not in {case.record.image.stem for case in report.cases}


# What cannot choose ---------------------------------------------------------------------------------------------


def refused(folder: Path, data: Path, out: Path, name: str = "east/starter", **changes: object) -> str:
    with pytest.raises(UsageError) as error:
        fit_run(
            out / "run", Source(str(data / "cloth")), resolve(load_recipe(name), changes), choose_by=folder
        )
    assert not (out / "run").exists()
    return str(error.value)


def test_the_command_line_takes_a_folder(data, tmp_path, cli):
    complaint = cli(
        "fit", data / "cloth", "--labelled", data / "cloth/test/good", "--out", tmp_path / "run"
    ).complaint()
    assert "1 picture in" in complaint
    assert "cannot choose" in complaint


def test_what_cannot_choose_gets_one_line(data, tmp_path):
    few = shutil.copytree(data / "bad", tmp_path / "few")
    (few / "0.png").unlink()
    shutil.copy(few / "1.png", few / "again.png")
    assert "has 7 pictures of defects, choosing among variants takes 8" in refused(few, data, tmp_path)
    inside = data / "cloth/test/stain"
    assert "a test picture, and these choose nothing (cloth/test/stain/000)" in refused(
        inside, data, tmp_path
    )
    assert "is learned from" in refused(data / "cloth/train", data, tmp_path)
    assert "padim has none" in refused(data / "bad", data, tmp_path, "padim/starter")
    held = refused(data / "bad", data, tmp_path, threshold_scores="held_out")
    assert "use threshold_scores=cross_fitted" in held
