"""Settings of the PLC of a station, and of the Modbus server of a line."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from andon.line.config import LineConfig

Milliseconds = Annotated[int, Field(ge=0, strict=True)]


class ModbusSettings(LineConfig):
    """Where PLCs connect to. There is no log-in in Modbus: keep the port inside the network of the machine."""

    host: str = "127.0.0.1"
    """Address that is listened on; `0.0.0.0`: every network of this computer."""
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 5020
    """TCP port; the standard one, 502, needs rights of an administrator on Linux."""


class PlcSettings(LineConfig):
    """The PLC of one station."""

    unit: Annotated[int, Field(ge=1, le=247, strict=True)] = 1
    """Modbus unit of the station; each has its own."""
    base: Annotated[int, Field(ge=0, le=65488, multiple_of=16, strict=True)] = 0
    """Address of the first register, and of the first coil; a multiple of 16."""
    ack_ms: Milliseconds = 0
    """Milliseconds in which the PLC acknowledges a result; after them overrun. 0: `cycle_s`."""
    image_ms: Milliseconds = 0
    """Milliseconds from trigger to image; without one the part is ERROR. 0: `cycle_s`."""
