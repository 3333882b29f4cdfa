"""One thread that writes: what waits is committed together, and every answer comes after its commit."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from andon.line.store.connection import translated
from andon.line.store.errors import StoreError, StoreUnavailable

T = TypeVar("T")
LOG = logging.getLogger(__name__)

GROUP = 256
"""Most jobs in one commit."""


@dataclass(slots=True)
class Job(Generic[T]):
    """One unit of work: its rows are written all or not at all."""

    work: Callable[[Connection], T]
    future: Future[T]
    committed: Callable[[T], None] | None
    """Called after the commit, before the answer."""

    def answer(self, outcome: T | Exception) -> None:
        """Resolve the future."""
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            return
        if self.committed is not None:
            self.committed(outcome)
        self.future.set_result(outcome)


class Writer:
    """Runs functions of a connection in the order in which they are submitted, as many in one transaction as wait.

    A function that raises takes back its own rows only. A failing commit fails the functions of its group, each of which
    has been tried alone before. `rolled_back` is called whenever rows were taken back.
    """

    def __init__(self, engine: Engine, rolled_back: Callable[[], None]) -> None:
        self._engine = engine
        self._rolled_back = rolled_back
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._open = True
        self._last_error = ""
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="andon-writer", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[Connection], T], committed: Callable[[T], None] | None = None
    ) -> Future[T]:
        """Queue `work`; the future resolves after its commit and cannot be cancelled."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._gate:
            if not self._open:
                raise StoreUnavailable("the store is closed")
            self._jobs.put(Job(work, future, committed))
        return future

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._gate:
            if self._open:
                self._open = False
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._waiting():
            try:
                self._write(jobs)
            except Exception as error:
                LOG.exception("the writer failed")
                for job in jobs:
                    if not job.future.done():
                        job.answer(StoreError(f"the row was not written ({error}): see the log"))

    def _waiting(self) -> list[Job[Any]]:
        """The jobs that wait, at least one; empty at the end."""
        jobs = [self._jobs.get()]
        while jobs[-1] is not None and len(jobs) < GROUP:
            try:
                jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        if jobs[-1] is None and len(jobs) > 1:
            self._jobs.put(None)  # ends the next round
        return [job for job in jobs if job is not None]

    def _write(self, jobs: Sequence[Job[Any]]) -> None:
        try:
            outcomes = self._transaction(jobs)
        except DatabaseError as error:
            self._rolled_back()
            if len(jobs) > 1:
                for job in jobs:
                    self._write([job])
            else:
                self._complain(translated(error))
                jobs[0].answer(translated(error))
            return
        self._last_error = ""
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer(outcome)

    def _complain(self, error: StoreError) -> None:
        """Log an error once until something was written again."""
        if str(error) != self._last_error:
            LOG.error("not written: %s", error)
        self._last_error = str(error)

    def _transaction(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Run all jobs in one transaction. Returns the result or the error of each."""
        outcomes: list[Any] = []
        with self._engine.begin() as connection:
            for job in jobs:
                savepoint = connection.begin_nested()
                try:
                    outcomes.append(job.work(connection))
                    savepoint.commit()
                except OperationalError:  # SQLite may have ended the transaction, savepoint included
                    raise
                except Exception as error:
                    savepoint.rollback()
                    self._rolled_back()
                    outcomes.append(translated(error) if isinstance(error, DatabaseError) else error)
        return outcomes
