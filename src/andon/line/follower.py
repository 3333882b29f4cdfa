"""What follows the parts of a line without judging them: drift, reviews, reports to other machines."""

from __future__ import annotations

from andon.line.judge import Judgement
from andon.line.store import Inspection


class Follower:
    """Base of what follows a line; every method may be left out. Called by the one thread of the line: it must not wait."""

    def start(self) -> None:
        """The line judges parts from now on."""

    def judged(self, station: str, request_id: str, judgement: Judgement) -> None:
        """An image was judged; its row follows. Called by the judging thread: it must not wait either."""

    def part(self, row: Inspection) -> None:
        """A part was judged and committed. Golden parts are left out."""

    def tick(self) -> None:
        """A second has passed."""

    def stop(self, timeout: float) -> None:
        """No part follows; end own threads within `timeout` seconds."""
