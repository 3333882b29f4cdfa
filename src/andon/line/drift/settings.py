"""Settings of the drift watch of a line."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from andon.line.config import CENTURY_DAYS, LineConfig

FEWEST, MOST = 200, 5000
"""Parts of a reference: fewer say too little about the limits, more need memory."""
ReferenceParts = Annotated[int, Field(ge=FEWEST, le=MOST)]


class DriftSettings(LineConfig):
    """How images and scores of passed parts are compared with a reference."""

    watch: bool = True
    """Whether drift is watched at all."""
    reference_parts: ReferenceParts = 2000
    """Passed parts from which a reference is learned, 200 to 5000; with fewer the limits are wider."""
    keep_days: Annotated[int, Field(ge=1, le=CENTURY_DAYS)] = 90
    """Days for which the stored points are kept."""
