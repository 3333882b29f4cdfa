"""A real browser for the tests: Chromium, driven over two pipes by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--mute-audio", "--remote-debugging-pipe", "about:blank"),
)
ANSWER_SECONDS = 60.0


class Browser:
    """One page. `said` collects what the page writes to its console, and errors."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        line = f"exec {CHROMIUM} {' '.join(OPTIONS)} --user-data-dir={folder} 3<&{read} 4>&{write}"
        self._process = subprocess.Popen(
            ["bash", "-c", line], pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self.said: list[str] = []
        self.requested: list[str] = []
        self._number, self._answers = 0, queue.Queue[dict[str, Any]]()
        threading.Thread(target=self._listen, daemon=True).start()
        target = self._command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def command(self, method: str, **values: Any) -> dict[str, Any]:
        """Answer of the page to a DevTools command."""
        return self._command(method, sessionId=self._session, **values)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, address: str) -> None:
        """Load a page, up to its scripts."""
        self.command("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def js(self, text: str) -> Any:
        """Value of an expression."""
        found = self.command("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, text: str, seconds: float = 20.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(text):
            assert time.monotonic() < end, f"{text} is not true after {seconds} s"
            time.sleep(0.05)

    def key(self, key: str) -> None:
        """Press a key."""
        texts = {"Enter": "\r"}
        values = {"key": key, "text": texts.get(key, key if len(key) == 1 else "")}
        self.command("Input.dispatchKeyEvent", type="keyDown", **values)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> None:
        """Save what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def _command(self, method: str, *, sessionId: str | None = None, **values: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if sessionId is not None:
            message["sessionId"] = sessionId
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=ANSWER_SECONDS)
            if answer["id"] == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def _listen(self) -> None:
        with os.fdopen(self._from, "rb") as source:
            waiting = b""
            while chunk := source.read1(1 << 16):
                *messages, waiting = (waiting + chunk).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
            return
        values = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requested.append(values["request"]["url"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.said.append(values["exceptionDetails"].get("exception", {}).get("description", str(values)))
        elif message["method"] == "Log.entryAdded":
            self.said.append(
                f"{values['entry']['level']}: {values['entry']['text']} {values['entry'].get('url', '')}"
            )
        elif message["method"] == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(argument.get("value")) for argument in values["args"]))
