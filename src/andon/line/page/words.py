"""The one word, shape and colour of each verdict and state, and the texts of causes."""

from __future__ import annotations

from typing import NamedTuple

from andon.line.andon_states import StopCause
from andon.line.verdicts import Cause, Verdict
from andon.line.views import Shown


class Sign(NamedTuple):
    """How a verdict or state is shown: never by colour alone."""

    word: str
    icon: str
    """Symbol `icon-ICON` of `templates/icons.svg`, class `is-ICON` of `static/app.css`."""


VERDICTS: dict[Verdict, Sign] = {
    Verdict.OK: Sign("OK", "ok"),
    Verdict.NG: Sign("NG", "ng"),
    Verdict.REVIEW: Sign("REVIEW", "review"),
    Verdict.ERROR: Sign("ERROR", "error"),
    Verdict.NONE: Sign("ERROR", "error"),
}
STATES: dict[Shown, Sign] = {
    Shown.RUNNING: Sign("RUNNING", "running"),
    Shown.WAITING: Sign("WAITING", "waiting"),
    Shown.REVIEW: Sign("REVIEW", "review"),
    Shown.STOPPED: Sign("STOPPED", "stopped"),
    Shown.FAULT: Sign("FAULT", "fault"),
    Shown.SETUP: Sign("SETUP", "setup"),
}
OFFLINE = Sign("OFFLINE", "offline")
"""The page has lost the server."""
STOP_CAUSES: dict[StopCause, str] = {
    StopCause.PRODUCT: "Parts are bad",
    StopCause.CAMERA: "Camera or lens",
    StopCause.LIGHT: "Light",
    StopCause.SETTING: "Wrong setting",
    StopCause.FALSE_STOP: "False stop",
    StopCause.OTHER: "Other (note)",
}
"""Keys 1 to 6, in this order."""
ERROR_CAUSES: dict[str, str] = {
    Cause.OVERRUN: "Parts come too fast",
    Cause.TIMEOUT: "No verdict in time",
    Cause.NOT_AN_IMAGE: "Picture cannot be read",
    Cause.IMAGE_DIFFERS: "Picture has another size or kind",
    Cause.NOT_FINITE: "No valid score",
    Cause.JUDGE_FAILED: "The model failed",
    Cause.NOT_READY: "Station was not ready",
    Cause.RESULTS_LOST: "Lost in a restart",
    Cause.CAMERA_FAILED: "No whole image from the camera",
    Cause.DISK_FULL: "Disk is full",
    Cause.REPEATED: "Trigger number came twice",
    Cause.GOLDEN_FAILED: "Golden parts not judged right",
    Cause.GOLDEN_PART: "Golden part",
}
