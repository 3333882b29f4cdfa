"""The handshake between a PLC and one station as a state machine. No I/O, no clock: times are seconds of any steady clock.

Levels, not pulses. The PLC waits for `trigger_ready`, writes part id and number, then `trigger`; the station answers with
`trigger_ack`; the PLC takes `trigger` back, then `trigger_ack` goes. Once the row of the part is committed, `results_valid` comes
with verdict and number; the PLC reads and sets `results_ack`; `results_valid` goes; the PLC takes `results_ack` back; only then
is the station ready again.

A trigger without `trigger_ready` is missed: counted, an error, and a row with verdict ERROR because a part was there. A
result that is not acknowledged within `ack_s` is an overrun: the station takes further parts, and their results wait, at most
`BUFFER`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, Self

from andon.line.plc.registers import Command, Commands, Results, Status
from andon.line.verdicts import Cause, Verdict

BUFFER = 8
"""Results that may wait for the PLC, the shown one included."""
SILENT_SECONDS = 3.0
"""Time without a change of the heartbeat after which the PLC counts as lost."""
NUMBERS = 1 << 16
SHOWN = (
    *("verdict", "trigger_no", "inspection", "error"),
    *("threshold_version", "score", "judge_ms", "missed"),
)
"""Fields of `Results`, besides the status, that `Handshake.shown` fills."""


class Error(IntEnum):
    """Last error, shown until `clear_error`."""

    NONE = 0
    MISSED = 1
    """A trigger came without `trigger_ready`: that part is bad."""
    REPEATED = 2
    """A trigger had the number of the one before: that part is bad."""
    BUFFER_FULL = 3
    """Results wait that the PLC does not acknowledge; no further parts."""
    NO_IMAGE = 4
    """The image of a part did not come in time: that part is bad."""
    NO_RESULT = 5
    """A part has no stored verdict: it is bad."""
    NO_HEARTBEAT = 6
    """The heartbeat of the PLC stood still."""
    NO_RECIPE = 7
    """The recipe that was asked for is not there."""


class Trigger(NamedTuple):
    """A part that the PLC announced."""

    number: int
    """0 to 65535, as the PLC counts."""
    serial: int
    """The number without its wrap at 65536: ascends in one session of the store, and is what the row has."""
    part_id: str
    lot: str
    at: float


class Outcome(NamedTuple):
    """The verdict of a part, taken from its committed row; without a row only ERROR."""

    verdict: Verdict
    inspection: int = 0
    score: float = float("nan")
    threshold_version: int = 0
    judge_ms: int = 0


FAILED = Outcome(Verdict.ERROR)


class Judge(NamedTuple):
    """Effect: take and judge the image of this part."""

    trigger: Trigger


class Refuse(NamedTuple):
    """Effect: store this part as ERROR; no image of it is judged."""

    trigger: Trigger
    cause: Cause


class SetRecipe(NamedTuple):
    """Effect: change to the recipe with this code."""

    code: int


class StopSeen(NamedTuple):
    """Effect: the PLC says that the line stands."""


class StartGolden(NamedTuple):
    """Effect: judge the golden parts."""


Effect = Judge | Refuse | SetRecipe | StopSeen | StartGolden


class Shown(NamedTuple):
    """A result with the part it belongs to."""

    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Handshake:
    """State of the handshake. Each method returns the next state, and the effects that the caller has to carry out."""

    ack_s: float
    """Seconds in which a result should be acknowledged."""
    result_s: float
    """Seconds after which an accepted part without a row is ERROR; image, judging and commit have to fit into them."""
    can_judge: bool = False
    """The model of the station is verified."""
    commands: Commands = field(default_factory=Commands)
    """As the PLC wrote them last."""
    beat_at: float | None = None
    """When its heartbeat changed last."""
    alive: bool = False
    """The heartbeat changes."""
    trigger: Trigger | None = None
    """The part that is being judged."""
    has_image: bool = False
    discard: bool = False
    """The PLC took `enable` back: it does not wait for the part any more."""
    trigger_ack: bool = False
    results: tuple[Shown, ...] = ()
    """Those that the PLC has not acknowledged, oldest first."""
    valid_since: float | None = None
    """Since when the first of `results` is shown; None: it is not."""
    overrun: bool = False
    error: Error = Error.NONE
    missed: int = 0
    last: Trigger | None = None
    """The newest trigger, taken or missed."""
    changing: bool = False
    """Another recipe was asked for, and is not in use yet; no part is taken."""
    recipe_ok: bool | None = None
    """Whether the last `set_recipe` worked; None while the PLC does not ask."""

    # What is shown ------------------------------------------------------------------------------------------------

    @property
    def online(self) -> bool:
        """The PLC lives, and wants results."""
        return self.alive and self._has(Command.ENABLE) and not self._has(Command.GO_OFFLINE)

    @property
    def ready(self) -> bool:
        """A trigger would be taken now."""
        idle = self.trigger is None and not self.trigger_ack and not self._has(Command.TRIGGER)
        free = (not self.results and not self._has(Command.RESULTS_ACK)) or (
            self.overrun and len(self.results) < BUFFER
        )
        has_recipe = not self.changing and self.recipe_ok is not False
        return self.online and self.can_judge and has_recipe and idle and free

    @property
    def results_valid(self) -> bool:
        """The first result may be read."""
        return self.online and self.valid_since is not None

    def shown(self) -> Results:
        """Status, error and, while valid, the result; everything else is for the caller to add."""
        bits = {
            Status.ONLINE: self.online and self.can_judge,
            Status.TRIGGER_READY: self.ready,
            Status.TRIGGER_ACK: self.trigger_ack,
            Status.INSPECTING: self.trigger is not None,
            Status.RESULTS_VALID: self.results_valid,
            Status.RESULTS_OVERRUN: self.overrun,
            Status.ERROR: self.error is not Error.NONE,
            Status.RECIPE_ACK: self.recipe_ok is True,
            Status.RECIPE_FAILED: self.recipe_ok is False,
            Status.EXPOSURE_DONE: self.has_image,
        }
        status = Status(sum(bit for bit, is_set in bits.items() if is_set))
        base = Results(status=status, error=self.error, missed=self.missed)
        if not self.results_valid:
            return base
        number, outcome = self.results[0]
        return replace(
            base,
            verdict=outcome.verdict,
            trigger_no=number,
            inspection=outcome.inspection,
            score=outcome.score,
            threshold_version=outcome.threshold_version,
            judge_ms=outcome.judge_ms,
        )

    # What happens -------------------------------------------------------------------------------------------------

    def written(self, commands: Commands, now: float) -> tuple[Self, list[Effect]]:
        """The PLC wrote its registers."""
        was_ready = self.ready
        rising = commands.bits & ~self.commands.bits
        state, effects = replace(self, commands=commands), list[Effect]()
        if commands.heartbeat != self.commands.heartbeat:
            state = replace(state, beat_at=now, alive=True)
        if Command.CLEAR_ERROR in rising:
            state = replace(state, error=Error.NONE)
        if not commands.bits & Command.ENABLE:
            state = state._reset()
        if Command.TRIGGER in rising:
            state, effects = state._triggered(was_ready and state.online, now)
        if not commands.bits & Command.TRIGGER:
            state = replace(state, trigger_ack=False)
        if commands.bits & Command.RESULTS_ACK and state.valid_since is not None and state.online:
            state = replace(state, results=state.results[1:], valid_since=None)
        if not commands.bits & Command.SET_RECIPE:
            state = replace(state, recipe_ok=None)
        if Command.SET_RECIPE in rising:
            state = replace(state, changing=True)
            effects.append(SetRecipe(commands.recipe))
        if Command.STOP_ACK in rising:
            effects.append(StopSeen())
        if Command.START_GOLDEN in rising:
            effects.append(StartGolden())
        return state._show(now), effects

    def imaged(self, serial: int) -> Self:
        """The image of the part is there: it may move."""
        return replace(self, has_image=True) if self._waits_for(serial) else self

    def finished(self, serial: int, outcome: Outcome, now: float, error: Error = Error.NONE) -> Self:
        """The row of a part is committed; other parts than the one that is being judged change nothing."""
        if not self._waits_for(serial):
            return self
        assert self.trigger is not None
        results = self.results if self.discard else (*self.results, Shown(self.trigger.number, outcome))
        state = replace(self, trigger=None, has_image=False, discard=False, results=results)
        if len(results) >= BUFFER:
            error = Error.BUFFER_FULL
        return (state if error is Error.NONE else replace(state, error=error))._show(now)

    def recipe_set(self, worked: bool) -> Self:
        """The answer to `SetRecipe`."""
        return replace(
            self,
            changing=False,
            recipe_ok=worked if self._has(Command.SET_RECIPE) else None,
            error=self.error if worked else Error.NO_RECIPE,
        )

    def tick(self, now: float, can_judge: bool) -> tuple[Self, list[Effect]]:
        """Time passes."""
        state, effects = replace(self, can_judge=can_judge), list[Effect]()
        if state.alive and state.beat_at is not None and now - state.beat_at >= SILENT_SECONDS:
            state = replace(state, alive=False, error=Error.NO_HEARTBEAT)
        if state.valid_since is not None and now - state.valid_since > state.ack_s:
            state = replace(state, overrun=True)
        if state.trigger is not None and now - state.trigger.at > state.result_s:
            effects = [Refuse(state.trigger, Cause.TIMEOUT)]
            state = state.finished(state.trigger.serial, FAILED, now, Error.NO_RESULT)
        return state._show(now), effects

    # Inside -------------------------------------------------------------------------------------------------------

    def _has(self, bit: Command) -> bool:
        return bit in self.commands.bits

    def _waits_for(self, serial: int) -> bool:
        return self.trigger is not None and self.trigger.serial == serial

    def _reset(self) -> Self:
        """Without `enable` nothing waits for the PLC; a part that is being judged gets its row, and no result."""
        return replace(
            self,
            results=(),
            valid_since=None,
            overrun=False,
            discard=self.trigger is not None,
            trigger_ack=False,
        )

    def _triggered(self, was_ready: bool, now: float) -> tuple[Self, list[Effect]]:
        said, last = self.commands, self.last
        step = NUMBERS if last is None else (said.trigger_no - last.number) % NUMBERS
        repeated = last is not None and step == 0
        if not was_ready and repeated:  # the same part again: it has or gets its row
            return replace(self, missed=self.missed + 1, error=Error.MISSED), []
        serial = said.trigger_no if last is None else last.serial + (step or NUMBERS)
        trigger = Trigger(said.trigger_no, serial, said.part_id, said.lot, now)
        state = replace(self, last=trigger)
        if not was_ready:
            cause = Cause.OVERRUN if self.trigger or self.results else Cause.NOT_READY
            return replace(state, missed=self.missed + 1, error=Error.MISSED), [Refuse(trigger, cause)]
        state = replace(state, trigger=trigger, trigger_ack=True, has_image=False, discard=False)
        if repeated:
            return replace(state, error=Error.REPEATED), [Refuse(trigger, Cause.REPEATED)]
        return state, [Judge(trigger)]

    def _show(self, now: float) -> Self:
        """Show the first result once the acknowledgement of the one before is taken back."""
        state = self if self.results else replace(self, overrun=False)
        if state.results and state.valid_since is None and not state._has(Command.RESULTS_ACK):
            return replace(state, valid_since=now)
        return state
