"""Refusing work that would not fit into memory, before it starts."""

from __future__ import annotations

from andon.errors import ConfigError

GIB = 2**30


def require_memory(needed: int, allowed_gib: float, what: str, remedy: str) -> None:
    """Raise `ConfigError` when `needed` bytes are more than `allowed_gib`; the message names `what` and the `remedy`."""
    if needed > allowed_gib * GIB:
        raise ConfigError(
            f"{what} would take {needed / GIB:.1f} GiB, memory_gib={allowed_gib:g} are allowed: {remedy}, or raise memory_gib"
        )
