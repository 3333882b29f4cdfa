"""Research directions of EfficientAD-AST: further students, bank inputs, labelled defects, the hard-feature loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tiny import TINY

from andon.core.errors import ConfigError
from andon.core.images import load_batch
from andon.datasets import open_dataset
from andon.detectors._depth import Inputs
from andon.detectors.efficientad_ast import EfficientADASTVariants, VariantsConfig
from andon.detectors.efficientad_ast.bank_inputs import NEAREST, BankInputs, extra_channels
from andon.detectors.efficientad_ast.defect_labels import (
    CalibratedHead,
    boundary_loss,
    chosen_cells,
    defect_cells,
    margin_loss,
)
from andon.detectors.efficientad_ast.further_students import error_and_spread, student_of_kind
from andon.layers.flow import negative_log_likelihood
from andon.nn.training import Trainer, seeded

pytestmark = pytest.mark.slow

KINDS = ("residual", "plain", "dilated", "positionwise")
INPUTS = ("residual", "distances", "neighbours")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# V3: several students -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reach"), [("positionwise", 0), ("plain", 4), ("residual", 6), ("dilated", 15)]
)
def test_receptive_fields_of_the_students(kind: str, reach: int):
    torch.manual_seed(0)
    student = student_of_kind(kind, 6, 4, 16).eval()
    x = noise(1, 6, 33, 33).requires_grad_()
    # A sum of squares: GroupNorm ties every cell to every other, so it is left out of the measurement.
    for module in student.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda values: values
    output = student(x)
    assert output.shape == (1, 4, 33, 33)
    (gradient,) = torch.autograd.grad(output[0, :, 16, 16].square().sum(), x)
    rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
    assert max(int((rows - 16).abs().max()), int((columns - 16).abs().max())) == reach


@settings(deadline=None, max_examples=20)
@given(students=st.integers(1, 5), channels=st.integers(1, 6), seed=st.integers(0, 99))
def test_error_and_spread_are_those_of_the_formula(students: int, channels: int, seed: int):
    target = noise(2, channels, 3, 4, seed=seed).double()
    outputs = [noise(2, channels, 3, 4, seed=seed + k + 1).double() for k in range(students)]
    mean = sum(outputs) / students
    error = (mean - target).square().sum(1) / channels
    spread = (sum(a.square().sum(1) for a in outputs) / students - mean.square().sum(1)) / channels
    torch.testing.assert_close(error_and_spread(target, outputs), torch.stack([error, spread], 1))


# V7: bank inputs ------------------------------------------------------------------------------------------------------


def bank(kind: str, share: float = 1.0) -> tuple[BankInputs, torch.Tensor]:
    features = noise(5, 6, 4, 4)
    layer = BankInputs(kind, 6)
    layer.fit(features, torch.arange(5), share, seeded("bank"))
    return layer, features


@pytest.mark.parametrize("kind", INPUTS)
def test_bank_inputs_are_those_of_a_plain_search(kind: str):
    layer, _ = bank(kind)
    f = noise(2, 6, 4, 4, seed=9)
    cells = f.permute(0, 2, 3, 1).reshape(-1, 6)
    distance = torch.linalg.norm(cells[:, None] - layer.bank_[None], dim=2)
    nearest, index = distance.sort(1)
    nearest, index = nearest[:, :NEAREST], index[:, :NEAREST]
    if kind == "residual":
        expected = torch.cat([cells, cells - layer.bank_[index[:, 0]]], 1)
    elif kind == "distances":
        expected = torch.cat([cells, (nearest - layer.scale_[:, 0]) / layer.scale_[:, 1]], 1)
    else:
        weights = torch.exp(-nearest.square())
        expected = (weights[:, :, None] * layer.bank_[index]).sum(1) / weights.sum(1, keepdim=True)
    got = layer(f)
    assert got.shape == (2, 6 + extra_channels(kind, 6), 4, 4)
    torch.testing.assert_close(
        got.permute(0, 2, 3, 1).reshape(len(cells), -1), expected, rtol=1e-4, atol=1e-5
    )


def test_a_training_image_does_not_find_its_own_cells():
    layer, features = bank("residual")
    as_new = layer(features)[:, 6:]
    as_own = layer(features, torch.arange(5))[:, 6:]
    assert as_new.abs().max() < 1e-6
    assert as_own.flatten(2).norm(dim=1).min() > 0.1


def test_a_bank_of_one_image_gives_inputs():
    layer = BankInputs("residual", 6)
    layer.fit(noise(1, 6, 4, 4), torch.zeros(1, dtype=torch.long), 0.5, seeded("one"))
    assert len(layer.bank_) == 8
    assert layer(noise(1, 6, 4, 4), torch.zeros(1, dtype=torch.long)).isfinite().all()


# V5: labelled defects -------------------------------------------------------------------------------------------------


def test_cells_to_learn_from():
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, :, :4, :4] = 1  # four whole cells of a 4 x 4 grid
    mask[1, :, 0, 0] = 1  # a quarter of one cell: the most defective one counts
    mask[2] = torch.nan  # only the image is labelled
    difference = noise(3, 4, 4).abs()
    cells = chosen_cells(defect_cells(mask, (4, 4)), difference)
    assert cells[0].sum() == 4 and cells[0, :2, :2].all()
    assert cells[1].nonzero().tolist() == [[0, 0]]
    assert cells[2].sum() == 1 and difference[2][cells[2]] == difference[2].max()


def test_margin_and_boundary_are_hinges_at_quantiles_of_good_cells():
    good, bad = noise(4, 10, 10).abs(), noise(2, 10, 10, seed=1).abs() * 3
    cells = bad > 1
    margin = 2 * np.quantile(good.numpy(), 0.995)
    expected = np.maximum(0, margin - bad[cells].numpy()).mean()
    assert float(margin_loss(good, bad, cells)) == pytest.approx(expected, rel=1e-5)
    boundary = np.quantile(-good.numpy(), 0.95)  # likelihoods may be negative
    expected = np.maximum(0, boundary + 0.1 * abs(boundary) - bad[cells].numpy()).mean()
    assert float(boundary_loss(-good, bad, cells)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_head_is_a_balanced_logistic_regression():
    maps = noise(6, 2, 8, 8)
    cells = torch.zeros(6, 8, 8, dtype=torch.bool)
    cells[4:, 2:5, 2:5] = True
    maps[:, 0][cells] += 1.5
    known = noise(6, 8, 8, seed=3) > -1
    head = CalibratedHead(2)
    head.fit(maps, cells, known)
    near = torch.nn.functional.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)
    x = torch.cat([maps, near], 1).permute(0, 2, 3, 1)
    used = x[known].double().numpy()
    mean, deviation = used.mean(0), used.std(0)
    oracle = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=1000)
    oracle.fit((used - mean) / deviation, cells[known].numpy())
    expected = oracle.decision_function((x.reshape(-1, 4).double().numpy() - mean) / deviation)
    np.testing.assert_allclose(head(maps)[:, 0].flatten().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_a_head_that_separates_stays_finite():
    maps = torch.zeros(2, 1, 4, 4)
    maps[1] = 1
    cells = maps[:, 0] > 0
    head = CalibratedHead(1)
    head.fit(maps, cells, torch.ones_like(cells))
    assert head.weight_.isfinite().all()
    assert (head(maps)[1] > 0).all() and (head(maps)[0] < 0).all()


# In the detector ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return open_dataset("embedded:fabric,profile=tiny,size=128")


SHORT = TINY["efficientad_ast"] | {"teacher.epochs": 2, "epochs": 2, "student.penalty": 0.0}


def learned(data, labelled: int = 0, **changes: object) -> EfficientADASTVariants:
    detector = EfficientADASTVariants(VariantsConfig().updated(SHORT | changes))
    defects = [record for record in data.test if record.label == 1][:labelled]
    trainer = Trainer(seed=1, device="cpu", precision="32-true")
    train, held_out = list(data.train)[3:], [*data.validation, *list(data.train)[:3]]
    return detector.fit(train, held_out, labelled=defects, trainer=trainer)


@pytest.fixture(scope="module")
def plain_score(data) -> float:
    return learned(data).predict(data.test[0].image).raw_score


@pytest.mark.parametrize(
    "changes",
    [
        {"others.kinds": ("plain", "positionwise"), "others.width": 16},
        {"bank.inputs": "residual", "student.penalty": 1.0},
        {"bank.inputs": "neighbours", "extractor.brightness": [0.9]},
        {"student.p_hard": 0.99, "student.hard_terms": "both"},
    ],
    ids=["others", "residual", "neighbours", "hard"],
)
def test_variants_learn_and_come_back(data, changes, plain_score, tmp_path):
    from andon.detectors._saving import load_detector

    detector = learned(data, **changes)
    detector.save(tmp_path / "detector")
    again = load_detector(tmp_path / "detector")
    image = data.test[0].image
    assert detector.predict(image).raw_score == again.predict(image).raw_score
    assert detector.predict(image).raw_score != plain_score


@pytest.mark.parametrize("terms", ["student", "both"])
def test_the_hardest_elements_of_one_term_or_of_both(terms):
    """V8: the quantile is that of each image over its C · h · w elements."""
    changes = {"student.p_hard": 0.9, "student.hard_terms": terms}
    detector = EfficientADASTVariants(VariantsConfig().updated(SHORT | changes))
    f = torch.randn(2, *detector.adapter.shape)
    with torch.no_grad():
        losses = detector.student_losses(detector.views(Inputs(f, torch.ones(2, 1, *f.shape[2:]))))
        z, a = detector.latent(f), detector.autoencoder(detector._with_position(f))
        s1, s2 = detector.student(detector._with_position(f)).chunk(2, dim=1)
    for name, difference, hard in (
        ("student", (z - s1).square(), True),
        ("student_autoencoder", (a - s2).square(), terms == "both"),
        ("autoencoder", (z - a).square(), False),
    ):
        rows = difference.flatten(1).double().numpy()
        worst = [row[row >= np.quantile(row, 0.9)].mean() for row in rows]
        expected = np.mean(worst) if hard else rows.mean()
        assert losses[name].item() == pytest.approx(expected, rel=1e-4), name


def test_further_students_change_the_student_map_alone(data):
    detector = learned(data, **{"others.kinds": ("plain",), "others.width": 16})
    f = noise(1, *detector.adapter.shape)
    with torch.no_grad():
        views = detector.views(Inputs(f, torch.ones(1, 1, *f.shape[2:])))
        error, spread = detector.error_and_spread(views)[0]
        maps = detector.raw_maps(views)[0]
    (m_e, s_e), (m_v, s_v) = detector.spread_.tolist()
    torch.testing.assert_close(maps[0], (error - m_e) / s_e + (spread - m_v) / s_v)
    assert spread.min() > 0


def test_the_calibrated_map_tells_defects_apart(data):
    detector = learned(data, labelled=2, **{"labels.head": True})
    assert detector.label_use == "the calibrated map"
    good, bad = data.validation[0].image, next(r.image for r in data.test if r.label == 1)
    assert detector.predict(bad).score > detector.predict(good).score
    with pytest.raises(ConfigError, match="add --labelled 5"):
        learned(data, **{"labels.head": True})


@pytest.mark.parametrize(
    ("change", "use"),
    [("labels.margin", "the student's margin"), ("labels.boundary", "the flow's boundary")],
)
def test_labelled_cells_become_more_anomalous(data, change, use, tmp_path):
    """A normal area that is labelled defective ends above the other cells."""
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    called = replace(data.train[0], label=1, masks=(tmp_path / "mask.png",), mask_kind="single")
    excess = {}
    for weight in (0.0, 10.0):
        detector = EfficientADASTVariants(VariantsConfig().updated(SHORT | {change: weight}))
        trainer = Trainer(seed=1, device="cpu", precision="32-true")
        detector.fit(data.train, labelled=[called] if weight else (), trainer=trainer)
        assert detector.label_use == (use if weight else "")
        with torch.no_grad():
            f = detector.extract(load_batch([called], detector.input_size).image).teacher
            nll = negative_log_likelihood(*detector.flow(f))
            values = (detector._difference(f, f) if change == "labels.margin" else nll)[0]
        inside = values[2:6, 2:6].mean()
        excess[weight] = float(inside - (values.sum() - 16 * inside) / (values.numel() - 16))
    assert excess[10.0] > excess[0.0] + 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bank.inputs": "residual", "augment": True}, "set extractor.mode=eval and augment=false"),
        ({"labels.head": True, "maps.pad": 2}, "set maps.pad=0"),
    ],
)
def test_settings_that_exclude_each_other(changes, message):
    with pytest.raises(ConfigError, match=message):
        EfficientADASTVariants(VariantsConfig().updated(SHORT | changes))
