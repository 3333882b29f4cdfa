"""The disk that stores of the tests see, however full the machine's is: as good as empty, unless a test says how full."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

GB = 10**9


def with_room(patch: pytest.MonkeyPatch, free: int = 900 * GB) -> None:
    """Let stores see a disk of 1000 GB with `free` bytes; a process that a test starts calls this itself."""
    usage = SimpleNamespace(total=1000 * GB, free=free)
    patch.setattr("andon.line.store.images.disk_usage", lambda _folder: usage)
