"""The contract of all detectors as public checks, for detectors of other packages too.

    from andon.testing import check_detector
    check_detector(MyDetector, width=8)             # raises AssertionError that names every broken promise

With pytest, one test for each promise, fitted once:

    trial = Trial(MyDetector, width=8)

    @pytest.mark.parametrize("check", checks(), ids=str)
    def test_contract(check):
        check(trial)

A check raises `AssertionError` with the broken promise, or `unittest.SkipTest` where it does not apply. The images are
64 x 64 pixels and drawn here: a woven texture, with a bright square as the defect. Choose settings at which the detector
learns that in seconds. Nothing is downloaded, and pytest is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from unittest import SkipTest

from andon.detectors._base import Detector
from andon.testing.promises import CHECKS, Check
from andon.testing.trial import Trial

__all__ = ["Check", "CheckResult", "Trial", "check_detector", "checks"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check."""

    name: str
    outcome: Literal["passed", "skipped", "failed"]
    reason: str = ""
    """Why it was skipped or failed; empty where it passed."""


def checks() -> list[Check]:
    """All checks of the contract, in the order in which a new detector is best brought to pass them."""
    return list(CHECKS)


def check_detector(cls: type[Detector], **settings: Any) -> list[CheckResult]:
    """Run all checks on a detector class at these settings; returns their results.

    Raises `AssertionError` that names every failed check with its reason.
    """
    trial = Trial(cls, **settings)
    results, first = [], None
    for check in checks():
        try:
            check(trial)
            results.append(CheckResult(check.name, "passed"))
        except SkipTest as reason:
            results.append(CheckResult(check.name, "skipped", str(reason)))
        except Exception as error:  # whatever a detector raises is a broken promise
            first = first or error
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            results.append(CheckResult(check.name, "failed", kind + " ".join(str(error).split())))
    failed = [result for result in results if result.outcome == "failed"]
    if failed:
        lines = "\n".join(f"  {result.name}: {result.reason}" for result in failed)
        raise AssertionError(
            f"{cls.__name__} fails {len(failed)} of {len(results)} checks:\n{lines}"
        ) from first
    return results
