"""History of a run's thresholds: every change after fitting, by whom, when and why.

DETECTOR/thresholds.json holds all changes, oldest first; the last one counts. Raw scores never change with a threshold;
displayed ones do: 1 is always the threshold in use.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.core.files import from_json, write_json
from andon.thresholds.calibration import Calibration, unusable_threshold
from andon.thresholds.rules import Threshold

FILE = "thresholds.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Change:
    """The thresholds from a moment on."""

    when: str
    """UTC, ISO 8601."""
    who: str
    reason: str
    rule: str
    """In words: how the thresholds were computed."""
    image: Threshold
    pixel: Threshold
    look: Threshold | None
    """Lower end of the review band, which ends at `image`; None = no band."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Change:
        """Inverse of `to_json`. Raises `ValueError` for thresholds that are no finite numbers."""
        if said := unusable_threshold(data):
            raise ValueError(said)
        thresholds = {
            name: None if data[name] is None else Threshold.from_json(data[name])
            for name in ("image", "pixel", "look")
        }
        return cls(**{**data, **thresholds})


def read_changes(folder: Path) -> list[Change]:
    """All changes in a detector's folder, oldest first. Raises `DataError` where the file cannot be understood."""
    file = folder / FILE
    if not file.exists():
        return []
    try:
        data = from_json(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")
        return [Change.from_json(values) for values in data["changes"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{file} cannot be understood ({error}), so the thresholds of this detector are unknown: bring back the original"
        ) from error


def with_changes(calibration: Calibration, changes: Sequence[Change]) -> Calibration:
    """The calibration with the thresholds of the last change."""
    if not changes:
        return calibration
    last = changes[-1]
    return calibration.with_thresholds(last.image, last.pixel, last.look)


def change(
    folder: Path, calibration: Calibration, *, reason: str, rule: str, who: str | None = None
) -> Change:
    """Add the thresholds of `calibration` to the history: who, when, why. Raises `DataError` without a reason."""
    if not reason.strip():
        raise DataError("a change of thresholds needs a reason that others understand later: --reason TEXT")
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
    """Bring back the thresholds before the last change; that change stays in the history. Raises `DataError` without one."""
    changes = read_changes(folder)
    if not changes:
        raise DataError(f"{folder} has the thresholds it was fitted with: there is nothing to undo")
    before = with_changes(fitted, changes[:-1])
    return change(folder, before, reason=reason, rule=f"as before the change of {changes[-1].when}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id
        return "unknown"
