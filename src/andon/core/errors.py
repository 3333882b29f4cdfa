"""Every error andon raises on purpose.

    AndonError                 base class; the command line exits with 1
    ├── InterruptedRun         stopped with Ctrl-C; the state reached is saved
    └── UsageError             wrong use or unusable input; the command line prints the message and exits with 2
        ├── ConfigError        unknown detector, recipe or setting; setting of the wrong type
        ├── DataError          missing, empty, unreadable or inconsistent data
        ├── WeightsError       weights that are missing, damaged or belong to another network
        ├── OutputError        an output folder that cannot be used (not empty, no space left)
        └── NotFittedError     a detector that is used before `fit`

A message says what is wrong, why, and what to do, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AndonError(Exception):
    """Base class of all errors andon raises on purpose."""


class InterruptedRun(AndonError):  # noqa: N818 (not a fault)
    """The user stopped the run; the state reached is saved."""


class UsageError(AndonError):
    """Wrong use or unusable input. The message says what, why and what to do."""


class ConfigError(UsageError):
    """Unknown detector, recipe or setting, or a setting of the wrong type."""


class DataError(UsageError):
    """Missing, empty, unreadable or inconsistent data."""


class WeightsError(UsageError):
    """Weights are missing, damaged or belong to another network."""


class OutputError(UsageError):
    """An output folder cannot be used."""


class NotFittedError(UsageError):
    """The detector was used before `fit`."""


LONG_LIST = 60
"""Names of a list that is still given whole."""
FIRST_NAMES = 10
"""Names that are given of a longer one."""


def nearest(name: str, known: Iterable[str], *, listed: str = "known") -> str:
    """Return "did you mean X?" with the known names closest to `name`, or the list of them after `listed`.

    Of a long list the first names and their number are given.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        alike = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in close}
        # Keep the names almost as similar as the best one.
        close = [other for other in close if alike[other] > alike[close[0]] - 0.1]
        return f"did you mean {' or '.join(close)}?"
    if len(names) > LONG_LIST:
        names = [*names[:FIRST_NAMES], f"and {len(names) - FIRST_NAMES} others"]
    return f"{listed}: {', '.join(names)}" if names else "none are known"
