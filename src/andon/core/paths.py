"""Where andon keeps things between runs: `ANDON_HOME`, or `~/.cache/andon`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Root of everything kept; may be deleted at any time, except for added weights."""
    return Path(os.environ.get("ANDON_HOME") or Path.home() / ".cache" / "andon")


def weights_dir() -> Path:
    """Weight store: one safetensors file and one JSON note per name."""
    return cache_dir() / "weights"
