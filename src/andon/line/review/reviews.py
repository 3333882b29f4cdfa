"""The queue of parts that people judge, and their opinions: rows are added, the last of each person counts.

    reviews = Reviews(store, {"press": ReviewSettings()})
    item, = reviews.take("Ada", n=1)
    reviews.judge(item.inspection.id, Answer("Ada", Opinion.BAD, "crack"), based_on=item.version)

An opinion never changes the verdict of the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from andon.core.errors import UsageError
from andon.line.clock import SECOND
from andon.line.review import figures
from andon.line.review.sample import wants_second
from andon.line.review.settings import RESERVED, ReviewSettings
from andon.line.store import Connection, Inspection, Store, queries, rows
from andon.line.store import reviews as stored
from andon.line.store.audit import Entry, append
from andon.line.verdicts import Opinion

LEASE = 60 * SECOND
"""For how long a part that was handed out is handed to nobody else, microseconds."""
FIGURES_SECONDS = 20.0
"""Time limit of the questions behind the figures."""
MOST_WAITING = 10_000
"""Waiting parts are counted up to this number."""


class OutOfDate(UsageError):  # noqa: N818 (names what happened)
    """An answer to something that has changed meanwhile."""


class Held(UsageError):  # noqa: N818
    """Another person is looking at the part, or an opinion is not the caller's."""


class Answer(NamedTuple):
    """What a person says."""

    who: str
    opinion: Opinion
    defect_type: str | None = None
    reason: str = ""


class Item(NamedTuple):
    """A part that was handed out."""

    inspection: Inspection
    version: int
    """Id of its last row of reviews; 0 where there is none."""
    second: bool
    """Another person judged it before."""


@dataclass(frozen=True, slots=True)
class Review:
    """One stored row. Times are microseconds UTC."""

    id: int
    inspection_id: int
    at: int
    who: str
    opinion: int
    """1 for the first person, 2 for the second, ..."""
    verdict: Opinion
    defect_type: str | None
    reason: str
    blind: bool
    """The person had not seen verdict, score and heat map on the page of reviews."""
    prev_id: int | None
    """Row of the same opinion that this one takes the place of."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What follows from reviews."""

    escapes: figures.Escapes
    strata: tuple[figures.Stratum, ...]
    overrides: figures.Overrides
    confusions: tuple[figures.Confusion, ...]
    kappa: figures.Kappa


class Reviews:
    """Queue and opinions of all stations. Any thread may call; nothing that judges parts waits for it."""

    def __init__(self, store: Store, settings: Mapping[str, ReviewSettings]) -> None:
        self._store, self.settings = store, settings

    def take(
        self, who: str, *, n: int = 1, stations: Collection[str] = (), skip: Sequence[int] = ()
    ) -> list[Item]:
        """Hand out at most `n` parts, the oldest first, of `stations` or of all; nobody else gets them for 60 seconds.

        Parts that the person holds come first, for another 60 seconds; those in `skip` are let go.
        """
        chosen = [name for name in self.settings if not stations or name in stations]

        def write(connection: Connection) -> list[Item]:
            now = self._store.clock()
            ids = stored.take(
                connection, who=who, stations=chosen, n=n, skip=skip, now=now, until=now + LEASE
            )
            return [item for id in ids if (item := _item(connection, id)) is not None]

        return self._store.write(write).result()

    def waiting(self, who: str, stations: Collection[str] = ()) -> int:
        """Parts that the person could judge, counted up to 10,000."""
        chosen = [name for name in self.settings if not stations or name in stations]
        return self._store.ask(
            lambda connection: stored.waiting(connection, who=who, stations=chosen, most=MOST_WAITING)
        )

    def history(self, inspection: int) -> list[Review]:
        """All rows of a part, newest first."""
        return self._store.ask(lambda connection: _history(connection, inspection))

    def judge(self, row: Inspection, answer: Answer, *, based_on: int) -> Review:
        """Store an opinion, committed with its row in the audit.

        `based_on`: id of the last row of reviews that the person saw, 0 for none. Raises `OutOfDate` where there is another
        one, `Held` while another person holds the part, `UsageError` for a type of defect that the station does not have.
        """
        settings = self.settings.get(row.station, ReviewSettings())
        _check(answer, settings)

        def write(connection: Connection) -> Review:
            now, before = self._store.clock(), _history(connection, row.id)
            item = _state(connection, row)
            _check_version(before, based_on)
            held = item["lease_until"] is not None and item["lease_until"] > now
            if held and item["lease_who"] != answer.who:
                raise Held(f"{item['lease_who']} is looking at part {row.id}: take another one")
            from_queue = item["why"] is not None and item["lease_who"] == answer.who
            mine = next((each for each in before if each.who == answer.who), None)
            numbers = {each.opinion for each in before}
            review = _add(
                connection,
                Review(
                    id=0,
                    inspection_id=row.id,
                    at=now,
                    who=answer.who,
                    opinion=mine.opinion if mine else max(numbers, default=0) + 1,
                    verdict=answer.opinion,
                    defect_type=answer.defect_type,
                    reason=answer.reason,
                    blind=settings.blind and from_queue,
                    prev_id=None if mine is None else mine.id,
                ),
            )
            second = from_queue and wants_second(settings.seed, row.id, settings.second_opinion)
            wanted = 2 if second else item["wanted"]
            self._settle(connection, row, [review, *before], wanted=wanted, lease_who=None, lease_until=None)
            return review

        return self._store.write(write).result()

    def undo(self, row: Inspection, who: str, *, based_on: int) -> Review:
        """Withdraw the last opinion on a part by a new row, and hand the part to the same person again.

        Raises `OutOfDate` as `judge`, `Held` where the last opinion is of another person, or withdrawn.
        """

        def write(connection: Connection) -> Review:
            now, before = self._store.clock(), _history(connection, row.id)
            _check_version(before, based_on)
            last = before[0] if before else None
            if last is None or last.who != who or last.verdict is Opinion.WITHDRAWN:
                raise Held(f"the last opinion on part {row.id} is not one of {who} that can be withdrawn")
            review = _add(
                connection,
                Review(0, row.id, now, who, last.opinion, Opinion.WITHDRAWN, None, "", last.blind, last.id),
            )
            wanted = _state(connection, row)["wanted"]
            self._settle(
                connection, row, [review, *before], wanted=wanted, lease_who=who, lease_until=now + LEASE
            )
            return review

        return self._store.write(write).result()

    def figures(self, *, station: str | None = None, since: int | None = None) -> Figures:
        """Figures of one station or of all, of the parts judged since a time."""
        among = stored.Among(station, since)
        return self._store.ask(lambda connection: read_figures(connection, among), seconds=FIGURES_SECONDS)

    def _settle(
        self, connection: Connection, row: Inspection, history: Sequence[Review], **lease: Any
    ) -> None:
        """Write what counts now, and the audit."""
        valid = standing(history)
        counts = max(valid, key=lambda review: review.id, default=None)
        first = min(valid, key=lambda review: review.opinion, default=None)
        rows.change(
            connection,
            "review_item",
            row.id,
            given=len(valid),
            first_who=None if first is None else first.who,
            review_id=history[0].id,
            opinion=None if counts is None else counts.verdict.value,
            defect_type=None if counts is None else counts.defect_type,
            who=None if counts is None else counts.who,
            overridden=int(counts is not None and figures.is_override(row.verdict, counts.verdict)),
            **lease,
        )
        new = history[0]
        said = {"opinion": new.verdict.name, "defect_type": new.defect_type, "machine": row.verdict.name}
        before = next((each for each in history[1:] if each.opinion == new.opinion), None)
        old = None if before is None else {"opinion": before.verdict.name, "defect_type": before.defect_type}
        entry = Entry(new.who, "review", f"inspection {row.id}", old=old, new=said, reason=new.reason)
        append(connection, entry, new.at)


def _check(answer: Answer, settings: ReviewSettings) -> None:
    if answer.defect_type is None:
        return
    if answer.opinion is not Opinion.BAD:
        raise UsageError("a part that is not bad has no type of defect: leave it out")
    if answer.defect_type.lower() in RESERVED:
        raise UsageError(
            f"{answer.defect_type!r} is the name of a folder with another meaning: choose another"
        )
    if settings.defect_types and answer.defect_type not in settings.defect_types:
        known = ", ".join(settings.defect_types)
        raise UsageError(f"there is no type of defect {answer.defect_type!r} here: give one of {known}")


def _check_version(history: Sequence[Review], based_on: int) -> None:
    version = history[0].id if history else 0
    if version != based_on:
        by = history[0].who if history else "nobody"
        raise OutOfDate(f"the part has the version {version} of its review, by {by}: look at it first")


def _item(connection: Connection, id: int) -> Item | None:
    row = queries.one(connection, id)
    if row is None:
        return None
    history = _history(connection, id)
    return Item(row, history[0].id if history else 0, bool(standing(history)))


def _state(connection: Connection, row: Inspection) -> dict[str, Any]:
    """The item of a part; made where it was not in the queue."""
    if not rows.find(connection, "review_item", id=row.id, limit=1):
        station = rows.find(connection, "station", name=row.station, limit=1)[0]["id"]
        rows.add(connection, "review_item", id=row.id, station_id=station, wanted=1, given=0, overridden=0)
    return rows.find(connection, "review_item", id=row.id, limit=1)[0]


def _history(connection: Connection, inspection: int) -> list[Review]:
    found = rows.find(connection, "review", inspection_id=inspection)
    return [
        Review(**{**row, "verdict": Opinion(row["verdict"]), "blind": bool(row["blind"])}) for row in found
    ]


def _add(connection: Connection, review: Review) -> Review:
    values = {name: getattr(review, name) for name in Review.__dataclass_fields__ if name != "id"}
    values |= {"verdict": review.verdict.value, "blind": int(review.blind)}
    id = rows.add(connection, "review", **values)
    return Review(
        **{name: getattr(review, name) for name in Review.__dataclass_fields__ if name != "id"}, id=id
    )


def standing(history: Sequence[Review]) -> list[Review]:
    """Opinions that stand: the last row of each opinion unless it is withdrawn; `history` is newest first."""
    last: dict[int, Review] = {}
    for review in history:
        last.setdefault(review.opinion, review)
    return [review for review in last.values() if review.verdict is not Opinion.WITHDRAWN]


def read_figures(connection: Connection, among: stored.Among) -> Figures:
    """Figures of the reviewed parts among some."""
    strata = _strata(stored.drawn(connection, among))
    said = stored.said(connection, among)
    by_part: dict[int, list[stored.Said]] = {}
    for each in said:
        by_part.setdefault(each.inspection_id, []).append(each)
    twice = [(each[0].said, each[1].said) for each in by_part.values() if len(each) > 1]
    return Figures(
        figures.escapes(strata),
        tuple(strata),
        figures.overrides([(each.machine, each.said) for each in said]),
        tuple(figures.confusions([(each.who, each.machine, each.said) for each in said])),
        figures.kappa(twice),
    )


def _strata(drawn: Sequence[stored.Drawn]) -> list[figures.Stratum]:
    counts: dict[tuple[str, float], dict[Opinion | None, int]] = {}
    for each in drawn:
        counts.setdefault((each.station, each.rate), {})[each.opinion] = each.n
    return [
        figures.Stratum(
            station,
            rate,
            sum(found.values()),
            *(found.get(opinion, 0) for opinion in (Opinion.GOOD, Opinion.BAD, Opinion.UNSURE)),
        )
        for (station, rate), found in counts.items()
    ]
