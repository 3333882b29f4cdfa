"""Epochs can be selected by synthetic anomalies."""

from __future__ import annotations

import pytest
from tiny import TINY

from andon.core.errors import DataError
from andon.datasets import open_dataset
from andon.detectors.ast import AST, ASTConfig
from andon.detectors.efficientad_ast.detector import EfficientADAST
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig
from andon.nn.training import Trainer

CASES = {
    "ast": (AST, ASTConfig(), {"teacher.epochs": 1, "student.epochs": 2}),
    "efficientad_ast": (EfficientADAST, EfficientADASTConfig(), {"teacher.epochs": 1, "epochs": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("detector", CASES)
@pytest.mark.filterwarnings("ignore:the threshold")
def test_epochs_are_judged_on_them(detector):
    data = open_dataset("embedded:fabric,profile=tiny,size=128")
    cls, config, epochs = CASES[detector]
    fitted = cls(config.updated(TINY[detector] | {"selection": "synthetic"} | epochs))
    trainer = Trainer(seed=0, device="cpu")
    fitted.fit(data.train, data.validation, trainer=trainer)
    judged = trainer.stages["student"].judged
    assert judged
    assert all({"image_auroc", "pixel_auroc"} <= set(epoch) for epoch in judged)
    with pytest.raises(DataError, match="selection=synthetic needs held-out good pictures"):
        fitted.fit(data.train)
