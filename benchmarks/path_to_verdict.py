"""How much of andon runs between an image file and its verdict, and between a data set and a fitted run.

    python benchmarks/path_to_verdict.py [--package SRC] [--detectors efficientad_ast,patchcore,east]

`--package` is the folder that holds the package `andon` (default: the installed one), so that older versions can be counted.

Counted are executed Python files, functions and lines of the package itself, in all threads, by `sys.settrace`. Each call is made
once before on other images, so that imports are over; code of modules and classes outside functions never counts. A function
is a code object (comprehensions and lambdas count too), a line counts once however often it is executed.

A second table counts, in whole commands, what once is enough for: files decoded, data sets opened, detectors and networks
built, weight files hashed, settings of the detector parsed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from PIL import Image

COMMON = {"extractor.image_size": 64}
SETTINGS: dict[str, dict[str, object]] = {
    "efficientad_ast": {
        **COMMON,
        "extractor.taps": ["layer2"],
        "extractor.project": 16,
        "teacher.hidden": 8,
        "teacher.kernels": [3, 3],
        "teacher.epochs": 1,
        "student.width": 16,
        "student.blocks": 1,
        "student.penalty": 0.0,
        "autoencoder.bottleneck": 8,
        "epochs": 1,
    },
    "patchcore": {**COMMON, "resize": None, "size": 64, "projection": 32},
    "east": {**COMMON, "extractor.taps": ["layer1", "layer2"], "bank": 100},
}
"""Changes to the starter recipes at which they learn in a second; the weights are the embedded ones."""
CALLS = ("decodes", "data sets", "detectors", "networks", "weight hashes", "settings parsed", "--set parsed")
SIDE = 64


class Executed:
    """What was executed."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}{os.sep}"
        self.codes: set[CodeType] = set()
        self.lines: set[tuple[str, int]] = set()
        self.calls: Counter[str] = Counter()
        self.decoded: set[str] = set()

    @property
    def files(self) -> list[str]:
        """Files of the package of which a function was executed, relative to it."""
        return sorted({code.co_filename.removeprefix(self.root) for code in self.codes})

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if (
            code.co_qualname == "BaseModel.__init__"
            and "false_reject_rate" in type(frame.f_locals["self"]).model_fields
        ):
            self.calls["settings parsed"] += 1
        if not code.co_filename.startswith(self.root) or not code.co_flags & inspect.CO_OPTIMIZED:
            return None
        self.codes.add(code)
        self._count(code.co_qualname, frame.f_locals)
        return self._line

    def _count(self, name: str, values: dict[str, Any]) -> None:
        if name == "decode":
            self.calls["decodes"] += 1
            self.decoded.add(str(values["path"]))
        elif name == "open_dataset":
            self.calls["data sets"] += 1
        elif name == "Detector.__init__":
            self.calls["detectors"] += 1
        elif name == "Backbone.create":
            self.calls["networks"] += 1
        elif name == "locate" and values["name"] != "random":
            self.calls["weight hashes"] += 1
        elif name == "parse_assignments":
            self.calls["--set parsed"] += 1
        elif name == "Config.parse" and "false_reject_rate" in values["cls"].model_fields:
            self.calls["settings parsed"] += 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]


def watched(root: Path, call: Callable[[int], object]) -> Executed:
    """What `call(1)` executes after `call(0)`."""
    call(0)
    found = Executed(root)
    with found.watching():
        call(1)
    return found


def write_data(root: Path, first: int) -> Path:
    """Good and stained images in the layout of MVTec AD; `first` seeds them."""
    for place, count, stain in (("train/good", 12, 0), ("test/good", 4, 0), ("test/stain", 4, 1)):
        for k in range(count):
            rng = np.random.default_rng([first, k, stain])
            pixels = rng.integers(90, 130, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[20:36, 10 + k : 26 + k] += np.uint8(100 * stain)
            path = root / place / f"{k:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def count(name: str, root: Path, folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of both tables for a detector."""
    from typer.main import get_command

    import andon
    from andon.cli.main import app

    command = get_command(app)

    def run(*arguments: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            command.main([str(a) for a in arguments], standalone_mode=False)

    data = [write_data(folder / f"cloth{k}", k) for k in range(2)]
    settings = [
        part
        for key, value in SETTINGS[name].items()
        for part in ("--set", f"{key}={'null' if value is None else value}".replace("'", ""))
    ]
    runs = [folder / f"run{k}" for k in range(2)]
    files = [sorted((data[k] / "test").rglob("*.png")) for k in range(2)]

    def fit(k: int) -> None:
        run("fit", data[k], "-d", name, *settings, "--device", "cpu", "--out", runs[k])

    def demo(k: int) -> None:
        run("demo", data[k], "-d", name, *settings, "--out", folder / f"demo{k}")

    whole = {"andon fit": watched(root, fit)}
    whole["andon predict"] = watched(root, lambda k: run("predict", runs[1], *files[k]))
    whole["andon predict --save"] = watched(
        root, lambda k: run("predict", runs[1], *files[k], "--save", folder / f"maps{k}")
    )
    whole["andon evaluate"] = watched(root, lambda k: run("evaluate", runs[k]))
    whole["andon demo"] = watched(root, demo)
    run("export", runs[1])
    detector, network = andon.load(runs[1]), andon.load(runs[1], "onnx")
    plain = {key.replace(".", "__"): value for key, value in SETTINGS[name].items()}
    fresh, sets = (
        [andon.create(name, **plain) for _ in range(2)],
        [andon.open_dataset(folder) for folder in data],
    )
    trainer = andon.Trainer
    library = {
        "detector.predict(file)": watched(root, lambda k: detector.predict(files[k][0])),
        "exported.predict(file)": watched(root, lambda k: network.predict(files[k][0])),
        "detector.fit(train, validation)": watched(
            root,
            lambda k: fresh[k].fit(
                sets[k].train[: 7 + k], sets[k].train[8 + k :], trainer=trainer(seed=0, device="cpu")
            ),
        ),
    }
    paths = [
        [name, f"`{what}`", *(str(len(x)) for x in (found.files, found.codes, found.lines))]
        for what, found in [*library.items(), *whole.items()]
        if what not in {"andon evaluate", "andon demo", "andon predict --save"}
    ]
    calls = [
        [
            name,
            f"`{what}`",
            f"{found.calls['decodes']} of {len(found.decoded)}",
            *(str(found.calls[call]) for call in CALLS[1:]),
        ]
        for what, found in whole.items()
    ]
    for what, found in library.items():
        print(f"{name}, {what}: {', '.join(found.files)}", file=sys.stderr)
    return paths, calls


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--package", type=Path, help="Folder that holds the package andon.")
    options.add_argument("--detectors", default=",".join(SETTINGS))
    chosen = options.parse_args()
    if chosen.package is not None:
        sys.path.insert(0, str(chosen.package.resolve()))
    import andon

    root = Path(andon.__file__).resolve().parent
    paths, calls = [], []
    for name in chosen.detectors.split(","):
        with tempfile.TemporaryDirectory(prefix="andon-") as folder:
            os.environ["ANDON_HOME"] = str(Path(folder) / "home")
            found = count(name, root, Path(folder))
        paths += found[0]
        calls += found[1]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=root
    ).stdout.strip()
    print(f"Commit {commit}.\n")
    for columns, rows in (
        (("detector", "call", "files", "functions", "lines"), paths),
        (("detector", "command", "decodes of files", *CALLS[1:]), calls),
    ):
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")


if __name__ == "__main__":
    main()
