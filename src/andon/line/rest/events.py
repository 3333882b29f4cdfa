"""Routes of what happens now: server-sent events, health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from andon.core.text import whole_number
from andon.line.events import RESET
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheLogIn, anyone, requires
from andon.line.roles import Role

router = APIRouter(tags=["events and health"])
SEND_SECONDS = 10.0
"""A reader that takes nothing for this time is dropped; it comes back with `Last-Event-ID`."""


@router.get("/health/live", dependencies=[anyone()])
def live(line: TheLine) -> Response:
    """200 while the process works, 503 otherwise."""
    health = line.health()
    return JSONResponse({"live": health.live}, 200 if health.live else 503)


@router.get("/health/ready", dependencies=[anyone()])
def ready(line: TheLine) -> Response:
    """200 while every station can judge, 503 with reasons otherwise."""
    health = line.health()
    return JSONResponse(
        {"ready": health.ready, "reasons": list(health.reasons)}, 200 if health.ready else 503
    )


@router.get("/events", response_class=EventSourceResponse, dependencies=[requires(Role.VIEWER)])
async def events(
    line: TheLine,
    caller: TheCaller,
    log_in: TheLogIn,
    station: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Events as they happen: `inspection` (after its commit), `state`, `alarm`, `tick` (each second), `reset`.

    A reader that comes back with `Last-Event-ID` gets what it missed. A new one, or one that missed too much, gets `reset` first:
    read the state, which may have changed before the events began.
    """
    return EventSourceResponse(
        _stream(line, station, last_event_id, lambda: log_in.admits(caller)),
        send_timeout=SEND_SECONDS,
        headers={"Cache-Control": "no-store"},
    )


async def _stream(
    line: Line, station: str | None, last_event_id: str | None, admits: Callable[[], bool]
) -> AsyncIterator[ServerSentEvent]:
    """Events of all stations or of one, numbered `SESSION.NUMBER`, so that those of an earlier start are told apart.

    Ends once the reader is not admitted any more.
    """
    session = line.store.session
    last = _number(last_event_id, session)
    news, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(news.set)

    with line.events.subscribe(last, wake=wake) as subscription:
        if last is None:
            yield ServerSentEvent("{}", event=RESET)
        yield ServerSentEvent(comment="andon")
        while True:
            news.clear()
            ends = subscription.is_closed
            while (event := subscription.get(0)) is not None:
                if event.kind == "tick" and not admits():
                    return
                if station is None or event.data.get("station", station) == station:
                    number = f"{session}.{event.id}" if event.kind != "tick" else None
                    yield ServerSentEvent(event.json, event=event.kind, id=number)
            if ends:
                return
            await news.wait()


def _number(last_event_id: str | None, session: int) -> int | None:
    """Number of the last event seen, None where it is of another start of the process or no number at all."""
    begin, _, number = (last_event_id or "").partition(".")
    return whole_number(number) if begin == str(session) else None
