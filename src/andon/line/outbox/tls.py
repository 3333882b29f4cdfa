"""Encryption of connections to brokers, receivers and mail servers."""

from __future__ import annotations

import ssl
from pathlib import Path

from andon.core.errors import ConfigError


def context(
    what: str, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Checks names and certificates by the authorities in `ca`, or those of the system; shows `certificate`.

    Raises `ConfigError`, which begins with `what`, for a file that cannot be used.
    """
    try:
        made = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"{what}: {ca} holds no certificates ({_why(error)}): give a PEM file") from None
    if certificate is not None:
        try:
            made.load_cert_chain(certificate, key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{what}: {certificate} with its key cannot be used ({_why(error)}): give PEM files without passphrase"
            ) from None
    return made


def _no_passphrase() -> str:
    """Instead of a question at the terminal."""
    raise ValueError("the key has a passphrase")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
