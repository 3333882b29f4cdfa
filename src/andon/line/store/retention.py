"""Retention: images are deleted by age, then by total size; rows stay much longer. Each run is one row of the audit.

Kept in any case: images of the newest `keep_ng` parts that did not pass, of open alarms and of reviewed
parts, and the newest row. Files go
before their rows say so: after a crash a row may say `stored` for a file that is gone, and the next run puts that right.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Delete, Select, Update, delete, func, select, update

from andon.line.clock import DAY, HOUR
from andon.line.settings import RetentionSettings
from andon.line.store.audit import Entry
from andon.line.store.boxes import Box
from andon.line.store.images import IMAGES, MAPS, THUMBNAILS, delete_files, hour_name, hourly_folders
from andon.line.store.records import ImageState
from andon.line.store.schema import NOT_OK, alarm, audit, inspection, review_item
from andon.line.store.store import Store
from andon.line.verdicts import Verdict

LOG = logging.getLogger(__name__)

PAGE = 2000
"""Rows looked at in one query."""
BATCH = 100
"""Images deleted before the run pauses."""
SHARE = 0.05
"""Largest share of the time in which the disk is used."""
SECONDS = 30.0
"""Time limit of one query of a run."""


SUSPENDED, RELEASED = "retention suspended", "retention released"
"""Actions in the audit."""


@dataclass(slots=True)
class RetentionRun:
    """What one run deleted."""

    images: int = 0
    bytes: int = 0
    rows: int = 0
    failed: int = 0
    """Images that could not be deleted; their rows stay as they are, and the next run tries them again."""
    problem: str = ""
    """Why, for the last of them."""
    complete: bool = True
    """False where the run was stopped."""


@dataclass(frozen=True, slots=True)
class _Kept:
    row: int
    station: int
    verdict: Verdict
    t_done: int
    image_key: str
    map_key: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class _Protected:
    """Parts whose images stay whatever their age."""

    rows: frozenset[int]
    spans: dict[int, list[tuple[int, int]]]
    """First and last id of what open alarms are about, by station: as wide as numbers are apart, so never spelt out."""

    def __contains__(self, kept: _Kept) -> bool:
        return kept.row in self.rows or any(
            first <= kept.row <= last for first, last in self.spans.get(kept.station, ())
        )


def run(
    store: Store,
    rule: RetentionSettings,
    stop: threading.Event,
    *,
    share: float = SHARE,
    now: int | None = None,
) -> RetentionRun:
    """Delete what the rule no longer keeps, using the disk for at most `share` of the time. Ends early when `stop` is set.

    `now`: from which ages count, by default the time of the clock.
    """
    done, now = RetentionRun(), store.clock() if now is None else now
    protected = store.ask(lambda connection: _protected(connection, store.box, rule.keep_ng), seconds=SECONDS)
    for batch in _batches(_aged(store, rule, now, protected)):
        _delete(store, batch, done, stop, share)
    for batch in _batches(_surplus(store, rule, protected)):
        _delete(store, batch, done, stop, share)
    if not stop.is_set():
        done.rows = _delete_rows(store, now - round(rule.row_days * DAY), stop)
        _remove_empty_folders(store, now)
    done.complete = not stop.is_set()
    store.audit(
        Entry("system", "retention", new=asdict(done), reason=f"settings {rule.model_dump_json()}")
    ).result()
    return done


def newest(store: Store) -> int | None:
    """When the newest part of the line was judged; None where there is none."""
    query = select(inspection.c.t_done).where(*store.box.own(inspection)).order_by(inspection.c.id.desc())
    return store.ask(lambda c: c.execute(query.limit(1)).scalar(), seconds=SECONDS)


def suspended(store: Store, line: str) -> str:
    """Why retention of a line (`object` in the audit) was suspended last; empty where a person has released it."""
    last = (
        select(audit.c.action, audit.c.reason)
        .where(audit.c.action.in_([SUSPENDED, RELEASED]), audit.c.object == line)
        .order_by(audit.c.seq.desc())
        .limit(1)
    )
    found = store.ask(lambda c: c.execute(last).one_or_none(), seconds=SECONDS)
    return found.reason if found is not None and found.action == SUSPENDED else ""


def _aged(store: Store, rule: RetentionSettings, now: int, protected: _Protected) -> Iterator[_Kept]:
    limits = {
        verdict: now - round(min(days, rule.row_days) * DAY)
        for verdict in Verdict
        for days in [rule.ok_days if verdict.passes else rule.bad_days]
    }
    oldest_rows = now - round(rule.row_days * DAY)
    for kept in _stored(store):
        if kept.t_done < limits[kept.verdict] and (kept not in protected or kept.t_done < oldest_rows):
            yield kept


def _surplus(store: Store, rule: RetentionSettings, protected: _Protected) -> Iterator[_Kept]:
    """Oldest images until the rest is within `image_gb`: first of parts that passed, then of the others."""
    if not rule.image_gb:
        return
    size = select(func.sum(inspection.c.image_bytes)).where(
        inspection.c.image_state == ImageState.STORED.value, *store.box.own(inspection)
    )
    surplus = store.ask(lambda c: c.execute(size).scalar() or 0, seconds=SECONDS) - rule.image_gb * 1e9
    for passed in (True, False):
        for kept in _stored(store):
            if surplus <= 0:
                return
            if kept.verdict.passes == passed and kept not in protected:
                surplus -= kept.bytes
                yield kept


def _stored(store: Store) -> Iterator[_Kept]:
    """Rows with an image on the disk, by id; read page by page, so that no query takes long."""
    last = -1
    while True:
        query = (
            select(
                inspection.c.id,
                inspection.c.station_id,
                inspection.c.verdict,
                inspection.c.t_done,
                inspection.c.image_key,
                inspection.c.map_key,
                inspection.c.image_bytes,
            )
            .where(
                inspection.c.id > last,
                inspection.c.image_state == ImageState.STORED.value,
                *store.box.own(inspection),
            )
            .order_by(inspection.c.id)
            .limit(PAGE)
        )
        rows = _all(store, query)
        if not rows:
            return
        for row, station, verdict, t_done, image_key, map_key, size in rows:
            yield _Kept(row, station, Verdict(verdict), t_done, image_key, map_key, size or 0)
        last = rows[-1].id


def _protected(connection: Connection, box: Box, keep_ng: int) -> _Protected:
    newest = (
        select(inspection.c.id)
        .where(NOT_OK, *box.own(inspection))
        .order_by(inspection.c.id.desc())
        .limit(keep_ng)
    )
    kept = set(connection.execute(newest).scalars())
    kept |= {
        *connection.execute(
            select(review_item.c.id).where(review_item.c.opinion.is_not(None), *box.own(review_item))
        ).scalars()
    }
    open_alarms = select(alarm.c.station_id, alarm.c.inspection_from, alarm.c.inspection_to).where(
        alarm.c.resolved.is_(None), alarm.c.inspection_from.is_not(None), *box.own(alarm)
    )
    spans: dict[int, list[tuple[int, int]]] = {}
    for station, first, last in connection.execute(open_alarms):
        spans.setdefault(station, []).append((first, last or first))
    return _Protected(frozenset(kept), spans)


def _batches(kept: Iterator[_Kept]) -> Iterator[list[_Kept]]:
    batch: list[_Kept] = []
    for each in kept:
        batch.append(each)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _delete(
    store: Store, batch: Sequence[_Kept], done: RetentionRun, stop: threading.Event, share: float
) -> None:
    if stop.is_set():
        return
    begin = time.monotonic()
    rows: list[int] = []
    for kept in batch:
        try:
            done.bytes += delete_files(store.folder, kept.image_key, kept.map_key)
        except (OSError, ValueError) as error:  # a name with NUL is a ValueError
            done.failed += 1
            done.problem = f"{kept.image_key}: {getattr(error, 'strerror', None) or error}"
            if done.failed == 1:
                LOG.error("an image cannot be deleted: %s", done.problem)
        else:
            rows.append(kept.row)
    done.images += len(rows)
    gone = {"image_state": ImageState.DELETED.value, "image_key": None, "map_key": None, "image_bytes": None}
    _execute(store, update(inspection).where(inspection.c.id.in_(rows)).values(**gone))
    _execute(store, delete(review_item).where(review_item.c.id.in_(rows), review_item.c.review_id.is_(None)))
    stop.wait((time.monotonic() - begin) * (1 / share - 1))


def _delete_rows(store: Store, before: int, stop: threading.Event) -> int:
    """Delete rows done before a time, oldest first, until a page has none; never the newest row, from which ids go on, and none
    whose image is there."""
    total, own = 0, store.box.own(inspection)
    newest = store.ask(
        lambda c: c.execute(select(func.max(inspection.c.id)).where(*own)).scalar(), seconds=SECONDS
    )
    while not stop.is_set():
        oldest = select(inspection.c.id, inspection.c.t_done).where(
            inspection.c.image_state != ImageState.STORED.value, *own
        )
        rows = _all(store, oldest.order_by(inspection.c.id).limit(BATCH))
        old = [row for row, t_done in rows if t_done < before and row != newest]
        if not old:
            break
        _execute(store, delete(review_item).where(review_item.c.id.in_(old)))
        _execute(store, delete(inspection).where(inspection.c.id.in_(old)))
        total += len(old)
    return total


def _all(store: Store, query: Select[Any]) -> Sequence[Any]:
    return store.ask(lambda connection: connection.execute(query).all(), seconds=SECONDS)


def _execute(store: Store, statement: Update | Delete) -> None:
    store.write(lambda connection: connection.execute(statement)).result()


def _remove_empty_folders(store: Store, now: int) -> None:
    """Remove empty hourly folders, those of this hour and the one before excepted, into which images may be written."""
    used = {hour_name(now), hour_name(now - HOUR)}
    for kind in (IMAGES, MAPS, THUMBNAILS):
        with contextlib.suppress(OSError):  # of a folder that cannot be read
            for folder in hourly_folders(store.folder / kind):
                if folder.relative_to(store.folder / kind).as_posix() not in used:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
