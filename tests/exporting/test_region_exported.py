"""An exported network holds the region: what lies outside it changes nothing, whatever executes the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SIDE, texture, write_picture
from tiny import TINY

from andon.core.errors import DataError
from andon.core.records import Record
from andon.core.region import InspectionRegion, nearest_indices
from andon.detectors._base import Analysis, Detector
from andon.detectors._registry import detector_class
from andon.exporting.network import compare, export, places
from andon.nn.training import Trainer
from andon.runtime import open_model

pytestmark = pytest.mark.xdist_group("network")

AREA = InspectionRegion(np.tile(np.arange(SIDE) < 44, (SIDE, 1)))


class Light(Detector):
    """The largest brightness: a detector that is exported in a moment."""

    @property
    def input_size(self) -> tuple[int, int]:
        return (16, 16)

    @property
    def score_rule(self) -> str:
        return "maximum"

    def learn(self, train, validation, trainer) -> None:
        pass

    def analyse(self, images: torch.Tensor) -> Analysis:
        bright = images.amax(1, keepdim=True)
        return Analysis(bright, bright.amax((1, 2, 3)))


def detector_named(name: str) -> Detector:
    if name == "light":
        return Light()
    return detector_class(name)(detector_class(name).Config().updated(TINY[name]))


@pytest.fixture
def records(tmp_path) -> list[Record]:
    return [Record(write_picture(tmp_path / f"{k}.png", texture(k)), f"{k}", label=0) for k in range(8)]


def test_places_are_those_of_the_definition():
    for new, old in ((1, 7), (64, 64), (97, 60), (3000, 4096), (4096, 3000)):
        assert places(new, old, torch.device("cpu")).tolist() == nearest_indices(new, old).tolist()


def test_fitting_again_without_a_region_forgets_it(records):
    detector = Light()
    for region, found in ((AREA, AREA), (None, None)):
        detector.fit(records[:5], records[5:], trainer=Trainer(device="cpu"), region=region)
        assert detector.fitted().region == found


@pytest.mark.slow  # exporting costs seconds, however small the detector
@pytest.mark.parametrize("name", ["light", *TINY])
def test_exported_networks_hold_the_region(name, records, tmp_path):
    detector, path = detector_named(name), tmp_path / "cloth.onnx"
    detector.fit(records[:5], records[5:], trainer=Trainer(seed=1, device="cpu"), region=AREA)
    assert export(detector, path, images=[texture(1), texture(2, 100)]).map_difference < 1e-3
    for runtime in ("onnx", "openvino"):
        model = open_model(path, runtime)
        assert model.fitted() == detector.fitted()
        for side in (SIDE, 150):
            pixels = texture(4, side)
            changed = np.where(AREA.at((side, side))[:, :, None], pixels, 255 - pixels)
            for x, y in zip(*(model.session(p[None]) for p in (pixels, changed)), strict=True):
                np.testing.assert_array_equal(x, y)
            assert next(model.judged([changed])).verdict == next(detector.judged([pixels])).verdict
        compare(detector, model, path, [texture(9)])
        with pytest.raises(DataError, match="the region was drawn for 64 x 64"):
            model.predict(texture(0)[:32])
