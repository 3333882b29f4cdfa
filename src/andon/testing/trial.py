"""A detector under test, with images drawn for it."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core import image_files, images
from andon.core.records import Record
from andon.detectors._base import Detector
from andon.nn.stage import Stage
from andon.nn.training import Trainer
from andon.thresholds.display import DegenerateRangeWarning

SIDE = 64
"""Side of the drawn images in pixels."""
SEED = 1
COUNTS = {"train": 12, "validation": 4, "good": 4, "bad": 4}
"""Drawn images; `good` and `bad` are test images."""
ALIKE = 5
"""Images that hardly differ, of which detectors that hold out hold out one."""


class Trial:
    """One detector under test: its class and settings, drawn images, and a detector that was fitted once on them."""

    def __init__(self, cls: type[Detector], **settings: Any) -> None:
        """`settings` change the defaults of `cls.Config`, groups with a double underscore: `teacher__epochs=7`."""
        self.cls = cls
        self.settings = {key.replace("__", "."): value for key, value in settings.items()}
        self._root = tempfile.mkdtemp(prefix="andon-testing-")
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)

    def folder(self) -> Path:
        """A new empty folder, removed with the trial."""
        return Path(tempfile.mkdtemp(dir=self._root))

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """The drawn images by kind, see `COUNTS`."""
        random, root = np.random.default_rng(0), self.folder()
        return {kind: [_record(root, kind, k, random) for k in range(COUNTS[kind])] for kind in COUNTS}

    def create(self) -> Detector:
        """A new detector with the settings of the trial, not fitted."""
        return self.cls(self.cls.Config().updated(self.settings))

    def fit(self, trainer: Trainer | None = None) -> Detector:
        """A new detector, fitted."""
        trainer = trainer or Trainer(seed=SEED, device="cpu")
        return self.create().fit(self.records["train"], self.records["validation"], trainer=trainer)

    @property
    def detector(self) -> Detector:
        """A fitted detector that all checks share; not to be changed."""
        return self._fitted.detector

    @property
    def stages(self) -> dict[str, Stage]:
        """Training stages of that detector."""
        return self._fitted.stages

    @property
    def opened(self) -> set[Path]:
        """Image files that were decoded while it was fitted."""
        return self._fitted.opened

    @cached_property
    def few(self) -> FittedOnFew:
        """A detector fitted on four training images without validation images, which one check fits again."""
        detector = self.create().fit(self.records["train"][:4])
        return FittedOnFew(detector, detector.fitted().source)

    @cached_property
    def alike(self) -> tuple[Detector, list[Record]]:
        """A detector fitted on copies of one image and images a grey value away from it, and these images."""
        root, pixels = self.folder(), np.asarray(Image.open(self.records["train"][0].image), np.int16)
        records = []
        for k in range(ALIKE):
            noise = np.random.default_rng(k).integers(-1, 2, pixels.shape) if k % 2 else 0
            path = root / f"{k}.png"
            Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)
            records.append(Record(image=path, id=path.stem, split="train", label=0))
        trainer = Trainer(seed=SEED, device="cpu")
        held = [] if self.create().cross_fitted else records[-1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateRangeWarning)
            detector = self.create().fit(records[: ALIKE - len(held)], held, trainer=trainer)
        return detector, records

    @cached_property
    def _fitted(self) -> _Fitted:
        opened: set[Path] = set()
        trainer = Trainer(seed=SEED, device="cpu")
        with _watching(opened):
            detector = self.fit(trainer)
        return _Fitted(detector, trainer.stages, opened)


@dataclass(frozen=True)
class _Fitted:
    detector: Detector
    stages: dict[str, Stage]
    opened: set[Path]


@dataclass(frozen=True)
class FittedOnFew:
    """A detector and what its first thresholds came from."""

    detector: Detector
    source: str


def draw(random: np.random.Generator, defect: bool) -> npt.NDArray[np.uint8]:
    """(SIDE, SIDE, 3) woven grey texture; the defect is a bright square."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    image = 110 + 30 * np.sin(columns / 2.0) * np.sin(rows / 2.0) + random.normal(0, 4, (SIDE, SIDE))
    if defect:
        top, left = random.integers(8, SIDE - 20, 2)
        image[top : top + 12, left : left + 12] = 240
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _record(root: Path, kind: str, k: int, random: np.random.Generator) -> Record:
    path = root / f"{kind}_{k}.png"
    Image.fromarray(draw(random, kind == "bad")).save(path)
    split: Literal["train", "validation", "test"] = (
        "train" if kind == "train" else "validation" if kind == "validation" else "test"
    )
    return Record(image=path, id=f"{kind}/{k}", split=split, label=int(kind == "bad"))


@contextmanager
def _watching(opened: set[Path]) -> Iterator[None]:
    """Collect the files that are decoded meanwhile."""
    real = image_files.decode

    def watch(path: Path, *arguments: Any, **settings: Any) -> Any:
        opened.add(Path(path))
        return real(path, *arguments, **settings)

    with mock.patch.object(images, "decode", watch):
        yield
