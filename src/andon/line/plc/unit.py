"""One station behind a PLC: the handshake, carried out on a station, and the registers as a master reads and writes them.

The thread of the server owns a unit; `claim` and what follows committed rows may be called by any thread. Registers are
made when they are read, in one step, so that a block never mixes two parts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Protocol

from andon.core.errors import AndonError
from andon.core.text import whole_number
from andon.line.andon_states import StationState
from andon.line.clock import Clock, now_us
from andon.line.faults import Fault
from andon.line.parts import NoTrigger, Part
from andon.line.plc import handshake
from andon.line.plc.handshake import Effect, Error, Handshake, Judge, Outcome, Refuse, Trigger
from andon.line.plc.registers import (
    COMMAND_WORDS,
    LARGEST_WORD,
    Results,
    Status,
    decode_commands,
    encode,
)
from andon.line.plc.settings import PlcSettings
from andon.line.station import Station
from andon.line.store import Inspection, RequestConflict
from andon.line.verdicts import Cause, Verdict
from andon.line.views import StationView

LOG = logging.getLogger(__name__)

Shoot = Callable[[Trigger], bytes | None]
"""Takes the image of a part, encoded; None where there is none. Called in a thread of its own, it may wait."""
SILENT = f"the heartbeat of the PLC stands still for {handshake.SILENT_SECONDS:g} s: see PLC and cable"
MARGIN_SECONDS = 1.0
"""For commit and hand-over, beyond the time for image and judgement."""
STORED_WITHIN = 5.0
"""Seconds in which the row of a part without image should be committed."""
BEATS_PER_SECOND = 10


class Asked(Protocol):
    """What a PLC may ask of a line besides judging parts. Called in threads that may wait."""

    def set_recipe(self, station: Station, code: str) -> None:
        """Judge by another recipe, which is in use once the station is verified with it. Raises `AndonError`."""

    def start_golden(self, station: Station) -> None:
        """Judge the golden parts. Raises `AndonError`."""

    def stop_seen(self, station: Station) -> None:
        """The line stands."""


class Unit:
    """The PLC of one station."""

    def __init__(
        self,
        station: Station,
        settings: PlcSettings,
        line: Asked,
        *,
        shoot: Shoot | None = None,
        clock: Clock = now_us,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shoot`: takes the images; by default they follow by REST with the number of the trigger."""
        cycle = station.settings.cycle_s
        self.station, self.settings = station, settings
        station.expect(Fault.PLC, "the PLC was not heard since the start")
        self._image_s = settings.image_ms / 1000 or cycle
        self.handshake = Handshake(
            ack_s=settings.ack_ms / 1000 or cycle, result_s=self._image_s + cycle + MARGIN_SECONDS
        )
        self._line, self._shoot, self._clock, self._steady = line, shoot, clock, steady
        self._changing: str | None = None
        """The recipe that is being prepared."""
        self._words = [0] * COMMAND_WORDS
        self._around = Results()
        self._lock = threading.Lock()
        self._awaited: tuple[Trigger, int] | None = None
        """The part whose image has not come, and its time, microseconds UTC."""
        self._claimed: Part | None = None
        """The last image that a trigger got."""
        self._session, self._began = uuid.uuid4().hex[:12], steady()
        self._unreachable = ""
        """Why the PLC that is the server is not there."""
        self._pool: Executor | None = None
        self._post: Callable[..., object] = lambda call, *arguments: call(*arguments)

    def connect(self, pool: Executor, post: Callable[..., object]) -> None:
        """Take triggers. `pool` runs what waits; `post` calls a function in the thread of the server."""
        self._pool, self._post = pool, post
        self.station.triggered = self.claim

    # The master ---------------------------------------------------------------------------------------------------

    def results(self) -> list[int]:
        """The block of the station now."""
        shown, around = self.handshake.shown(), self._around
        beat = int(self._steady() * BEATS_PER_SECOND)
        return encode(
            replace(
                around,
                **{name: getattr(shown, name) for name in handshake.SHOWN},
                status=shown.status | around.status,
                heartbeat=beat,
                queue=self.station.waiting,
            )
        )

    def commands(self) -> list[int]:
        """The block of the PLC as it was written last."""
        return list(self._words)

    def write(self, offset: int, words: Sequence[int]) -> None:
        """A master wrote registers from `offset` of the block on."""
        self._words[offset : offset + len(words)] = words
        was_alive = self.handshake.alive
        self._apply(self.handshake.written(decode_commands(self._words), self._steady()))
        if not was_alive:
            self._note_life()

    def write_bits(self, offset: int, bits: Sequence[bool]) -> None:
        """A master wrote command bits as coils."""
        word = self._words[0]
        for place, bit in enumerate(bits, start=offset):
            word = word | 1 << place if bit else word & ~(1 << place)
        self.write(0, [word])

    def lost(self, why: str) -> None:
        """A PLC that is the server is not there: no part may be OK."""
        if why != self._unreachable:
            LOG.warning("station %s: %s", self.station.name, why)
        self._unreachable = why
        self.station.set_fault(Fault.PLC, why)

    def reached(self) -> None:
        """It is there; whether it is alive, its heartbeat says."""
        if self._unreachable:
            self._unreachable = ""
            self._note_life()

    # The station --------------------------------------------------------------------------------------------------

    def claim(self, part: Part) -> Part:
        """The part as its trigger says: serial number, part id, lot, time. Images without a number are left as they are.

        The same request again gets the same trigger. Raises `NoTrigger`.
        """
        if part.trigger_no is None:
            return part
        with self._lock:
            if self._claimed is not None and self._claimed.request_id == part.request_id:
                return replace(self._claimed, image=part.image)
            awaited = self._awaited
            if awaited is None or awaited[0].number != part.trigger_no:
                raise NoTrigger(
                    f"no trigger {part.trigger_no} of station {self.station.name} waits for an image: "
                    "send it after the trigger, once"
                )
            trigger, at = awaited
            claimed = replace(
                part,
                trigger_no=trigger.serial,
                part_id=trigger.part_id or part.part_id,
                lot=trigger.lot or part.lot,
                t_trigger=at,
            )
            self._awaited, self._claimed = None, claimed
        self._post(self._imaged, trigger.serial)
        return claimed

    def part(self, row: Inspection) -> None:
        """A part of the station was committed."""
        self._post(self._finished, row)

    def look(self, view: StationView) -> None:
        """Take over what the station shows besides the part: stop, call, counts, alarms."""
        self._around = around(view)

    def tick(self) -> None:
        """A tenth of a second has passed."""
        now = self._steady()
        late = self._late(now)
        if late is not None:
            self._run(self._store_missing, late[0], Cause.TIMEOUT, late[1])
        self._look_at_recipe()
        can_judge = not self.station.holding(besides=Fault.PLC) and Fault.CAMERA not in self.station.faults
        self._apply(self.handshake.tick(now, can_judge))
        self._note_life()

    def close(self) -> None:
        """No image is awaited any more: the part whose image has not come is lost."""
        with self._lock:
            awaited, self._awaited = self._awaited, None
        if awaited is not None:
            self._guarded(self._store_missing, awaited[0], Cause.RESULTS_LOST, awaited[1])

    # Inside -------------------------------------------------------------------------------------------------------

    def _apply(self, change: tuple[Handshake, list[Effect]]) -> None:
        self.handshake, effects = change
        for effect in effects:
            if isinstance(effect, Judge):
                self._judge(effect.trigger)
            elif isinstance(effect, Refuse):
                self._run(self._store_missing, effect.trigger, effect.cause, self._clock())
            elif isinstance(effect, handshake.SetRecipe):
                self._run(self._change_recipe, str(effect.code))
            elif isinstance(effect, handshake.StartGolden):
                self._run(self._line.start_golden, self.station)
            else:
                self._run(self._line.stop_seen, self.station)

    def _judge(self, trigger: Trigger) -> None:
        with self._lock:
            self._awaited = (trigger, self._clock())
        if self._shoot is not None:
            self._run(self._take, trigger)

    def _take(self, trigger: Trigger) -> None:
        """In a thread of its own."""
        assert self._shoot is not None
        image = self._shoot(trigger)
        if image:
            part = Part(image, self._request_id(trigger), trigger_no=trigger.number, source="plc")
            self.station.submit(self.claim(part))

    def _change_recipe(self, code: str) -> None:
        """In a thread of its own."""
        try:
            self._line.set_recipe(self.station, code)
        except Exception:
            self._post(self._recipe_set, False)
            raise
        self._post(self._prepare, code)

    def _prepare(self, code: str) -> None:
        self._changing = code

    def _recipe_set(self, worked: bool) -> None:
        self._changing = None
        self.handshake = self.handshake.recipe_set(worked)

    def _look_at_recipe(self) -> None:
        """Whether the recipe that was asked for is in use, or cannot be."""
        if self._changing is None:
            return
        if self.station.recipe == self._changing and self.station.is_verified:
            self._recipe_set(True)
        elif Fault.MODEL in self.station.faults:
            self._recipe_set(False)

    def _note_life(self) -> None:
        """Whether the PLC sorts the parts: it can be reached and its heartbeat moves."""
        if self._unreachable:
            return
        if self.handshake.alive:
            self.station.expect(Fault.PLC, None)
            self.station.set_fault(Fault.PLC, None)
        elif self._steady() - self._began >= handshake.SILENT_SECONDS:
            self.station.set_fault(Fault.PLC, SILENT)

    def _late(self, now: float) -> tuple[Trigger, int] | None:
        """The part whose image did not come in time; it takes none any more."""
        with self._lock:
            if self._awaited is None or now - self._awaited[0].at <= self._image_s:
                return None
            late, self._awaited = self._awaited, None
        return late

    def _store_missing(self, trigger: Trigger, cause: Cause, at: int) -> None:
        part = Part(
            b"",
            f"{self._request_id(trigger)}-{cause.value}",
            part_id=trigger.part_id or None,
            lot=trigger.lot or None,
            trigger_no=trigger.serial,
            t_trigger=at,
            source="plc",
        )
        with contextlib.suppress(RequestConflict):  # it has its row
            self.station.record_missing(part, cause).result(STORED_WITHIN)

    def _request_id(self, trigger: Trigger) -> str:
        return f"plc-{self.station.name}-{self._session}-{trigger.serial}"

    def _run(self, call: Callable[..., object], *arguments: object) -> None:
        """In the pool; what fails there is logged, and the part becomes ERROR at its limit."""

        assert self._pool is not None
        self._pool.submit(self._guarded, call, *arguments)

    def _guarded(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except AndonError as error:
            LOG.warning("station %s: %s", self.station.name, error)
        except Exception:
            LOG.exception("station %s: what the PLC asked for failed", self.station.name)

    def _imaged(self, serial: int) -> None:
        self.handshake = self.handshake.imaged(serial)

    def _finished(self, row: Inspection) -> None:
        if row.trigger_no is None:
            return
        lacks_image = row.cause == Cause.TIMEOUT and row.image_sha256 is None
        error = Error.NO_IMAGE if lacks_image else Error.NONE
        self.handshake = self.handshake.finished(row.trigger_no, outcome(row), self._steady(), error)


def around(view: StationView) -> Results:
    """What a station shows besides the part: stop, call, counts, alarms."""
    bits = {
        Status.STOP_REQUEST: view.wants_stop,
        Status.CALL: view.machine is StationState.CALL,
        Status.GOLDEN_DUE: view.check_due or view.golden.state in ("due", "overdue"),
        Status.GOLDEN_FAILED: view.golden.state == "failed",
    }
    return Results(
        status=Status(sum(bit for bit, is_set in bits.items() if is_set)),
        total=sum(view.counts.values()),
        ng=view.counts.get(Verdict.NG, 0),
        alarms=len(view.alarms),
        recipe=_number(view.recipe),
    )


def outcome(row: Inspection) -> Outcome:
    """The verdict of a committed part."""
    return Outcome(
        verdict=row.verdict,
        inspection=row.id,
        score=math.nan if row.score is None else row.score,
        threshold_version=row.threshold_version or 0,
        judge_ms=round(row.ms.get("judge", 0.0)),
    )


def _number(recipe: str | None) -> int:
    """The code of a recipe as the registers have it; 0 where it is no number that they hold."""
    return whole_number(recipe or "", LARGEST_WORD) or 0
