"""Settings of the PLC of a station, and of the Modbus server of a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from andon.line.config import HOUR_MS, LineConfig, first_twice
from andon.line.plc.registers import COMMAND_WORDS, RESULT_WORDS

Milliseconds = Annotated[int, Field(ge=0, le=HOUR_MS, strict=True)]
STANDARD_PORT = 502


class ModbusSettings(LineConfig):
    """Where PLCs connect to. There is no log-in in Modbus: keep the port inside the network of the machine."""

    host: str = "127.0.0.1"
    """Address that is listened on; `0.0.0.0`: every network of this computer."""
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 5020
    """TCP port; the standard one, 502, needs rights of an administrator on Linux."""


class PlcSettings(LineConfig):
    """The PLC of one station."""

    unit: Annotated[int, Field(ge=1, le=247, strict=True)] = 1
    """Modbus unit of the station, each has its own; with `connect` that of the PLC."""
    base: Annotated[int, Field(ge=0, le=65488, multiple_of=16, strict=True)] = 0
    """Address of the first register, and of the first coil; a multiple of 16. Not with `connect`."""
    connect: str = ""
    """`HOST` or `HOST:PORT` of a PLC that is the Modbus server, port 502 by default; empty: PLCs connect to andon."""
    command: Annotated[int, Field(ge=0, le=65536 - COMMAND_WORDS, strict=True)] = 0
    """With `connect`: address of the first holding register that the PLC writes (28)."""
    result: Annotated[int, Field(ge=0, le=65536 - RESULT_WORDS, strict=True)] = 32
    """With `connect`: address of the first holding register that andon writes (32)."""
    ack_ms: Milliseconds = 0
    """Milliseconds in which the PLC acknowledges a result; after them overrun. 0: `cycle_s`."""
    image_ms: Milliseconds = 0
    """Milliseconds from trigger to image; without one the part is ERROR. 0: `cycle_s`."""

    @field_validator("connect")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        if text:
            try:
                found = urlsplit(f"//{text}")
                is_address = bool(found.hostname) and found.port != 0 and found.netloc == text
            except ValueError:
                is_address = False
            if not is_address or "@" in text:
                raise ValueError(f"{text!r} is no HOST or HOST:PORT, such as 192.168.10.20:502")
        return text

    @model_validator(mode="after")
    def _fit(self) -> Self:
        given = self.model_fields_set
        if self.connect and "base" in given:
            raise ValueError("base does not go with connect: use command and result")
        if not self.connect and (only := sorted(given & {"command", "result"})):
            raise ValueError(f"{' and '.join(only)} needs connect: add it, or use base")
        if self.connect and set(self.read_by_andon) & set(self.written_by_andon):
            raise ValueError("the registers from command and from result overlap: move one of both")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a PLC that is the server."""
        found = urlsplit(f"//{self.connect}")
        return found.hostname or "", found.port or STANDARD_PORT

    @property
    def read_by_andon(self) -> range:
        """Holding registers of a PLC that is the server which the PLC writes."""
        return range(self.command, self.command + COMMAND_WORDS)

    @property
    def written_by_andon(self) -> range:
        """Those which the line writes."""
        return range(self.result, self.result + RESULT_WORDS)

    def clashes_with(self, other: PlcSettings) -> bool:
        """Whether both use registers of the same PLC that is the server, and one of them writes them."""
        if not self.connect or (self.address, self.unit) != (other.address, other.unit):
            return False
        mine, yours = set(self.written_by_andon), set(other.written_by_andon)
        return bool(mine & yours or mine & set(other.read_by_andon) or yours & set(self.read_by_andon))


def shared(plcs: Sequence[PlcSettings]) -> str:
    """What two stations have in common that each needs alone; empty where nothing is."""
    if unit := first_twice(str(plc.unit) for plc in plcs if not plc.connect):
        return f"the Modbus unit {unit}"
    clash = next((one for one, other in combinations(plcs, 2) if one.clashes_with(other)), None)
    return f"registers of the PLC at {clash.connect}" if clash else ""
