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
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

LOG = logging.getLogger(__name__)

DAYS = 3650
"""Validity of a generated certificate; clients have to trust each new one."""
REJECTED = 20
"""Refused certificates that are kept."""


def application_uri() -> str:
    """Name of this server, as its certificate has it."""
    return f"urn:{socket.gethostname()}:andon"


def own(folder: Path) -> tuple[Path, Path]:
    """Files of private key (PEM) and certificate (DER) in `folder`, made when one is missing. Raises `OSError`."""
    key, certificate = folder / "server.pem", folder / "server.der"
    if key.is_file() and certificate.is_file():
        return key, certificate
    folder.mkdir(parents=True, exist_ok=True)
    secret = cert_gen.generate_private_key()
    made = cert_gen.generate_self_signed_app_certificate(
        secret,
        "andon",
        {},
        [x509.UniformResourceIdentifier(application_uri()), x509.DNSName(socket.gethostname())],
        [ExtendedKeyUsageOID.SERVER_AUTH],
        days=DAYS,
    )
    key.unlink(missing_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(cert_gen.dump_private_key_as_pem(secret))
    certificate.write_bytes(made.public_bytes(Encoding.DER))
    LOG.info("OPC UA: made %s; clients have to trust it", certificate)
    return key, certificate


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
            (self._rejected / name).write_bytes(certificate)
            kept = sorted(self._rejected.iterdir(), key=lambda file: file.stat().st_mtime_ns)
            for old in kept[:-REJECTED]:
                old.unlink()
        except OSError as error:
            LOG.warning("OPC UA: a refused certificate was not kept (%s)", error)


def _der(file: Path) -> bytes | None:
    """A certificate in DER, from DER or PEM; None for any other file."""
    try:
        raw = file.read_bytes()
        pem = raw.lstrip().startswith(b"-----BEGIN")
        return x509.load_pem_x509_certificate(raw).public_bytes(Encoding.DER) if pem else raw
    except (OSError, ValueError):
        return None
