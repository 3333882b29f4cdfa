"""AU-sPRO against the worked example T6 and against the curve itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_sets import LIMITS, grid

from andon.core.records import Defect
from andon.datasets.masks import Saturation
from andon.metrics import PixelHistogram, PixelRanking, pixel_metrics

pytestmark = pytest.mark.filterwarnings("ignore:undefined, written as null.*few_vertices")

L = grid(""".9 .1 .1 .0 .2 .0
            .1 .1 .6 .5 .0 .1
            .0 .2 .3 .1 .0 .0
            .0 .0 .0 .4 .1 .2""")
X = grid(""".1 .0 .0 .3 .0 .1
            .0 .0 .2 .0 .0 .0
            .1 .0 .0 .0 .1 .0
            .0 .2 .0 .0 .8 .3""")
Y = grid(""".1 .0 .0 .0 .7 .1
            .0 .1 .2 .0 .0 .0
            .1 .0 .3 .0 .1 .0
            .0 .2 .0 .0 .1 .0""")
A, B, C, EMPTY = (np.zeros((4, 6), bool) for _ in range(4))
A[:2, :3] = B[1:3, 2:4] = C[3, 4:] = True
T6 = {
    0.01: (0.250000000, 0.500000000, 0.375000000, 0.083333333),
    0.05: (0.615384615, 0.591847826, 0.603616221, 0.245726496),
    0.1: (0.807692308, 0.782608696, 0.795150502, 0.376068376),
    0.3: (0.935897436, 0.927536232, 0.931716834, 0.519985310),
    1.0: (0.980769231, 0.978260870, 0.979515050, 0.842414530),
}


def t6(kind=PixelRanking, saturated=True):
    ranking = kind()
    a, b = (Defect(m, name, 255, 2 if saturated else int(m.sum())) for m, name in ((A, "A"), (B, "B")))
    ranking.add(L, A | B, label=1, tags=("logical", "A", "B"), channels=(a, b))
    ranking.add(X, C, label=1, tags=("structural", "C"), channels=(Defect(C, "C", 254, 2),))
    ranking.add(Y, EMPTY, label=0)
    return ranking


@pytest.mark.parametrize("limit", LIMITS)
def test_t6(limit):
    logical, structural, mean, unsaturated = T6[limit]
    ranking = t6()
    assert ranking.auspro(limit, "logical") == pytest.approx(logical, abs=1e-9)
    assert ranking.auspro(limit, "structural") == pytest.approx(structural, abs=1e-9)
    metrics = pixel_metrics(ranking)
    assert metrics[f"auspro_{limit:.2f}@mean"].value == pytest.approx(mean, abs=1e-9)
    assert metrics[f"auspro_{limit:.2f}@logical"].value == pytest.approx(logical, abs=1e-9)
    wrong = t6(saturated=False).auspro(limit, "logical")
    assert wrong == pytest.approx(unsaturated, abs=1e-9)
    assert abs(wrong - logical) > 0.1


def test_t6_of_one_type():
    """False positives of the whole image, found pixels of the one defect."""
    ranking = t6()
    assert ranking.auspro(0.05, "A") == pytest.approx(0.743589744, abs=1e-9)
    assert ranking.auspro(0.3, "A") == pytest.approx(0.957264957, abs=1e-9)
    assert [ranking.summary(tag).n_channels for tag in (None, "logical", "A", "C")] == [3, 2, 1, 1]
    assert (ranking.summary("logical").n_neg, ranking.summary("structural").n_neg) == (39, 46)


def test_names_and_counts():
    metrics = pixel_metrics(t6())
    assert {name for name in metrics if name.startswith("auspro") and "@" not in name} == {
        "auspro_0.01",
        "auspro_0.05",
        "auspro_0.10",
        "auspro_0.30",
        "auspro_1.00",
    }
    found = metrics["auspro_0.05@logical"]
    assert (found.n_pos, found.n_neg, found.reason) == (2, 39, None)


def test_a_subset_without_channels_is_undefined_and_so_is_the_mean():
    ranking = PixelRanking()
    ranking.add(X, C, label=1, tags=("structural",), channels=(Defect(C, "C", 254, 2),))
    ranking.add(L, A, label=1, tags=("logical",))
    ranking.add(Y, EMPTY, label=0)
    with pytest.warns(match="auspro_0.05@logical"):
        metrics = pixel_metrics(ranking)
    assert metrics["auspro_0.05@logical"].reason == metrics["auspro_0.05@mean"].reason == "no_regions"
    assert np.isnan(metrics["auspro_0.05@mean"].value)
    assert metrics["auspro_0.05@structural"].value == pytest.approx(T6[0.05][1], abs=1e-9)


@pytest.mark.parametrize(
    ("saturation", "pixels", "area"),
    [
        (Saturation("a", 0.5, True), 7, 3),
        (Saturation("a", 100, False), 40, 40),
        (Saturation("a", 0.01, True), 20, 1),
        (Saturation("a", 2, False), 6, 2),
    ],
)
def test_saturation_areas(saturation, pixels, area):
    assert saturation.area(pixels) == area


def brute_force(images, limit):
    """AU-sPRO from the curve: mean sPRO and FPR at every distinct score, trapezoid rule, cut at the limit."""
    thresholds = np.unique(np.concatenate([m.ravel() for m, _ in images]))[::-1]
    fpr, spro = [0.0], [0.0]
    for t in thresholds:
        marked = [(m >= t, regions) for m, regions in images]
        unions = [
            np.any([np.zeros(m.shape, bool), *(r.mask for r in regions)], axis=0) for m, regions in images
        ]
        wrong = sum(np.sum(m & ~u) for (m, _), u in zip(marked, unions, strict=True))
        fpr.append(wrong / sum(np.sum(~u) for u in unions))
        shares = [min(np.sum(m & r.mask) / r.saturation_area, 1) for m, regions in marked for r in regions]
        spro.append(np.mean(shares))
    end = [x for x in fpr if x <= limit]
    # At the limit the last of several equal rates counts for what lies left of it.
    x = np.append(end, limit)
    y = np.append(spro[: len(end)], np.interp(limit, fpr, spro) if len(end) < len(fpr) else spro[-1])
    return np.trapezoid(y, x) / limit


@st.composite
def channel_sets(draw):
    """A good image and one to three with one to three overlapping channels; scores on a grid of 0.1."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = []
    for n_channels in [0, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))]:
        regions = []
        for _ in range(n_channels):
            mask = random.random((6, 5)) < random.uniform(0.05, 0.4)
            mask[0, 0] = True
            regions.append(
                Defect(mask, "ab"[random.integers(2)], 255, int(random.integers(1, mask.sum() + 1)))
            )
        images.append(((random.integers(0, 11, (6, 5)) / 10).astype(np.float32), tuple(regions)))
    return images


def collect(images, ranking):
    for anomaly_map, regions in images:
        mask = np.any([np.zeros(anomaly_map.shape, bool), *(r.mask for r in regions)], axis=0)
        names = {region.defect_name for region in regions}
        ranking.add(anomaly_map, mask, label=int(mask.any()), tags=names, channels=regions)
    return ranking


@given(channel_sets())
@settings(deadline=None, max_examples=40)
def test_closed_form_is_the_brute_force_curve(images):
    exact, binned = collect(images, PixelRanking()), collect(images, PixelHistogram(bits=12))
    for limit in LIMITS:
        expected = brute_force(images, limit)
        assert exact.auspro(limit) == pytest.approx(expected, abs=1e-10)
        summary = binned.summary()
        assert abs(summary.auspro[limit] - expected) <= summary.bounds[f"auspro_{limit:.2f}"] + 1e-12


@given(channel_sets())
@settings(deadline=None, max_examples=20)
def test_offset_and_order_do_not_matter(images):
    expected = collect(images, PixelRanking()).summary().auspro
    shifted = [(2 * m + 8, regions) for m, regions in images[::-1]]
    assert collect(shifted, PixelRanking()).summary().auspro == pytest.approx(expected, abs=1e-12)


def test_ideal_maps_reach_1():
    ranking = PixelRanking()
    ranking.add(
        (A | B).astype(np.float32), A | B, label=1, channels=(Defect(A, "A", 1, 2), Defect(B, "B", 2, 4))
    )
    ranking.add(np.zeros((4, 6)), EMPTY, label=0)
    assert [ranking.auspro(limit) for limit in LIMITS] == pytest.approx([1.0] * 5)


def test_a_channel_must_lie_inside_the_mask():
    with pytest.raises(ValueError, match="tray/7: the channel 'A' marks pixels outside"):
        PixelRanking().add(L, B, label=1, channels=(Defect(A, "A", 1, 2),), name="tray/7")
