"""Roles: every route says what it needs, refuses who has less, and admits who has enough."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi import routing
from starlette.staticfiles import StaticFiles

from andon.line.access import AccessSettings
from andon.line.accounts import hashing
from andon.line.accounts.log_in import IDLE
from andon.line.line import Line
from andon.line.rest.access import Requirement
from andon.line.rest.app import STATIC
from andon.line.rest.log_in import local
from andon.line.roles import Role
from andon.line.store import audit_page
from line.asking import Client
from line.running import part, running

API = "/api/v1"
PASSWORD, PIN = "correct horse", "246810"
OPEN = {f"{API}/health/live", f"{API}/health/ready", "/login"}

pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture(scope="module")
def line(cheap_hashes: None, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running line with one account for each role, named as the role, behind a proxy at 127.0.0.1."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("access") / "store")
    with running(folder, "press", "lathe") as started:
        for role in reversed(Role):
            started.accounts.add(role.word, role, PASSWORD, by="test")
        proxied = {"access": AccessSettings(proxies=("127.0.0.1",))}
        started.settings = started.settings.model_copy(update=proxied)
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
        return self.path.format_map(Names(station="press", action="role"))


class Names(dict[str, str]):
    """What stands in addresses; an id or name that is not there otherwise."""

    def __missing__(self, key: str) -> str:
        return "999"


def matrix(client: Client) -> list[Needed]:
    """All operations of the application, from its router. Fails for one without a requirement."""
    found = []
    for route in getattr(routing, "iter_route_contexts", iter)(client.app.routes):  # nested in newer FastAPI
        if isinstance(getattr(getattr(route, "route", route), "app", None), StaticFiles):
            continue  # style sheets and scripts
        needs = [each.call for each in route.dependant.dependencies if isinstance(each.call, Requirement)]
        assert len(needs) == 1, f"{route.path} has to declare one role: dependencies=[requires(Role.X)]"
        found += [Needed(method, route.path, needs[0].role) for method in sorted(route.methods or ())]
    return found


def as_role(client: Client, role: Role) -> dict[str, str]:
    """Headers of a person of this role."""
    named = {"X-Forwarded-User": role.word}
    return {**named, "X-CSRF-Token": client.get(f"{API}/me", headers=named).json()["csrf"]}


def code(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def cookie(client: Client, name: str) -> dict[str, str]:
    """Cookie header of a new log-in."""
    answer = client.post("/login", data={"name": name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def audited(line: Line, **filters: str) -> list[dict[str, object]]:
    """Rows of the audit, newest first, once all that waits is written."""
    line.store.write(lambda connection: None).result()
    return line.store.ask(lambda c: audit_page.page(c, audit_page.Filters(**filters)))


def test_every_route_declares_a_role(client):
    needed = {each[:2]: each.role for each in matrix(client)}
    assert len(needed) >= 40
    assert {path for (_, path), role in needed.items() if role is None} == OPEN
    assert needed["GET", "/history"] is Role.VIEWER
    assert needed["GET", "/audit"] is Role.LEADER
    assert needed["POST", f"{API}/stations/{{station}}/thresholds"] is Role.ENGINEER
    assert needed["POST", "/accounts"] is Role.ADMIN


def test_roles_are_refused_and_admitted_as_declared(client):
    for role in Role:
        headers = as_role(client, role)
        for each in matrix(client):
            if each.path == f"{API}/events":
                continue  # does not end
            answer = client.request(each.method, each.address, headers=headers)
            if each.role is None or role >= each.role:
                assert answer.status_code not in (401, 403), (each, role)
            else:
                assert code(answer) == (403, "role"), (each, role)


def test_without_an_account_nothing_but_health_and_log_in(client):
    for headers in ({}, {"Authorization": "Bearer andon_unknown"}, {"Cookie": "andon_login=unknown"}):
        for each in matrix(client):
            answer = client.request(each.method, each.address, headers=headers)
            if each.role is None:
                assert answer.status_code not in (303, 401), each
            elif each.method == "GET" and not each.path.startswith(API):
                assert (answer.status_code, answer.headers["location"][:7]) == (303, "/login?"), each
            else:
                assert code(answer) == (401, "log_in"), each
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/static/app.css").status_code == 200
    later = client.get("/history?lot=7").headers["location"]
    assert later == "/login?next=%2Fhistory%3Flot%3D7"


def test_log_in_with_a_browser(client, line):
    wrong = client.post("/login", data={"name": "leader", "password": "no"})
    assert wrong.status_code == 401 and "do not belong together" in wrong.text and PASSWORD not in wrong.text
    right = client.post("/login", data={"name": "leader", "password": PASSWORD, "next": "/history"})
    assert (right.status_code, right.headers["location"]) == (303, "/history")
    found = SimpleCookie(right.headers["set-cookie"])["andon_login"]
    assert (found["httponly"], found["samesite"], found["secure"]) == (True, "strict", "")
    first = {"Cookie": f"andon_login={found.value}"}
    https = {**first, "X-Forwarded-Proto": "https"}
    again = client.post("/login", data={"name": "leader", "password": PASSWORD}, headers=https)
    assert SimpleCookie(again.headers["set-cookie"])["andon_login"]["secure"] is True
    assert client.get(f"{API}/me", headers=first).status_code == 401  # another secret at each log-in
    second = {"Cookie": again.headers["set-cookie"].partition(";")[0]}
    page = client.get("/history", headers=second)
    token = client.get(f"{API}/me", headers=second).json()["csrf"]
    assert f'content="{token}"' in page.text and "leader" in page.text
    assert code(client.post("/logout", headers=second)) == (403, "csrf")
    out = client.post("/logout", headers=second, data={"csrf": token})
    assert out.headers["location"] == "/login"
    assert client.get(f"{API}/me", headers=second).status_code == 401


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example", "/\\evil", "", "/a\nb", "evil"]
)
def test_the_log_in_leads_to_this_server_alone(address):
    assert local(address) == "/"
    assert local("/history?lot=7") == "/history?lot=7"


def test_changes_by_cookie_need_the_token_of_the_page(client):
    headers = cookie(client, "inspector")
    stop = f"{API}/stations/lathe/call"
    assert code(client.post(stop, headers=headers, json={})) == (403, "csrf")
    wrong = {**headers, "X-CSRF-Token": "0" * 64}
    assert code(client.post(stop, headers=wrong, json={})) == (403, "csrf")
    token = client.get(f"{API}/me", headers=headers).json()["csrf"]
    foreign = {**headers, "X-CSRF-Token": token, "Origin": "http://evil.example"}
    assert code(client.post(stop, headers=foreign, json={})) == (403, "cross_site")
    assert client.post(stop, headers={**headers, "X-CSRF-Token": token}, json={}).status_code == 200


def test_scripts_send_changes_by_one_function():
    asks = {
        script.name
        for script in STATIC.glob("*.js")
        if re.search(r"\bfetch\(", script.read_text(encoding="utf-8"))
    }
    assert asks == {"live.js"}  # whose `send` repeats the token of the page


def test_a_locked_log_in_sees_and_acknowledges_by_pin(client, line, monkeypatch):
    line.accounts.set_pin("inspector", PIN, by="inspector")
    line.accounts.set_pin("viewer", PIN, by="viewer")
    headers = cookie(client, "leader")
    mine = {**headers, "X-CSRF-Token": client.get(f"{API}/me", headers=headers).json()["csrf"]}
    assert client.post(f"{API}/stations/press/stop", headers=mine, json={"note": "torn"}).status_code == 200
    (login,) = [
        each for each in line.accounts.logins.values() if each.account_id == line.accounts.named("leader").id
    ]
    login.seen -= IDLE + 1
    assert client.get("/stations/press", headers=headers).status_code == 200
    assert client.get(f"{API}/me", headers=headers).json()["is_locked"] is True
    (alarm,) = [a for a in client.get(f"{API}/alarms", headers=mine).json() if a["station"] == "press"]
    refused = client.post(f"{API}/alarms/{alarm['id']}/acknowledge", headers=mine, json={})
    assert code(refused) == (403, "role") and "locked" in refused.json()["detail"]
    by_pin = f"{API}/alarms/{alarm['id']}/acknowledge/pin"
    for person, expected in (
        ({"name": "inspector", "pin": "000000"}, (401, "log_in_failed")),
        ({"name": "viewer", "pin": PIN}, (403, "role")),
    ):
        assert code(client.post(by_pin, headers=mine, json=person)) == expected
    done = client.post(by_pin, headers=mine, json={"name": "inspector", "pin": PIN})
    assert done.status_code == 200 and done.json()["ack_by"] == "inspector"
    row = audited(line, who="inspector", object=f"alarm {alarm['id']}")[0]
    assert row["role"] == "inspector"


def test_the_name_of_the_account_counts_and_its_role_is_in_the_audit(client, line):
    headers = as_role(client, Role.ENGINEER)
    body = {"accept": 1.1, "reject": 1.2, "why": "because of the lamp", "who": "somebody else"}
    assert client.post(f"{API}/stations/press/thresholds", headers=headers, json=body).status_code == 201
    (row,) = audited(line, action="threshold", who="engineer")
    assert (row["who"], row["role"]) == ("engineer", "engineer")
    assert client.get(f"{API}/export.csv", headers=headers).status_code == 200
    row = audited(line, action="export")[0]
    assert row["who"] == "engineer"


def test_tokens_send_parts_and_change_their_station_alone(client, line):
    sender = line.accounts.add_token("camera", Role.VIEWER, by="admin", sends=True, station="press")
    leader = line.accounts.add_token("plc", Role.LEADER, by="admin", station="lathe")
    camera, plc = ({"Authorization": f"Bearer {secret}"} for secret in (sender, leader))
    parts = f"{API}/stations/%s/inspections"
    assert client.post(parts % "press", headers=camera, content=part(1).image).status_code == 201
    assert code(client.post(parts % "lathe", headers=camera, content=part(2).image)) == (403, "station")
    assert code(client.post(f"{API}/stations/press/stop", headers=camera, json={})) == (403, "role")
    assert client.get(f"{API}/stations", headers=camera).status_code == 200
    assert client.post(f"{API}/stations/lathe/call", headers=plc, json={}).status_code == 200
    assert code(client.post(f"{API}/alarms/1/acknowledge", headers=plc, json={})) == (403, "station")
    line.accounts.revoke("camera", by="admin")
    assert code(client.get(f"{API}/stations", headers=camera)) == (401, "log_in")


def test_headers_of_a_proxy_count_from_its_address_alone(line, client_of):
    trusting, before = line.settings, AccessSettings()
    assert client_of(line).get(f"{API}/me", headers={"X-Forwarded-User": "admin"}).json()["name"] == "admin"
    two = [("X-Forwarded-User", "admin"), ("X-Forwarded-User", "viewer")]
    assert client_of(line).get(f"{API}/me", headers=two).status_code == 401
    assert client_of(line).get(f"{API}/me", headers={"X-Forwarded-User": "nobody"}).status_code == 401
    for access in (before, AccessSettings(proxies=("10.0.0.0/8",))):
        line.settings = trusting.model_copy(update={"access": access})
        client = client_of(line)
        assert client.get(f"{API}/me", headers={"X-Forwarded-User": "admin"}).status_code == 401
    line.settings = trusting


def test_too_many_attempts_are_told_to_wait(client):
    answers = [client.post("/login", data={"name": "engineer", "password": "no"}) for _ in range(6)]
    assert [each.status_code for each in answers] == [401] * 5 + [429]
    assert 25 <= int(answers[-1].headers["retry-after"]) <= 30 and "wait" in answers[-1].text


def test_own_password_and_pin(client, line):
    headers = as_role(client, Role.VIEWER)
    form = {"password": "no", "new": "another password", "again": "another password"}
    assert client.post("/account/password", headers=headers, data=form).status_code == 422
    form["password"], form["again"] = PASSWORD, "a typing error"
    assert "differ" in client.post("/account/password", headers=headers, data=form).text
    form["again"] = form["new"]
    done = client.post("/account/password", headers=headers, data=form)
    assert done.headers["location"] == "/account?done=password"
    pin = {"password": form["new"], "pin": "1357911"}
    assert client.post("/account/pin", headers=headers, data=pin).status_code == 303
    assert "There is a PIN" in client.get("/account", headers=headers).text


def test_accounts_are_kept_on_their_page(client, line):
    headers = as_role(client, Role.ADMIN)
    made = client.post(
        "/accounts", headers=headers, data={"name": "Eve", "role": "viewer", "password": PASSWORD}
    )
    assert made.status_code == 303
    assert client.post("/accounts/eve/role", headers=headers, data={"value": "leader"}).status_code == 303
    assert line.accounts.named("eve").role is Role.LEADER
    for action in ("disable", "enable", "remove"):
        assert client.post(f"/accounts/eve/{action}", headers=headers).status_code == 303
    last = client.post("/accounts/admin/remove", headers=headers)
    assert last.status_code == 422 and "last administrator" in last.text
    token = {"name": "plc2", "role": "leader", "station": "press", "days": "30", "sends": "true"}
    shown = client.post("/tokens", headers=headers, data=token)
    assert hashing.TOKEN_PREFIX in shown.text
    page = client.get("/accounts", headers=headers).text
    assert "plc2" in page and hashing.TOKEN_PREFIX not in page
    assert client.post("/tokens/plc2/revoke", headers=headers).status_code == 303


def test_audit_is_read_in_pages_and_checked(client, line):
    headers = as_role(client, Role.LEADER)
    first = client.get(f"{API}/audit?limit=3&object=account", headers=headers).json()
    rest = client.get(first["next"], headers=headers).json()
    numbers = [row["seq"] for row in first["rows"] + rest["rows"]]
    assert len(numbers) == 6 and numbers == sorted(numbers, reverse=True)
    assert all(row["object"].startswith("account") for row in rest["rows"])
    chain = client.get(f"{API}/audit/chain", headers=headers).json()
    assert chain["is_sound"] is True and chain["rows"] >= len(Role)
    page = client.get("/audit?who=test&action=account+added", headers=headers).text
    assert page.count("account added</td>") == len(Role) and "sound" in page
    assert "No changes fit" in client.get("/audit?until=2001-01-01T00:00", headers=headers).text
    assert "cannot be read" in client.get("/audit?since=yesterday", headers=headers).text


def test_no_secret_in_the_description(client):
    described = client.get(f"{API}/openapi.json", headers=as_role(client, Role.VIEWER)).text
    for secret in (PASSWORD, PIN, hashing.TOKEN_PREFIX):
        assert secret not in described


def test_the_first_account_closes_an_open_line(empty_store, tmp_path, client_of):
    with running(shutil.copytree(empty_store, tmp_path / "store")) as open_line:
        client = client_of(open_line)
        assert client.get("/accounts").status_code == 200
        assert client.get("/login").headers["location"] == "/"
        assert "administrator first" in client.post("/tokens", data={"name": "t", "role": "viewer"}).text
        assert code(client.post(f"{API}/stations/press/stop", json={})) == (422, "invalid")  # by whom?
        assert (
            client.post("/accounts", data={"name": "ada", "role": "admin", "password": PASSWORD}).status_code
            == 303
        )
        assert client.get("/accounts").headers["location"].startswith("/login")
