"""Gauge studies: figures against independent computations, parts of the history, signing, what was changed later."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from andon.line.reports import study
from andon.line.reports.agreement import Agreement, Shown, agreement, assess, with_reference, within
from andon.line.store import rows, studies
from andon.line.store.reports import Period
from andon.line.verdicts import Opinion, Queued, Verdict
from line.asking import Client
from line.running import answer, running
from line.storing import NOON, part

SHOWN = st.integers(2, 5).flatmap(
    lambda m: st.lists(
        st.builds(Shown, st.booleans(), st.tuples(*[st.booleans()] * m)), min_size=1, max_size=12
    )
)


def drawn(parts: int, repeats: int, wrong: float, seed: int) -> list[Shown]:
    """Parts of which each answer is wrong with a probability."""
    draw = random.Random(seed)
    return [
        Shown(i % 2 == 0, tuple((draw.random() < wrong) != (i % 2 == 0) for _ in range(repeats)))
        for i in range(parts)
    ]


def fleiss(answers: np.ndarray) -> float:
    """Fleiss (1971), with counts of each category, in plain loops over pairs of raters."""
    m = answers.shape[1]
    agreeing = [np.mean([row[i] == row[j] for i in range(m) for j in range(m) if i != j]) for row in answers]
    chance = sum(np.mean(answers == category) ** 2 for category in (0, 1))
    return float((np.mean(agreeing) - chance) / (1 - chance))


@pytest.mark.parametrize(("parts", "repeats", "wrong"), [(20, 2, 0.3), (50, 3, 0.1), (30, 5, 0.5)])
def test_figures_equal_independent_computations(parts, repeats, wrong):
    shown = drawn(parts, repeats, wrong, seed=parts)
    found = agreement(shown)
    answers = np.array([part.accepted for part in shown], dtype=int)
    truth = np.array([part.is_good for part in shown], dtype=int)

    def cohen(keep: np.ndarray) -> float:
        return float(cohen_kappa_score(np.repeat(truth[keep], repeats), answers[keep].ravel()))

    everything = np.arange(parts)
    for kappa, compute in (
        (found.kappa, cohen),
        (found.kappa_within, lambda keep: fleiss(answers[keep])),
    ):
        left_out = np.array([compute(np.delete(everything, i)) for i in everything])
        error = np.sqrt((parts - 1) ** 2 / parts * np.var(left_out, ddof=1))
        half = stats.t.ppf(0.975, parts - 1) * error
        assert kappa.value == pytest.approx(compute(everything), abs=1e-12)
        assert kappa.low == pytest.approx(max(-1, kappa.value - half), abs=1e-9)
        assert kappa.high == pytest.approx(min(1, kappa.value + half), abs=1e-9)
    right = (answers == truth[:, None]).all(axis=1)
    bad, good = answers[truth == 0], 1 - answers[truth == 1]
    same = answers.min(axis=1) == answers.max(axis=1)
    for share, hits in (
        (found.effectiveness, right),
        (found.consistent, same),
        (found.misses, bad.ravel()),
        (found.false_alarms, good.ravel()),
        (found.missed_parts, bad.any(axis=1)),
        (found.rejected_parts, good.any(axis=1)),
    ):
        interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "exact")
        assert (share.n, share.of) == (hits.sum(), len(hits))
        assert (share.low, share.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert Agreement.from_json(found.to_json()) == found


def test_full_agreement_and_none():
    perfect = agreement(drawn(20, 3, 0.0, 1))
    assert (perfect.kappa.value, perfect.kappa.high, perfect.kappa_within.value) == (1.0, 1.0, 1.0)
    lowest = 0.025 ** (1 / 20)  # exact interval of 20 of 20
    assert perfect.kappa.low == pytest.approx((lowest - 0.5) / 0.5)
    assert set(perfect.assessment.values()) == {"acceptable", "good"}
    opposite = agreement(drawn(20, 3, 1.0, 1))
    assert (opposite.effectiveness.n, opposite.kappa_within.value) == (0, 1.0)
    assert opposite.kappa.value == pytest.approx(-1.0)
    assert agreement([Shown(True, (True, True))] * 3).kappa.value is None
    assert agreement([]).assessment == dict.fromkeys(perfect.assessment, "unknown")


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((0.90, 0.02, 0.05, 0.76), ("acceptable", "acceptable", "acceptable", "good")),
        ((0.80, 0.05, 0.10, 0.40), ("marginal", "marginal", "marginal", "moderate")),
        ((0.79, 0.051, 0.101, 0.39), ("unacceptable", "unacceptable", "unacceptable", "poor")),
    ],
)
def test_limits_of_the_manual(rates, words):
    assert tuple(assess(*rates).values()) == words


@given(SHOWN)
def test_figures_stay_in_their_ranges(shown):
    found = agreement(shown)
    for share in (found.effectiveness, found.misses, found.false_alarms, found.consistent):
        assert 0 <= share.low <= share.high <= 1
        assert share.rate is None or share.low <= share.rate <= share.high
    for kappa in (found.kappa, found.kappa_within):
        assert kappa.value is None or -1 <= kappa.low <= kappa.value <= kappa.high <= 1
    swapped = [Shown(not p.is_good, tuple(not a for a in p.accepted)) for p in shown]
    assert with_reference(swapped) == pytest.approx(with_reference(shown))
    assert within(swapped) == pytest.approx(within(shown))


def test_history_gives_the_newest_shots_of_one_model(store):
    number = 0

    def shoot(part_id: str | None, verdict: Verdict = Verdict.OK, **changes: object) -> None:
        nonlocal number
        number += 1
        values = {"part_id": part_id, "verdict": verdict, "review_why": Queued.SAMPLE, **changes}
        store.record(part(number, **values))

    for repeat in range(3):
        shoot("A", Verdict.NG if repeat == 0 else Verdict.OK)
        shoot("B", Verdict.REVIEW)
        shoot("C" if repeat < 2 else None)
        shoot("D", model_sha256="b" * 64)
    shoot("A", Verdict.NG)
    store.record(part(99, part_id="B", t_done=NOON - 1)).result()
    drawn = {"first_who": "Eva", "overridden": 0, "wanted": 1, "given": 1, "why": 1}

    def review(connection):
        station = rows.find(connection, "station", name="press")[0]["id"]
        for nth, opinion, who in (
            (1, Opinion.GOOD, "Eva"),
            (2, Opinion.BAD, "Eva"),
            (6, Opinion.GOOD, "Bob"),
        ):
            values = {"opinion": opinion.value, "who": who, "station_id": station}
            rows.add(connection, "review_item", id=ids[nth - 1], **values, **drawn)

    ids = sorted(row["id"] for row in store.ask(lambda c: rows.find(c, "inspection")))
    store.write(review).result()
    of = Period("press", NOON, NOON + 10**9)
    shots, found = store.ask(lambda c: study.read(c, of, 3))
    assert shots.model == "a" * 64
    assert [(each.part_id, [v.name for v in each.verdicts], each.inspections) for each in found] == [
        ("A", ["OK", "OK", "NG"], (ids[4], ids[8], ids[12])),
        ("B", ["REVIEW", "REVIEW", "REVIEW"], (ids[1], ids[5], ids[9])),
    ]
    assert [(each.reference, each.by) for each in found] == [(Opinion.GOOD, "Eva"), (None, "")]
    chosen = study.with_references(found, {"B": Opinion.BAD}, "Ida")
    assert [(each.reference, each.by) for each in chosen] == [(Opinion.GOOD, "Eva"), (Opinion.BAD, "Ida")]
    assert [each.part_id for each in study.with_references(found, {"A": None}, "Ida")] == []


def test_a_study_is_signed_on_its_page_and_by_request(folder, client_of: Callable[..., Client]):
    with running(folder, rules=(), queue=80) as line:
        client, station = client_of(line), line.stations["press"]
        for number in range(40):
            word = "NG" if number % 4 == 0 else "OK"
            answer(station, number, word, part_id=f"part <{number % 20}>", request_id=f"r-{number}")
        page = client.get("/studies?repeats=2")
        assert "20 parts, 0 with a reference" in page.text
        assert "part &lt;3&gt;" in page.text
        assert client.get("/studies/1").status_code == 404
        references = {f"part <{i}>": "BAD" if i % 4 == 0 else "GOOD" for i in range(20)}
        body = {"station": "press", "repeats": 2, "who": "Eva", "why": "release of the press"}
        for wrong in ({}, {"references": dict.fromkeys(references, "GOOD")}, {"references": {"x": "BAD"}}):
            assert client.post("/api/v1/studies", json={**body, **wrong}).status_code == 422
        made = client.post("/api/v1/studies", json={**body, "references": references})
        assert made.status_code == 201
        found = made.json()
        assert found["content"]["figures"]["effectiveness"]["rate"] == 1.0
        assert (found["who"], found["is_sound"]) == ("Eva", True)
        newest = line.store.ask(lambda c: rows.find(c, "audit", limit=1))[0]
        assert (newest["action"], newest["seq"]) == ("gauge study", found["audit_seq"])
        assert found["sha256"] in newest["new_json"]
        form = {"station": "press", "repeats": 2, "who": "Eva", "why": "short"}
        form |= dict(re.findall(r'name="(since|until)" value="(\d+)"', page.text))
        form |= {"part": list(references), "reference": [*list(references.values())[:19], ""]}
        refused = client.post("/studies", data=form)
        assert (refused.status_code, "at least 10 characters" in refused.text) == (422, True)
        form["why"] = "release of the press, again"
        assert "19 parts have a reference" in client.post("/studies", data=form).text
        form["reference"] = ["GOOD", *list(references.values())[1:]]
        signed = client.post("/studies", data=form, follow_redirects=False)
        assert (signed.status_code, signed.headers["location"]) == (303, "/studies/2")
        page = client.get("/studies/2").text
        for text in ("19 of 20 parts", "95 %", "marginal", "part &lt;7&gt;", "has this hash"):
            assert text in page, text
        assert [each["id"] for each in client.get("/api/v1/studies").json()] == [2, 1]
        changed = line.store.ask(lambda c: rows.find(c, "study", id=1))[0]
        changed["content_json"] = changed["content_json"].replace("Eva", "Bob")
        assert not line.store.ask(lambda c: studies._study(c, changed)).is_sound
