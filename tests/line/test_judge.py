"""The judge: verdicts as those of the packed model, and ERROR with a cause for everything that cannot be judged."""

from __future__ import annotations

import io
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import texture
from PIL import Image

from andon.core.errors import DataError
from andon.exporting.packed import ProofError, read_pack
from andon.line.judge import Judge, Thresholds, decoded, map_png, reduced, regions, seen_by, suffix_of
from andon.line.verdicts import Cause, Verdict
from andon.runtime.runtimes import Outputs

pytestmark = pytest.mark.xdist_group("network")


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def stained(seed: int) -> np.ndarray:
    pixels = texture(seed)
    pixels[10:26, 20:40] = (230, 20, 20)
    return pixels


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Judge:
    """Of the tiny packed model; packing needs PyTorch, judging does not."""
    if find_spec("torch") is None:
        pytest.skip("packing needs PyTorch")
    opened = Judge(request.getfixturevalue("packed"), threads=1)
    opened.self_check()
    return opened


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.7999, Verdict.OK),
        (0.8, Verdict.REVIEW),
        (1.1999, Verdict.REVIEW),
        (1.2, Verdict.NG),
        (float("nan"), Verdict.ERROR),
        (float("-inf"), Verdict.ERROR),
    ],
)
def test_two_thresholds(score, verdict):
    assert Thresholds(0.8, 1.2).verdict(score) is verdict


def test_bits_are_those_that_the_model_learned(judge, monkeypatch):
    learned = judge._model.calibration
    seen = replace(learned.seen, bit_depth=12)
    monkeypatch.setattr(judge._model, "calibration", replace(learned, seen=seen))
    grey = np.asarray(Image.fromarray(texture(100)).convert("L"))
    deep = np.round(grey / 255 * 4095).astype(np.uint16)
    plain, twelve = (judge.judge(encoded(pixels), judge.thresholds) for pixels in (grey, deep))
    assert twelve.verdict is plain.verdict
    assert twelve.score_raw == pytest.approx(plain.score_raw, rel=1e-5)
    above = judge.judge(encoded(np.full_like(deep, 5000)), judge.thresholds)
    assert (above.verdict, above.cause) == (Verdict.ERROR, Cause.NOT_AN_IMAGE)


def test_verdict_is_that_of_the_packed_model(judge, request):
    from andon.runs.loading import load

    model = load(request.getfixturevalue("packed"), "onnx")
    for pixels in [texture(k) for k in range(100, 104)] + [stained(k) for k in range(200, 204)]:
        expected = model.predict(pixels)
        found = judge.judge(encoded(pixels), judge.thresholds)
        assert found.verdict.name == expected.verdict
        assert found.score_raw == expected.raw_score
        assert found.score == pytest.approx(expected.score, rel=1e-6, abs=1e-5)
        assert bool(found.regions) == bool(expected.mask.any())
        assert {"decode", "network", "post-processing", "map", "judge"} == set(found.ms)
        assert found.ms["judge"] >= sum(found.ms.values()) - found.ms["judge"]
        assert np.asarray(Image.open(io.BytesIO(found.map))).shape == (64, 64)


def test_the_same_from_bytes_and_pixels(judge):
    one, other = judge.judge(encoded(stained(1)), judge.thresholds), judge.judge(stained(1), judge.thresholds)
    assert (one.score, one.regions, one.map) == (other.score, other.regions, other.map)


def test_grey_and_jpeg_are_judged(judge):
    grey = texture(1)[:, :, 0]
    for image in (encoded(grey), encoded(texture(1), "JPEG"), encoded(texture(1), "BMP")):
        assert judge.judge(image, judge.thresholds).verdict is not Verdict.ERROR


PNG = encoded(texture(1))


@pytest.mark.parametrize(
    "image",
    [
        *(b"", b"no image", PNG[:-40], PNG[: len(PNG) // 2], PNG[:8]),
        *(b"<html>502 Bad Gateway</html>", encoded(texture(1, 4))),
        *(encoded(texture(1), "JPEG")[:-200], b"\0" * 5000),
    ],
    ids=lambda image: f"{len(image)} bytes",
)
def test_what_is_no_image_is_error(judge, image):
    found = judge.judge(image, judge.thresholds)
    assert (found.verdict, found.cause, found.score) == (Verdict.ERROR, Cause.NOT_AN_IMAGE, None)
    assert "/" not in found.why.split("(")[0]  # no path of this machine
    assert "skip" not in found.why


@pytest.mark.parametrize("shape", [(64, 96), (32, 32), (200, 200)])
def test_an_image_of_another_size_is_error(judge, shape):
    pixels = np.full((*shape, 3), 99, np.uint8)
    found = judge.judge(encoded(pixels), judge.thresholds)
    assert (found.verdict, found.cause) == (Verdict.ERROR, Cause.IMAGE_DIFFERS)
    assert f"{shape[1]} x {shape[0]}" in found.why


@pytest.mark.parametrize("bad", ["map", "score", "raise"])
def test_a_network_that_fails_is_error(judge, monkeypatch, bad):
    session = judge._model.session

    def broken(images: np.ndarray) -> Outputs:
        raw, score, anomaly_map = (np.array(each) for each in session(images))
        if bad == "raise":
            raise MemoryError
        if bad == "score":
            raw[:] = np.nan
        else:
            anomaly_map[0, 3, 4] = np.inf
        return Outputs(raw, score, anomaly_map)

    broken.name = "broken"
    monkeypatch.setattr(judge._model, "session", broken)
    found = judge.judge(PNG, judge.thresholds)
    cause = Cause.JUDGE_FAILED if bad == "raise" else Cause.NOT_FINITE
    assert (found.verdict, found.cause) == (Verdict.ERROR, cause)
    with pytest.raises((ProofError, MemoryError)):
        judge.self_check()


def test_a_file_that_is_no_pack_is_refused(tmp_path):
    path = tmp_path / "x.andon"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError):
        Judge(path)


def test_regions_are_boxes_largest_first():
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:4, 3:5] = 1.5
    anomaly_map[10:16, 8:20] = 1.1
    anomaly_map[12, 9] = 1.7
    anomaly_map[4, 5] = 1.2  # touches at a corner
    found = regions(anomaly_map >= 1, anomaly_map)
    assert [region[:4] for region in found] == [(8, 10, 12, 6), (3, 2, 3, 3)]
    assert [round(region.peak, 3) for region in found] == [1.7, 1.5]
    assert regions(anomaly_map > 9, anomaly_map) == ()


def test_many_regions_are_cut_to_the_largest():
    mask = np.zeros((64, 64), bool)
    mask[::2, ::2] = True
    mask[60:63, 60:63] = True
    found = regions(mask, mask.astype(np.float32))
    assert len(found) == 32
    assert found[0][:4] == (60, 60, 3, 3)


def test_map_has_a_fixed_scale():
    def grey(values: np.ndarray) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(map_png(values))))

    assert grey(np.array([[-1.0, 0.0, 1.0, 2.0, 9.0]])).tolist() == [[0, 0, 128, 255, 255]]
    large = np.zeros((1001, 1500), np.float32)
    large[1000, 700] = 2.0
    small = grey(reduced(large))
    assert max(small.shape) <= 512
    assert small.max() == 255  # a peak of one pixel is not averaged away
    assert small.dtype == np.uint8


def test_sizes_are_those_that_fit_saw(judge, request):
    packed = read_pack(request.getfixturevalue("packed"))
    assert seen_by(packed, judge._model) is judge._model.calibration.seen
    unknown = SimpleNamespace(fitted=lambda: SimpleNamespace(seen=None))  # a file of before sizes were kept
    seen = seen_by(packed, unknown)
    assert not seen.form_differences(64, 64)
    assert not seen.form_differences(70, 69)
    assert [note.code for note in seen.form_differences(64, 90)] == ["proportion"]
    assert [note.code for note in seen.form_differences(200, 200)] == ["size"]


def test_suffix_follows_the_content():
    kinds = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
    assert {form: suffix_of(encoded(texture(1), form)) for form in kinds} == kinds
    assert suffix_of(b"GIF89a") == ".bin"


def test_decoded_as_the_file_is(tmp_path):
    from andon.core.image_files import decode

    deep = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    for name, content in {"a.jpg": encoded(texture(1), "JPEG"), "b.png": encoded(deep)}.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert np.array_equal(decoded(content), decode(path).pixels)
