"""The page of candidates in a real browser: a file is uploaded, compared, used and taken back by its buttons."""

from __future__ import annotations

from pathlib import Path

import pytest

from line.browser import CHROMIUM, Browser
from line.running import until
from line.serving import served
from line.test_accessibility import SCREENSHOTS, findings
from line.test_candidates import feed, line_of

pytestmark = [pytest.mark.service, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


def press(browser: Browser, button: str) -> None:
    """Press a button of the page once its scripts have run."""
    browser.wait(f"document.readyState === 'complete' && !!document.querySelector('{button}')")
    browser.js(f"document.querySelector('{button}').click()")


def test_a_candidate_from_upload_to_return(folder, tmp_path):
    pack = tmp_path / "strict.andon"
    pack.write_bytes(b"a packed file")
    with line_of(folder) as line, served(line) as port, Browser(tmp_path / "browser") as browser:
        feed(line, "oonrro")
        address = f"http://127.0.0.1:{port}/stations/press/candidate"
        browser.size(1280, 1400)
        browser.open(address)
        browser.js("document.getElementById('who').value = 'eva'")
        browser.js("document.getElementById('who').dispatchEvent(new Event('change'))")
        document = browser.command("DOM.getDocument")["root"]["nodeId"]
        field = browser.command("DOM.querySelector", nodeId=document, selector="input[type=file]")["nodeId"]
        browser.command("DOM.setFileInputFiles", files=[str(pack)], nodeId=field)
        browser.js(
            "document.querySelector('[data-upload] [name=why]').value = 'trained with the parts of May'"
        )
        press(browser, "[data-upload] button")
        browser.wait("!!document.querySelector('[data-post$=compare] button')")
        press(browser, "[data-post$=compare] button")
        browser.wait("document.querySelectorAll('ol.pictures li').length === 2")
        press(browser, "[data-post$=shadow] button")
        browser.wait("document.querySelector('[data-post$=shadow] button')?.value === 'false'")
        feed(line, "r", first=10)
        assert findings(browser, address) == []
        if SCREENSHOTS:
            browser.screenshot(Path(SCREENSHOTS) / "candidate.png")
        browser.js("document.querySelector('[data-post$=promote] [name=why]').value = 'finds more scratches'")
        press(browser, "[data-post$=promote] button")
        browser.wait("!!document.querySelector('[data-post$=return]')")
        assert line.stations["press"].model.name == "strict"
        press(browser, "[data-post$=return] button")
        until(lambda: line.stations["press"].model.name == "press")
        assert [said for said in browser.said if "404" not in said] == []
