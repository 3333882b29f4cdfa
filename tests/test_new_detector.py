"""docs/new_detector.md as it is printed: its files become a package, its commands and examples run."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, texture, write_picture
from installing import install

from andon.testing import check_detector

pytestmark = pytest.mark.xdist_group("network")
PAGE = (ROOT / "docs" / "new_detector.md").read_text(encoding="utf-8")
FILES = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)```", re.M | re.S)
COMMANDS = re.compile(r"^```sh\n(.*?)```", re.M | re.S)
PARTS = ["my_part/train/good"] * 16 + ["my_part/test/good"] * 3 + ["my_part/test/stain"] * 3


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package of the page, installed, and a folder of images beside it as the working directory."""
    folder = tmp_path / "package"
    for path, content in FILES.findall(PAGE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    install(folder, project["entry-points"]["andon.detectors"], project["name"])
    monkeypatch.syspath_prepend(folder)
    for k, part in enumerate(PARTS):
        pixels = texture(k)
        pixels[20:36, 20:36] += np.uint8(100 * part.endswith("stain"))
        write_picture(tmp_path / part / f"{k:04}.png", pixels)
    write_picture(tmp_path / "new_pictures" / "0001.png", texture(2))
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "cell_gaussian"]:
        del sys.modules[name]


@pytest.mark.slow
def test_the_commands_of_the_page_run(package, cli):
    commands = [line for block in COMMANDS.findall(PAGE) for line in block.splitlines()]
    said = {line.split()[1]: cli(*line.split()[1:]) for line in commands}
    assert len(said) == 7
    assert {outcome.code for outcome in said.values()} == {0}, said
    assert "cell_gaussian/starter" in said["detectors"].out
    assert "| cell_gaussian" in said["benchmark"].out
    assert Path("runs/my_part/model.onnx").is_file()


def test_the_example_of_the_page_runs(package):
    example = PAGE[PAGE.index("From Python:") :]
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", example, re.S)[1], found)
    assert found["prediction"].is_anomalous is False
    assert type(found["detector"]).__module__ == "cell_gaussian.detector"
    assert found["detector"].name == "cell_gaussian"


@pytest.mark.slow
def test_the_detector_of_the_page_keeps_the_contract(package):
    from cell_gaussian.detector import CellGaussian

    results = check_detector(CellGaussian, grid=8)
    assert [result.name for result in results if result.outcome == "skipped"] == [
        "resumes_where_it_was_interrupted"
    ]
