"""Cross-fitting: scores of all good images by what the others teach, and the thresholds from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import texture, write_picture
from PIL import Image
from tiny import TINY
from torch import Tensor

from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.datasets.splits import folds
from andon.detectors import _closed_form
from andon.detectors._base import Analysis, Detector
from andon.detectors._closed_form import ClosedForm
from andon.detectors._config import ClosedFormConfig
from andon.detectors._registry import detector_class
from andon.nn.kept_features import KeptFeatures
from andon.nn.training import Trainer
from andon.thresholds.calibration import Calibration
from andon.thresholds.session_rates import session_rates

SIDE = 8


class GaussianConfig(ClosedFormConfig):
    """No further settings."""


class Gaussian(ClosedForm):
    """Mahalanobis distance of an image's mean colour."""

    Config = GaussianConfig
    mean_: Tensor
    precision_: Tensor

    def __init__(self, config: GaussianConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        self.register_buffer("mean_", torch.zeros(3))
        self.register_buffer("precision_", torch.eye(3))

    name = "gaussian"
    input_size = (SIDE, SIDE)
    score_rule = "distance"
    fewest_images = 4

    def extract(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        x = torch.cat([*features.batches(chosen)])
        self.mean_, self.precision_ = x.mean(0), torch.linalg.inv(torch.cov(x.T))

    def analyse_features(self, features: Tensor) -> Analysis:
        centred = features - self.mean_
        score = (centred @ self.precision_ * centred).sum(1)
        return Analysis(score.view(-1, 1, 1, 1), score)


class Relearned(Gaussian):
    """The same without sharing of features: everything is learned again for each fold."""

    cross_fit = Detector.cross_fit


def write_colour(path: Path, colour: np.ndarray) -> Record:
    pixels = np.broadcast_to(np.clip(np.round(colour), 0, 255).astype(np.uint8), (SIDE, SIDE, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return Record(image=path, id=path.stem, label=0)


def colours(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal((100, 120, 140), (10, 15, 20), (n, 3))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root = tmp_path_factory.mktemp("good")
    return [
        write_colour(root / f"{k:02d}.png", colour)
        for k, colour in enumerate(colours(25, np.random.default_rng(0)))
    ]


def test_each_image_has_the_score_of_a_detector_that_learned_from_the_other_folds(good):
    detector = Gaussian().fit(good[:20], good[20:], trainer=Trainer(seed=5, device="cpu"))
    found = detector.fitted()
    assert (found.source, found.folds, len(found.scores)) == ("cross-fitted in 10 folds", 10, 25)
    assert found.image.guarantee.folds == found.pixel.guarantee.folds == 10
    fold_of = folds(good, 5)
    x = torch.from_numpy(np.stack([np.asarray(Image.open(r.image))[0, 0] / 255.0 for r in good]))
    scores = dict(zip(found.names, found.scores, strict=True))
    for k, record in enumerate(good):
        others = x[[other for other in range(25) if fold_of[other] != fold_of[k]]]
        centred = x[k] - others.mean(0)
        expected = centred @ torch.linalg.inv(torch.cov(others.T)) @ centred
        assert scores[record.id] == pytest.approx(float(expected), rel=1e-3)
    assert detector.mean_.numpy() == pytest.approx(x.mean(0).numpy(), rel=1e-4)


def test_learning_again_for_each_fold_gives_the_same(good):
    shared, again = (
        cls().fit(good, trainer=Trainer(seed=2, device="cpu")).fitted() for cls in (Gaussian, Relearned)
    )
    assert shared.names == again.names
    assert shared.scores == pytest.approx(again.scores, rel=1e-4)
    assert shared.image.value == pytest.approx(again.image.value, rel=1e-4)


def test_features_are_extracted_once_where_they_fit_and_again_where_not(good, monkeypatch):
    seen: list[int] = []
    extract = Gaussian.extract
    monkeypatch.setattr(Gaussian, "extract", lambda self, x: (seen.append(len(x)), extract(self, x))[1])
    kept = Gaussian().fit(good).fitted()
    assert sum(seen) == len(good)
    seen.clear()
    monkeypatch.setattr(_closed_form, "ROOM", 3 * 4 * 8)  # of the first batch alone
    assert Gaussian().fit(good).fitted().scores == pytest.approx(kept.scores, rel=1e-5)
    assert sum(seen) > 5 * len(good)


@pytest.mark.slow
def test_the_false_reject_rate_is_near_the_one_asked_for(tmp_path):
    """Realised rates on fresh images, on average over training sets; thresholds from the images learned from reject far more."""
    cross_fitted, learned_from = [], []
    config = GaussianConfig(false_reject_rate=0.1)
    rng = np.random.default_rng(1)
    fresh = torch.from_numpy(colours(2000, rng) / 255).float()
    for repeat in range(30):
        (tmp_path / str(repeat)).mkdir()
        records = [
            write_colour(tmp_path / str(repeat) / f"{k:02d}.png", x) for k, x in enumerate(colours(29, rng))
        ]
        detector = Gaussian(config).fit(records, trainer=Trainer(seed=repeat, device="cpu"))
        scores = detector.analyse_features(fresh).score
        cross_fitted.append(float((scores >= detector.fitted().image.value).float().mean()))
        detector.calibrate(records, source="train")
        learned_from.append(float((scores >= detector.fitted().image.value).float().mean()))
    assert 0.05 < np.mean(cross_fitted) < 0.115  # 0.082 in the limit of many repetitions
    assert np.mean(learned_from) > 0.13  # 0.160


def test_images_of_one_part_are_in_one_fold_and_count_once(good):
    records = [
        Record(image=record.image, id=record.id, label=0, object_id=f"part {k // 2}")
        for k, record in enumerate(good)
    ]
    found = Gaussian().fit(records).fitted()
    assert (found.image.n, found.image.n_scores, found.folds) == (13, 25, 10)
    assert found.parts[found.names.index("07")] == "part 3"
    assert "13 good parts" in found.image.describe()


@pytest.mark.parametrize(("count", "parts"), [(4, None), (9, 2)])
def test_too_few_images_are_refused_in_one_line(good, count, parts):
    records = [
        Record(image=r.image, id=r.id, label=0, object_id=None if parts is None else str(k % parts))
        for k, r in enumerate(good[:count])
    ]
    if parts is None:
        with pytest.raises(
            DataError, match=r"4 good pictures of 4 parts cannot give .* needs 4 .* leaves 3: add"
        ) as error:
            Gaussian().fit(records)
        assert "\n" not in str(error.value)
        Gaussian(GaussianConfig(threshold_scores="held_out")).fit(records)
    else:
        assert Gaussian().fit(records).fitted().folds == 2


def test_trained_detectors_refuse_it_in_one_line():
    cls = detector_class("ast")
    with pytest.raises(ConfigError, match="threshold_scores=cross_fitted is not possible, use held_out"):
        cls(cls.Config().updated(TINY["ast"] | {"threshold_scores": "cross_fitted"}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the threshold")  # of the bank that holds the images it is calibrated on
def test_tiles_of_an_image_are_in_its_fold(tmp_path):
    """Nothing of an image is learned by the detector that scores it."""
    records = [
        Record(image=write_picture(tmp_path / f"{k}.png", texture(k, side=128)), id=str(k), label=0)
        for k in range(4)
    ]
    cls = detector_class("patchcore")
    config = cls.Config().updated(TINY["patchcore"] | {"coreset": 1.0, "tile.size": 64, "reweight": 1})
    detector = cls(config).fit(records, trainer=Trainer(seed=1, device="cpu"))
    scores = dict(zip(detector.fitted().names, detector.fitted().scores, strict=True))
    own = detector.predict(records)
    assert all(scores[p.record.id] > p.raw_score for p in own)
    rest = cls(config.updated({"threshold_scores": "held_out"})).fit(
        records[1:], trainer=Trainer(seed=1, device="cpu")
    )
    assert rest.predict(records[0]).raw_score == pytest.approx(scores["0"], rel=1e-3)


@pytest.mark.parametrize("name", ["patchcore", "spade", "east"])
def test_too_few_tiles_are_refused_in_one_line(name, tmp_path):
    """All tiles that are learned from may come from images of one fold."""
    records = [
        Record(write_picture(tmp_path / f"{k}.png", texture(k, 64)), str(k), label=0) for k in range(6)
    ]
    config = detector_class(name).Config().updated(TINY[name] | {"tile.size": 32, "tile.learn": 1})
    with pytest.raises(DataError, match="1 tile cannot give cross-fitted thresholds"):
        detector_class(name)(config).fit(records, trainer=Trainer(seed=1, device="cpu"))


@pytest.mark.parametrize("name", ["east", "padim", "patchcore", "spade"])
@pytest.mark.parametrize("selection", ["validation", "synthetic", "test"])
def test_there_is_no_epoch_to_choose(name, selection):
    """The report would say that labels chose something."""
    config = detector_class(name).Config().updated(TINY[name] | {"selection": selection})
    with pytest.raises(ConfigError, match=f"{name} is fitted in closed form, it has no epochs to choose"):
        detector_class(name)(config)


def test_labelled_thresholds_use_the_cross_fitted_scores(good, tmp_path):
    bad = [
        Record(image=write_colour(tmp_path / f"{k}.png", (200, 60, 60 + k)).image, id=f"bad/{k}", label=1)
        for k in range(3)
    ]
    config = GaussianConfig(threshold="labels")
    found = Gaussian(config).fit(good, labelled=bad).fitted()
    plain = Gaussian().fit(good).fitted()
    assert found.scores == plain.scores
    assert found.source == "cross-fitted in 10 folds and 3 labelled anomalous pictures"
    assert found.image.rule == "labelled_f1"
    assert max(plain.scores) < found.image.value


def test_an_interruption_ends_the_fit(good, monkeypatch):
    def stop(self: Gaussian, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Gaussian, "estimate", stop)
    trainer = Trainer(device="cpu")
    shown = trainer.progress
    with pytest.raises(KeyboardInterrupt):
        Gaussian().fit(good, trainer=trainer)
    assert trainer.progress is shown


def test_sessions_are_left_out_as_a_whole_and_scored_within_as_well(good, tmp_path):
    """Days of shifted colour: what a detector of the other days says of a day is worse than what it says of its own."""
    rng = np.random.default_rng(3)
    records = [
        replace(write_colour(tmp_path / f"{day}{k}.png", rng.normal(0, 3, 3) + shift), session=f"day {day}")
        for day, shift in enumerate(rng.uniform(80, 180, (6, 3)))
        for k in range(6)
    ]
    detector = Gaussian(GaussianConfig(false_reject_rate=0.1)).fit(
        records, trainer=Trainer(seed=1, device="cpu")
    )
    found = detector.fitted()
    assert (found.folds, sorted(set(found.sessions))) == (6, [f"day {k}" for k in range(6)])
    plain = [replace(record, session=None) for record in records]
    mixed = Gaussian().fit(plain, trainer=Trainer(seed=1, device="cpu"))
    assert dict(zip(found.names, found.within, strict=True)) == pytest.approx(
        dict(zip(mixed.fitted().names, mixed.fitted().scores, strict=True))
    )
    assert (mixed.fitted().sessions, mixed.fitted().within) == ((), ())
    assert detector.mean_.numpy() == pytest.approx(mixed.mean_.numpy())
    one = [k for k, name in enumerate(found.sessions) if name == "day 2"]
    rest = [record for record in records if record.session != "day 2"]
    alone = Gaussian(GaussianConfig(threshold_scores="held_out")).fit(rest, records[12:18])
    assert alone.fitted().scores[0] == pytest.approx(found.scores[found.names.index("20")], rel=1e-3)
    assert np.median([found.scores[k] for k in one]) > np.median([found.within[k] for k in one])
    rates = session_rates(found)
    assert rates.within < rates.across < rates.new
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_two_sessions_are_mixed(good):
    records = [replace(record, session=str(k % 2)) for k, record in enumerate(good)]
    found = Gaussian().fit(records).fitted()
    assert (found.folds, found.within, session_rates(found)) == (10, (), None)
    assert found.scores == Gaussian().fit(good).fitted().scores
