"""Settings of the OPC UA server of a line.

[opcua]
host = "192.168.10.5"
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from andon.line.config import LineConfig


class OpcUaSettings(LineConfig):
    """Where clients connect to, and whether they have to encrypt."""

    host: str = "127.0.0.1"
    """Address that is listened on; `0.0.0.0`: every network of this computer."""
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] = 4840
    """TCP port."""
    unencrypted: bool = False
    """Also answer clients that do not encrypt and that nobody knows; nobody can call methods then."""
