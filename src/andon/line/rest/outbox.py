"""Routes of the outbox: how each receiver does."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from andon.line.rest.access import TheLine, requires
from andon.line.rest.html import html
from andon.line.rest.shapes import Shape
from andon.line.roles import Role

router = APIRouter(tags=["outbox"])
page_router = APIRouter(default_response_class=HTMLResponse)


class SinkShape(Shape):
    """How a receiver does. Times are microseconds UTC."""

    sink: str
    """`mqtt/STATION`, `webhook/NAME` or `email`."""
    waiting: int
    """Reports not told yet, counted up to 100,000."""
    oldest: int | None
    """Time of the oldest of them."""
    told: int
    lost: int
    """Reports given up: too old, or refused."""
    error: str
    """Why nothing is told now; empty where the last attempt worked."""
    since: int | None
    """Start of that failure."""


@router.get("/outbox", dependencies=[requires(Role.VIEWER)])
def list_sinks(line: TheLine) -> list[SinkShape]:
    """What the broker, each webhook and the mail server have been told, and what waits."""
    return [SinkShape(**asdict(each)) for each in line.outbox.figures()]


@page_router.get("/outbox", dependencies=[requires(Role.VIEWER)])
def outbox_page(line: TheLine) -> Response:
    """The same as a page."""
    return html("outbox", sinks=line.outbox.figures())
