"""What andon answers to packed files that were damaged, changed, or do not fit this machine; prints a Markdown table.

    python benchmarks/packed_messages.py PART.andon PICTURE

Files that were changed on purpose are sealed again, so that it is not their hash that gives them away.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from andon.exporting.packed import _sealed

Members = dict[str, bytes]


def unknown_version(members: Members) -> None:
    """As a later andon might write it."""
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | {"format": 99}).encode()


def lost_check(members: Members) -> None:
    """One check picture less."""
    del members[sorted(name for name in members if name.startswith("checks/"))[0]]


def other_check(members: Members) -> None:
    """A check picture with the content of another, the manifest as it was."""
    first, second = sorted(name for name in members if name.startswith("checks/"))[:2]
    members[first] = members[second]


def main() -> None:
    source, picture = Path(sys.argv[1]), sys.argv[2]
    content = source.read_bytes()
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    print("| file | command | answer | exit |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.andon"

        def answer(what: str, data: bytes, *options: str) -> None:
            part.write_bytes(data)
            command = ["andon", "predict", str(part), picture, *options]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            said = (found.stderr.strip() or found.stdout.strip()).splitlines()[-1]
            shown = " ".join(["andon", "predict", "part.andon", Path(picture).name, *options])
            print(
                f"| {what} | `{shown}` | {said.replace(folder + '/', '')} | {found.returncode} |", flush=True
            )

        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        answer("as packed", content, "--runtime", "onnx")
        answer("one byte changed", bytes(changed))
        answer("cut short", content[: len(content) // 2])
        answer("wrong runtime", content, "--runtime", "tensorrt")
        changes: dict[str, Callable[[Members], None]] = {
            "unknown version": unknown_version,
            "missing check picture": lost_check,
            "check picture exchanged": other_check,
        }
        for what, change in changes.items():
            copy = dict(members)
            change(copy)
            answer(what, _sealed(copy))


if __name__ == "__main__":
    main()
