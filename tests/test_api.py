"""The public surface: what `import andon` offers, what it does not load, and the two functions that start from a name."""

from __future__ import annotations

import subprocess
import sys

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
        "efficientad_ast", **TINY, teacher__epochs=24, teacher__hidden=8, student__width=16
    )
    assert isinstance(detector, andon.Detector)
    assert detector.config.teacher.epochs == 24
    assert detector.input_size == (64, 64)
    assert detector.config.student.blocks == 2  # the starter recipe's
    with pytest.raises(NotFittedError, match="has not learned yet"):
        detector.predict(np.zeros((20, 20, 3), np.uint8))


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


def test_every_error_on_purpose_is_an_andon_error():
    assert issubclass(UsageError, andon.AndonError)
    for error in (ConfigError, DataError, NotFittedError):
        assert issubclass(error, andon.UsageError)
