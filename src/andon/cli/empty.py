"""Paths that are empty on the command line: a variable of the shell without a value would stand for the current folder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from andon.core.errors import UsageError


def refuse_empty_paths(command: Any, words: Sequence[str]) -> None:
    """Raise `UsageError` where one of the `words` after `andon`, which is `command`, is an empty argument or path."""
    if not any(word == "" or word.endswith("=") for word in words):
        return
    before = "the command"
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif word == "" and not _is_text(command, before):
            raise _empty(before)
        elif word.startswith("--") and word.endswith("=") and not _is_text(command, word[:-1]):
            raise _empty(word[:-1])
        before = word


def _is_text(command: Any, option: str) -> bool:
    """Whether an option takes a value that is no path."""
    found = next((each for each in command.params if option in each.opts), None)
    if found is None or getattr(found, "is_flag", False) or command.callback is None:
        return False
    hint = get_type_hints(inspect.unwrap(command.callback))[found.name]
    return Path not in (hint, *get_args(hint))


def _empty(before: str) -> UsageError:
    return UsageError(
        f"an argument after {before} is empty (a variable without a value?): give a path, or . for this folder"
    )
