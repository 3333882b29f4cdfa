"""The contract of all detectors: learn from good images, predict, save, load.

A detector defines `Config`, `input_size`, `score_rule`, `learn` and `analyse`. `fit` learns and sets thresholds here; `predict`
is inherited from `andon.runtime.predictor`. Scores: higher = more anomalous.
"""

from __future__ import annotations

import contextlib
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.appearance import look_at, with_bit_depth
from andon.core.errors import ConfigError
from andon.core.images import as_float, to_tensor
from andon.core.records import Record
from andon.core.region import InspectionRegion, inspected_pixels, read_region, with_region
from andon.core.tiling import Map, Pixels, Tiling, cut_records
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.datasets.splits import folds
from andon.detectors._config import DetectorConfig as DetectorConfig
from andon.detectors._fit_checks import check_fit, check_folds, judged_on, sanity_checks
from andon.detectors._registry import name_of
from andon.detectors._saving import save_detector
from andon.detectors._sessions import scores_within_sessions
from andon.metrics import PixelRanking, auroc
from andon.nn.backbones import Backbone, BackboneConfig, check_taps
from andon.nn.sanity_checks import fingerprints
from andon.nn.training import Trainer
from andon.runtime.predictor import Predictor, RawBatch, RawPrediction
from andon.thresholds.calibration import GoodResults, calibrate_on_good, calibrate_on_labelled

PREDICT_BATCH = Predictor.batch_size


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything a detector computes for a batch of images."""

    anomaly_map: Tensor
    """(B, 1, h, w), raw, at the detector's own grid."""
    score: Tensor
    """(B,), raw."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further image scores (B,) by name, reported beside the chosen one and never chosen on test labels."""


class Detector(Predictor, nn.Module):
    """Base of all detectors.

    Subclasses build their networks in `__init__`, keep what they learn in modules and in buffers ending in `_`, and
    define `input_size`, `learn` and `analyse`.
    """

    Config: ClassVar[type[DetectorConfig]] = DetectorConfig
    config: DetectorConfig
    sized_by_learning: ClassVar[frozenset[str]] = frozenset()
    """Names of own buffers that take the size of what was learned, so that a saved state may bring any size."""
    closed_form: ClassVar[bool] = False
    """Whether learning costs so little that it can be repeated without each fold of the good images (`cross_fit`)."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes of settings by name, the default (none) first, among which labelled anomalous images may choose."""
    fewest_images: ClassVar[int] = 1
    """Good images that `learn` needs."""
    one_at_a_time: ClassVar[bool] = False
    """Whether `analyse` goes through a batch image by image, so that an exported network takes one at a time."""

    def __init__(self, config: DetectorConfig | None = None, *, pretrained: bool = True) -> None:
        """`pretrained=False` leaves frozen weights untrained, for a state that is loaded afterwards."""
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.calibration = None
        self._untouched: tuple[int, DetectorConfig] | None = None
        self._region: InspectionRegion | None = None
        self.used_weights: tuple[dict[str, str], ...] = ()
        if self.cross_fitted and not self.closed_form:
            raise ConfigError(
                f"{self.name} is trained by gradient descent, too long to repeat it for each fold: "
                "threshold_scores=cross_fitted is not possible, use held_out"
            )
        if self.tiling is not None and self.untiled:
            raise ConfigError(
                f"{self.name} cannot look at pictures in tiles, {self.untiled}: choose another detector or leave tile.size out"
            )
        self.eval()

    @property
    def name(self) -> str:
        """The detector's name: that of its file or folder, or of its entry point."""
        return name_of(type(self))

    @classmethod
    def check(cls, config: DetectorConfig) -> None:
        """Raise `ConfigError` for a backbone without the taps it is asked for; nothing is built and no weights are read."""
        for name in type(config).model_fields:
            value = getattr(config, name)
            if isinstance(value, BackboneConfig):
                check_taps(value)

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
        """In words: what labelled anomalous images are used for; empty where the detector does not use them."""
        uses = ["the thresholds"] if self.config.threshold == "labels" else []
        judges = "patience" in type(self.config).model_fields  # others have no epochs to choose from
        uses += ["the choice of the epoch"] if self.config.selection == "labels" and judges else []
        return " and ".join(uses)

    @property
    def cross_fitted(self) -> bool:
        """Whether every good image is scored for the thresholds, by what was learned from the others."""
        return self.config.threshold_scores == "cross_fitted"

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

        None, as for most detectors: colours alone are used. Runs in threads, on the CPU.
        """
        return None

    @property
    def input_channels(self) -> int:
        """Channels of the images `analyse` takes: three colours, more where there are `depth_planes`."""
        return 3

    # What every detector gets --------------------------------------------------------------------------------------

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut into tiles; None where they are analysed as a whole."""
        return None if self.config.tile.size is None else self.config.tile.tiling()

    @property
    def runtime(self) -> str:
        """PyTorch, with its version."""
        return f"torch {torch.__version__}"

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

        With `threshold_scores: cross_fitted` both are learned from, and the thresholds come from the scores that each image
        has by what the others teach.

        `labelled` are anomalous images that are no longer in the test; `label_use` says what becomes of them. `test`
        may be given only with `selection: test`. `region`, or a file that holds one, says which pixels are inspected, from
        now on; the others change no score. Raises `DataError` when there is nothing to learn from, and for what is no record.
        """
        train, validation, test, labelled = check_fit(self, train, validation, test, labelled)
        if region is not None:
            area = region if isinstance(region, InspectionRegion) else read_region(region)
            area.check([*train, *validation, *test, *labelled])
            train, validation, test, labelled = (
                with_region(records, area) for records in (train, validation, test, labelled)
            )
        trainer = trainer if trainer is not None else Trainer()
        seen = look_at([*train, *validation], self.config.bit_depth)
        if seen is not None:
            train, validation, test, labelled = (
                with_bit_depth(records, seen.bit_depth) for records in (train, validation, test, labelled)
            )
        fold_of: tuple[int, ...] = ()
        if self.cross_fitted:
            train, validation = sorted([*train, *validation], key=lambda record: record.id), ()
            fold_of = folds(train, trainer.seed)
            check_folds(self, train, fold_of)
        trainer.selection = judged_on(self, validation, labelled, test, trainer.seed)
        trainer.labelled = tuple(labelled) if self.label_use else ()
        self._region = train[0].region
        self.reset(trainer.seed)
        self.to(trainer.device)
        before = fingerprints(self.frozen)
        good = GoodResults(keep=self.config.threshold == "labels")
        if self.cross_fitted:
            good.within = scores_within_sessions(self, train, trainer)
            for result in self.cross_fit(train, fold_of, trainer):
                good.add(result)
        else:
            with (
                self.cut(train, trainer, "train") as parts,
                self.cut(validation, trainer, "validation") as held,
            ):
                self.learn(parts, held, trainer)
        self.eval()
        sanity_checks(self, before, len(train if self.cross_fitted else validation), trainer)
        with trainer.timed("calibration"):
            if self.cross_fitted:
                count = max(fold_of) + 1
                self._set_thresholds(good, f"cross-fitted in {count} folds", labelled, count)
            else:
                held_out = bool(validation)
                source = "validation" if held_out else "train"
                self.calibrate(validation if held_out else train, source=source, labelled=labelled)
        self.calibration = replace(self.fitted(), seen=seen)
        return self

    def cross_fit(
        self, good: Sequence[Record], fold_of: Sequence[int], trainer: Trainer
    ) -> Iterator[RawPrediction]:
        """Learn from all `good` images; yields the raw result of each, by what was learned without those of its fold.

        Called for detectors that are `closed_form`. Here everything is learned again for each fold; `ClosedForm` shares
        the features.
        """
        count = max(fold_of) + 1
        with trainer.progress.task("cross-fitting", count + 1) as bar, trainer.silent():
            for left_out in [*range(count), None]:
                self.reset(trainer.seed)
                self.to(trainer.device)
                own = [record for record, fold in zip(good, fold_of, strict=True) if fold == left_out]
                rest = [record for record, fold in zip(good, fold_of, strict=True) if fold != left_out]
                with self.cut(rest, trainer, "train") as parts:
                    self.learn(parts, (), trainer)
                self.eval()
                yield from self.scan(own)
                bar.advance()

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

    @classmethod
    def seeded(cls, config: DetectorConfig | None, seed: int) -> Self:
        """An untrained detector, initialised from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            detector = cls(config)
        detector._untouched = (seed, detector.config)
        return detector

    def reset(self, seed: int) -> None:
        """Return to the untrained state, initialised from `seed`; nothing is built where that is the state it is in.

        Which pixels are inspected stays.
        """
        region = self._region
        if self._untouched != (seed, self.config):
            self.__dict__.update(type(self).seeded(self.config, seed).__dict__)
        self._untouched, self._region = None, region

    def calibrate(
        self, good: Sequence[Record], *, source: str = "validation", labelled: Sequence[Record] = ()
    ) -> None:
        """Set the thresholds from good images that were not learned from (docs/reference/metrics.md, "Thresholds").

        With `threshold: labels` they are then moved to where good and `labelled` images are told apart best.
        """
        found = GoodResults(keep=self.config.threshold == "labels")
        for result in self.scan(good):
            found.add(result)
        self._set_thresholds(found, source, labelled)

    def _set_thresholds(
        self, good: GoodResults, source: str, labelled: Sequence[Record], folds: int = 0
    ) -> None:
        seen = None if self.calibration is None else self.calibration.seen
        found = calibrate_on_good(self.config, good, source=source, folds=folds)
        self.calibration = replace(found, seen=seen)
        if self.config.threshold == "labels":
            self.calibration = calibrate_on_labelled(self.calibration, good, self.scan(labelled))

    # What is inspected ---------------------------------------------------------------------------------------------

    @property
    def region(self) -> InspectionRegion | None:
        """Which pixels are inspected, while learning too; None = all."""
        return self._region if self.calibration is None else self.calibration.region

    def inspected_cells(self, height: int, width: int, lost: int = 0) -> npt.NDArray[np.bool_] | None:
        """(h, w) which cells of the map of a whole image, without the `lost` ones on each side, are inspected.

        None for all of them, and for tiles, whose maps are blended first.
        """
        if self.region is None or self.tiling is not None:
            return None
        cells = self.region.cells((height + 2 * lost, width + 2 * lost))
        inside = cells[lost : lost + height, lost : lost + width]
        return inside.copy() if inside.any() else None

    def inspected(self, height: int, width: int, lost: int = 0) -> Tensor | None:
        """As `inspected_cells`, where the parameters are."""
        inside = self.inspected_cells(height, width, lost)
        return None if inside is None else torch.from_numpy(inside).to(self.device())

    def quieted(self, maps: Tensor) -> Tensor:
        """Maps (B, K, h, w) of whole images with the lowest inspected value of each in other cells: no score comes from them."""
        inside = self.inspected(maps.shape[2], maps.shape[3])
        if inside is None:
            return maps
        lowest = maps.masked_fill(~inside, torch.inf).amin((2, 3), keepdim=True)
        return torch.where(inside, maps, lowest)

    # One image to raw map and score (the path around it is `andon.runtime.predictor`) ------------------------------

    @property
    def needs_points(self) -> bool:
        """Whether images have six channels: colours, then the x, y, z of each pixel in metres."""
        return self.depth_planes is not None

    def prepare(self, pixels: Pixels) -> Tensor:
        """(H, W, 3 or 6) to (`input_channels`, h, w) at `input_size`."""
        image, planes = to_tensor(as_float(pixels[:, :, :3]), self.input_size), self.depth_planes
        return image if planes is None else torch.cat([image, planes(as_float(pixels[:, :, 3:]))])

    def analyse_prepared(self, prepared: Sequence[Tensor]) -> RawBatch:
        """`analyse` in inference mode; the result is on the CPU."""
        images = torch.stack(list(prepared))
        with torch.inference_mode():
            return raw_batch(self.analyse(images.to(self.device())))

    def enlarge(self, cells: Map, size: tuple[int, int]) -> Map:
        """(h, w) to (H, W): see `enlarge`."""
        return enlarge(torch.from_numpy(cells)[None], size)

    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def test_auroc(self, test: Sequence[Record]) -> dict[str, float]:
        """Image and pixel AUROC on labelled images: measured after each epoch by recipes with `selection: test`."""
        ranking, scores = PixelRanking(), []
        test = [record for record in test if record.label is not None]
        for found in self.scan(test):
            assert found.record is not None
            scores.append(found.raw_score)
            truth = load_ground_truth(found.record, found.size)
            if has_pixel_truth(found.record, truth):
                inside = inspected_pixels(found.record, found.size)
                ranking.add(found.raw_map, truth.union, label=found.record.label or 0, inspected=inside)
        image = {"image_auroc": auroc(scores, [record.label or 0 for record in test])}
        pixel = ranking.auroc()
        return image if np.isnan(pixel) else image | {"pixel_auroc": pixel}

    # Saved form ----------------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, after the buffers in `sized_by_learning` were given the size of what is loaded."""
        self._untouched = None
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


def raw_batch(found: Analysis) -> RawBatch:
    """The analysis of a batch on the CPU."""
    return RawBatch(
        _array(found.anomaly_map[:, 0]),
        _array(found.score),
        {name: _array(values) for name, values in found.extras.items()},
    )


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy())
