"""Log-in and PIN in a real browser, which sends what test clients do not."""

from __future__ import annotations

import pytest

from andon.line.accounts.log_in import IDLE
from andon.line.roles import Role
from line.browser import CHROMIUM, Browser
from line.running import running, until
from line.serving import served

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("cheap_hashes")]
PASSWORD, PIN = "correct horse", "246810"
FILL = """
for (const [name, value] of Object.entries({values})) document.querySelector(`[name=${{name}}]`).value = value;
document.querySelector("main button.main").click();
"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_log_in_lock_pin_and_end_of_the_log_in(folder, tmp_path):
    with running(folder) as line, served(line) as port, Browser(tmp_path / "profile") as browser:
        address = f"http://127.0.0.1:{port}"
        browser.open(f"{address}/accounts")  # the first account, by the page
        browser.js(FILL.format(values={"name": "ada", "password": PASSWORD}))
        browser.wait("location.pathname === '/login'")
        line.accounts.add("ida", Role.INSPECTOR, PASSWORD, by="ada")
        line.accounts.set_pin("ida", PIN, by="ida")
        browser.open(f"{address}/stations/press")
        browser.js(FILL.format(values={"name": "ada", "password": PASSWORD}))
        browser.wait("location.pathname === '/stations/press' && document.readyState === 'complete'")
        line.alarms.stop("press", "ada", "torn")
        browser.wait(
            "!document.getElementById('stop').hidden && !document.getElementById('acknowledge').disabled"
        )
        (login,) = line.accounts.logins.values()
        login.seen -= IDLE + 1
        browser.key(" ")
        browser.wait("document.getElementById('pin').open")
        browser.js(f"""
            document.getElementById("pin-name").value = "ida";
            document.getElementById("pin-code").value = "{PIN}";
            document.querySelector("#pin-form button.main").click();
        """)
        until(lambda: line.alarms.active("press")[0].ack_by == "ida")
        browser.wait("document.getElementById('acknowledge').disabled")
        line.accounts.set_password("ada", PASSWORD + "2", by="ada")
        browser.wait("location.pathname === '/login'")
        line.events.close()
