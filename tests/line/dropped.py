"""A line with a drop folder until it is killed. Run by test_inbox_kill.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from andon.line.settings import FolderSettings
from line.running import running


def main(folder: Path, drop: Path) -> None:
    settings = FolderSettings(path=drop, stable_ms=1, poll_ms=50)
    with running(folder, rules=(), folder=settings):
        print("runs", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
