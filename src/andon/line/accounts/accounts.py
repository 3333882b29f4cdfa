"""Accounts and tokens of a line, and changes of them.

All is held in memory, so that no request waits for the database to be recognised. Each change is one transaction with its
row of the audit; what it may do is decided by the rows of that transaction. Where other processes change the same rows, a
thread reads them again and again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from andon.core.errors import UsageError
from andon.line.accounts import hashing
from andon.line.accounts.records import Account, Login, Token, clean_name
from andon.line.clock import Clock, now_us
from andon.line.roles import Role
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append, hold

T = TypeVar("T")
LOG = logging.getLogger(__name__)
STORED_WITHIN = 10.0
"""Seconds after which a change that is not stored counts as failed."""
READ_SECONDS = 0.5
"""Between two looks at what other processes changed."""


class State(NamedTuple):
    """Rows of a database."""

    people: list[Account]
    tokens: list[Token]
    logins: list[dict[str, Any]]


class Accounts:
    """Accounts, tokens and log-ins of one store. Any thread may ask.

    Changes raise `UsageError` for what is not allowed and `StoreError` where they are not stored.
    """

    def __init__(self, store: Store, *, clock: Clock = now_us) -> None:
        self._store, self.clock = store, clock
        self._changing = threading.RLock()
        self._people: dict[int, Account] = {}
        self._tokens: dict[str, Token] = {}
        self.logins: dict[str, Login] = {}
        """By hash of the cookie."""
        self._were_required = False
        self._ending, self._problem = threading.Event(), ""
        self._reader = threading.Thread(target=self._follow, name="andon-accounts", daemon=True)
        self._take(store.ask(read_all))

    def start(self) -> None:
        """From now on take over what other processes change, where there may be others."""
        if self._store.is_shared:
            self._reader.start()

    def stop(self) -> None:
        """Take over no more."""
        self._ending.set()
        if self._reader.is_alive():
            self._reader.join()

    def look(self) -> None:
        """Take over what other processes changed. Raises `StoreError` where the database does not answer."""
        with self._changing:
            self._take(self._store.ask(read_all))

    @property
    def are_required(self) -> bool:
        """Whether every request needs a caller: once there was an account or token, up to the end of the process."""
        return self._were_required

    @property
    def people(self) -> list[Account]:
        """All accounts, by name."""
        return [*self._people.values()]

    @property
    def tokens(self) -> list[Token]:
        """All tokens, by name."""
        return [*self._tokens.values()]

    def named(self, name: str) -> Account | None:
        """The account of this name, disabled or not."""
        try:
            wanted = clean_name(name)
        except UsageError:
            return None
        return next((each for each in self._people.values() if each.name == wanted), None)

    def with_id(self, id: int) -> Account | None:
        """The account with this id."""
        return self._people.get(id)

    def token(self, secret_hash: str) -> Token | None:
        """The token of this hash, expired or not."""
        return self._tokens.get(secret_hash)

    # Accounts ------------------------------------------------------------------------------------------------------

    def add(self, name: str, role: Role, password: str, *, by: str) -> Account:
        """A new account. The first one is an administrator, who can add others."""
        name, encoded = clean_name(name), ""

        def check() -> None:
            if self.named(name) is not None:
                raise UsageError(f"there is an account {name!r} already: choose another name")
            if not self._people and role is not Role.ADMIN:
                raise UsageError("the first account has to have the role admin: add others after it")

        def change(connection: Connection) -> Entry:
            check()
            values = {"name": name, "role": int(role), "password_hash": encoded}
            rows.add(connection, "account", **values, is_disabled=False, created=self.clock())
            return Entry(by, "account added", f"account {name}", new={"role": role.word})

        check()  # before the password
        encoded = hashing.hash_password(password)
        self._change(change)
        return self._known(name)

    def set_role(self, name: str, role: Role, *, by: str) -> None:
        """Another role, from the next request on."""

        def change(connection: Connection) -> Entry:
            account = self._known(name)
            if role is not Role.ADMIN:
                self._keep_an_admin(account)
            rows.change(connection, "account", account.id, role=int(role))
            old, new = {"role": account.role.word}, {"role": role.word}
            return Entry(by, "account role", f"account {account.name}", old=old, new=new)

        self._change(change)

    def set_password(self, name: str, password: str, *, by: str) -> None:
        """Another password; ends all log-ins of the account."""
        self._known(name)
        encoded = hashing.hash_password(password)

        def change(connection: Connection) -> Entry:
            account = self._known(name)
            self._end_logins(connection, account)
            rows.change(connection, "account", account.id, password_hash=encoded)
            return Entry(by, "account password", f"account {account.name}")

        self._change(change)

    def set_pin(self, name: str, pin: str, *, by: str) -> None:
        """Another PIN or badge number; empty: none."""
        self._known(name)
        encoded = hashing.hash_pin(pin) if pin else None

        def change(connection: Connection) -> Entry:
            account = self._known(name)
            rows.change(connection, "account", account.id, pin_hash=encoded)
            return Entry(by, "account pin", f"account {account.name}", new={"has_pin": bool(pin)})

        self._change(change)

    def set_disabled(self, name: str, disabled: bool, *, by: str) -> None:
        """Refuse the account, or admit it again; disabling ends its log-ins."""

        def change(connection: Connection) -> Entry:
            account = self._known(name)
            if disabled:
                self._keep_an_admin(account)
                self._end_logins(connection, account)
            rows.change(connection, "account", account.id, is_disabled=disabled)
            done = "account disabled" if disabled else "account enabled"
            return Entry(by, done, f"account {account.name}")

        self._change(change)

    def remove(self, name: str, *, by: str) -> None:
        """Remove an account and its log-ins. What it did stays in the audit."""

        def change(connection: Connection) -> Entry:
            account = self._known(name)
            self._keep_an_admin(account)
            self._end_logins(connection, account)
            rows.remove(connection, "account", id=account.id)
            return Entry(by, "account removed", f"account {account.name}", old={"role": account.role.word})

        self._change(change)

    # Tokens --------------------------------------------------------------------------------------------------------

    def add_token(
        self,
        name: str,
        role: Role,
        *,
        by: str,
        sends: bool = False,
        station: str | None = None,
        expires: int | None = None,
    ) -> str:
        """A new token of a program. Returns its secret, which is stored nowhere. `expires`: microseconds UTC."""
        name, secret = clean_name(name), hashing.new_secret(hashing.TOKEN_PREFIX)
        about = {"role": int(role), "sends": sends, "station": station, "expires": expires}

        def change(connection: Connection) -> Entry:
            if any(token.name == name for token in self._tokens.values()):
                raise UsageError(f"there is a token {name!r} already: choose another name, or revoke it")
            if role is Role.ADMIN:
                raise UsageError("a token cannot have the role admin: accounts are kept by people")
            if expires is not None and expires <= self.clock():
                raise UsageError("the token would have expired already: give a later time")
            values = {**about, "name": name, "created": self.clock(), "created_by": by}
            rows.add(connection, "api_token", **values, secret_hash=hashing.digest(secret))
            return Entry(by, "token added", f"token {name}", new={**about, "role": role.word})

        self._change(change)
        return secret

    def revoke(self, name: str, *, by: str) -> None:
        """Refuse a token from now on."""
        name = clean_name(name)

        def change(connection: Connection) -> Entry:
            token = next((each for each in self._tokens.values() if each.name == name), None)
            if token is None:
                known = ", ".join(each.name for each in self.tokens) or "none"
                raise UsageError(f"there is no token {name!r}; there are: {known}")
            rows.remove(connection, "api_token", id=token.id)
            return Entry(by, "token revoked", f"token {name}")

        self._change(change)

    # Log-ins -------------------------------------------------------------------------------------------------------

    def add_login(self, account: Account, secret_hash: str, entry: Entry) -> None:
        """Store a log-in of a checked account, with its row of the audit."""
        now = self.clock()

        def change(connection: Connection) -> Entry:
            found = self._people.get(account.id)
            if found is None or found.is_disabled or found.password_hash != account.password_hash:
                raise UsageError(f"account {account.name} was changed meanwhile: try again")
            values = {"account_id": account.id, "created": now, "seen": now}
            rows.add(connection, "login", **values, secret_hash=secret_hash)
            return entry

        self._change(change)

    def end_login(self, login: Login, entry: Entry | None = None) -> None:
        """Forget a log-in."""
        self.logins.pop(login.secret_hash, None)

        def change(connection: Connection) -> Entry | None:
            rows.remove(connection, "login", id=login.id)
            return entry

        self._change(change)

    def store_seen(self, login: Login) -> None:
        """Note in the database when a person last did something; waits for nothing."""
        login.stored_seen = seen = login.seen
        self._store.write(lambda connection: rows.change(connection, "login", login.id, seen=seen))

    def note(self, entry: Entry) -> None:
        """Add a row to the audit; waits for nothing."""
        self._store.audit(entry)

    # Inside --------------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> Account:
        account = self.named(name)
        if account is None:
            known = ", ".join(each.name for each in self.people) or "none"
            raise UsageError(f"there is no account {name[:100]!r}; there are: {known}")
        return account

    def _keep_an_admin(self, account: Account) -> None:
        admins = [each for each in self._people.values() if each.role is Role.ADMIN and not each.is_disabled]
        if admins == [account]:
            raise UsageError(f"{account.name} is the last administrator: make another one first")

    @staticmethod
    def _end_logins(connection: Connection, account: Account) -> None:
        rows.remove(connection, "login", account_id=account.id)

    def _change(self, change: Callable[[Connection], Entry | None]) -> None:
        """Run `change` on the rows as they are now, with its row of the audit in one transaction; take over what is stored then.

        `change` is called in the thread that commits, after this object has taken over what other processes changed.
        """

        def both(connection: Connection) -> State:
            hold(connection)
            was_open, state = not self._were_required, read_all(connection)
            self._take(state)
            if was_open and (state.people or state.tokens):
                raise UsageError("accounts were made on another line meanwhile: log in and try again")
            entry = change(connection)
            if entry is not None:
                append(connection, entry, self.clock())
            return read_all(connection)

        with self._changing:
            self._take(self._store.write(both).result(STORED_WITHIN))

    def _take(self, state: State) -> None:
        logins = {}
        for row in state.logins:
            known = self.logins.get(row["secret_hash"]) or Login(**row, stored_seen=row["seen"])
            known.seen = max(known.seen, row["seen"])
            logins[known.secret_hash] = known
        self._people = {account.id: account for account in state.people}
        self._tokens = {token.secret_hash: token for token in state.tokens}
        self.logins = logins
        self._were_required = self._were_required or bool(state.people or state.tokens)

    def _follow(self) -> None:
        while not self._ending.wait(READ_SECONDS):
            if self._store.spooling:  # the last known state counts until the database is back
                continue
            try:
                self.look()
                self._problem = ""
            except Exception as error:
                if str(error) != self._problem:
                    LOG.error("accounts and tokens are as they were last read: %s", error)
                self._problem = str(error)


def read(connection: Connection) -> tuple[list[Account], list[Token]]:
    """Accounts and tokens of a database, by name."""
    people = [Account(**_typed(row)) for row in rows.find(connection, "account")]
    tokens = [Token(**_typed(row)) for row in rows.find(connection, "api_token")]
    return sorted(people, key=lambda each: each.name), sorted(tokens, key=lambda each: each.name)


def read_all(connection: Connection) -> State:
    """Accounts, tokens and log-ins of a database."""
    return State(*read(connection), rows.find(connection, "login"))


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "role": Role(row["role"])}
