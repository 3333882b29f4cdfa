"""Runs the web application of a line until it is told to stop. uvicorn is imported here."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import uvicorn

from andon.core.errors import UsageError
from andon.line.addresses import is_loopback
from andon.line.line import Line
from andon.line.rest import create_app
from andon.line.settings import LineSettings

LOG = logging.getLogger(__name__)
STOP_SECONDS = 10.0
"""Time in which waiting parts are judged and open requests answered at the end."""
EVERYWHERE = {"", "0.0.0.0", "::"}
"""Addresses that stand for every one of this computer."""
BACKLOG = 2048
"""Connections that wait to be accepted, as uvicorn has it."""


class Server(uvicorn.Server):
    """uvicorn that tells the readers of events to go before it waits for open requests."""

    def __init__(self, line: Line, names: Collection[str] = ()) -> None:
        """`names`: by which the server may be called, besides addresses and `localhost`."""
        self._line = line
        super().__init__(
            uvicorn.Config(
                create_app(line, hosts=names),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(STOP_SECONDS),
                proxy_headers=False,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at SIGTERM and Ctrl-C. uvicorn would raise the signal again at the end, before the line is stopped."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of events, then wait for open requests."""
        self._line.events.close()
        await super().shutdown(sockets)


def serve(
    line: Line,
    host: str,
    port: int,
    *,
    names: Collection[str] = (),
    is_open: bool = False,
    listening: Callable[[], object] = lambda: None,
) -> None:
    """Start the line, serve it, and stop it at SIGTERM or Ctrl-C.

    `names`: further names of this server; `listening` is called once the address is taken.

    Raises `UsageError` where the address cannot be used, and where other machines reach it and there are neither accounts nor
    tokens, unless `is_open`.
    """
    try:
        if not (is_open or is_loopback(host) or line.accounts.are_required):
            raise UsageError(
                f"{host} is reached from other machines, and there are no accounts: make one (andon account add NAME), "
                "listen on 127.0.0.1, or let everyone operate the line (--open)"
            )
        with contextlib.closing(listen(host, port)) as taken:
            listening()
            line.start()
            with watchdog(line):
                Server(line, {*names, *_own_names(host)}).run(sockets=[taken])
    finally:
        notify("STOPPING=1")
        line.stop(STOP_SECONDS)


def check_ports(settings: LineSettings, host: str, port: int) -> None:
    """Raises `UsageError` where pages, PLCs and OPC UA would listen on the same port of an address."""
    places = [("--port", host, port)]
    if any(station.plc and not station.plc.connect for station in settings.stations):
        places.append(("[modbus] port", settings.modbus.host, settings.modbus.port))
    if settings.opcua:
        places.append(("[opcua] port", settings.opcua.host, settings.opcua.port))
    for (one, its_host, its_port), (other, other_host, other_port) in combinations(places, 2):
        meet = its_host == other_host or EVERYWHERE & {its_host, other_host}
        if its_port == other_port and meet:
            raise UsageError(f"{one} and {other} are both {its_port}: choose another for one of them")


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    name = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def log_to_stderr() -> None:
    """One line for each message: UTC time, level, logger, text."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    form.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)


def notify(message: str) -> None:
    """One datagram to systemd, as `sd_notify`; nothing where systemd did not ask for it."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), "\0" + place[1:] if place.startswith("@") else place)


@contextlib.contextmanager
def watchdog(line: Line) -> Iterator[None]:
    """Tell systemd READY once every model is verified or found wrong, and every half `WATCHDOG_USEC` that the line lives."""
    ended = threading.Event()
    period = int(os.environ.get("WATCHDOG_USEC", "0") or 0) / 2e6 or 1.0

    def tell() -> None:
        told = False
        while not ended.wait(min(period, 1.0)):
            if not told and all(s.is_verified or s.faults for s in line.stations.values()):
                notify("READY=1")  # with faults too, which the page shows
                reasons = line.health().reasons
                if reasons:
                    LOG.warning("not ready: %s", "; ".join(reasons))
                else:
                    LOG.info("all stations are ready")
                told = True
            if line.health().live:
                notify("WATCHDOG=1")

    thread = threading.Thread(target=tell, name="andon-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def systemd_unit(command: str, home: Path, writes: Iterable[Path]) -> str:
    """Unit file of a service that runs `command` in the folder `home`, which systemd makes; it also `writes` to folders."""
    outside = [folder for folder in writes if not folder.is_relative_to(home)]
    lines = "".join(f"ReadWritePaths={folder}\n" for folder in outside)
    return UNIT.format(command=command.replace("%", "%%"), user=getpass.getuser(), writes=lines, home=home)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens: no other has its address. Raises `UsageError` where the address cannot be used."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{host} port {port} cannot be used ({why}): choose another --port or --host"
        ) from None
    return taken


def _own_names(host: str) -> set[str]:
    return set() if is_loopback(host) else {host, socket.gethostname()}


UNIT = """\
[Unit]
Description=andon line
After=network.target

[Service]
Type=notify
ExecStart={command}
WatchdogSec=10
Restart=always
RestartSec=1
TimeoutStartSec=300
TimeoutStopSec=30
User={user}
StateDirectory={home.name}
WorkingDirectory={home}
Environment=ANDON_HOME={home}/home
{writes}ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""
