"""What a station judges by, and what keeps it from judging: base of `Station`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from andon.line.judge import Judging, Thresholds
from andon.line.parts import InUse

VERIFYING = "the model is being verified"
HALTED = "halted"
"""Fault of a station that another machine halted."""


class Readiness(ABC):
    """Model, thresholds and recipe, which change between two parts; whether parts are judged; what fails."""

    def __init__(self, in_use: InUse) -> None:
        """`in_use` has yet to pass its self-check."""
        self._news = threading.Condition()
        self._in_use, self._preparing = in_use, VERIFYING
        self._halted = ""
        """Why no part is judged though the model is verified; empty where parts are."""
        self._passed: Judging | None = None
        self._faults: dict[str, str] = {}

    @abstractmethod
    def _changed(self) -> None:
        """`is_verified` or `faults` changed."""

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
            self._faults.pop("model", None)
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
        return not (self._preparing or self._halted)

    @property
    def faults(self) -> dict[str, str]:
        """What fails now (`model`, `judge`, `store`), with the reason."""
        with self._news:
            return dict(self._faults)

    def set_fault(self, name: str, why: str | None) -> None:
        """Note that something fails, or with None that it does not any more."""
        with self._news:
            changed = why is not None if name not in self._faults else why is None
            if why is None:
                self._faults.pop(name, None)
            else:
                self._faults[name] = why
        if changed:
            self._changed()
