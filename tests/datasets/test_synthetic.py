"""Synthetic anomalies: masks are where images changed, and the same seed gives the same files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.image_files import decode, read_mask
from andon.datasets import open_dataset
from andon.datasets.penalty_images import procedural_image
from andon.datasets.synthetic import KINDS, VISIBLE, add_anomaly, synthetic_anomalies

SOURCE = "embedded:fabric,profile=tiny,size=128"


@pytest.fixture(scope="module", autouse=True)
def small_textures():
    """Textures of 32 px: most of the time goes into drawing them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("andon.datasets.synthetic.procedural_image", lambda index: procedural_image(index, 32))
        yield


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(KINDS),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from([0.0, 0.5, 1.0, "noise"]),
    st.integers(0, 1 << 30),
)
def test_the_mask_is_where_the_image_changed(kind, height, width, grey, seed):
    """Also on images in which a pasted piece cannot show."""
    rng = np.random.default_rng(seed)
    image = (
        rng.random((height, width, 3), np.float32) if grey == "noise" else np.full((height, width, 3), grey)
    )
    image = image.astype(np.float32)
    before = image.copy()
    changed, mask = add_anomaly(image, image[::-1, : max(1, width // 2)], kind, seed=seed)
    assert np.array_equal(image, before)
    assert (changed.shape, mask.shape, changed.dtype) == (image.shape, (height, width), np.float32)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert np.array_equal(mask, np.abs(changed - image).max(2) >= VISIBLE)
    assert mask.any()
    again = add_anomaly(image, image[::-1, : max(1, width // 2)], kind, seed=seed)
    assert np.array_equal(changed, again[0])


def test_records_are_files_with_masks_and_never_good(monkeypatch, tmp_path):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    good = [replace(r, object_id="part") for r in open_dataset(SOURCE).train[:4]]
    found = synthetic_anomalies(good, seed=3)
    assert [record.defect_type for record in found] == ["patch", "scar", "texture", "patch"]
    assert {(record.label, record.object_id) for record in found} == {(1, None)}
    for record, origin in zip(found, good, strict=True):
        changed = np.abs(decode(record.image).pixels - decode(origin.image).pixels).max(2) > 0
        mask = read_mask(record.masks[0]) > 0
        assert mask.any()
        assert (changed | ~mask).all()  # what is marked has changed
    times = [record.image.stat().st_mtime_ns for record in found]
    again = synthetic_anomalies(good, seed=3)
    assert again == found
    assert [record.image.stat().st_mtime_ns for record in again] == times
    other = synthetic_anomalies(good, seed=4)
    assert all(a.image.read_bytes() != b.image.read_bytes() for a, b in zip(found, other, strict=True))
    assert len(synthetic_anomalies(good, seed=3, most=2)) == 2
    assert synthetic_anomalies([], seed=0) == []
