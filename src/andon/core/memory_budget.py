"""Check that work fits into memory before it starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from andon.core.errors import ConfigError

GIB = 2**30
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of a Linux container (cgroup version 2, version 1)."""


def require_memory(needed: int, allowed_gib: float, what: str, remedy: str) -> None:
    """Raise `ConfigError` when `needed` bytes exceed `allowed_gib` GiB or the memory of the machine.

    `what` (the object that needs them) and `remedy` (how to need less) appear in the message.
    """
    if needed > allowed_gib * GIB:
        raise ConfigError(
            f"{what} would take {_gib(needed)} GiB, memory_gib={allowed_gib:g} are allowed: {remedy}, or raise memory_gib"
        )
    present = machine_memory()
    if present is not None and needed > present:
        raise ConfigError(f"{what} would take {_gib(needed)} GiB, this machine has {_gib(present)}: {remedy}")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}" if size >= GIB else f"{size / GIB:.2g}"


def machine_memory() -> int | None:
    """Bytes of memory of this machine, or of its container where that has fewer; None where unknown."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on every system
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for place in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(Path(place).read_text(encoding="ascii")))
    return min((bytes_ for bytes_ in found if bytes_ > 0), default=None)
