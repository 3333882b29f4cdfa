"""The kinds of stop rules: settings, and how each follows the verdicts of a station, part by part.

A rule is a frozen settings object. `start` gives its state, `part` and `tick` give the next state and what fired. All
states are values: the same parts give the same events. A part with verdict ERROR says nothing about the product, so
rules on NG skip it: it neither counts nor breaks a row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, get_args

from pydantic import Field, model_validator

from andon.core.config import Config
from andon.core.errors import ConfigError, nearest
from andon.line.clock import SECOND
from andon.line.verdicts import Region, Verdict

R = TypeVar("R", bound="Rule")

OK, NG = Verdict.OK, Verdict.NG
NOT_JUDGED = (Verdict.ERROR, Verdict.NONE)
LARGEST_REGIONS = 4
"""Regions of a part that `SamePlace` compares."""
Parts = Annotated[int, Field(ge=1, le=1000, strict=True)]
"""A number of parts, 1 to 1000."""
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]
"""Seconds, at most a day."""


class Action(StrEnum):
    """What happens when a rule fires."""

    STOP = "stop"
    """The line stops, until a person gives the cause."""
    CALL = "call"
    """A person is called; the line runs on."""


class Judged(Protocol):
    """What rules need of a part; rows of the store have it."""

    @property
    def id(self) -> int: ...
    @property
    def t_done(self) -> int:
        """Microseconds UTC."""

    @property
    def verdict(self) -> Verdict: ...
    @property
    def regions(self) -> tuple[Region, ...]:
        """Largest first, pixels."""


class Part(NamedTuple):
    """A judged part that is not read from the store."""

    id: int
    t_done: int
    verdict: Verdict
    regions: tuple[Region, ...] = ()


class State(NamedTuple):
    """What a rule remembers between two parts."""

    seen: int = 0
    """Parts taken into account; it may start again at 0 when none is kept."""
    kept: tuple[tuple[int, Judged], ...] = ()
    """Parts that may still contribute, oldest first, each with the value of `seen` at its time."""
    since: int = 0
    """Microseconds UTC: when what a rule waits for was last seen."""


Evidence = tuple[Judged, ...]
"""Parts because of which a rule fired, oldest first; empty: it did not fire."""


class Rule(Config):
    """Base of all rules. `title` names a rule among those of its station."""

    kind: str = ""
    action: Action = Action.STOP
    """`stop`: the line stops; `call`: a person is called."""
    remedy: ClassVar[str] = "correct the rule"
    signal: ClassVar[str] = ""
    """Name of the condition that is reported by `Watch.signal`; empty: the rule follows parts."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The rule in a few words."""

    @property
    def reach(self) -> int:
        """Number of latest parts from which the state can be built again after a restart."""
        return 0

    def start(self, now: int) -> State:
        """The state before the first part and after each stop."""
        return State(since=now)

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        """The state after a part, and the evidence where the rule fired."""
        return state, ()

    def tick(self, state: State, now: int) -> tuple[State, bool]:
        """The state at a time, and whether the rule fired because of the time alone."""
        return state, False

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        """Whether the condition of a rule that fired is over with this part, `parts_since` parts after it fired."""
        return True

    @abstractmethod
    def why(self, evidence: Evidence) -> str:
        """What happened, as a sentence for people."""


class CountRule(Rule):
    """Base of the rules that count parts of one verdict."""

    k: Parts = 3
    """Number of parts that fires the rule."""
    verdict: Literal["NG", "ERROR"] = "NG"
    """Verdict that is counted; `ERROR` counts missing verdicts too."""

    def counts(self, part: Judged) -> bool:
        """Whether the part is one of those counted."""
        return part.verdict is NG if self.verdict == "NG" else part.verdict in NOT_JUDGED

    def skips(self, part: Judged) -> bool:
        """Whether the part is left out: without a judgement there is nothing to say about rejects."""
        return self.verdict == "NG" and part.verdict in NOT_JUDGED

    @property
    def what(self) -> str:
        """What the counted parts are, for `why`."""
        return "rejected (NG)" if self.verdict == "NG" else "not judged (ERROR)"


class InARow(CountRule):
    """k parts in a row have the verdict."""

    kind: Literal["in_a_row"] = "in_a_row"

    @property
    def title(self) -> str:
        return f"{self.k} {self.verdict} in a row"

    @property
    def reach(self) -> int:
        return self.k

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        if not self.counts(part):
            return (state, ()) if not state.kept or self.skips(part) else (State(), ())
        kept = (*state.kept, (0, part))
        return (State(), tuple(p for _, p in kept)) if len(kept) >= self.k else (State(kept=kept), ())

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        return not self.counts(part) and not self.skips(part)

    def why(self, evidence: Evidence) -> str:
        return f"{self.k} parts in a row were {self.what}" if self.k > 1 else f"A part was {self.what}"


class InWindow(CountRule):
    """k of the last n parts have the verdict."""

    kind: Literal["in_window"] = "in_window"
    k: Parts = 5
    """Number of parts that fires the rule."""
    n: Parts = 50
    """Length of the window in parts."""

    @model_validator(mode="after")
    def _k_fits_into_n(self) -> InWindow:
        return _check_window(self, self.k, self.n)

    @property
    def title(self) -> str:
        return f"{self.k} {self.verdict} in {self.n}"

    @property
    def reach(self) -> int:
        return self.n

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        if not self.counts(part):
            return (state if self.skips(part) else _passed(state, self.n)), ()
        seen = state.seen + 1
        kept = (*_within(state.kept, seen, self.n), (seen, part))
        return (State(), tuple(p for _, p in kept)) if len(kept) >= self.k else (State(seen, kept), ())

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        return parts_since >= self.n

    def why(self, evidence: Evidence) -> str:
        return f"{self.k} of the last {self.n} parts were {self.what}"


class SamePlace(Rule):
    """k of the last n parts are rejected at the same place."""

    kind: Literal["same_place"] = "same_place"
    k: Parts = 3
    """Number of rejected parts at one place that fires the rule."""
    n: Parts = 20
    """Length of the window in parts."""
    iou: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Two regions are at the same place when intersection over union is at least this."""

    @model_validator(mode="after")
    def _k_fits_into_n(self) -> SamePlace:
        return _check_window(self, self.k, self.n)

    @property
    def title(self) -> str:
        return f"{self.k} NG at one place in {self.n}"

    @property
    def reach(self) -> int:
        return self.n

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        if part.verdict in NOT_JUDGED:
            return state, ()
        if part.verdict is not NG or not part.regions:
            return _passed(state, self.n), ()
        seen = state.seen + 1
        kept = _within(state.kept, seen, self.n)
        alike = [earlier for _, earlier in kept if _same_place(earlier, part, self.iou)]
        if len(alike) + 1 >= self.k:
            return State(), (*alike, part)
        return State(seen, (*kept, (seen, part))), ()

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        return parts_since >= self.n

    def why(self, evidence: Evidence) -> str:
        place = ""
        if evidence:
            x, y, w, h, _ = evidence[-1].regions[0]
            place = f" (last: x {x}, y {y}, {w} x {h} px)"
        return f"{self.k} of the last {self.n} parts were rejected at the same place{place}: look at lens, light and tool"


class NoGoodPart(Rule):
    """Parts come, and none was good for some time."""

    kind: Literal["no_good_part"] = "no_good_part"
    seconds: Seconds = 120.0
    """Time without a good part."""

    @property
    def title(self) -> str:
        return f"no good part for {self.seconds:g} s"

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        if part.verdict is OK:
            return State(since=part.t_done), ()
        state = State(state.seen + 1, since=state.since)
        after, fired = self.tick(state, part.t_done)
        return after, (part,) if fired else ()

    def tick(self, state: State, now: int) -> tuple[State, bool]:
        if not state.seen:
            return state, False
        after, fired = _wait(state, now, self.seconds)
        return (State(since=now), True) if fired else (after, False)

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        return part.verdict is OK

    def why(self, evidence: Evidence) -> str:
        return f"No part was good for {self.seconds:g} s"


class NoPart(Rule):
    """No part came for some time."""

    kind: Literal["no_part"] = "no_part"
    action: Action = Action.CALL
    seconds: Seconds = 300.0
    """Time without a part."""

    @property
    def title(self) -> str:
        return f"no part for {self.seconds:g} s"

    def part(self, state: State, part: Judged) -> tuple[State, Evidence]:
        return State(since=part.t_done), ()

    def tick(self, state: State, now: int) -> tuple[State, bool]:
        return _wait(state, now, self.seconds)

    def why(self, evidence: Evidence) -> str:
        return f"No part came for {self.seconds:g} s"


class StoreLost(Rule):
    """Verdicts cannot be stored for some time (reported by `Watch.signal`)."""

    signal: ClassVar[str] = "store_lost"
    kind: Literal["store_lost"] = "store_lost"
    seconds: Annotated[float, Field(ge=0.0, le=86_400.0)] = 5.0
    """Time without storage; 0: at once."""

    @property
    def title(self) -> str:
        return f"store lost for {self.seconds:g} s"

    def tick(self, state: State, now: int) -> tuple[State, bool]:
        return _wait(state, now, self.seconds)

    def is_gone(self, part: Judged, parts_since: int) -> bool:
        return False

    def why(self, evidence: Evidence) -> str:
        return f"Verdicts could not be stored for {self.seconds:g} s; parts are ERROR until they can"


def overlap(a: Region, b: Region) -> float:
    """Intersection over union of two regions, in [0, 1]."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (a.w * a.h + b.w * b.h - common)


def _same_place(a: Judged, b: Judged, iou: float) -> bool:
    return any(overlap(x, y) >= iou for x in a.regions[:LARGEST_REGIONS] for y in b.regions[:LARGEST_REGIONS])


def _passed(state: State, n: int) -> State:
    """The state one part later that does not count, for a window of n parts."""
    if not state.kept:
        return state
    seen = state.seen + 1
    return State(seen, state.kept) if state.kept[-1][0] > seen - n else State()


def _within(kept: tuple[tuple[int, Judged], ...], seen: int, n: int) -> tuple[tuple[int, Judged], ...]:
    """Those of `kept` that are in the window of the last n parts, of which the newest has number `seen`."""
    return tuple(entry for entry in kept if entry[0] > seen - n)


def _wait(state: State, now: int, seconds: float) -> tuple[State, bool]:
    """Whether `seconds` have passed since `state.since`; if so, waiting begins again. A clock set back begins again too."""
    fired = now - state.since >= seconds * SECOND
    return (state._replace(since=now), fired) if fired or now < state.since else (state, False)


def _check_window(rule: R, k: int, n: int) -> R:
    if k > n:
        raise ValueError(f"k={k} parts do not fit into a window of n={n}: raise n")
    return rule


AnyRule = Annotated[
    InARow | InWindow | SamePlace | NoGoodPart | NoPart | StoreLost, Field(discriminator="kind")
]
"""Any of the kinds, told apart by `kind`."""
KINDS: dict[str, type[Rule]] = {cls().kind: cls for cls in get_args(get_args(AnyRule)[0])}
DEFAULT_RULES: tuple[AnyRule, ...] = (
    InARow(),
    InWindow(action=Action.CALL),
    InARow(verdict="ERROR"),
)
"""3 NG in a row stop, 5 NG in 50 call, 3 ERROR in a row stop."""


def parse_rule(values: Mapping[str, Any], *, where: str = "") -> Rule:
    """A rule from plain values. Raises `ConfigError` for an unknown kind, an unknown key or a bad number."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        place = f" in {where}" if where else ""
        problem = "setting 'kind' is missing" if kind is None else f"unknown kind of rule {kind!r}"
        raise ConfigError(f"{problem}{place}; {nearest(str(kind or ''), KINDS)}")
    return KINDS[kind].parse(values, where=where)
