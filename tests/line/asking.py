"""A client of the web application in process."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from andon.line.line import Line
from andon.line.rest import create_app

ADDRESS = "http://127.0.0.1:8000"


class Client:
    """Sends requests to the application of a line. Any thread may ask."""

    def __init__(self, line: Line, portal: BlockingPortal, **options: Any) -> None:
        self.app, self._portal = create_app(line, **options), portal
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=ADDRESS, timeout=None)

    def request(self, method: str, path: str, **values: Any) -> httpx.Response:
        """The answer, complete."""
        return self._portal.call(partial(self._client.request, method, path, **values))

    def get(self, path: str, **values: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **values)

    def post(self, path: str, **values: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **values)


start = start_blocking_portal
"""Context manager that gives the event loop in which clients run."""
