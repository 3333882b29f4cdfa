"""Folders that andon keeps between runs, below `ANDON_HOME` (default `~/.cache/andon`)."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Root of the caches and of the weight store. Only weights added by hand are lost when it is deleted."""
    return Path(os.environ.get("ANDON_HOME") or Path.home() / ".cache" / "andon")


def weights_dir() -> Path:
    """Weight store: one safetensors file and one JSON note per name."""
    return cache_dir() / "weights"
