"""What is refused before any route runs: foreign host names, requests of other sites, bodies over the limit.

A page of another site can make a browser send requests here, by a name that it points to this machine (DNS rebinding) or by a
form. So the Host header has to be an address or a known name, and requests that change something must not come from another
origin. Nothing is allowed across origins (no CORS).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from andon.core.text import whole_number
from andon.line.rest.problems import Problem

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, browsers send forms with the origin "null"
    "Cross-Origin-Resource-Policy": "same-origin",
}
LARGEST_IMAGE = 64 * 2**20
"""Bytes of a request that brings an image."""
LARGEST_MODEL = 2**30
"""Bytes of a request that brings a packed model."""
LARGEST_OTHER = 2**20
"""Bytes of every other request."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware. `hosts`: names by which this server may be called, besides addresses and `localhost`."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] = (), largest: int = LARGEST_IMAGE) -> None:
        self.app, self.largest = app, largest
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a problem, or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(scope["path"])
        refused = self._refusal(scope["method"], headers, limit)
        if refused is not None:
            await refused.response()(scope, receive, _with_headers(send))
            return
        await self.app(scope, _limited(receive, limit), _with_headers(send))

    def _limit(self, path: str) -> int:
        """Largest number of bytes of a body."""
        if path.endswith("/candidates"):
            return LARGEST_MODEL
        return self.largest if path.endswith(("/inspections", "/images")) else LARGEST_OTHER

    def _refusal(self, method: str, headers: Headers, limit: int) -> Problem | None:
        host = headers.get("host", "")
        name = host_name(host)
        if not (is_address(name) or name in self.hosts):
            return Problem(
                421,
                "host",
                f"host {name!r} is not served here: use the address, or allow the name (--allow-host)",
            )
        if method not in READS and _is_foreign(headers, host):
            return Problem(
                403,
                "cross_site",
                "requests of other sites are refused: send it from this server's pages or a program",
            )
        length = headers.get("content-length", "0")
        return _too_large(limit) if length.isdecimal() and whole_number(length, limit) is None else None


def host_name(host: str) -> str:
    """Lower-case name or address of a Host header, without port and brackets; empty where it is none."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(:\d{1,5})?", host)
    return match[1].strip("[]").lower() if match else ""


def is_address(name: str) -> bool:
    """Whether this is an IP address: no name that somebody else can point here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another origin sent this. Programs send none of these headers."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


def _too_large(limit: int) -> Problem:
    return Problem(413, "too_large", f"the request is larger than {limit} bytes: send a smaller one")


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` that raises once more than `limit` bytes have come."""
    got = 0

    async def limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > limit:
            raise _too_large(limit)
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
