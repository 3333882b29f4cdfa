"""The archive for the benchmark server of MVTec AD 2."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import SIDE, texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from andon.core.errors import DataError
from andon.datasets import open_dataset
from andon.detectors._saving import load_detector
from andon.report.evaluation import evaluate
from andon.report.submission import PixelMoments, map_file, mask_file, write_submission


@pytest.fixture(scope="module")
def ad_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The category `cloth`, on which `tiny_run` was fitted, in the layout of MVTec AD 2; images are wider than high."""
    root = tmp_path_factory.mktemp("ad_2")
    folder = root / "cloth"

    def draw(place: str, seed: int, stain: bool = False) -> None:
        pixels = texture(seed, 96)[:SIDE].copy()
        if stain:
            pixels[20:40, 50:70] = (230, 20, 20)
        write_picture(folder / place, pixels)

    for k in range(3):
        draw(f"train/good/{k:03}_regular.png", k)
        draw(f"validation/good/{k:03}_regular.png", 20 + k)
    for k, light in enumerate(("regular", "shift_1")):
        draw(f"test_public/good/000_{light}.png", 30 + k)
        draw(f"test_public/bad/000_{light}.png", 40 + k, stain=True)
        mask = np.zeros((SIDE, 96), np.uint8)
        mask[20:40, 50:70] = 255
        write_picture(folder / f"test_public/ground_truth/bad/000_{light}_mask.png", mask)
        draw(f"test_private/{k:03}_regular.png", 50 + k, stain=True)
        draw(f"test_private_mixed/{k:03}_mixed.png", 60 + k, stain=True)
    return root


def test_archive(ad_2: Path, tiny_run: Path, tmp_path: Path) -> None:
    data, detector = open_dataset(ad_2), load_detector(tiny_run)
    done = write_submission({"cloth": detector}, [data], tmp_path / "out" / "s.tar.gz")
    with tarfile.open(done.archive) as opened:
        files = {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]
    stems = [f"test_private/00{k}_regular" for k in (0, 1)] + [
        f"test_private_mixed/00{k}_mixed" for k in (0, 1)
    ]
    assert sorted(files) == sorted(
        [f"anomaly_images/cloth/{stem}.tiff" for stem in stems]
        + [f"anomaly_images_thresholded/cloth/{stem}.png" for stem in stems]
    )
    assert done.images == {"cloth": 4}
    pixels = np.concatenate([found.raw_map.ravel() for found in detector.scan(data.validation)])
    expected = pixels.astype(np.float64).mean() + 3 * pixels.astype(np.float64).std()
    assert done.thresholds["cloth"] == pytest.approx(expected, rel=1e-5)
    for stem in stems:
        alone = next(detector.judged([ad_2 / "cloth" / f"{stem}.png"]))
        shown = tifffile.imread(io.BytesIO(files[f"anomaly_images/cloth/{stem}.tiff"]))
        assert shown.dtype == np.float16 and shown.shape == (SIDE, 96)
        np.testing.assert_allclose(shown, alone.anomaly_map, atol=5e-3, rtol=2e-3)
        marked = np.asarray(Image.open(io.BytesIO(files[f"anomaly_images_thresholded/cloth/{stem}.png"])))
        assert set(np.unique(marked)) <= {0, 255} and marked.shape == (SIDE, 96)
        differs = (marked > 0) != (alone.raw_map >= expected)
        assert differs.mean() < 0.01


def test_private_images_are_in_no_metric(ad_2: Path, tiny_run: Path) -> None:
    report = evaluate(load_detector(tiny_run), open_dataset(ad_2).test, latency=False)
    assert len(report.cases) == 4 and all("private" not in case.record.id for case in report.cases)
    assert (report.metrics["part_auroc"].n_pos, report.metrics["part_auroc"].n_neg) == (1, 1)


def test_unusable_input_is_refused_before_work(ad_2: Path, tiny_run: Path, tmp_path: Path) -> None:
    detector, data = load_detector(tiny_run), open_dataset(ad_2)
    with pytest.raises(DataError, match="no detector was given for cloth"):
        write_submission({}, [data], tmp_path / "s.tar.gz")
    with pytest.raises(DataError, match="nothing to submit"):
        write_submission({"cloth": detector}, [], tmp_path / "s.tar.gz")
    for changed in ("test", "validation"):
        fewer = open_dataset(ad_2)
        object.__setattr__(fewer, changed, fewer.train[:0])
        with pytest.raises(DataError, match=r"no pictures in test_private|no validation pictures"):
            write_submission({"cloth": detector}, [fewer], tmp_path / "s.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_no_archive(ad_2: Path, tiny_run: Path, tmp_path: Path) -> None:
    data = open_dataset(ad_2)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    records = [*data.test]
    object.__setattr__(records[-1], "image", broken)
    with pytest.raises(DataError, match="broken"):
        write_submission({"cloth": load_detector(tiny_run)}, [data], tmp_path / "s.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


@settings(deadline=None, max_examples=50)
@given(st.lists(arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=5))
def test_moments_of_pieces_are_those_of_the_whole(pieces: list[np.ndarray]) -> None:
    moments = PixelMoments()
    for piece in pieces:
        moments.add(piece)
    whole = np.stack(pieces).astype(np.float64)
    assert moments.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
    assert moments.std == pytest.approx(whole.std(), rel=1e-9, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float64, (3, 5), elements=st.floats(-1e9, 1e9)))
def test_files_hold_what_was_given(values: np.ndarray) -> None:
    """Order is kept, and there are no infinities."""
    back = tifffile.imread(io.BytesIO(map_file(values))).astype(np.float64)
    assert np.isfinite(back).all()
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(back.ravel()[order]) >= 0).all()
    marked = np.asarray(Image.open(io.BytesIO(mask_file(values > 0))))
    np.testing.assert_array_equal(marked > 0, values > 0)


def test_command(ad_2: Path, tiny_run: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "s.tar.gz"
    command = ("data", "submission", ad_2, tiny_run, "--out", out)
    done = cli(*command, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["pictures"] == {"cloth": 4} and out.is_file()
    assert "there already" in cli(*command).complaint()
    assert "both for cloth" in cli(*command, tiny_run, "--overwrite").complaint()
    assert "4 pictures (cloth) are in" in cli(*command, "--overwrite").out


def test_command_with_other_data(
    ad_2: Path, tiny_run: Path, dataset_folder: Path, tmp_path: Path, cli
) -> None:
    out = ("--out", tmp_path / "s.tar.gz")
    assert (
        "expected train/good and test_public"
        in cli("data", "submission", dataset_folder, tiny_run, *out).complaint()
    )
    (tmp_path / "felt").symlink_to(ad_2 / "cloth")
    assert "is for 'cloth'" in cli("data", "submission", tmp_path / "felt", tiny_run, *out).complaint()
