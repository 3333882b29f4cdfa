"""Reports in a real browser: no findings of the console, A4 sheets."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest

from line.browser import CHROMIUM, Browser
from line.running import answer, running
from line.serving import served
from line.test_reports import fill

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

SCREENSHOTS = os.environ.get("ANDON_SCREENSHOTS")
"""Folder in which pictures and sheets of the pages are kept."""


def sheets(browser: Browser, name: str) -> int:
    """Sheets of the page when it is printed; each has to be A4."""
    found = browser.command("Page.printToPDF", preferCSSPageSize=True)["data"]
    pdf = base64.b64decode(found)
    if SCREENSHOTS:
        (Path(SCREENSHOTS) / f"{name}.pdf").write_bytes(pdf)
        picture = browser.command("Page.captureScreenshot", format="png")["data"]
        (Path(SCREENSHOTS) / f"{name}.png").write_bytes(base64.b64decode(picture))
    boxes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert all((round(float(w)), round(float(h))) == (595, 842) for w, h in boxes)
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_reports_and_studies_are_one_or_two_sheets(folder, tmp_path):
    with (
        running(folder, rules=(), queue=200) as line,
        served(line) as port,
        Browser(tmp_path / "browser") as browser,
    ):
        fill(line.store)
        for number in range(200, 350):
            word = "NG" if number % 50 < 20 else "OK"
            changes = {"part_id": f"part {number % 50}", "lot": "study", "request_id": f"s-{number}"}
            answer(line.stations["press"], number, word, **changes)
        browser.size(1280, 1500)
        host = f"http://127.0.0.1:{port}"
        browser.open(f"{host}/reports/shift?station=press&since=2027-01-15T08:00&until=2027-01-15T09:00")
        assert sheets(browser, "shift") in (1, 2)
        browser.open(f"{host}/studies?lot=study")
        assert browser.js("document.querySelectorAll('select[name=reference]').length") == 50
        for number in range(50):
            said = "BAD" if number < 22 else "GOOD"
            browser.js(
                f"document.querySelector('[aria-label=\"Reference of part {number}\"]').value = '{said}'"
            )
        browser.js("document.querySelector('[name=who]').value = 'Eva'")
        browser.js("document.querySelector('[name=why]').value = 'release of the press'")
        browser.js("document.querySelector('[name=why]').form.requestSubmit()")
        browser.wait("location.pathname === '/studies/1' && document.readyState === 'complete'")
        assert "48 of 50 parts" in browser.js("document.body.innerText")
        assert sheets(browser, "study") == 2
        assert browser.said == []
