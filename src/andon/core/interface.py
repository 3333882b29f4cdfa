"""What server and client of a line agree on."""

from __future__ import annotations

API = "/api/v1"
"""Before every address of the interface."""
LONGEST_WAIT = 60_000
"""Milliseconds that a client may wait for a verdict."""
