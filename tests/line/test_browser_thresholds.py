"""The threshold page in a real browser: recounts without the server, moves by one image, saves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from andon.thresholds.evidence import Evidence, Images
from andon.thresholds.figures import Prices, cost, figures
from line.browser import CHROMIUM, Browser
from line.running import PICTURE, FakeJudge, answer, running, until
from line.serving import served

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

RNG = np.random.default_rng(0)
GOOD = tuple(RNG.normal(0.2, 0.25, 9000).tolist())
BAD = tuple(RNG.normal(1.6, 0.5, 1000).tolist())
KNOWN = Evidence(
    good=Images(
        GOOD, tuple(f"good/{k:04}.png" for k in range(9000)), tuple(f"day {k % 3}" for k in range(9000))
    ),
    bad=Images(BAD, tuple(f"bad/{k:04}.png" for k in range(1000))),
    within=GOOD,
    parts=GOOD,
    promised=0.002,
)
TEXTS = """JSON.stringify(Object.fromEntries(['count', 'interval'].flatMap(name =>
  [...document.querySelectorAll(`[data-${name}]`)].map(cell => [`${name} ${cell.dataset[name]}`, cell.textContent]))))"""
SENTENCES = """JSON.stringify(['expected', 'kept', 'claim', 'cost', 'cheapest', 'cheapest-cost'].map(id =>
  document.getElementById(id).textContent))"""


class KnowingJudge(FakeJudge):
    """A fake judge with 10,000 known images, one of which it holds."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.evidence = KNOWN
        nearest = max((k for k in range(1000) if BAD[k] < 0.8), key=lambda k: BAD[k])
        self.images = {f"bad/{nearest:04}.png": PICTURE}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def texts(browser: Browser) -> dict[str, str]:
    return json.loads(browser.js(TEXTS)) | {"sentences": browser.js(SENTENCES)}


def test_ten_thousand_scores_in_the_browser(folder, browser, tmp_path):
    with running(folder, judge=KnowingJudge, rules=(), queue=50) as line, served(line) as port:
        for number in range(12):
            answer(line.stations["press"], number, ("OK", "OK", "NG", "REVIEW")[number % 4])
        page = f"http://127.0.0.1:{port}/stations/press/thresholds"
        browser.size(1280, 1500)
        browser.open(f"{page}?accept=0.8&reject=1.03")
        browser.wait("performance.getEntriesByName('recount').length > 0")
        # What the script counts is what the server had written before it ran.
        served_page = line.store and browser.js(f"fetch('{page}?accept=0.8&reject=1.03').then(r => r.text())")
        found = browser.js(
            f"(() => {{ const page = new DOMParser().parseFromString({json.dumps(served_page)}, 'text/html');"
            f"const document = page; return [{TEXTS}, {SENTENCES}]; }})()"
        )
        shown = texts(browser)
        assert json.loads(found[0]) == {key: text for key, text in shown.items() if key != "sentences"}
        assert json.loads(found[1]) == json.loads(shown["sentences"])
        # Keys move by one image, and nothing asks the server.
        browser.wait("document.querySelectorAll('#wrong img').length === 1")
        asked = len(browser.requested)
        before = figures(KNOWN, 0.8, 1.03)
        browser.js("document.getElementById('reject-handle').focus()")
        for key, step in (("ArrowLeft", 1), ("ArrowLeft", 2), ("ArrowRight", 1), ("PageDown", 11)):
            browser.key(key)
            reject = float(browser.js("document.getElementById('reject').value"))
            after = figures(KNOWN, 0.8, reject)
            moved = (
                after.good.stopped.count
                - before.good.stopped.count
                + after.bad.stopped.count
                - before.bad.stopped.count
            )
            assert moved == step
            assert (
                texts(browser)["count good.stopped"]
                == f"{after.good.stopped.count} of {after.good.stopped.n}"
            )
        assert json.loads(browser.js(SENTENCES))[1] == (
            "The promise is kept." if after.promise.is_kept else "The promise is broken."
        )
        best = cost(KNOWN, 0.8, reject, Prices(100, 1, 0.01))
        assert json.loads(browser.js(SENTENCES))[4] == f"{best.cheapest:.4f}"
        assert len(browser.requested) == asked
        slowest = browser.js("Math.max(...performance.getEntriesByName('recount').map(e => e.duration))")
        print(f"slowest recount of 10,000 scores: {slowest:.1f} ms")
        assert slowest < 100
        browser.screenshot(tmp_path / "thresholds.png")
        # The trial, then the change.
        browser.js("document.getElementById('try').click()")
        browser.wait("document.querySelector('#trial table') !== null")
        assert "12 parts; 0 would have" in browser.js("document.getElementById('trial').textContent")
        browser.js(
            "document.getElementById('who').value = 'Eva'; document.getElementById('why').value = 'short'"
        )
        browser.js("document.querySelector('#save button').click()")
        browser.wait("document.getElementById('message').textContent.startsWith('why: ')")
        assert line.stations["press"].thresholds.version is None
        browser.js("document.getElementById('why').value = 'fewer false rejects'")
        browser.js("document.querySelector('#save button').click()")
        until(lambda: line.stations["press"].thresholds.version is not None)
        assert line.stations["press"].thresholds[:2] == (0.8, reject)
        browser.wait(
            "document.querySelector('[data-rollback]') !== null && performance.getEntriesByName('recount').length > 0"
        )
        browser.js("document.getElementById('who').value = 'Leo'")
        browser.js("document.querySelector('[data-rollback=\"0\"]').click()")
        until(lambda: line.stations["press"].thresholds[:2] == (1.0, 1.0))
        browser.wait("document.querySelectorAll('[data-rollback]').length === 2")
        assert not [said for said in browser.said if "(Unprocessable Entity)" not in said]
        assert all(url.startswith(("http://127.0.0.1:", "data:image/svg")) for url in browser.requested)
