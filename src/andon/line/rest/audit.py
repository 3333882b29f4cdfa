"""Routes of the audit: who changed what and why, and whether the chain of hashes is sound."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from andon.line.clock import MINUTE
from andon.line.line import Line
from andon.line.rest.access import TheLine, requires
from andon.line.rest.html import html
from andon.line.rest.pages import Text, time_of
from andon.line.rest.shapes import PREFIX, AuditPage, AuditRow, Chain, Filter
from andon.line.roles import Role
from andon.line.store import QueryTimeout, audit, audit_page

router = APIRouter(tags=["audit"])
page_router = APIRouter(default_response_class=HTMLResponse)
PAGE = 100
VERIFY_SECONDS = 20.0
VERIFIED_FOR = MINUTE
"""Time for which a verification is shown again."""
Time = Annotated[int | None, Query(ge=0, lt=2**63)]


class Verifier:
    """Checks the chain and remembers the result for a while. Any thread may ask."""

    def __init__(self, line: Line) -> None:
        self._line, self._lock = line, threading.Lock()
        self._found: Chain | None = None

    def chain(self) -> Chain:
        """Whether the chain is sound, checked within the last minute."""
        with self._lock:
            now = self._line.clock()
            if self._found is None or not 0 <= now - self._found.at < VERIFIED_FOR:
                self._found = self._checked(now)
            return self._found

    def _checked(self, now: int) -> Chain:
        try:
            result = self._line.store.ask(audit.verify, seconds=VERIFY_SECONDS)
        except QueryTimeout:
            problem = "it is too long to be checked here: run `andon audit verify`"
            return Chain(is_sound=None, rows=0, head="", problem=problem, at=now)
        head = result.head
        return Chain(
            is_sound=not result.problem, rows=head.seq, head=str(head), problem=result.problem, at=now
        )


def _verifier(request: Request) -> Verifier:
    verifier: Verifier = request.app.state.verifier
    return verifier


TheVerifier = Annotated[Verifier, Depends(_verifier)]


@router.get("/audit", dependencies=[requires(Role.LEADER)])
def list_audit(
    line: TheLine,
    who: Filter = None,
    action: Filter = None,
    object: Filter = None,
    since: Time = None,
    until: Time = None,
    before: Time = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> AuditPage:
    """Who changed what and why, newest first; `object` is its begin. The next page: follow `next`."""
    filters = audit_page.Filters(who or "", action or "", object or "", since, until)
    rows = line.store.ask(lambda connection: audit_page.page(connection, filters, before=before, limit=limit))
    following = None
    if len(rows) == limit:
        query = {**asdict(filters), "before": rows[-1]["seq"], "limit": limit}
        following = f"{PREFIX}/audit?" + urlencode({k: v for k, v in query.items() if v not in (None, "")})
    return AuditPage(rows=[AuditRow(**row) for row in rows], next=following)


@router.get("/audit/chain", dependencies=[requires(Role.LEADER)])
def chain(verifier: TheVerifier) -> Chain:
    """Whether the chain of hashes is sound up to its head; checked at most once a minute."""
    return verifier.chain()


@page_router.get("/audit", dependencies=[requires(Role.LEADER)])
def audit_view(
    line: TheLine,
    verifier: TheVerifier,
    who: Text = "",
    action: Text = "",
    object: Text = "",
    since: Text = "",
    until: Text = "",
    before: Time = None,
) -> Response:
    """Who changed what and why, newest first, by person, action, object and time."""
    begin, wrong_begin = time_of(since)
    end, wrong_end = time_of(until)
    problem = wrong_begin or wrong_end
    filters = audit_page.Filters(who, action, object, begin, end)
    rows: list[dict[str, Any]] = []
    try:
        rows = line.store.ask(
            lambda connection: audit_page.page(connection, filters, before=before, limit=PAGE)
        )
    except QueryTimeout as error:
        problem = str(error)
    shown = {"who": who, "action": action, "object": object, "since": since, "until": until}
    kept = {key: value for key, value in shown.items() if value}
    older = "/audit?" + urlencode({**kept, "before": rows[-1]["seq"]}) if len(rows) == PAGE else ""
    return html("audit", rows=rows, filters=shown, older=older, problem=problem, chain=verifier.chain())
