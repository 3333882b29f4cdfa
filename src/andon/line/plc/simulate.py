"""A simulated PLC: it plays cycles with one station, some of them with faults, and checks everything that it reads."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from andon.line.plc.handshake import NUMBERS
from andon.line.plc.master import PlcError
from andon.line.plc.registers import Command, Commands, Results, Status, decode
from andon.line.simulate import percentiles
from andon.line.verdicts import Verdict

EARLY = "early acknowledgement"
FAULTS = ("pause", "connection dropped", "trigger twice", "another trigger", EARLY)
"""Taken by chance."""
LONGEST_PAUSE = 0.05
RESULT_SECONDS, ANSWER_SECONDS = 60.0, 10.0
"""How long a result, or the answer to a level, is waited for."""
AGAIN_SECONDS = 0.2
"""Pause before a broken connection is tried again."""


class Wire(Protocol):
    """How a PLC exchanges registers with the station. All methods raise `PlcError`."""

    def read(self) -> list[int]:
        """The block of the station."""

    def write(self, commands: Commands) -> None:
        """The block of the PLC, whose levels the station sees."""

    def drop(self) -> None:
        """Break the connection."""


class Lost(Exception):  # noqa: N818 (ends a cycle)
    """The PLC gave its result away."""


class Broken(Exception):  # noqa: N818 (ends a cycle)
    """The handshake does not go on."""


@dataclass
class Result:
    """What a PLC saw."""

    cycles: int = 0
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)
    """Cycles by verdict; `none`: no valid result, the part is bad."""
    faults: Counter[str] = field(default_factory=Counter)
    refused: list[int] = field(default_factory=list)
    """Numbers that were triggered while the station was not ready; each is one more row, ERROR."""
    violations: list[str] = field(default_factory=list)
    """Where the station broke the rules."""
    ms: list[float] = field(default_factory=list)
    """From the request that triggers to the answer with the valid result, cycles without fault."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "cycles": self.cycles,
            "per_minute": round(60 * self.cycles / self.seconds, 1) if self.seconds else None,
            "verdicts": dict(sorted(self.verdicts.items())),
            "faults": dict(sorted(self.faults.items())),
            "violations": self.violations,
            "ms": percentiles(self.ms),
        }


class Plc:
    """Plays cycles. `image(number)` is called after a trigger was acknowledged; it must not wait."""

    def __init__(
        self,
        wire: Wire,
        *,
        poll_s: float = 0.01,
        image: Callable[[int], object] = lambda number: None,
        seed: int = 0,
    ) -> None:
        self._wire, self._poll_s, self._image = wire, poll_s, image
        self._random = random.Random(seed)
        self._commands, self._beat = Commands(), 0
        self._own: set[int] = set()
        """Numbers of which a result may be valid."""
        self.result = Result()

    def run(self, cycles: int, *, rate: float | None = None, faults: float = 0.0, first: int = 1) -> Result:
        """Play `cycles`, `rate` a second or as fast as possible, a share of `faults` with a fault."""
        self._say(Command(0))
        number, begin = first, time.perf_counter()
        for cycle in range(cycles):
            if rate is not None:
                self._pause_until(begin + cycle / rate)
            fault = self._random.choice(FAULTS) if self._random.random() < faults else ""
            self.result.faults[fault] += bool(fault)
            number = (self._cycle(number, fault) + 1) % NUMBERS
        self.result.cycles, self.result.seconds = cycles, time.perf_counter() - begin
        self.result.faults += Counter()  # leaves out those that did not happen
        return self.result

    # One cycle ----------------------------------------------------------------------------------------------------

    def _cycle(self, number: int, fault: str) -> int:
        """Play one cycle; returns the last number that was used."""
        last, verdict = number, "none"
        try:
            self._wait(Status.TRIGGER_READY, True, RESULT_SECONDS)
            begin = time.perf_counter()
            self._say(Command.TRIGGER, number)
            self._own = {number}
            self._wait(Status.TRIGGER_ACK, True)
            self._image(number)
            last = self._disturb(number, fault)
            self._say(Command(0), last)
            self._wait(Status.TRIGGER_ACK, False)
            if fault == EARLY:  # may have acknowledged a result that it had not read: the part is bad then
                self._wait(Status.INSPECTING, False, RESULT_SECONDS)
                if Status.RESULTS_VALID not in self._read().status:
                    raise Lost
            found = self._wait(Status.RESULTS_VALID, True, RESULT_SECONDS)
            if not fault:
                self.result.ms.append((time.perf_counter() - begin) * 1e3)
            if found.trigger_no == number:
                verdict = found.verdict.name
            self._say(Command.RESULTS_ACK, last)
            self._wait(Status.RESULTS_VALID, False)
            self._own = set()
            self._say(Command(0), last)
        except Lost:
            pass
        except Broken as error:
            self.result.violations.append(f"part {number}: {error}")
            with contextlib.suppress(Broken):
                self._say(Command(0), last)
        self.result.verdicts[verdict] += 1
        return last

    def _disturb(self, number: int, fault: str) -> int:
        """Do something that a PLC should not; returns the last number that was used."""
        if fault == "pause":
            time.sleep(self._random.random() * LONGEST_PAUSE)
        elif fault == "connection dropped":
            self._wire.drop()
        elif fault == "trigger twice":
            self._say(Command(0), number)
            self._say(Command.TRIGGER, number)
        elif fault == "another trigger":
            self._say(Command(0), number)
            number = (number + 1) % NUMBERS
            self._say(Command.TRIGGER, number)
            self.result.refused.append(number)
        elif fault == EARLY:
            self._say(Command.TRIGGER | Command.RESULTS_ACK, number)
            time.sleep(self._random.random() * LONGEST_PAUSE)
        return number

    # On the wire --------------------------------------------------------------------------------------------------

    def _say(self, bits: Command, number: int = 0) -> None:
        """Write all registers; the heartbeat moves each time."""
        self._beat = (self._beat + 1) % NUMBERS
        said = Commands(
            Command.ENABLE | bits, number, heartbeat=self._beat, part_id=f"part {number}", lot="simulated"
        )
        self._again(lambda: self._wire.write(said))
        self._commands = said

    def _wait(self, bit: Status, level: bool, seconds: float = ANSWER_SECONDS) -> Results:
        """Read until a status bit has this level. Raises `Broken`."""
        begin = beaten = time.perf_counter()
        while True:
            found = self._read()
            if (bit in found.status) is level:
                return found
            now = time.perf_counter()
            if now - begin > seconds:
                raise Broken(f"{bit.name} did not become {int(level)} within {seconds:g} s")
            if now - beaten > 0.5:
                self._say(self._commands.bits & ~Command.ENABLE, self._commands.trigger_no)
                beaten = now
            time.sleep(self._poll_s)

    def _read(self) -> Results:
        """The block of the station, checked."""
        words = self._again(self._wire.read)
        found = decode(words)
        if words[1] + words[2] != 0xFFFF:
            self.result.violations.append(f"verdict {words[1]} with complement {words[2]}")
        valid = Status.RESULTS_VALID in found.status
        if not valid and found.verdict is not Verdict.NONE:
            self.result.violations.append(f"{found.verdict.name} without results_valid")
        if valid and found.trigger_no not in self._own:
            self.result.violations.append(f"a result of part {found.trigger_no}, which was not triggered")
        return found

    def _again(self, ask: Callable[[], Any]) -> Any:
        """Ask until the server answers. Raises `Broken` when it has not for long."""
        end = time.perf_counter() + RESULT_SECONDS
        while True:
            try:
                return ask()
            except PlcError as error:
                if time.perf_counter() > end:
                    raise Broken(str(error)) from None
                time.sleep(AGAIN_SECONDS)

    def _pause_until(self, moment: float) -> None:
        """Wait, and keep the heartbeat moving."""
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(min(left, 0.5))
            if left > 0.5:
                self._say(Command(0), self._commands.trigger_no)
