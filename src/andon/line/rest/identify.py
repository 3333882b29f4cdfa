"""Who sends a request: a token, an account that a trusted proxy names, or the cookie of a log-in.

The answer is `request.state.caller`: None where accounts are required and nobody is recognised. Routes ask for roles
(`access.requires`).
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from andon.line.access import AccessSettings
from andon.line.accounts import LogIn
from andon.line.rest.guard import READS
from andon.line.roles import ACTING, Caller

COOKIE = "andon_login"
NO_PAGES = ("/api/", "/static/")
"""What pages fetch by themselves: no act of a person."""


class Identify:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, log_in: LogIn, access: AccessSettings) -> None:
        self.app, self.log_in, self.access = app, log_in, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        is_trusted = self.access.trusts(peer)
        is_act = scope["method"] not in READS or not scope["path"].startswith(NO_PAGES)
        state = scope.setdefault("state", {})
        state["caller"] = caller = self._caller(headers, is_trusted, is_act)
        state["address"] = _last(headers, "x-forwarded-for", peer) if is_trusted else peer
        scheme = _last(headers, "x-forwarded-proto", scope["scheme"]) if is_trusted else scope["scheme"]
        state["is_encrypted"] = scheme == "https"
        before = ACTING.set(caller)
        try:
            await self.app(scope, receive, send)
        finally:
            ACTING.reset(before)

    def _caller(self, headers: Headers, is_trusted: bool, is_act: bool) -> Caller | None:
        if not self.log_in.accounts.are_required:
            return Caller()
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.log_in.by_token(secret.strip())
        named = headers.getlist(self.access.user_header) if is_trusted else []
        if named:
            return self.log_in.by_proxy(named[0]) if len(named) == 1 else None
        cookie = cookie_of(headers)
        return self.log_in.by_cookie(cookie, is_act=is_act) if cookie else None


def cookie_of(headers: Headers) -> str:
    """The secret in the cookie of a log-in; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _last(headers: Headers, name: str, otherwise: str) -> str:
    """Last value of a list in a header: that of the nearest proxy."""
    return headers.get(name, "").rpartition(",")[2].strip() or otherwise
