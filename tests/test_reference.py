"""The pages in docs/reference do not lag behind the code: settings, defaults, counts of data sets, report keys, links."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from andon.core.config import Config
from andon.datasets.published.counts import MVTEC_AD
from andon.detectors._config import DetectorConfig
from andon.detectors._recipes import RecipeSettings
from andon.detectors._registry import detector_class, detector_names
from andon.line import access
from andon.line import settings as line
from andon.line.cameras import settings as cameras
from andon.line.drift import settings as drift
from andon.line.golden import settings as golden
from andon.line.opcua import settings as opcua
from andon.line.outbox import settings as outbox
from andon.line.plc import settings as plc
from andon.line.review import settings as review
from andon.line.rules.kinds import KINDS, Rule
from andon.nn.backbones import BackboneConfig
from andon.nn.training import OptimiserConfig
from andon.report.evaluation import Report

DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "reference").rglob("*.md"))
SHARED: dict[str, type[Config]] = {
    "extractor": BackboneConfig,
    "target": BackboneConfig,
    "optimiser": OptimiserConfig,
    "teacher_optimiser": OptimiserConfig,
    "depth": importlib.import_module("andon.detectors._depth").DepthConfig,
    "escalation": line.EscalationSettings,
    "retention": line.RetentionSettings,
    "modbus": plc.ModbusSettings,
    "golden": golden.GoldenSettings,
    "review": review.ReviewSettings,
    "access": access.AccessSettings,
    "drift": line.DriftSettings,
}
"""Groups of settings that several classes have; a table may leave out those that keep the group's default."""
REQUIRED = "required"
"""Default in the tables of a setting that has none."""
CITED = re.compile(r'docs/(reference/[\w/]+\.md)`*((?:,\s+"[^"]+")*)')
"""A page of the reference as docstrings and comments cite it, with the titles of its sections: `page.md, "Title"`."""


def required_classes() -> dict[str, type[Config]]:
    """Settings of every detector, of pretraining, those they share, and of the line."""
    pretraining = importlib.import_module("andon.pretraining")
    found = [detector_class(name).Config for name in detector_names()]
    found += [getattr(pretraining, name) for name in pretraining.__all__ if name.endswith("Config")]
    found += [DetectorConfig, BackboneConfig, OptimiserConfig, RecipeSettings, *KINDS.values()]
    for module in (line, access, cameras, golden, outbox, opcua, plc, review, drift):
        members = vars(module).values()
        found += [cls for cls in members if inspect.isclass(cls) and cls.__module__ == module.__name__]
    return {cls.__name__: cls for cls in found if cls.model_fields}


def config_classes() -> dict[str, type[Config]]:
    """The same and the classes they derive from."""
    return {
        base.__name__: base
        for cls in required_classes().values()
        for base in cls.__mro__
        if issubclass(base, Config) and base is not Config
    }


def tables() -> list[tuple[str, dict[str, object]]]:
    """(class, {setting: default}) of every table of settings; the line above a table names the class."""
    head = r"^Settings[^\n]*\(`(\w+)`\)[^\n]*:\n\n\| setting \| default \| meaning \|\n\|[-|]+\|\n"
    pattern = head + r"((?:\|.*\n)+)"
    found = []
    for page in PAGES:
        for name, rows in re.findall(pattern, page.read_text(encoding="utf-8"), re.M):
            cells = re.findall(r"^\| `([\w.]+)` \| `([^|]+)` \|", rows, re.M)
            assert len(cells) == rows.count("\n"), (
                f"{page.name}: a row of {name} is not `setting` | `default` | meaning"
            )
            found.append((name, {setting: yaml.safe_load(default) for setting, default in cells}))
    return found


def settings(cls: type[Config]) -> dict[str, object]:
    """{dotted name: default} in the form YAML has."""
    needed = {name: REQUIRED for name, field in cls.model_fields.items() if field.is_required()}
    rows = cls.model_construct(**needed).settings()
    if cls is RecipeSettings:
        rows = [row for row in rows if row[0] not in {"detector", "name", "summary"}]
    return {name: plain(value) for name, value, _ in rows}


def plain(value: object) -> object:
    """A value in the form YAML has; stop rules by their titles."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value.title if isinstance(value, Rule) else value


def test_every_class_of_settings_has_a_table():
    assert set(required_classes()) <= {name for name, _ in tables()} <= set(config_classes())


@pytest.mark.parametrize(
    ("name", "documented"), tables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_documented_settings_have_these_defaults(name, documented):
    actual = settings(config_classes()[name])
    assert documented == {setting: actual.get(setting, "no such setting") for setting in documented}


@pytest.mark.parametrize(
    ("name", "documented"), tables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_setting_is_missing(name, documented):
    cls = config_classes()[name]
    bases = [dict(tables())[base.__name__] for base in cls.__mro__[1:] if base.__name__ in dict(tables())]
    elsewhere = {setting: value for base in reversed(bases) for setting, value in base.items()}

    def keeps_the_default(setting: str, value: object) -> bool:
        *groups, leaf = setting.split(".")
        shared = SHARED.get(groups[-1]) if groups else None
        return shared is not None and settings(shared).get(leaf, ...) == value

    missing = [
        setting
        for setting, value in settings(cls).items()
        if setting not in documented
        and elsewhere.get(setting, ...) != value
        and not keeps_the_default(setting, value)
    ]
    assert not missing


def test_counts_of_mvtec_ad_are_those_the_reader_compares_with():
    text = (DOCS / "reference" / "data.md").read_text(encoding="utf-8")
    for category, counts in MVTEC_AD.items():
        kinds = ", ".join(f"{name} {count}" for name, count in counts.defects.items())
        assert f"| {category} | {counts.train} | {counts.good} | {counts.bad} | {kinds} |\n" in text


def test_keys_of_report_json_are_documented():
    """The table in metrics.md names every top-level key of `Report.to_json`, and no other."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Report.to_json)))
    plain = next(node.value for node in ast.walk(tree) if isinstance(node, ast.Return))
    text = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text[text.index("`report.json`:") :], re.M)
    named = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(key.value for key in plain.keys)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("room", ["src", "tests", "benchmarks"])
def test_cited_pages_and_sections_exist(room):
    for path in sorted((DOCS.parent / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for page, titles in CITED.findall(text):
            headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.M)
            named = {" ".join(title.split()) for title in re.findall(r'"([^"]+)"', titles)}
            assert named <= set(headings), f"{path.relative_to(DOCS.parent)} cites {page}"
        assert not re.search(r"\b[Ss]pec (?:[A-Z]\.)?\d", text), (
            f"{path.relative_to(DOCS.parent)} cites a document outside the repository"
        )


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: p.relative_to(DOCS).as_posix())
def test_links_to_sections_lead_somewhere(page):
    for target, section in re.findall(r"\]\(([^)#\s]*)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert section in anchors(page.parent / target if target else page), f"{target}#{section}"
