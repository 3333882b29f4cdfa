"""One thread that writes: what waits is committed together, and every answer comes after its commit."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from andon.core.errors import AndonError
from andon.line.store.connection import translated
from andon.line.store.errors import StoreError, StoreUnavailable

T = TypeVar("T")
LOG = logging.getLogger(__name__)

GROUP = 256
"""Most jobs in one commit."""
RETRY_SECONDS = 1.0
"""Time between two attempts to reach a database that is gone."""


@dataclass(slots=True)
class Job(Generic[T]):
    """One unit of work: its rows are written all or not at all."""

    work: Callable[[Connection], T]
    future: Future[T]
    committed: Callable[[T], None] | None
    """Called after the commit, before the answer."""
    spooled: Callable[[Connection], T] | None
    """The same for the standby; None: refused while the database is gone."""

    def answer(self, outcome: T | Exception) -> None:
        """Resolve the future."""
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            return
        if self.committed is not None:
            self.committed(outcome)
        self.future.set_result(outcome)


@dataclass(frozen=True, slots=True)
class Standby:
    """Where to write while the database cannot be reached."""

    engine: Engine
    reachable: Callable[[], bool]
    """Whether the database answers; may take seconds."""
    take_back: Callable[[], None]
    """Carries over what was written here; raises while that is not possible."""


class Writer:
    """Runs functions of a connection in the order in which they are submitted, as many in one transaction as wait.

    A function that raises takes back its own rows only. When a commit fails, each function of its group is tried alone.
    `rolled_back` is called whenever rows were taken back.
    """

    def __init__(
        self, engine: Engine, rolled_back: Callable[[], None], standby: Standby | None = None
    ) -> None:
        self._engine, self._rolled_back, self._standby = engine, rolled_back, standby
        # No SimpleQueue: its `get` may wait for ever in spite of a timeout.
        self._jobs: queue.Queue[Job[Any] | None] = queue.Queue()
        self._open = True
        self._last_error = ""
        self._spooling = False
        self._found = threading.Event()
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="andon-writer", daemon=True)
        self._thread.start()

    @property
    def spooling(self) -> bool:
        """Whether the database is gone and the standby is written."""
        return self._spooling

    def submit(
        self,
        work: Callable[[Connection], T],
        committed: Callable[[T], None] | None = None,
        spooled: Callable[[Connection], T] | None = None,
    ) -> Future[T]:
        """Queue `work`; the future resolves after its commit and cannot be cancelled."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._gate:
            if not self._open:
                raise StoreUnavailable("the store is closed")
            self._jobs.put(Job(work, future, committed, spooled))
        return future

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._gate:
            if self._open:
                self._open = False
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (jobs := self._waiting()) is not None:
            try:
                if self._spooling and self._found.is_set():
                    self._return()
                if jobs:
                    self._write(jobs)
            except Exception as error:
                LOG.exception("the writer failed")
                for job in jobs:
                    if not job.future.done():
                        job.answer(StoreError(f"the row was not written ({error}): see the log"))

    def _waiting(self) -> list[Job[Any]] | None:
        """The jobs that wait: at least one, or after a while none while the standby is used; None at the end."""
        jobs: list[Job[Any] | None] = []
        with contextlib.suppress(queue.Empty):
            jobs.append(self._jobs.get(timeout=RETRY_SECONDS if self._spooling else None))
            while jobs[-1] is not None and len(jobs) < GROUP:
                jobs.append(self._jobs.get_nowait())
        if jobs == [None]:
            return None
        if jobs and jobs[-1] is None:
            self._jobs.put(None)  # ends the next round
        return [job for job in jobs if job is not None]

    def _write(self, jobs: Sequence[Job[Any]]) -> None:
        if self._spooling:
            for job in jobs:
                if job.spooled is None:
                    job.answer(StoreUnavailable("the database cannot be reached: try again when it is back"))
            jobs = [job for job in jobs if job.spooled is not None]
        try:
            outcomes = self._transaction(jobs)
        except DatabaseError as error:
            self._rolled_back()
            failure = translated(error)
            if isinstance(failure, StoreUnavailable) and self._standby is not None and not self._spooling:
                self._leave(failure)
                self._write(jobs)
            elif len(jobs) > 1 and not isinstance(failure, StoreUnavailable):
                for job in jobs:
                    self._write([job])
            else:
                self._complain(failure)
                for job in jobs:
                    job.answer(failure)
            return
        self._last_error = ""
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer(outcome)

    def _leave(self, failure: StoreError) -> None:
        """Write to the standby from now on, and look for the database in another thread."""
        LOG.error("parts are stored locally: %s", failure)
        self._spooling = True
        self._found.clear()
        threading.Thread(target=self._look_for_database, name="andon-reconnect", daemon=True).start()

    def _look_for_database(self) -> None:
        assert self._standby is not None
        while self._open:
            try:
                if self._standby.reachable():
                    self._found.set()
                    return
            except Exception:
                LOG.exception("the database cannot be looked for")
            time.sleep(RETRY_SECONDS)

    def _return(self) -> None:
        """Carry over what the standby has, and write to the database again; stay where that fails."""
        assert self._standby is not None
        try:
            self._standby.take_back()
        except Exception as error:
            if not isinstance(error, DatabaseError | AndonError):
                LOG.exception("the local parts cannot be carried over")
            self._leave(translated(error) if isinstance(error, DatabaseError) else StoreError(str(error)))
        else:
            self._spooling = False

    def _complain(self, error: StoreError) -> None:
        """Log an error once until something was written again."""
        if str(error) != self._last_error:
            LOG.error("not written: %s", error)
        self._last_error = str(error)

    def _transaction(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Run all jobs in one transaction. Returns the result or the error of each."""
        outcomes: list[Any] = []
        if not jobs:
            return outcomes
        engine = self._standby.engine if self._standby is not None and self._spooling else self._engine
        with engine.begin() as connection:
            for job in jobs:
                work = job.spooled if self._spooling and job.spooled is not None else job.work
                savepoint = connection.begin_nested()
                try:
                    outcomes.append(work(connection))
                    savepoint.commit()
                except OperationalError:  # SQLite may have ended the transaction, savepoint included
                    raise
                except Exception as error:
                    savepoint.rollback()
                    self._rolled_back()
                    outcomes.append(translated(error) if isinstance(error, DatabaseError) else error)
        return outcomes
