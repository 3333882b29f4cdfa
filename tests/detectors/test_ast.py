"""AST: sizes of the published networks, its two losses, its two scores."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from andon.detectors.ast import AST, ASTConfig, enlarged_max
from andon.layers.flow import Flow
from andon.layers.residual_student import ResidualStudent
from andon.nn.backbones import count_parameters, multiply_adds
from andon.nn.training import Trainer

SMALL = {
    "extractor.network": "resnet18",
    "extractor.weights": "random",
    "extractor.taps": ["layer2"],
    "extractor.image_size": 64,
    "extractor.static_same_padding": False,
    "extractor.project": 8,
    "teacher.hidden": 8,
    "teacher.kernels": [3, 3],
    "student.width": 8,
    "student.blocks": 1,
}


def detector(**changes: object) -> AST:
    return AST(ASTConfig().updated(SMALL | {k.replace("__", "."): v for k, v in changes.items()}))


@pytest.mark.parametrize(
    ("channels", "hidden", "parameters", "gmac"),
    [
        (304, 1024, 51_980_680, 29.94),
        (304, 64, 3_251_080, 1.87),
        (64, 64, 853_000, 0.49),
        (368, 64, 3_890_568, 2.24),
    ],
)
def test_flow_has_the_published_size(channels, hidden, parameters, gmac):
    flow = Flow(channels, 32, hidden, (3, 3, 3, 5), 3.0)
    assert count_parameters(flow) == parameters
    if hidden == 64:  # the large one takes seconds
        inputs = torch.zeros(1, channels, 24, 24), torch.zeros(1, 32, 24, 24)
        assert multiply_adds(flow, *inputs) / 1e9 == pytest.approx(gmac, abs=0.005)


@pytest.mark.parametrize(
    ("channels", "parameters", "gmac"),
    [(304, 81_421_616, 46.88), (64, 76_997_696, 44.34), (368, 82_601_328, 47.56)],
)
def test_student_has_the_published_size(channels, parameters, gmac):
    """I-10."""
    with torch.device("meta"):
        student = ResidualStudent(channels + 32, channels).eval()
        work = multiply_adds(student, torch.empty(1, channels + 32, 24, 24))
    assert count_parameters(student) == parameters
    assert work / 1e9 == pytest.approx(gmac, abs=0.005)


def test_losses_are_those_of_the_paper():
    """Eq. 2 and Eq. 4, written out."""
    model = detector()
    f = torch.randn(3, *model.adapter.shape)
    for parameter in model.teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    z, log_det = model.flow(f)
    by_hand = (0.5 * (z**2).sum(1) - log_det).mean()
    inputs = model.joined(f, None)
    assert model.teacher_loss(inputs).item() == pytest.approx(by_hand.item(), rel=1e-6)
    s = model.student(torch.cat([model.position.expand(3, -1, -1, -1), f], 1))
    assert model.student_loss(inputs).item() == pytest.approx(F.mse_loss(s, z).item(), rel=1e-5)
    model.student_loss(inputs).backward()
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize(("limit", "steps"), [(None, 3 * 2), (4, 4), (1, 2)])
def test_max_steps_ends_each_stage_after_whole_epochs(limit, steps):
    model = detector(max_steps=limit, batch_size=2, teacher__epochs=3, student__epochs=3)
    f = torch.randn(4, *model.adapter.shape)
    trainer = Trainer(device="cpu")
    for stage, loss in (("teacher", model.teacher_loss), ("student", model.student_loss)):
        model._minimise(stage, loss, model.joined(f, None), model.joined(f[:0], None), trainer)
        assert trainer.stages[stage].steps == steps


def test_scores():
    images = torch.rand(2, 3, 64, 64)
    mean, largest = detector(), detector(score="max")
    largest.load_state_dict(mean.state_dict())
    with torch.inference_mode():
        a, b = mean.analyse(images), largest.analyse(images)
    assert torch.equal(a.anomaly_map, b.anomaly_map)
    torch.testing.assert_close(a.score, a.anomaly_map.mean((1, 2, 3)))
    torch.testing.assert_close(b.score, enlarged_max(b.anomaly_map))
    assert {"mean_map", "max_map", "teacher_mean", "teacher_max"} == set(a.extras)


def test_a_student_equal_to_its_teacher_finds_nothing():
    model = detector()
    f = torch.randn(1, *model.adapter.shape)
    z = model.flow(f)[0]
    model.student.forward = lambda _: z
    assert torch.count_nonzero(model.distance(z, f)) == 0
