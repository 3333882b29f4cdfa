"""Empty words on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from andon.cli.empty import _is_text, refuse_empty_paths
from andon.cli.main import command as andon
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
        refuse_empty_paths(andon(), line)


def test_a_text_may_be_empty():
    refuse_empty_paths(andon(), ["threshold", "run", "--reason", ""])
    refuse_empty_paths(andon(), ["candidate", "return", "press", "--why="])
    refuse_empty_paths(andon(), ["fit", "."])


def test_names_and_settings_may_end_in_an_equals_sign():
    refuse_empty_paths(andon(), ["predict", "run", "lot=", "--out", "scores="])
    refuse_empty_paths(andon(), ["fit", "part", "--set", "region="])


def test_the_options_of_every_command_can_be_told_apart():
    for command in _commands(andon()):
        for parameter in command.params:
            _is_text(command, parameter.opts[0])


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from _commands(each)
