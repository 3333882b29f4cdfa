"""Encryption of the server, and which clients get a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole

from andon.line.opcua import certificates


async def secure(server: Server, folder: Path, *, unencrypted: bool) -> None:
    """Let trusted clients connect with Basic256Sha256, signed and encrypted; `unencrypted`: others without encryption too."""
    key, certificate = certificates.own(folder)
    await server.set_application_uri(certificates.application_uri())
    await server.load_certificate(certificate)
    await server.load_private_key(key)
    policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    if unencrypted:
        policies.append(ua.SecurityPolicyType.NoSecurity)
    server.set_security_policy(policies)
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    server.iserver.user_manager = Sessions(certificates.Clients(folder), unencrypted)


class Sessions:
    """Gives sessions without the right to change nodes; a user manager of asyncua."""

    def __init__(self, clients: certificates.Clients, unencrypted: bool) -> None:
        self._clients, self._unencrypted = clients, unencrypted

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> User | None:
        """The user of a session; None where it is refused. `certificate`: proved by its key; none without encryption."""
        accepted = self._clients.accept(certificate) if certificate else self._unencrypted
        return User(role=UserRole.User) if accepted else None
