"""Accounts and tokens of a line, and changes of them.

All is held in memory, so that no request waits for the database to be recognised. Each change is one transaction with its
row of the audit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from andon.core.errors import UsageError
from andon.line.accounts import hashing
from andon.line.accounts.records import Account, Login, Token, clean_name
from andon.line.clock import Clock, now_us
from andon.line.roles import Role
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append

T = TypeVar("T")
STORED_WITHIN = 10.0
"""Seconds after which a change that is not stored counts as failed."""


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
        self._take(*store.ask(read))
        for found in store.ask(lambda connection: rows.find(connection, "login")):
            self.logins[found["secret_hash"]] = Login(**found, stored_seen=found["seen"])

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
        with self._changing:
            name = clean_name(name)
            if self.named(name) is not None:
                raise UsageError(f"there is an account {name!r} already: choose another name")
            if not self._people and role is not Role.ADMIN:
                raise UsageError("the first account has to have the role admin: add others after it")
            values = {
                "name": name,
                "role": int(role),
                "password_hash": hashing.hash_password(password),
                "is_disabled": False,
                "created": self.clock(),
            }
            entry = Entry(by, "account added", f"account {name}", new={"role": role.word})
            self._write(entry, lambda connection: rows.add(connection, "account", **values))
            return self._known(name)

    def set_role(self, name: str, role: Role, *, by: str) -> None:
        """Another role, from the next request on."""
        with self._changing:
            account = self._known(name)
            if role is not Role.ADMIN:
                self._keep_an_admin(account)
            old, new = {"role": account.role.word}, {"role": role.word}
            self._set(
                account,
                Entry(by, "account role", f"account {account.name}", old=old, new=new),
                role=int(role),
            )

    def set_password(self, name: str, password: str, *, by: str) -> None:
        """Another password; ends all log-ins of the account."""
        with self._changing:
            account = self._known(name)
            encoded = hashing.hash_password(password)
            entry = Entry(by, "account password", f"account {account.name}")
            self._set(account, entry, ends_logins=True, password_hash=encoded)

    def set_pin(self, name: str, pin: str, *, by: str) -> None:
        """Another PIN or badge number; empty: none."""
        with self._changing:
            account = self._known(name)
            encoded = hashing.hash_pin(pin) if pin else None
            entry = Entry(by, "account pin", f"account {account.name}", new={"has_pin": bool(pin)})
            self._set(account, entry, pin_hash=encoded)

    def set_disabled(self, name: str, disabled: bool, *, by: str) -> None:
        """Refuse the account, or admit it again; disabling ends its log-ins."""
        with self._changing:
            account = self._known(name)
            if disabled:
                self._keep_an_admin(account)
            entry = Entry(
                by, "account disabled" if disabled else "account enabled", f"account {account.name}"
            )
            self._set(account, entry, ends_logins=disabled, is_disabled=disabled)

    def remove(self, name: str, *, by: str) -> None:
        """Remove an account and its log-ins. What it did stays in the audit."""
        with self._changing:
            account = self._known(name)
            self._keep_an_admin(account)
            entry = Entry(by, "account removed", f"account {account.name}", old={"role": account.role.word})

            def work(connection: Connection) -> None:
                rows.remove(connection, "login", account_id=account.id)
                rows.remove(connection, "account", id=account.id)

            self._write(entry, work)
            self._forget_logins(account.id)

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
        with self._changing:
            name = clean_name(name)
            if any(token.name == name for token in self._tokens.values()):
                raise UsageError(f"there is a token {name!r} already: choose another name, or revoke it")
            if role is Role.ADMIN:
                raise UsageError("a token cannot have the role admin: accounts are kept by people")
            if expires is not None and expires <= self.clock():
                raise UsageError("the token would have expired already: give a later time")
            secret = hashing.new_secret(hashing.TOKEN_PREFIX)
            about = {"role": int(role), "sends": sends, "station": station, "expires": expires}
            values = {
                **about,
                "name": name,
                "secret_hash": hashing.digest(secret),
                "created": self.clock(),
                "created_by": by,
            }
            entry = Entry(by, "token added", f"token {name}", new={**about, "role": role.word})
            self._write(entry, lambda connection: rows.add(connection, "api_token", **values))
            return secret

    def revoke(self, name: str, *, by: str) -> None:
        """Refuse a token from now on."""
        with self._changing:
            name = clean_name(name)
            token = next((each for each in self._tokens.values() if each.name == name), None)
            if token is None:
                known = ", ".join(each.name for each in self.tokens) or "none"
                raise UsageError(f"there is no token {name!r}; there are: {known}")
            entry = Entry(by, "token revoked", f"token {name}")
            self._write(entry, lambda connection: rows.remove(connection, "api_token", id=token.id))

    # Log-ins -------------------------------------------------------------------------------------------------------

    def add_login(self, account: Account, secret_hash: str, entry: Entry) -> Login:
        """Store a log-in, with its row of the audit."""
        now = self.clock()
        values = {"account_id": account.id, "secret_hash": secret_hash, "created": now, "seen": now}
        with self._changing:
            id = self._write(entry, lambda connection: rows.add(connection, "login", **values))
            login = self.logins[secret_hash] = Login(id, account.id, secret_hash, now, now, now)
        return login

    def end_login(self, login: Login, entry: Entry | None = None) -> None:
        """Forget a log-in."""
        with self._changing:
            self.logins.pop(login.secret_hash, None)
            self._write(entry, lambda connection: rows.remove(connection, "login", id=login.id))

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

    def _set(self, account: Account, entry: Entry, *, ends_logins: bool = False, **values: Any) -> None:
        def work(connection: Connection) -> None:
            rows.change(connection, "account", account.id, **values)
            if ends_logins:
                rows.remove(connection, "login", account_id=account.id)

        self._write(entry, work)
        if ends_logins:
            self._forget_logins(account.id)

    def _forget_logins(self, account_id: int) -> None:
        for login in [*self.logins.values()]:
            if login.account_id == account_id:
                self.logins.pop(login.secret_hash, None)

    def _write(self, entry: Entry | None, work: Callable[[Connection], T]) -> T:
        """Run `work` with its row of the audit in one transaction; take over what is stored then."""

        def both(connection: Connection) -> tuple[T, list[Account], list[Token]]:
            done = work(connection)
            if entry is not None:
                append(connection, entry, self.clock())
            return done, *read(connection)

        done, people, tokens = self._store.write(both).result(STORED_WITHIN)
        self._take(people, tokens)
        return done

    def _take(self, people: list[Account], tokens: list[Token]) -> None:
        self._people = {account.id: account for account in people}
        self._tokens = {token.secret_hash: token for token in tokens}
        self._were_required = self._were_required or bool(people or tokens)


def read(connection: Connection) -> tuple[list[Account], list[Token]]:
    """Accounts and tokens of a database, by name."""
    people = [Account(**_typed(row)) for row in rows.find(connection, "account")]
    tokens = [Token(**_typed(row)) for row in rows.find(connection, "api_token")]
    return sorted(people, key=lambda each: each.name), sorted(tokens, key=lambda each: each.name)


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "role": Role(row["role"])}
