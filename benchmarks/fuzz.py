"""Damaged and hostile files through check, fit, predict and verify: what andon answers.

    python benchmarks/fuzz.py [--files 10000] [--seed 0] > docs/results/fuzz.md

Files are made from good ones by cutting, flipping bits, writing numbers of extreme size, exchanging blocks, putting other
content under a known suffix, and for text by exchanging values and keys. The commands run in worker processes, one after
another, as a user types them. Counted are: exceptions that no command explains (tracebacks), verdicts OK or NG on an image that
neither Pillow nor tifffile decodes, and workers that were killed or took longer than a minute. Prints a Markdown page; faults
go to stderr with the file's folder, which is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIDE = 48
SHARES = {
    "images": 0.55,
    "masks": 0.1,
    "point clouds": 0.05,
    "packed files": 0.1,
    "manifests": 0.1,
    "recipes": 0.1,
}
BATCH = 50
"""Files that one command gets."""
ESCAPED = 70
"""Exit code that stands for an exception which no command explains."""
PATIENCE = 60.0
"""Seconds that one command may take."""
FIT = ("--detector", "padim", "--recipe", "starter", "--set", "extractor.image_size=64")
POSTSCRIPT = b"%!PS\n/Times findfont 12 scalefont setfont showpage\n"
OTHER = (
    POSTSCRIPT,
    b"%PDF-1.4\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"MZ\x90\0",
    b"PK\x03\x04",
    b"\x7fELF",
    b"",
)
VALUES = ("", "null", "-1", "1e999", "nan", "[]", "{}", "../../etc/passwd", "\0", "[red]", "=1+1", "ü" * 300)
VALUES += ("&a *a", "!!python/object:os.system", "9" * 400)
"""Values that text files get."""


# Making files ----------------------------------------------------------------------------------------------------------


def pixels(rng: random.Random, side: int = SIDE) -> np.ndarray:
    """A grey ramp with noise, (side, side, 3)."""
    noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 40, (side, side, 3))
    return (np.linspace(40, 200, side)[:, None, None] + noise).astype(np.uint8)


SAVED_AS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 90}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {}),
    ".gif": ("GIF", {}),
    ".ppm": ("PPM", {}),
}


def image_bytes(rng: random.Random, suffix: str) -> bytes:
    """A good file of the format."""
    kind, options = SAVED_AS[suffix]
    stream = io.BytesIO()
    mode = rng.choice(["RGB", "RGB", "L"]) if kind not in {"WEBP"} else "RGB"
    image = Image.fromarray(pixels(rng)).convert(mode)
    if kind == "PNG" and rng.random() < 0.2:
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    image.save(stream, kind, **options)
    return stream.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to three damages."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice((cut, flipped, extreme, exchanged, repeated, zeroed, other))(data, rng)
    return data


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def extreme(data: bytes, rng: random.Random) -> bytes:
    """A number of 2 or 4 bytes, mostly near the head, becomes 0, 1, -1, or as large as it can be."""
    if len(data) < 8:
        return data
    size = rng.choice((2, 4))
    at = min(int(rng.expovariate(1 / 24)), len(data) - size)
    value = rng.choice(
        (b"\0" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), b"\x01" + b"\0" * (size - 1))
    )
    return data[:at] + value + data[at + size :]


def exchanged(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[b:] + data[a:b] + data[:a]


def repeated(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:b] + data[a:b] * rng.randint(1, 4) + data[b:]


def zeroed(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] + bytes(b - a) + data[b:]


def other(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(OTHER) + data[: rng.choice((0, 0, len(data)))]


def mangled_text(text: str, rng: random.Random) -> str:
    """Lines or values of a text file exchanged, doubled, or replaced."""
    pieces = text.split("\n")
    for _ in range(rng.randint(1, 4)):
        k = rng.randrange(len(pieces))
        line = pieces[k]
        value = rng.choice(VALUES)
        words = line.split(rng.choice((":", ",", " ", '"')))
        words[rng.randrange(len(words))] = value
        pieces[k] = rng.choice((":", ",", " ", '"')).join(words)
        if rng.random() < 0.3:
            pieces.insert(rng.randrange(len(pieces) + 1), line)
    return "\n".join(pieces)


def decodes(path: Path) -> bool:
    """Whether Pillow, or tifffile for TIFF, reads every pixel of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception), Image.open(path) as image:
            image.load()
            return True
        with contextlib.suppress(Exception), tifffile.TiffFile(path) as tiff:
            tiff.pages[0].asarray()
            return True
    return False


# Running commands ------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a command did."""

    code: int | None
    """None: the process was killed or took too long."""
    out: str = ""
    err: str = ""
    peak_gb: float = 0.0


def _work(requests: multiprocessing.connection.Connection) -> None:
    """Run commands in this process as they come."""
    from andon.cli.main import main

    while True:
        try:
            arguments = requests.recv()
        except EOFError:  # the end
            return
        out, err, code = io.StringIO(), io.StringIO(), 0
        sys.argv = ["andon", *arguments]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException as error:  # what escapes is a traceback for the user
                code = ESCAPED
                print(f"{type(error).__name__}: {error}", file=err)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        requests.send(Answer(code, out.getvalue(), err.getvalue(), peak))


class Worker:
    """A process that runs commands; a new one after each that was lost."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, *arguments: str | Path, patience: float = PATIENCE) -> Answer:
        self.connection.send([str(a) for a in arguments])
        try:
            if self.connection.poll(patience):
                return self.connection.recv()
        except EOFError:
            pass
        self.process.kill()
        self.process.join()
        self._start()
        return Answer(None)


@dataclass
class Tally:
    """Counts of one kind of file."""

    files: int = 0
    commands: int = 0
    refused: int = 0
    tracebacks: int = 0
    lost: int = 0
    wrong_verdicts: int = 0
    peak_gb: float = 0.0
    seconds: float = 0.0

    def take(self, answer: Answer, folder: Path) -> None:
        self.commands += 1
        self.refused += answer.code == 2
        self.peak_gb = max(self.peak_gb, answer.peak_gb)
        if answer.code is None:
            self.lost += 1
        elif answer.code == ESCAPED or "Traceback" in answer.err:
            self.tracebacks += 1
        else:
            return
        print(f"fault: {folder}: {answer.code}: {answer.err[-600:]}", file=sys.stderr, flush=True)


Try = Callable[[Worker, Path, random.Random, int, Tally], None]


# Each kind of file -----------------------------------------------------------------------------------------------------


class Trials:
    """Good files to damage, and what is done with the damaged ones."""

    def __init__(self, root: Path, worker: Worker) -> None:
        rng = random.Random(0)
        self.good = root / "good"
        self.good.mkdir()
        for k in range(12):
            Image.fromarray(pixels(rng)).save(self.good / f"{k}.png")
        self.run = root / "run"
        for arguments in (
            ("fit", self.good, *FIT, "--out", self.run),
            ("pack", self.run, "--out", root / "good.andon"),
        ):
            answer = worker.run(*arguments, patience=600)
            assert answer.code == 0, answer.err
        self.pack = (root / "good.andon").read_bytes()
        self.recipe = resources.files("andon").joinpath("recipes/efficientad_ast/starter.yaml").read_text()

    def images(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """check, predict, and sometimes fit."""
        unreadable = set()
        for k in range(count):
            suffix = rng.choice(list(SAVED_AS))
            path = folder / f"{k}{suffix}"
            path.write_bytes(damaged(image_bytes(rng, suffix), rng))
            if not decodes(path):
                unreadable.add(str(path))
        answer = worker.run("predict", self.run, folder, "--json")
        tally.take(answer, folder)
        if answer.code in (0, 2) and answer.out:
            for row in json.loads(answer.out)["predictions"]:
                if row["path"] in unreadable and row["verdict"] in {"OK", "NG"}:
                    tally.wrong_verdicts += 1
                    print(f"fault: verdict on unreadable: {row['path']}", file=sys.stderr)
        tally.take(worker.run("data", "check", folder, "--json"), folder)
        if rng.random() < 0.2:
            for path in self.good.iterdir():
                shutil.copy(path, folder / f"good{path.name}")
            fit = ("fit", folder, *FIT, "--skip-unreadable", "--out", folder.with_name(folder.name + "-run"))
            tally.take(worker.run(*fit), folder)

    def masks(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """A data set whose masks are damaged: check and evaluate."""
        for k in range(4):
            self._copy(folder / "train/good", k)
            self._copy(folder / "test/good", k)
        for k in range(count):
            self._copy(folder / "test/hole", k)
            path = folder / f"ground_truth/hole/{k}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[10:20, 10:20] = rng.choice((255, 1, 128))
            Image.fromarray(mask if rng.random() < 0.8 else 255 - mask).save(stream, "PNG")
            path.write_bytes(damaged(stream.getvalue(), rng) if rng.random() < 0.5 else stream.getvalue())
        tally.take(worker.run("data", "check", folder, "--json"), folder)
        tally.take(
            worker.run(
                "evaluate", self.run, "--data", folder, "--out", folder.with_name(folder.name + "-report")
            ),
            folder,
        )

    def _copy(self, folder: Path, k: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.good / f"{k % 8}.png", folder / f"{k}.png")

    def clouds(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """A data set with damaged point clouds: check."""
        for k in range(count):
            part = rng.choice(("train/good", "validation/good", "test/good", "test/hole"))
            self._copy(folder / part / "rgb", k)
            path = folder / part / f"xyz/{k}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            cloud = np.random.default_rng(k).normal(size=(SIDE, SIDE, 3)).astype(np.float32)
            cloud[: rng.randrange(SIDE)] = rng.choice((np.nan, 0, -1e30, np.inf))
            stream = io.BytesIO()
            tifffile.imwrite(stream, cloud)
            path.write_bytes(damaged(stream.getvalue(), rng) if rng.random() < 0.7 else stream.getvalue())
        tally.take(worker.run("data", "check", folder, "--layout", "mvtec_3d", "--json"), folder)

    def packs(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """Packed files: damaged as a whole, and with damaged members; verify and predict."""
        for k in range(count):
            path = folder / f"{k}.andon"
            path.write_bytes(damaged(self.pack, rng) if rng.random() < 0.4 else self._other_member(rng))
            tally.take(worker.run("verify", path), path)
            tally.take(worker.run("predict", path, self.good / "0.png", "--json"), path)

    def _other_member(self, rng: random.Random) -> bytes:
        """The packed file with one member changed, and mostly with the hash that belongs to it."""
        with zipfile.ZipFile(io.BytesIO(self.pack)) as pack:
            members = {name: pack.read(name) for name in pack.namelist()}
        changed = rng.choice(
            [name for name in members if not name.startswith("checks/")] + ["checks/000.png"]
        )
        text = changed.endswith((".json", ".yaml"))
        data = members[changed]
        members[changed] = mangled_text(data.decode(), rng).encode() if text else damaged(data, rng)
        if changed != "manifest.json" and rng.random() < 0.8:
            manifest = json.loads(members["manifest.json"])
            found = members[changed]
            manifest["members"][changed] = {"size": len(found), "sha256": hashlib.sha256(found).hexdigest()}
            members["manifest.json"] = json.dumps(manifest).encode()
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as new:
            for name, content in members.items():
                new.writestr(name, content)
        return stream.getvalue()

    def manifests(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """Manifests of a data set: check."""
        for k in range(12):
            self._copy(folder / "images", k)
        rows = "\n".join(f"images/{k}.png,{'train' if k < 5 else 'test'},{int(k > 6)}" for k in range(8))
        text = f"image,split,label\n{rows}\n"
        objects = [{"image": f"images/{k}.png", "split": "train", "label": 0} for k in range(8)]
        for _ in range(count):
            suffix = rng.choice((".csv", ".json", ".jsonl"))
            source = {
                ".csv": text,
                ".json": json.dumps(objects, indent=1),
                ".jsonl": "\n".join(map(json.dumps, objects)),
            }[suffix]
            for old in folder.glob("manifest.*"):
                old.unlink()
            path = folder / f"manifest{suffix}"
            content = mangled_text(source, rng).encode("utf-8", "surrogateescape")
            path.write_bytes(content if rng.random() < 0.7 else damaged(source.encode(), rng))
            tally.take(worker.run("data", "check", folder, "--json"), path)

    def recipes(self, worker: Worker, folder: Path, rng: random.Random, count: int, tally: Tally) -> None:
        """Recipes: shown, which parses all of their settings."""
        for k in range(count):
            path = folder / f"{k}.yaml"
            content = mangled_text(self.recipe, rng).encode("utf-8", "surrogateescape")
            path.write_bytes(content if rng.random() < 0.7 else damaged(self.recipe.encode(), rng))
            tally.take(worker.run("recipes", path), path)


def batches(files: int) -> Iterator[int]:
    """Sizes of the batches."""
    while files > 0:
        yield min(BATCH, files)
        files -= BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(SHARES))
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="andon-fuzz-"))
    os.environ.update(ANDON_HOME=str(root / "home"), ANDON_OFFLINE="1", NO_COLOR="1")
    worker = Worker()
    trials = Trials(root, worker)
    tries: dict[str, Try] = {
        "images": trials.images,
        "masks": trials.masks,
        "point clouds": trials.clouds,
        "packed files": trials.packs,
        "manifests": trials.manifests,
        "recipes": trials.recipes,
    }
    tallies = {}
    for kind, share in SHARES.items():
        if options.only not in (None, kind):
            continue
        tally = tallies[kind] = Tally()
        began = time.perf_counter()
        for number, count in enumerate(batches(round(share * options.files))):
            folder = root / kind.replace(" ", "-") / str(number)
            folder.mkdir(parents=True)
            faults = tally.tracebacks + tally.lost + tally.wrong_verdicts
            tries[kind](worker, folder, random.Random(f"{options.seed} {kind} {number}"), count, tally)
            tally.files += count
            if faults == tally.tracebacks + tally.lost + tally.wrong_verdicts:
                for made in folder.parent.glob(f"{folder.name}*"):
                    shutil.rmtree(made)
        tally.seconds = time.perf_counter() - began
        print(f"{kind}: {tally}", file=sys.stderr, flush=True)
    print_page(tallies, options)


def print_page(tallies: dict[str, Tally], options: argparse.Namespace) -> None:
    columns = [
        "files",
        "number",
        "commands",
        "refused (exit 2)",
        "tracebacks",
        "verdicts on unreadable images",
    ]
    columns += ["killed or longer than a minute", "peak memory (GB)", "seconds"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for kind, t in tallies.items():
        cells: Sequence[object] = (
            kind,
            t.files,
            t.commands,
            t.refused,
            t.tracebacks,
            t.wrong_verdicts,
            t.lost,
            f"{t.peak_gb:.1f}",
            f"{t.seconds:.0f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
