"""What a station judges by, and what keeps it from judging: base of `Station`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from andon.line.faults import STOPS_ALL, Fault
from andon.line.judge import Judging, Thresholds
from andon.line.parts import InUse

VERIFYING = "the model is being verified"


class Readiness(ABC):
    """Model, thresholds and recipe, which change between two parts; whether parts are judged; what fails."""

    def __init__(self, in_use: InUse) -> None:
        """`in_use` has yet to pass its self-check."""
        self._news = threading.Condition()
        self._in_use, self._preparing = in_use, VERIFYING
        self._awaited: dict[Fault, str] = {}
        """What has to be heard before the first part, though nothing failed, by the fault that it may become."""
        self._suspended, self._let_in = "", ""
        """Why no part is taken though nothing fails; the request that is taken nevertheless."""
        self._passed: Judging | None = None
        self._faults: dict[Fault, str] = {}

    @abstractmethod
    def _changed(self) -> None:
        """`holds` or `faults` changed."""

    def set_thresholds(self, thresholds: Thresholds, of: Judging | None = None) -> None:
        """Judge by other thresholds from the next part on; unless they are `of` a model that is no longer in use."""
        with self._news:
            if of in (None, self._in_use.judge):
                self._in_use = self._in_use._replace(thresholds=thresholds)

    def set_model(self, judge: Judging, thresholds: Thresholds | None = None) -> None:
        """Judge by another model from the next part on, by default with its own thresholds.

        Raises `AndonError` where its self-check fails; the model before stays then.
        """
        judge.self_check()
        self.use(InUse(judge, thresholds or judge.thresholds))

    def use(self, chosen: InUse) -> None:
        """Judge by a model that has passed its self-check, from the next part on; ends a `pause`."""
        with self._news:
            self._in_use, self._passed, self._preparing = chosen, chosen.judge, ""
            self._faults.pop(Fault.MODEL, None)
        self._changed()

    @property
    def thresholds(self) -> Thresholds:
        """Those for the next part."""
        return self._in_use.thresholds

    @property
    def model(self) -> Judging:
        """The model for the next part."""
        return self._in_use.judge

    @property
    def recipe(self) -> str | None:
        """Code of the recipe for the next part; None without one."""
        return self._in_use.recipe

    @property
    def has_passed(self) -> bool:
        """Whether the model has passed its self-check."""
        return self._passed is self._in_use.judge

    @property
    def preparing(self) -> str:
        """What is waited for while no part is judged; empty where parts are."""
        return self._preparing

    @property
    def is_verified(self) -> bool:
        """Whether parts are judged: the model has passed its self-check, no other is being prepared, nothing halted it."""
        return not self._preparing and Fault.HALTED not in self._faults

    @property
    def holds(self) -> str:
        """Why no part that comes may be OK now, whatever its source; empty where parts are judged."""
        return self.holding()

    def holding(self, *, besides: Fault | None = None) -> str:
        """What `holds`, without one fault and what may become it."""
        return self._blocking(besides) or self._suspended

    @property
    def blocks(self) -> str:
        """Why no part may be OK now, those on their way included."""
        return self._blocking(None)

    def _blocking(self, besides: Fault | None) -> str:
        with self._news:
            failing = [why for fault, why in self._faults.items() if fault in STOPS_ALL - {besides}]
            awaited = [why for fault, why in self._awaited.items() if fault is not besides]
            return "; ".join(failing) or self._preparing or "; ".join(awaited)

    @property
    def suspended(self) -> str:
        """Why a station that could judge takes no parts; empty otherwise."""
        return "" if self.blocks else self._suspended

    def suspend(self, why: str | None, *, let_in: str = "", drop: bool = False) -> None:
        """Take no part but that of the request `let_in` while there is a reason `why`; None: take parts again.

        Parts that wait are judged; `drop`: they become ERROR (`not_ready`).
        """
        with self._news:
            self._suspended, self._let_in = why or "", let_in
        if drop:
            self._drop(self._suspended)
        self._changed()

    def release(self) -> None:
        """Take and judge parts again: ends what other machines did, `suspend` and a halt."""
        self.suspend(None)
        self.set_fault(Fault.HALTED, None)

    @abstractmethod
    def _drop(self, why: str) -> None:
        """Make ERROR (`not_ready`) of what has no verdict yet."""

    @property
    def faults(self) -> dict[Fault, str]:
        """What fails now, with the reason."""
        with self._news:
            return dict(self._faults)

    def expect(self, fault: Fault, why: str | None) -> None:
        """Judge no part before another machine is heard, for the reason `why`; None: it was. `fault`: that it is not."""
        with self._news:
            before = dict(self._awaited)
            self._awaited = {**before, fault: why} if why else {k: v for k, v in before.items() if k != fault}
            changed = self._awaited != before
        if changed:
            self._changed()

    def set_fault(self, name: Fault, why: str | None) -> None:
        """Note that something fails, or with None that it does not any more."""
        with self._news:
            changed = why is not None if name not in self._faults else why is None
            if why is None:
                self._faults.pop(name, None)
            else:
                self._faults[name] = why
        if changed:
            self._changed()
