"""The disk of the tests is as good as empty, however full the machine's is. Tests of a full one say how full."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def with_room(patch: pytest.MonkeyPatch) -> None:
    """Let stores see an empty disk; a process that a test starts does so too."""
    usage = SimpleNamespace(total=10**12, free=9 * 10**11)
    patch.setattr("andon.line.store.images.disk_usage", lambda _folder: usage)
