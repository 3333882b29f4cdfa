"""A temporary PostgreSQL cluster from Debian's packages, for the tests that carry the mark `service`."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Cluster:
    """A server on a free port of this computer. PostgreSQL refuses to run as root, so it runs as `postgres` then."""

    def __init__(self) -> None:
        self.binaries = BINARIES[-1].parent
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="andon-postgres-", dir=memory))
        self._as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_postgres:
            os.chown(self.folder, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._numbers = itertools.count()
        self._call("initdb", "-D", self.folder / "data", "-U", "andon", "-A", "trust", "-N")
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._call(
            "pg_ctl", "start", "-w", "-D", self.folder / "data", "-o", options, "-l", self.folder / "log"
        )

    def stop(self) -> None:
        """As after a crash: every connection is cut."""
        self._call("pg_ctl", "stop", "-m", "immediate", "-D", self.folder / "data")

    def new_database(self) -> str:
        """URL of an empty database."""
        name = f"test{next(self._numbers)}"
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "andon", name)
        return f"postgresql://andon@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _call(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_postgres, self.binaries / program, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=program != "pg_ctl", text=True)
        assert done.returncode == 0, done.stderr
