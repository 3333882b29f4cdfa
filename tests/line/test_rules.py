"""Stop rules: what fires when, what is skipped, replay, preview, and the false stops that are forecast."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import ConfigError
from andon.line.clock import SECOND
from andon.line.rules import (
    DEFAULT_RULES,
    Action,
    InARow,
    InWindow,
    NoGoodPart,
    NoPart,
    Part,
    SamePlace,
    StoreLost,
    Watch,
    advice,
    forecast,
    parse_rule,
    preview,
    replay,
)
from andon.line.rules.forecast import in_a_row_rate, simulate, window_rate
from andon.line.rules.kinds import KINDS, overlap
from andon.line.verdicts import Region, Verdict

LETTERS = {"o": Verdict.OK, "n": Verdict.NG, "r": Verdict.REVIEW, "e": Verdict.ERROR, "0": Verdict.NONE}


def sequence(text: str, *, seconds: float = 1.0) -> list[Part]:
    """Parts with ids from 1, one each `seconds`; a capital N has a region of its own."""
    return [
        Part(
            i,
            round(i * seconds * SECOND),
            LETTERS[letter.lower()],
            (Region(10, 10, 8, 8, 1.2),) * letter.isupper(),
        )
        for i, letter in enumerate(text, start=1)
    ]


def fired(rule, text: str, **options) -> list[int]:
    """Ids of the parts at which `rule` fires, windows emptied each time."""
    found = replay([rule], sequence(text, **options))
    return [event.last_id for event in found.stops + found.calls]


@pytest.mark.parametrize(
    ("rule", "text", "ids"),
    [
        (InARow(k=3), "nnonnnonn", [6]),
        (InARow(k=3), "nnnnnn", [3, 6]),
        (InARow(k=3), "nnrn", []),
        (InARow(k=3), "neen0n", [6]),  # parts without a judgement say nothing about rejects
        (InARow(k=2, verdict="ERROR"), "eoeneeo", [6]),
        (InARow(k=1, verdict="ERROR"), "oeo", [2]),
        (InARow(k=2, verdict="ERROR"), "oe0o", [3]),
        (InWindow(k=2, n=4, verdict="ERROR"), "eonnee", [6]),
        (InWindow(k=2, n=3), "noonon", [6]),
        (InWindow(k=2, n=3), "nonoon", [3]),
        (InWindow(k=2, n=3), "neeon", [5]),
        (InWindow(k=3, n=5), "noonnonn", [5]),
        (SamePlace(k=2, n=3), "NoNooN", [3]),
        (SamePlace(k=2, n=3), "NooN", []),
        (SamePlace(k=2, n=3), "nnnn", []),
    ],
)
def test_fires_at(rule, text, ids):
    assert fired(rule, text) == ids


@given(st.text("onre", max_size=40), st.integers(1, 4), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_windows_agree_with_counting_again(text, k, more):
    n = k + more
    judged, last, expected = [], 0, []
    for number, letter in enumerate(text, start=1):
        if letter != "e":
            judged.append((number, letter))
            window = [pair for pair in judged[-n:] if pair[0] > last and pair[1] == "n"]
            if letter == "n" and len(window) >= k:
                expected.append(number)
                last, judged = number, []
    assert fired(InWindow(k=k, n=n), text) == expected


def test_same_place_needs_overlap():
    apart = [Part(i, i, Verdict.NG, (Region(i * 30, 0, 20, 20, 1.5),)) for i in range(8)]
    near = [part._replace(regions=(Region(100 + part.id, 0, 20, 20, 1.5),)) for part in apart]
    assert not replay([SamePlace(k=3, n=8)], apart).stops
    stop = replay([SamePlace(k=3, n=8)], near).stops[0]
    assert (stop.first_id, stop.last_id) == (0, 2)
    assert "x 102, y 0" in stop.why


def test_overlap_by_hand():
    assert overlap(Region(0, 0, 4, 4, 1), Region(2, 0, 4, 4, 1)) == pytest.approx(8 / 24)
    assert overlap(Region(0, 0, 4, 4, 1), Region(4, 0, 4, 4, 1)) == 0


def test_no_good_part_waits_only_while_parts_come():
    watch = Watch([NoGoodPart(seconds=10)], 0)
    assert not watch.tick(60 * SECOND)
    watch.part(Part(1, 61 * SECOND, Verdict.OK))
    watch.part(Part(2, 65 * SECOND, Verdict.NG))
    assert not watch.tick(70 * SECOND)
    assert [event.present for event in watch.tick(71 * SECOND)] == [True]
    assert not watch.tick(100 * SECOND)  # nothing came since
    assert [event.present for event in watch.part(Part(3, 101 * SECOND, Verdict.OK))] == [False]


def test_no_part_and_a_clock_that_is_set_back():
    watch = Watch([NoPart(seconds=10)], 0)
    watch.part(Part(1, 3600 * SECOND, Verdict.OK))
    assert not watch.tick(5 * SECOND)
    assert not watch.tick(14 * SECOND)
    assert len(watch.tick(15 * SECOND)) == 1
    assert [event.present for event in watch.part(Part(2, 16 * SECOND, Verdict.NG))] == [False]


def test_store_lost_is_a_signal():
    watch = Watch([NoPart(seconds=1), StoreLost(seconds=5)], 0)
    assert not watch.signal("store_lost", True, 10 * SECOND)
    assert not [e for e in watch.tick(14 * SECOND) if e.rule.kind == "store_lost"]
    assert [e.rule.kind for e in watch.tick(15 * SECOND)] == ["no_part", "store_lost"]
    assert [e.present for e in watch.signal("store_lost", False, 16 * SECOND)] == [False]
    at_once = Watch([StoreLost(seconds=0)], 0)
    assert at_once.signal("store_lost", True, 1)[0].present
    assert not at_once.signal("store_lost", True, 2)


def test_a_condition_is_over():
    watch = Watch([InARow(k=2), InWindow(k=2, n=4, action="call")], 0)
    events = [(part.id, e.rule.kind, e.present) for part in sequence("nneooo") for e in watch.part(part)]
    assert events == [
        *((2, "in_a_row", True), (2, "in_window", True)),
        *((4, "in_a_row", False), (6, "in_window", False)),
    ]


def test_a_stop_empties_all_windows_and_a_call_its_own():
    stop, call = InARow(k=2), InWindow(k=3, n=6, action="call")
    together = replay([stop, call], sequence("nononn"))
    assert [event.last_id for event in together.calls] == [5]
    assert [event.last_id for event in together.stops] == [6]
    assert [event.last_id for event in replay([stop, call], sequence("nnn")).calls] == []


def test_two_stations_are_independent():
    a, b = (Watch([InARow(k=2)], 0) for _ in range(2))
    one, two = sequence("nn")
    assert not a.part(one) and not b.part(two) and a.part(two)


@pytest.mark.parametrize("cut", range(7))
def test_restart_goes_on_where_it_was(cut):
    parts = sequence("nonNeNn")
    rules = [InARow(k=3), InWindow(k=4, n=6), SamePlace(k=2, n=6)]
    straight, again = Watch(rules, 0), Watch(rules, 0)
    before = [event for part in parts[:cut] for event in straight.part(part)]
    assert again.restore(parts[:cut], 0) == [event for event in before if event.present]
    for part in parts[cut:]:
        assert [e for e in again.part(part) if e.present] == [e for e in straight.part(part) if e.present]


def test_rules_as_json_and_back():
    for rule in (*DEFAULT_RULES, SamePlace(), NoGoodPart(), NoPart(), StoreLost()):
        assert parse_rule(json.loads(rule.model_dump_json())) == rule
        assert rule.why(())
    assert {rule.kind for rule in DEFAULT_RULES} < set(KINDS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 3}, "'kind' is missing in line.toml"),
        ({"kind": "in_a_rov"}, "did you mean in_a_row?"),
        ({"kind": "in_a_row", "k": 0}, "k=0 in line.toml"),
        ({"kind": "in_a_row", "k": True}, "k=True"),
        ({"kind": "in_a_row", "n": 3}, "unknown setting 'n'"),
        ({"kind": "in_window", "k": 6, "n": 5}, "do not fit"),
        ({"kind": "no_part", "seconds": float("nan")}, "seconds=nan"),
        ({"kind": "no_part", "action": "shout"}, "action='shout'"),
    ],
)
def test_bad_rules_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        parse_rule(values, where="line.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- forecast


def expected_parts(k: int, n: int, p: float) -> float:
    """Expected parts up to a stop from an empty window: the chain's linear equations, solved directly."""
    import itertools

    import numpy as np

    states = [s for s in itertools.product((0, 1), repeat=n - 1) if sum(s) < k]
    place = {state: i for i, state in enumerate(states)}
    matrix = np.eye(len(states))
    for state, i in place.items():
        matrix[i, place[(*state[1:], 0)]] -= 1 - p
        if sum(state) < k - 1:
            matrix[i, place[(*state[1:], 1)]] -= p
    return float(np.linalg.solve(matrix, np.ones(len(states)))[place[(0,) * (n - 1)]])


@pytest.mark.parametrize(
    ("k", "n", "p"), [(2, 2, 0.1), (3, 3, 0.02), (2, 5, 0.05), (3, 8, 0.01), (4, 8, 0.3)]
)
def test_exact_rate_is_the_inverse_of_the_expected_time(k, n, p):
    exact = 1 / expected_parts(k, n, p)
    assert window_rate(k, n, p) == pytest.approx(exact, rel=1e-8)
    if k == n:
        assert in_a_row_rate(k, p) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize(
    ("rule", "p", "known", "digit"),
    [
        (InARow(k=3), 0.01, 0.0099, 1e-4),
        (InARow(k=3), 0.05, 1.19, 0.01),
        (InARow(k=4), 0.02, 0.0016, 1e-4),
        (InWindow(k=3, n=10), 0.01, 0.30, 0.01),
        (InWindow(k=3, n=20), 0.05, 71.5, 0.1),
        (InWindow(k=5, n=50), 0.05, 43.2, 0.1),
        (InWindow(k=8, n=100), 0.05, 27.7, 0.1),
    ],
)
def test_forecast_agrees_with_known_simulations(rule, p, known, digit):
    """`known`: simulations of 20 M parts by other code, rounded to `digit`; three standard errors."""
    found = forecast(rule, p)
    spread = (
        math.hypot(math.sqrt(known * 2000) / 2000, found.standard_error) if isinstance(rule, InWindow) else 0
    )
    assert abs(found.per_10_000 - known) <= 3 * spread + digit / 2


@pytest.mark.parametrize(("k", "n", "p"), [(3, 3, 0.1), (3, 10, 0.05), (2, 20, 0.02)])
def test_simulation_agrees_with_the_exact_rate(k, n, p):
    stops, parts = simulate(k, n, p, rejects=50_000, seed=1)
    assert stops / parts == pytest.approx(window_rate(k, n, p), abs=3 * math.sqrt(stops) / parts)


def test_simulated_parts_replayed_by_the_rule_stop_as_often():
    import numpy as np

    rule, p = InWindow(k=3, n=10), 0.1
    draws = np.random.default_rng(0).random(20_000) < p
    parts = [Part(i, i, Verdict.NG if bad else Verdict.OK) for i, bad in enumerate(draws)]
    stops = replay([rule], parts).stops
    assert 2 * len(stops) / forecast(rule, p).per_10_000 == pytest.approx(4, abs=12 / math.sqrt(len(stops)))


def test_forecast_has_limits():
    assert forecast(InWindow(k=1, n=9), 0.02).per_10_000 == pytest.approx(200)
    assert forecast(InARow(k=3), 0.0).per_10_000 == 0
    assert forecast(InARow(k=3, verdict="ERROR"), 0.01) is None
    assert forecast(SamePlace(), 0.01) is None
    for p in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match="false-reject rate"):
            forecast(InARow(), p)


def test_advice_proposes_a_threshold():
    text = advice(DEFAULT_RULES, 0.05)
    assert "3 NG in a row: 1.2 false stops" in text
    assert "5 NG in 50: 43 false calls" in text
    assert "at most 1 % false rejects" in text
    assert advice(DEFAULT_RULES, 0.01) == ""
    assert "at most 0.5 %" in advice([InWindow(k=3, n=20)], 0.01)
    assert "raise the number" in advice([InARow(k=1)], 0.01)


def test_preview_shows_forecast_and_past_side_by_side():
    parts = sequence(("o" * 96 + "nnnn") * 10)
    row, place = preview([InARow(k=3), SamePlace(action=Action.CALL)], parts, 0.01)
    assert (len(row.replayed.stops), row.is_useless) == (10, False)
    assert row.sentence == (
        "3 NG in a row: 0.0099 false stops expected per 10,000 good parts; on the last 1000 parts: 10 stops"
    )
    assert place.sentence == "3 NG at one place in 20: on the last 1000 parts: 0 calls"
    assert row.replayed.per_10_000(row.replayed.stops) == 100
    assert math.isnan(replay([], []).per_10_000(()))


def test_previewing_100_000_parts_is_fast():
    import time

    parts = sequence("o" * 19 + "n") * 5000
    start = time.process_time()
    found = preview([InWindow(k=5, n=50)], parts, 0.01)[0]
    assert found.replayed.parts == 100_000
    assert time.process_time() - start < 1
