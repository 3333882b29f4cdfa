"""Cuts broker, camera, database, PLC and network in turn while `andon serve` judges parts, and counts what is lost.

    python benchmarks/cuts.py FOLDER part.andon --good photos/good --bad photos/bad --seconds 30

One process with two stations on PostgreSQL: `press`, whose simulated PLC triggers a camera (a folder that is played), and `oven`,
which gets images by REST. Both are told to a broker (mosquitto). Prints the table of docs/results/line.md, "What is cut, what is
lost"; exit code 1 where an OK has no row, a part has two, or an answered part is not told.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import psycopg
from cuts_senders import CYCLE_SECONDS, Note, PlcProcess, Sender, Wire
from serving_line import free_port, serving, wait_until_ready

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from line.broker import Reader, broker, reading
from line.postgres import Cluster

from andon.client import Client, ClientError
from andon.line.simulate import images
from andon.line.verdicts import Verdict

GOOD_RUN = 14
AT_ONCE = 2
"""Reports that wait while everything works."""
PATIENCE = 5
"""Times that a person tries to release a station."""
PHASE_BEFORE, PHASE_AFTER, RECOVERY_SECONDS = 5.0, 15.0, 120.0
STATIONS = ("press", "oven")
SETTINGS = """
name = "cuts"
data = "data"
database = "{database}"
mqtt = {{ host = "127.0.0.1", port = {mqtt} }}
modbus = {{ port = {modbus} }}

[stations.press]
model = "{model}"
cycle_s = {cycle}
plc = {{ }}
camera = {{ kind = "folder", source = "camera" }}

[stations.oven]
model = "{model}"
cycle_s = {cycle}
"""


@dataclass
class Phase:
    """One cut."""

    name: str
    cut: Callable[[], None]
    mend: Callable[[], None]
    begin: float = 0.0
    end: float = 0.0
    back_after: float = 0.0
    """Seconds from the return until both stations are without fault and everything is told."""
    states: dict[str, list[str]] = field(default_factory=dict)
    """By station: what it showed, in order."""


class Watcher(threading.Thread):
    """Notes what the stations show."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.shown: dict[str, list[str]] = {name: [] for name in STATIONS}
        self.ended = threading.Event()
        self.client = Client(url)

    def run(self) -> None:
        while not self.ended.wait(0.3):
            for station in self.client.stations():
                words = station["state"] + (f" ({station['reason']})" if station["reason"] else "")
                states = self.shown[station["name"]]
                if not states or states[-1] != words:
                    states.append(words)

    def is_well(self) -> bool:
        """Whether no station has a fault, and what was to be told has been."""
        stations = self.client.stations()
        sinks = self.client.outbox()
        return not any(each["faults"] for each in stations) and all(
            each["waiting"] <= AT_ONCE for each in sinks
        )

    def release(self) -> None:
        """What a person does: give the cause of each stop and resume, again where the next parts have stopped it once more."""
        for _ in range(PATIENCE):
            stopped = [each["name"] for each in self.client.stations() if each["wants_stop"]]
            for name in stopped:
                with contextlib.suppress(ClientError):
                    self.client.cause(name, "other", "benchmark", "the cut of the benchmark")
                    self.client.resume(name, "benchmark")
            if not stopped:
                break
        for alarm in self.client.alarms():
            if alarm["acked"] is None:
                self.client.acknowledge(alarm["id"], "benchmark")


def carry_out(phase: Phase, watcher: Watcher, seconds: float) -> None:
    """Cut, mend, wait until all is well, release the stops."""
    print(f"{phase.name} ...", file=sys.stderr, flush=True)
    phase.begin = time.time()
    for states in watcher.shown.values():
        del states[:-1]
    time.sleep(PHASE_BEFORE)
    phase.cut()
    time.sleep(seconds)
    phase.mend()
    back = time.monotonic()
    while not watcher.is_well() and time.monotonic() < back + RECOVERY_SECONDS:
        time.sleep(0.2)
    phase.back_after = time.monotonic() - back
    time.sleep(PHASE_AFTER)
    phase.states = {name: list(states) for name, states in watcher.shown.items()}
    watcher.release()
    phase.end = time.time()


class Row(NamedTuple):
    """What the database has about a part."""

    id: int
    station: str
    part: str
    verdict: str
    cause: str


def all_rows(database: str) -> list[Row]:
    """Read them without andon."""
    query = (
        "SELECT i.id, s.name, i.part_id, i.verdict, i.cause FROM inspection i JOIN station s ON s.id = i.station_id "
        "ORDER BY i.id"
    )
    with psycopg.connect(database) as connection:
        return [
            Row(id, station, part, Verdict(verdict).name, cause)
            for id, station, part, verdict, cause in connection.execute(query)
        ]


@dataclass
class Count:
    """Parts of one station in one phase."""

    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    wrong: list[str] = field(default_factory=list)


def count(station: str, notes: list[Note], rows: list[Row], told: Counter[int]) -> Count:
    """Compare what a sender saw with the rows and with what the broker told."""
    found, by_part = Count(), dict[str, list[Row]]()
    for row in rows:
        by_part.setdefault(row.part, []).append(row)
    asked = {note.part for note in notes if note.kind == "asked"}
    verdicts = {note.part: note for note in notes if note.kind in Verdict.__members__}
    found.asked = len(asked)
    again = {note.part for note in notes if note.kind == "again"}
    found.answers = Counter(
        "none"
        if part not in verdicts
        else f"none, later {verdicts[part].kind}"
        if part in again
        else verdicts[part].kind
        for part in asked
    )
    found.rows = sum(len(by_part.get(part, ())) for part in asked)
    for part in sorted(asked):
        own = by_part.get(part, [])
        answer = verdicts.get(part)
        if len(own) > 1:
            found.wrong.append(f"{station} {part} has {len(own)} rows")
        if answer and answer.kind == "OK" and not any(row.verdict == "OK" for row in own):
            found.wrong.append(f"{station} {part} was OK and has no such row")
        if answer and answer.kind != "NONE" and not own:
            found.wrong.append(f"{station} {part} was answered ({answer.kind}) and has no row")
        found.wrong += [f"{station} {part} was not told" for row in own if told[row.id] == 0]
    taken = {note.part for note in notes if note.kind == "taken"}
    found.wrong += [f"{station} {part} was taken and has no row" for part in taken if part not in by_part]
    found.wrong += [f"{station}: {note.part}" for note in notes if note.kind == "violation"]
    return found


def report(phases: list[Phase], notes: dict[str, list[Note]], rows: list[Row], told: Counter[int]) -> bool:
    """Print the table; whether nothing is wrong."""
    print("| cut | station | parts | answers | rows | repeated reports | what it showed | well again after |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = []
    for phase in phases:
        for station in STATIONS:
            own = [
                note for note in notes[station] if note.kind == "asked" and phase.begin <= note.at < phase.end
            ]
            parts = {note.part for note in own}
            mine = [row for row in rows if row.station == station and row.part in parts]
            found = count(station, [note for note in notes[station] if note.part in parts], mine, told)
            answers = ", ".join(f"{name} {number}" for name, number in sorted(found.answers.items()))
            repeated = sum(told[row.id] - 1 for row in mine if told[row.id])
            states = ", ".join(phase.states[station])
            print(
                f"| {phase.name} | {station} | {found.asked} | {answers} | {found.rows} | {repeated} | {states} "
                f"| {phase.back_after:.1f} s |"
            )
            wrong += found.wrong
    unknown = {row.part for row in rows} - {note.part for every in notes.values() for note in every}
    wrong += [f"{part} has a row and was not sent" for part in sorted(unknown)]
    passed = sum(note.kind == "OK" for every in notes.values() for note in every)
    print(f"\n{len(rows)} rows, {passed} OK answers, {sum(told.values())} reports of {len(told)} parts")
    print("\n".join(wrong) or "nothing is wrong")
    return not wrong


def main() -> None:
    """Cut everything in turn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="new, or empty")
    parser.add_argument("model", type=Path)
    parser.add_argument("--good", type=Path, required=True)
    parser.add_argument("--bad", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=2.0, help="parts a second of each station")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a cut")
    parser.add_argument("--only", nargs="*", help="first words of the cuts")
    asked = parser.parse_args()
    sys.exit(0 if cut_all(asked) else 1)


def cut_all(asked: argparse.Namespace) -> bool:
    """Run everything; whether nothing is wrong."""
    folder = asked.folder.resolve()
    (folder / "camera").mkdir(parents=True)
    photos = mixed(images([asked.good]), images([asked.bad]))
    for number, photo in enumerate(photos):
        shutil.copyfile(photo, folder / "camera" / f"{number:04}{photo.suffix}")
    modbus = free_port()
    cluster = Cluster()
    try:
        database = cluster.new_database()
        with broker(folder) as own:
            values = {"database": database, "mqtt": own.port, "modbus": modbus, "cycle": CYCLE_SECONDS}
            (folder / "line.toml").write_text(SETTINGS.format(model=asked.model.resolve(), **values))
            with serving(folder, "--config", "line.toml") as server, reading(own.port) as reader:
                wire = Wire(server.port)
                sender = Sender(f"http://127.0.0.1:{wire.port}", photos, asked.rate)
                watcher = Watcher(server.url)
                plc = PlcProcess(modbus, folder, asked.rate)
                wait_until_ready(watcher.client)
                phases = [
                    Phase("nothing", lambda: None, lambda: None),
                    Phase("broker (SIGTERM)", own.stop, own.start),
                    Phase(
                        "camera (folder gone)",
                        lambda: move(folder, "camera", "away"),
                        lambda: move(folder, "away", "camera"),
                    ),
                    Phase("PostgreSQL (as in a crash)", cluster.stop, cluster.start),
                    Phase("PLC (SIGKILL)", plc.kill, plc.start),
                    Phase("network of the sender", wire.cut, wire.mend),
                ]
                phases = [each for each in phases if not asked.only or each.name.split()[0] in asked.only]
                sender.start()
                watcher.start()
                for phase in phases:
                    carry_out(phase, watcher, asked.seconds)
                finish(sender, watcher, plc, reader)
                told = Counter(each["id"] for each in reader.payloads("/result"))
                notes = {"press": plc.notes, "oven": sender.notes}
            return report(phases, notes, all_rows(database), told)
    finally:
        cluster.remove()


def finish(sender: Sender, watcher: Watcher, plc: PlcProcess, reader: Reader) -> None:
    """End the senders, send what had no answer once more, wait until everything is told."""
    sender.ended.set()
    sender.join()
    time.sleep(CYCLE_SECONDS)
    plc.kill()
    unanswered = len(sender.unanswered)
    sender.send_again()
    still = {part: sender.why[part] for part in sender.unanswered}
    print(f"{unanswered} parts of oven had no answer; sent again: {still or 'none'}", file=sys.stderr)
    watcher.ended.set()
    watcher.join()
    time.sleep(2 * CYCLE_SECONDS)  # a part without its image gets its row
    end = time.monotonic() + RECOVERY_SECONDS
    while any(each["waiting"] for each in watcher.client.outbox()) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1.0)


def mixed(good: list[Path], bad: list[Path]) -> list[Path]:
    """A bad one after each `GOOD_RUN` good ones, so that the stop rules fire by the cuts alone."""
    goods = cycle(good)
    return [photo for each in bad for photo in (*islice(goods, GOOD_RUN), each)]


def move(folder: Path, old: str, new: str) -> None:
    """Rename a folder."""
    (folder / old).rename(folder / new)


if __name__ == "__main__":
    main()
