"""Roles of people and tokens, each with all that those before it may do."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Who may do what; a higher role may do all that a lower one may."""

    VIEWER = 1
    """Sees pages and results."""
    INSPECTOR = 2
    """Reviews parts, acknowledges alarms."""
    LEADER = 3
    """Gives causes, resumes, puts calls aside, sends parts."""
    ENGINEER = 4
    """Changes thresholds, rules, models, golden sets."""
    ADMIN = 5
    """Keeps accounts and retention, overrides a failed golden run."""
