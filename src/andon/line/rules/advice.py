"""What rules cost in false stops: forecast and replay side by side, and which threshold makes them usable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from andon.line.rules.forecast import Forecast, forecast
from andon.line.rules.kinds import Action, Judged, Rule
from andon.line.rules.watch import Replay, replay

USELESS = 1.0
"""False stops per 10,000 good parts above which people stop believing a rule."""
RATES = (0.01, 0.005, 0.002, 0.001)
"""False-reject rates that are proposed, the largest first."""


class Preview(NamedTuple):
    """One rule: what to expect from good parts alone, and what it would have done with stored parts."""

    rule: Rule
    forecast: Forecast | None
    """None where the rule does not follow from the false-reject rate."""
    replayed: Replay
    """The rule alone on the stored parts; real stops are among these."""

    @property
    def is_useless(self) -> bool:
        """Whether more than `USELESS` false stops are expected per 10,000 good parts."""
        return self.forecast is not None and self.forecast.per_10_000 > USELESS

    @property
    def sentence(self) -> str:
        """Both numbers for people."""
        events = self.replayed.stops or self.replayed.calls
        past = f"on the last {self.replayed.parts} parts: {len(events)} {_noun(self.rule, len(events))}"
        if self.forecast is None:
            return f"{self.rule.title}: {past}"
        expected = (
            f"{self.forecast.per_10_000:.2g} false {_noun(self.rule, 2)} expected per 10,000 good parts"
        )
        return f"{self.rule.title}: {expected}; {past}"


def preview(rules: Sequence[Rule], parts: Sequence[Judged], p: float) -> list[Preview]:
    """Each rule with its forecast at false-reject rate `p` and its replay on `parts`, oldest first."""
    return [Preview(rule, forecast(rule, p), replay([rule], parts)) for rule in rules]


def advice(rules: Sequence[Rule], p: float) -> str:
    """Which rules are useless at false-reject rate `p`, and the rate at which none is; empty when none is useless.

    >>> from andon.line.rules import InARow
    >>> advice([InARow(k=3)], 0.01)
    ''
    """
    useless = [(rule, found.per_10_000) for rule in rules if (found := _useless(rule, p))]
    if not useless:
        return ""
    counts = "; ".join(f"{rule.title}: {rate:.2g} false {_noun(rule, 2)}" for rule, rate in useless)
    named = [rule for rule, _ in useless]
    usable = next(
        (rate for rate in RATES if rate < p and not any(_useless(rule, rate) for rule in named)), None
    )
    remedy = (
        f"set a threshold with at most {usable * 100:g} % false rejects"
        if usable is not None
        else "raise the number of parts that the rule needs"
    )
    return f"At {p * 100:g} % false rejects, in 10,000 good parts, {counts}. People stop believing such a light: {remedy}."


def _useless(rule: Rule, p: float) -> Forecast | None:
    found = forecast(rule, p)
    return found if found is not None and found.per_10_000 > USELESS else None


def _noun(rule: Rule, count: int) -> str:
    noun = "stop" if rule.action is Action.STOP else "call"
    return noun if count == 1 else noun + "s"
