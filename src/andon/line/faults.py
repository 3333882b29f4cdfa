"""What can fail at a station, and whether any part may be OK while it does.

A fault in `STOPS_ALL` makes the station not ready: nothing that comes is judged, and a part on its way that is not NG is
ERROR (`not_ready`). Every other fault stops at most its own source of images; a part from elsewhere has a sound verdict.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Names as pages, alarms and interfaces show them."""

    MODEL = "model"
    """The packed model fails its self-check, or the recipe that was asked for cannot be used."""
    JUDGE = "judge"
    """A judgement has not ended within the cycle limit."""
    STORE = "store"
    """The last row could not be written."""
    LINE = "line"
    """Stop rules, alarms or golden parts failed: what should stop the line may not."""
    PLC = "plc"
    """The PLC of the station is silent: nothing sorts the parts."""
    HALTED = "halted"
    """Another machine halted the station."""
    CAMERA = "camera"
    """The camera gives no images."""
    FOLDER = "folder"
    """The drop folder, or a file in it, cannot be used."""
    DISK = "disk"
    """No room for images; rows are still written."""
    FOLLOWER = "follower"
    """Something that follows parts without judging them failed: drift, reports, messages, metrics."""


STOPS_ALL = frozenset({Fault.MODEL, Fault.JUDGE, Fault.STORE, Fault.LINE, Fault.PLC, Fault.HALTED})
