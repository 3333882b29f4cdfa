"""The command lines of the pages for users run as they stand, on the folders that the pages name, and print what these say."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import ROOT, texture, write_picture
from tiny import TINY

from andon.detectors import _recipes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("network")]
PAGES = ("quality_engineer", "integrator", "troubleshooting")
DAYS = ("20240530", "20240531", "20240603")
FOLDERS = {
    "my_part/train/good": 24,
    "my_part/test/good": 3,
    "my_part/test/stain": 3,
    "more_good": 80,
    "checked_parts/train/good": 3,
    "checked_parts/test/good": 6,
    "checked_parts/test/stain": 6,
    "defects_found": 9,
    "new_images": 3,
    "archive": 3,
}
LOSSY = "--int8"
"""The line with this option may be refused: whether eight bits cost too much depends on the images."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folders that the pages name, as the working directory; recipes `lite0` are tiny."""
    seeds = iter(range(1000))
    for part, count in FOLDERS.items():
        for k in range(count):
            pixels = texture(next(seeds), 64)[:48]
            pixels[20:32, 20:32] += np.uint8(100 * ("stain" in part or "defects" in part))
            write_picture(tmp_path / part / f"{DAYS[k % 3]}_{k + 11:04}.png", pixels)
    for k in range(4):
        write_picture(tmp_path / "my_roll" / f"{k}.png", texture(next(seeds), 800))
    write_picture(tmp_path / "region.png", np.full((48, 64), 255, np.uint8))
    page = (ROOT / "docs" / "integrator.md").read_text(encoding="utf-8")
    (tmp_path / "region.json").write_text(re.search(r"```json\n(.*?)```", page, re.S)[1])
    real = _recipes.recipe_text
    monkeypatch.setattr(
        _recipes, "recipe_text", lambda name: tiny_recipe(name) if name.endswith("/lite0") else real(name)
    )
    monkeypatch.chdir(tmp_path)


def tiny_recipe(name: str) -> str:
    detector = name.partition("/")[0]
    config: dict[str, object] = {}
    for key, value in TINY[detector].items():
        *groups, last = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return json.dumps({"detector": detector, "summary": "For tests.", "config": config})


def test_the_commands_of_the_pages_run(folder, cli):
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)```", text, re.M | re.S):
            for line in re.findall(r"^andon (.*)", block, re.M):
                words = shlex.split(line, comments=True)
                if words[0] == "fit" and "--overwrite" not in words and "--add" not in words:
                    shutil.rmtree("runs/my_part", ignore_errors=True)  # several lines fit it anew
                outcome = cli(*words)
                assert outcome.code in ((0, 1) if LOSSY in words else (0,)), (page, line, outcome)


def test_the_lines_of_fit_that_a_page_explains_are_printed(folder, cli):
    text = (ROOT / "docs" / "quality_engineer.md").read_text(encoding="utf-8")
    table = text.partition("| line | what it says |")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| `(.+?)` \|", table, re.M)
    sessions = ("--sessions", r"^(\d{8})_", "--exclude", "20240531_0012.png")
    said = cli("fit", "my_part", *sessions, "--out", "runs/my_part").out
    said += cli("fit", "embedded:cookies", "--out", "runs/cookies").out
    assert len(lines) > 8
    for line in lines:
        assert re.search("^" + re.escape(line).replace(r"\.\.\.", ".*"), said, re.M), (line, said)
