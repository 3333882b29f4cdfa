"""Who is told what happens at a station."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from andon.line.judge import Judgement
from andon.line.store import Recorded
from andon.line.views import StationView

if TYPE_CHECKING:
    from andon.line.station import Station


class Listener(Protocol):
    """Called from threads that must not wait."""

    def recorded(self, station: Station, recorded: Recorded) -> None:
        """A new row was committed."""

    def judged(self, station: Station, request_id: str, judgement: Judgement) -> None:
        """An image was judged; its row is not written yet."""

    def condition_changed(self, station: Station) -> None:
        """`is_verified` or `faults` changed."""

    def view(self, station: Station) -> StationView:
        """What people see of the station."""
