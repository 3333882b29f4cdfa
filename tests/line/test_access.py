"""Roles: every route says what it needs, and refuses who has less."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.routing import iter_route_contexts
from starlette.staticfiles import StaticFiles

from andon.line.line import Line
from andon.line.rest import access
from andon.line.rest.access import Caller, Requirement
from andon.line.roles import Role
from line.asking import Client
from line.running import running


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running line."""
    with running(shutil.copytree(empty_store, tmp_path_factory.mktemp("access") / "store")) as started:
        yield started


@pytest.fixture(scope="module")
def client(line: Line, client_of: Callable[..., Client]) -> Client:
    return client_of(line)


class Needed(NamedTuple):
    """A route and what it requires; None for a route that is open to everybody."""

    method: str
    path: str
    role: Role | None

    @property
    def address(self) -> str:
        return self.path.format(station="press", id=1, name="nobody", seq=1)


def matrix(client: Client) -> list[Needed]:
    """All operations of the application, from its router. Fails for one without a requirement."""
    found = []
    for route in iter_route_contexts(client.app.routes):
        if isinstance(getattr(route.route, "app", None), StaticFiles):
            continue  # style sheets and scripts
        calls = [each.call for each in route.dependant.dependencies]
        needs = [call for call in calls if isinstance(call, Requirement)]
        assert len(needs) == 1, f"{route.path} has to declare one role: dependencies=[requires(Role.X)]"
        found += [Needed(method, route.path, needs[0].role) for method in sorted(route.methods or ())]
    return found


def test_every_route_declares_a_role(client):
    needed = {each[:2]: each.role for each in matrix(client)}
    assert len(needed) >= 33
    assert {path for (_, path), role in needed.items() if role is None} == {
        "/api/v1/health/live",
        "/api/v1/health/ready",
    }
    assert needed["GET", "/history"] is Role.VIEWER
    assert needed["POST", "/api/v1/stations/{station}/thresholds"] is Role.ENGINEER


def test_a_lower_role_is_refused(client):
    for role in Role:
        client.app.dependency_overrides[access._caller] = lambda role=role: Caller("someone", role)
        for each in matrix(client):
            if each.role is not None and each.role > role:
                answer = client.request(each.method, each.address)
                assert (answer.status_code, answer.json()["code"]) == (403, "role"), (each, role)
    client.app.dependency_overrides.clear()
