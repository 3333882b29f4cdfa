"""Sanity checks: bounds, the share of variance against scikit-learn, and what moved where nothing should have."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score
from tiny import TINY

from andon.datasets import open_dataset
from andon.detectors.ast import AST, ASTConfig
from andon.detectors.efficientad_ast.detector import EfficientADAST
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig
from andon.nn.sanity_checks import FEWEST_HELD_OUT, Explained, SanityCheck, fingerprints
from andon.nn.training import Trainer
from andon.thresholds.rules import smallest_n


def test_fewest_images_are_those_of_the_conformal_rule():
    assert smallest_n(0.05) == FEWEST_HELD_OUT


@pytest.mark.parametrize(
    ("check", "passed", "wanted"),
    [
        (SanityCheck("a", 0.8, least=0.8), True, "at least 0.8"),
        (SanityCheck("a", 0.79, least=0.8), False, "at least 0.8"),
        (SanityCheck("a", 1, most=0), False, "at most 0"),
        (SanityCheck("a", 0.5, least=0, most=1), True, "at least 0 and at most 1"),
        (SanityCheck("a", math.nan, least=0), False, "at least 0"),
        (SanityCheck("a", math.inf, least=0), False, "at least 0"),
    ],
)
def test_bounds(check: SanityCheck, passed: bool, wanted: str):
    assert (check.passed, check.wanted) == (passed, wanted)
    again = SanityCheck.from_json(json.loads(json.dumps(check.to_json(), allow_nan=False)))
    assert (again.passed, again.wanted) == (passed, wanted)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000), st.floats(0, 100))
def test_explained_variance_is_r2(pictures: int, channels: int, seed: int, offset: float):
    """Against scikit-learn's R², channels weighed by their variance."""
    random = np.random.default_rng(seed)
    target = random.normal(size=(pictures, channels, 3, 4)) + offset
    answer = target + random.normal(size=target.shape) * random.uniform(0, 2)
    explained = Explained()
    for t, a in zip(target, answer, strict=True):
        explained.add(torch.from_numpy(t)[None], torch.from_numpy(a)[None])
    flat = [x.transpose(0, 2, 3, 1).reshape(-1, channels) for x in (target, answer)]
    expected = r2_score(*flat, multioutput="variance_weighted")
    assert explained.share == pytest.approx(expected, abs=1e-6)


def test_nothing_to_explain_is_no_share():
    explained = Explained()
    explained.add(torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3))
    assert math.isnan(explained.share)


def test_fingerprints_see_buffers_and_parameters():
    norm = torch.nn.BatchNorm2d(2)
    before = fingerprints({"norm": norm})
    norm(torch.randn(2, 2, 3, 3))
    after = fingerprints({"norm": norm})
    assert {name for name in before if before[name] != after[name]} == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    assert fingerprints({"norm": norm}) == after


def sanity_checks(trainer: Trainer) -> dict[str, SanityCheck]:
    found = [
        SanityCheck.from_json(values) for stage in trainer.stages.values() for values in stage.sanity_checks
    ]
    return {check.name: check for check in found}


def fitted(mode: str) -> dict[str, SanityCheck]:
    data = open_dataset("embedded:fabric,profile=tiny,size=128")
    settings = TINY["efficientad_ast"] | {"extractor.mode": mode}
    trainer = Trainer(seed=0, device="cpu")
    EfficientADAST(EfficientADASTConfig().updated(settings)).fit(data.train, data.validation, trainer=trainer)
    return sanity_checks(trainer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the threshold")  # of a drifted extractor after seconds of learning
def test_an_extractor_that_drifts_is_seen():
    """D1: the published model runs private extractors in train mode; the repaired one moves none."""
    name = "frozen tensors that learning changed"
    assert fitted("eval")[name].value == 0
    drifted = fitted("train")[name]
    assert drifted.value > 0
    assert not drifted.passed


@pytest.mark.filterwarnings("ignore:the threshold")
def test_a_student_that_learned_explains_more():
    """Of the same latents: a student after training against one without."""
    data = open_dataset("embedded:fabric,profile=tiny,size=128")
    share = []
    for epochs in (1, 8):
        detector = AST(ASTConfig().updated(TINY["ast"] | {"student.epochs": epochs, "optimiser.lr": 3e-3}))
        trainer = Trainer(seed=0, device="cpu")
        detector.fit(data.train, data.validation, trainer=trainer)
        share.append(
            sanity_checks(trainer)["share of the teacher's variance that the student explains"].value
        )
    assert share[0] < share[1] < 1
