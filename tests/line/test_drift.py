"""Drift watch: tests on streams, causes on drawn images, a station that drifts and comes back, restart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import stats

from andon.core.records import Note
from andon.line.clock import MINUTE
from andon.line.drift import charts
from andon.line.drift.cause import KEEP, Cause, place_of
from andon.line.drift.follower import WAITING_IMAGES, DriftFollower, Learned, drift_text
from andon.line.drift.numbers import SIDE, Template, measure, reduce
from andon.line.drift.rates import BLOCK, LEARNED, RateWatch
from andon.line.drift.reference import LEVELS, NAMES, Learner, Reference
from andon.line.drift.settings import DriftSettings
from andon.line.drift.watch import Seen, Watch
from andon.line.judge import Judgement
from andon.line.store import Inspection, StoreUnavailable, rows
from andon.line.store import drift as stored
from andon.line.tally import shift_begin
from andon.line.verdicts import Verdict
from line.running import running, until
from line.storing import part

RNG = np.random.default_rng(7)


def ar1(rho: float, count: int, *shape: int) -> np.ndarray:
    """A stationary AR(1) series by its definition."""
    found = [RNG.standard_normal(shape)]
    for _ in range(count - 1):
        found.append(rho * found[-1] + np.sqrt(1 - rho**2) * RNG.standard_normal(shape))
    return np.array(found)


def scene(dx: int = 0, light: float = 1.0) -> np.ndarray:
    """An image (96, 128, 3) of a part whose brightness varies a little."""
    yy, xx = np.mgrid[:96, :128]
    inside = (abs(xx - 64 - dx - RNG.normal(0, 0.02)) < 30) & (abs(yy - 48) < 20)
    level = (0.4 + 0.3 * inside + 0.1 * (inside & (xx - dx < 60))) * light * (1 + RNG.normal(0, 0.01))
    noisy = level[..., None] * (1.0, 0.9, 0.8) + RNG.normal(0, 0.01, (96, 128, 3))
    return (255 * noisy.clip(0, 1)).astype(np.uint8)


def shaded(image: np.ndarray) -> np.ndarray:
    down, right = np.linspace(0, 1, 96)[:, None], np.linspace(0, 1, 128)
    return (image * (1 - 0.3 * np.clip(1 - np.hypot(down, right), 0, 1))[..., None]).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))


def tinted(image: np.ndarray) -> np.ndarray:
    return (image * (1.05, 1.0, 0.9)).clip(0, 255).astype(np.uint8)


CHANGED = {
    "light": lambda: scene(light=0.9),
    "light, upper left": lambda: shaded(scene()),
    "blur": lambda: blurred(scene()),
    "shift": lambda: scene(dx=5),
    "colour": lambda: tinted(scene()),
    "new product": lambda: 255 - scene(),
}


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Learned from good scenes."""
    learner = Learner(250, "a", "test")
    parts = (
        learner.add(reduce(scene()), float(RNG.normal(0.4, 0.1)), 5.0, 2.0) for _ in range(learner.total)
    )
    return next(filter(None, parts))


def test_normal_deviates_keep_ranks_and_are_bounded():
    sample = RNG.exponential(size=1000)
    levels = np.quantile(sample, np.linspace(0, 1, LEVELS))
    found = charts.to_normal(sample, levels, sample.size)
    exact = stats.norm.ppf((stats.rankdata(sample) - 0.5) / sample.size)
    assert np.abs(found - exact)[np.abs(exact) < 2.5].max() < 0.1
    wild = charts.to_normal([-1e9, 1e9], levels, 1000)
    assert wild == pytest.approx([-3.29, 3.29], abs=0.01)
    tied = charts.to_normal([1.0], np.repeat([0.0, 1.0, 2.0], [100, 200, 101]), 400)
    assert abs(tied[0]) < 0.02


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_limit_is_that_of_simulated_averages(rho):
    """Standard deviation of the EWMA, with that of the reference's mean, over 1,500 series."""
    values = ar1(rho, 500, 1500)
    average = np.zeros(1500)
    for row in values[200:]:
        average += charts.LAMBDA * (row - values[:200].mean(0) - average)
    assert charts.ewma_limit(rho, 200) / charts.L == pytest.approx(average.std(), rel=0.08)
    assert charts.autocorrelation(values[:, 0]) == pytest.approx(rho, abs=0.12)


def test_shift_is_compared_as_scipy_does():
    first, second = RNG.normal(size=2001), RNG.normal(0.2, 1, size=300)
    found = charts.compare(second, np.quantile(first, np.linspace(0, 1, 2001)), 2001, 0.0)
    exact = stats.ks_2samp(first, second)
    assert found.distance == pytest.approx(exact.statistic, abs=0.002)
    assert np.log10(found.p) == pytest.approx(np.log10(exact.pvalue), abs=0.2)
    assert charts.compare(second, np.quantile(first, np.linspace(0, 1, 2001)), 2001, 0.5).p > found.p
    null = [
        charts.psi(RNG.normal(size=100), np.quantile(RNG.normal(size=200), np.linspace(0, 1, 200)))
        for _ in range(300)
    ]
    assert np.quantile(null, 0.95) == pytest.approx(
        charts.compare(second[:100], first[:200], 200, 0).psi_null, rel=0.25
    )


def test_holm_by_hand():
    assert charts.holm([0.04, 0.001, 0.02, 0.3], 0.05) == [False, True, False, False]
    assert charts.holm([0.01, 0.02, 0.04], 0.05) == [True, True, True]


def test_rate_limit_is_the_beta_binomial_tail_and_widens_with_lots_that_differ():
    equal, lots = [1] * LEARNED, [0, 2] * (LEARNED // 2)
    for counts in (equal, lots):
        found = charts.RateReference.of(counts, BLOCK)
        tail = stats.betabinom(BLOCK, found.a, found.b).sf
        limit = found.limit(BLOCK)
        assert tail(limit - 1) <= charts.RATE_ALPHA < tail(limit - 2)
    wild = charts.RateReference.of([0, 0, 0, 8] * 5, BLOCK).limit(BLOCK)
    assert wild > charts.RateReference.of([2] * 20, BLOCK).limit(BLOCK)
    rate = RateWatch()
    for k in range(BLOCK * (LEARNED + 1)):
        rate.take(k % 50 == 0, 1)
    assert not rate.is_high
    for k in range(BLOCK):
        rate.take(k % 3 == 0, 1)
    assert rate.is_high
    assert "17 of 50 parts are NG" in rate.text("NG")
    rate.take(True, 2)  # other thresholds: learned again
    assert rate.limit is None


@pytest.mark.parametrize("shift", [(5.0, 0.0), (-3.0, 4.0)])
def test_offset_is_found(shift):
    image = reduce(scene()).luma
    moved = np.roll(image, (int(shift[1]), int(shift[0])), (0, 1))
    assert Template(image, False).offset(moved) == pytest.approx(shift, abs=0.3)
    assert Template.of([image, reduce(scene()).luma]).offset(moved) == pytest.approx(shift, abs=0.6)


def test_numbers_follow_what_they_are_named_for():
    mean = Template(reduce(scene()).luma, False)
    plain, dark, soft = (
        measure(reduce(image), mean) for image in (scene(), scene(light=0.8), blurred(scene()))
    )
    assert dark.brightness < 0.9 * plain.brightness
    assert dark.red == pytest.approx(plain.red, abs=0.01)
    assert soft.sharpness < plain.sharpness - 0.1
    black = measure(reduce(np.zeros((5, 3), np.uint8)), Template(np.zeros((SIDE, SIDE)), False))
    assert np.isfinite(black).all()


@pytest.mark.parametrize("said", CHANGED)
def test_cause_and_place_are_named(reference, said):
    watch = Watch()
    watch.begin(reference)
    for number in range(150):
        image = reduce(CHANGED[said]() if number >= 40 else scene())
        values = np.array([*measure(image, reference.template), RNG.normal(0.4, 0.1)])
        watch.compare(values, image.cells, number * MINUTE)
        if watch.drift:
            break
    assert watch.drift is not None
    assert number >= 45  # a single part is no drift
    named = watch.drift.named
    assert ", ".join(filter(None, (named.cause, named.place))) == said
    assert 15 * MINUTE <= watch.drift.since <= 50 * MINUTE
    assert KEEP in named.text("10:42")


def test_places():
    cells = np.zeros((4, 4))
    cells[2:, 2:] = -1
    assert place_of(cells) == "lower right"
    assert place_of(np.ones((4, 4))) == ""


def test_small_line_calls_nobody_and_a_step_is_found():
    """The acceptance of benchmarks/drift.py, small: three lines, autocorrelation 0.3."""
    alarms, delays = 0, []
    for _ in range(3):
        values = ar1(0.3, 1400, len(NAMES))
        watch = Watch()
        watch.begin(
            Reference.of(
                Template(np.zeros((SIDE, SIDE)), False),
                values[:600],
                np.ones((600, 4, 4)),
                np.zeros((600, 2)),
            )
        )
        for k, row in enumerate(values[600:]):
            watch.compare(row + (k >= 500) * np.eye(len(NAMES))[0], np.ones((4, 4)), k)
            alarms += watch.drift is not None and k < 500
            if watch.drift:
                delays.append(k - 500)
                break
    assert alarms == 0
    assert max(delays) < 150
    assert watch.drift.named.cause is Cause.LIGHT


def test_state_survives_a_restart(reference):
    watch = Watch(learner=Learner(200, "a", "b"))
    watch.begin(reference)
    for number in range(80):
        watch.take(
            Seen(number * MINUTE, Verdict.OK, 0.5, 4.0, None, reduce(scene(light=0.8)), {"dark": "darker"})
        )
    assert watch.drift is not None
    assert watch.unlike() == "darker"
    again = Watch.from_json(watch.to_json(), Reference.from_json(reference.to_json()))
    assert again.drift == watch.drift
    assert again.average == pytest.approx(watch.average, abs=1e-5)
    assert again.learner.progress == watch.learner.progress == 80
    assert again.to_json() == watch.to_json()


def test_rejected_parts_are_no_drift(reference):
    watch = Watch()
    watch.begin(reference)
    for number in range(60):
        watch.take(Seen(number, Verdict.NG, 2.0, 4.0, None, reduce(scene(light=0.5)), {}))
        watch.take(Seen(number, Verdict.ERROR, None, 4.0, None, None, {}))
    assert watch.parts == 0


class Heard:
    """Alarms as they were reported."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}

    def condition(self, station: str, title: str, present: bool, why: str = "") -> None:
        if present:
            self.now[title] = why
        else:
            self.now.pop(title, None)


def passed(store, number: int, image: np.ndarray) -> tuple[Judgement, Inspection]:
    """A judgement and its committed row."""
    row = store.record(part(number)).result().row
    return Judgement(Verdict.OK, 0.5, 0.5, pixels=image, notes=(Note("dark", "darker"),)), row


def followed(store, count: int, image, heard: Heard, begin: int = 0, **values) -> DriftFollower:
    """A follower that has taken `count` parts and ended."""
    watch = DriftFollower(store, DriftSettings(reference_parts=200), ["press"], heard, clock=store.clock)
    watch.start()
    for key, arguments in values.items():
        getattr(watch, key)("press", **arguments)
    for number in range(begin, begin + count):
        judgement, row = passed(store, number, image())
        watch.judged("press", row.request_id, judgement)
        watch.part(row)
        until(lambda: watch._jobs.empty())
    watch.stop(5.0)
    return watch


def test_follower_learns_alarms_and_comes_back(sqlite_store):
    heard, store = Heard(), sqlite_store
    learned = followed(store, 256, scene, heard)
    assert learned.lost == 0
    assert learned.read("press", lambda one: one.version.who) == "system"
    assert "unlike images" in heard.now
    drifted = followed(store, 25, lambda: scene(light=0.8), heard, begin=256)
    assert heard.now["drift"].startswith("light, darker by")
    again = DriftFollower(store, DriftSettings(), ["press"], heard, clock=store.clock)
    assert again.read("press", lambda one: drift_text(one.watch)) == drifted.read(
        "press", lambda one: drift_text(one.watch)
    )
    assert {point.name for point in store.ask(lambda c: stored.points(c, "press", 0))} == {*NAMES}


def test_a_reference_that_cannot_be_stored_is_stored_later(sqlite_store, monkeypatch, reference):
    sqlite_store.record(part(1)).result()
    watch = DriftFollower(sqlite_store, DriftSettings(), ["press"], Heard(), clock=sqlite_store.clock)
    one = watch._followed["press"]
    one.model = "a" * 64
    one.watch.begin(reference)
    one.learned = Learned(one.model, reference, Learner(200, "Ann", "new lamp"))
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "write", lambda work: (_ for _ in ()).throw(StoreUnavailable("gone")))
        assert watch._save("press", 1) is None
    assert one.learned is not None and one.version is None
    watch._save("press", 2).result()
    assert (one.learned, one.version.who) == (None, "Ann")
    again = DriftFollower(sqlite_store, DriftSettings(), ["press"], Heard(), clock=sqlite_store.clock)
    assert again.read("press", lambda found: found.version.why) == "new lamp"


def test_a_station_without_a_reference_learns_one_after_a_restart(sqlite_store):
    sqlite_store.record(part(1)).result()
    state = {"model": "a" * 64, **Watch().to_json()}
    sqlite_store.write(lambda connection: stored.write(connection, "press", state, [])).result()
    again = DriftFollower(sqlite_store, DriftSettings(), ["press"], Heard(), clock=sqlite_store.clock)
    assert again.read("press", lambda found: found.watch.learner.who) == "system"


def test_a_change_of_the_model_waits_for_the_store(sqlite_store, monkeypatch):
    watch = DriftFollower(sqlite_store, DriftSettings(), ["press"], Heard(), clock=sqlite_store.clock)
    row = sqlite_store.record(part(1)).result().row
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "ask", lambda question: (_ for _ in ()).throw(StoreUnavailable("gone")))
        with pytest.raises(StoreUnavailable):
            watch._part(row)
    assert watch.read("press", lambda found: found.model) == ""
    watch._part(row)
    assert watch.read("press", lambda found: (found.model, found.watch.learner is None)) == ("a" * 64, False)


@pytest.mark.slow
def test_a_reference_of_the_changed_light_ends_the_drift(sqlite_store):
    heard, store = Heard(), sqlite_store
    followed(store, 256, scene, heard)
    followed(store, 25, lambda: scene(light=0.8), heard, begin=256)
    assert "drift" in heard.now
    wanted = {"set_reference": {"who": "Ann", "why": "new lamp", "parts": 200}}
    renewed = followed(store, 250, lambda: scene(light=0.8), heard, begin=281, **wanted)
    assert renewed.read("press", lambda one: (one.version.who, one.version.why, one.version.parts)) == (
        "Ann",
        "new lamp",
        200,
    )
    assert "drift" not in heard.now


def test_images_that_come_too_fast_are_lost_and_counted(sqlite_store):
    watch = DriftFollower(sqlite_store, DriftSettings(), ["press"], Heard(), clock=sqlite_store.clock)
    for number in range(WAITING_IMAGES + 2):  # its thread has not begun
        watch.judged("press", str(number), Judgement(Verdict.OK, pixels=scene()))
    watch.judged("press", "rejected", Judgement(Verdict.NG, pixels=scene()))
    assert watch.lost == 2


def test_rest_and_page_show_drift_and_a_reference_needs_a_reason(folder, client_of, reference):
    with running(folder) as line:
        client = client_of(line)
        assert "No part was judged yet" in client.get("/stations/press/drift").text
        one = line.drift._followed["press"]
        one.watch.begin(reference)
        one.version = stored.StoredReference(1, reference.count, "lamp", "Ann", line.clock(), {})
        for number in range(60):
            image = reduce(shaded(scene()))
            values = np.array([*measure(image, reference.template), RNG.normal(0.4, 0.1)])
            one.watch.compare(values, image.cells, number * MINUTE)
        found = client.get("/api/v1/drift").json()
        press = found["stations"]["press"]
        assert (press["cause"], press["place"], press["parts"], found["lost"]) == (
            "light",
            "upper left",
            60,
            0,
        )
        assert [number["name"] for number in press["numbers"]] == [*NAMES]
        assert press["cells"][0][0] < -0.1 < press["cells"][3][3]
        points = [
            stored.Point(line.clock() - k * MINUTE, "brightness", 0.1 * k, 100 - k) for k in range(9, 0, -1)
        ]
        line.store.write(lambda c: stored.write(c, "press", {}, points)).result()
        page = client.get("/drift", follow_redirects=True).text
        assert "light, upper left, darker by" in page
        assert page.count("<polyline") == 1
        body = {"who": "Ann", "why": "a new lamp", "parts": 300}
        path = "/api/v1/stations/press/drift/reference"
        assert client.post(path, json={**body, "why": "lamp"}).status_code == 422
        assert client.post(path, json={**body, "parts": 100}).status_code == 422
        assert client.post(path, json=body).json()["learning"] == [0, 350]
        assert line.store.ask(lambda c: rows.find(c, "audit", limit=1))[0]["reason"] == "a new lamp"


def test_shift_is_compared_at_its_end(reference):
    watch, hour = Watch(), 60 * MINUTE
    watch.begin(reference)
    begin = shift_begin(1_800_000_000_000_000) + 1
    for number in range(120):
        watch._sample(
            reference, reference.centre + reference.scale * RNG.normal(0.8, 1, len(NAMES)), begin + number
        )
    watch._sample(reference, reference.centre, begin + 9 * hour)
    assert watch.ended.count == 120
    assert "score" in watch.ended.found
    assert "differs from the reference in" in drift_text(watch)
