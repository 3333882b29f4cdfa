"""One drop folder: a thread looks into it, and every file that is complete is judged once.

A file is judged when its size and time have stayed the same for `stable_ms` and it decodes to its end. Its row is committed
first, then its answer is written, then it is moved. After a crash in between, its row is found by the request id, which
is made of station, name, size, time and content: it is only moved then. Nothing is dropped: where the queue is full, the
model not verified or the store gone, files wait. An answer is removed when a new file of its name is seen, before that file
is judged: what is not answered is bad.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from andon.core.errors import AndonError, DataError
from andon.line.clock import Clock, now_us
from andon.line.faults import Fault
from andon.line.inbox import files
from andon.line.inbox.files import Found
from andon.line.inbox.table import AnswerTable
from andon.line.inbox.wake import Waker
from andon.line.settings import FolderSettings
from andon.line.station import Answer, NotReady, Part, Station
from andon.line.store import Inspection, Recorded, Request, Store, StoreError
from andon.line.verdicts import Cause
from andon.line.views import summary

LOG = logging.getLogger(__name__)

UNREADABLE_SECONDS = 10.0
"""Time without a change after which a file that does not decode is ERROR."""
AT_ONCE = 2
"""Parts on their way: one is judged while the one before is committed."""
BATCH = 50
"""Files that are judged between two looks into the folder."""
NEXT_LOOK = 0.02
"""Shortest time between two looks, seconds."""
BACKLOG, BAD_FILES = "backlog", "unreadable files"
"""Names of alarms."""


class Alarming(Protocol):
    """Where conditions of a station are reported."""

    def condition(self, station: str, title: str, present: bool, why: str = "") -> None:
        """A condition begins or ends; it calls a person."""


@dataclass(slots=True)
class Sight:
    """What is known about a file in the folder."""

    file: Found
    since: float
    """`time.monotonic` of the last change."""
    seen: int
    """Microseconds UTC when it came."""
    is_broken: bool = False
    """It did not decode, and has not changed since."""
    row: Inspection | None = None
    """Its inspection, once it has one."""


class Inbox:
    """Judges the files of one folder. Between `start` and `stop` a thread does."""

    def __init__(
        self,
        settings: FolderSettings,
        station: Station,
        store: Store,
        alarms: Alarming,
        *,
        clock: Clock = now_us,
    ) -> None:
        self._settings, self._folder = settings, settings.path
        self._station, self._store, self._alarms, self._clock = station, store, alarms, clock
        self._table = AnswerTable(self._folder)
        self._pattern = re.compile(settings.names)
        self._sights: dict[str, Sight] = {}
        self._waiting: deque[tuple[Sight, Future[Answer]]] = deque()
        self._trouble = ""
        self._news, self._ended = threading.Event(), threading.Event()
        self._waker = Waker(self._folder, self._news.set)
        self._thread = threading.Thread(target=self._run, name=f"andon-{station.name}-inbox", daemon=True)

    def start(self) -> None:
        """Look into the folder from now on."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Take no further files; those that are being judged are put away."""
        self._ended.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def look(self) -> float:
        """Look into the folder once and judge what is complete, at most `BATCH` files. Returns seconds to the next look."""
        self._trouble = ""
        try:
            found, names = files.listing(self._folder)
        except OSError as error:
            self._report(f"{self._folder} cannot be read ({error.strerror}): bring the folder back")
            return self._settings.poll_ms / 1000
        self._note(found)
        ready = self._ready(names)
        self._say_backlog(sum(sight.row is None for sight in self._sights.values()))
        takes_more = True
        for sight in ready[:BATCH]:
            takes_more = takes_more and not self._ended.is_set() and self._judge(sight)
        while self._waiting:
            self._finish()
        self._report(self._trouble)
        if not takes_more or self._trouble:
            return self._settings.poll_ms / 1000
        return NEXT_LOOK if len(ready) > BATCH else self._next_look()

    # The folder ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with contextlib.suppress(OSError):  # the look says so
                    self._waker.watch()
                pause = self.look()
            except Exception as error:
                LOG.exception("station %s: the folder failed", self._station.name)
                self._report(f"{self._folder} is not read ({error}): see the log")
                pause = self._settings.poll_ms / 1000
            self._news.wait(pause)
            self._news.clear()
            self._ended.wait(NEXT_LOOK)
        self._waker.stop()

    def _note(self, found: dict[str, Found]) -> None:
        """Remember what is there; a file that changed is a new one, and the answer to the one before it goes."""
        now = time.monotonic()
        for name in self._sights.keys() - found.keys():
            del self._sights[name]
        for name, file in found.items():
            sight = self._sights.get(name)
            if sight is not None and sight.file == file:
                continue
            try:
                files.remove_answer(self._folder, name)
            except OSError as error:  # not judged before the old answer is gone
                self._sights.pop(name, None)
                self._trouble = (
                    f"the answer to an earlier {name} cannot be removed ({error.strerror}): "
                    f"make {self._folder / files.ANSWERS} writable"
                )
                continue
            if sight is None or sight.row is not None:
                self._sights[name] = Sight(file, now, self._clock())
            else:
                sight.file, sight.since, sight.is_broken = file, now, False

    def _ready(self, names: set[str]) -> list[Sight]:
        """Files to judge or to put away now, in their order."""
        now, keeps = time.monotonic(), self._settings.after == "keep"
        ready = [
            sight
            for name, sight in self._sights.items()
            if now >= self._due(sight)
            and not (keeps and sight.row is not None)
            and (not self._settings.ready_file or name + files.READY_SUFFIX in names)
        ]
        if self._settings.order == "time":
            return sorted(ready, key=lambda sight: (sight.file.mtime_ns, sight.file.name))
        return sorted(ready, key=lambda sight: sight.file.name)

    def _due(self, sight: Sight) -> float:
        """`time.monotonic` from which a file may be judged."""
        return sight.since + (UNREADABLE_SECONDS if sight.is_broken else self._settings.stable_ms / 1000)

    def _next_look(self) -> float:
        """Seconds up to the next look without news."""
        now = time.monotonic()
        times = [self._due(sight) - now for sight in self._sights.values() if sight.row is None]
        return min([self._settings.poll_ms / 1000, *(max(NEXT_LOOK, wait) for wait in times if wait > 0)])

    # One file ------------------------------------------------------------------------------------------------------

    def _judge(self, sight: Sight) -> bool:
        """Have a file judged; False where the station takes none now."""
        if sight.row is not None:  # could not be put away before
            self._put_away(sight, "")
            return True
        try:
            content = files.read(self._folder, sight.file)
        except OSError as error:  # e.g. still open on Windows
            if time.monotonic() - sight.since > UNREADABLE_SECONDS:
                self._trouble = f"{sight.file.name} cannot be read ({error.strerror}): change its permissions"
            return True
        if content is None:
            return True
        request_id = files.request_id(self._station.name, sight.file, content)
        if (known := self._known(request_id, content)) is not None:
            sight.row = known.row
            self._put_away(sight, "")
            return True
        if not sight.is_broken and not files.is_image(content):
            sight.is_broken = True  # it may still be written
            return True
        return self._send(sight, content, request_id)

    def _known(self, request_id: str, content: bytes) -> Recorded | None:
        """The row of a file that was judged before a crash."""
        try:
            sha256 = hashlib.sha256(content).hexdigest()
            return self._store.answered(Request(self._station.name, request_id, sha256))
        except StoreError:  # the store answers equal requests by the first row, too
            return None

    def _send(self, sight: Sight, content: bytes, request_id: str) -> bool:
        part_id, lot = self._names(sight.file.name)
        part = Part(content, request_id, part_id, lot, t_trigger=sight.seen, source="folder")
        while len(self._waiting) >= AT_ONCE:
            self._finish()
        end = time.monotonic() + self._settings.poll_ms / 1000
        try:
            while (future := self._station.offer(part)) is None:
                if self._waiting:
                    self._finish()
                elif self._station.holds or time.monotonic() > end or self._ended.wait(NEXT_LOOK):
                    return False
        except NotReady:
            return False
        except DataError as error:
            self._trouble = f"{sight.file.name} is not judged: {error}"
            return True
        self._waiting.append((sight, future))
        return True

    def _finish(self) -> None:
        """Wait for the oldest part on its way, and put its file away."""
        sight, future = self._waiting.popleft()
        try:
            answer = future.result()
        except AndonError as error:  # no row: the file stays and is judged again
            self._trouble = f"{sight.file.name} has no verdict: {error}"
            return
        sight.row = answer.recorded.row
        if sight.row.cause == Cause.NOT_AN_IMAGE:
            why = f"{sight.file.name} cannot be read as an image: look into {self._folder / files.BAD}"
            self._alarms.condition(self._station.name, BAD_FILES, True, why)
            self._alarms.condition(self._station.name, BAD_FILES, False)
        self._put_away(sight, answer.why)

    def _put_away(self, sight: Sight, why: str) -> None:
        row, name = sight.row, sight.file.name
        assert row is not None
        try:
            told = {"file": files.shown(name), "why": why, "image_sha256": row.image_sha256, **summary(row)}
            files.write_answer(self._folder, name, told)
            self._table.add(name, row)
            if self._settings.after != "keep" or row.cause == Cause.NOT_AN_IMAGE:
                files.put_away(self._folder, sight.file, row, delete=self._settings.after == "delete")
                (self._folder / (name + files.READY_SUFFIX)).unlink(missing_ok=True)
                self._sights.pop(name, None)  # the next one is another, of whatever size and time
            if files.is_replaced(self._folder, sight.file):
                files.remove_answer(self._folder, name)
        except OSError as error:
            self._trouble = (
                f"{name} is judged and cannot be put away ({error.strerror}): make {self._folder} writable"
            )

    def _names(self, name: str) -> tuple[str | None, str | None]:
        """Part id and lot from the file name; the name without suffix where the pattern does not say."""
        text = files.shown(name)
        found = self._pattern.search(text)
        groups = {} if found is None else found.groupdict()
        return groups.get("part_id") or text.rpartition(".")[0] or text, groups.get("lot")

    # What people are told ------------------------------------------------------------------------------------------

    def _report(self, trouble: str) -> None:
        """The fault of the station while something is wrong with the folder."""
        if trouble and Fault.FOLDER not in self._station.faults:
            LOG.error("station %s: %s", self._station.name, trouble)
        self._station.set_fault(Fault.FOLDER, trouble or None)

    def _say_backlog(self, waiting: int) -> None:
        limit = self._settings.backlog
        why = f"{waiting} files wait in {self._folder}, more than {limit}: parts come faster than they are judged"
        self._alarms.condition(self._station.name, BACKLOG, waiting > limit, why)
