"""Every page is checked by axe-core 4.14.1 (tests/line/axe.min.js, MPL-2.0, Deque Systems) in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import routing

from andon.line.line import Line
from andon.line.rest import create_app
from line.browser import CHROMIUM, Browser
from line.running import answer, running, until
from line.serving import served
from line.test_browser import DrawnJudge

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
FINDINGS = """axe.run().then(found => found.violations.filter(each => ["serious", "critical"].includes(each.impact))
  .flatMap(each => each.nodes.map(node => `${each.id}: ${node.html}`)))"""
SCREENSHOTS = os.environ.get("ANDON_SCREENSHOTS")
"""Folder in which pictures of the pages are kept."""


def pages(line: Line) -> list[str]:
    """Addresses of all pages, found in the application, with the first station and the first inspection."""
    routes = getattr(routing, "iter_route_contexts", iter)(create_app(line).routes)  # nested in newer FastAPI
    reads = {route.path for route in routes if "GET" in (getattr(route, "methods", None) or ())}
    paths = {path for path in reads if not path.startswith(("/api/", "/metrics"))}
    return sorted(path.replace("{station}", "press").replace("{id}", "1") for path in paths)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "browser") as opened:
        yield opened


def findings(browser: Browser, address: str) -> list[str]:
    """Serious findings on a page."""
    browser.open(address)
    browser.js(AXE)
    return [f"{address}: {found}" for found in browser.js(FINDINGS)]


def test_no_page_has_a_serious_finding(folder, browser):
    with running(folder, "press", "saw", judge=DrawnJudge) as line, served(line) as port:
        for number, word in enumerate(("OK", "NG", "REVIEW", "ERROR")):
            answer(line.stations["press"], number, word, lot="lot 7")
        until(lambda: line.stations["press"].view().last_id == 4)
        found = []
        addresses = pages(line)
        assert {"/", "/stations/press", "/history", "/inspections/1", "/rules/press", "/audit"} <= set(
            addresses
        )
        browser.size(1280, 800)
        for address in [*addresses, "/rules/press?kind=in_a_row&k=2", "/rules/press?kind=in_window&k=9&n=3"]:
            found += findings(browser, f"http://127.0.0.1:{port}{address}")
            if SCREENSHOTS:
                browser.screenshot(
                    Path(SCREENSHOTS) / f"{address.strip('/').replace('/', '_') or 'first'}.png"
                )
        line.alarms.stop("press", "eva", "scratches")
        until(lambda: line.stations["press"].view().wants_stop)
        found += findings(browser, f"http://127.0.0.1:{port}/stations/press")
        assert found == []
        browser.js("document.body.append(document.createElement('img'), document.createElement('button')); 0")
        assert len(browser.js(FINDINGS)) == 2  # the check sees what is wrong
