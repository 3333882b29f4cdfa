"""What every detector promises, checked on each by name. A new detector needs a line in `tiny.py` and nothing else."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY

import andon
from andon.core.errors import ConfigError, DataError, InterruptedRun, NotFittedError
from andon.core.image_files import decode
from andon.core.records import Prediction, Record
from andon.core.region import InspectionRegion
from andon.detectors._base import Detector
from andon.detectors._registry import detector_class, detector_names
from andon.detectors._saving import load_detector
from andon.metrics import auroc
from andon.nn.stage import Stage
from andon.nn.training import Trainer

SIDE = 64


def draw(rng: np.random.Generator, defect: bool) -> np.ndarray:
    """A woven grey texture; the defect is a bright square."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    picture = 110 + 30 * np.sin(columns / 2.0) * np.sin(rows / 2.0) + rng.normal(0, 4, (SIDE, SIDE))
    if defect:
        top, left = rng.integers(8, SIDE - 20, 2)
        picture[top : top + 12, left : left + 12] = 240
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    root = tmp_path_factory.mktemp("contract")
    rng = np.random.default_rng(0)
    out: dict[str, list[Record]] = {}
    for split, count, defect in (
        ("train", 12, False),
        ("validation", 4, False),
        ("good", 4, False),
        ("bad", 4, True),
    ):
        out[split] = []
        for k in range(count):
            path = root / f"{split}_{k}.png"
            Image.fromarray(draw(rng, defect)).save(path)
            kind = split if split in {"train", "validation"} else "test"
            out[split].append(Record(image=path, id=f"{split}/{k}", split=kind, label=int(defect)))
    return out


def create(name: str, **settings: object) -> Detector:
    config = detector_class(name).Config()
    return detector_class(name)(config.updated(TINY[name] | settings))


def fit(
    name: str, records: dict[str, list[Record]], trainer: Trainer | None = None, **settings: object
) -> Detector:
    return create(name, **settings).fit(
        records["train"], records["validation"], trainer=trainer or Trainer(seed=1, device="cpu")
    )


@dataclass(frozen=True)
class Fitted:
    """A detector that has learned, and what was seen of it meanwhile."""

    detector: Detector
    stages: dict[str, Stage]
    opened: set[Path]


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in detector_names()],
)
def fitted(request: pytest.FixtureRequest, records: dict[str, list[Record]]) -> Fitted:
    opened: set[Path] = set()
    real = andon.core.images.decode

    def watch(path: Path, **settings: object) -> object:
        opened.add(path)
        return real(path, **settings)

    trainer = Trainer(seed=1, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("andon.core.images.decode", watch)
        detector = fit(request.param, records, trainer)
    return Fitted(detector, trainer.stages, opened)


@pytest.fixture
def detector(fitted: Fitted) -> Detector:
    return fitted.detector


def same_state(a: Detector, b: Detector) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_it_separates_an_obvious_defect(detector, records):
    good, bad = (detector.predict(records[kind]) for kind in ("good", "bad"))
    scores = [p.raw_score for p in [*good, *bad]]
    assert auroc(scores, [0] * 4 + [1] * 4) == 1.0
    for prediction in bad:
        square = decode(prediction.record.image).pixels.mean(2) > 0.9
        assert auroc(prediction.raw_map.ravel(), square.ravel()) > 0.9


def test_a_prediction_is_complete(detector, records):
    prediction = detector.predict(records["bad"][0])
    assert isinstance(prediction, Prediction)
    assert prediction.anomaly_map.shape == prediction.raw_map.shape == prediction.mask.shape == (SIDE, SIDE)
    assert prediction.raw_map.dtype == prediction.anomaly_map.dtype == np.float32
    assert np.isfinite(prediction.raw_map).all()
    assert (
        prediction.is_anomalous
        == (prediction.score >= 1)
        == (prediction.raw_score >= detector.fitted().image.value)
    )
    assert np.array_equal(prediction.mask, prediction.anomaly_map >= 1)


def test_what_is_not_inspected_changes_no_answer(detector, records, monkeypatch):
    area = InspectionRegion(np.tile(np.arange(SIDE) < 40, (SIDE, 1)))
    monkeypatch.setattr(detector, "calibration", replace(detector.fitted(), region=area))
    picture = (decode(records["good"][0].image).pixels * 255).round().astype(np.uint8)
    inverted = np.where(area.mask[:, :, None], picture, 255 - picture)
    left, right = detector.predict(picture), detector.predict(inverted)
    assert left.raw_score == right.raw_score
    assert np.array_equal(left.raw_map, right.raw_map)


def test_forward_gives_a_map_and_a_score_per_picture(detector):
    with torch.inference_mode():
        anomaly_map, score = detector(torch.rand(3, 3, *detector.input_size))
    assert anomaly_map.shape[:2] == (3, 1)
    assert score.shape == (3,)


def test_one_picture_or_many_gives_the_same(detector, records):
    pictures = [*records["good"], *records["bad"], records["train"][0]]
    together, alone = detector.predict(pictures), [detector.predict(picture) for picture in pictures]
    for a, b in zip(together, alone, strict=True):
        assert a.raw_score == pytest.approx(b.raw_score, rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(a.raw_map, b.raw_map, rtol=1e-3, atol=1e-4)


def test_path_record_and_array_give_the_same(detector, records):
    record = records["bad"][1]
    pixels = np.asarray(Image.open(record.image))
    answers = [detector.predict(picture) for picture in (record, record.image, str(record.image), pixels)]
    assert len({round(answer.raw_score, 4) for answer in answers}) == 1


def test_any_picture_size_is_answered_at_its_own_size(detector, tmp_path, records):
    path = tmp_path / "wide.png"
    Image.open(records["good"][0].image).resize((97, 40)).save(path)
    assert detector.predict(path).anomaly_map.shape == (40, 97)


def test_saved_and_loaded_is_bit_identical(detector, records, tmp_path):
    """I-38."""
    detector.save(tmp_path)
    loaded = andon.load(tmp_path)
    assert type(loaded) is type(detector)
    assert same_state(loaded, detector)
    assert loaded.calibration == detector.calibration
    a, b = detector.predict(records["bad"]), loaded.predict(records["bad"])
    assert [p.raw_score for p in a] == [p.raw_score for p in b]
    assert all(np.array_equal(p.raw_map, q.raw_map) for p, q in zip(a, b, strict=True))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("file", ["detector.json", "state.safetensors"])
def test_a_changed_file_is_refused(detector, tmp_path, file):
    detector.save(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file).write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"changed|cannot be read"):
        load_detector(tmp_path)


def test_same_seed_same_result_and_fitting_twice_equals_once(detector, records):
    """I-38."""
    again = fit(detector.name, records)
    assert same_state(again, detector)
    again.fit(records["train"], records["validation"], trainer=Trainer(seed=1, device="cpu"))
    assert same_state(again, detector)
    assert again.calibration == detector.calibration


def test_the_threshold_comes_from_held_out_pictures(detector, records):
    found = detector.fitted()
    assert found.source == "validation"
    scores = [p.raw_score for p in detector.predict(records["validation"])]
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-5)
    assert sum(p.is_anomalous for p in detector.predict(records["validation"])) == 0


def test_no_test_picture_is_opened_before_evaluation(fitted, records):
    """I-39."""
    assert {r.image for r in records["train"]} <= fitted.opened
    assert not {r.image for r in [*records["good"], *records["bad"]]} & fitted.opened


def test_unfitted_and_empty_are_said_clearly(detector, records):
    fresh = create(detector.name)
    with pytest.raises(NotFittedError, match="has not learned yet"):
        fresh.predict(records["good"][0])
    with pytest.raises(DataError, match="no training pictures"):
        fresh.fit([], records["validation"])
    with pytest.raises(DataError, match="must be good ones"):
        fresh.fit([*records["train"], records["bad"][0]])
    with pytest.raises(ConfigError, match="nothing may look at them"):
        fresh.fit(records["train"], test=records["good"])
    assert fresh.fit(records["train"][:4]).fitted().source == "train"


def test_resumed_equals_uninterrupted(fitted, records, tmp_path):
    """Interrupted after the first training step of the last stage that descends, if there is one."""
    stages = [name for name, stage in fitted.stages.items() if stage.steps]
    if not stages:
        return  # nothing is trained by descent, so there is nothing to resume
    name = fitted.detector.name
    trainer = Trainer(seed=1, device="cpu", checkpoints=tmp_path)
    trainer.progress = _Interrupter(stages[-1])
    with pytest.raises(InterruptedRun):
        fit(name, records, trainer)
    resumed = fit(name, records, Trainer(seed=1, device="cpu", checkpoints=tmp_path, resume=True))
    assert same_state(resumed, fitted.detector)


class _Interrupter:
    """A progress display that presses Ctrl-C when the given stage has made three steps."""

    def __init__(self, stage: str) -> None:
        self.stage, self.steps, self.active = stage, 0, False

    def task(self, description: str, total: int, *, done: int = 0) -> _Interrupter:
        self.active = description.endswith(self.stage)
        return self

    def __enter__(self) -> _Interrupter:
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.steps += self.active
        if self.active and self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_exported_networks_answer_alike(detector, records, tmp_path):
    pytest.importorskip("onnxruntime")
    from andon.export.network import export
    from andon.runtime import open_model

    assert export(detector, tmp_path / "network.onnx").difference < 1e-3
    model = open_model(tmp_path / "network.onnx")
    for record in records["good"] + records["bad"]:
        found, expected = model.predict(record), detector.predict(record)
        assert found.score == pytest.approx(expected.score, abs=1e-3, rel=1e-3)
        assert found.is_anomalous == expected.is_anomalous
