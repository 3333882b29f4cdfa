"""Reviews: who is asked, leases, opinions as rows, and figures against independent computations."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from andon.core.errors import UsageError
from andon.line.part_rows import held_row
from andon.line.review import figures
from andon.line.review.figures import Stratum
from andon.line.review.reviews import LEASE, Answer, Held, OutOfDate, Reviews
from andon.line.review.sample import Sampler, wants_second
from andon.line.review.settings import ReviewSettings
from andon.line.store import Inspection, Store, audit, rows
from andon.line.verdicts import Cause, Opinion, Queued, Verdict
from line.storing import NOON, part

GOOD, BAD, UNSURE = Opinion.GOOD, Opinion.BAD, Opinion.UNSURE
IMAGE = b"\x89PNG"


class Desk:
    """A store with parts in the queue, reviews on it, and a clock that a test moves."""

    def __init__(self, store: Store, **settings: object) -> None:
        self.now, self.store = NOON, store
        self.ids: dict[int, int] = {}
        """Of stored parts, by their number: on PostgreSQL ids are not 1, 2, 3."""
        store.clock = lambda: self.now
        self.reviews = Reviews(store, {"press": ReviewSettings(second_opinion=0.0, **settings)})

    def add(self, number: int, verdict: Verdict = Verdict.REVIEW, **changes: object) -> Inspection:
        """A part that waits for review."""
        score = None if verdict is Verdict.ERROR else 1.0
        values = {"review_why": Queued.BAND, "image": IMAGE + bytes([number]), "score": score, **changes}
        row = self.store.record(part(number, verdict=verdict, **values)).result().row
        self.ids[number] = row.id
        return row

    def taken(self, who: str, **options: object) -> list[int]:
        """Numbers of the parts that somebody gets."""
        numbers = {id: number for number, id in self.ids.items()}
        return [numbers[item.inspection.id] for item in self.reviews.take(who, **options)]

    def row(self, number: int) -> Inspection:
        found = self.store.inspection(self.ids[number])
        assert found is not None
        return found


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    return Desk(store)


# Who is asked --------------------------------------------------------------------------------------------------------


def test_sample_is_drawn_at_the_rate_and_again_by_the_same_seed():
    settings = ReviewSettings(sample=0.02, seed=3)
    sampler, again = (Sampler(settings, "press", 7) for _ in range(2))
    found = [sampler.draw(Verdict.OK) for _ in range(20_000)]
    assert found == [again.draw(Verdict.OK) for _ in range(20_000)]
    assert set(found) == {(None, None), (Queued.SAMPLE, 0.02)}
    drawn = sum(why is not None for why, _ in found)
    assert stats.binomtest(drawn, 20_000, 0.02).pvalue > 1e-6
    other = Sampler(settings, "press", 8)
    assert found != [other.draw(Verdict.OK) for _ in range(20_000)]


def test_band_and_errors_are_reviewed_ng_where_wanted():
    for ng in (False, True):
        sampler = Sampler(ReviewSettings(sample=0.0, ng=ng), "press", 1)
        assert [sampler.draw(verdict)[0] for verdict in Verdict] == [
            None,
            None,
            Queued.NG if ng else None,
            Queued.BAND,
            Queued.ERROR,
        ]


def test_second_opinions_are_a_share_that_no_answer_changes():
    chosen = [wants_second(1, id, 0.05) for id in range(20_000)]
    assert stats.binomtest(sum(chosen), 20_000, 0.05).pvalue > 1e-6
    assert not any(wants_second(1, id, 0.0) for id in range(100))
    assert chosen != [wants_second(2, id, 0.05) for id in range(20_000)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"defect_types": tuple("abcdefghij")}, "nine keys"),
        ({"defect_types": ("crack", "Crack")}, "twice"),
        ({"defect_types": ("good",)}, "another meaning"),
        ({"defect_types": ("../up",)}, "defect_types"),
        ({"sample": 1.0}, "sample"),
    ],
)
def test_settings_that_cannot_work(values, said):
    with pytest.raises(UsageError, match=said):
        ReviewSettings.parse(values)


# The queue -----------------------------------------------------------------------------------------------------------


def test_queue_has_parts_with_images_that_somebody_has_to_see(desk):
    desk.add(1)
    desk.add(2, image=None)
    desk.add(3, review_why=None)
    desk.add(4, Verdict.ERROR, cause="not_finite")
    assert desk.reviews.waiting("Ada") == 2
    assert desk.taken("Ada", n=9) == [1, 4]
    assert desk.taken("Ada", n=9, stations=["oven"]) == []


def test_a_part_that_golden_parts_hold_back_is_no_sample_of_what_passed():
    drawn = part(1, review_why=Queued.SAMPLE, sample_rate=0.01)
    held = held_row(drawn, Cause.GOLDEN_FAILED)
    assert (held.verdict, held.review_why, held.sample_rate) == (Verdict.ERROR, Queued.ERROR, None)
    bad = part(2, verdict=Verdict.NG, review_why=Queued.NG)
    assert held_row(bad, Cause.GOLDEN_FAILED) is bad


def test_two_reviewers_never_get_the_same_part_before_the_lease_expires(desk):
    for number in range(1, 5):
        desk.add(number)
    assert desk.taken("Ada", n=2) == [1, 2]
    assert desk.taken("Bob", n=9) == [3, 4]
    desk.now += LEASE - 1
    assert desk.taken("Cleo") == []
    assert desk.taken("Ada", n=1) == [1]  # renewed
    desk.now += 1
    assert desk.taken("Cleo", n=9) == [2, 3, 4]
    with pytest.raises(Held, match=f"Cleo is looking at part {desk.ids[2]}"):
        desk.reviews.judge(desk.row(2), Answer("Ada", GOOD), based_on=0)
    assert desk.taken("Ada", n=9, skip=[1]) == []
    assert desk.taken("Bob", n=9) == [1]  # Ada let it go


def test_second_opinion_goes_to_another_person(store):
    desk = Desk(store)
    desk.reviews.settings = {"press": ReviewSettings(second_opinion=0.999999)}
    row = desk.add(1)
    (item,) = desk.reviews.take("Ada")
    assert (item.version, item.second) == (0, False)
    first = desk.reviews.judge(row, Answer("Ada", BAD), based_on=0)
    assert (first.opinion, first.blind) == (1, True)
    assert desk.taken("Ada") == []
    (item,) = desk.reviews.take("Bob")
    assert (item.version, item.second) == (first.id, True)
    second = desk.reviews.judge(row, Answer("Bob", GOOD), based_on=first.id)
    assert (second.opinion, second.prev_id) == (2, None)
    assert desk.taken("Cleo") == []
    found = desk.reviews.figures().kappa
    assert (found.n, found.agree) == (1, 0)
    assert desk.row(1).reviewed.opinion is GOOD


# Opinions ------------------------------------------------------------------------------------------------------------


def test_rework_is_in_history_and_audit_and_the_verdict_stays(desk):
    row = desk.add(1, Verdict.NG, review_why=None)
    review = desk.reviews.judge(row, Answer("Ada", GOOD, reason="dust"), based_on=0)
    assert (review.opinion, review.blind) == (1, False)  # seen with its verdict, not from the queue
    found = desk.row(1)
    assert (found.verdict, found.reviewed.opinion, found.reviewed.overridden) == (Verdict.NG, GOOD, True)
    assert [each.id for each in desk.store.inspections(reviewed="overridden")] == [1]
    entry = desk.store.ask(lambda c: rows.find(c, "audit"))[0]
    assert (entry["who"], entry["action"], entry["object"], entry["reason"]) == (
        "Ada",
        "review",
        "inspection 1",
        "dust",
    )
    changed = desk.reviews.judge(row, Answer("Ada", BAD, "crack"), based_on=review.id)
    assert (changed.opinion, changed.prev_id) == (1, review.id)
    assert desk.store.inspections(reviewed="overridden") == []
    assert [each.id for each in desk.store.inspections(reviewed="reviewed")] == [1]
    desk.store.ask(audit.check)


def test_undo_is_a_row_and_gives_the_part_back(desk):
    row = desk.add(1)
    desk.taken("Ada")
    given = desk.reviews.judge(row, Answer("Ada", BAD), based_on=0)
    assert desk.taken("Ada") == []
    with pytest.raises(Held, match="not one of Bob"):
        desk.reviews.undo(row, "Bob", based_on=given.id)
    undone = desk.reviews.undo(row, "Ada", based_on=given.id)
    assert [each.verdict for each in desk.reviews.history(1)] == [Opinion.WITHDRAWN, BAD]
    assert desk.row(1).reviewed is None
    assert desk.taken("Bob") == []
    assert desk.taken("Ada") == [1]
    with pytest.raises(Held, match="can be withdrawn"):
        desk.reviews.undo(row, "Ada", based_on=undone.id)
    assert desk.reviews.judge(row, Answer("Ada", GOOD), based_on=undone.id).blind


def test_answers_that_are_refused(store):
    desk = Desk(store, defect_types=("crack",))
    row = desk.add(1)
    with pytest.raises(UsageError, match="give one of crack"):
        desk.reviews.judge(row, Answer("Ada", BAD, "dent"), based_on=0)
    with pytest.raises(UsageError, match="not bad"):
        desk.reviews.judge(row, Answer("Ada", GOOD, "crack"), based_on=0)
    desk.reviews.judge(row, Answer("Ada", BAD, "crack"), based_on=0)
    with pytest.raises(OutOfDate, match="by Ada"):
        desk.reviews.judge(row, Answer("Bob", GOOD), based_on=0)


def test_figures_of_stored_reviews(desk):
    for number in range(1, 9):
        desk.add(number, Verdict.OK, review_why=Queued.SAMPLE, sample_rate=0.01 if number < 7 else 0.5)
    desk.add(9, Verdict.NG, review_why=Queued.NG)
    said = {1: GOOD, 2: BAD, 3: UNSURE, 7: GOOD, 9: GOOD}
    for id, opinion in said.items():
        desk.reviews.judge(desk.row(id), Answer("Ada" if id < 7 else "Bob", opinion), based_on=0)
    found = desk.reviews.figures(station="press", since=0)
    assert found.strata == (Stratum("press", 0.01, 6, 1, 1, 1), Stratum("press", 0.5, 2, 1, 0, 0))
    assert (found.overrides.count, found.overrides.n) == (2, 4)
    assert [(each.who, each.n) for each in found.confusions] == [("Ada", 3), ("Bob", 2)]
    assert found.confusions[1].counts == {(Verdict.OK, GOOD): 1, (Verdict.NG, GOOD): 1}
    assert desk.reviews.figures(station="oven").strata == ()
    assert desk.reviews.figures(since=NOON * 2).overrides.n == 0


# Formulas ------------------------------------------------------------------------------------------------------------


def test_interval_of_one_stratum_is_the_exact_one():
    found = figures.escapes([Stratum("press", 0.005, 900, 790, 4, 6)])
    assert found.rate == pytest.approx(4 / 794)
    assert found.low == pytest.approx(stats.binomtest(4, 800).proportion_ci(method="exact").low)
    assert found.high == pytest.approx(stats.binomtest(10, 800).proportion_ci(method="exact").high)
    nothing = figures.escapes([])
    assert (nothing.rate, nothing.low, nothing.high) == (None, 0.0, 1.0)


def coverage(runs: int, seed: int) -> float:
    """Share of simulated lines whose truth lies in the interval: two stations, two rates, all drawn parts reviewed."""
    chance = np.random.default_rng(seed)
    parts, rates, truth = np.array([40_000, 120_000]), np.array([0.02, 0.005]), np.array([0.01, 0.002])
    held = 0
    for _ in range(runs):
        bad = chance.binomial(parts, truth)
        drawn_bad, drawn_good = chance.binomial(bad, rates), chance.binomial(parts - bad, rates)
        found = figures.escapes(
            [
                Stratum(name, rate, int(b + g), int(g), int(b), 0)
                for name, rate, b, g in zip("ab", rates, drawn_bad, drawn_good, strict=True)
            ]
        )
        held += found.low <= bad.sum() / parts.sum() <= found.high
    return held / runs


def test_the_interval_holds_the_truth_in_95_percent_of_lines():
    assert coverage(runs=200, seed=1) >= 0.95


def reference_kappa(pairs):
    """Cohen's kappa and its standard error by loops (Fleiss, Cohen and Everitt 1969, as statsmodels has it)."""
    names, n = sorted(set(sum(pairs, ()))), len(pairs)
    p = {(i, j): sum(pair == (i, j) for pair in pairs) / n for i in names for j in names}
    row = {i: sum(p[i, j] for j in names) for i in names}
    column = {j: sum(p[i, j] for i in names) for j in names}
    pe = sum(row[i] * column[i] for i in names)
    k = (sum(p[i, i] for i in names) - pe) / (1 - pe)
    a = sum(p[i, i] * (1 - (row[i] + column[i]) * (1 - k)) ** 2 for i in names)
    b = (1 - k) ** 2 * sum(p[i, j] * (column[i] + row[j]) ** 2 for i in names for j in names if i != j)
    return k, math.sqrt(max(0.0, a + b - (k - pe * (1 - k)) ** 2) / ((1 - pe) ** 2 * n))


@given(st.lists(st.tuples(*[st.sampled_from([GOOD, BAD, UNSURE])] * 2), max_size=60))
def test_kappa(pairs):
    found = figures.kappa(pairs)
    assert found.n == len(pairs)
    assert found.agree == sum(a == b for a, b in pairs)
    if len({each for pair in pairs for each in pair}) < 2:
        assert found.value is None
        return
    value, error = reference_kappa(pairs)
    assert found.value == pytest.approx(value, abs=1e-9)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0
    if found.agree < found.n:
        assert found.high == pytest.approx(min(1.0, value + stats.norm.ppf(0.975) * error), abs=1e-6)


def test_full_agreement_has_an_interval_with_a_width():
    found = figures.kappa([(GOOD, GOOD)] * 6 + [(BAD, BAD)] * 4)
    low = stats.binomtest(10, 10).proportion_ci(method="exact").low
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx((low - 0.52) / 0.48)


def test_overrides_count_clear_verdicts_and_answers_alone():
    pairs = [(machine, said) for machine in Verdict for said in Opinion]
    random.Random(1).shuffle(pairs)
    found = figures.overrides(pairs)
    assert (found.count, found.n) == (2, 4)
    assert (found.low, found.high) == pytest.approx(stats.binomtest(2, 4).proportion_ci(method="exact"))
    assert replace(figures.overrides([]), count=0).n == 0
