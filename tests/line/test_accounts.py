"""Accounts, log-ins, tokens: who is recognised, and what is remembered of secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from andon.core.errors import UsageError
from andon.line.accounts import Accounts, LogIn, LogInFailed, attempts, hashing, log_in
from andon.line.accounts.attempts import Attempts
from andon.line.accounts.log_in import IDLE, LIFE, address_key
from andon.line.accounts.records import clean_name
from andon.line.clock import DAY, MINUTE, SECOND
from andon.line.roles import Role
from andon.line.store import audit_page
from line.storing import NOON

PASSWORD, PIN, HOME = "correct horse", "246810", "10.0.0.7"


@dataclass
class Clock:
    now: int = NOON

    def __call__(self):
        return self.now


pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def accounts(store, clock):
    return filled(Accounts(store, clock=clock))


@pytest.fixture
def door(accounts):
    return LogIn(accounts)


def filled(accounts):
    """Two people."""
    accounts.add("ada", Role.ADMIN, PASSWORD, by="test")
    accounts.add("Ida", Role.INSPECTOR, PASSWORD, by="test")
    return accounts


def rows(store, **filters):
    """The audit, once all that waits is written."""
    store.write(lambda connection: None).result()
    return store.ask(lambda c: audit_page.page(c, audit_page.Filters(**filters)))


def test_a_log_in_lasts_over_a_restart_and_locks_when_nothing_is_done(store, accounts, door, clock):
    cookie = door.by_password("IDA ", PASSWORD, HOME)
    caller = door.by_cookie(cookie, is_act=True)
    assert (caller.name, caller.role, caller.is_locked) == ("ida", Role.INSPECTOR, False)
    assert door.by_cookie(cookie[:-1], is_act=True) is None
    clock.now += IDLE
    assert not door.by_cookie(cookie, is_act=True).is_locked  # an act: the time begins again
    clock.now += IDLE
    assert not door.by_cookie(cookie, is_act=False).is_locked
    again = LogIn(Accounts(store, clock=clock))
    assert again.by_cookie(cookie, is_act=False) is not None
    clock.now += SECOND
    locked = door.by_cookie(cookie, is_act=True)
    assert (locked.role, locked.is_locked, locked.name) == (Role.VIEWER, True, "ida")
    assert door.by_cookie(cookie, is_act=True).is_locked  # acting does not unlock
    clock.now = NOON + LIFE + SECOND
    assert door.by_cookie(cookie, is_act=False) is None
    assert not door.admits(caller)


@pytest.mark.parametrize(
    "end",
    [
        lambda accounts, door, cookie: door.log_out(cookie),
        lambda accounts, door, cookie: accounts.set_password("ida", "another password", by="ada"),
        lambda accounts, door, cookie: accounts.set_disabled("ida", True, by="ada"),
        lambda accounts, door, cookie: accounts.remove("ida", by="ada"),
    ],
)
def test_log_out_new_password_disabling_and_removal_end_log_ins(accounts, door, end):
    cookie = door.by_password("ida", PASSWORD, HOME)
    caller = door.by_cookie(cookie, is_act=True)
    assert door.admits(caller)
    end(accounts, door, cookie)
    assert door.by_cookie(cookie, is_act=True) is None and not door.admits(caller)


def test_wrong_passwords_unknown_names_and_disabled_accounts_look_alike(accounts, door, monkeypatch):
    hashed = []
    verify = hashing.matches
    monkeypatch.setattr(log_in.hashing, "matches", lambda *a: hashed.append(a) or verify(*a))
    accounts.set_disabled("ida", True, by="ada")
    said = set()
    for name, password in (("ada", "wrong password"), ("nobody", PASSWORD), ("ida", PASSWORD), ("\0", "")):
        with pytest.raises(LogInFailed) as failure:
            door.by_password(name, password, HOME)
        said.add((str(failure.value), failure.value.wait))
    assert len(said) == 1
    assert len(hashed) == 4  # the same work each time


def test_attempts_wait_longer_and_longer(accounts, door, clock):
    for _ in range(attempts.FREE_OF_NAME):
        with pytest.raises(LogInFailed, match="belong together"):
            door.by_password("ida", "wrong password", HOME)
    waits = []
    for _ in range(12):
        with pytest.raises(LogInFailed) as failure:
            door.by_password("ida", "wrong password", "10.0.0.99")
        if failure.value.wait:
            waits.append(failure.value.wait)
            clock.now += failure.value.wait * SECOND
    assert waits == [30, 60, 120, 240, 480, 900]
    with pytest.raises(LogInFailed, match="wait 900 s"):  # the right password has to wait as well
        door.by_password("ida", PASSWORD, HOME)
    door.by_password("ada", PASSWORD, HOME)
    clock.now += 900 * SECOND
    door.by_password("ida", PASSWORD, HOME)


def test_many_names_from_one_address_wait_and_fill_neither_memory_nor_audit(store, clock, monkeypatch):
    tries = Attempts(clock)
    waits = [tries.begin(f"name{i}", HOME) for i in range(30)]
    assert waits.index(next(w for w in waits if w)) == attempts.FREE_OF_ADDRESS
    monkeypatch.setattr(attempts, "MOST_KEYS", 10)
    for i in range(50):
        tries.begin(f"name{i}", f"10.1.0.{i}")
    assert len(tries._tries) <= 10
    assert address_key("2001:db8::1") == address_key("2001:db8::2") != address_key("2001:db8:0:1::1")
    assert address_key("10.0.0.1") != address_key("10.0.0.2")
    door = LogIn(filled(Accounts(store, clock=clock)))
    for i in range(40):
        with pytest.raises(LogInFailed):
            door.by_password(f"name{i}", PASSWORD, f"10.2.0.{i}")
    assert len(rows(store, action="log-in failed")) == log_in.FAILURES_A_MINUTE
    clock.now += MINUTE
    with pytest.raises(LogInFailed):
        door.by_password("ida", "wrong password", HOME)
    last = rows(store, action="log-in failed")[0]
    assert json.loads(last["new_json"]) == {"address": HOME, "not_listed": 10}
    assert last["object"] == "account ida"
    assert "name3" not in str(rows(store))  # an unknown name may be a password in the wrong field


def test_pin_is_for_one_act(accounts, door):
    with pytest.raises(LogInFailed):
        door.by_pin("ida", PIN, HOME)  # there is none
    accounts.set_pin("ida", PIN, by="ida")
    assert door.by_pin("ida", PIN, HOME).role is Role.INSPECTOR
    with pytest.raises(LogInFailed):
        door.by_password("ida", PIN, HOME)
    accounts.set_pin("ida", "", by="ida")
    with pytest.raises(LogInFailed):
        door.by_pin("ida", PIN, HOME)


def test_tokens_have_role_station_and_end(store, accounts, door, clock):
    secret = accounts.add_token(
        "camera", Role.VIEWER, by="ada", sends=True, station="press", expires=NOON + DAY
    )
    assert len(secret) >= len(hashing.TOKEN_PREFIX) + 43  # 256 bits
    caller = door.by_token(secret)
    assert (caller.name, caller.role, caller.station, caller.sends, caller.csrf) == (
        *("token camera", Role.VIEWER, "press", True),
        "",
    )
    assert LogIn(Accounts(store, clock=clock)).by_token(secret) == caller
    assert door.by_token(secret + "x") is None
    clock.now += DAY
    assert door.by_token(secret) is None and not door.admits(caller)
    other = accounts.add_token("plc", Role.LEADER, by="ada")
    accounts.revoke("plc", by="ada")
    assert door.by_token(other) is None
    with pytest.raises(UsageError, match="no token 'plc'; there are: camera"):
        accounts.revoke("plc", by="ada")


def test_what_is_refused(store, accounts):
    for wrong, what in (
        (lambda: accounts.add("ada", Role.VIEWER, PASSWORD, by="x"), "already"),
        (lambda: accounts.add("two words", Role.VIEWER, PASSWORD, by="x"), "without spaces"),
        (lambda: accounts.add("eve", Role.VIEWER, "short", by="x"), "10 to 200"),
        (lambda: accounts.set_role("eve", Role.VIEWER, by="x"), "there are: ada, ida"),
        (lambda: accounts.set_role("ada", Role.VIEWER, by="x"), "last administrator"),
        (lambda: accounts.set_disabled("ada", True, by="x"), "last administrator"),
        (lambda: accounts.remove("ada", by="x"), "last administrator"),
        (lambda: accounts.set_pin("ida", "12345", by="x"), "6 to 64"),
        (lambda: accounts.add_token("t", Role.ADMIN, by="x"), "role admin"),
        (lambda: accounts.add_token("t", Role.VIEWER, by="x", expires=NOON), "expired"),
        (lambda: Role.parse("boss"), "viewer, inspector, leader, engineer, admin"),
    ):
        with pytest.raises(UsageError, match=what):
            wrong()
    assert clean_name(" Müller@werk ") == "müller@werk"


def test_the_first_account_is_an_administrator(store, clock):
    accounts = Accounts(store, clock=clock)
    assert not accounts.are_required
    with pytest.raises(UsageError, match="first account"):
        accounts.add("ida", Role.INSPECTOR, PASSWORD, by="x")
    secret = accounts.add_token("plc", Role.VIEWER, by="x")
    accounts.revoke("plc", by="x")
    assert accounts.are_required and secret  # not open to all again before the next start
    assert not Accounts(store, clock=clock).are_required


def test_every_change_is_in_the_audit_and_no_secret_anywhere(store, accounts, door, caplog):
    caplog.set_level("DEBUG")
    accounts.set_role("ida", Role.LEADER, by="ada")
    accounts.set_pin("ida", PIN, by="ida")
    accounts.set_password("ida", PASSWORD + "2", by="ada")
    cookie = door.by_password("ida", PASSWORD + "2", HOME)
    door.log_out(cookie)
    accounts.set_disabled("ida", True, by="ada")
    accounts.set_disabled("ida", False, by="ada")
    token = accounts.add_token("plc", Role.VIEWER, by="ada")
    accounts.revoke("plc", by="ada")
    accounts.remove("ida", by="ada")
    done = [row["action"] for row in rows(store)][::-1]
    assert done == [
        *("account added", "account added", "account role", "account pin", "account password"),
        *("log-in", "log-out", "account disabled", "account enabled", "token added", "token revoked"),
        "account removed",
    ]
    everything = (
        repr(rows(store))
        + caplog.text
        + repr(accounts.people)
        + repr(accounts.tokens)
        + repr(accounts.logins)
    )
    hashes = [each.password_hash for each in accounts.people]
    for secret in (PASSWORD, PIN, cookie, token, hashing.digest(token), hashing.digest(cookie), *hashes):
        assert secret not in everything


# Two processes on one database ----------------------------------------------------------------------------------------


def name_of(caller):
    return None if caller is None else (caller.name, caller.role, caller.is_locked)


CHANGES = {
    "role": (lambda accounts: accounts.set_role("ida", Role.VIEWER, by="ada"), ("ida", Role.VIEWER, False)),
    "password": (lambda accounts: accounts.set_password("ida", PASSWORD + "2", by="ada"), None),
    "disable": (lambda accounts: accounts.set_disabled("ida", True, by="ada"), None),
    "remove": (lambda accounts: accounts.remove("ida", by="ada"), None),
}


@pytest.mark.parametrize(("change", "seen"), CHANGES.values(), ids=CHANGES)
def test_what_another_process_changes_counts(store, clock, change, seen):
    here, there = Accounts(store, clock=clock), Accounts(store, clock=clock)
    door = LogIn(here)
    assert not here.are_required
    filled(there)
    here.look()
    cookie = door.by_password("ida", PASSWORD, HOME)
    caller = door.by_cookie(cookie, is_act=True)
    change(there)
    here.look()
    assert here.are_required
    assert name_of(door.by_cookie(cookie, is_act=True)) == seen
    assert door.admits(caller) == (seen is not None)


def test_tokens_log_ins_and_log_outs_of_another_process_count(store, accounts, door, clock):
    there = Accounts(store, clock=clock)
    secret = there.add_token("plc", Role.VIEWER, by="ada")
    cookie = LogIn(there).by_password("ida", PASSWORD, HOME)
    own = door.by_password("ada", PASSWORD, HOME)
    assert door.by_token(secret).name == "token plc"
    clock.now += IDLE // 2
    assert door.by_cookie(cookie, is_act=True).name == "ida"  # the act is stored later
    accounts.look()
    clock.now += IDLE // 2 + SECOND
    assert not door.by_cookie(cookie, is_act=True).is_locked
    there.revoke("plc", by="ada")
    LogIn(there).log_out(cookie)
    accounts.look()
    assert door.by_token(secret) is None and door.by_cookie(cookie, is_act=True) is None
    assert door.by_cookie(own, is_act=True) is not None


def test_changes_are_decided_by_what_is_stored_not_by_what_was_read(store, accounts, clock):
    there = Accounts(store, clock=clock)
    accounts.add("eva", Role.ADMIN, PASSWORD, by="ada")
    accounts.add_token("plc", Role.VIEWER, by="ada")
    there.set_disabled("ada", True, by="eva")  # a second administrator, of whom this process has not read
    for wrong, what in (
        (lambda: accounts.set_disabled("eva", True, by="ada"), "last administrator"),
        (lambda: there.remove("eva", by="eva"), "last administrator"),
        (lambda: accounts.set_role("eva", Role.LEADER, by="ada"), "last administrator"),
        (lambda: there.add_token("plc", Role.VIEWER, by="eva"), "a token 'plc' already"),
    ):
        with pytest.raises(UsageError, match=what):
            wrong()
    there.add("bob", Role.VIEWER, PASSWORD, by="eva")
    with pytest.raises(UsageError, match="an account 'bob' already"):
        accounts.add("bob", Role.VIEWER, PASSWORD, by="ada")
    there.remove("ida", by="eva")
    with pytest.raises(UsageError, match="no account 'ida'"):
        accounts.set_pin("ida", PIN, by="ada")
    assert [each.name for each in accounts.people] == ["ada", "bob", "eva"]


def test_who_asks_without_account_changes_none_once_others_made_some(store, clock):
    stale = [Accounts(store, clock=clock) for _ in range(2)]
    filled(Accounts(store, clock=clock))
    for wrong in (
        lambda: stale[0].add("eva", Role.ADMIN, PASSWORD, by="without account"),
        lambda: stale[1].add_token("plc", Role.ENGINEER, by="without account"),
    ):
        with pytest.raises(UsageError, match="made on another line meanwhile"):
            wrong()
    for here in stale:
        assert here.are_required and not here.tokens
        assert [each.name for each in here.people] == ["ada", "ida"]


def test_a_log_in_of_an_account_that_was_changed_meanwhile_is_refused(store, accounts, door, clock):
    there = Accounts(store, clock=clock)
    there.set_disabled("ida", True, by="ada")
    with pytest.raises(LogInFailed, match="changed meanwhile"):
        door.by_password("ida", PASSWORD, HOME)
    assert not accounts.logins
