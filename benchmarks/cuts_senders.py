"""Those who send parts in benchmarks/cuts.py, what they note, and a connection that can be cut."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import socket
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from andon.client import Client, ClientError
from andon.line.plc.master import Master, PlcError
from andon.line.plc.registers import Command, Commands, Status, decode
from andon.line.plc.simulate import Plc

CYCLE_SECONDS = 3.0


class Note(NamedTuple):
    """What a sender saw."""

    at: float
    kind: str
    """`asked`, `taken` (the station has acknowledged the trigger), `again` (no answer, asked once more), or a verdict."""
    part: str
    id: int | None = None


class Wire:
    """A TCP connection to a port of this computer that can be cut and mended; `port` is its other end."""

    def __init__(self, target: int) -> None:
        self._target, self._ends = target, list[socket.socket]()
        self.port, self._listening = 0, socket.socket()
        self.mend()

    def cut(self) -> None:
        """Break all connections; new ones are refused."""
        for end in (self._listening, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        """Take connections."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += near, far
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := near.recv(1 << 16):
            far.sendall(content)
        far.shutdown(socket.SHUT_WR)


class Sender(threading.Thread):
    """Sends images to `oven`. A part without an answer within its cycle is bad, and is sent again at the end."""

    def __init__(self, url: str, photos: list[Path], rate: float) -> None:
        super().__init__(daemon=True)
        self.notes: list[Note] = []
        self.ended = threading.Event()
        self.unanswered: dict[str, Path] = {}
        self.why: dict[str, str] = {}
        """The last reason for which a part had no answer."""
        self._client, self._photos, self._rate = Client(url, timeout=CYCLE_SECONDS), photos, rate

    def run(self) -> None:
        photos = cycle(self._photos)
        begin, number = time.monotonic(), 0
        while not self.ended.wait(max(0.0, begin + number / self._rate - time.monotonic())):
            number += 1
            self._send(f"oven-{number}", next(photos))

    def send_again(self) -> None:
        """Send what was not answered."""
        for part, photo in tuple(self.unanswered.items()):
            self.notes.append(Note(time.time(), "again", part))
            self._send(part, photo)

    def _send(self, part: str, photo: Path) -> None:
        self.notes.append(Note(time.time(), "asked", part))
        try:
            answer = self._client.inspect("oven", photo, part_id=part, request_id=part, tries=1)
        except ClientError as error:
            self.unanswered[part], self.why[part] = photo, str(error)
            return
        self.unanswered.pop(part, None)
        self.notes.append(Note(time.time(), answer.verdict, part, answer.id))


class NotingMaster(Master):
    """Writes into a file what the PLC asks and which results it may use."""

    def __init__(self, port: int, notes: Path) -> None:
        super().__init__("127.0.0.1", port)
        self._notes, self._noted = notes.open("a", buffering=1), set[tuple[str, str]]()

    def note(self, kind: str, part: str, id: int | None = None) -> None:
        """Write one line, once for each part and kind."""
        if (kind, part) not in self._noted:
            self._noted.add((kind, part))
            self._notes.write(json.dumps(Note(time.time(), kind, part, id)) + "\n")

    def write(self, commands: Commands) -> None:
        if commands.bits & Command.TRIGGER:
            self.note("asked", commands.part_id)
        super().write(commands)

    def read(self) -> list[int]:
        words = super().read()
        found = decode(words)
        if Status.RESULTS_VALID in found.status and words[1] + words[2] == 0xFFFF:
            self.note(found.verdict.name, f"part {found.trigger_no}", found.inspection)
        return words


class PlcProcess:
    """A PLC in a process of its own, which can be killed and started again."""

    def __init__(self, port: int, folder: Path, rate: float) -> None:
        self._port, self._file, self._rate = port, folder / "plc.jsonl", rate
        self._file.touch()
        self.start()

    @property
    def notes(self) -> list[Note]:
        """What it noted; a line that was cut off by its end is left out."""
        lines = self._file.read_text().splitlines(keepends=True)
        return [Note(*json.loads(line)) for line in lines if line.endswith("\n")]

    def start(self) -> None:
        """Go on after the last number, as a PLC that keeps it over a restart."""
        asked = [int(note.part.split()[1]) for note in self.notes if note.kind == "asked"]
        arguments = (self._port, self._file, max(asked, default=0) + 1, self._rate)
        self._process = multiprocessing.get_context("spawn").Process(target=play, args=arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        """As by a loss of power."""
        self._process.kill()
        self._process.join()


def play(port: int, notes: Path, first: int, rate: float) -> None:
    """Trigger parts until the process is killed."""
    master = NotingMaster(port, notes)
    plc = Plc(master, image=lambda number: master.note("taken", f"part {number}"))
    while True:
        with contextlib.suppress(PlcError):  # a PLC that starts takes enable back first
            master.write(Commands(Command(0), first))
            break
    begin = time.monotonic()
    for cycles, number in enumerate(range(first, 1 << 15), start=1):
        plc.run(1, first=number)
        for violation in plc.result.violations:
            master.note("violation", violation)
        time.sleep(max(0.0, begin + cycles / rate - time.monotonic()))
