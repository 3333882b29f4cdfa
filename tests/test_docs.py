"""The documentation says what the code does: names, commands, example, import direction."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from commands import check_command, check_options, command_of, names, root
from conftest import ROOT
from PIL import Image
from tiny import TINY

import andon
from andon.detectors._recipes import load_recipe, recipe_names, resolve

SOURCE = ROOT / "src" / "andon"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = [
    *("core", "datasets", "metrics", "thresholds", "runtime", "nn", "layers", "detectors"),
    *("exporting", "report", "runs", "experiments", "pretraining", "client", "line", "api", "testing", "cli"),
]
"""As in docs/architecture.md: a module imports from its own room and from those before it."""
OF_THE_LINE = {"core", "metrics", "thresholds", "runtime", "exporting", "client", "line"}
"""Rooms from which `line` imports: a line computer learns nothing."""
FOREIGN = {"--help", "--head", "--check", "--force-reinstall"}
"""Options of every command, and of other programs."""


@cache
def imports(file: Path) -> list[tuple[str, bool]]:
    """Absolute names of what a file imports, inside functions too, and whether for type checkers alone."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    typing_only = {
        id(node)
        for branch in nodes
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    named = []
    for node in nodes:
        if isinstance(node, ast.Import):
            named += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            named.append((node.module or "", id(node) in typing_only))
    return named


def imported_rooms(file: Path) -> set[str]:
    """Rooms a file imports from; imports for type checkers alone do not count."""
    return {
        name.split(".")[1]
        for name, typing_only in imports(file)
        if name.startswith("andon.") and not typing_only
    }


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in sorted(SOURCE.rglob("*.py"))
        if file not in (SOURCE / "__init__.py", SOURCE / "__main__.py")
    ],
    ids=lambda f: f.relative_to(SOURCE).as_posix(),
)
def test_imports_go_one_way(file):
    room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    above = {other for other in imported_rooms(file) if ROOMS.index(other) > ROOMS.index(room)}
    assert not above, f"{room} must not import from {', '.join(sorted(above))}"


def test_the_line_learns_nothing():
    for file in (SOURCE / "line").rglob("*.py"):
        used = {name for name, typing_only in imports(file) if name.startswith("andon.") and not typing_only}
        assert {name.split(".")[1] for name in used} <= OF_THE_LINE, file
        assert {name for name in used if name.startswith("andon.exporting")} <= {"andon.exporting.packed"}, (
            file
        )


def test_architecture_names_the_rooms():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/?` \|", text, re.M)
    assert rows[: len(ROOMS)] == ROOMS


def test_architecture_says_where_libraries_are_imported():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| library | imported in |") :]
    rows = re.findall(r"^\| `(\w+)` \| (`.+`) \|$", table, re.M)
    assert rows
    for library, homes in rows:
        users = {file for file in SOURCE.rglob("*.py") if imports_library(file, library)}
        allowed = {SOURCE / home for home in re.findall(r"`([^`]+)`", homes)}
        strangers = {
            file.relative_to(SOURCE).as_posix()
            for file in users
            if not any(home in (file.with_suffix(""), *file.parents) for home in allowed)
        }
        assert not strangers, f"docs/architecture.md does not name them as users of {library}"
        for home in allowed:
            assert any(home in (file.with_suffix(""), *file.parents) for file in users), f"{library}: {home}"


def imports_library(file: Path, library: str) -> bool:
    """Whether a file imports an outside library."""
    return library in {name.split(".")[0] for name, _ in imports(file)}


def test_the_public_list_is_complete():
    assert sorted(andon._HOMES) == sorted(andon.__all__)
    for name in andon.__all__:
        assert getattr(andon, name).__name__ == name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_documented_commands_parse(page):
    """Each `andon ...` in a code block is a command line that andon accepts: arguments, options, kinds of values."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ")
    for call in re.findall(r"(?:^|&& |\$ )andon ([^&|\n]+)", lines, re.M):
        command, words = command_of(page.name, shlex.split(call, comments=True))
        try:
            command.make_context("andon", words)
        except Exception as error:
            raise AssertionError(f"{page.name}: {call!r}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_documented_options_exist(page):
    """Each `andon ...` in backticks names a command and options that there are."""
    for call in re.findall(r"`andon ([^`&#|]+)[^`]*`", page.read_text(encoding="utf-8")):
        command, words = command_of(page.name, shlex.split(call, comments=True))
        check_options(command, words, f"{page.name}: {call!r}")


def test_commands_and_options_in_messages_exist():
    """Each `andon ...` in backticks and each --option in the code, in messages above all, names what there is."""
    known = {option for command in all_commands(root()) for p in command.params for option in names(p)}
    calls = set()
    for file in sorted(SOURCE.rglob("*.py")):
        text = re.sub(r'"\n\s*f?"', "", file.read_text(encoding="utf-8"))  # texts over several lines
        calls |= {(call, file.name) for call in re.findall(r"`andon ([^`]+)`", text)}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) <= known | FOREIGN, file.name
    assert len(calls) > 30
    for call, where in calls:
        check_command(call, where)


def all_commands(command):
    """The command and, of a group, those in it."""
    yield command
    for inside in getattr(command, "commands", {}).values():
        yield from all_commands(inside)


def test_troubleshooting_quotes_messages_that_there_are():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    messages = re.sub(r'"\s*\n\s*f?"', "", code)  # strings of several lines as one
    quoted = re.findall(r'"([^"\n]+)"', re.sub(r"```.*?```|`[^`]*`", "", page, flags=re.S))
    assert quoted
    for message in quoted:
        for piece in message.split("..."):
            assert piece.strip() in messages, message


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_documented_switches_exist():
    text = (ROOT / "docs" / "reference" / "models" / "efficientad_ast.md").read_text(encoding="utf-8")
    settings = {key for key, *_ in resolve_settings("efficientad_ast/corrected")} | {"hold_out"}
    named = set(re.findall(r"`((?:extractor|teacher|student|autoencoder|penalty|maps)\.\w+)`", text))
    assert named
    assert named <= settings


def resolve_settings(recipe: str):
    return resolve(load_recipe(recipe), {}).config.settings()


def test_every_recipe_says_what_it_is_for():
    for name in recipe_names():
        assert load_recipe(name).summary


def test_the_readme_example_runs(monkeypatch, tmp_path):
    """As printed, in an empty folder, at tiny settings."""
    example = re.search(r"```python\n(.*?)```", README, re.S)
    assert example is not None
    rng = np.random.default_rng(0)
    for folder, count in (("my_part/train/good", 24), ("my_part/test/good", 2), ("my_part/test/scratch", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for k in range(count):
            picture = rng.integers(90, 110, (64, 64, 3)).astype(np.uint8)
            picture[30:34] += np.uint8(100 * folder.endswith("scratch"))
            Image.fromarray(picture).save(tmp_path / folder / f"{k:04}.png")
    (tmp_path / "new_images").mkdir()
    Image.fromarray(picture).save(tmp_path / "new_images" / "0001.png")
    real = andon.create
    tiny = {key.replace(".", "__"): value for key, value in TINY["east"].items()}
    monkeypatch.setattr(andon, "create", lambda: real("east", "starter", **tiny))
    monkeypatch.chdir(tmp_path)
    exec(example.group(1), {})
    assert (tmp_path / "runs" / "my_part" / "report.html").is_file()
    assert andon.load("runs/my_part").fitted()


def test_the_package_stays_small():
    """Everything that is installed, embedded weights included: below 25 MB."""
    files = [file for file in SOURCE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < 25_000_000


def test_lowest_versions_are_those_of_the_project():
    """`.ci/lowest` installs what pyproject.toml calls the lowest allowed version of each direct dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"]]
    named += [entry for extra in ("runtime", "export", "serve", "test") for entry in extras[extra]]
    allowed = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(named), re.M))
    text = (ROOT / "constraints" / "lowest.txt").read_text(encoding="utf-8")
    installed = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.M))
    assert installed.keys() == allowed.keys()
    for name, version in installed.items():
        assert f"{version}.".startswith(f"{allowed[name]}."), name


README_ROWS = {
    "EAST": "east/lite0",
    "PatchCore": "patchcore/lite0",
    "PaDiM, regularised": "padim/lite0",
    "SPADE": "spade/lite0",
}
"""Names in the README's table and the recipes they were measured with."""


def test_the_readme_table_repeats_the_results():
    page = (ROOT / "docs" / "results" / "real.md").read_text(encoding="utf-8")
    means = page.split("## Mean over 5 data sets")[1].split("\n## ")[0]
    measured = {row[0].strip("`"): row[1:] for row in table_rows(means)}
    shown = {
        row[0].split(" (")[0].strip("*"): [cell.strip("*") for cell in row[1:]] for row in table_rows(README)
    }
    assert README_ROWS.keys() <= shown.keys()
    for name, recipe in README_ROWS.items():
        assert shown[name] == [cell.split(" ±")[0] for cell in measured[recipe][:6]], name


def table_rows(text: str) -> list[list[str]]:
    """Cells of all table rows of a Markdown text."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
