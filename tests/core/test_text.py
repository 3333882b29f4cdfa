"""Text from outside: printed literally, and no formula in a table."""

from __future__ import annotations

import pytest

from andon.core.text import from_cell, printable, safe_cell, utf8


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-b.png", "@c", "\td", "=1+1/000", "＝x"])
def test_formulas_become_names_of_the_same_file(name):
    assert safe_cell(name) == f"./{name}"
    assert from_cell(safe_cell(name)) == name


@pytest.mark.parametrize("value", ["a=1", "./a", "", "-0.5", "+1e3", "-inf", -0.5, None, 3])
def test_other_cells_stay(value):
    assert safe_cell(value) == value
    if isinstance(value, str):
        assert from_cell(value) == value


def test_control_characters_are_escaped_and_names_in_any_script_stay():
    assert printable("a\x1b[2J\rb\udcff\u202e") == "a\\x1b[2J\\rb\\udcff\\u202e"
    for name in ("部品　é p:ok:1 [/a] \\x", "two\nlines"):
        assert printable(name) == name


def test_bytes_of_any_name():
    assert utf8("部品 é") == "部品 é".encode()
    assert len({utf8("a\udcfc"), utf8("a\udcfd"), utf8("aü")}) == 3
