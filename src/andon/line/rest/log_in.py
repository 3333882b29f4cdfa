"""Routes of a person's own account: log-in, log-out, password, PIN; and who a request comes from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from andon.core.errors import AndonError
from andon.line.accounts import LogIn, LogInFailed
from andon.line.accounts.log_in import LIFE
from andon.line.clock import SECOND
from andon.line.rest.access import TheCaller, TheLine, TheLogIn, anyone, requires
from andon.line.rest.html import html
from andon.line.rest.identify import COOKIE, cookie_of
from andon.line.rest.problems import Problem
from andon.line.rest.shapes import Me, PinBody
from andon.line.roles import ACTING, Caller, Role

router = APIRouter(tags=["accounts"])
page_router = APIRouter(default_response_class=HTMLResponse)
Typed = Annotated[str, Form(max_length=300)]
HASHES = CapacityLimiter(1)
"""One hash at a time, so that log-ins take no processor from judging; further ones wait without a thread."""


@router.get("/me", dependencies=[requires(Role.VIEWER)])
def me(caller: TheCaller) -> Me:
    """Who the request comes from, and the token that changes by a browser repeat in `X-CSRF-Token`."""
    return Me(name=caller.name, role=caller.role.word, is_locked=caller.is_locked, csrf=caller.csrf)


@router.post("/alarms/{id}/acknowledge/pin", dependencies=[requires(Role.VIEWER)])
async def acknowledge_by_pin(
    request: Request, line: TheLine, log_in: TheLogIn, id: int, body: PinBody
) -> dict[str, Any]:
    """Say that a person knows, by name and PIN or badge, where nobody is logged in or the log-in is locked."""
    try:
        person = await to_thread.run_sync(
            log_in.by_pin, body.name, body.pin, request.state.address, limiter=HASHES
        )
    except LogInFailed as error:
        raise failed(error) from None
    if person.role < Role.INSPECTOR:
        raise Problem(403, "role", f"this needs the role inspector, {person.name} is {person.role.word}")
    with acting(person):
        return (await to_thread.run_sync(line.alarms.acknowledge, id, person.name)).to_json()


@page_router.get("/login", dependencies=[anyone()])
def login_page(request: Request, log_in: TheLogIn, next: str = "/", name: str = "") -> Response:
    """Asks for name and password."""
    caller: Caller | None = request.state.caller
    if not log_in.accounts.are_required or (caller is not None and not caller.is_locked):
        return RedirectResponse(local(next), 303)
    known = name or ("" if caller is None else caller.name)
    return html("login", name=known, next=local(next), message="")


@page_router.post("/login", dependencies=[anyone()])
async def log_in_now(
    request: Request, log_in: TheLogIn, name: Typed, password: Typed, next: Typed = "/"
) -> Response:
    """Logs in and goes to `next`; an earlier log-in of this browser ends."""
    address = request.state.address
    try:
        secret = await to_thread.run_sync(log_in.by_password, name, password, address, limiter=HASHES)
    except LogInFailed as error:
        answer = html("login", name=name, next=local(next), message=str(error))
        answer.status_code = 429 if error.wait else 401
        if error.wait:
            answer.headers["Retry-After"] = str(error.wait)
        return answer
    if before := cookie_of(request.headers):
        await to_thread.run_sync(log_in.log_out, before)
    onwards = RedirectResponse(local(next), 303)
    _set_cookie(request, onwards, secret)
    return onwards


@page_router.post("/logout", dependencies=[requires(Role.VIEWER)])
def log_out(request: Request, log_in: TheLogIn) -> Response:
    """Ends the log-in of this browser."""
    log_in.log_out(cookie_of(request.headers))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@page_router.get("/account", dependencies=[requires(Role.VIEWER)])
def account_page(
    caller: TheCaller, log_in: TheLogIn, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """The own account."""
    return _account(caller, log_in, done=done)


@page_router.post("/account/password", dependencies=[requires(Role.VIEWER)])
async def change_password(
    request: Request, caller: TheCaller, log_in: TheLogIn, password: Typed, new: Typed, again: Typed
) -> Response:
    """Changes the own password; all log-ins of the account end."""

    def change() -> None:
        if new != again:
            raise LogInFailed("the new passwords differ: type it twice alike")
        log_in.check_own(caller, password, request.state.address)
        log_in.accounts.set_password(caller.name, new, by=caller.name)

    return await _changed(change, caller, log_in, "password")


@page_router.post("/account/pin", dependencies=[requires(Role.VIEWER)])
async def change_pin(
    request: Request, caller: TheCaller, log_in: TheLogIn, password: Typed, pin: Typed = ""
) -> Response:
    """Changes the own PIN; an empty one removes it."""

    def change() -> None:
        log_in.check_own(caller, password, request.state.address)
        log_in.accounts.set_pin(caller.name, pin, by=caller.name)

    return await _changed(change, caller, log_in, "pin")


def failed(error: LogInFailed) -> Problem:
    """429 where the sender has to wait, otherwise 401."""
    if error.wait:
        return Problem(429, "wait", str(error), retry=error.wait)
    return Problem(401, "log_in_failed", str(error))


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """What is done inside is done by `caller`."""
    before = ACTING.set(caller)
    try:
        yield
    finally:
        ACTING.reset(before)


def local(address: str) -> str:
    """An address of this server, `/` for every other."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_local else "/"


def to_log_in(request: Request) -> Response:
    """Leads from a page to the log-in, and back afterwards."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse("/login?" + urlencode({"next": request.url.path + query}), 303)


async def _changed(change: Any, caller: Caller, log_in: LogIn, what: str) -> Response:
    try:
        await to_thread.run_sync(change, limiter=HASHES)
    except AndonError as error:
        answer = _account(caller, log_in, message=str(error))
        answer.status_code = 429 if isinstance(error, LogInFailed) and error.wait else 422
        return answer
    return RedirectResponse(f"/account?done={what}", 303)


def _account(caller: Caller, log_in: LogIn, *, message: str = "", done: str = "") -> Response:
    account = log_in.accounts.named(caller.name) if caller.name else None
    said = {"password": "The password is changed.", "pin": "The PIN is changed."}.get(done, "")
    return html("account", account=account, caller=caller, message=message, said=said)


def _set_cookie(request: Request, answer: Response, secret: str) -> None:
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=LIFE // SECOND,
        httponly=True,
        samesite="strict",
        secure=request.state.is_encrypted,
    )
