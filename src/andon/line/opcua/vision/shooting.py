"""One part on request: an image from the camera of a station, judged while the station takes no others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from andon.core.errors import AndonError
from andon.line.plc.handshake import Trigger
from andon.line.plc.unit import MARGIN_SECONDS, Shoot
from andon.line.station import Part, Station
from andon.line.verdicts import Cause

LOG = logging.getLogger(__name__)

Single = Callable[[str, str], None]
"""Takes the part of a request, with its part id, up to its committed row."""


def single(station: Station, shoot: Shoot, request_id: str, part_id: str) -> None:
    """Take an image and wait for its verdict; without an image the part is ERROR (`camera_failed`)."""
    part = Part(b"", request_id, part_id=part_id or None, source="opcua")
    patience = station.settings.cycle_s + MARGIN_SECONDS
    try:
        image = _image(station, shoot, part_id)
        if image:
            station.submit(Part(image, request_id, part_id=part.part_id, source="opcua")).result(patience)
        else:
            station.record_missing(part, Cause.CAMERA_FAILED).result(patience)
    except (AndonError, TimeoutError) as error:
        LOG.warning("station %s: a single part: %s", station.name, error)


def _image(station: Station, shoot: Shoot, part_id: str) -> bytes | None:
    try:
        return shoot(Trigger(0, 0, part_id, "", time.monotonic()))
    except Exception as error:  # cameras raise what they like
        LOG.warning("station %s: no image of a single part: %s", station.name, error)
        return None
