"""AUPIMO against the worked examples T7 and against a fine numerical integral."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.metrics import PixelHistogram, PixelRanking

KINDS = pytest.mark.parametrize("kind", [PixelRanking, PixelHistogram])


def rows(text):
    return np.array(text.split(), np.float32).reshape(4, 5)


GOOD = rows(".8 .7 .6 .5 .5 .4 .4 .3 .3 .3 .2 .2 .2 .2 .2 .1 .1 .1 .1 .1")
I1 = rows(".9 .8 .7 .3 .1 .2 .6 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1")
I2 = rows(".4 .3 .2 .2 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .1 .9 .1")
M1, M2, EMPTY = (np.zeros((4, 5), bool) for _ in range(3))
M1[0, :4] = M2[0, :4] = M1[1, 1] = True


def t7(kind):
    ranking = kind()
    ranking.add(GOOD, EMPTY, label=0)
    ranking.add(I1, M1, label=1, name="one", tags=["a"])
    ranking.add(I2, M2, label=1, name="two")
    return ranking


@KINDS
def test_t7(kind):
    ranking = t7(kind)
    found = ranking.aupimo(bounds=(0.05, 0.25), force=True)
    assert dict(found.scores) == pytest.approx({"one": 0.645604069, "two": 0}, abs=1e-9)
    assert found.mean == pytest.approx(0.322802034, abs=1e-9)
    assert (found.zero_share, found.n_good, found.n_vertices) == (0.5, 1, 4)
    assert found.quantile(0.25) == pytest.approx(0.645604069 / 4, abs=1e-9)
    ends = ranking.aupimo(bounds=(0.06, 0.4), force=True)
    assert ends.values == pytest.approx([0.707565889, 0.043060422], abs=1e-9)
    assert ends.mean == pytest.approx(0.375313155, abs=1e-9)
    assert ranking.aupimo("a", (0.06, 0.4), force=True).mean == pytest.approx(0.707565889, abs=1e-9)


@KINDS
def test_t7_a_million_pixels(kind):
    """The image is its own good image, so that recall equals the false positive rate."""
    values = np.repeat(np.arange(7, 0, -1, dtype=np.float32), [1, 9, 90, 900, 9000, 90000, 900000])
    image = values.reshape(1000, 1000)
    ranking = kind()
    ranking.add(image, np.zeros(image.shape, bool), label=0)
    ranking.add(image, np.ones(image.shape, bool), label=1)
    assert ranking.aupimo(bounds=(1e-5, 1e-4), force=True).mean == pytest.approx(5.5e-5, rel=1e-9)
    assert ranking.aupimo(bounds=(1e-3, 1e-1), force=True).mean == pytest.approx(0.03025, rel=1e-9)


@KINDS
def test_too_few_thresholds_are_undefined_unless_forced(kind):
    ranking = t7(kind)
    assert np.isnan(ranking.aupimo(bounds=(0.05, 0.25)).mean)
    assert np.isnan(ranking.aupimo(bounds=(0.05, 0.25)).zero_share)
    alone = kind()
    alone.add(I1, M1, label=1)
    assert np.isnan(alone.aupimo(force=True).mean)
    with pytest.raises(ValueError, match="must rise within"):
        ranking_of_bounds = t7(PixelRanking)
        ranking_of_bounds.aupimo(bounds=(0.5, 0.1))


def plain(good, scores, low, high, steps=20_001):
    """T over ln F as it is defined, at every distinct score of the good images, by a fine sum."""
    vertices = np.unique(np.concatenate([g.ravel() for g in good]))[::-1]
    rates = [np.mean([np.mean(g >= v) for g in good]) for v in vertices]
    recalls = [np.mean(scores >= v) for v in vertices]
    x = np.linspace(np.log(low), np.log(high), steps)
    y = np.interp(x, np.log(rates), recalls)
    return np.trapezoid(y, x) / (x[-1] - x[0])


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([(4, 5), (6, 5), (9, 3)]), min_size=1, max_size=4),
    st.floats(0.02, 0.3),
    st.floats(1.5, 5),
)
@settings(deadline=None, max_examples=30)
def test_equals_a_plain_implementation(seed, shapes, low, factor):
    """Good images of different sizes weigh the same, whatever the tails that are looked at."""
    random = np.random.default_rng(seed)
    high = min(1.0, low * factor)
    good = [(random.integers(0, 12, shape) + 16).astype(np.float32) for shape in shapes]
    bad = (random.integers(4, 16, (5, 4)) + 16).astype(np.float32)
    mask = random.random((5, 4)) < 0.4
    mask[0, 0] = True
    for ranking in (PixelRanking(), PixelHistogram()):
        for image in good:
            ranking.add(image, np.zeros(image.shape, bool), label=0)
        ranking.add(bad, mask, label=1)
        found = ranking.aupimo(bounds=(low, high), force=True)
        assert found.mean == pytest.approx(plain(good, bad[mask], low, high), abs=2e-4)
