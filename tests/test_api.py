"""The public surface: what `import andon` offers, what it does not load, and the two functions that start from a name."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import andon
from andon.core.errors import ConfigError, DataError, NotFittedError, UsageError

TINY = {
    "extractor__weights": "random",
    "extractor__taps": ["layer2"],
    "extractor__image_size": 64,
    "extractor__project": 16,
}


def test_every_public_name_is_there():
    assert sorted(andon.__all__) == list(andon.__all__)
    assert set(andon._HOMES) == set(andon.__all__)
    assert set(andon.__all__) < set(dir(andon))
    for name in andon.__all__:
        assert getattr(andon, name).__module__.startswith("andon.")
    assert andon.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = andon.nothing


def test_importing_andon_loads_nothing_heavy():
    code = "import sys, andon; print(*(m for m in ('torch', 'timm', 'numpy', 'matplotlib', 'pydantic') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_create_takes_settings_and_recipes(tmp_path):
    detector = andon.create(
        "efficientad_ast", "starter", **TINY, teacher__epochs=24, teacher__hidden=8, student__width=16
    )
    assert isinstance(detector, andon.Detector)
    assert detector.config.teacher.epochs == 24
    assert detector.input_size == (64, 64)
    assert detector.config.student.blocks == 2  # the starter recipe's
    with pytest.raises(NotFittedError, match="has not learned yet"):
        detector.predict(np.zeros((20, 20, 3), np.uint8))


def test_create_without_a_name_gives_the_default():
    detector = andon.create()
    assert detector.name == "east"
    assert [line["name"] for line in detector.used_weights] == ["lite0"]
    assert [line["licence"] for line in detector.used_weights] == ["Apache-2.0"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: andon.create("eficientad_ast"), "did you mean efficientad_ast?"),
        (lambda: andon.create("efficientad_ast", "startr"), "efficientad_ast/starter"),
        (lambda: andon.create("efficientad_ast", teacher__epoch=2), "did you mean teacher.epochs?"),
        (lambda: andon.create("efficientad_ast", teacher__epochs="x"), "teacher.epochs='x'"),
    ],
)
def test_wrong_names_are_config_errors(call, words):
    with pytest.raises(ConfigError) as caught:
        call()
    assert words in str(caught.value)


def test_load_takes_a_run_or_a_detector_folder(tiny_run, dataset_folder):
    picture = dataset_folder / "test/stain/000.png"
    first, second = (
        andon.load(tiny_run).predict(picture),
        andon.load(str(tiny_run / "detector")).predict(str(picture)),
    )
    assert first.raw_score == second.raw_score
    np.testing.assert_array_equal(first.raw_map, second.raw_map)
    with pytest.raises(DataError, match="holds no detector"):
        andon.load(dataset_folder)


def test_the_table_is_what_type_checkers_see():
    tree = ast.parse(Path(andon.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {item.asname: node.module for node in block.body for item in node.names}
    assert seen == andon._HOMES


def test_no_public_name_is_that_of_a_module():
    """An import of the module would take its place."""
    modules = {module.name for module in pkgutil.iter_modules(andon.__path__)}
    assert not modules & set(andon.__all__)


@pytest.mark.xdist_group("network")
def test_export_and_pack(tiny_run, exported_once, dataset_folder, tmp_path):
    pytest.importorskip("onnxruntime")
    image = dataset_folder / "test/stain/000.png"
    detector = andon.load(tiny_run)
    found = andon.export(detector, tmp_path / "a.onnx")
    assert found["difference"] < 1e-3 and found["bytes"] > 1000
    manifest = andon.pack(str(tiny_run), tmp_path / "a.andon")
    assert manifest["detector"] == "efficientad_ast"
    for path in (tmp_path / "a.onnx", tmp_path / "a.andon"):
        loaded = andon.load(path)
        assert isinstance(loaded, andon.Predictor)
        assert loaded.predict(image).score == pytest.approx(detector.predict(image).score, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: andon.export(run, "a.pt"), "must end in .onnx, or in .xml"),
        (lambda run: andon.export(run, "a.xml", int8_limit=0.1), "end it in .onnx"),
        (lambda run: andon.export(andon.load(run), "a.onnx", int8_limit=0.1), "give the run folder"),
        (lambda run: andon.pack(run, "a.zip"), "must end in .andon"),
    ],
)
def test_wrong_targets_are_config_errors(tiny_run, call, words):
    with pytest.raises(ConfigError, match=words):
        call(tiny_run)


def test_every_error_on_purpose_is_an_andon_error():
    assert issubclass(UsageError, andon.AndonError)
    for error in (ConfigError, DataError, NotFittedError):
        assert issubclass(error, andon.UsageError)
