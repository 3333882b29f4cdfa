"""Limits of a run that are changed after fitting: by whom, when, why, and back again.

DETECTOR/limits.json holds every change, oldest first; the last one is in force. Scores, raw and displayed, never change
when limits do: 1 stays the threshold as it was fitted.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.core.files import write_json
from andon.thresholds.calibration import Calibration
from andon.thresholds.rules import Threshold

FILE = "limits.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Change:
    """Limits from a moment on."""

    when: str
    """UTC, ISO 8601."""
    who: str
    reason: str
    rule: str
    """In words: how the limits came about."""
    image: Threshold
    pixel: Threshold
    look: Threshold | None
    """From here up to `image` a person is to look; None = no such band."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Change:
        """Inverse of `to_json`."""
        limits = {
            name: None if data[name] is None else Threshold.from_json(data[name])
            for name in ("image", "pixel", "look")
        }
        return cls(**{**data, **limits})


def read_changes(folder: Path) -> list[Change]:
    """All changes in a detector's folder, oldest first. Raises `DataError` where the file cannot be understood."""
    file = folder / FILE
    if not file.exists():
        return []
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")
        return [Change.from_json(values) for values in data["changes"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{file} cannot be understood ({error}), so the limits in force are unknown: bring back the original"
        ) from error


def in_force(calibration: Calibration, changes: Sequence[Change]) -> Calibration:
    """The calibration with the limits of the last change."""
    if not changes:
        return calibration
    last = changes[-1]
    return replace(calibration, image=last.image, pixel=last.pixel, look=last.look)


def change(
    folder: Path, calibration: Calibration, *, reason: str, rule: str, who: str | None = None
) -> Change:
    """Put the limits of `calibration` in force, and write down who did it, when and why."""
    if not reason.strip():
        raise DataError("a change of limits needs a reason that others understand later: --reason TEXT")
    made = Change(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        who=who or _user(),
        reason=reason.strip(),
        rule=rule,
        image=calibration.image,
        pixel=calibration.pixel,
        look=calibration.look,
    )
    write_json(
        folder / FILE,
        {"format": FORMAT, "changes": [c.to_json() for c in [*read_changes(folder), made]]},
    )
    return made


def undo(folder: Path, fitted: Calibration, *, reason: str) -> Change:
    """Put the limits in force that were before the last change; the record of the change stays."""
    changes = read_changes(folder)
    if not changes:
        raise DataError(f"{folder} has the limits it was fitted with: there is nothing to undo")
    before = in_force(fitted, changes[:-1])
    return change(folder, before, reason=reason, rule=f"as before the change of {changes[-1].when}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id
        return "unknown"
