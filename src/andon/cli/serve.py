"""`andon serve`: judge parts, keep every verdict, stop when something is wrong."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from andon.cli.demo import DATA as DEMO_DATA
from andon.cli.demo import FLASH
from andon.cli.options import say
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.line.line import Line
    from andon.line.settings import LineSettings

app = typer.Typer()
SERVICE_DATA = Path("/var/lib/andon")
"""Folder of the service, made by systemd."""
NEEDED = (
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "sse_starlette",
    "argon2",
    "python_multipart",
    "jinja2",
    "onnxruntime",
    "prometheus_client",
)
"""What the extra `serve` brings."""


class Where(NamedTuple):
    """Where a server listens, and for whom."""

    host: str
    port: int
    names: tuple[str, ...]
    """Further names by which browsers call it."""
    is_open: bool
    """Whether a line without accounts may be reached from other machines."""


@app.command()
def serve(
    station: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE.andon", help="A station and its packed model; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings as a TOML file (docs/reference/line.md).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of verdicts and images; default andon-data.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="URL of a PostgreSQL database; default: SQLite in the data folder.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reached from this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name by which browsers call this server."),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Serve metrics for Prometheus at /metrics.")
    ] = False,
    is_open: Annotated[
        bool,
        typer.Option("--open", help="Let everyone who reaches the address operate a line without accounts."),
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="A simulated line on photographs in the package.")
    ] = False,
    plant: Annotated[
        bool,
        typer.Option("--plant", help="No stations: show those of all lines of a PostgreSQL database."),
    ] = False,
    print_service: Annotated[
        str | None,
        typer.Option(
            metavar="systemd", help="Print the unit file of a service with these options, then end."
        ),
    ] = None,
) -> None:
    """Judge parts from REST and folders, keep every verdict, show the line page, stop the line when something is wrong."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"serve needs {missing[0]}, which is not installed: pip install 'andon[serve]'")
    where = Where(host, port, tuple(allow_host or ()), is_open)
    if demo:
        if print_service or station or config or plant:
            raise UsageError(
                "--demo brings its own station: leave --station, --config, --plant and --print-service out"
            )
        _demo(data, where, metrics=metrics)
        return
    from andon.line.settings import LineSettings

    changes: dict[str, Any] = {"data": data, "database": database, "metrics": metrics or None}
    if print_service is not None and data is None and config is None:
        changes["data"] = SERVICE_DATA
    settings = LineSettings.load(
        config,
        stations=station or [],
        changes={k: v for k, v in changes.items() if v is not None},
        plant=plant,
    )
    if print_service is None:
        _serve(settings, where)
    elif print_service == "systemd":
        _print_unit(settings, station or [], config, where, plant=plant)
    else:
        raise UsageError(f"--print-service {print_service}: only systemd is known")


def _serve(settings: LineSettings, where: Where, *, demo: bool = False) -> None:
    from andon.line.line import Line
    from andon.line.server import address, check_ports, log_to_stderr, serve

    check_ports(settings, where.host, where.port)
    log_to_stderr()
    line = Line(settings)
    shows = f"andon: {address(where.host, where.port)} shows the line; Ctrl-C ends it"
    with _camera(line) if demo else contextlib.nullcontext():
        serve(
            line,
            where.host,
            where.port,
            names=where.names,
            is_open=where.is_open,
            listening=lambda: say(shows),
        )


@contextlib.contextmanager
def _camera(line: Line) -> Iterator[None]:
    from andon.datasets.embedded_cache import generated_folder
    from andon.line.demo import Camera

    camera = Camera(line, generated_folder(DEMO_DATA))
    camera.start()
    try:
        yield
    finally:
        camera.stop()


def _demo(data: Path | None, where: Where, *, metrics: bool) -> None:
    from andon.line.demo import STATION
    from andon.line.settings import LineSettings

    model = _demo_model()
    with tempfile.TemporaryDirectory(prefix="andon-demo-") as folder:
        changes: dict[str, Any] = {"name": "demo", "data": data or Path(folder), "metrics": metrics}
        settings = LineSettings.load(stations=[f"{STATION}={model}"], changes=changes)
        say(
            "andon: good parts for a minute, then a fault. Stop: Space acknowledges, 1 to 6 give the cause, Enter resumes"
        )
        _serve(settings, where, demo=True)


def _demo_model() -> Path:
    """The packed model of the demo, made once and kept."""
    from andon.core.paths import cache_dir
    from andon.core.version import VERSION

    kept = cache_dir() / "demo" / f"cookies-{VERSION}.andon"
    if kept.is_file():
        return kept
    if find_spec("torch") is None:
        raise UsageError(
            f"the model of the demo is made once with PyTorch, which is not installed: run `andon serve --demo` where it is, "
            f"and copy {kept} here"
        )
    from andon.core.progress import default_progress
    from andon.detectors._recipes import choose_recipe, resolve
    from andon.runs.export import pack_run
    from andon.runs.fit import fit_run
    from andon.runs.source import Source

    say("andon: learning the demo's photographs, once, about a minute")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="andon-demo-", dir=kept.parent) as folder:
        run, made = Path(folder) / "run", Path(folder) / kept.name
        recipe = resolve(choose_recipe(None, None).updated({"exclude": [FLASH]}), {})
        fit_run(run, Source(DEMO_DATA), recipe, progress=default_progress())
        pack_run(run, made)
        made.replace(kept)
    return kept


def _print_unit(
    settings: LineSettings, stations: list[str], config: Path | None, where: Where, *, plant: bool
) -> None:
    """The unit file of a service with these options; paths are absolute in it."""
    from andon.line.server import systemd_unit

    data = settings.data.absolute()
    words = [sys.executable, "-m", "andon", "serve", "--host", where.host, "--port", str(where.port)]
    words += ["--data", str(data), *(["--open"] if where.is_open else [])]
    for station in stations:
        name, _, model = station.partition("=")
        words += ["--station", f"{name}={Path(model).absolute()}"]
    words += ["--config", str(config.absolute())] if config else []
    words += ["--database", settings.database] if settings.database else []
    words += ["--plant"] if plant else []
    words += ["--metrics"] if settings.metrics else []
    for name in where.names:
        words += ["--allow-host", name]
    inboxes = [station.folder.path.absolute() for station in settings.stations if station.folder]
    print(systemd_unit(shlex.join(words), SERVICE_DATA, [data, *inboxes]), end="")
