"""Whether the packages are installed that write and execute network files."""

from __future__ import annotations

from importlib.util import find_spec

from andon.core.errors import ConfigError

WRITERS = ("onnx", "onnxscript")
"""Packages that write a network file."""


def check_installed(*runtimes: str) -> None:
    """Raise `ConfigError` where a package is missing that writes network files, or one of `runtimes` to execute them."""
    missing = [name for name in (*WRITERS, *runtimes) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"exporting needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'andon[export]'"
        )
