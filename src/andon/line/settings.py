"""Settings of a line: from a TOML file, from options, or both.

    [stations.press]
    model = "part.andon"            # paths are relative to the file
    cycle_s = 2.0
    folder = { path = "inbox" }
    [[stations.press.rules]]
    kind = "in_a_row"
    k = 4

Everything that cannot work is a `ConfigError` that names file and key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from andon.core.errors import ConfigError, UsageError
from andon.line.access import AccessSettings
from andon.line.cameras.settings import REPLAYS, CameraSettings
from andon.line.config import DAY_SECONDS, HOUR_MS, Days, LineConfig, count, first_twice, joined, table
from andon.line.drift.settings import DriftSettings
from andon.line.golden.settings import GoldenSettings
from andon.line.opcua.settings import OpcUaSettings
from andon.line.outbox.settings import EmailSettings, MqttSettings, WebhookSettings, read_tables
from andon.line.plc.settings import ModbusSettings, PlcSettings, shared
from andon.line.review.settings import ReviewSettings
from andon.line.rules import DEFAULT_RULES, AnyRule, Rule, parse_rule

T = TypeVar("T")
GROUPS = {"part_id", "lot"}
"""What `FolderSettings.names` can read out of a file name."""
LARGEST_THRESHOLD = 1000
"""In thresholds of the packed model."""
Threshold = Annotated[float, Field(gt=0.0, le=LARGEST_THRESHOLD)]
WEEK_MINUTES = 10_080.0
Milliseconds = Annotated[int, count(HOUR_MS)]
"""At most an hour."""


class ThresholdSettings(LineConfig):
    """Two thresholds on the displayed scale, on which 1.0 is the threshold of the packed model."""

    accept: Threshold = 1.0
    """OK below this score."""
    reject: Threshold = 1.0
    """NG at or above this score; REVIEW in between."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.accept > self.reject:
            raise ValueError(f"accept={self.accept:g} is above reject={self.reject:g}: exchange them")
        return self


class FolderSettings(LineConfig):
    """A folder from which a station takes images."""

    path: Path
    """The folder; it has to exist."""
    stable_ms: Milliseconds = 300
    """Milliseconds for which size and time of a file have to stay the same; 1000 for network shares."""
    poll_ms: Milliseconds = 1000
    """Milliseconds between two looks into the folder; 2000 for network shares."""
    ready_file: bool = False
    """A file is complete when `NAME.done` lies beside it."""
    order: Literal["name", "time"] = "name"
    """Which file comes first."""
    after: Literal["move", "delete", "keep"] = "move"
    """What is done with a judged file; `move`: into `done/YYYY-MM-DD/` of the folder."""
    names: str = ""
    """Regular expression with the groups `part_id` and `lot`, searched in the file name; without it the name is the part id."""
    backlog: Annotated[int, count(1_000_000)] = 100
    """Waiting files above which an alarm is raised."""

    @field_validator("names")
    @classmethod
    def _is_a_pattern(cls, names: str) -> str:
        try:
            groups = set(re.compile(names).groupindex)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        if names and (not groups or groups - GROUPS):
            raise ValueError("needs named groups, (?P<part_id>...) or (?P<lot>...), and no others")
        return names


class StationSettings(LineConfig):
    """One station: which packed model judges, how fast, from where, and when the line stops."""

    name: str
    """Unique on the line; letters, digits, `-` and `_`, at most 40: it is part of addresses and folder names."""
    model: Path
    """Packed file (`andon pack`)."""
    recipes: dict[str, Path] = Field(default_factory=dict)
    """Packed files by code, between which the station changes at run time; `model` judges until the first change."""
    cycle_s: Annotated[float, Field(gt=0.0, le=DAY_SECONDS)] = 5.0
    """Seconds between two parts; a part without an answer after this time is ERROR."""
    queue: Annotated[int, count(10_000)] = 4
    """Parts that may wait; one more is ERROR (overrun)."""
    thresholds: ThresholdSettings | None = None
    """Accept and reject; by default those of the packed model."""
    folder: FolderSettings | None = None
    """Where images are taken from; by default from REST alone."""
    camera: CameraSettings | None = None
    """The camera that takes the images; by default they come by REST or folder."""
    plc: PlcSettings | None = None
    """A PLC that triggers the parts; by default none."""
    rules: tuple[AnyRule, ...] = DEFAULT_RULES
    """Stop rules."""
    golden: GoldenSettings = GoldenSettings()
    """When golden parts have to be judged."""
    review: ReviewSettings = ReviewSettings()
    """Which parts people look at."""
    keep_images: tuple[Literal["OK", "NG", "REVIEW", "ERROR"], ...] = ("OK", "NG", "REVIEW", "ERROR")
    """Verdicts of which images are stored."""
    on_full_disk: Literal["error", "ok_without_image"] = "error"
    """Where the disk has no room for an image: ERROR, or the verdict without its image."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
            raise ValueError("has to be 1 to 40 letters a-z, digits, - and _, the first a letter or digit")
        return name

    @field_validator("recipes")
    @classmethod
    def _are_codes(cls, recipes: dict[str, Path]) -> dict[str, Path]:
        for code in recipes:
            if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,60}", code) or code != code.strip():
                raise ValueError(f"code {code!r} has to be 1 to 60 characters without spaces around them")
        return recipes

    @model_validator(mode="after")
    def _rules_differ(self) -> Self:
        if twice := _same_rule(self.rules):
            raise ValueError(twice)
        return self


class EscalationSettings(LineConfig):
    """What happens while nobody comes."""

    minutes: tuple[Annotated[float, Field(gt=0.0, le=WEEK_MINUTES)], ...] = (5.0, 15.0, 30.0)
    """Minutes without acknowledgement after which an alarm is announced again, one level higher each time."""
    call_stops_after_s: Annotated[float, Field(ge=0.0, le=DAY_SECONDS)] = 0.0
    """Seconds after which a call that nobody acknowledged stops the line; 0: never."""

    @field_validator("minutes")
    @classmethod
    def _ascend(cls, minutes: tuple[float, ...]) -> tuple[float, ...]:
        if list(minutes) != sorted(set(minutes)):
            raise ValueError("has to ascend, e.g. [5, 15, 30]")
        return minutes


class RetentionSettings(LineConfig):
    """What is kept and for how long."""

    ok_days: Days = 30.0
    """Days for which images of parts that passed are kept."""
    bad_days: Days = 365.0
    """Days for which images of all other parts are kept."""
    row_days: Days = 3650.0
    """Days for which verdicts are kept; their images go at the latest with them."""
    image_gb: Annotated[float, Field(ge=0.0, le=1_000_000.0)] = 0.0
    """Largest size of all images and maps in GB (10^9 bytes), the oldest of passed parts go first; 0: no limit."""
    keep_ng: Annotated[int, count(10_000_000)] = 1000
    """Newest parts that did not pass whose images stay."""


class LineSettings(LineConfig):
    """All stations of one process, and where their verdicts are kept."""

    name: str = "line"
    """Shown on the page; unique among the lines of a database."""
    data: Path = Path("andon-data")
    """Folder of database, images and backups; made when missing."""
    database: str = ""
    """URL of a PostgreSQL database; empty: SQLite in `data`."""
    address: str = Field("", pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?)?$")
    """Where others reach the pages of this line, e.g. `http://line-3:8000`: links of the plant page."""
    recipe_memory_mb: Annotated[int, count(1_000_000)] = 500
    """MB (10^6 bytes) of packed files of recipes that stay open while others are in use; the least recently used are closed."""
    durability: Literal["full", "relaxed"] = "full"
    """`relaxed`: the last verdicts before a power failure may be lost."""
    second_person: bool = False
    """New thresholds, and candidates, of a running line need the approval of a second person."""
    escalation: EscalationSettings = EscalationSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: bool = False
    """Serve metrics for Prometheus at `/metrics`."""
    mqtt: MqttSettings | None = None
    webhooks: tuple[WebhookSettings, ...] = ()
    email: EmailSettings | None = None
    access: AccessSettings = AccessSettings()
    modbus: ModbusSettings = ModbusSettings()
    opcua: OpcUaSettings | None = None
    """The server of OPC UA; by default none."""
    drift: DriftSettings = DriftSettings()
    stations: tuple[StationSettings, ...] = ()

    @classmethod
    def load(
        cls,
        file: Path | None = None,
        *,
        stations: Iterable[str] = (),
        changes: Mapping[str, Any] | None = None,
        plant: bool = False,
    ) -> Self:
        """Settings from a TOML file, from options `NAME=FILE.andon`, or both; `changes` replace single values.

        `plant`: without stations, named `plant` unless the file says otherwise; shows those of other lines.

        Raises `ConfigError` for unknown keys, bad numbers, missing files and folders, names used twice, no station.
        """
        values, found = ({}, []) if file is None else _read(file)
        found += [_from_option(option) for option in stations]
        where = "" if file is None else str(file)
        named = {"name": "plant"} if plant else {}
        settings = cls.parse({**named, **values, **(changes or {}), "stations": tuple(found)}, where=where)
        if plant:
            _check_plant(settings, where or "the options")
        else:
            _check(settings, where or "the options")
        return settings


def of_station(found: Mapping[str, T], station: str) -> T:
    """What belongs to a station. Raises `UsageError` for one that is not there."""
    if station not in found:
        raise UsageError(f"there is no station {station!r}: give one of {', '.join(found)}")
    return found[station]


def check_rules(rules: Iterable[Rule], *, where: str) -> None:
    """Raises `ConfigError` where two rules have the same title."""
    if twice := _same_rule(rules):
        raise ConfigError(f"{where}: {twice}")


def _same_rule(rules: Iterable[Rule]) -> str:
    """What is wrong with rules of which two have the same title; empty where none have."""
    twice = first_twice(rule.title for rule in rules)
    return f"rule {twice!r} is there twice: remove one" if twice else ""


def _read(file: Path) -> tuple[dict[str, Any], list[StationSettings]]:
    """Plain values without stations, and the stations; paths are joined with the folder of `file`."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): give an existing TOML file") from None
    except RecursionError:
        raise ConfigError(f"{file} is not valid TOML (it is nested too deeply): correct it") from None
    except ValueError as error:  # of the format, the encoding, or a number of thousands of digits
        raise ConfigError(f"{file} is not valid TOML ({error}): correct it") from None
    tables = values.pop("stations", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{file}: stations has to be tables, one [stations.NAME] for each station")
    if "data" in values:
        values["data"] = joined(file, values["data"])
    for name, group in (
        ("escalation", EscalationSettings),
        ("retention", RetentionSettings),
        ("access", AccessSettings),
        ("modbus", ModbusSettings),
        ("opcua", OpcUaSettings),
        ("drift", DriftSettings),
    ):
        if name in values:
            where = f"{file}, [{name}]"
            values[name] = group.parse(table(values[name], where), where=where)
    read_tables(values, file)
    return values, [_station(file, name, each) for name, each in tables.items()]


def _station(file: Path, name: str, values: object) -> StationSettings:
    where = f"{file}, [stations.{name if name.isprintable() else repr(name)}]"
    found = table(values, where)
    if "name" in found:
        raise ConfigError(f"setting 'name' in {where}: the name stands in the brackets; remove it")
    if "model" in found:
        found["model"] = joined(file, found["model"])
    if "recipes" in found:
        recipes = table(found["recipes"], f"{where}, recipes")
        found["recipes"] = {code: joined(file, pack) for code, pack in recipes.items()}
    if "folder" in found:
        folder = table(found["folder"], f"{where}, folder")
        if "path" in folder:
            folder["path"] = joined(file, folder["path"])
        found["folder"] = FolderSettings.parse(folder, where=f"{where}, folder")
    if "thresholds" in found:
        thresholds = table(found["thresholds"], f"{where}, thresholds")
        found["thresholds"] = ThresholdSettings.parse(thresholds, where=f"{where}, thresholds")
    if "golden" in found:
        golden = table(found["golden"], f"{where}, golden")
        found["golden"] = GoldenSettings.parse(golden, where=f"{where}, golden")
    if "review" in found:
        review = table(found["review"], f"{where}, review")
        found["review"] = ReviewSettings.parse(review, where=f"{where}, review")
    if "plc" in found:
        plc = f"{where}, plc"
        found["plc"] = PlcSettings.parse(table(found["plc"], plc), where=plc)
    if "camera" in found:
        found["camera"] = _camera(file, found["camera"], f"{where}, camera")
    if isinstance(found.get("rules"), list):
        places = [(f"{where}, rule {i}", rule) for i, rule in enumerate(found["rules"], start=1)]
        found["rules"] = tuple(parse_rule(table(rule, place), where=place) for place, rule in places)
    return StationSettings.parse({"name": name, **found}, where=where)


def _camera(file: Path, values: object, where: str) -> CameraSettings:
    found = table(values, where)
    if "source" in found and found.get("kind") in REPLAYS:
        found["source"] = str(joined(file, found["source"]))
    if "login_file" in found:
        found["login_file"] = joined(file, found["login_file"])
    return CameraSettings.parse(found, where=where)


def _from_option(option: str) -> StationSettings:
    name, equals, model = option.partition("=")
    if not equals or not name or not model:
        raise ConfigError(
            f"--station {option!r} is not of the form NAME=FILE, e.g. --station press=part.andon"
        )
    return StationSettings.parse({"name": name, "model": model}, where=f"--station {option}")


def _check_plant(settings: LineSettings, where: str) -> None:
    if settings.stations:
        raise ConfigError(
            f"--plant shows the stations of other lines, and {where} has its own: leave one out"
        )
    if not settings.database:
        raise ConfigError("--plant needs the database of the lines: give --database URL")
    if settings.opcua:
        raise ConfigError(f"[opcua] in {where} shows stations, and --plant has none of its own: remove it")


def _check(settings: LineSettings, where: str) -> None:
    """What one station alone cannot know, and what has to exist."""
    if not settings.stations:
        raise ConfigError(f"no station in {where}: add [stations.NAME] to a TOML file or --station NAME=FILE")
    twice = first_twice(station.name.lower() for station in settings.stations)
    if twice:
        raise ConfigError(f"two stations are named {twice!r} in {where}: rename one (case does not count)")
    for station in settings.stations:
        if not station.model.is_file():
            raise ConfigError(
                f"station {station.name} in {where}: there is no file {station.model}; make one with `andon pack`"
            )
        for code, pack in station.recipes.items():
            if not pack.is_file():
                place = f"station {station.name} in {where}, recipe {code}"
                raise ConfigError(f"{place}: there is no file {pack}; make one with `andon pack`")
        if station.folder and not station.folder.path.is_dir():
            raise ConfigError(
                f"station {station.name} in {where}: there is no folder {station.folder.path}; make it"
            )
    if common := shared([station.plc for station in settings.stations if station.plc]):
        raise ConfigError(f"two stations in {where} have {common}: give each its own")
    twice = first_twice(str(s.folder.path.resolve()) for s in settings.stations if s.folder)
    if twice:
        raise ConfigError(f"two stations in {where} read the folder {twice}: give each its own")
