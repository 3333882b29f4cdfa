"""Who a request comes from: log-in by password, cookies, PINs, tokens, names that a proxy vouches for."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
from dataclasses import dataclass

from andon.core.errors import AndonError, UsageError
from andon.line.accounts import hashing
from andon.line.accounts.accounts import Accounts
from andon.line.accounts.attempts import Attempts
from andon.line.accounts.records import Account, Login
from andon.line.clock import DAY, MINUTE
from andon.line.roles import Caller, Role
from andon.line.store.audit import Entry

IDLE = 15 * MINUTE
"""A log-in without an act of its person for this time is locked: it only sees."""
LIFE = 30 * DAY
"""A log-in ends after this time."""
SEEN_STEP = MINUTE
"""How exactly the last act is stored."""
FAILURES_A_MINUTE = 30
"""Failed log-ins of which the audit gets rows; the rest is counted in the next one."""


class LogInFailed(AndonError):  # noqa: N818 (names what happened)
    """Name and password (or PIN) are not admitted. `wait`: seconds before another attempt, 0 where none is needed."""

    def __init__(self, message: str, wait: int = 0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(slots=True)
class _Flood:
    minute: int = 0
    rows: int = 0
    left_out: int = 0


class LogIn:
    """Recognises callers. Any thread may ask."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts, self._clock = accounts, accounts.clock
        self._attempts = Attempts(accounts.clock)
        self._key = secrets.token_bytes(32)
        self._lock, self._flood = threading.Lock(), _Flood()

    def by_password(self, name: str, password: str, address: str) -> str:
        """Log in. Returns the secret of the cookie, a new one each time. Raises `LogInFailed`."""
        account = self._checked(name, password, address, by_pin=False)
        secret = hashing.new_secret()
        entry = Entry(
            account.name, "log-in", f"account {account.name}", account.role.word, new={"address": address}
        )
        try:
            self.accounts.add_login(account, hashing.digest(secret), entry)
        except UsageError as error:
            raise LogInFailed(str(error)) from None
        self._end_old()
        return secret

    def check_own(self, caller: Caller, password: str, address: str) -> None:
        """Whether the caller knows the password of the own account. Raises `LogInFailed`."""
        self._checked(caller.name, password, address, by_pin=False)

    def by_pin(self, name: str, pin: str, address: str) -> Caller:
        """A person for one act, by PIN or badge number. Raises `LogInFailed`."""
        account = self._checked(name, pin, address, by_pin=True)
        return Caller(account.name, account.role, origin=("pin", account.name))

    def by_cookie(self, secret: str, *, is_act: bool) -> Caller | None:
        """Who logged in with this cookie; None where nobody did. `is_act`: the person does something now."""
        return self._of_login(hashing.digest(secret), is_act=is_act)

    def by_token(self, secret: str) -> Caller | None:
        """The program that has this token; None where it is unknown, revoked or expired."""
        return self._of_token(hashing.digest(secret))

    def by_proxy(self, name: str) -> Caller | None:
        """The account that a proxy vouches for; None where there is none."""
        account = self.accounts.named(name)
        if account is None or account.is_disabled:
            return None
        origin = ("proxy", account.name)
        return Caller(account.name, account.role, csrf=self._csrf(origin), origin=origin)

    def log_out(self, secret: str) -> None:
        """End the log-in of this cookie."""
        login = self.accounts.logins.get(hashing.digest(secret))
        account = None if login is None else self.accounts.with_id(login.account_id)
        if login is not None:
            name = "" if account is None else account.name
            self.accounts.end_login(login, Entry(name, "log-out", f"account {name}"))

    def admits(self, caller: Caller) -> bool:
        """Whether a caller who was recognised earlier would be recognised now."""
        if caller.origin is None:
            return not self.accounts.are_required
        kind, key = caller.origin
        again = {"login": self._of_login, "token": self._of_token, "proxy": self.by_proxy}[kind](key)
        return again is not None

    # Inside --------------------------------------------------------------------------------------------------------

    def _of_login(self, secret_hash: str, *, is_act: bool = False) -> Caller | None:
        login = self.accounts.logins.get(secret_hash)
        account = None if login is None else self.accounts.with_id(login.account_id)
        now = self._clock()
        if login is None or account is None or account.is_disabled or now - login.created > LIFE:
            return None
        is_locked = now - login.seen > IDLE
        if is_act and not is_locked:
            self._saw(login, now)
        role = min(account.role, Role.VIEWER) if is_locked else account.role
        origin = ("login", secret_hash)
        return Caller(account.name, role, is_locked=is_locked, csrf=self._csrf(origin), origin=origin)

    def _of_token(self, secret_hash: str) -> Caller | None:
        token = self.accounts.token(secret_hash)
        if token is None or (token.expires is not None and token.expires <= self._clock()):
            return None
        origin = ("token", secret_hash)
        return Caller(f"token {token.name}", token.role, token.station, token.sends, origin=origin)

    def _checked(self, name: str, secret: str, address: str, *, by_pin: bool) -> Account:
        """The account, where the secret is right. Takes as long for a name that does not exist."""
        account = self.accounts.named(name)
        key = account.name if account is not None else name.strip().lower()[:100]
        if by_pin:
            key = f"pin {key}"  # wrong PINs do not keep the password from being tried
        wait = self._attempts.begin(key, address_key(address))
        if wait:
            raise LogInFailed(f"too many failed attempts: wait {wait} s and try again", wait)
        encoded = None
        if account is not None and not account.is_disabled:
            encoded = account.pin_hash if by_pin else account.password_hash
        if not hashing.matches(encoded, secret) or account is None:
            self._note_failure(account, address, by_pin)
            raise LogInFailed(f"name and {'PIN' if by_pin else 'password'} do not belong together: try again")
        self._attempts.succeeded(key, address_key(address))
        return account

    def _note_failure(self, account: Account | None, address: str, by_pin: bool) -> None:
        """One row of the audit, up to a number a minute. A name without account may be a password and is not kept."""
        with self._lock:
            minute, flood = self._clock() // MINUTE, self._flood
            if flood.minute != minute:
                flood.minute, flood.rows = minute, 0
            if flood.rows >= FAILURES_A_MINUTE:
                flood.left_out += 1
                return
            flood.rows += 1
            left_out, flood.left_out = flood.left_out, 0
        about = f"account {account.name}" if account is not None else "an unknown name"
        new = {"address": address, "not_listed": left_out} if left_out else {"address": address}
        self.accounts.note(Entry("system", "PIN failed" if by_pin else "log-in failed", about, new=new))

    def _saw(self, login: Login, now: int) -> None:
        login.seen = now
        if now - login.stored_seen >= SEEN_STEP:
            self.accounts.store_seen(login)

    def _end_old(self) -> None:
        now = self._clock()
        for login in [*self.accounts.logins.values()]:
            if now - login.created > LIFE:
                self.accounts.end_login(login)

    def _csrf(self, origin: tuple[str, str]) -> str:
        return hmac.new(self._key, "\0".join(origin).encode(), "sha256").hexdigest()


def address_key(address: str) -> str:
    """What attempts are counted by: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)
