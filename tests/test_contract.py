"""The contract of `andon.testing` on every detector of andon. A new one needs a line in `tiny.py` and nothing else."""

from __future__ import annotations

from functools import cache

import pytest
from tiny import TINY

from andon.detectors._registry import detector_class, own_names
from andon.testing import Check, Trial, checks

LONG = {"exports_to_onnx", "judges_alike_images_alike"}
"""Checks that export a network (as the default tests of the export do) or fit once more."""


def pairs() -> list[object]:
    """Every detector with every check; one process runs all checks of a detector."""
    return [
        pytest.param(
            name,
            check,
            id=f"{name}-{check}",
            marks=[
                pytest.mark.xdist_group(name),
                *([pytest.mark.slow] if check.name in LONG else []),
            ],
        )
        for name in own_names()
        for check in checks()
    ]


@cache
def trial(name: str) -> Trial:
    """Fitted once for all checks."""
    return Trial(detector_class(name), **{key.replace(".", "__"): value for key, value in TINY[name].items()})


@pytest.mark.parametrize(("name", "check"), pairs())
def test_contract(name: str, check: Check):
    check(trial(name))
