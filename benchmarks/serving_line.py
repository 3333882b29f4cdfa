"""A real `andon serve` for benchmarks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from andon.client import Client, ClientError

READY_SECONDS = 300.0


class Served(NamedTuple):
    """A running server."""

    url: str
    port: int
    pid: int

    def processor_seconds(self) -> float:
        """Processor time that the process has used (Linux)."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """`andon serve` in `folder`, with its log in `serve.log`. It may not be ready yet."""
    port = free_port()
    command = [sys.executable, "-m", "andon", "serve", *options, "--port", str(port)]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stderr=log, stdout=log)
        try:
            yield Served(f"http://127.0.0.1:{port}", port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_ready(client: Client) -> None:
    """Wait until all stations judge."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(ClientError):
            if all(station["is_ready"] for station in client.stations()):
                return
        time.sleep(0.2)
    raise SystemExit("andon serve is not ready: see serve.log")


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
