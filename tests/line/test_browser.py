"""The pages in a real browser: readable, operated by keys, without a request to elsewhere, alive after a restart."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.rules import InARow
from andon.line.settings import EscalationSettings
from andon.line.views import Shown
from line.browser import CHROMIUM, Browser
from line.running import FakeJudge, answer, running, settings, until
from line.serving import served

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

SIZES = [(1920, 1080), (1280, 800), (800, 480)]
DEFICIENCIES = ["protanopia", "deuteranopia", "tritanopia"]
EXPECTED = re.compile(r"net::ERR_(CONNECTION|INCOMPLETE|EMPTY)|404 .*/(preview|heat)\\?|404 .*/preview$")
"""Said where a test ends its server, and of a picture that is asked for before it is written, and then again."""
VISIBLE = (
    "[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && e.getClientRects().length)"
)
NAMELESS = f"""{VISIBLE}.filter(e => e.matches('button, a, input, select')).filter(e =>
  !(e.innerText.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"""
SMALL = f"""{VISIBLE}.filter(e => e.matches('button, a.button, input, select')).filter(e =>
  e.getBoundingClientRect().height < SIDE - 0.5 || e.getBoundingClientRect().width < SIDE - 0.5).map(e => e.outerHTML)"""
OUTSIDE = f"""{VISIBLE}.map(e => [e, e.getBoundingClientRect()]).filter(([e, r]) => !e.closest('.hidden') &&
  (r.right > innerWidth + 1 || r.bottom > innerHeight + 1 || r.left < -1 || r.top < -1)).map(([e]) => e.outerHTML)"""


class DrawnJudge(FakeJudge):
    """A fake judge with maps."""

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        found = super().judge(image, thresholds)
        heat = io.BytesIO()
        Image.fromarray(np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)).save(heat, "PNG")
        return Judgement(found.verdict, found.score_raw, found.score, found.regions, heat.getvalue())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def clean(browser: Browser) -> Iterator[None]:
    """No test may leave an error in the console or a request to elsewhere."""
    browser.said.clear()
    browser.requested.clear()
    yield
    assert [said for said in browser.said if not EXPECTED.search(said)] == []
    elsewhere = [
        url for url in browser.requested if not url.startswith(("http://127.0.0.1:", "data:image/svg"))
    ]
    assert not elsewhere


def ready(browser: Browser) -> None:
    """Wait until the page has drawn the state."""
    browser.wait(
        "document.querySelectorAll('#strip li').length === 20 && document.querySelector('#clock').innerText > '0'"
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("word", ["OK", "NG", "REVIEW", "ERROR"])
def test_verdict_is_read_from_two_metres(folder, browser, size, word):
    with running(folder, judge=DrawnJudge, rules=()) as line, served(line) as port:
        for number in range(25):
            answer(line.stations["press"], number, word, lot="lot 7")
        browser.size(*size)
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        assert browser.js("document.querySelector('#hero-word').innerText") == word
        height = browser.js("document.querySelector('#hero-icon').getBoundingClientRect().height")
        letters = browser.js("parseFloat(getComputedStyle(document.querySelector('#hero-word')).fontSize)")
        assert height >= 0.25 * size[1]
        assert letters >= 120 / 1080 * size[1] * 0.8
        assert size != (1920, 1080) or letters >= 120
        assert browser.js(OUTSIDE) == []
        assert browser.js(NAMELESS) == []
        assert browser.js(SMALL.replace("SIDE", "24")) == []


def test_gloves_make_large_targets(folder, browser):
    with running(folder, rules=()) as line, served(line) as port:
        answer(line.stations["press"], 1)
        browser.size(1920, 1080)
        browser.open(f"http://127.0.0.1:{port}/stations/press?gloves=1")
        ready(browser)
        assert browser.js(SMALL.replace("SIDE", "64")) == []


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_verdicts_look_different_without_colours(folder, browser, deficiency, tmp_path):
    """The signs of OK and NG differ in the grey values of many pixels, also for people who do not see some colours."""
    seen = []
    with running(folder, rules=()) as line, served(line) as port:
        browser.size(1280, 800)
        browser.command("Emulation.setEmulatedVisionDeficiency", type=deficiency)
        for number, word in enumerate(["OK", "NG", "REVIEW", "ERROR"]):
            answer(line.stations["press"], number, word)
            browser.open(f"http://127.0.0.1:{port}/stations/press")
            ready(browser)
            browser.screenshot(tmp_path / "seen.png")
            grey = np.asarray(Image.open(tmp_path / "seen.png").convert("L"), np.int16)[50:600, :580]
            seen.append(np.abs(grey - int(np.median(grey))) > 60)  # the sign against its ground
        browser.command("Emulation.setEmulatedVisionDeficiency", type="none")
    for a in range(4):
        assert seen[a].mean() > 0.03
        for b in range(a):
            assert (seen[a] != seen[b]).mean() > 0.03


def test_from_stop_to_running_by_keys(folder, browser):
    with running(folder, judge=DrawnJudge, rules=(InARow(k=2),)) as line, served(line) as port:
        browser.size(1280, 800)
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        for number in range(2):
            answer(line.stations["press"], number, "NG")
        browser.wait("document.querySelector('#hero-word').innerText === 'STOPPED'")
        assert (
            browser.js("document.querySelector('#hero-why').innerText")
            == "2 parts in a row were rejected (NG)"
        )
        assert browser.js(OUTSIDE) == []
        browser.key("Enter")
        browser.wait("document.querySelector('#message').innerText.includes('cause first')")
        browser.key(" ")
        browser.wait("document.querySelector('#acknowledge').innerText.startsWith('Acknowledged')")
        browser.key("6")
        browser.wait("document.querySelector('#message').innerText === 'Write a note first.'")
        browser.key("Escape")
        browser.key("3")
        browser.wait("document.querySelector('[data-cause=light]').getAttribute('aria-pressed') === 'true'")
        browser.key("Enter")
        browser.wait("document.querySelector('#stop').hidden && !document.querySelector('#foot').hidden")
        assert not line.stations["press"].view().wants_stop
        assert browser.js("document.querySelector('#limits').innerText").startswith("2 NG in a row\t0 of 2")


def test_a_stop_that_nobody_answers_says_for_how_long(folder, browser):
    escalation = EscalationSettings(minutes=(0.001,))
    chosen = settings(folder, rules=(InARow(k=1),)).model_copy(update={"escalation": escalation})
    with Line(chosen, open_judge=FakeJudge) as line, served(line) as port:
        until(lambda: line.stations["press"].is_verified)
        answer(line.stations["press"], 1, "NG")
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        browser.wait(
            "/NG. – nobody has come for \\d+ s$/.test(document.querySelector('#hero-why').innerText)"
        )
        browser.key(" ")
        browser.wait("document.querySelector('#hero-why').innerText.endsWith('(NG)')")


def test_a_call_is_acknowledged_by_space(folder, browser):
    with running(folder, rules=()) as line, served(line) as port:
        answer(line.stations["press"], 1)
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        line.alarms.call("press", "bob", "help")
        browser.wait("document.querySelector('#answer').checkVisibility()")
        browser.key(" ")
        browser.wait("!document.querySelector('#answer').checkVisibility()")
        assert line.alarms.active() == []


HOLD = """
window.held = [];
const ask = window.fetch;
window.fetch = async (address, options) => {
  const answer = await ask(address, options);
  if (window.held && String(address).endsWith("/state")) await new Promise((go) => window.held.push(go));
  return answer;
};
"""
RELEASE = "{ const held = window.held; window.held = null; held.forEach((go) => go()); }"


def test_an_answer_from_before_a_stop_does_not_hide_it(folder, browser):
    with running(folder) as line, served(line) as port:
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        browser.js(HOLD)
        line.events.publish("reset", {})  # the page reads
        browser.wait("window.held.length === 1")
        line.alarms.stop("press", "ada", "torn")
        browser.wait("!document.getElementById('acknowledge').disabled")
        browser.js(RELEASE)
        browser.js("new Promise((done) => setTimeout(done, 500))")
        assert browser.js("document.getElementById('stop').hidden") is False
        assert browser.js("document.getElementById('acknowledge').disabled") is False
        line.events.close()


def test_strip_is_walked_and_the_picture_follows(folder, browser):
    with running(folder, judge=DrawnJudge, rules=()) as line, served(line) as port:
        for number in range(3):
            answer(line.stations["press"], number)
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        browser.wait("document.querySelectorAll('#view img').length === 2")
        browser.key("ArrowLeft")
        browser.wait("document.querySelector('#facts').innerText.includes('part-1')")
        answer(line.stations["press"], 3)
        browser.wait("document.querySelectorAll('#strip button').length === 4")
        assert "part-1" in browser.js("document.querySelector('#facts').innerText")
        browser.key("Escape")
        browser.wait("document.querySelector('#facts').innerText.includes('part-3')")
        browser.wait("document.querySelectorAll('#view img').length === 2")
        browser.key("h")
        browser.wait("document.querySelector('#view img.heat').hidden")


def test_lost_server_is_seen_and_found_again_without_reload(folder, browser):
    browser.size(1280, 800)
    with running(folder, rules=(InARow(k=2),)) as line:
        with served(line) as port:
            browser.open(f"http://127.0.0.1:{port}/stations/press")
            ready(browser)
            browser.js("window.stays = true")
        browser.wait("document.querySelector('#hero-word').innerText === 'OFFLINE'", 6)
        assert browser.js(
            "document.querySelector('#hero-icon').getBBox().width > 0"
        )  # drawn without the server
        assert browser.js("document.querySelector('#state svg').getBBox().width > 0")
        for number in range(2):
            answer(line.stations["press"], number, "NG")
        until(lambda: line.stations["press"].view().state is Shown.STOPPED)
        with served(line, port):
            browser.wait("document.querySelector('#hero-word').innerText === 'STOPPED'", 20)
            assert browser.js("window.stays")


def test_history_by_keys(folder, browser):
    with running(folder, judge=DrawnJudge, rules=()) as line, served(line) as port:
        for number in range(3):
            answer(line.stations["press"], number, "NG" if number == 1 else "OK")
        browser.open(f"http://127.0.0.1:{port}/history")
        browser.wait("document.querySelector('#detail-title').innerText === 'OK – part-2'")
        browser.key("ArrowDown")
        browser.wait("document.querySelector('#detail-title').innerText === 'NG – part-1'")
        browser.wait("document.querySelectorAll('#view img').length === 2")
        assert browser.js(NAMELESS) == []
        browser.key("Enter")
        browser.wait("location.pathname.startsWith('/inspections/')")


@pytest.mark.parametrize("page", ["/", "/rules", "/docs", "/history?lot=none"])
def test_other_pages(folder, browser, page):
    with running(folder, "press", "oven", rules=(InARow(),)) as line, served(line) as port:
        browser.open(f"http://127.0.0.1:{port}{page}")
        assert browser.js("document.querySelector('h1').innerText.length") > 0
        assert browser.js(NAMELESS) == []


def test_viewers_see_every_part(folder, browser):
    """Five streams and fifty parts: all of them come to all viewers. A browser opens six connections to one server."""
    code = """Promise.all(Array.from({length: 5}, () => new Promise(done => {
        const ids = new Set(), source = new EventSource('/api/v1/events?station=press');
        source.addEventListener('inspection', e => { ids.add(JSON.parse(e.data).id);
            if (ids.size === 50) { source.close(); done(ids.size); } }); })))"""
    with running(folder, rules=(), queue=60) as line, served(line) as port:
        browser.open(f"http://127.0.0.1:{port}/docs")
        browser.js(f"window.all_ = {code}; 1")
        until(lambda: line.events.listeners == 5)
        for number in range(50):
            answer(line.stations["press"], number)
        assert browser.js("window.all_") == [50] * 5


def test_rules_are_tried_and_then_saved(folder, browser):
    with running(folder) as line, served(line) as port:
        first = line.alarms.rules("press")
        browser.size(1280, 800)
        browser.open(f"http://127.0.0.1:{port}/rules/press?kind=in_a_row&k=2")
        browser.js("document.querySelector('[name=who]').value = 'eva'; 0")
        browser.js("document.querySelector('[name=why]').value = 'stop one part earlier'; 0")
        browser.js("document.querySelector('#save button').click()")
        until(lambda: line.alarms.rules("press").id != first.id)
        assert line.alarms.rules("press").rules == (InARow(k=2),)
        browser.wait("document.body?.innerText.includes('stop one part earlier')")
        browser.open(f"http://127.0.0.1:{port}/rules/press?kind=in_a_row&k=4")
        assert not browser.js("document.querySelector('#save').hidden")
        browser.js("document.querySelector('[name=k]').dispatchEvent(new Event('input', {bubbles: true}))")
        assert browser.js("document.querySelector('#save').hidden")
