"""The inspection store: every verdict is a committed row before it leaves.

store = Store.open("data")
recorded = store.record(NewInspection(...)).result()     # committed
store.inspections(station="press", verdict=Verdict.NG)   # newest first
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Self, TypeVar

from sqlalchemy import Connection, Engine, func, select

from andon.core.errors import ConfigError
from andon.core.files import writing_errors
from andon.line.clock import DAY, SECOND, Clock, JumpWatch, now_us
from andon.line.store import queries, recovery
from andon.line.store.audit import Entry, Head, append, head
from andon.line.store.boxes import Box, PostgresLock, claim
from andon.line.store.connection import (
    FILE_NAME,
    QUERY_SECONDS,
    Durability,
    answers,
    check_local,
    lock_folder,
    migrate,
    postgres_engine,
    reading,
    sqlite_engine,
    sqlite_reader,
)
from andon.line.store.errors import QueryTimeout, StoreUnavailable
from andon.line.store.images import DiskLevel, DiskLimits, Images
from andon.line.store.inspections import Inserter
from andon.line.store.records import ImageState, Inspection, NewInspection, PastScore, PastVerdict, Recorded
from andon.line.store.requests import Request, first_answer
from andon.line.store.schema import inspection
from andon.line.store.spool import Spool
from andon.line.store.writer import Standby, Writer
from andon.line.verdicts import Verdict

T = TypeVar("T")
LOG = logging.getLogger(__name__)

REPLAY_SECONDS = 10.0
"""Time limit of `last_verdicts`, which may ask for very many."""


class Store:
    """All rows and images of one line. One process writes, one thread commits; any thread may ask.

    Queries raise `QueryTimeout` after a second and `StoreUnavailable` when the database is gone.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Engine,
        folder: Path,
        locks: Sequence[IO[str] | PostgresLock],
        box: Box,
        limits: DiskLimits,
        clock: Clock,
    ) -> None:
        self._engine, self._reader, self._locks = engine, reader, locks
        self.folder, self.clock, self.box = folder, clock, box
        self._images = Images(folder, self._settle, limits)
        with engine.begin() as connection:
            self.session = _next_session(connection, clock())
            self._last = connection.execute(select(func.max(inspection.c.id))).scalar() or 0
        self._inserter = Inserter(self.session, self._images, clock, box.id)
        self._spool = self._open_spool() if engine.dialect.name == "postgresql" else None
        with engine.begin() as connection:
            self.recovery = recovery.recover(connection, folder, box.own(inspection))
        self._writer = Writer(engine, self._forget, self._standby())
        self._jumps = JumpWatch(clock)
        self._head_day = 0
        self._closing = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        url_or_folder: str | Path,
        *,
        folder: Path | None = None,
        line: str = "line",
        stations: Sequence[str] = (),
        durability: Durability = "full",
        limits: DiskLimits | None = None,
        clock: Clock = now_us,
    ) -> Self:
        """Open a folder (SQLite), or a PostgreSQL URL with a `folder` for images; create or update the tables.

        `line` and `stations`: names that this process claims. Raises `DataError` for a network share, a folder, line or
        station in use, tables of a newer andon; `ConfigError` for
        a URL that cannot be used; `OutputError` where nothing can be written.
        """
        url = str(url_or_folder) if "://" in str(url_or_folder) else None
        if url is not None and folder is None:
            raise ConfigError("a database URL needs a folder for images as well: name one")
        place = Path(url_or_folder) if folder is None else folder
        with writing_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        check_local(place)
        with contextlib.ExitStack() as undo:
            locks: list[IO[str] | PostgresLock] = [undo.enter_context(contextlib.closing(lock_folder(place)))]
            if url is None:
                file = place / FILE_NAME
                engine, reader, shown = sqlite_engine(file, durability), sqlite_reader(file), str(file)
            else:
                engine, reader = postgres_engine(url, durability), postgres_engine(url, durability)
                shown = "the database"
            undo.callback(engine.dispose)
            undo.callback(reader.dispose)
            lock = None
            if url is not None:
                lock = undo.enter_context(contextlib.closing(PostgresLock(engine, shown)))
                locks.append(lock)
            migrate(engine, shown)
            box = claim(engine, line, stations, lock)
            store = cls(engine, reader, place, locks, box, limits or DiskLimits(), clock)
            undo.pop_all()
        return store

    def record(self, new: NewInspection) -> Future[Recorded]:
        """Store a judged part. The future resolves after the commit, with the row whose verdict may leave.

        The same request gives the first row again (`replayed`). The future raises `RequestConflict` for its id with
        another station, image or kind, `StoreFull` or `StoreUnavailable` where nothing was written: the
        part is bad then. Image and map are written after the commit.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if jump := self._jumps.jump():
            self.audit(Entry("system", "clock set", new={"seconds": round(jump / SECOND, 3)}))
        new = new.checked()
        if new.image is not None and new.image_sha256 is None:
            new = replace(new, image_sha256=hashlib.sha256(new.image).hexdigest())

        numbers: list[int] = []

        def number(connection: Connection | None) -> int:  # the same when the row has to be written again
            if not numbers:
                self._last = self._next_id(connection)
                numbers.append(self._last)
            return numbers[0]

        def keep_files(recorded: Recorded) -> None:
            if self._spool is not None and not self._writer.spooling:  # the spool knows its own rows
                self._spool.remember(recorded)
            if not recorded.replayed and recorded.row.image_state is ImageState.PENDING and new.image:
                self._images.put(recorded.row, new.image, new.map)

        spool = self._spool
        return self._writer.submit(
            lambda connection: self._inserter.insert(connection, new, lambda: number(connection)),
            keep_files,
            None if spool is None else lambda connection: spool.insert(connection, new, lambda: number(None)),
        )

    def write(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work(connection)` in the writer thread, in order with everything else; all its rows are written or none.

        It sees the context variables of the caller.
        """
        context = contextvars.copy_context()
        return self._writer.submit(lambda connection: context.run(work, connection))

    def probe(self) -> Future[None]:
        """Commit a change that changes nothing; the future raises as that of `record` where rows cannot be written."""
        return self._writer.submit(self.box.touch, spooled=self.box.touch)

    def audit(self, entry: Entry) -> Future[Head]:
        """Add a row to the audit. Inside `write`, use `audit.append(connection, entry, at)` to commit it with its change."""
        return self._writer.submit(
            lambda connection: append(connection, entry, self.clock()), self._note_head
        )

    def ask(self, question: Callable[[Connection], T], *, seconds: float = QUERY_SECONDS) -> T:
        """Answer of `question(connection)`, which reads, within a time limit."""
        with reading(self._reader, seconds) as connection:
            return question(connection)

    def inspection(self, row: int) -> Inspection | None:
        """The inspection with this id."""
        return self.ask(lambda connection: queries.one(connection, row))

    def by_request(self, request_id: str) -> Inspection | None:
        """The inspection of this request."""
        return self.ask(lambda connection: queries.by_request(connection, request_id))

    def answered(self, request: Request) -> Recorded | None:
        """The answer to a request that came before; None too while the database is away: `record` finds it as well.

        Raises `RequestConflict` where the id belongs to another part.
        """
        try:
            row = None if self.spooling else self.by_request(request.id)
        except (StoreUnavailable, QueryTimeout):
            return None
        return None if row is None else first_answer(row, request)

    def inspections(
        self,
        *,
        station: str | None = None,
        verdict: Verdict | None = None,
        part_id: str | None = None,
        lot: str | None = None,
        since: int | None = None,
        before_id: int | None = None,
        limit: int = 50,
        reviewed: queries.ReviewFilter | None = None,
    ) -> list[Inspection]:
        """Newest first. The next page begins with `before_id` = the last id of this one. At most 1,000."""
        return self.ask(
            lambda connection: queries.page(
                connection,
                station_name=station,
                verdict=verdict,
                part_id=part_id,
                lot=lot,
                since=since,
                before_id=before_id,
                limit=limit,
                reviewed=reviewed,
            )
        )

    def counts(self, station: str, *, since: int) -> dict[Verdict, int]:
        """Parts of each verdict done since a time."""
        return self.ask(lambda connection: queries.counts(connection, station, since))

    def last_verdicts(self, station: str, n: int) -> list[PastVerdict]:
        """The newest `n` parts of a station, oldest first: for stop rules after a restart and for replays."""
        return self.ask(
            lambda connection: queries.last_verdicts(connection, station, n), seconds=REPLAY_SECONDS
        )

    def last_scores(self, station: str, model_sha256: str, n: int, *, regions_from: float) -> list[PastScore]:
        """Those of the newest `n` parts of a station that a model judged, oldest first, with regions from a score on."""
        return self.ask(
            lambda connection: queries.last_scores(connection, station, model_sha256, n, regions_from),
            seconds=REPLAY_SECONDS,
        )

    def image(self, row: Inspection) -> bytes | None:
        """Original bytes of the image; None where it was not kept or is not written yet."""
        return self._images.read(row.image_key)

    def map(self, row: Inspection) -> bytes | None:
        """Anomaly map as 8-bit PNG, 0 to 2 x threshold."""
        return self._images.read(row.map_key)

    def thumbnail(self, row: Inspection) -> bytes | None:
        """JPEG of the image, at most 320 px; None where the image is not there or not decodable."""
        return self._images.thumbnail(row.image_key)

    def disk(self) -> DiskLevel:
        """How full the disk of the images is."""
        return self._images.level()

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to the database."""
        return self.box.step > 1

    @property
    def spooling(self) -> bool:
        """Whether PostgreSQL is gone and parts are stored in a local file until it is back."""
        return self._writer.spooling

    @property
    def images_lost(self) -> int:
        """Images that could not be written since the start."""
        return self._images.lost

    def close(self) -> None:
        """Write what waits and let go of folder and database."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        drained = self._writer.submit(lambda _connection: None, spooled=lambda _connection: None)
        drained.result()  # the images of all rows before are queued now
        self._images.close()
        self._writer.close()
        for lock in self._locks:
            lock.close()
        if self._spool is not None:
            self._spool.close()
        self._reader.dispose()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note_head(self) -> None:
        """Write the head of the audit to the log where this was not done today; waits for nothing."""
        if self.clock() // DAY != self._head_day:
            self._writer.submit(head, self._note_head)

    def _note_head(self, head: Head) -> None:
        """Write the head of the audit to the log once a day: rows missing at the end show by it."""
        if (day := self.clock() // DAY) != self._head_day:
            self._head_day = day
            LOG.info("audit head %s", head)

    def _next_id(self, connection: Connection | None) -> int:
        """The number of a new part: above those of all lines, so that numbers order parts of all stations.

        `connection`: None while the database cannot be reached.
        """
        last = self._last
        if connection is not None and self.box.step > 1:
            last = max(last, connection.execute(select(func.max(inspection.c.id))).scalar() or 0)
        return self.box.next_id(last)

    def _settle(self, rows: Sequence[int], state: ImageState) -> None:
        numbers = list(rows)

        def settle(connection: Connection) -> None:
            recovery.set_state(connection, numbers, state)

        self._writer.submit(settle, spooled=settle)

    def _forget(self) -> None:
        self._inserter.forget()
        if self._spool is not None:
            self._spool.inserter.forget()

    def _open_spool(self) -> Spool:
        """The local spool, emptied into the database."""
        spool = Spool(self.folder, Inserter(self.session, self._images, self.clock, self.box.id))
        self._last = max(self._last, spool.last())
        spool.carry_over(self._engine, self._inserter)
        return spool

    def _standby(self) -> Standby | None:
        spool = self._spool
        if spool is None:
            return None

        def take_back() -> None:
            for lock in self._locks:
                if isinstance(lock, PostgresLock):
                    lock.renew()
            spool.carry_over(self._engine, self._inserter)
            with self._engine.begin() as connection:
                recovery.settle_pending(
                    connection, self.folder, self.box.own(inspection), missing_is_lost=False
                )

        return Standby(spool.engine, lambda: answers(self._reader), take_back)


def _next_session(connection: Connection, now: int) -> int:
    """Larger than every session before, even with the clock set back."""
    last = connection.execute(select(func.max(inspection.c.session_id))).scalar()
    return max(now, (last or 0) + 1)
