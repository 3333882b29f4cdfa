"""Whether a command that a page or a message names exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from andon.cli.main import command as root


def names(parameter: Any) -> set[str]:
    """Options that set a parameter, `--no-...` too."""
    return {*parameter.opts, *parameter.secondary_opts}


def command_of(where: str, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that the words after `andon` name, and its arguments."""
    command, left = root(), list(words)
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        assert left[0] in command.commands, f"{where}: no command {' '.join(words)!r}"
        command = command.commands[left.pop(0)]
    return command, left


def check_options(command: Any, arguments: Sequence[str], where: str) -> None:
    """The options among the arguments are those of the command."""
    known = {"--help"}.union(*(names(parameter) for parameter in command.params))
    assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= known, where


def check_command(call: str, where: str) -> None:
    """`call` is what follows `andon `: its command and options exist."""
    check_options(*command_of(where, call.split()), f"{where}: {call!r}")
