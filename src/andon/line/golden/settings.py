"""Settings of golden parts: when they are due, and how long the line may go on until they are judged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from andon.line.config import LineConfig


class GoldenSettings(LineConfig):
    """When golden parts of a station have to be judged. Without golden parts nothing is due."""

    at_shift: bool = True
    """Due when a shift begins: at 6, 14 and 22 o'clock, local time."""
    every_hours: Annotated[float, Field(ge=0.0, le=8760.0)] = 0.0
    """Due so many hours after the last passed check; 0: never."""
    grace_minutes: Annotated[float, Field(gt=0.0, le=1440.0)] = 15.0
    """Time for which parts may be OK while a check is due."""
    automatic: bool = True
    """Stored images are judged by the station itself when that suffices; otherwise a person starts each check."""
