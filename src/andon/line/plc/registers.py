"""The register map between a PLC and one station, and its coding in 16-bit words.

    words = encode(Results(status=Status.RESULTS_VALID, verdict=Verdict.OK, trigger_no=7))
    is_good(words, trigger_no=7)                # True

Words are big-endian as Modbus sends them; numbers of two words have the high word first, texts the first character in the
high byte. `COMMANDS` and `RESULTS` are the map: docs/plc.md prints them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Any, NamedTuple

from andon.line.verdicts import Verdict

SCHEMA_VERSION = 1
"""Of this map; it changes when a field moves or changes its meaning."""
LARGEST_WORD, LARGEST_LONG = 0xFFFF, 0xFFFFFFFF


class Command(IntFlag):
    """Bits that the PLC writes."""

    ENABLE = 1 << 0
    TRIGGER = 1 << 1
    RESULTS_ACK = 1 << 2
    SET_RECIPE = 1 << 3
    CLEAR_ERROR = 1 << 4
    GO_OFFLINE = 1 << 5
    STOP_ACK = 1 << 6
    START_GOLDEN = 1 << 7


class Status(IntFlag):
    """Bits that the station writes."""

    ONLINE = 1 << 0
    TRIGGER_READY = 1 << 1
    TRIGGER_ACK = 1 << 2
    INSPECTING = 1 << 3
    RESULTS_VALID = 1 << 4
    RESULTS_OVERRUN = 1 << 5
    ERROR = 1 << 6
    STOP_REQUEST = 1 << 7
    CALL = 1 << 8
    RECIPE_ACK = 1 << 9
    RECIPE_FAILED = 1 << 10
    GOLDEN_DUE = 1 << 11
    GOLDEN_FAILED = 1 << 12
    EXPOSURE_DONE = 1 << 13


class Kind(StrEnum):
    """How a value is coded."""

    BITS = "bits"
    WORD = "word"
    LONG = "two words"
    FLOAT = "float32"
    TEXT = "text"


class Field(NamedTuple):
    """One value of the map."""

    name: str
    address: int
    """Of its first word, from the base address of the station."""
    kind: Kind
    words: int
    meaning: str


COMMANDS = (
    Field("bits", 0, Kind.BITS, 1, "command bits"),
    Field(
        "trigger_no", 1, Kind.WORD, 1, "number of the part; another one for each part, 65535 is followed by 0"
    ),
    Field("recipe", 2, Kind.WORD, 1, "code of the recipe for `set_recipe`"),
    Field("heartbeat", 3, Kind.WORD, 1, "any value that changes at least once a second"),
    Field("part_id", 4, Kind.TEXT, 16, "up to 32 ASCII characters, stored with the part"),
    Field("lot", 20, Kind.TEXT, 8, "up to 16 ASCII characters, stored with the part"),
)
"""Holding registers: the PLC writes them."""
RESULTS = (
    Field("status", 0, Kind.BITS, 1, "status bits"),
    Field("verdict", 1, Kind.WORD, 1, "0 none, 1 OK, 2 NG, 3 REVIEW, 4 ERROR; 0 unless `results_valid`"),
    Field("complement", 2, Kind.WORD, 1, "65535 - verdict; the block is not valid where that does not hold"),
    Field("trigger_no", 3, Kind.WORD, 1, "number of the part that the verdict belongs to"),
    Field("inspection", 4, Kind.LONG, 2, "id of its inspection (lowest 32 bits); 0: no row was stored"),
    Field("error", 6, Kind.WORD, 1, "last error until `clear_error`, see below; 0: none"),
    Field("recipe", 7, Kind.WORD, 1, "active recipe; 0: none"),
    Field(
        "threshold_version",
        8,
        Kind.WORD,
        1,
        "version of the thresholds (lowest 16 bits); 0: of the packed model",
    ),
    Field("score", 9, Kind.FLOAT, 2, "score of the part, 1.0 = threshold of the packed model; NaN: none"),
    Field("judge_ms", 11, Kind.WORD, 1, "milliseconds of judging"),
    Field("heartbeat", 12, Kind.WORD, 1, "one more each 100 ms"),
    Field("queue", 13, Kind.WORD, 1, "parts that wait in the station"),
    Field("total", 14, Kind.LONG, 2, "parts of the shift"),
    Field("ng", 16, Kind.LONG, 2, "of these NG"),
    Field("alarms", 18, Kind.WORD, 1, "alarms that are not over"),
    Field("schema_version", 19, Kind.WORD, 1, f"version of this map: {SCHEMA_VERSION}"),
    Field("missed", 20, Kind.WORD, 1, "triggers that came without `trigger_ready`, since the start"),
)
"""Input registers: the station writes them, the PLC reads them in one request."""
COMMAND_WORDS, RESULT_WORDS = 28, 32
"""Lengths of both blocks; words behind the last field are 0."""


NOTHING_SAID, NOTHING_SHOWN = Command(0), Status(0)


@dataclass(frozen=True, slots=True)
class Commands:
    """What the PLC says."""

    bits: Command = NOTHING_SAID
    trigger_no: int = 0
    recipe: int = 0
    heartbeat: int = 0
    part_id: str = ""
    lot: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What the station says. Numbers that do not fit into their words are cut to the lowest bits."""

    status: Status = NOTHING_SHOWN
    verdict: Verdict = Verdict.NONE
    trigger_no: int = 0
    inspection: int = 0
    error: int = 0
    recipe: int = 0
    threshold_version: int = 0
    score: float = math.nan
    judge_ms: int = 0
    heartbeat: int = 0
    queue: int = 0
    total: int = 0
    ng: int = 0
    alarms: int = 0
    missed: int = 0


def encode(results: Results) -> list[int]:
    """The block of the station, `RESULT_WORDS` words."""
    words = [0] * RESULT_WORDS
    fixed = {"complement": LARGEST_WORD - results.verdict, "schema_version": SCHEMA_VERSION}
    for field in RESULTS:
        value = fixed[field.name] if field.name in fixed else getattr(results, field.name)
        words[field.address : field.address + field.words] = _to_words(field, value)
    return words


def decode(words: Sequence[int]) -> Results:
    """Inverse of `encode`. Verdicts that there are not, and those whose complement is wrong, are NONE."""
    values = {field.name: _from_words(field, words) for field in RESULTS}
    del values["schema_version"]
    verdict, complement = values["verdict"], values.pop("complement")
    intact = verdict + complement == LARGEST_WORD and verdict in set(Verdict)
    return Results(
        **{
            **values,
            "verdict": Verdict(verdict) if intact else Verdict.NONE,
            "status": Status(values["status"]),
        }
    )


def encode_commands(commands: Commands) -> list[int]:
    """The block of the PLC, `COMMAND_WORDS` words."""
    words = [0] * COMMAND_WORDS
    for field in COMMANDS:
        words[field.address : field.address + field.words] = _to_words(field, getattr(commands, field.name))
    return words


def decode_commands(words: Sequence[int]) -> Commands:
    """Inverse of `encode_commands`; texts end at the first NUL, and what is not printable ASCII becomes `?`."""
    values = {field.name: _from_words(field, words) for field in COMMANDS}
    return Commands(**{**values, "bits": Command(values["bits"] & max_bits(Command))})


def is_good(words: Sequence[int], trigger_no: int) -> bool:
    """Whether a PLC that triggered `trigger_no` may pass the part. It has to check all of this."""
    found = decode(words)
    return (
        found.verdict is Verdict.OK
        and Status.RESULTS_VALID in found.status
        and found.trigger_no == trigger_no
    )


def max_bits(flags: type[IntFlag]) -> int:
    """All bits of a register of flags."""
    return sum(flags)


def _to_words(field: Field, value: Any) -> list[int]:
    if field.kind is Kind.TEXT:
        raw = value.encode("ascii", "replace")[: 2 * field.words].ljust(2 * field.words, b"\0")
    elif field.kind is Kind.FLOAT:
        raw = struct.pack(">f", _single(value))
    elif field.kind is Kind.LONG:
        raw = struct.pack(">I", value & LARGEST_LONG)
    else:
        raw = struct.pack(">H", value & LARGEST_WORD)
    return list(struct.unpack(f">{field.words}H", raw))


def _from_words(field: Field, words: Sequence[int]) -> Any:
    raw = struct.pack(f">{field.words}H", *words[field.address : field.address + field.words])
    if field.kind is Kind.TEXT:
        text = raw.split(b"\0")[0].decode("ascii", "replace").rstrip(" ")
        return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    return struct.unpack({Kind.FLOAT: ">f", Kind.LONG: ">I"}.get(field.kind, ">H"), raw)[0]


def _single(value: float) -> float:
    """The nearest number that float32 has: its largest where `value` is larger."""
    largest = 3.4e38
    return value if math.isnan(value) else min(max(value, -largest), largest)
