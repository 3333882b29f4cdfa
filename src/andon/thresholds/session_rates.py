"""False-reject rates within and across sessions at the fixed threshold (docs/reference/metrics.md, "Sessions").

Within: good images scored by what others, also of their own session, teach. Across: whole sessions are left out. The
difference is what a new session costs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from andon.datasets.splits import FEWEST_SESSIONS
from andon.thresholds.calibration import Calibration


@dataclass(frozen=True, slots=True)
class SessionRates:
    """Good images that reach the image threshold, of images that were not learned from."""

    n: int
    """Images."""
    across: int
    """Rejected by what other sessions teach."""
    within: int | None
    """Rejected by what all other images teach, those of the same session too; None where this is not known."""
    new: int | None
    """Rejected with the threshold that the other sessions give; None where the threshold is no conformal one."""
    worst: tuple[str, int, int]
    """Session with the most images rejected across sessions: name, rejected images, images."""

    def describe(self) -> str:
        """One sentence with each rate as a percentage and in counts."""
        parts = [f"across sessions {self._rate(self.across)}"]
        if self.within is not None:
            parts.insert(0, f"within sessions {self._rate(self.within)}")
        if self.new is not None:
            parts.append(f"with the threshold of the other sessions {self._rate(self.new)}")
        name, rejected, n = self.worst
        most = f"; most in {name or 'no known session'}: {rejected} of {n}" if rejected else ""
        return f"false-reject rate at this threshold: {', '.join(parts)}{most}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`: rates, and the counts behind them."""
        name, rejected, n = self.worst
        counts = {"within": self.within, "across": self.across, "new": self.new}
        return {
            "pictures": self.n,
            "rejected": counts,
            "rates": {key: None if count is None else count / self.n for key, count in counts.items()},
            "worst": {"session": name, "rejected": rejected, "pictures": n},
        }

    def _rate(self, count: int) -> str:
        return f"{100 * count / self.n:.3g} % ({count} of {self.n})"


def session_rates(found: Calibration) -> SessionRates | None:
    """The rates at the image threshold of `found`, None with scores of fewer than `FEWEST_SESSIONS` sessions."""
    sizes = Counter(found.sessions)
    if len(sizes) < FEWEST_SESSIONS:
        return None
    rejected = [score >= found.image.value for score in found.scores]
    of_session = Counter(name for name, bad in zip(found.sessions, rejected, strict=True) if bad)
    worst = max(sorted(sizes), key=lambda name: (of_session[name], -sizes[name]))
    return SessionRates(
        n=len(rejected),
        across=sum(rejected),
        within=sum(score >= found.image.value for score in found.within) if found.within else None,
        new=_rejected_as_new(found),
        worst=(worst, of_session[worst], sizes[worst]),
    )


def _rejected_as_new(found: Calibration) -> int | None:
    """Images that reach the threshold which the scores of the other sessions give."""
    count = 0
    for session in set(found.sessions):
        others = [k for k, name in enumerate(found.sessions) if name != session]
        threshold = found.image_threshold_from(others)
        if threshold is None:
            return None
        count += sum(
            score >= threshold
            for score, name in zip(found.scores, found.sessions, strict=True)
            if name == session
        )
    return count
