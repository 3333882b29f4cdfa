"""What every detector promises, one check each, in the order in which a new detector is best brought to pass them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from unittest import SkipTest

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from andon.core.errors import ConfigError, DataError, InterruptedRun, NotFittedError, UsageError
from andon.core.records import Prediction, Record
from andon.core.region import InspectionRegion
from andon.datasets.splits import folds
from andon.detectors._base import Detector
from andon.detectors._registry import detector_class, is_known, name_of
from andon.detectors._saving import load_detector
from andon.metrics import auroc
from andon.nn.training import Trainer
from andon.testing.trial import SEED, SIDE, Trial


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract, callable with a `Trial`."""

    name: str
    """E.g. `separates_an_obvious_defect`."""
    promise: str
    """One sentence."""
    run: Callable[[Trial], None]
    """Raises `AssertionError` where the promise is broken."""

    def __call__(self, trial: Trial) -> None:
        self.run(trial)

    def __str__(self) -> str:
        return self.name


CHECKS: list[Check] = []


def _promise(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
    CHECKS.append(Check(run.__name__.lstrip("_"), (run.__doc__ or "").strip(), run))
    return run


@_promise
def is_registered(trial: Trial) -> None:
    """`andon.create`, `andon.load` and the commands find the class by its name."""
    name = name_of(trial.cls)
    _require(
        is_known(name) and detector_class(name) is trial.cls,
        f"no entry point of the group andon.detectors names {trial.cls.__module__}:{trial.cls.__qualname__}: saved detectors "
        "cannot be loaded",
    )


@_promise
def says_what_is_wrong(trial: Trial) -> None:
    """Unfitted detectors, empty or anomalous training data and unwanted test images are refused with a clear error."""
    fresh, records = trial.create(), trial.records
    _refused(NotFittedError, "has not learned yet", lambda: fresh.predict(records["good"][0]))
    _refused(DataError, "no training pictures", lambda: fresh.fit([], records["validation"]))
    anomalous = [*records["train"], records["bad"][0]]
    _refused(DataError, "must be good ones", lambda: fresh.fit(anomalous))
    _refused(
        ConfigError, "nothing may look at them", lambda: fresh.fit(records["train"], test=records["good"])
    )


@_promise
def gives_a_map_and_a_score_per_image(trial: Trial) -> None:
    """`forward` maps (B, C, H, W) to a map (B, 1, h, w) and scores (B,)."""
    detector = trial.detector
    with torch.inference_mode():
        anomaly_map, score = detector(torch.rand(3, detector.input_channels, *detector.input_size))
    _require(
        anomaly_map.ndim == 4 and anomaly_map.shape[:2] == (3, 1) and score.shape == (3,),
        f"3 images gave a map of shape {tuple(anomaly_map.shape)} and scores of shape {tuple(score.shape)}, expected "
        "(3, 1, h, w) and (3,)",
    )


@_promise
def separates_an_obvious_defect(trial: Trial) -> None:
    """Image scores separate all anomalous images from all good ones, and the map is highest on the defect."""
    good, bad = (trial.detector.predict([*trial.records[kind]]) for kind in ("good", "bad"))
    found = auroc([p.raw_score for p in [*good, *bad]], [0] * len(good) + [1] * len(bad))
    _require(found == 1, f"image AUROC on an obvious defect is {found:.3f}, expected 1")
    for record, prediction in zip(trial.records["bad"], bad, strict=True):
        square = _pixels(record).mean(2) > 0.9 * 255
        found = auroc(prediction.raw_map.ravel(), square.ravel())
        _require(found > 0.9, f"pixel AUROC on an obvious defect is {found:.3f}, expected more than 0.9")


@_promise
def predicts_completely(trial: Trial) -> None:
    """A prediction has maps of the image's size and a verdict that agrees with score and mask."""
    prediction = trial.detector.predict(trial.records["bad"][0])
    _require(
        isinstance(prediction, Prediction), f"predict returned {type(prediction).__name__}, not Prediction"
    )
    for name in ("anomaly_map", "raw_map", "mask"):
        shape = getattr(prediction, name).shape
        _require(shape == (SIDE, SIDE), f"{name} has shape {shape}, the image {(SIDE, SIDE)}")
    kinds = {prediction.raw_map.dtype.name, prediction.anomaly_map.dtype.name}
    _require(kinds == {"float32"}, f"maps are {', '.join(sorted(kinds))}, expected float32")
    _require(bool(np.isfinite(prediction.raw_map).all()), "the raw map is not finite")
    reached = prediction.raw_score >= trial.detector.fitted().image.value
    _require(
        prediction.is_anomalous == (prediction.score >= 1) == reached,
        "is_anomalous, score >= 1 and raw_score >= threshold disagree",
    )
    _require(
        np.array_equal(prediction.mask, prediction.anomaly_map >= 1), "mask differs from anomaly_map >= 1"
    )


@_promise
def does_not_depend_on_the_batch(trial: Trial) -> None:
    """One image alone or among others gives the same scores and maps."""
    records = [*trial.records["good"], *trial.records["bad"], trial.records["train"][0]]
    together = trial.detector.predict([*records])
    for a, b in zip(together, (trial.detector.predict(record) for record in records), strict=True):
        _close(a.raw_score, b.raw_score, "scores of an image alone and among others", rtol=1e-4, atol=1e-5)
        _close(a.raw_map, b.raw_map, "maps of an image alone and among others", rtol=1e-3, atol=1e-4)


@_promise
def judges_alike_images_alike(trial: Trial) -> None:
    """Learned from images that hardly differ, an image alone has the verdict that it has among others."""
    detector, records = trial.alike
    records = [*records, trial.records["bad"][0]]
    together = detector.predict([*records])
    alone = [detector.predict(record) for record in records]
    verdicts = [[p.verdict for p in found] for found in (together, alone)]
    _require(verdicts[0] == verdicts[1], f"verdicts are {verdicts[0]} together and {verdicts[1]} alone")
    marked = [[bool(p.mask.any()) for p in found] for found in (together, alone)]
    _require(marked[0] == marked[1], "an image is marked alone and not among others, or the reverse")
    _require(
        alone[-1].verdict == "NG", f"the verdict on an obvious defect is {alone[-1].verdict}, expected NG"
    )
    held = [] if detector.cross_fitted else alone[-2:-1]
    _require(all(p.verdict == "OK" for p in held), "the good image that sets the threshold is not OK")


@_promise
def takes_paths_records_and_arrays(trial: Trial) -> None:
    """A file by its record, `Path` or string, and its pixels give the same score."""
    record = trial.records["bad"][1]
    forms = (record, record.image, str(record.image), _pixels(record))
    scores = [trial.detector.predict(form).raw_score for form in forms]
    _close(scores, scores[0], "scores of a record, a path, a string and an array", rtol=1e-4, atol=1e-4)


@_promise
def predicts_at_the_size_of_the_image(trial: Trial) -> None:
    """An image of another size than the training images has a map of its own size."""
    path = trial.folder() / "wide.png"
    Image.open(trial.records["good"][0].image).resize((97, 40)).save(path)
    shape = next(trial.detector.judged([path])).anomaly_map.shape
    _require(shape == (40, 97), f"the map of an image of shape (40, 97) has shape {shape}")


@_promise
def ignores_pixels_that_are_not_inspected(trial: Trial) -> None:
    """Pixels outside the inspection region change neither score nor map, and no cell there is the largest of the map."""
    region = InspectionRegion(np.tile(np.arange(SIDE) < 40, (SIDE, 1)))
    image = _pixels(trial.records["good"][0])
    inverted = np.where(region.mask[:, :, None], image, 255 - image)
    before = trial.detector.calibration
    trial.detector.calibration = replace(trial.detector.fitted(), region=region)
    try:
        left, right = trial.detector.predict(image), trial.detector.predict(inverted)
        cells = next(trial.detector.scan([image])).cells
    finally:
        trial.detector.calibration = before
    _require(left.raw_score == right.raw_score, "pixels that are not inspected change the score")
    _require(np.array_equal(left.raw_map, right.raw_map), "pixels that are not inspected change the map")
    inside = region.cells((cells.shape[0], cells.shape[1]))
    _require(
        bool(cells[~inside].max(initial=-np.inf) <= cells[inside].min()),
        "cells that are not inspected stand out in the map: analyse takes map and score from self.quieted(map)",
    )


@_promise
def takes_thresholds_from_images_it_did_not_learn_from(trial: Trial) -> None:
    """The threshold comes from scores of the validation images, or of all good ones by what the others teach."""
    if trial.detector.cross_fitted:
        _cross_fits(trial)
        return
    found, records = trial.detector.fitted(), trial.records["validation"]
    _require(found.source == "validation", f"thresholds come from {found.source}, expected validation")
    predictions = trial.detector.predict([*records])
    scores = [prediction.raw_score for prediction in predictions]
    _close(
        found.scores, scores, "calibration scores and scores of the validation images", rtol=1e-4, atol=1e-5
    )
    _require(not any(p.is_anomalous for p in predictions), "a validation image lies above the threshold")


def _cross_fits(trial: Trial) -> None:
    """The calibration has a score of every good image, equal to that of a detector fitted without the image's fold."""
    found = trial.detector.fitted()
    good = sorted([*trial.records["train"], *trial.records["validation"]], key=lambda record: record.id)
    fold_of = folds(good, SEED)
    expected = f"cross-fitted in {max(fold_of) + 1} folds"
    _require(found.source == expected, f"thresholds come from {found.source}, expected {expected}")
    _require(
        sorted(found.names) == [record.id for record in good],
        "the calibration does not name every good image once",
    )
    scores = dict(zip(found.names, found.scores, strict=True))
    own, rest = (
        [r for r, fold in zip(good, fold_of, strict=True) if (fold == 0) == of_fold]
        for of_fold in (True, False)
    )
    alone = trial.cls(trial.detector.config.updated({"threshold_scores": "held_out"}))
    alone.fit(rest, own, trainer=Trainer(seed=SEED, device="cpu"))
    _close(
        [scores[record.id] for record in own],
        alone.fitted().scores,
        "cross-fitted scores of a fold and scores by a detector fitted without it",
        rtol=1e-3,
        atol=1e-4,
    )


@_promise
def learns_without_held_out_images(trial: Trial) -> None:
    """A few training images without validation images suffice; the thresholds then come from these."""
    source = trial.few.source
    expected = "cross-fitted in 4 folds" if trial.detector.cross_fitted else "train"
    _require(
        source == expected, f"without validation images thresholds come from {source}, expected {expected}"
    )


@_promise
def opens_no_test_image_while_it_learns(trial: Trial) -> None:
    """`fit` decodes training and validation images alone."""
    unread = {record.image for record in trial.records["train"]} - trial.opened
    _require(not unread, f"{len(unread)} training images were not opened")
    test = {record.image for record in [*trial.records["good"], *trial.records["bad"]]} & trial.opened
    _require(not test, f"{len(test)} test images were opened while the detector was fitted")


@_promise
def repeats_itself(trial: Trial) -> None:
    """The same seed gives the same state, and fitting twice equals fitting once, bit for bit."""
    again, records = trial.few.detector, trial.records
    again.fit(records["train"], records["validation"], trainer=Trainer(seed=SEED, device="cpu"))
    try:
        _same_state(again, trial.detector, "a detector fitted once and one fitted twice")
    except AssertionError:  # say so where the simpler promise is broken already
        _same_state(trial.fit(), trial.detector, "two detectors fitted with one seed")
        raise
    _require(again.calibration == trial.detector.calibration, "fitting twice changes the calibration")


@_promise
def resumes_where_it_was_interrupted(trial: Trial) -> None:
    """Training that was interrupted by Ctrl-C and resumed equals uninterrupted training, bit for bit."""
    stages = [name for name, stage in trial.stages.items() if stage.steps]
    if not stages:
        raise SkipTest("nothing is trained by gradient descent, so there is nothing to resume")
    folder = trial.folder()
    trainer = Trainer(seed=SEED, device="cpu", checkpoints=folder)
    trainer.progress = Interrupter(stages[-1])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trial.fit(trainer)
    except InterruptedRun:
        pass
    else:
        raise AssertionError(f"training went on after Ctrl-C in the stage {stages[-1]}")
    finally:
        signal.signal(signal.SIGINT, before)
    resumed = trial.fit(Trainer(seed=SEED, device="cpu", checkpoints=folder, resume=True))
    _same_state(resumed, trial.detector, "resumed and uninterrupted training")


@_promise
def loads_as_it_was_saved(trial: Trial) -> None:
    """`andon.load` brings back class, state, calibration and predictions bit for bit; no pickle is written."""
    folder = trial.folder()
    trial.detector.save(folder)
    loaded = load_detector(folder)
    _require(type(loaded) is trial.cls, f"a saved {trial.cls.__name__} is loaded as {type(loaded).__name__}")
    _same_state(loaded, trial.detector, "a loaded and the saved detector")
    _require(loaded.calibration == trial.detector.calibration, "loading changes the calibration")
    for a, b in zip(*(d.predict([*trial.records["bad"]]) for d in (loaded, trial.detector)), strict=True):
        same = a.raw_score == b.raw_score and np.array_equal(a.raw_map, b.raw_map)
        _require(same, "a loaded detector predicts otherwise than the saved one")
    suffixes = {path.suffix for path in folder.iterdir()}
    _require(suffixes == {".json", ".safetensors"}, f"saved were files of the kinds {sorted(suffixes)}")


@_promise
def refuses_changed_files(trial: Trial) -> None:
    """A saved file with one changed bit is not loaded."""
    for name in ("detector.json", "state.safetensors"):
        folder = trial.folder()
        trial.detector.save(folder)
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))
        _refused(DataError, ("changed", "cannot be read"), lambda folder=folder: load_detector(folder))  # type: ignore[misc]


@_promise
def exports_to_onnx(trial: Trial) -> None:
    """The network that `andon.export` writes gives the scores and verdicts of the detector."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise SkipTest(f"{', '.join(missing)} not installed: pip install 'andon[export]'")
    from andon.exporting.network import export
    from andon.runtime import open_model

    path = trial.folder() / "model.onnx"
    export(trial.detector, path)
    model = open_model(path)
    for record in [*trial.records["good"], *trial.records["bad"]]:
        found, expected = model.predict(record), trial.detector.predict(record)
        _close(found.score, expected.score, "scores of network and detector", rtol=1e-3, atol=1e-3)
        _require(found.is_anomalous == expected.is_anomalous, "network and detector give different verdicts")


# Helpers -------------------------------------------------------------------------------------------------------------


def _pixels(record: Record) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(record.image))


class Interrupter:
    """A progress display that presses Ctrl-C when the given stage has made three steps."""

    def __init__(self, stage: str) -> None:
        self.stage, self.steps, self.active = stage, 0, False

    def task(self, description: str, total: int, *, done: int = 0) -> Interrupter:
        self.active = description.endswith(self.stage)
        return self

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.steps += self.active
        if self.active and self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _refused(kind: type[UsageError], words: str | Iterable[str], call: Callable[[], object]) -> None:
    """Require that `call` raises `kind` with one of `words` in its message."""
    wanted = [words] if isinstance(words, str) else [*words]
    try:
        call()
    except kind as error:
        _require(any(word in str(error) for word in wanted), f"expected {' or '.join(wanted)!r} in: {error}")
    else:
        raise AssertionError(f"expected {kind.__name__} with {' or '.join(wanted)!r}, nothing was raised")


def _close(a: object, b: object, what: str, *, rtol: float, atol: float) -> None:
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    worst = float(np.abs(left - right).max(initial=0))
    _require(bool(np.allclose(left, right, rtol=rtol, atol=atol)), f"{what} differ by up to {worst:.3g}")


def _same_state(a: Detector, b: Detector, what: str) -> None:
    left, right = a.state_dict(), b.state_dict()
    _require(left.keys() == right.keys(), f"{what} have different tensors")
    moved = [key for key in left if not torch.equal(left[key], right[key])]
    _require(not moved, f"{what} differ in {', '.join(moved[:3])}")
