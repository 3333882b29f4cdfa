"""Uninformed Students: losses and scores against plain loops, identities I-34 to I-37, the teacher that is made once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TINY

from andon.core.errors import ConfigError, DataError, InterruptedRun, WeightsError
from andon.core.files import CHECKSUM_BYTES, with_checksum
from andon.core.images import batches
from andon.core.records import Record
from andon.datasets.penalty_images import penalty_records
from andon.detectors.uninformed_students.detector import UninformedStudents
from andon.detectors.uninformed_students.distillation import _teacher_folder, distil_teacher
from andon.detectors.uninformed_students.networks import pad_for
from andon.detectors.uninformed_students.receptive_field import error_and_variance, normalise
from andon.detectors.uninformed_students.settings import UninformedStudentsConfig
from andon.detectors.uninformed_students.teacher import (
    compactness_loss,
    knowledge_loss,
    largest_shift,
    metric_loss,
    random_windows,
    shifted_crops,
)
from andon.layers.moments import channel_statistics
from andon.nn.backbones import Backbone, weight_lines
from andon.nn.training import Trainer

SIDE = 64


def config(**changes: object) -> UninformedStudentsConfig:
    """The tiny settings with untrained big network, changed (a dot is `__`)."""
    small = {"extractor.weights": "random", "fields": [33], "teacher.steps": 4, "epochs": 1}
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return UninformedStudentsConfig().updated(TINY["uninformed_students"] | small | changed)


def trainer() -> Trainer:
    return Trainer(seed=3, device="cpu", precision="32-true")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    out = []
    for k in range(6):
        pixels = rng.integers(60, 190, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(root / f"{k}.png")
        out.append(Record(image=root / f"{k}.png", id=str(k), split="train", label=0))
    return out


# Losses of the distillation -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(2, 9), size=st.integers(2, 6), seed=st.integers(0, 10**6), margin=st.floats(0.0, 5.0)
)
def test_losses_equal_plain_loops(batch, size, seed, margin):
    a, p, n = np.random.default_rng(seed).normal(size=(3, batch, size))
    tensors = [torch.from_numpy(x) for x in (a, p, n)]
    assert float(knowledge_loss(tensors[0], tensors[1])) == pytest.approx(
        np.mean([sum((a[i] - p[i]) ** 2) for i in range(batch)])
    )
    triplets = []
    for i in range(batch):
        near = np.linalg.norm(a[i] - p[i]) ** 2
        far = min(np.linalg.norm(a[i] - n[i]) ** 2, np.linalg.norm(p[i] - n[i]) ** 2)
        triplets.append(max(0.0, margin + near - far))
    assert float(metric_loss(*tensors, margin)) == pytest.approx(np.mean(triplets), abs=1e-12)
    for between, rows in (("dimensions", a.T), ("samples", a)):
        correlation = np.corrcoef(rows)
        expected = sum(correlation[i, j] ** 2 for i in range(len(rows)) for j in range(len(rows)) if i != j)
        assert float(compactness_loss(tensors[0], between)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_compactness_is_0_for_uncorrelated_and_largest_for_copied_dimensions():
    """I-37."""
    hadamard = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    assert float(compactness_loss(hadamard)) == pytest.approx(0.0, abs=1e-9)
    copied = torch.randn(20, 1).expand(20, 5) * torch.tensor([1.0, 2.0, -3.0, 0.1, 7.0])
    assert float(compactness_loss(copied + 4.0)) == pytest.approx(5 * 4, rel=1e-5)
    assert float(compactness_loss(torch.ones(8, 3))) == 0.0  # constant dimensions are correlated with nothing


# Crops --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(
    patch=st.sampled_from((17, 33, 65)),
    side=st.sampled_from((64, 120, 288)),
    shift=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_windows_have_the_asked_size_and_stay_in_range(patch, side, shift, seed):
    border = largest_shift(patch) if shift else 0
    pictures = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(3)]
    draw = [
        random_windows(pictures, patch, torch.Generator().manual_seed(seed), border=border, grey_share=share)
        for share in (0.0, 0.0, 1.0)
    ]
    assert draw[0].shape == (3, 3, patch + 2 * border, patch + 2 * border)
    assert draw[0].min() >= 0 and draw[0].max() <= 1
    assert torch.equal(draw[0], draw[1])
    assert torch.equal(draw[2][:, 0], draw[2][:, 1])  # without colour
    torch.testing.assert_close(
        draw[2][:, 0], 0.299 * draw[0][:, 0] + 0.587 * draw[0][:, 1] + 0.114 * draw[0][:, 2]
    )


def test_windows_show_a_quarter_to_a_sixteenth_of_the_side():
    """On a ramp, the brightness range of a window is the share of the picture it shows."""
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    generator = torch.Generator().manual_seed(0)
    windows = random_windows([ramp] * 200, 33, generator, grey_share=0.0)
    shown = windows.amax((1, 2, 3)) - windows.amin((1, 2, 3))
    assert 1 / 16 - 0.02 < float(shown.min()) < 1 / 12
    assert 1 / 6 < float(shown.max()) < 1 / 4 + 0.02


def test_the_shifted_crop_is_shifted_by_up_to_a_quarter_with_noise():
    border = largest_shift(33)
    assert border == 8
    side = 33 + 2 * border
    columns = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    windows = (columns + 1000 * columns.transpose(2, 3)).expand(300, 3, side, side)
    centre, moved = shifted_crops(windows, 33, torch.Generator().manual_seed(0))
    assert torch.equal(centre[0], windows[0, :, border : border + 33, border : border + 33])
    difference = (moved - centre).mean((1, 2, 3))
    down = (difference / 1000).round()
    right = (difference - 1000 * down).round()
    assert {int(v) for v in down} == {int(v) for v in right} == set(range(-8, 9))
    noise = (moved - centre) - (1000 * down + right)[:, None, None, None]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)


# Scores -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(students=st.integers(1, 4), size=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_error_and_variance_equal_a_plain_loop(students, size, seed):
    """I-35: v = mean ‖S_i‖² - ‖μ̄‖² = mean ‖S_i - μ̄‖²."""
    rng = np.random.default_rng(seed)
    answers, target = rng.normal(size=(students, 2, size, 3, 2)), rng.normal(size=(2, size, 3, 2))
    error, spread = error_and_variance(torch.from_numpy(answers), torch.from_numpy(target))
    for b, r, c in np.ndindex(2, 3, 2):
        mean = sum(answers[i, b, :, r, c] for i in range(students)) / students
        assert float(error[b, r, c]) == pytest.approx(sum((mean - target[b, :, r, c]) ** 2))
        squares = sum(sum(answers[i, b, :, r, c] ** 2) for i in range(students)) / students
        assert float(spread[b, r, c]) == pytest.approx(squares - sum(mean**2), abs=1e-12)
    assert (spread >= 0).all()
    agreeing = torch.from_numpy(answers[:1]).expand(3, -1, -1, -1, -1)
    assert float(error_and_variance(agreeing, torch.from_numpy(target))[1].max()) == pytest.approx(
        0, abs=1e-25
    )


@settings(deadline=None, max_examples=15)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    offset=st.floats(-1e4, 1e4),
    seed=st.integers(0, 10**6),
)
def test_statistics_equal_numpys(counts, offset, seed):
    rng = np.random.default_rng(seed)
    maps = [(offset + rng.normal(size=(b, 3, 4, 5))).astype(np.float32) for b in counts]
    mean, std = channel_statistics(torch.from_numpy(m) for m in maps)
    cells = np.concatenate(maps).transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(mean.flatten().numpy(), cells.mean(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(std.flatten().numpy(), cells.std(1), rtol=1e-5)


@pytest.fixture(scope="module")
def fitted(records: list[Record]) -> UninformedStudents:
    return UninformedStudents(config(fields=[33, 65], epochs=3)).fit(
        records[:4], records[4:], trainer=trainer()
    )


def test_maps_are_standardised_on_held_out_pictures(fitted, records):
    """I-36: mean 0 and deviation 1 of e and v on the calibration pictures; the map is their sum, averaged over fields."""
    images = next(batches(records[4:], (SIDE, SIDE), 2)).image
    x = normalise(images)
    with torch.inference_mode():
        for field in fitted.receptive_fields():
            z = (field.error_and_variance(x) - field.map_mean_) / field.map_std_
            torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
            torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
            torch.testing.assert_close(field.anomaly_map(x), z.sum(1, keepdim=True))
        fine, coarse = (field.anomaly_map(x) for field in fitted.receptive_fields())
        assert (fine.shape[-1], coarse.shape[-1]) == (SIDE // 4, SIDE // 8)
        enlarged = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        analysis = fitted.analyse(images)
    torch.testing.assert_close(analysis.anomaly_map, (fine + enlarged) / 2)
    torch.testing.assert_close(analysis.score, analysis.anomaly_map.amax((1, 2, 3)))


def test_a_constant_on_the_spread_changes_nothing(fitted):
    """I-35: the spread is standardised, so what all pictures share of it cancels."""
    field = next(fitted.receptive_fields())
    maps = torch.rand(2, 2, 5, 5)
    added = maps + torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    _, std = channel_statistics([maps])
    moved_mean, moved_std = channel_statistics([added])
    mean = channel_statistics([maps])[0]
    torch.testing.assert_close((added - moved_mean) / moved_std, (maps - mean) / std, rtol=1e-4, atol=1e-5)
    assert field.map_std_.min() > 0


def test_the_target_is_the_teachers_descriptor_standardised_on_the_training_pictures(fitted, records):
    images = normalise(next(batches(records[:4], (SIDE, SIDE), 4)).image)
    for field in fitted.receptive_fields():
        target = field.target(pad_for(images, field.support, field.stride))
        torch.testing.assert_close(target.mean((0, 2, 3)), torch.zeros(16), atol=1e-3, rtol=0)
        torch.testing.assert_close(target.std((0, 2, 3), correction=0), torch.ones(16), atol=1e-3, rtol=0)


def test_the_coarse_grid_is_part_of_the_dense_one():
    """The strided teacher's cell is the dense teacher's pixel in the middle of the cell."""
    torch.manual_seed(0)
    dense = next(UninformedStudents(config(grid="dense")).receptive_fields())
    coarse = next(UninformedStudents(config(grid="strided")).receptive_fields())
    coarse.load_state_dict(dense.state_dict())
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        every = dense.error_and_variance(x)
        some = coarse.error_and_variance(x)
    first = (dense.support - 1) // 2 - (dense.support - 4) // 2
    torch.testing.assert_close(some, every[:, :, first::4, first::4])
    assert every.shape[-2:] == (SIDE, SIDE)


def test_students_learn_side_by_side_and_the_teacher_stays(records):
    detector = UninformedStudents(config(students=2)).fit(records[:4], records[4:], trainer=trainer())
    field = next(detector.receptive_fields())
    network = distil_teacher(33, detector.config, extractor(detector.config), trainer())
    for key, value in network.state_dict().items():
        assert torch.equal(field.teacher.state_dict()[key], value), key
    field.zero_grad()
    terms = field.losses(pad_for(torch.rand(1, 3, SIDE, SIDE), field.support))
    assert sorted(terms) == ["student_0", "student_1"]
    first, second = field.students
    terms["student_0"].backward()
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in [*second.parameters(), *field.teacher.parameters()])


# The teacher --------------------------------------------------------------------------------------------------------


def extractor(settings: UninformedStudentsConfig) -> Backbone:
    return Backbone.create(settings.extractor)


@pytest.mark.parametrize(
    "weights",
    [
        {"metric": 0.5},
        pytest.param({"compactness": 0.0}, marks=pytest.mark.slow),
        pytest.param({"correlation": "samples"}, marks=pytest.mark.slow),
    ],
)
def test_the_teacher_learns_to_describe_as_the_big_network(weights):
    changes = {f"teacher__{key}": value for key, value in weights.items()}
    own = trainer()
    settings = config(teacher__steps=40, **changes)
    distil_teacher(33, settings, extractor(settings), own)
    curve = own.stages["teacher_33"].curve
    assert own.stages["teacher_33"].steps == 40
    expected = {"step", "knowledge", "compactness", "metric"}
    expected -= {"metric"} if "metric" not in weights else set()
    expected -= {"compactness"} if weights.get("compactness") == 0.0 else set()
    assert set(curve[0]) == expected
    first, last = (sum(p["knowledge"] for p in part) for part in (curve[:5], curve[-5:]))
    assert last < first


@pytest.mark.slow
def test_the_teacher_is_made_once_per_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    module = "andon.detectors.uninformed_students.distillation.teacher_losses"
    settings = config()
    big = extractor(settings)
    first = distil_teacher(33, settings, big, trainer())
    (file,) = tmp_path.rglob("teacher_33.safetensors")
    other = distil_teacher(33, config(teacher__seed=1), big, trainer())
    assert not same(first, other)
    assert len(list(tmp_path.rglob("teacher_33.safetensors"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(module, lambda *_: pytest.fail("the teacher is made again"))
        another_run = Trainer(seed=9, device="cpu", precision="32-true")
        assert same(first, distil_teacher(33, settings, big, another_run))
    file.write_bytes(b"half a file")  # noticed, and made again
    assert same(distil_teacher(33, settings, big, trainer()), first)


@pytest.mark.parametrize("damage", ["zeros", "no checksum", "other networks"])
def test_a_damaged_teacher_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    settings = config(teacher__steps=1)
    big = extractor(settings)
    first = distil_teacher(33, settings, big, trainer())
    (file,) = tmp_path.rglob("teacher_33.safetensors")
    whole = file.read_bytes()
    third = len(whole) // 3
    if damage == "zeros":
        file.write_bytes(whole[:third] + bytes(len(whole) - third))
    else:
        body = whole[CHECKSUM_BYTES:]
        file.write_bytes(
            body if damage == "no checksum" else with_checksum(body.replace(b"teacher.", b"teached."))
        )
    assert same(distil_teacher(33, settings, big, trainer()), first)
    module = "andon.detectors.uninformed_students.distillation.teacher_losses"
    monkeypatch.setattr(module, lambda *_: pytest.fail("the teacher is made again"))
    assert same(distil_teacher(33, settings, big, trainer()), first)  # the new one was kept


def test_a_teacher_of_other_pixels_is_another_one(tmp_path):
    folders, big = [], extractor(config())
    for name, value in (("a", 10), ("b", 200), ("c", 10)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (SIDE, SIDE), (value,) * 3).save(tmp_path / name / "0.bmp")  # all of one size
        settings = config(teacher__folder=str(tmp_path / name))
        found = penalty_records(settings.teacher.folder)
        folders.append(_teacher_folder(33, settings, big, found, "32-true"))
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.slow
def test_an_interrupted_teacher_is_continued(tmp_path, monkeypatch):
    settings = config(teacher__steps=12)
    big = extractor(settings)
    whole = distil_teacher(33, settings, big, trainer())
    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    interrupted = trainer()
    interrupted.progress = _PressesCtrlC()
    with pytest.raises(InterruptedRun, match="teacher_33"):
        distil_teacher(33, settings, big, interrupted)
    own = trainer()
    assert same(distil_teacher(33, settings, big, own), whole)
    assert own.stages["teacher_33"].steps == 12


def test_the_teacher_must_not_see_the_parts(records):
    settings = config(teacher__folder=str(records[0].image.parent))
    with pytest.raises(
        ConfigError, match=r"holds training pictures \(0.png\): give photographs of other things"
    ):
        UninformedStudents(settings).fit(records[:4], records[4:], trainer=trainer())
    used = {record.image for record in penalty_records(None)}
    assert not used & {record.image for record in records}


def test_a_folder_without_photographs_is_named_by_its_setting(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("typo", "does not exist: check the path"), ("empty", "holds no pictures: add some")):
        settings = config(teacher__folder=str(tmp_path / name))
        with pytest.raises(DataError, match=f"^teacher.folder={tmp_path / name} {words}"):
            distil_teacher(33, settings, extractor(settings), trainer())
        with pytest.raises(DataError, match=f"^penalty.folder={tmp_path / name} {words}"):
            penalty_records(str(tmp_path / name))


def test_its_origin_is_told(fitted):
    assert [line["name"] for line in fitted.used_weights] == ["random"]


def test_its_origin_is_known_before_learning():
    """As recipe.yaml states it, which is written before."""
    settings = config(extractor__weights="starter")
    assert UninformedStudents(settings).used_weights == weight_lines(extractor(settings))
    assert UninformedStudents(settings, pretrained=False).used_weights == ()
    with pytest.raises(WeightsError, match="unknown weights 'nowhere'"):
        UninformedStudents(config(extractor__weights="nowhere"))


def test_held_out_loss_may_end_training(records):
    own = trainer()
    UninformedStudents(config(selection="validation", epochs=3, patience=1)).fit(
        records[:4], records[4:], trainer=own
    )
    stage = own.stages["students_33"]
    assert stage.kept_epoch is not None
    assert {"epoch", "loss"} == set(stage.judged[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selection": "test"}, "use selection=budget or selection=validation"),
        ({"fields": [33, 33]}, "names a patch size twice"),
        ({"fields": [21]}, "fields"),
        ({"image_size": 60}, "image_size"),
        ({"width": 0.0}, "width"),
        ({"teacher__batch_size": 1}, "batch_size"),
    ],
)
def test_impossible_settings_are_said(changes, said):
    with pytest.raises(ConfigError, match=said):
        UninformedStudents(config(**changes))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return all(torch.equal(left[key], right[key]) for key in left)


class _PressesCtrlC:
    """A progress display that interrupts after three steps."""

    def __init__(self) -> None:
        self.steps = 0

    def task(self, description: str, total: int, *, done: int = 0) -> _PressesCtrlC:
        return self

    def __enter__(self) -> _PressesCtrlC:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.steps += 1
        if self.steps == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
