"""andon beside anomalib: same pictures, same weights file, same backbone, one process a row, one after the other.

    python benchmarks/peers.py [--peer-python PATH] [--data embedded:fabric,embedded:pcb,FOLDER] [--out PAGE]

Makes a virtual environment with anomalib under --work (or takes the Python that is given), writes the pictures as files, runs
`peers_andon.py` and `peers_anomalib.py` for each row and writes a Markdown page. Rows that are there are not run again
(--fresh runs all). Accuracy comes from the raw scores and maps of both sides by andon's metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_row import seconds
from peers_settings import ALONE, NETWORK, ONCE, ROWS, TAPS, settings_of
from PIL import Image
from torch.nn import functional as F

from andon import Record, open_dataset
from andon.datasets.masks import load_ground_truth
from andon.metrics import PixelRanking, auroc

HERE = Path(__file__).parent
IMPORTS = {
    "import": {"andon": "import andon", "anomalib": "import anomalib"},
    "first model": {
        "andon": "import andon; andon.create('patchcore', 'lite0')",
        "anomalib": "from anomalib.models import Patchcore; "
        f"Patchcore('{NETWORK}', {TAPS}, pre_trained=False)",
    },
}
WAITED = "Other work on the machine waited: every row ran at real-time priority (`chrt -f 10`)."
UPPER_BOUNDS = """The row before leaves about 2; where it is clearly more, other work ran, and seconds and milliseconds are upper
bounds that differ from row to row."""
MAPPED = 2**23
"""Bytes from which glibc gives freed memory back at once, in every row: its heap fragments in anomalib's coreset selection, by
20 MB for each vector selected of 27,648; maps of one picture stay below it."""
Facts = dict[str, Any]

# Pictures ---------------------------------------------------------------------------------------------------------------


def write_pictures(source: str, most: int, folder: Path) -> None:
    """Lay andon's split of a data set out as files: {train,validation,test}/good, test/defective, ground_truth/defective.

    Of more than `most` pictures to learn from, evenly spaced ones are taken, and as large a share of the held-out ones.
    """
    data = open_dataset(source)
    share = min(1.0, most / len(data.train))
    parts = {
        "train/good": spaced(data.train, share),
        "validation/good": spaced(data.validation, share),
        "test/good": [r for r in data.test if r.label == 0],
        "test/defective": [r for r in data.test if r.label == 1],
    }
    for part, records in parts.items():
        (folder / part).mkdir(parents=True)
        for record in records:
            name = f"{record.defect_type}_{record.image.stem}.png"
            Image.open(record.image).convert("RGB").save(folder / part / name)
            if record.masks:
                write_mask(record, folder / "ground_truth" / "defective" / name)
    (folder / "complete").touch()


def spaced(records: Sequence[Record], share: float) -> list[Record]:
    """A share of the records, evenly spaced."""
    chosen = np.linspace(0, len(records) - 1, max(1, round(share * len(records)))).round().astype(int)
    return [records[int(k)] for k in chosen]


def write_mask(record: Record, file: Path) -> None:
    """The union of all marked defects as a black and white picture."""
    width, height = Image.open(record.image).size
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load_ground_truth(record, (height, width)).union).save(file)


# Environments and processes ---------------------------------------------------------------------------------------------


def peer_python(given: Path | None, work: Path) -> Path:
    """The Python that is given, or that of a new environment into which anomalib was installed."""
    python = given or work / "venv" / "bin" / "python"
    if not python.is_file():
        venv.create(work / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "anomalib", "safetensors"], check=True)
    return python


def environment(threads: int, home: Path | None = None) -> dict[str, str]:
    """Variables of a process; without `home` it is the peer's, which gets no path to andon. Hubs are out of reach for both."""
    variables = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", ANDON_OFFLINE="1")
    variables["MALLOC_MMAP_THRESHOLD_"] = str(MAPPED)
    if home is None:
        variables.pop("PYTHONPATH", None)
    else:
        variables["ANDON_HOME"] = str(home)
    return variables


def import_seconds(pythons: Mapping[str, Path], threads: int) -> dict[str, dict[str, float]]:
    """Seconds of a process that imports, and of one that makes a model: median of three after one that does not count."""
    found: dict[str, dict[str, float]] = {}
    for what, codes in IMPORTS.items():
        for library, code in codes.items():
            variables = environment(threads, Path(tempfile.gettempdir()) if library == "andon" else None)
            command = [pythons[library], "-W", "ignore", "-c", code]

            def work(command: list[Any] = command, variables: dict[str, str] = variables) -> None:
                subprocess.run(command, check=True, capture_output=True, env=variables)

            times = [seconds(work) for _ in range(4)]
            found.setdefault(what, {})[library] = statistics.median(times[1:])
    return found


def run_row(
    library: str, detector: str, folder: Path, out: Path, python: Path, options: argparse.Namespace
) -> None:
    """Run one row, unless it is there. Stops with the end of its log when it fails."""
    if out.with_suffix(".json").is_file() and not options.fresh:
        return
    script = HERE / ("peers_andon.py" if library == "andon" else "peers_anomalib.py")
    settings = settings_of(detector, out, options)
    command = [python, script, folder.absolute(), out.absolute(), "--settings", json.dumps(settings)]
    command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
    print(f"{out.name} ...", file=sys.stderr, flush=True)
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as home, out.with_suffix(".log").open("w") as log:
        variables = environment(options.threads, Path(home) if library == "andon" else None)
        done = subprocess.run(map(str, command), stdout=log, stderr=log, env=variables, check=False, cwd=home)
    if done.returncode:
        end = out.with_suffix(".log").read_text(errors="replace").splitlines()[-15:]
        sys.exit("\n".join([f"{out.name} failed ({done.returncode}):", *end]))
    stamp = {"commit": commit(), "date": date.today().isoformat(), "load": load}
    facts = json.loads(out.with_suffix(".json").read_text()) | stamp
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1))


def commit() -> str:
    """Short hash of the working tree's commit, with a + where files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def rows_of(detectors: Sequence[str], *, first: bool) -> list[tuple[str, str]]:
    """Library and detector of each row of a data set, in the order in which they run."""
    pairs = [(library, detector) for detector in detectors for library in ("andon", "anomalib")]
    return [(a, d) for a, d in pairs if (first or d not in ONCE) and (a == "andon" or d not in ALONE)]


# Accuracy ---------------------------------------------------------------------------------------------------------------


def read_row(out: Path, folder: Path) -> Facts:
    """What a row measured, and its accuracy."""
    facts: Facts = json.loads(out.with_suffix(".json").read_text())
    with np.load(out.with_suffix(".npz")) as row:
        ids, scores = [str(x) for x in row["ids"]], row["scores"]
        maps = [row[f"map_{k}"] for k in range(len(ids))]
    expected = sorted(f"{p.parent.name}/{p.name}" for p in folder.glob("test/*/*.png"))
    assert sorted(ids) == expected, f"{out.name} answered for other pictures"
    labels = [int(x.startswith("defective/")) for x in ids]
    facts["image_auroc"] = auroc(scores, labels)
    if (folder / "ground_truth").is_dir():
        ranking = PixelRanking()
        for name, label, anomaly_map in zip(ids, labels, maps, strict=True):
            file = folder / "ground_truth" / name
            width, height = Image.open(folder / "test" / name).size
            mask = np.asarray(Image.open(file)) > 0 if file.is_file() else np.zeros((height, width), bool)
            ranking.add(enlarged(anomaly_map, height, width), mask, label=label)
        facts["pixel_auroc"] = ranking.auroc()
    return facts


def enlarged(anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of a library at the size of its picture, bilinear."""
    found = torch.from_numpy(anomaly_map.squeeze()).float()[None, None]
    return F.interpolate(found, size=(height, width), mode="bilinear")[0, 0].numpy()


def real_time() -> bool:
    """Whether this process, and so every row, runs before all ordinary ones."""
    return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO


def check_features(rows: Mapping[tuple[str, str], Facts]) -> float:
    """Largest relative difference between the two libraries' features of a fixed picture; refuses to compare other networks."""
    worst = 0.0
    for detector in {d for library, d in rows if library == "anomalib"}:
        ours, theirs = (rows[library, detector]["features"] for library in ("andon", "anomalib"))
        assert ours.keys() == theirs.keys()
        worst = max(worst, *(abs(theirs[tap] / ours[tap] - 1) for tap in ours))
    assert worst < 1e-4, f"features differ by {worst:.1e}: these are not the same weights"
    return worst


# The page ---------------------------------------------------------------------------------------------------------------

COLUMNS = {
    "fit_s": ("fit s", "{:.1f}", 1),
    "forward_ms": ("network p50 ms", "{:.1f}", 1),
    "file_ms": ("file to score p50 ms", "{:.1f}", 1),
    "peak_mib": ("peak MiB", "{:.0f}", 1),
    "image_auroc": ("image AUROC", "{:.3f}", -1),
    "pixel_auroc": ("pixel AUROC", "{:.3f}", -1),
}
"""By fact: heading, format, and 1 where less is better, -1 where more is."""


def table(rows: Mapping[tuple[str, str], Facts]) -> list[str]:
    """Markdown rows of one data set."""
    lines = [
        "| detector | library | " + " | ".join(c[0] for c in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for (library, detector), facts in rows.items():
        cells = [form.format(facts[key]) if key in facts else "–" for key, (_, form, _) in COLUMNS.items()]
        lines.append(f"| {detector} | {library} | " + " | ".join(cells) + " |")
    return lines


def verdicts(name: str, rows: Mapping[tuple[str, str], Facts]) -> list[str]:
    """One line for each pair: in what either library is better by more than can be seen in the rounding (1 % or 0.001)."""
    lines = []
    for detector in dict.fromkeys(d for library, d in rows if library == "anomalib"):
        ours, theirs = rows["andon", detector], rows["anomalib", detector]
        better: dict[str, list[str]] = {"andon": [], "anomalib": []}
        for key, (heading, form, sign) in COLUMNS.items():
            if key not in ours:
                continue
            gain = sign * (theirs[key] - ours[key])
            if abs(gain) > (0.01 * ours[key] if sign > 0 else 0.001):
                pair = f"{heading} ({form.format(ours[key])} against {form.format(theirs[key])})"
                better["andon" if gain > 0 else "anomalib"].append(pair)
        found = [
            f"{library} better in {', '.join(what) if what else 'nothing'}"
            for library, what in better.items()
        ]
        lines.append(f"- {detector} on {name}: " + "; ".join(found) + ".")
    return lines


def page(
    imports: Mapping[str, Mapping[str, float]],
    data: Mapping[str, Mapping[tuple[str, str], Facts]],
    notes: Facts,
) -> str:
    """The Markdown page."""
    text = (HERE / "peers_page.md").read_text(encoding="utf-8")
    lines = ["| | andon s | anomalib s |", "|---|---|---|"]
    lines += [f"| {what} | {t['andon']:.2f} | {t['anomalib']:.2f} |" for what, t in imports.items()]
    tables = []
    for name, rows in data.items():
        tables += [f"### {name}", "", notes["pictures"][name], "", *table(rows), ""]
    summary = [line for name, rows in data.items() for line in verdicts(name, rows)]
    parts = {"imports": lines, "tables": tables[:-1], "summary": summary}
    return text.format(**{key: "\n".join(value) for key, value in parts.items()}, **notes)


def describe(folder: Path) -> str:
    """How many pictures a folder holds."""
    count = {
        part: len(list(folder.glob(f"{part}/*.png")))
        for part in ("train/good", "validation/good", "test/good")
    }
    masks = "exact masks" if (folder / "ground_truth").is_dir() else "no masks: image level only"
    defective = len(list(folder.glob("test/defective/*.png")))
    return (
        f"{count['train/good']} good pictures to learn from, {count['validation/good']} held out (only andon looks at "
        f"them, for its threshold), {count['test/good']} good and {defective} defective ones to test; {masks}."
    )


def main() -> None:
    """Prepare, run the rows, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", type=Path, help="Python of an environment with anomalib; default: make one"
    )
    parser.add_argument("--data", default="embedded:fabric,embedded:pcb")
    parser.add_argument("--detectors", default=",".join(ROWS))
    parser.add_argument(
        "--efficientad", default="starter", help="andon's recipe of EfficientAD, whose teacher both have"
    )
    parser.add_argument("--pictures", type=int, default=60, help="most pictures to learn from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40, help="calls whose median is the latency")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/peers"), help="environment, pictures and rows"
    )
    parser.add_argument("--out", type=Path, help="page to write; default: standard output")
    parser.add_argument("--fresh", action="store_true", help="run rows again that are there")
    options = parser.parse_args()
    pythons = {"andon": Path(sys.executable), "anomalib": peer_python(options.peer_python, options.work)}
    imports = import_seconds(pythons, options.threads)
    data: dict[str, dict[tuple[str, str], Facts]] = {}
    pictures = {}
    for source in options.data.split(","):
        name = Path(source.removeprefix("embedded:")).name.replace(".", "_")
        folder = options.work / "data" / f"{name}-{options.pictures}"
        if not (folder / "complete").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            write_pictures(source, options.pictures, folder)
        rows: dict[tuple[str, str], Facts] = {}
        for library, detector in rows_of(options.detectors.split(","), first=not data):
            out = options.work / "rows" / f"{folder.name}-{library}-{detector}-{options.threads}"
            out.parent.mkdir(parents=True, exist_ok=True)
            run_row(library, detector, folder, out, pythons[library], options)
            rows[library, detector] = read_row(out, folder)
        data[name], pictures[name] = rows, describe(folder)
    text = page(imports, data, notes_of(data, pictures, options))
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


def notes_of(
    data: Mapping[str, Mapping[tuple[str, str], Facts]], pictures: dict[str, str], options: argparse.Namespace
) -> Facts:
    """Everything the page says beside its tables."""
    from andon.exporting.latency import describe_machine

    rows = [facts for each in data.values() for facts in each.values()]
    peers = [facts for facts in rows if "tensors" in facts]
    versions = dict(sorted({k: v for facts in rows for k, v in facts["versions"].items()}.items()))
    torches = {facts["versions"]["torch"] for facts in rows}
    sources = ",".join(s if s.startswith("embedded:") else Path(s).name for s in options.data.split(","))
    return {
        "command": ("chrt -f 10 " if real_time() else "")
        + f"python benchmarks/peers.py --data {sources} --detectors {options.detectors} --efficientad {options.efficientad} "
        f"--threads {options.threads} --rounds {options.rounds}",
        "dates": " to ".join(dict.fromkeys([min(f["date"] for f in rows), max(f["date"] for f in rows)])),
        "load": f"{min(f['load'] for f in rows)} to {max(f['load'] for f in rows)}",
        "weights": ", ".join(
            sorted({f"`{w.replace(' (', '` (', 1)}" for facts in rows for w in facts.get("weights", ())})
        ),
        "priority": WAITED if real_time() else UPPER_BOUNDS,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "commits": ", ".join(sorted({facts["commit"] for facts in rows})),
        "machine": describe_machine().split(",")[0] + f", {options.threads} threads",
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items())
        + ("" if len(torches) == 1 else f" (torch differs between the two: {', '.join(sorted(torches))})"),
        "tensors": ", ".join(str(n) for n in sorted({facts["tensors"] for facts in peers})),
        "features": f"{max(check_features(each) for each in data.values()):.0e}",
        "pictures": pictures,
    }


if __name__ == "__main__":
    main()
