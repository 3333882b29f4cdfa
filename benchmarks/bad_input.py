"""What andon answers to bad input: every case is made, the real command is run, and a Markdown table is printed.

    python benchmarks/bad_input.py > docs/results/bad_input.md

Run it as root: a full disk is a small tmpfs, which has to be mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

FAST = "--set extractor.image_size=64 --set bank=50"
"""Settings at which the default detector, `east/lite0`, learns in seconds."""


def picture(path: Path, side: int = 64, seed: int = 0, mode: str = "RGB", **options: object) -> Path:
    """A noise picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 190, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def folder(root: Path, count: int = 12, first: int = 0) -> Path:
    """A flat folder of good pictures."""
    for k in range(count):
        picture(root / f"{k:03}.png", seed=first + k)
    return root


def tree(root: Path) -> Path:
    """MVTec AD layout with one defect type and masks."""
    folder(root / "cloth/train/good")
    folder(root / "cloth/test/good", 4, first=100)
    folder(root / "cloth/test/stain", 4, first=200)
    for k in range(4):
        mask(root / f"cloth/ground_truth/stain/{k:03}_mask.png", 64)
    return root


def clouds(root: Path) -> None:
    """MVTec 3D-AD layout, whose clouds have lost their rows and columns."""
    import tifffile

    for part, count in (("train", 4), ("validation", 2), ("test", 1)):
        for k in range(count):
            picture(root / f"peg/{part}/good/rgb/{k:03}.png", seed=k)
            path = root / f"peg/{part}/good/xyz/{k:03}.tiff"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, np.zeros((64 * 64, 3), np.float32), photometric="minisblack")


def mask(path: Path, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((side, side), np.uint8)
    values[: side // 4, : side // 4] = 255
    Image.fromarray(values).save(path)


def main() -> None:
    """Print the table."""
    source = Path(__file__).resolve().parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=source, capture_output=True, text=True, check=True
    ).stdout.strip()
    home = Path(tempfile.mkdtemp())
    os.chdir(home)
    environment = os.environ | {"ANDON_HOME": str(home / "home"), "ANDON_OFFLINE": "1", "COLUMNS": "300"}
    print("# Bad input: what the commands answer\n")
    print(
        f"Commit {commit}, {date.today()}, `python benchmarks/bad_input.py` as root (for the full disk). The script adds\n"
        f"`{FAST}` to each `fit` that names no detector or recipe, so that it takes seconds. DIR is the folder it\n"
        "works in.\n"
    )
    print("| case | command | answer on stderr | exit |\n|---|---|---|---|")

    def row(case: str, command: str, prepare: Callable[[], object] | None = None) -> None:
        if prepare is not None:
            prepare()
        own = "--detector" in command or "--recipe" in command
        fast = f" {FAST}" if command.startswith("fit") and not own else ""
        done = subprocess.run(
            f"{sys.executable} -m andon {command}{fast}",
            shell=True,
            env=environment,
            capture_output=True,
            text=True,
        )
        said = (
            " ⏎ ".join(line for line in done.stderr.splitlines() if line.startswith("andon:")) or "(nothing)"
        )
        said = said.replace(str(home), "DIR")
        cells = (case, f"`andon {command}`", said, str(done.returncode))
        print("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |", flush=True)

    tree(Path("data"))
    folder(Path("good"))
    row("missing folder", "fit nowhere --out out")
    row("folder without pictures", "fit empty --out out", lambda: Path("empty").mkdir())
    row("fewer pictures than a split needs", "fit one --out out", lambda: folder(Path("one"), 1))
    row(
        "text with a picture's name",
        "fit text --out out",
        lambda: (folder(Path("text")) / "bad.png").write_text("no"),
    )
    row("truncated picture", "fit cut --out out", lambda: cut(folder(Path("cut")) / "003.png"))
    row("truncated picture, skipped", "fit cut --out out-skip --skip-unreadable")
    row(
        "zero-byte picture", "fit zero --out out", lambda: (folder(Path("zero")) / "bad.png").write_bytes(b"")
    )
    row("zero-byte picture, skipped", "fit zero --out out-zero --skip-unreadable")
    row("1 x 1 picture", "fit point --out out", lambda: picture(folder(Path("point")) / "bad.png", 1))
    row("16-bit picture: read", "fit deep --out out-deep", lambda: deep(folder(Path("deep")) / "bad.png"))
    row(
        "palette picture: read",
        "fit palette --out out-palette",
        lambda: picture(folder(Path("palette")) / "bad.png", mode="P"),
    )
    row("alpha channel: read", "fit alpha --out out-alpha", lambda: alpha(folder(Path("alpha")) / "bad.png"))
    row(
        "CMYK picture",
        "fit cmyk --out out-cmyk",
        lambda: picture(folder(Path("cmyk")) / "bad.jpg", mode="CMYK"),
    )
    row(
        "EXIF-rotated picture: read upright",
        "fit exif --out out-exif",
        lambda: turned(folder(Path("exif")) / "bad.jpg"),
    )
    row("unknown detector", "fit good --detector eficientad_ast --out out")
    row("unknown recipe", "fit good --recipe efficientad_ast/startr --out out")
    row("unknown setting", "fit good --set extractor.image_sise=256 --out out")
    row("setting of the wrong type", "fit good --set copies=many --out out")
    row(
        "backbone without the asked tap",
        "fit good --set extractor.taps=[blocks.2,layer2] --out out-tap",
    )
    row(
        "one picture, and nothing held out",
        "fit single --detector padim --set hold_out=false --out out-single",
        lambda: folder(Path("single"), 1),
    )
    row(
        "bank larger than memory",
        "fit good --detector patchcore --set memory_gib=0.01 --out out-bank",
    )
    row(
        "point cloud that is not organised",
        "fit clouds --detector ast --recipe starter-3d --out out-cloud",
        lambda: clouds(Path("clouds")),
    )
    row("weights missing", "fit good --detector efficientad_ast --recipe corrected --out out-corrected")
    row(
        "weights of another network",
        "weights add wrong.safetensors --name mine --network resnet18",
        wrong_weights,
    )
    row("run to evaluate", "fit data --out run")
    row("output folder not empty", "fit good --out run")
    row("output folder that is not a run", "fit good --out good --overwrite")
    row(
        "mask of another size", "evaluate run --data small_mask", lambda: small_mask(tree(Path("small_mask")))
    )
    row("mask of another size", "data check small_mask")
    row(
        "mask without picture",
        "data check orphan",
        lambda: mask(tree(Path("orphan")) / "cloth/ground_truth/stain/999_mask.png", 64),
    )
    row("no test pictures", "evaluate out-skip")
    row("damaged picture to predict", "predict run cut/003.png")
    row("run folder that is none", "predict good good/000.png")
    row(
        "detector's settings tampered with",
        "predict settings good/000.png",
        lambda: tampered("settings", "detector.json", b"0.05", b"0.06"),
    )
    row(
        "detector's state tampered with",
        "predict state good/000.png --runtime torch",
        lambda: tampered("state", "state.safetensors"),
    )
    row("disk full", "fit good --out full/run", small_disk)
    row("disk full at output", "detectors --json > /dev/full")
    subprocess.run(["umount", "full"], capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-900])


def deep(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (64, 64), dtype=np.uint16)).save(path)


def alpha(path: Path) -> None:
    pixels = np.full((64, 64, 4), 128, np.uint8)
    Image.fromarray(pixels).save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(path, exif=exif)


def wrong_weights() -> None:
    from safetensors.numpy import save_file

    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, "wrong.safetensors")


def small_mask(root: Path) -> None:
    mask(root / "cloth/ground_truth/stain/002_mask.png", 32)


def tampered(name: str, file: str, old: bytes = b"", new: bytes = b"") -> None:
    shutil.copytree("run", name)
    path = Path(name) / "detector" / file
    content = bytearray(path.read_bytes())
    if old:
        assert old in content
        content = content.replace(old, new)
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def small_disk() -> None:
    Path("full").mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "full"], check=False, capture_output=True
    )


if __name__ == "__main__":
    main()
