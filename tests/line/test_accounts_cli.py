"""`andon account`, `andon token`, and what follows from accounts for server, client and simulation."""

from __future__ import annotations

import io
import json
import sys

import pytest

from andon.client import Client, ClientError
from andon.core.errors import UsageError
from andon.line.accounts import Accounts
from andon.line.roles import Role
from andon.line.server import serve
from andon.line.store import Store
from line.running import part, running
from line.serving import served

PASSWORD = "correct horse"
pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def typed(monkeypatch):
    """Sets what comes on stdin."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_accounts_and_tokens_by_command(cli, typed, folder):
    at = ("--data", folder)
    typed(f"{PASSWORD}\n")
    assert "account ada is admin" in cli("account", "add", "Ada", *at).err
    typed(PASSWORD)
    later = cli("account", "add", "ida", *at)
    assert (later.code, later.err.count("\n")) == (2, 1)
    assert "ida would not be the first account: give its role, --role viewer, inspector" in later.err
    for name, role in (("ida", "inspector"), ("lee", "viewer")):
        typed(PASSWORD)
        assert cli("account", "add", name, "--role", role, *at).code == 0
    typed("246810\n")
    for command in (
        ("pin", "ida"),
        ("role", "lee", "leader"),
        ("disable", "lee"),
        ("enable", "lee"),
        ("remove", "lee"),
    ):
        assert cli("account", *command, *at).code == 0, command
    found = json.loads(cli("account", "list", "--json", *at).out)
    assert [(each["name"], each["role"], each["has_pin"]) for each in found] == [
        ("ada", "admin", False),
        ("ida", "inspector", True),
    ]
    assert "ida  inspector  active, PIN" in cli("account", "list", *at).out
    made = cli("token", "add", "camera", "--sends", "--station", "press", "--days", "30", *at)
    assert made.out.startswith("andon_") and made.out.count("\n") == 1
    assert "camera  viewer, sends parts  press  until 20" in cli("token", "list", *at).out
    assert json.loads(cli("token", "list", "--json", *at).out)[0]["name"] == "camera"
    assert cli("token", "revoke", "camera", *at).code == 0
    typed("new password\n")
    assert cli("account", "password", "ada", *at).code == 0
    with Store.open(folder) as store:
        text = repr(store.ask(lambda c: c.exec_driver_sql("SELECT * FROM audit").all()))
    assert PASSWORD not in text and "new password" not in text and "command line (" in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("account", "add", "two words"), "without spaces"),
        (("account", "add", "eve", "--role", "boss"), "there is no role 'boss'"),
        (("account", "add", "eve", "--role", "viewer"), "first account"),
        (("account", "role", "eve", "viewer"), "there are: none"),
        (("account", "remove", "eve", "--data", "none"), "there is no folder none"),
        (("account", "list", "--data", "none"), "has no andon.sqlite"),
        (("token", "add", "plc", "--role", "admin"), "cannot have the role admin"),
        (("token", "revoke", "plc"), "no token 'plc'"),
    ],
)
def test_wrong_commands_are_one_line(cli, typed, folder, command, said):
    typed(PASSWORD)
    outcome = cli(*command, *(() if "--data" in command else ("--data", folder)))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert said in outcome.err


def test_other_machines_need_accounts_or_an_open_line(folder):
    told: list[str] = []
    with running(folder) as line:
        for host in ("0.0.0.0", "::"):
            with pytest.raises(UsageError, match=f"{host} is reached from other machines.*andon account add"):
                serve(line, host, 0, listening=lambda: told.append("the address of the page"))
    assert told == []
    with Store.open(folder) as store:
        Accounts(store).add_token("plc", Role.VIEWER, by="test")
    with running(folder) as line, pytest.raises(UsageError, match="cannot be used"):
        serve(line, "no.such.host.invalid", 0)  # refused for another reason


def test_clients_and_simulation_with_a_token(cli, folder, tmp_path, monkeypatch):
    (tmp_path / "part.png").write_bytes(part(1).image)
    with running(folder) as line:
        secret = line.accounts.add_token("camera", Role.VIEWER, by="test", sends=True)
        with served(line) as port:
            address = f"http://127.0.0.1:{port}"
            with (
                Client(address) as client,
                pytest.raises(ClientError, match="needs an account or a token") as refused,
            ):
                client.stations()
            assert refused.value.status == 401
            with Client(address, token=secret) as client:
                assert client.inspect("press", tmp_path / "part.png").passes
                events = client.events()
                next(events)
                line.accounts.revoke("camera", by="test")
                assert all(event.kind != "inspection" for event in events)  # ends with the next tick
            again = line.accounts.add_token("camera", Role.VIEWER, by="test", sends=True)
            (tmp_path / "token").write_text(again + "\n")
            command = (
                "simulate",
                "images",
                tmp_path / "part.png",
                "--url",
                address,
                "--rate",
                "50",
                "--seconds",
                "0.1",
            )
            assert cli(*command).code == 1
            assert cli(*command, "--token-file", tmp_path / "none").code == 2
            wrong = cli(*command, "--station", "oven", "--token-file", tmp_path / "token")
            assert (wrong.code, wrong.out) == (2, "")
            assert "there is no station oven" in wrong.err
            assert "OK: 5" in cli(*command, "--token-file", tmp_path / "token").out
            monkeypatch.setenv("ANDON_TOKEN", again)
            assert cli(*command).code == 0
            line.events.close()
    with pytest.raises(UsageError, match="this is no token"):
        Client(token="two\nlines")
