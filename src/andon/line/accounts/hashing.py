"""Hashes of secrets: argon2id for what people remember, SHA-256 for 256 random bits. argon2 is imported here."""

from __future__ import annotations

import hashlib
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from andon.core.errors import UsageError

HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
"""RFC 9106, second recommended option, on one core: the others judge parts."""
PASSWORD_LEAST, PASSWORD_MOST = 10, 200
PIN_LEAST, PIN_MOST = 6, 64
TOKEN_PREFIX = "andon_"
"""By which scanners of source code recognise a token."""


def hash_password(password: str) -> str:
    """Encoded hash. Raises `UsageError` for a password that is too short or too long."""
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise UsageError(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters: choose another")
    return HASHER.hash(password)


def hash_pin(pin: str) -> str:
    """Encoded hash. Raises `UsageError` for a PIN or badge number that is too short or too long."""
    if not (PIN_LEAST <= len(pin) <= PIN_MOST and pin.isascii() and pin.isalnum()):
        raise UsageError(
            f"a PIN or badge number has {PIN_LEAST} to {PIN_MOST} letters or digits: choose another"
        )
    return HASHER.hash(pin)


def matches(encoded: str | None, secret: str) -> bool:
    """Whether `secret` belongs to the hash; where there is none, the answer takes as long and is False."""
    try:
        HASHER.verify(encoded or _nobody(), secret[:PASSWORD_MOST])
    except VerificationError:
        return False
    return encoded is not None


def new_secret(prefix: str = "") -> str:
    """256 random bits as text."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """SHA-256 of a secret of `new_secret`, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


_NOBODY: dict[PasswordHasher, str] = {}


def _nobody() -> str:
    """Hash of a password that nobody knows."""
    if HASHER not in _NOBODY:
        _NOBODY[HASHER] = HASHER.hash(secrets.token_urlsafe(32))
    return _NOBODY[HASHER]
