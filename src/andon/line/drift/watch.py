"""The drift watch of one station, without I/O: parts in, what was found out.

Image numbers and scores of parts that were not rejected are compared with a reference by moving averages, and once a shift by
their distributions; rates of NG and REVIEW by the counts of blocks of parts. Memory does not grow with the number of parts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from andon.line.clock import SECOND
from andon.line.drift import charts
from andon.line.drift.cause import Cause, Evidence, Named, name_cause
from andon.line.drift.charts import LAMBDA, Compared, Floats
from andon.line.drift.numbers import CELLS, Reduced, measure
from andon.line.drift.rates import RateWatch
from andon.line.drift.reference import NAMES, Learner, Reference, packed, unpacked
from andon.line.tally import shift_begin
from andon.line.verdicts import Verdict

FAST, MIDDLE = 0.2, 0.05
"""Weights of the newest part: in the values that are shown, and in the distances by which a cause is named."""
CLEARED = 0.5
"""A drift is over when every moving average is below this share of its limit."""
QUIET = 0.5
"""Distance below which nothing has begun, standard deviations: three times the spread of `Watch.level`."""
WILDEST = 200.0
"""Largest distance of a single value that counts, standard deviations."""
SAMPLE = 400
"""Parts of a shift that are kept for its comparison, a random sample."""
FEWEST_IN_SHIFT = 50
NOTED = 0.5
"""An image trait is reported when more than this share of the last parts (moving average, `FAST` / 2) has it."""
LONGEST_PAUSE = 3600.0
"""Longer times between two parts count as this, seconds."""


class Seen(NamedTuple):
    """A committed part, as drift sees it."""

    at: int
    verdict: Verdict
    score: float | None
    judging_ms: float
    thresholds: int | None
    """Version of the thresholds; rates are relearned when it changes."""
    image: Reduced | None
    """None where the image was not measured."""
    notes: Mapping[str, str]
    """How the image is unlike the training images: code and words."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Comparison of a shift that ended."""

    begin: int
    count: int
    """Parts in the sample; below `FEWEST_IN_SHIFT` nothing is compared."""
    numbers: Mapping[str, Compared]
    found: tuple[str, ...]
    """Numbers whose distribution changed."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        numbers = {name: one._asdict() for name, one in self.numbers.items()}
        return {"begin": self.begin, "count": self.count, "numbers": numbers, "found": list(self.found)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shift:
        """Inverse of `to_json`."""
        numbers = {name: Compared(**one) for name, one in data["numbers"].items()}
        return cls(data["begin"], data["count"], numbers, tuple(data["found"]))


class Drift(NamedTuple):
    """A drift that was found."""

    named: Named
    since: int
    """When it began, estimated."""
    found: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.named._asdict(), "since": self.since, "found": self.found}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Drift:
        """Inverse of `to_json`."""
        named = Named(Cause(data["cause"]), data["number"], data["place"], data["words"])
        return cls(named, data["since"], data["found"])


@dataclass
class Watch:
    """State of one station. `reference` None: nothing is compared yet."""

    reference: Reference | None = None
    learner: Learner | None = None
    parts: int = 0
    """Parts that were compared with the reference."""
    average: Floats = field(default_factory=lambda: np.zeros(len(NAMES)))
    """Moving average of the normal deviates; this is what is held against the limits."""
    level: Floats = field(default_factory=lambda: np.zeros(len(NAMES)))
    """Moving average of the distances from the medians in standard deviations, which are not bounded."""
    recent: Floats = field(default_factory=lambda: np.zeros(len(NAMES)))
    """Fast moving average of the values."""
    cells: Floats = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    """Moving average of the relative change of the brightness of the cells."""
    since: list[int] = field(default_factory=lambda: [0] * len(NAMES))
    """When each of `level` was last below `QUIET`: the estimate of when a drift began."""
    drift: Drift | None = None
    """The drift that lasts."""
    judging_ms: float = 0.0
    interval_s: float = 0.0
    last_at: int = 0
    rates: dict[str, RateWatch] = field(default_factory=lambda: {"NG": RateWatch(), "REVIEW": RateWatch()})
    notes: dict[str, float] = field(default_factory=dict)
    note_words: dict[str, str] = field(default_factory=dict)
    shift: int = 0
    sampled: list[list[float]] = field(default_factory=list)
    in_shift: int = 0
    ended: Shift | None = None

    def take(self, part: Seen) -> Reference | None:
        """Take a committed part, in order. Returns a reference that it completed, which then is in use."""
        if part.verdict is Verdict.ERROR:
            return None
        for verdict in (Verdict.NG, Verdict.REVIEW):
            self.rates[verdict.name].take(part.verdict is verdict, part.thresholds)
        self._take_notes(part.notes)
        interval = min((part.at - self.last_at) / SECOND, LONGEST_PAUSE) if self.last_at else 0.0
        self.last_at = part.at
        if part.verdict is Verdict.NG or part.image is None or part.score is None:
            return None
        self.judging_ms += FAST * (part.judging_ms - self.judging_ms)
        self.interval_s += FAST * (interval - self.interval_s)
        if self.reference is not None:
            values = np.array([*measure(part.image, self.reference.template), part.score])
            self.compare(values, part.image.cells, part.at)
        if self.learner is None:
            return None
        learned = self.learner.add(part.image, part.score, part.judging_ms, interval)
        if learned is not None:
            self.learner = None
            self.begin(learned)
        return learned

    def begin(self, reference: Reference) -> None:
        """Compare with another reference from the next part on."""
        fresh = Watch()
        self.reference, self.parts, self.drift, self.ended = reference, 0, None, None
        self.average, self.level, self.cells = fresh.average, fresh.level, fresh.cells
        self.recent = reference.centre.copy()
        self.since = [self.last_at] * len(NAMES)
        self.sampled, self.in_shift, self.shift = [], 0, 0

    @property
    def shares(self) -> Floats:
        """(`NAMES`,) moving averages over their limits, without sign; 0 without a reference."""
        if self.reference is None:
            return np.zeros(len(NAMES))
        return np.asarray(np.abs(self.average) / self.reference.limits)

    def _judge(self, reference: Reference, at: int) -> None:
        """A drift begins when an average passes its limit, and ends when all are back below `CLEARED` of theirs."""
        shares = self.shares
        if self.drift is not None and shares.max() <= CLEARED:
            self.drift = None
        if self.drift is None and shares.max() > 1:
            named = name_cause(reference, Evidence(self.level, self.recent, shares, self.cells))
            self.drift = Drift(named, self.since[NAMES.index(named.number)], at)

    def to_json(self) -> dict[str, Any]:
        """Plain data: everything but the reference, which is stored for itself, and the notes."""
        return {
            "parts": self.parts,
            "drift": None if self.drift is None else self.drift.to_json(),
            "since": self.since,
            "timing": [self.judging_ms, self.interval_s],
            "last_at": self.last_at,
            "averages": packed(np.concatenate([self.average, self.level, self.recent, self.cells.ravel()])),
            "rates": {name: rate.to_json() for name, rate in self.rates.items()},
            "learner": None if self.learner is None else self.learner.to_json(),
            "shift": self.shift,
            "in_shift": self.in_shift,
            "sampled": packed(np.array(self.sampled)),
            "ended": None if self.ended is None else self.ended.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], reference: Reference | None) -> Watch:
        """Inverse of `to_json`."""
        count = len(NAMES)
        average, level, recent, cells = np.split(
            unpacked(data["averages"], -1), [count, 2 * count, 3 * count]
        )
        judging_ms, interval_s = data["timing"]
        return cls(
            reference=reference,
            learner=None if data["learner"] is None else Learner.from_json(data["learner"]),
            parts=data["parts"],
            average=average,
            level=level,
            recent=recent,
            cells=cells.reshape(CELLS, CELLS),
            since=list(data["since"]),
            drift=None if data["drift"] is None else Drift.from_json(data["drift"]),
            judging_ms=judging_ms,
            interval_s=interval_s,
            last_at=data["last_at"],
            rates={name: RateWatch.from_json(rate) for name, rate in data["rates"].items()},
            shift=data["shift"],
            in_shift=data["in_shift"],
            sampled=unpacked(data["sampled"], -1, count).tolist(),
            ended=None if data["ended"] is None else Shift.from_json(data["ended"]),
        )

    def unlike(self) -> str:
        """How most of the last images are unlike the training images; empty where they are not."""
        found = [code for code, share in self.notes.items() if share > NOTED]
        return "; ".join(self.note_words[code] for code in found)

    def compare(self, values: Floats, cells: Floats, at: int) -> None:
        """Hold the numbers (`NAMES`,) of a part and the brightness of its cells against the reference."""
        reference = self.reference
        assert reference is not None
        self.average = self.average + LAMBDA * (reference.deviates(values) - self.average)
        sigmas = np.clip(reference.sigmas(values), -WILDEST, WILDEST)
        self.level = self.level + MIDDLE * (sigmas - self.level)
        self.cells = self.cells + MIDDLE * (cells / reference.cells - 1 - self.cells)
        self.recent = self.recent + FAST * (values - self.recent)
        for k in np.flatnonzero(np.abs(self.level) < QUIET):
            self.since[k] = at
        self.parts += 1
        self._judge(reference, at)
        self._sample(reference, values, at)

    def _sample(self, reference: Reference, values: Floats, at: int) -> None:
        """Keep a random sample of the shift; at its end, compare it."""
        begin = shift_begin(at)
        if begin > self.shift:
            if self.shift:
                self.ended = compare_shift(reference, self.shift, np.array(self.sampled))
            self.shift, self.sampled, self.in_shift = begin, [], 0
        self.in_shift += 1
        if len(self.sampled) < SAMPLE:
            self.sampled.append(values.tolist())
        elif (place := random.Random(f"{begin} {self.in_shift}").randrange(self.in_shift)) < SAMPLE:
            self.sampled[place] = values.tolist()

    def _take_notes(self, notes: Mapping[str, str]) -> None:
        self.note_words.update(notes)
        shares = Counter(self.notes)
        for code in {*self.notes, *notes}:
            shares[code] += FAST / 2 * ((code in notes) - shares[code])  # type: ignore[assignment]
        self.notes = {code: share for code, share in shares.items() if share > 0.01}
        self.note_words = {code: self.note_words[code] for code in self.notes}


def compare_shift(reference: Reference, begin: int, values: Floats) -> Shift:
    """A shift against the reference: which numbers have another distribution, at a family-wise level of `charts.ALPHA`."""
    if len(values) < FEWEST_IN_SHIFT:
        return Shift(begin, len(values), {}, ())
    found = {
        name: charts.compare(values[:, k], reference.levels[k], reference.count, float(reference.rho[k]))
        for k, name in enumerate(NAMES)
        if not reference.is_flat[k]  # the moving average alone judges numbers that hardly varied
    }
    rejected = charts.holm([one.p for one in found.values()])
    return Shift(
        begin, len(values), found, tuple(name for name, no in zip(found, rejected, strict=True) if no)
    )
