"""Detectors of other packages: found by entry points, named where they cannot be used, read only where they are asked for."""

from __future__ import annotations

import sys

import pytest
from installing import install

from andon.core.errors import ConfigError, DataError
from andon.detectors import _registry
from andon.detectors._recipes import default_recipe, load_recipe, recipe_names
from andon.detectors._registry import (
    PluginWarning,
    detector_class,
    detector_names,
    name_of,
    own_names,
    usable_detectors,
)
from andon.detectors._saving import load_detector

CLASS = """
import andon, torch

class {name}(andon.Detector):
    input_size, score_rule = (8, 8), "mean"

    def learn(self, train, validation, trainer): ...

    def analyse(self, images):
        return andon.Analysis(images.mean(1, keepdim=True), images.mean((1, 2, 3)))
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the search path with a module of two detectors, and one that cannot be imported."""
    (tmp_path / "good_plugin.py").write_text(CLASS.format(name="Mean") + CLASS.format(name="Other"))
    (tmp_path / "broken_plugin.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    _registry._warn_once.cache_clear()
    yield tmp_path
    for name in ("good_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


def test_a_plugin_is_found_by_its_name(site):
    install(site, {"mean": "good_plugin:Mean", "other": "good_plugin:Other"})
    assert set(detector_names()) == {*own_names(), "mean", "other"}
    assert "good_plugin" not in sys.modules  # names are read without importing
    cls = detector_class("mean")
    assert (cls.__name__, name_of(cls), cls().name) == ("Mean", "mean", "mean")
    assert name_of(detector_class("other")) == "other"
    assert default_recipe("mean") == "mean/default"
    assert load_recipe("mean/default").detector == "mean"
    assert "mean/default" in recipe_names()
    with pytest.raises(ConfigError, match="did you mean mean/default"):
        load_recipe("mean/defalt")


def test_a_class_that_was_imported_into_the_named_module_has_its_name(site):
    (site / "good_plugin_api.py").write_text("from good_plugin import Mean\n")
    install(site, {"mean": "good_plugin_api:Mean"})
    assert detector_class("mean")().name == "mean"
    sys.modules.pop("good_plugin_api")


@pytest.mark.filterwarnings("default::andon.detectors._registry.PluginWarning")
def test_a_plugin_that_fails_to_import_is_named_once_and_stops_no_other(site, cli):
    install(site, {"broken": "broken_plugin:Broken", "mean": "good_plugin:Mean"}, "two-detectors")
    said = cli("detectors")
    assert said.code == 0 and "mean" in said.out and "padim" in said.out
    assert said.err.splitlines() == [
        "andon: warning: detector 'broken' of the package two-detectors cannot be imported (ModuleNotFoundError: "
        "No module named 'no_such_package'): repair or uninstall that package"
    ]
    assert cli("recipes").err == ""  # once in a process
    assert "mean" in usable_detectors() and "broken" not in usable_detectors()
    assert "cannot be imported" in cli("fit", site, "--detector", "broken", "--out", site / "run").complaint()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"padim": "good_plugin:Mean"}, "andon has a detector of that name"),
        ({"my/mean": "good_plugin:Mean"}, "must consist of letters, digits and _"),
    ],
)
def test_a_name_that_cannot_be_given_is_said(site, points, words):
    install(site, points)
    with pytest.warns(PluginWarning, match=words):
        assert tuple(detector_names()) == own_names()
    assert detector_class("padim").__module__.startswith("andon.")


def test_two_packages_with_one_name(site):
    install(site, {"mean": "good_plugin:Mean"}, "first")
    install(site, {"mean": "good_plugin:Other"}, "second")
    with pytest.warns(PluginWarning, match=r"of the package second is left out: .* of the package first has"):
        assert detector_class("mean").__name__ == "Mean"


def test_an_entry_point_that_is_no_detector(site):
    install(site, {"mean": "good_plugin:torch"})
    with pytest.raises(ConfigError, match=r"is no andon\.Detector"):
        detector_class("mean")


def test_a_saved_detector_whose_package_is_gone(site, monkeypatch, dataset_folder):
    install(site, {"mean": "good_plugin:Mean"})
    from andon.datasets import open_dataset

    data = open_dataset(str(dataset_folder))
    detector_class("mean")().fit(data.train, data.validation).save(site / "saved")
    assert load_detector(site / "saved").name == "mean"
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(site)])
    with pytest.raises(DataError, match="saved by the detector 'mean', which is not installed"):
        load_detector(site / "saved")


def test_help_reads_no_entry_points(monkeypatch, cli):
    def refuse(**_: object) -> None:
        raise AssertionError("entry points were read")

    _registry._plugins.cache_clear()
    monkeypatch.setattr(_registry, "entry_points", refuse)
    assert cli("--help").code == cli("fit", "--help").code == 0
    assert detector_class("padim").__name__ == "PaDiM"
