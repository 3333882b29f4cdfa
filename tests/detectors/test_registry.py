"""Detectors and recipes are found by their files; wrong names are met with the nearest ones."""

from __future__ import annotations

import pytest

from andon.core.errors import ConfigError
from andon.detectors._recipes import (
    choose_recipe,
    default_recipe,
    detectors,
    load_recipe,
    recipe_names,
    resolve,
)
from andon.detectors._registry import detector_class, detector_names, known_detector


def complaint(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_detector_has_a_class_a_summary_and_recipes():
    assert "efficientad_ast" in detector_names()
    for info in detectors():
        module = detector_class(info.name).__module__
        assert f"{module}.".startswith(f"andon.detectors.{info.name}.")
        assert info.summary
        assert default_recipe(info.name) in info.recipes


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_complete(name):
    recipe = resolve(load_recipe(name), {})
    assert recipe.name == name
    assert recipe.detector == name.split("/")[0]
    assert recipe.summary.endswith((".", ")"))
    assert isinstance(recipe.config, detector_class(recipe.detector).Config)


def test_recipe_names_may_be_short_where_the_detector_is_known():
    assert load_recipe("starter", "efficientad_ast") == load_recipe("efficientad_ast/starter")


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        (["default", "lite0", "starter"], "east/lite0"),
        (["default", "lite0-fast", "starter"], "east/starter"),
        (["default", "large"], "east/default"),
        ([], ""),
    ],
)
def test_default_recipe_is_the_best_one_that_needs_no_network(monkeypatch, variants, chosen):
    monkeypatch.setattr(
        "andon.detectors._recipes.recipes_of", lambda name: [f"{name}/{one}" for one in variants]
    )
    assert default_recipe("east") == chosen


@pytest.mark.parametrize(
    ("detector", "recipe", "chosen"),
    [
        (None, None, "east/lite0"),
        (None, "starter", "east/starter"),
        ("padim", None, "padim/lite0"),
        (None, "padim/paper-r18", "padim/paper-r18"),
    ],
)
def test_chosen_recipe(detector, recipe, chosen):
    assert choose_recipe(detector, recipe).name == chosen


def test_unknown_names():
    assert complaint(lambda: known_detector("eficientad_ast")).endswith("did you mean efficientad_ast?")
    assert complaint(lambda: detector_class("nothing")).startswith("unknown detector 'nothing'; ")
    assert "--recipe padim/lite0" in complaint(lambda: choose_recipe("padim/lite0", None))
    assert "did you mean efficientad_ast/starter" in complaint(lambda: load_recipe("efficientad_ast/startr"))
    assert "efficientad_ast/starter" in complaint(lambda: load_recipe("startr", "efficientad_ast"))


def test_recipe_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("detector: efficientad_ast\nseed: 7\nconfig: {epochs: 2}\n")
    recipe = load_recipe(str(file), "efficientad_ast")
    assert (recipe.seed, recipe.config) == (7, {"epochs": 2})
    assert resolve(recipe, {"teacher.epochs": 3}).config.teacher.epochs == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("detector: [1", "not valid YAML"),
        ("", "holds no settings"),
        ("seed: 1", "setting 'detector' is missing"),
        ("detector: efficientad_ast\nsede: 1", "unknown setting 'sede'"),
        ("detector: efficientad_ast\nseed: many", "seed='many'"),
        ("detector: padim_x", "is for padim_x, not for efficientad_ast"),
        ("detector: efficientad_ast\nconfig: 3", "config=3"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_recipe_files_that_cannot_be_used_are_named(tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = complaint(lambda: load_recipe(str(file), "efficientad_ast"))
    assert words in message
    assert "mine.yaml" in message


def test_absent_recipe_file(tmp_path):
    assert "does not exist" in complaint(lambda: load_recipe(str(tmp_path / "absent.yaml")))


def test_unknown_setting_inside_a_recipe_names_the_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("detector: efficientad_ast\nconfig: {teacher: {epoch: 3}}\n")
    message = complaint(lambda: resolve(load_recipe(str(file)), {}))
    assert "unknown setting 'teacher.epoch' in recipe" in message
    assert "did you mean teacher.epochs?" in message
