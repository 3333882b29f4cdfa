"""Measures the store of the line: pages of a large database, commits under load, backup.

    python benchmarks/inspection_store.py /tmp/store --rows 1000000 --seconds 60

Prints the tables of docs/results/line.md. The folder is made anew and stays for a second look.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from andon.line.clock import HOUR, SECOND, now_us
from andon.line.store import NewInspection, Store
from andon.line.store.backup import backup
from andon.line.verdicts import Region, Verdict

STATIONS = 4
PARTS_PER_SECOND = 2
REGIONS = (Region(100, 200, 30, 40, 1.25),)


def fill(folder: Path, rows: int, rng: random.Random) -> None:
    """Rows of several stations, 3 % of them not OK, one part every half second, newest now."""
    Store.open(folder).close()
    begin = now_us() - rows * SECOND // PARTS_PER_SECOND
    with contextlib.closing(sqlite3.connect(folder / "andon.sqlite")) as database:
        database.execute("INSERT INTO model (id, sha256, created) VALUES (1, ?, 0)", ("a" * 64,))
        database.executemany(
            "INSERT INTO station (id, name) VALUES (?, ?)",
            [(n, f"station-{n}") for n in range(1, STATIONS + 1)],
        )
        columns = (
            "id, station_id, session_id, trigger_no, request_id, part_id, lot, model_id, t_trigger, t_done, verdict, "
            "score_raw, score, regions_json, ms_json, cause, image_state, image_sha256"
        )
        marks = ", ".join("?" * len(columns.split(",")))
        database.executemany(f"INSERT INTO inspection ({columns}) VALUES ({marks})", _rows(rows, begin, rng))
        database.execute(
            "INSERT INTO counter (station_id, hour, verdict, n) SELECT station_id, t_done / ?, verdict, count(*) "
            "FROM inspection GROUP BY 1, 2, 3",
            (HOUR,),
        )
        database.commit()


def _rows(rows: int, begin: int, rng: random.Random) -> Iterator[tuple[object, ...]]:
    for n in range(1, rows + 1):
        verdict = rng.choices((1, 2, 3, 4), (97, 2, 0.8, 0.2))[0]
        t = begin + n * SECOND // PARTS_PER_SECOND
        regions = None if verdict == 1 else json.dumps([[100, 200, 30, 40, 1.25]])
        score = None if verdict == 4 else rng.random()
        yield (
            *(n, 1 + n % STATIONS, 1, n, f"request-{n:012d}", f"part-{n // 2:010d}", f"lot-{n // 5000}"),
            *(
                1,
                t,
                t + 40_000,
                verdict,
                score,
                score,
                regions,
                '{"queue":0.1,"judge":38.2}',
                "",
                0,
                f"{n:064x}",
            ),
        )


def milliseconds(call: Callable[[], object], times: int) -> np.ndarray:
    """Durations of `times` calls."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return np.array(taken)


def pages(store: Store, rows: int, rng: random.Random, times: int) -> None:
    """Table of page times."""

    def station() -> str:
        return f"station-{rng.randint(1, STATIONS)}"

    def ago(hours: float) -> int:
        return now_us() - round(hours * HOUR)

    newest = store.inspections(limit=1)[0].t_done
    age = (now_us() - newest) / HOUR
    asked: dict[str, Callable[[], object]] = {
        "newest 50": store.inspections,
        "50 from any place": lambda: store.inspections(before_id=rng.randint(100, rows)),
        "station, newest 50": lambda: store.inspections(station=station()),
        "station, 50 from any place": lambda: store.inspections(
            station=station(), before_id=rng.randint(100, rows)
        ),
        "NG, 50 from any place": lambda: store.inspections(
            verdict=Verdict.NG, before_id=rng.randint(100, rows)
        ),
        "station, ERROR": lambda: store.inspections(
            station=station(), verdict=Verdict.ERROR, before_id=rng.randint(100, rows)
        ),
        "part id": lambda: store.inspections(part_id=f"part-{rng.randint(0, rows // 2):010d}"),
        "lot": lambda: store.inspections(lot=f"lot-{rng.randint(0, rows // 5000)}"),
        "lot, NG": lambda: store.inspections(lot=f"lot-{rng.randint(0, rows // 5000)}", verdict=Verdict.NG),
        "since 8 hours": lambda: store.inspections(since=ago(age + 8)),
        "station, NG, since 8 hours": lambda: store.inspections(
            station=station(), verdict=Verdict.NG, since=ago(age + 8)
        ),
        "counts since 7.5 hours": lambda: store.counts(station(), since=ago(age + 7.5)),
        "counts of all": lambda: store.counts(station(), since=0),
        "last 100 verdicts": lambda: store.last_verdicts(station(), 100),
    }
    print("| question | p50 ms | p95 ms | largest ms |\n|---|---|---|---|")
    for name, call in asked.items():
        taken = milliseconds(call, times)
        p50, p95 = np.percentile(taken, [50, 95])
        print(f"| {name} | {p50:.1f} | {p95:.1f} | {taken.max():.1f} |")
    replay = milliseconds(lambda: store.last_verdicts("station-1", 100_000), 3)
    print(f"\nlast 100,000 verdicts of a station for a replay: {replay.min():.0f} ms")


def part(number: int, image: bytes | None) -> NewInspection:
    now = now_us()
    return NewInspection(
        station=f"station-{1 + number % STATIONS}",
        request_id=f"load-{number}",
        trigger_no=number,
        part_id=f"load-{number}",
        lot="load",
        recipe=None,
        model_sha256="a" * 64,
        threshold_version=None,
        t_trigger=now,
        t_done=now,
        verdict=Verdict.OK,
        score_raw=0.5,
        score=0.5,
        regions=REGIONS,
        image=image,
        image_suffix=".jpg",
    )


def load(store: Store, seconds: float, rate: float, image_bytes: int) -> None:
    """Parts at a fixed rate, each with its own image: time from `record` to the committed answer."""
    base = random.randbytes(image_bytes)
    taken: list[float] = []
    begin = time.perf_counter()
    for number in range(round(seconds * rate)):
        due = begin + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        future = store.record(part(number, base[8:] + number.to_bytes(8, "big")))
        future.add_done_callback(lambda _f, s=started: taken.append((time.perf_counter() - s) * 1000))
    store.record(part(10**9, None)).result()
    behind = store._images._waiting
    p50, p99 = np.percentile(taken, [50, 99])
    print(
        f"{rate:g} parts/s for {seconds:g} s, images of {image_bytes / 1e6:g} MB: {len(taken)} parts, "
        f"commit p50 {p50:.1f} ms, p99 {p99:.1f} ms, largest {max(taken):.0f} ms; "
        f"{behind / 1e6:.0f} MB of images waited at the end, {store.images_lost} lost"
    )


def throughput(store: Store, seconds: float, threads: int) -> None:
    """Parts without images from several threads, each waiting for its answer."""
    done: list[int] = []

    def work(first: int) -> None:
        number, end = first, time.perf_counter() + seconds
        while time.perf_counter() < end:
            store.record(part(number, None)).result()
            number += 1
        done.append(number - first)

    workers = [threading.Thread(target=work, args=((n + 2) * 10**7,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"{threads} stations at once, no images: {sum(done) / seconds:.0f} commits answered a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=200, help="Questions of each kind.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--image-bytes", type=int, default=1_500_000, help="Of one image, a JPEG of 4 megapixels."
    )
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    rng = random.Random(0)
    fill(options.folder, options.rows, rng)
    size = (options.folder / "andon.sqlite").stat().st_size
    print(f"{options.rows:,} rows: {size / 1e6:.0f} MB\n")
    begin = time.perf_counter()
    with Store.open(options.folder) as store:
        print(f"opened in {time.perf_counter() - begin:.2f} s\n")
        pages(store, options.rows, rng, options.times)
        begin = time.perf_counter()
        copy = options.folder.with_name(options.folder.name + "-backup")
        shutil.rmtree(copy, ignore_errors=True)
        backup(options.folder, copy)
        print(f"\nbackup: {time.perf_counter() - begin:.1f} s\n")
        shutil.rmtree(copy)
        load(store, options.seconds, 20, options.image_bytes)
        throughput(store, 10, 1)
        throughput(store, 10, 4)


if __name__ == "__main__":
    main()
