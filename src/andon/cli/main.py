"""Entry point: runs a command and turns errors into one line and an exit code.

Exit codes: 0 done, 2 wrong use or unusable input, 1 anything else.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from functools import cache
from typing import Annotated, Any

import typer

from andon.cli import (
    accounts,
    benchmark,
    cameras,
    candidate,
    catalogue,
    data,
    demo,
    golden,
    line,
    pretrain,
    reports,
    runs,
    serve,
    simulate,
    threshold,
    weights,
)
from andon.cli import export as deploy
from andon.cli.empty import refuse_empty_paths
from andon.cli.options import STOPPED, unwrap_help
from andon.core.errors import AndonError, UsageError
from andon.core.files import NO_SPACE, UNWRITABLE
from andon.core.text import printable
from andon.core.version import VERSION

HELP = "Visual anomaly detection: learn from images of good parts, then judge new ones."
app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for commands in (demo.app, runs.app, deploy.app, threshold.app, benchmark.app, catalogue.app, serve.app):
    app.add_typer(commands)
app.add_typer(line.app)
app.add_typer(reports.app)
app.add_typer(simulate.app)
app.add_typer(line.audit_app, name="audit")
app.add_typer(accounts.account_app, name="account")
app.add_typer(accounts.token_app, name="token")
app.add_typer(golden.app, name="golden")
app.add_typer(candidate.app, name="candidate")
app.add_typer(cameras.app, name="camera")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(pretrain.app, name="pretrain")
unwrap_help(app)
CommandLineError: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's UsageError: an unknown command or option, a missing argument. Where Click is differs between versions of Typer."""
LEARNING = {
    "torch",
    "torchvision",
    "timm",
    "matplotlib",
    "safetensors",
    "jinja2",
}
"""Packages that machines which only answer do without."""
SERVING = {
    "sqlalchemy",
    "alembic",
    "fastapi",
    "starlette",
    "uvicorn",
    "multipart",
    "python_multipart",
    "sse_starlette",
    "watchdog",
    "argon2",
    "httpx",
}
"""Packages of the extra `serve`."""


@cache
def command() -> Any:
    """`andon` with all its commands, built once in a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Entry point: runs the command and turns errors into one line and an exit code."""
    warnings.showwarning = _show_warning
    _open_what_is_closed()
    _escape_what_the_terminal_lacks()
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # on a busy machine, spinning threads wait for each other
    try:
        refuse_empty_paths(command(), sys.argv[1:])
        stopped = command()(prog_name="andon", standalone_mode=False) == STOPPED
        sys.stdout.flush()  # a full disk shows here
        if stopped:
            _fail("stopped", 1)
    except CommandLineError as error:
        _explain_usage(error)
    except UsageError as error:
        _fail(str(error), 2)
    except AndonError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 1)
    except ModuleNotFoundError as error:
        if error.name in SERVING:
            _fail(f"this command needs {error.name}, which is not installed: pip install 'andon[serve]'", 2)
        if error.name == "pymodbus":
            _fail("this command needs pymodbus, which is not installed: pip install 'andon[modbus]'", 2)
        if error.name not in LEARNING:
            raise
        _fail(
            f"this command needs {error.name}, which the run-only installation leaves out: pip install andon",
            2,
        )
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.errno in NO_SPACE:
            _discard_output()
            _fail(
                f"no space left on the device ({error.filename or 'while writing'}): free some or choose another folder",
                2,
            )
        if error.errno in UNWRITABLE:
            _discard_output()
            _fail(
                f"{error.filename or 'a file'} may not be read or written ({error.strerror}): change its permissions "
                "or choose another place",
                2,
            )
        raise


def _explain_usage(error: Any) -> None:
    """One line for what Click found wrong with the command line, or the help where nothing was given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    command = error.ctx.command_path if error.ctx is not None else "andon"
    _fail(f"{error.format_message().rstrip('.')}: see `{command} --help`", 2)


def _open_what_is_closed() -> None:
    """Give a process that was started without stdin, stdout or stderr what behaves like it.

    Nothing is read, messages go nowhere, and stdout is a pipe without a reader: what cannot be written ends the command as
    after `| head`. Files that are opened later no longer take the numbers of the standard streams.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.close(writer)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _escape_what_the_terminal_lacks() -> None:
    """Print characters that are not in the encoding of the terminal as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let what is still buffered for stdout go nowhere, so that it does not fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    print(f"andon: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category.__module__.startswith("andon"):
        print(f"andon: warning: {printable(str(message))}", file=sys.stderr)


@app.callback(invoke_without_command=False)
def _options(
    offline: Annotated[
        bool, typer.Option("--offline", help="Forbid every download (also ANDON_OFFLINE=1).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda v: _version(v)),
    ] = False,
) -> None:
    if offline:
        os.environ["ANDON_OFFLINE"] = "1"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"andon {VERSION}")
        raise typer.Exit
