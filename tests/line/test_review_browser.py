"""The page of reviews in a real browser: keys alone, blind, undo; and keys on the line page."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.line.review.settings import ReviewSettings
from andon.line.store import ImageState
from andon.line.verdicts import Opinion
from line.browser import CHROMIUM, Browser
from line.running import answer, running, until
from line.serving import served
from line.test_browser import NAMELESS, SMALL, DrawnJudge, ready

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

PARTS = int(os.environ.get("ANDON_REVIEWED_PARTS", "60"))
"""1000 for the figure in docs/results."""
REVIEW = ReviewSettings(sample=0.0, second_opinion=0.0, defect_types=("crack", "dent"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One page for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.size(1280, 800)
        yield opened


def test_parts_are_reviewed_by_keys_alone(folder, browser, tmp_path):
    with running(folder, judge=DrawnJudge, rules=(), review=REVIEW) as line, served(line) as port:
        station = line.stations["press"]
        for number in range(PARTS):
            answer(station, number, "REVIEW")
        until(lambda: line.store.inspection(PARTS).image_state is ImageState.STORED)
        browser.open(f"http://127.0.0.1:{port}/review")
        browser.js("document.querySelector('#who').value = 'Ada'")
        browser.js("document.querySelector('#who').dispatchEvent(new Event('change'))")
        browser.wait("document.querySelector('#title').innerText.includes('part-0')")
        browser.wait("document.querySelector('#view img')?.complete")
        assert browser.js("document.querySelector('#heat').hidden")  # blind
        assert browser.js(NAMELESS) == []
        assert browser.js(SMALL.replace("SIDE", "24")) == []
        browser.screenshot(tmp_path / "review.png")
        browser.js("document.activeElement.blur()")
        begin = time.monotonic()
        for number in range(PARTS):
            browser.wait(f"document.querySelector('#title').innerText.startsWith('part-{number} ')")
            browser.key("gbu1"[number % 4])
            browser.wait(f"document.querySelector('#last').innerText.startsWith('part-{number}:')")
        rate = 60 * PARTS / (time.monotonic() - begin)
        print(f"{rate:.0f} parts a minute")
        assert rate > 40
        browser.wait("document.querySelector('#title').innerText.includes('No part')")
        found = line.reviews.figures().confusions[0]
        assert (found.who, found.n) == ("Ada", PARTS)
        assert line.reviews.history(1)[0].verdict is Opinion.GOOD
        assert line.reviews.history(4)[0].defect_type == "crack"
        assert line.reviews.history(4)[0].blind
        browser.key("z")
        browser.wait("document.querySelector('#last').innerText.includes('withdrawn')")
        browser.key("b")
        browser.wait("document.querySelector('#title').innerText.includes('No part')")
        assert [each.verdict for each in line.reviews.history(PARTS)][:2] == [Opinion.BAD, Opinion.WITHDRAWN]
        answer(station, PARTS, "NG")
        until(lambda: line.store.inspection(PARTS + 1).image_state is ImageState.STORED)
        browser.open(f"http://127.0.0.1:{port}/stations/press")
        ready(browser)
        browser.key("g")
        browser.wait("document.querySelector('#facts').innerText.includes('good')")
        browser.screenshot(tmp_path / "line.png")
        assert line.store.inspection(PARTS + 1).reviewed.overridden
        browser.open(f"http://127.0.0.1:{port}/review/figures")
        assert "1 of 1 parts" in browser.js("document.body.innerText")
        assert browser.js(NAMELESS) == []
        browser.screenshot(tmp_path / "figures.png")
        assert [said for said in browser.said if "404" not in said] == []
    copy = os.environ.get("ANDON_SCREENSHOTS")
    if copy:
        for image in tmp_path.glob("*.png"):
            Path(copy, image.name).write_bytes(image.read_bytes())
