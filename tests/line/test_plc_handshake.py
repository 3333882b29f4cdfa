"""The handshake as a state machine: the cycle step by step, and what may never happen whatever a PLC does."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from andon.line.plc.handshake import (
    BUFFER,
    FAILED,
    NUMBERS,
    SILENT_SECONDS,
    Effect,
    Error,
    Handshake,
    Judge,
    Outcome,
    Refuse,
    SetRecipe,
    StartGolden,
    StopSeen,
)
from andon.line.plc.registers import Command, Commands, Status, encode, is_good
from andon.line.verdicts import Cause, Verdict

E, T, A = Command.ENABLE, Command.TRIGGER, Command.RESULTS_ACK
OK = Outcome(Verdict.OK, inspection=5, score=0.5)


class Plc:
    """A PLC and the time; its heartbeat moves with everything that it writes."""

    def __init__(self, **changes: float) -> None:
        self.state = Handshake(**{"ack_s": 1.0, "result_s": 2.0, **changes})
        self.now, self.effects = 0.0, list[Effect]()
        self.wait(0.0)
        self.says(E)

    def says(self, bits: Command, number: int = 0, *, beats: bool = True, **changes: object) -> list[Effect]:
        beat = self.state.commands.heartbeat + beats
        said = Commands(**{"bits": bits, "trigger_no": number, "heartbeat": beat, **changes})
        self.state, effects = self.state.written(said, self.now)
        self.effects += effects
        return effects

    def wait(self, seconds: float, can_judge: bool = True) -> list[Effect]:
        self.now += seconds
        self.state, effects = self.state.tick(self.now, can_judge)
        self.effects += effects
        return effects

    def ends(self, serial: int, outcome: Outcome = OK) -> None:
        self.state = self.state.finished(serial, outcome, self.now)

    @property
    def status(self) -> Status:
        return self.state.shown().status

    def triggers(self, number: int) -> list[Effect]:
        effects = self.says(E | T, number)
        self.says(E, number)
        return effects


def test_one_cycle():
    plc = Plc()
    assert plc.status == Status.ONLINE | Status.TRIGGER_READY
    (effect,) = plc.says(E | T, 7, part_id="4711", lot="A")
    assert isinstance(effect, Judge) and effect.trigger == (7, 7, "4711", "A", 0.0)
    assert plc.status == Status.ONLINE | Status.TRIGGER_ACK | Status.INSPECTING
    plc.says(E, 7)
    assert plc.status == Status.ONLINE | Status.INSPECTING
    plc.state = plc.state.imaged(7)
    assert Status.EXPOSURE_DONE in plc.status and not is_good(encode(plc.state.shown()), 7)
    plc.ends(7)
    assert plc.status == Status.ONLINE | Status.RESULTS_VALID and is_good(encode(plc.state.shown()), 7)
    plc.says(E | A, 7)
    assert plc.status == Status.ONLINE and plc.state.shown().verdict is Verdict.NONE
    plc.says(E, 7)
    assert plc.status == Status.ONLINE | Status.TRIGGER_READY and plc.effects == [effect]


def test_a_trigger_without_ready_is_missed_and_another_part_is_bad():
    plc = Plc()
    plc.triggers(1)
    (other,) = plc.triggers(2)
    assert isinstance(other, Refuse) and other.trigger.number == 2 and other.cause is Cause.OVERRUN
    assert plc.triggers(2) == []  # the same part again: it has its row
    assert plc.state.missed == 2 and plc.state.error is Error.MISSED and Status.ERROR in plc.status
    plc.says(E | Command.CLEAR_ERROR)
    assert Status.ERROR not in plc.status and plc.state.missed == 2
    plc.ends(other.trigger.serial)  # the row of the missed part is no result
    assert not plc.state.results_valid
    plc.ends(1)
    assert plc.state.shown().trigger_no == 1
    plc.says(Command(0))
    (disabled,) = plc.triggers(3)
    assert isinstance(disabled, Refuse) and disabled.cause is Cause.NOT_READY


def test_the_number_of_the_part_before_is_a_bad_part_and_numbers_wrap():
    plc = Plc()
    serials = []
    for number in (65535, 0, 0, 7):
        (effect,) = plc.triggers(number)
        assert isinstance(effect, Refuse if len(serials) == 2 else Judge)
        serials.append(effect.trigger.serial)
        plc.ends(serials[-1])
        plc.says(E | A)
        plc.says(E)
    assert serials == [65535, NUMBERS, 2 * NUMBERS, 2 * NUMBERS + 7] and plc.state.error is Error.REPEATED


def test_unacknowledged_results_wait_in_order_up_to_the_buffer():
    plc = Plc()
    for number in range(1, BUFFER + 1):
        plc.triggers(number)
        plc.ends(number)
        assert Status.TRIGGER_READY not in plc.status or number > 1
        plc.wait(1.1)
        plc.says(E)
        assert Status.RESULTS_OVERRUN in plc.status
    assert plc.state.error is Error.BUFFER_FULL and not plc.state.ready
    seen = []
    for _ in range(BUFFER):
        seen.append(plc.state.shown().trigger_no)
        plc.says(E | A)
        plc.says(E)
    assert seen == [*range(1, BUFFER + 1)] and plc.status & Status.RESULTS_OVERRUN == 0 and plc.state.ready


def test_without_heartbeat_nothing_is_valid_and_with_it_the_result_is_there_again():
    plc = Plc()
    plc.triggers(1)
    plc.ends(1)
    plc.wait(SILENT_SECONDS)
    assert plc.state.shown().verdict is Verdict.NONE and plc.status == Status.ERROR | Status.RESULTS_OVERRUN
    assert plc.state.error is Error.NO_HEARTBEAT
    plc.says(E, beats=False)
    assert not plc.state.results_valid
    plc.says(E)
    assert is_good(encode(plc.state.shown()), 1)


def test_without_enable_everything_is_forgotten_but_the_part_that_is_judged():
    plc = Plc()
    plc.triggers(1)
    plc.says(Command(0))
    plc.says(E)
    assert Status.INSPECTING in plc.status and not plc.state.ready
    plc.ends(1)
    assert plc.status == Status.ONLINE | Status.TRIGGER_READY
    plc.triggers(2)
    plc.ends(2)
    plc.says(E | Command.GO_OFFLINE)
    assert plc.status == Status(0)
    plc.says(Command(0))
    plc.says(E)
    assert plc.state.ready and not plc.state.results_valid


def test_a_part_without_row_is_bad_at_its_limit():
    plc = Plc()
    plc.triggers(1)
    (effect,) = plc.wait(2.1)
    assert isinstance(effect, Refuse) and effect.cause is Cause.TIMEOUT
    shown = plc.state.shown()
    assert (shown.verdict, shown.trigger_no, shown.inspection) == (Verdict.ERROR, 1, 0)
    assert plc.state.error is Error.NO_RESULT
    plc.ends(1)  # too late
    assert plc.state.shown().verdict is Verdict.ERROR


def test_recipe_stop_and_a_station_that_is_not_ready():
    plc = Plc()
    assert plc.says(E | Command.SET_RECIPE, recipe=4) == [SetRecipe(4)]
    assert Status.TRIGGER_READY not in plc.status
    plc.state = plc.state.recipe_set(False)
    assert plc.status & (Status.RECIPE_FAILED | Status.TRIGGER_READY) == Status.RECIPE_FAILED
    assert plc.state.error is Error.NO_RECIPE
    assert plc.says(E) == [] and Status.RECIPE_FAILED not in plc.status
    assert plc.says(E | Command.STOP_ACK) == [StopSeen()] and plc.says(E | Command.STOP_ACK) == []
    assert plc.says(E | Command.START_GOLDEN) == [StartGolden()]
    plc.wait(0.0, can_judge=False)
    assert plc.status == Status.ERROR


STEPS = st.one_of(
    st.tuples(st.just("says"), st.integers(0, 255), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.1, 3.0]), st.booleans()),
    st.tuples(st.just("ends"), st.sampled_from(Verdict), st.booleans()),
)


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=50, deadline=None)
def test_whatever_a_plc_does_only_committed_results_of_its_own_triggers_are_valid(steps):
    plc, committed, taken = Plc(), {}, {}
    for step, *values in steps:
        if step == "says":
            bits, number, beats = values
            was_ready = plc.state.ready
            effects = plc.says(Command(bits), number, beats=beats)
            taken |= {
                effect.trigger.serial: effect for effect in effects if isinstance(effect, Judge | Refuse)
            }
            assert was_ready or not any(isinstance(effect, Judge) for effect in effects)
        elif step == "wait":
            plc.wait(*values)
        elif plc.state.trigger is not None:  # the row of this part, or of another one
            verdict, own = values
            outcome = Outcome(verdict, inspection=len(committed) + 1)
            serial = plc.state.trigger.serial
            if own:
                committed[outcome.inspection] = (plc.state.trigger.number, verdict)
            plc.ends(serial if own else serial + 1, outcome)
        shown = plc.state.shown()
        valid = Status.RESULTS_VALID in shown.status
        if valid and shown.inspection:
            assert committed[shown.inspection] == (shown.trigger_no, shown.verdict)
        elif valid:
            assert shown.verdict is FAILED.verdict
        else:
            assert (shown.verdict, shown.trigger_no, shown.inspection) == (Verdict.NONE, 0, 0)
        assert len(plc.state.results) <= BUFFER
        assert not (Status.TRIGGER_READY in shown.status and Status.INSPECTING in shown.status)
        assert not valid or plc.state.alive
    serials = [effect.trigger.serial for effect in taken.values()]
    assert serials == sorted(set(serials))  # each trigger has its own number in the store
