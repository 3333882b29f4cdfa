"""Page on which administrators keep accounts and tokens, and release retention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Form, Path
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from andon.core.errors import AndonError
from andon.line.accounts import Accounts
from andon.line.clock import DAY
from andon.line.rest.access import TheCaller, TheLine, requires
from andon.line.rest.html import html
from andon.line.rest.log_in import HASHES
from andon.line.roles import Role

page_router = APIRouter(default_response_class=HTMLResponse)
Typed = Annotated[str, Form(max_length=300)]
Named = Annotated[str, Path(max_length=300)]
BY_NOBODY = "without account"
"""Author of the first account, which is made where there are none."""


@page_router.get("/accounts", dependencies=[requires(Role.ADMIN)])
def accounts_page(line: TheLine) -> Response:
    """All accounts and tokens."""
    return _accounts(line)


@page_router.post("/accounts", dependencies=[requires(Role.ADMIN)])
async def add_account(
    line: TheLine, caller: TheCaller, name: Typed, role: Typed, password: Typed
) -> Response:
    """A new account."""
    by = caller.author(BY_NOBODY)
    return await _changed(line, lambda: line.accounts.add(name, Role.parse(role), password, by=by))


@page_router.post("/accounts/{name}/{action}", dependencies=[requires(Role.ADMIN)])
async def change_account(
    line: TheLine,
    caller: TheCaller,
    name: Named,
    action: Literal["role", "password", "disable", "enable", "remove"],
    value: Typed = "",
) -> Response:
    """Another role or password, disable, enable, remove."""
    accounts, by = line.accounts, caller.author(BY_NOBODY)
    changes: dict[str, Callable[[], object]] = {
        "role": lambda: accounts.set_role(name, Role.parse(value), by=by),
        "password": lambda: accounts.set_password(name, value, by=by),
        "disable": lambda: accounts.set_disabled(name, True, by=by),
        "enable": lambda: accounts.set_disabled(name, False, by=by),
        "remove": lambda: accounts.remove(name, by=by),
    }
    return await _changed(line, changes[action])


@page_router.post("/tokens", dependencies=[requires(Role.ADMIN)])
async def add_token(
    line: TheLine,
    caller: TheCaller,
    name: Typed,
    role: Typed,
    station: Typed = "",
    sends: Annotated[bool, Form()] = False,
    days: Annotated[int, Form(ge=0, le=3650)] = 0,
) -> Response:
    """A new token, shown on the answer alone."""
    if not line.accounts.people:
        return _accounts(line, "make an account of an administrator first", 422)
    try:
        secret = await to_thread.run_sync(
            lambda: line.accounts.add_token(
                name,
                Role.parse(role),
                by=caller.author(BY_NOBODY),
                sends=sends,
                station=station or None,
                expires=line.clock() + days * DAY if days else None,
            )
        )
    except AndonError as error:
        return _accounts(line, str(error), 422)
    return _accounts(line, secret=secret)


@page_router.post("/tokens/{name}/revoke", dependencies=[requires(Role.ADMIN)])
async def revoke_token(line: TheLine, caller: TheCaller, name: Named) -> Response:
    """The token is refused from now on."""
    return await _changed(line, lambda: line.accounts.revoke(name, by=caller.author(BY_NOBODY)))


@page_router.post("/retention/release", dependencies=[requires(Role.ADMIN)])
async def release_retention(line: TheLine, caller: TheCaller, why: Typed) -> Response:
    """Old images and rows are deleted again."""
    by = caller.author(BY_NOBODY)
    return await _changed(line, lambda: line.retention.release(by, why))


async def _changed(line: TheLine, change: Callable[[], object]) -> Response:
    try:
        await to_thread.run_sync(change, limiter=HASHES)
    except AndonError as error:
        return _accounts(line, str(error), 422)
    return RedirectResponse("/accounts", 303)


def _accounts(line: TheLine, message: str = "", status: int = 200, *, secret: str = "") -> Response:
    accounts: Accounts = line.accounts
    answer = html(
        "accounts",
        people=accounts.people,
        tokens=accounts.tokens,
        all_roles=[*Role],
        stations=[*line.stations],
        message=message,
        secret=secret,
        suspended=line.retention.suspended,
        now=line.clock(),
    )
    answer.status_code = status
    return answer
