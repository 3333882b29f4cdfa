"""A Modbus master for one station: what a PLC does on the wire."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Self

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from andon.core.errors import AndonError
from andon.line.plc.registers import RESULT_WORDS, Commands, encode_commands


class PlcError(AndonError):
    """The server does not answer, or refuses a request."""


class Master:
    """Reads the block of the station, writes that of the PLC. Connects when it is first used, and again after `drop`.

    All methods raise `PlcError`.
    """

    def __init__(self, host: str, port: int, *, unit: int = 1, base: int = 0, timeout: float = 3.0) -> None:
        self._unit, self._base = unit, base
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # the caller gets each error
        self._client: Any = ModbusTcpClient(host, port=port, timeout=timeout, retries=0)

    def ready(self) -> None:
        """Say at once where nobody listens."""
        self.read()

    def read(self) -> list[int]:
        """The block of the station, in one request."""
        return self._ask("read_input_registers", self._base, count=RESULT_WORDS)

    def write(self, commands: Commands) -> None:
        """The block of the PLC: first everything else, the command bits last."""
        words = encode_commands(commands)
        self._ask("write_registers", self._base + 1, words[1:])
        self._ask("write_register", self._base, words[0])

    def drop(self) -> None:
        """Break the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def _ask(self, operation: str, *arguments: object, **named: object) -> list[int]:
        try:
            if not self._client.connected and not self._client.connect():
                raise PlcError("there is no Modbus server: see host and port")
            answer = getattr(self._client, operation)(*arguments, device_id=self._unit, **named)
        except (ModbusException, OSError) as error:
            with contextlib.suppress(OSError):
                self._client.close()
            raise PlcError(f"the Modbus server does not answer ({error})") from None
        if answer.isError():
            raise PlcError(f"the Modbus server refuses the request ({answer}): see unit and base")
        registers: list[int] = answer.registers
        return registers
