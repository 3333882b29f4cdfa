"""A simulated PLC with a line in the same process: cycles with faults, their rows, and the time from trigger to valid result.

    python benchmarks/plc.py FOLDER --cycles 10000 --faults 0.3
    python benchmarks/plc.py FOLDER --cycles 600 --rate 2 --judge-ms 50
    python benchmarks/plc.py FOLDER --cycles 600 --rate 2 --model part.andon --images photos

Without a model a judge answers after `--judge-ms`: every third part is NG. The store is SQLite with full durability. Prints
what the PLC saw and what the store has; exit code 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

from andon.line.judge import Judge, Judgement, Thresholds
from andon.line.line import Line
from andon.line.plc.handshake import Trigger
from andon.line.plc.master import Master
from andon.line.plc.server import PlcServer
from andon.line.plc.settings import ModbusSettings, PlcSettings
from andon.line.plc.simulate import Plc, Result
from andon.line.settings import LineSettings, StationSettings
from andon.line.simulate import images
from andon.line.store import Inspection
from andon.line.verdicts import Verdict
from andon.thresholds.evidence import Evidence

PAGE = 1000


class QuickJudge:
    """Takes the verdict from the content that `shoot` made."""

    thresholds, evidence = Thresholds(1.0, 1.0), Evidence()
    name, sha256, seconds = "quick", "0" * 64, 0.0

    def __init__(self, pack: Path, *, threads: int) -> None:
        """As `Judge`."""

    def self_check(self) -> None:
        """Nothing to check."""

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        """NG or OK."""
        time.sleep(self.seconds)
        score = 0.5 if int(image) % 3 else 2.0
        return Judgement(
            Verdict.OK if score < 1 else Verdict.NG, score, score, ms={"judge": self.seconds * 1e3}
        )


def main() -> None:
    """Play the cycles and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--rate", type=float, help="cycles a second; by default as fast as possible")
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--poll-ms", type=float, default=10.0)
    parser.add_argument("--judge-ms", type=float, default=0.0)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    QuickJudge.seconds = asked.judge_ms / 1000
    photos = cycle([path.read_bytes() for path in images(asked.images)]) if asked.model else None

    def shoot(trigger: Trigger) -> bytes:
        return next(photos) if photos else b"%d" % trigger.number

    station = StationSettings(
        name="press", model=asked.model or Path("quick.andon"), rules=(), plc=PlcSettings(), keep_images=()
    )
    settings = LineSettings(data=asked.folder, stations=(station,), modbus=ModbusSettings(port=0))
    line = Line(settings, open_judge=Judge if asked.model else QuickJudge, shoot={"press": shoot})
    server = next(each for each in line.followers if isinstance(each, PlcServer))
    with line, Master("127.0.0.1", server.port) as master:
        plc = Plc(master, poll_s=asked.poll_ms / 1000)
        seen = plc.run(asked.cycles, rate=asked.rate, faults=asked.faults)
        rows = all_rows(line)
    wrong = compare(seen, rows, is_quick=asked.model is None)
    found: dict[str, Any] = {
        **seen.to_json(),
        "triggers_without_ready": len(seen.refused),
        "rows": len(rows),
        "rows_by_verdict": dict(Counter(row.verdict.name for row in rows)),
        "wrong": wrong,
    }
    print(json.dumps(found, indent=2))
    sys.exit(1 if wrong or seen.violations else 0)


def all_rows(line: Line) -> list[Inspection]:
    """Every row of the store."""
    rows: list[Inspection] = []
    while page := line.store.inspections(limit=PAGE, before_id=rows[-1].id if rows else None):
        rows += page
    return rows


def compare(seen: Result, rows: list[Inspection], *, is_quick: bool) -> list[str]:
    """Where rows and PLC differ: rows lost or doubled, a verdict of another part."""
    wrong = []
    expected = seen.cycles + len(seen.refused)
    if len(rows) != expected or len({row.trigger_no for row in rows}) != expected:
        wrong.append(f"{len(rows)} rows for {expected} triggers")
    passed = sum(row.verdict is Verdict.OK for row in rows)
    if seen.verdicts["OK"] > passed:
        wrong.append(f"the PLC passed {seen.verdicts['OK']} parts, the store {passed}")
    refused = set(seen.refused)
    for row in rows if is_quick else []:
        assert row.trigger_no is not None
        due = Verdict.ERROR if row.trigger_no in refused else Verdict.OK if row.trigger_no % 3 else Verdict.NG
        if row.verdict is not due:
            wrong.append(
                f"trigger {row.trigger_no} is {row.verdict.name} ({row.cause}), has to be {due.name}"
            )
    return wrong


if __name__ == "__main__":
    main()
