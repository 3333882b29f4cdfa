"""Golden parts as stored: sets, runs, results, what is due, and the images, which stay whatever the retention rule says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from andon.core.errors import DataError, UsageError
from andon.core.files import writing_errors
from andon.line.golden.gate import Gate
from andon.line.golden.items import GoldenSet, Item, Kind, Mode, Result, Seen
from andon.line.judge import Thresholds
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append
from andon.line.store.images import write_durably
from andon.line.verdicts import Verdict

FOLDER = "golden"
"""Below the data folder."""
STORED_WITHIN = 30.0
"""Seconds in which a change has to be committed."""
ITEM_COLUMNS = (
    "name",
    "defect_type",
    "score",
    "low",
    "high",
    "has_part",
    "image_key",
    "image_sha256",
    "inspection_id",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One check of the golden parts of a station. Times are microseconds UTC."""

    set_id: int
    mode: Mode
    is_trial: bool
    """Of a model or thresholds that were not in use: what failed was not put into use."""
    thresholds: Thresholds
    model_sha256: str
    results: tuple[Result, ...]
    why: str
    """What it was for."""
    who: str
    started: int
    ended: int
    id: int = 0

    @property
    def passed(self) -> bool:
        """Whether every golden part came out as expected."""
        return all(not each.why for each in self.results)


class Book:
    """Reads and writes golden parts. Raises `StoreError` where that fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # Images --------------------------------------------------------------------------------------------------------

    def keep_image(self, image: bytes, suffix: str) -> tuple[str, str]:
        """Write an image, once for each content. Returns its path below the data folder and its SHA-256."""
        digest = hashlib.sha256(image).hexdigest()
        key = f"{FOLDER}/{digest}{suffix}"
        target = self._store.folder / key
        if not target.is_file():
            with writing_errors(target):
                write_durably(target, image)
        return key, digest

    def image(self, item: Item) -> bytes:
        """The image of a golden part. Raises `DataError` where it is missing or changed."""
        try:
            content = (self._store.folder / item.image_key).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != item.image_sha256:
            raise DataError(
                f"the image of golden part {item.name} is missing or changed: remove the part and add it again"
            )
        return content

    # Sets ----------------------------------------------------------------------------------------------------------

    def of_model(self, station: str, sha256: str) -> GoldenSet | None:
        """The newest set of a station and a model; None where there is none or it has no items."""
        return self._store.ask(lambda connection: _of_model(connection, station, sha256))

    def newest(self, station: str) -> GoldenSet | None:
        """The newest set of a station, whatever its model."""
        return self._store.ask(lambda connection: _newest(connection, station))

    def add_set(
        self,
        station: str,
        items: Sequence[Item],
        *,
        model_sha256: str | None,
        threshold_version: int | None,
        who: str,
        why: str,
    ) -> GoldenSet:
        """A new set, committed with its row in the audit."""
        new = GoldenSet(
            0, station, model_sha256, threshold_version, tuple(items), self._store.clock(), who, why
        )
        return self._store.write(lambda connection: _add_set(connection, new)).result(STORED_WITHIN)

    # Runs and what is due ------------------------------------------------------------------------------------------

    def add_run(self, station: str, run: Run, following: GoldenSet | None) -> tuple[Run, GoldenSet | None]:
        """Store a run with its results, the set that follows from it, and a row of the audit."""

        def write(connection: Connection) -> tuple[Run, GoldenSet | None]:
            stored = _add_run(connection, station, run)
            return stored, None if following is None else _add_set(connection, following)

        return self._store.write(write).result(STORED_WITHIN)

    def runs(self, station: str, limit: int, before: int | None = None) -> list[Run]:
        """The newest runs of a station with their results, newest first."""
        return self._store.ask(lambda connection: _runs(connection, station, limit, before))

    def gate(self, station: str) -> Gate:
        """What is due and what failed."""
        return self._store.ask(lambda connection: _gate(connection, station)[1])

    def keep_gate(self, station: str, gate: Gate, entries: Iterable[Entry]) -> Any:
        """Store what is due, with rows of the audit. Returns the future of the commit."""
        noted, at = tuple(entries), self._store.clock()

        def write(connection: Connection) -> None:
            state = json.dumps(gate.to_json())
            row, _ = _gate(connection, station)
            if row is None:
                rows.add(
                    connection, "golden_gate", station_id=_station(connection, station), state_json=state
                )
            else:
                rows.change(connection, "golden_gate", row, state_json=state)
            for entry in noted:
                append(connection, entry, at)

        return self._store.write(write)

    def restored_at(self) -> int:
        """When the data folder was made from a backup for the last time; 0 where it never was."""
        found = self._store.ask(lambda connection: rows.find(connection, "audit", action="restore", limit=1))
        return int(found[0]["at"]) if found else 0


def _station(connection: Connection, name: str) -> int:
    found = rows.find(connection, "station", name=name, limit=1)
    if not found:
        raise UsageError(f"there is no station {name!r} in this data folder: start the line with it once")
    return int(found[0]["id"])


def _model(connection: Connection, sha256: str | None) -> int | None:
    found = rows.find(connection, "model", sha256=sha256, limit=1) if sha256 else []
    return int(found[0]["id"]) if found else None


def _of_model(connection: Connection, station: str, sha256: str) -> GoldenSet | None:
    stations = rows.find(connection, "station", name=station, limit=1)
    model = _model(connection, sha256)
    if not stations or model is None:
        return None
    found = rows.find(connection, "golden_set", station_id=stations[0]["id"], model_id=model, limit=1)
    return _golden_set(connection, station, found[0]) if found else None


def _newest(connection: Connection, station: str) -> GoldenSet | None:
    stations = rows.find(connection, "station", name=station, limit=1)
    if not stations:
        return None
    found = rows.find(connection, "golden_set", station_id=stations[0]["id"], limit=1)
    return _golden_set(connection, station, found[0]) if found else None


def _golden_set(connection: Connection, station: str, row: dict[str, Any]) -> GoldenSet:
    model = None
    if row["model_id"] is not None:
        model = rows.find(connection, "model", id=row["model_id"], limit=1)[0]["sha256"]
    items = rows.find(connection, "golden_item", set_id=row["id"])[::-1]
    return GoldenSet(
        id=row["id"],
        station=station,
        model_sha256=model,
        threshold_version=row["threshold_version_id"],
        items=tuple(_item(item) for item in items),
        at=row["at"],
        who=row["who"],
        why=row["why"],
    )


def _item(row: dict[str, Any]) -> Item:
    return Item(
        **{name: row[name] for name in ITEM_COLUMNS},
        kind=Kind(row["kind"]),
        expected=None if row["expected"] is None else Verdict(row["expected"]),
        id=row["id"],
    )


def _add_set(connection: Connection, new: GoldenSet) -> GoldenSet:
    before = _newest(connection, new.station)
    id = rows.add(
        connection,
        "golden_set",
        station_id=_station(connection, new.station),
        model_id=_model(connection, new.model_sha256),
        threshold_version_id=new.threshold_version,
        who=new.who,
        why=new.why,
        at=new.at,
    )
    items = []
    for item in new.items:
        values = {name: getattr(item, name) for name in ITEM_COLUMNS}
        expected = None if item.expected is None else item.expected.value
        number = rows.add(
            connection, "golden_item", set_id=id, kind=item.kind.value, expected=expected, **values
        )
        items.append(replace(item, id=number))
    old, names = ([] if before is None else [i.name for i in before.items]), [i.name for i in items]
    changes = {
        "set": id,
        "added": [name for name in names if name not in old],
        "removed": [name for name in old if name not in names],
        "items": len(names),
    }
    append(
        connection,
        Entry(new.who, "golden set", f"station {new.station}", new=changes, reason=new.why),
        new.at,
    )
    return replace(new, id=id, items=tuple(items))


def _add_run(connection: Connection, station: str, run: Run) -> Run:
    number = _station(connection, station)
    id = rows.add(
        connection,
        "golden_run",
        station_id=number,
        set_id=run.set_id,
        mode=run.mode.value,
        is_trial=run.is_trial,
        accept=run.thresholds.accept,
        reject=run.thresholds.reject,
        model_sha256=run.model_sha256,
        passed=run.passed,
        why=run.why,
        who=run.who,
        started=run.started,
        ended=run.ended,
    )
    for each in run.results:
        rows.add(
            connection,
            "golden_result",
            run_id=id,
            station_id=number,
            name=each.name,
            mode=each.mode.value,
            verdict=each.seen.verdict.value,
            score=each.seen.score,
            cause=each.seen.cause,
            why=each.why,
            ms=each.seen.ms,
            inspection_id=each.inspection_id,
        )
    outcome = {
        "run": id,
        "mode": run.mode.value,
        "passed": run.passed,
        "items": len(run.results),
        "failed": {each.name: each.why for each in run.results if each.why},
    }
    action = "golden trial" if run.is_trial else "golden run"
    append(connection, Entry(run.who, action, f"station {station}", new=outcome, reason=run.why), run.ended)
    return replace(run, id=id)


def _runs(connection: Connection, station: str, limit: int, before: int | None) -> list[Run]:
    stations = rows.find(connection, "station", name=station, limit=1)
    if not stations:
        return []
    found = rows.find(connection, "golden_run", station_id=stations[0]["id"], before=before, limit=limit)
    return [_run(row, rows.find(connection, "golden_result", run_id=row["id"])[::-1]) for row in found]


def _run(row: dict[str, Any], results: list[dict[str, Any]]) -> Run:
    return Run(
        set_id=row["set_id"],
        mode=Mode(row["mode"]),
        is_trial=row["is_trial"],
        thresholds=Thresholds(row["accept"], row["reject"]),
        model_sha256=row["model_sha256"],
        results=tuple(_result(each) for each in results),
        why=row["why"],
        who=row["who"],
        started=row["started"],
        ended=row["ended"],
        id=row["id"],
    )


def _result(row: dict[str, Any]) -> Result:
    seen = Seen(Verdict(row["verdict"]), row["score"], row["cause"], row["ms"])
    return Result(row["name"], Mode(row["mode"]), seen, row["why"], row["inspection_id"])


def _gate(connection: Connection, station: str) -> tuple[int | None, Gate]:
    """Id of the row of a station, None before its first, and what it says."""
    stations = rows.find(connection, "station", name=station, limit=1)
    found = rows.find(connection, "golden_gate", station_id=stations[0]["id"], limit=1) if stations else []
    return (found[0]["id"], Gate.from_json(json.loads(found[0]["state_json"]))) if found else (None, Gate())
