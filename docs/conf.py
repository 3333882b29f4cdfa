"""Sphinx settings. Build: `sphinx-build -W --keep-going -b html docs build/docs`; no network is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from andon.core.version import VERSION

DOCS = Path(__file__).parent.resolve()
ROOT = DOCS.parent
PAGES = {
    ROOT / name: DOCS / page for name, page in (("README.md", "start.md"), ("CHANGELOG.md", "changelog.md"))
}
PAGES[ROOT / "CONTRIBUTING.md"] = DOCS / "contributing.md"
"""Files of the repository root that are pages here."""

project = "andon"
author = "the andon authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"andon {version}"
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_heading_anchors = 4

default_role = "code"
"""Single backticks in docstrings are code, as in Markdown."""
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def setup(app: Sphinx) -> None:
    app.connect("source-read", lambda _, name, text: relink(text, DOCS / name, DOCS / name))
    app.connect(
        "include-read", lambda _, file, page, text: relink(text, (DOCS / file).resolve(), DOCS / page)
    )
    app.connect("autodoc-process-docstring", to_restructured_text)
    app.connect("autodoc-process-signature", without_instances)
    app.connect("autodoc-skip-member", without_pydantic)


def relink(text: list[str], written_in: Path, shown_on: Path) -> None:
    """Links between files of the repository as links between pages; of files that are no page, the text stays."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match["label"], match["target"], match["anchor"] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        file = (written_in.parent / target).resolve()
        file = PAGES.get(file, file)
        if not file.is_relative_to(DOCS) or file.is_dir():
            return label
        return f"[{label}]({os.path.relpath(file, shown_on.parent)}{anchor})"

    pattern = r"(?<!!)\[(?P<label>[^\]\[]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
    text[0] = re.sub(pattern, link, text[0])
    if written_in.parent == ROOT:
        text[0] = text[0].replace("](docs/images/", "](images/")


def to_restructured_text(
    _app: Sphinx, _kind: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Docstrings are plain text with code in backticks; what reStructuredText reads otherwise is escaped here."""
    out: list[str] = []
    for line in lines:
        begins_code = line.startswith("    ") and out and not out[-1].strip()
        if begins_code and not any(done.strip().endswith("::") for done in out[-2:]):
            out += ["::", ""]
        parts = re.split(r"(``[^`]+``|`[^`]+`)", line)
        plain = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        escaped = "".join(a + b for a, b in zip(plain, [*parts[1::2], ""], strict=True))
        out.append(line if line.startswith("    ") else escaped)
    lines[:] = out


def without_pydantic(
    _app: Sphinx, _kind: str, name: str, _object: object, skip: bool, _options: object
) -> bool:
    """Leaves out what pydantic adds to every settings class."""
    return skip or name in {"model_config", "model_post_init"}


def without_instances(
    _app: Sphinx,
    _kind: str,
    _name: str,
    _object: object,
    _options: object,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Defaults that are instances as an ellipsis: what they print is no Python that Sphinx can parse."""
    if signature is not None:
        signature = re.sub(r"=\s?[A-Z]\w*\((?:[^()]|\([^()]*\))*\)", "= ...", signature)
    return signature, result
