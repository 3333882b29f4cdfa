"""A web server that can be made to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODES = (
    "range",
    "whole",
    "drop",
    "too short",
    "no length",
    "garbage",
    "broken chunk",
    "error",
    "elsewhere",
    "gone",
)


@dataclass
class FileServer:
    """Serves `content` at `url`; `mode` is one of `MODES`."""

    content: bytes = b""
    mode: str = "range"
    url: str = ""
    drops: int = 0
    """So many answers break off half-way before all is well."""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request."""


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.files.ranges.append(wanted)
        content, mode = self.files.content, self.files.mode
        if mode in ("error", "gone"):
            self.send_error(500 if mode == "error" else 404)
            return
        breaks_off = mode == "drop" or self.files.drops > 0
        self.files.drops -= self.files.drops > 0
        if mode == "garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        if mode == "broken chunk":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nonly a few bytes")
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and mode != "whole" else 0
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + 7 if mode == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if mode != "no length":
            self.send_header("Content-Length", str(len(body) // 2 if mode == "too short" else len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if breaks_off else body)


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Serve `content` on a local port while the block runs."""
    files = FileServer(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"files": files}))
    files.url = f"http://127.0.0.1:{server.server_address[1]}/file.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
