"""The certificate of the server, made once, and those of clients that are trusted.

Below `opcua` in the data folder: `server.pem` (private key), `server.der`, `trusted/` (certificates of clients, put there by a
person) and `rejected/` (the last ones that were refused).
"""

from __future__ import annotations

import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from asyncua.crypto import cert_gen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from andon.core.errors import OutputError
from andon.core.files import write_bytes, writing

LOG = logging.getLogger(__name__)

DAYS = 3650
"""Validity of a generated certificate; clients have to trust each new one."""
REJECTED = 20
"""Refused certificates that are kept."""


def application_uri() -> str:
    """Name of this server, as its certificate has it."""
    return f"urn:{socket.gethostname()}:andon"


def own(folder: Path) -> tuple[Path, Path]:
    """Files of private key (PEM) and certificate (DER) in `folder`, made where they are missing or do not belong together.

    Raises `OSError`, or `OutputError` where they cannot be written.
    """
    key, certificate = folder / "server.pem", folder / "server.der"
    secret = _private_key(key)
    if secret is not None and _is_of(secret, certificate):
        return key, certificate
    folder.mkdir(parents=True, exist_ok=True)
    _put_aside(certificate)
    if secret is None:
        _put_aside(key)
        secret = cert_gen.generate_private_key()
        with writing(key) as part:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(cert_gen.dump_private_key_as_pem(secret))
    made = cert_gen.generate_self_signed_app_certificate(
        secret,
        "andon",
        {},
        [x509.UniformResourceIdentifier(application_uri()), x509.DNSName(socket.gethostname())],
        [ExtendedKeyUsageOID.SERVER_AUTH],
        days=DAYS,
    )
    write_bytes(certificate, made.public_bytes(Encoding.DER))
    LOG.info("OPC UA: made %s; clients have to trust it", certificate)
    return key, certificate


def _put_aside(file: Path) -> None:
    """Keep a file that cannot be used under another name; it may be one that a person has put there."""
    if file.exists():
        kept = file.with_name(f"{file.name}.unusable")
        LOG.warning("OPC UA: %s cannot be used, it is kept as %s", file, kept.name)
        file.replace(kept)


def _private_key(file: Path) -> RSAPrivateKey | None:
    """None where the file is missing or holds no whole key without a password."""
    try:
        found = load_pem_private_key(file.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return found if isinstance(found, RSAPrivateKey) else None


def _is_of(secret: RSAPrivateKey, file: Path) -> bool:
    """Whether a file holds a whole certificate (DER) of this key."""
    try:
        found = x509.load_der_x509_certificate(file.read_bytes()).public_key()
    except (FileNotFoundError, ValueError, UnsupportedAlgorithm):
        return False
    return found == secret.public_key()


class Clients:
    """Which clients may connect: those whose certificate lies in `trusted`."""

    def __init__(self, folder: Path) -> None:
        self._trusted, self._rejected = folder / "trusted", folder / "rejected"
        for each in (self._trusted, self._rejected):
            each.mkdir(parents=True, exist_ok=True)

    def accept(self, certificate: bytes) -> bool:
        """Whether a certificate (DER) is trusted and in its time. Others are kept in `rejected`, from where they can be moved."""
        try:
            shown = x509.load_der_x509_certificate(certificate)
        except ValueError:
            return False
        now = datetime.now(UTC)
        in_time = shown.not_valid_before_utc <= now <= shown.not_valid_after_utc
        if in_time and any(_der(file) == certificate for file in self._trusted.iterdir()):
            return True
        name = f"{shown.fingerprint(SHA256()).hex()}.der"
        why = "is not trusted" if in_time else "is out of its time"
        LOG.warning("OPC UA: refused a client, its certificate %s: %s", why, self._rejected / name)
        self._keep(name, certificate)
        return False

    def _keep(self, name: str, certificate: bytes) -> None:
        try:
            write_bytes(self._rejected / name, certificate)
            kept = sorted(self._rejected.iterdir(), key=lambda file: file.stat().st_mtime_ns)
            for old in kept[:-REJECTED]:
                old.unlink()
        except (OSError, OutputError) as error:
            LOG.warning("OPC UA: a refused certificate was not kept (%s)", error)


def _der(file: Path) -> bytes | None:
    """A certificate in DER, from DER or PEM; None for any other file."""
    try:
        raw = file.read_bytes()
        pem = raw.lstrip().startswith(b"-----BEGIN")
        return x509.load_pem_x509_certificate(raw).public_bytes(Encoding.DER) if pem else raw
    except (OSError, ValueError):
        return None
