"""Stop rules: when a sequence of verdicts calls a person or stops the line, and how often that happens without a fault.

    watch = Watch(DEFAULT_RULES, now)
    for part in parts:                                  # verdicts of one station, oldest first
        for event in watch.part(part):
            print(event.rule.title, event.why)

Nothing here reads or writes files, and nothing remembers anything but the `Watch`. `forecast` computes false stops of a
rule from the false-reject rate, `replay` applies rules to stored verdicts, `preview` shows both side by side.
"""

from andon.line.rules.advice import Preview, advice, preview
from andon.line.rules.forecast import Forecast, forecast
from andon.line.rules.kinds import (
    DEFAULT_RULES,
    KINDS,
    Action,
    AnyRule,
    InARow,
    InWindow,
    Judged,
    NoGoodPart,
    NoPart,
    Part,
    Rule,
    SamePlace,
    StoreLost,
    parse_rule,
)
from andon.line.rules.watch import Replay, RuleEvent, Watch, replay

__all__ = [
    "DEFAULT_RULES",
    "KINDS",
    "Action",
    "AnyRule",
    "Forecast",
    "InARow",
    "InWindow",
    "Judged",
    "NoGoodPart",
    "NoPart",
    "Part",
    "Preview",
    "Replay",
    "Rule",
    "RuleEvent",
    "SamePlace",
    "StoreLost",
    "Watch",
    "advice",
    "forecast",
    "parse_rule",
    "preview",
    "replay",
]
