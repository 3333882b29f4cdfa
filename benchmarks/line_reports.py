"""Time of shift reports and of the search for a gauge study in a long history.

python benchmarks/line_reports.py FOLDER --rows 500000
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from andon.line.clock import HOUR, SECOND
from andon.line.reports import shift, study
from andon.line.store import NewInspection, Store, rows
from andon.line.store.reports import Period
from andon.line.store.schema import inspection
from andon.line.verdicts import Verdict

BEGIN = 1_800_000_000 * SECOND
BLOCK = 10_000
TIMES = 20


def main() -> None:
    """Fill a store with one part a second, then ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder for the store")
    parser.add_argument("--rows", type=int, default=500_000)
    given = parser.parse_args()
    end = BEGIN + given.rows * SECOND
    last = Period("press", end - 8 * HOUR, end)
    with Store.open(given.folder, clock=lambda: BEGIN) as store:
        fill(store, given.rows)
        print(f"{given.rows} rows, load {os.getloadavg()[0]:.0f}")

        def lot(connection: Any) -> shift.ShiftReport:
            of = shift.period(connection, "press", now=end, lot="lot-7")
            return shift.read(connection, of, line="line", now=end)

        show("shift, 8 h", store, lambda c: shift.read(c, last, line="line", now=end).parts)
        show("lot of 1,000 parts", store, lambda c: lot(c).parts)
        show("parts of a gauge study in 8 h", store, lambda c: len(study.read(c, last, 2)[1]))


def fill(store: Store, count: int) -> None:
    """Rows of one station, every fortieth NG, lots of 1,000, part ids that come again after 9,999 parts."""
    new = NewInspection(
        "press", "first", None, "p0", "lot-0", None, "a" * 64, None, BEGIN, BEGIN, Verdict.OK, 0.5, 0.5
    )
    store.record(new).result()

    def write(connection: Any) -> None:
        base = rows.find(connection, "inspection", id=1)[0]
        for start in range(1, count, BLOCK):
            numbers = range(start, min(start + BLOCK, count))
            connection.execute(insert(inspection), [{**base, **_row(number)} for number in numbers])

    store.write(write).result()


def _row(number: int) -> dict[str, Any]:
    verdict = Verdict.NG if number % 40 == 0 else Verdict.OK
    return {
        "id": number + 1,
        "request_id": f"r{number}",
        "t_done": BEGIN + number * SECOND,
        "lot": f"lot-{number // 1000}",
        "part_id": f"p{number % 9999}",
        "verdict": verdict.value,
    }


def show(what: str, store: Store, question: Callable[[Any], int]) -> None:
    """Time of a question and what it counted."""
    times, found = [], 0
    for _ in range(TIMES):
        begin = time.perf_counter()
        found = store.ask(question, seconds=60.0)
        times.append(1000 * (time.perf_counter() - begin))
    print(f"{what}: {found} found, p50 {statistics.median(times):.0f} ms, largest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
