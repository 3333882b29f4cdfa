"""Empty words on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from andon.cli.empty import _is_text, refuse_empty_paths
from andon.cli.main import app
from andon.core.errors import UsageError


@pytest.mark.parametrize(
    ("line", "before"),
    [
        (["fit", ""], "fit"),
        (["fit", "part", "--json", ""], "--json"),
        (["predict", "run", ""], "run"),
        (["predict", "run", "part", "--out", ""], "--out"),
        (["predict", "run", "part", "--save="], "--save"),
        (["candidate", "add", "press", "", "--why", "a reason"], "press"),
    ],
)
def test_an_empty_path_is_not_this_folder(line, before):
    with pytest.raises(UsageError, match=f"an argument after {before} is empty"):
        refuse_empty_paths(app, line)


def test_a_text_may_be_empty():
    refuse_empty_paths(app, ["threshold", "run", "--reason", ""])
    refuse_empty_paths(app, ["candidate", "return", "press", "--why="])
    refuse_empty_paths(app, ["fit", "."])


def test_names_and_settings_may_end_in_an_equals_sign():
    refuse_empty_paths(app, ["predict", "run", "lot=", "--out", "scores="])
    refuse_empty_paths(app, ["fit", "part", "--set", "region="])


def test_the_options_of_every_command_can_be_told_apart():
    for command in _commands(typer.main.get_command(app)):
        for parameter in command.params:
            _is_text(command, parameter.opts[0])


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from _commands(each)
