"""Rules applied to the parts of one station: as they come (`Watch`), or all at once from stored verdicts (`replay`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from andon.line.rules.kinds import Action, Evidence, Judged, Rule, State

Step = Callable[[State, Judged], tuple[State, Evidence]]
"""`Rule.part` of one rule."""


class RuleEvent(NamedTuple):
    """A rule fired, or its condition is over."""

    rule: Rule
    present: bool
    """True: fired; False: the condition of a rule that fired before is over."""
    t: int
    """Microseconds UTC."""
    why: str = ""
    """What happened, as a sentence; empty where the condition is over."""
    first_id: int | None = None
    """Oldest part because of which the rule fired; None where it fired because of the time."""
    last_id: int | None = None


class Watch:
    """The rules of one station. Call `part` for each judged part in order, `tick` about once a second.

    A rule that fires starts again with an empty window. `clear` empties all of them: at a stop and at a resume.
    """

    def __init__(self, rules: Sequence[Rule], now: int) -> None:
        self.rules: tuple[Rule, ...] = ()
        self._steps: list[tuple[int, Step]] = []
        self._states: list[State] = []
        self._since_fired: dict[int, int] = {}  # index of a rule that fired -> parts since then
        self._signals: dict[str, bool] = {}
        self.follow(rules, now)

    def follow(self, rules: Sequence[Rule], now: int) -> list[RuleEvent]:
        """Follow these rules from now on, with empty windows. Returns the conditions that are over with their rules."""
        titles = {rule.title: i for i, rule in enumerate(rules)}
        over = [self._end(i, now) for i in [*self._since_fired] if self.rules[i].title not in titles]
        self._since_fired = {titles[self.rules[i].title]: n for i, n in self._since_fired.items()}
        self.rules = tuple(rules)
        self._steps = [(i, rule.part) for i, rule in enumerate(rules) if type(rule).part is not Rule.part]
        self.clear(now)
        return over

    def clear(self, now: int) -> None:
        """Empty all windows and begin all waiting at `now`. What fired and is not over yet stays so."""
        self._states = [rule.start(now) for rule in self.rules]

    def restore(self, parts: Iterable[Judged], now: int, present: Collection[str] = ()) -> list[RuleEvent]:
        """Build the windows from stored parts since the last stop, oldest first; waiting begins at `now`.

        `present` are titles of rules that fired before and whose condition was not over. Returns the rules that fired among
        these parts. A stop among them was not carried out before the restart.
        """
        fired = [event for part in parts for event in self.part(part) if event.present]
        self._states = [state._replace(since=now) for state in self._states]
        self._since_fired = {i: 0 for i, rule in enumerate(self.rules) if rule.title in present}
        return fired

    def part(self, part: Judged) -> list[RuleEvent]:
        """What fires because of a part, and what is over with it."""
        events = self._over(part) if self._since_fired else []
        states = self._states
        for index, step in self._steps:
            states[index], evidence = step(states[index], part)
            if evidence:
                events.append(self._fire(index, part.t_done, evidence))
        return events

    def tick(self, now: int) -> list[RuleEvent]:
        """What fires because of the time."""
        present = [
            i for i, rule in enumerate(self.rules) if not rule.signal or self._signals.get(rule.signal)
        ]
        return self._tick(present, now)

    def signal(self, name: str, present: bool, now: int) -> list[RuleEvent]:
        """A condition such as `store_lost` begins or ends; returns what fires at once or is over."""
        if present == self._signals.get(name, False):
            return []
        self._signals[name] = present
        concerned = [index for index, rule in enumerate(self.rules) if rule.signal == name]
        if not present:
            return [self._end(index, now) for index in concerned if index in self._since_fired]
        for index in concerned:
            self._states[index] = self.rules[index].start(now)
        return self._tick(concerned, now)

    def _tick(self, indices: Iterable[int], now: int) -> list[RuleEvent]:
        events = []
        for index in indices:
            self._states[index], fired = self.rules[index].tick(self._states[index], now)
            if fired:
                events.append(self._fire(index, now, ()))
        return events

    def _over(self, part: Judged) -> list[RuleEvent]:
        """Conditions of rules that fired and are over with this part."""
        events = []
        for index, parts in list(self._since_fired.items()):
            self._since_fired[index] = parts + 1
            if self.rules[index].is_gone(part, parts + 1):
                events.append(self._end(index, part.t_done))
        return events

    def _fire(self, index: int, t: int, evidence: Evidence) -> RuleEvent:
        self._since_fired[index] = 0
        ids = [part.id for part in evidence]
        why = self.rules[index].why(evidence)
        return RuleEvent(self.rules[index], True, t, why, ids[0] if ids else None, ids[-1] if ids else None)

    def _end(self, index: int, t: int) -> RuleEvent:
        del self._since_fired[index]
        return RuleEvent(self.rules[index], False, t)


class Replay(NamedTuple):
    """What rules would have done with stored verdicts. Whether a stop was right is not known from verdicts."""

    parts: int
    stops: tuple[RuleEvent, ...]
    """What would have stopped the line, oldest first."""
    calls: tuple[RuleEvent, ...]
    """What would have called a person."""

    def per_10_000(self, events: Sequence[RuleEvent]) -> float:
        """Number of `events` in 10,000 parts; NaN without parts."""
        return 1e4 * len(events) / self.parts if self.parts else float("nan")


def replay(rules: Sequence[Rule], parts: Sequence[Judged]) -> Replay:
    """Apply `rules` together to stored parts, oldest first. A stop empties the windows of all rules, as on the line.

    Waiting times are checked when a part comes, so a pause counts once. 100,000 parts take a fraction of a second.
    """
    if not parts:
        return Replay(0, (), ())
    watch = Watch(rules, parts[0].t_done)
    timed = any(type(rule).tick is not Rule.tick for rule in rules)
    stops: list[RuleEvent] = []
    calls: list[RuleEvent] = []
    for part in parts:
        events = (watch.tick(part.t_done) if timed else []) + watch.part(part)
        if not events:
            continue
        fired = [event for event in events if event.present]
        calls += [event for event in fired if event.rule.action is Action.CALL]
        stopping = [event for event in fired if event.rule.action is Action.STOP]
        if stopping:
            stops += stopping
            watch.clear(part.t_done)
    return Replay(len(parts), tuple(stops), tuple(calls))
