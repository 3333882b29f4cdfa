"""What every detector promises: learn from good images, answer for new ones, save, load.

A detector defines `Config`, `input_size`, `learn` and `analyse`; everything else is here. `fit` learns and calibrates, `predict`
answers. Scores: higher = more anomalous.
"""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Config, Share
from andon.core.errors import ConfigError, DataError, NotFittedError
from andon.core.images import batches, read_pixels, to_tensor
from andon.core.records import Batch, Prediction, Record
from andon.core.region import InspectionRegion, inspected_pixels, read_region, with_region
from andon.core.tiling import Pixels, TileConfig, Tiling, cut_records, look
from andon.datasets.depth import point_cloud_beside
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.datasets.synthetic import synthetic_anomalies
from andon.detectors._saving import save_detector
from andon.metrics import PixelRanking, auroc
from andon.nn.backbones import Backbone
from andon.nn.sanity_checks import FEWEST_HELD_OUT, SanityCheck, fingerprints
from andon.nn.training import Trainer
from andon.nn.weights import WeightFile
from andon.thresholds.calibrate import good_limits, labelled_limits
from andon.thresholds.calibration import Calibration

PREDICT_BATCH = 4
Picture = str | Path | Record | npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class DetectorConfig(Config):
    """Settings all detectors have."""

    selection: Literal["budget", "validation", "synthetic", "labels", "test"] = "budget"
    """What ends training: the budget, the loss on held-out good images, the AUROC on these and defects made up on them, or
    labelled anomalous ones, or (to reproduce published numbers) the test labels."""
    threshold: Literal["good", "labels"] = "good"
    """Where thresholds come from: good images alone, or the best F1 on held-out good and labelled anomalous images."""
    false_reject_rate: Share = 0.05
    """Share of good images the threshold may reject (alpha of the conformal rule)."""
    few_images: Literal["max", "error"] = "max"
    """When there are too few held-out images for that rate: use their maximum and say which rate it gives, or refuse."""
    tile: TileConfig = TileConfig()
    """Large images in overlapping tiles at their own resolution."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything a detector computes for a batch of images."""

    anomaly_map: Tensor
    """(B, 1, h, w), raw, at the detector's own grid."""
    score: Tensor
    """(B,), raw."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further image scores (B,) by name, reported beside the chosen one and never chosen on test labels."""


class Detector(nn.Module, ABC):
    """Base of all detectors.

    Subclasses build their networks in `__init__`, keep what they learn in modules and in buffers ending in `_`, and
    define `input_size`, `learn` and `analyse`.
    """

    Config: ClassVar[type[DetectorConfig]] = DetectorConfig
    config: DetectorConfig
    sized_by_learning: ClassVar[frozenset[str]] = frozenset()
    """Names of own buffers that take the size of what was learned, so that a saved state may bring any size."""
    one_at_a_time: ClassVar[bool] = False
    """Whether `analyse` goes through a batch image by image, so that an exported network takes one at a time."""

    def __init__(self, config: DetectorConfig | None = None, *, pretrained: bool = True) -> None:
        """`pretrained=False` leaves frozen weights untrained, for a state that is loaded afterwards."""
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.calibration: Calibration | None = None
        self.used_weights: tuple[dict[str, str], ...] = ()
        if self.tiling is not None and self.untiled:
            raise ConfigError(
                f"{self.name} cannot look at pictures in tiles, {self.untiled}: choose another detector or leave tile.size out"
            )
        self.eval()

    @property
    def name(self) -> str:
        """The detector's name: that of its file or folder."""
        return type(self).__module__.removeprefix("andon.detectors.").split(".")[0]

    # What a detector defines ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, int]:
        """(H, W) images are resized to before `analyse`."""

    @property
    @abstractmethod
    def score_rule(self) -> str:
        """In words: how the image score follows from the maps."""

    @property
    def untiled(self) -> str:
        """In words, from the settings alone: why images cannot be cut into tiles; empty where they can."""
        return (
            ""
            if self.depth_planes is None
            else f"since with mode={self.config.model_dump()['mode']} it looks at depth"
        )

    @property
    def label_use(self) -> str:
        """In words: what labelled anomalous images are used for; empty where the detector does not look at them."""
        uses = ["the thresholds"] if self.config.threshold == "labels" else []
        judges = "patience" in type(self.config).model_fields  # others have no epochs to choose from
        uses += ["the choice of the epoch"] if self.config.selection == "labels" and judges else []
        return " and ".join(uses)

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """Networks that learning must leave as they are, by name: all backbones, and what a detector adds to them."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Backbone)}

    @abstractmethod
    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        """Learn from good images. `validation` holds held-out good images and may be empty."""

    @abstractmethod
    def analyse(self, images: Tensor) -> Analysis:
        """(B, `input_channels`, H, W), colours in [0, 1], to the raw anomaly map and scores. Tensors only, exportable."""

    @property
    def depth_planes(self) -> Callable[[npt.NDArray[np.float32]], Tensor] | None:
        """From organised points (H, W, 3) in metres to further channels (C, h, w) of `analyse`, at `input_size`.

        None, as for most detectors: the image alone is looked at. Runs in threads, on the CPU.
        """
        return None

    @property
    def input_channels(self) -> int:
        """Channels of the images `analyse` takes: three colours, more where there are `depth_planes`."""
        return 3

    # What every detector gets --------------------------------------------------------------------------------------

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut into tiles; None where they are looked at as a whole."""
        return self.config.tile.tiling()

    @property
    def stated_rule(self) -> str:
        """In words: how the image score follows, whether or not images are cut into tiles."""
        return self.score_rule if self.tiling is None else self.tiling.score_rule

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] to the raw anomaly map (B, 1, h, w) and the raw score (B,)."""
        analysis = self.analyse(images)
        return analysis.anomaly_map, analysis.score

    def fit(
        self,
        train: Sequence[Record],
        validation: Sequence[Record] = (),
        *,
        test: Sequence[Record] = (),
        labelled: Sequence[Record] = (),
        trainer: Trainer | None = None,
        region: InspectionRegion | str | Path | None = None,
    ) -> Self:
        """Learn from the good images of `train`, set thresholds on those of `validation`; fitting twice equals once.

        `labelled` are anomalous images that are no longer in the test; `label_use` says what becomes of them. `test`
        may be given only with `selection: test`. `region`, or a file that holds one, says which pixels are looked at, from
        now on; what happens in the others changes nothing. Raises `DataError` when there is nothing to learn from.
        """
        if not train:
            raise DataError("there are no training pictures: give at least one good picture")
        if any(record.label == 1 for record in [*train, *validation]):
            raise DataError(
                "training and validation pictures must be good ones: remove the anomalous records"
            )
        if (self.config.selection == "test") != bool(test):
            raise ConfigError(
                "selection=test chooses the epoch on test labels and needs fit(..., test=...)"
                if self.config.selection == "test"
                else "fit was given test pictures, but nothing may look at them: selection=test reproduces published results"
            )
        if self.config.selection in {"validation", "synthetic"} and not validation:
            raise DataError(
                f"selection={self.config.selection} needs held-out good pictures, and there are none: add pictures or use "
                "selection=budget"
            )
        self._check_labelled(labelled, validation)
        if region is not None:
            area = region if isinstance(region, InspectionRegion) else read_region(region)
            area.check([*train, *validation, *test, *labelled])
            train, validation, test, labelled = (
                with_region(records, area) for records in (train, validation, test, labelled)
            )
        trainer = trainer if trainer is not None else Trainer()
        trainer.selection = self._judged_on(validation, labelled, test, trainer.seed)
        trainer.labelled = tuple(labelled) if self.label_use else ()
        self.reset(trainer.seed)
        self.to(trainer.device)
        before = fingerprints(self.frozen)
        with self.cut(train, trainer, "train") as parts, self.cut(validation, trainer, "validation") as held:
            self.learn(parts, held, trainer)
        self.eval()
        self._run_sanity_checks(before, validation, trainer)
        with trainer.timed("calibration"):
            held_out = bool(validation)
            source = "validation" if held_out else "train"
            self.calibrate(validation if held_out else train, source=source, labelled=labelled)
        return self

    @contextlib.contextmanager
    def cut(self, records: Sequence[Record], trainer: Trainer, what: str) -> Iterator[Sequence[Record]]:
        """The records, or tiles of them as files that exist until the end of the context."""
        if self.tiling is None:
            yield records
            return
        most = self.config.tile.learn
        with tempfile.TemporaryDirectory(prefix="andon-tiles-") as folder:
            with trainer.timed("tiles"), trainer.progress.task(f"cutting {what} tiles", len(records)) as bar:
                found: list[Record] = []
                for tiles in cut_records(records, self.tiling, most, trainer.seed, Path(folder)):
                    found += tiles
                    bar.advance()
            yield found

    def _judged_on(
        self, validation: Sequence[Record], labelled: Sequence[Record], test: Sequence[Record], seed: int
    ) -> tuple[Record, ...]:
        """Images with labels, or made-up defects, that judge epochs."""
        if self.config.selection == "labels":
            return (*validation, *labelled)
        if self.config.selection == "synthetic":
            made_up = synthetic_anomalies(validation, seed=seed)
            if validation and not made_up:
                raise DataError(
                    "none of the defects made up on good pictures lies in the inspected region: use selection=validation or "
                    "budget, or a larger region"
                )
            return (*validation, *made_up)
        return tuple(test)

    def _run_sanity_checks(
        self, before: Mapping[str, str], validation: Sequence[Record], trainer: Trainer
    ) -> None:
        """The sanity checks of every detector; a subclass adds its own in `learn`."""
        after = fingerprints(self.frozen)
        if before:
            moved = sum(after.get(name) != value for name, value in before.items())
            trainer.sanity_check(
                "calibration", SanityCheck("frozen tensors that learning changed", moved, most=0)
            )
        broken = sum(
            not bool(value.isfinite().all())
            for value in self.state_dict().values()
            if value.is_floating_point()
        )
        trainer.sanity_check(
            "calibration", SanityCheck("learned tensors that are not finite", broken, most=0)
        )
        trainer.sanity_check(
            "calibration",
            SanityCheck("held-out good pictures for thresholds", len(validation), least=FEWEST_HELD_OUT),
        )

    def _check_labelled(self, labelled: Sequence[Record], validation: Sequence[Record]) -> None:
        if any(record.label != 1 for record in labelled):
            raise DataError("labelled pictures must be anomalous ones: remove the others")
        if self.label_use and not labelled:
            raise ConfigError(
                f"this {self.name} is set to use labelled anomalous pictures for {self.label_use}, and there are none: "
                "add --labelled 5, or change that setting"
            )
        if "labels" in (self.config.threshold, self.config.selection) and not validation:
            raise DataError(
                "labelled pictures can be told from held-out good ones only, and there are none: add good pictures, or use "
                "threshold=good and selection=budget"
            )

    def reset(self, seed: int) -> None:
        """Return to the untrained state, initialised from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = type(self)(self.config)
        self.__dict__.update(fresh.__dict__)

    def calibrate(
        self, good: Sequence[Record], *, source: str = "validation", labelled: Sequence[Record] = ()
    ) -> None:
        """Set the thresholds from good images that were not learned from (spec B.11).

        With `threshold: labels` they are then moved to where good and `labelled` images are told apart best.
        """
        self.calibration = good_limits(self, good, source=source)
        if self.config.threshold == "labels":
            self.calibration = labelled_limits(self, self.calibration, good, labelled)

    def scan(
        self, records: Sequence[Record], *, batch_size: int = PREDICT_BATCH
    ) -> Iterator[tuple[Batch, Analysis, list[npt.NDArray[np.float32]]]]:
        """Analyse records batch by batch; yields the batch, its analysis on the CPU, and raw maps at original size.

        What is not inspected of a map holds its lowest inspected value. Images that are cut into tiles come one by one,
        without `Batch.image`.
        """
        device = self.device()
        if self.calibration is not None:
            records = with_region(records, self.calibration.region)
        if self.tiling is not None:
            for record in records:
                pixels = read_pixels(record)
                size = (pixels.shape[0], pixels.shape[1])
                analysis = self.analyse_tiles(pixels, where=str(record.image))
                batch = Batch(torch.empty(0, 3, *self.input_size), (record,), (size,))
                yield batch, analysis, [_lowered(enlarge(analysis.anomaly_map[0], size), record)]
            return
        for batch in batches(records, self.input_size, batch_size, planes=self.depth_planes):
            with torch.inference_mode():
                analysis = self.analyse(batch.image.to(device))
            analysis = Analysis(
                analysis.anomaly_map.float().cpu(),
                analysis.score.float().cpu(),
                {name: value.float().cpu() for name, value in analysis.extras.items()},
            )
            yield (
                batch,
                analysis,
                [
                    _lowered(enlarge(analysis.anomaly_map[k], size), record)
                    for k, (size, record) in enumerate(zip(batch.sizes, batch.records, strict=True))
                ],
            )

    def analyse_tiles(self, pixels: Pixels, *, where: str = "this picture") -> Analysis:
        """(H, W, 3) image of any size, uint8 or in [0, 1], to map (1, 1, h, w) and score (1,) on the CPU, tile by tile."""
        assert self.tiling is not None

        def answer(tiles: Pixels) -> npt.NDArray[np.float32]:
            images = torch.stack([to_tensor(as_float(tile), self.input_size) for tile in tiles])
            with torch.inference_mode():
                maps = self.analyse(images.to(self.device())).anomaly_map
            return np.asarray(maps[:, 0].float().cpu().numpy())

        blended = look(pixels, self.tiling, answer, where=where)
        return Analysis(torch.from_numpy(blended)[None, None], torch.tensor([self.tiling.score(blended)]))

    def test_auroc(self, test: Sequence[Record]) -> dict[str, float]:
        """Image and pixel AUROC on labelled images: what recipes with `selection: test` look at after each epoch."""
        ranking, scores = PixelRanking(), []
        test = [record for record in test if record.label is not None]
        for batch, analysis, maps in self.scan(test):
            scores += [float(v) for v in analysis.score]
            for record, anomaly_map in zip(batch.records, maps, strict=True):
                shape = (anomaly_map.shape[0], anomaly_map.shape[1])
                truth, inside = load_ground_truth(record, shape), inspected_pixels(record, shape)
                if has_pixel_truth(record, truth):
                    ranking.add(anomaly_map, truth.union, label=record.label or 0, inspected=inside)
        found = {"image_auroc": auroc(scores, [record.label or 0 for record in test])}
        pixel = ranking.auroc()
        return found if np.isnan(pixel) else found | {"pixel_auroc": pixel}

    @overload
    def predict(self, pictures: Picture) -> Prediction: ...
    @overload
    def predict(self, pictures: list[Picture] | tuple[Picture, ...]) -> list[Prediction]: ...
    def predict(self, pictures: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """Answer for one image or several: paths, records, or (H, W, 3) arrays (uint8, or float32 in [0, 1]).

        Detectors that look at depth take float32 arrays (H, W, 6): colours, then x, y, z in metres.

        Raises `NotFittedError` before `fit`, `DataError` for an image that cannot be read.
        """
        self.fitted()
        if isinstance(pictures, str | Path | Record | np.ndarray):
            return next(self.stream([pictures]))
        return list(self.stream(pictures))

    def stream(self, pictures: Sequence[Picture]) -> Iterator[Prediction]:
        """As `predict` for many images, one result at a time."""
        found = self.fitted()
        if pictures and isinstance(pictures[0], np.ndarray):
            for array in pictures:
                yield self._predict_array(cast("npt.NDArray[Any]", array))
            return
        records = [_as_record(picture) for picture in pictures]
        for batch, analysis, maps in self.scan(records):
            for k, record in enumerate(batch.records):
                yield found.judge(maps[k], float(analysis.score[k]), record)

    def _predict_array(self, array: npt.NDArray[Any]) -> Prediction:
        planes = self.depth_planes
        if planes is None and (array.shape[2:] != (3,) or array.dtype not in (np.uint8, np.float32)):
            raise DataError(
                f"a picture must be (H, W, 3) uint8 or float32, this one is {array.shape} {array.dtype}: convert it"
            )
        if planes is not None and (array.shape[2:] != (6,) or array.dtype != np.float32):
            raise DataError(
                f"this {self.name} looks at depth and needs (H, W, 6) float32 (colours in [0, 1], then x, y, z in "
                f"metres), this picture is {array.shape} {array.dtype}: join the two"
            )
        area = self.fitted().region
        array = array if area is None else area.filled(array)
        if self.tiling is not None:
            analysis = self.analyse_tiles(array)
            whole = enlarge(analysis.anomaly_map[0], (array.shape[0], array.shape[1]))
            return self.fitted().judge(whole, float(analysis.score[0]))
        pixels = as_float(array)
        image = to_tensor(pixels[:, :, :3], self.input_size)
        if planes is not None:
            image = torch.cat([image, planes(pixels[:, :, 3:])])
        with torch.inference_mode():
            anomaly_map, score = self(image[None].to(self.device()))
        return self.fitted().judge(
            enlarge(anomaly_map[0].float().cpu(), (array.shape[0], array.shape[1])), float(score[0])
        )

    def fitted(self) -> Calibration:
        """The thresholds. Raises `NotFittedError` before `fit`."""
        if self.calibration is None:
            raise NotFittedError(
                f"this {self.name} has not learned yet: call fit(train, validation) or andon.load(folder) first"
            )
        return self.calibration

    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    # Saved form ----------------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, after the buffers in `sized_by_learning` were given the size of what is loaded."""
        for name in self.sized_by_learning:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device()))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def save(self, folder: str | Path) -> None:
        """Write `detector.json` and `state.safetensors` (no pickle) into `folder`."""
        save_detector(self, Path(folder))


def enlarge(anomaly_map: Tensor, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(1, h, w) to (H, W) float32: bilinear, half-pixel centres, never beyond the largest cell."""
    enlarged = F.interpolate(anomaly_map[None], size=size, mode="bilinear", align_corners=False)
    return np.asarray(enlarged[0, 0].numpy(), dtype=np.float32)


def _lowered(raw_map: npt.NDArray[np.float32], record: Record) -> npt.NDArray[np.float32]:
    return raw_map if record.region is None else record.region.lowered(raw_map)


def as_float(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Pixels of uint8 or float32 as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels


def _as_record(picture: Picture) -> Record:
    if isinstance(picture, Record):
        return picture
    path = Path(cast("str | Path", picture))
    return Record(image=path, id=path.with_suffix("").as_posix(), depth=point_cloud_beside(path))


def weight_lines(*backbones: Backbone) -> tuple[dict[str, str], ...]:
    """Origin lines of the weights some backbones use, each once."""
    files: dict[str, WeightFile] = {b.weights.name: b.weights for b in backbones}
    return tuple(file.describe() for file in files.values())
