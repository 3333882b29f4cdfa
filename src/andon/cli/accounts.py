"""`andon account`, `andon token`: who may do what on a line that does not run; a running one has its page /accounts."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.line import DEFAULT_FOLDER, Database, DataFolder
from andon.cli.options import Json, print_json, say
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.line.accounts import Account, Accounts, Token

account_app = typer.Typer(help="Accounts of the people of a line.", no_args_is_help=True)
token_app = typer.Typer(help="Tokens of the programs of a line.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the account.")]
TokenName = Annotated[str, typer.Argument(help="Name of the token.")]
ROLES = "viewer, inspector, leader, engineer or admin"


@account_app.command("add")
def add(
    name: Name,
    role: Annotated[
        str | None,
        typer.Option(
            help=f"{ROLES}. Left out, the first account is an admin; every later account needs it.",
            show_default=False,
        ),
    ] = None,
    data: DataFolder = DEFAULT_FOLDER,
    database: Database = "",
) -> None:
    """Make an account; asks for its password, or reads it from the first line of stdin."""
    from andon.line.roles import Role

    chosen = Role.ADMIN if role is None else Role.parse(role)
    with opened(data, database, new=True) as accounts:
        if role is None and accounts.people:
            raise UsageError(f"{name} would not be the first account: give its role, --role {ROLES}")
        made = accounts.add(name, chosen, _secret("Password"), by=_author())
    say(f"account {made.name} is {chosen.word}: every request to this line needs an account or a token now")


@account_app.command("list")
def list_accounts(data: DataFolder = DEFAULT_FOLDER, database: Database = "", as_json: Json = False) -> None:
    """List accounts; the line may run meanwhile."""
    people, _tokens = _read(data, database)
    if as_json:
        print_json([each.to_json() for each in people])
        return
    for each in people:
        state = ("disabled" if each.is_disabled else "active") + (", PIN" if each.pin_hash else "")
        print(f"{each.name}  {each.role.word}  {state}")


@account_app.command("role")
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help=f"{ROLES}.")],
    data: DataFolder = DEFAULT_FOLDER,
    database: Database = "",
) -> None:
    """Give an account another role."""
    from andon.line.roles import Role

    with opened(data, database) as accounts:
        accounts.set_role(name, Role.parse(role), by=_author())


@account_app.command("password")
def password(name: Name, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Set a password, asked for or read from stdin; all log-ins of the account end."""
    with opened(data, database) as accounts:
        accounts.set_password(name, _secret("New password"), by=_author())


@account_app.command("pin")
def pin(name: Name, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Set the PIN or badge number, asked for or read from stdin; empty: none."""
    with opened(data, database) as accounts:
        accounts.set_pin(name, _secret("New PIN, empty for none"), by=_author())


@account_app.command("disable")
def disable(name: Name, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Refuse an account; all its log-ins end."""
    with opened(data, database) as accounts:
        accounts.set_disabled(name, True, by=_author())


@account_app.command("enable")
def enable(name: Name, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Admit a disabled account again."""
    with opened(data, database) as accounts:
        accounts.set_disabled(name, False, by=_author())


@account_app.command("remove")
def remove(name: Name, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Remove an account; what it did stays in the audit."""
    with opened(data, database) as accounts:
        accounts.remove(name, by=_author())


@token_app.command("add")
def add_token(
    name: TokenName,
    role: Annotated[str, typer.Option(help="viewer, inspector, leader or engineer.")] = "viewer",
    sends: Annotated[bool, typer.Option("--sends", help="May send parts, whatever its role.")] = False,
    station: Annotated[str, typer.Option(help="The only station that it may change; default: all.")] = "",
    days: Annotated[
        float, typer.Option(min=0, max=36500, help="Days after which it expires; 0: never.")
    ] = 0.0,
    data: DataFolder = DEFAULT_FOLDER,
    database: Database = "",
) -> None:
    """Make a token; prints it once, alone on stdout."""
    from andon.line.clock import DAY
    from andon.line.roles import Role

    with opened(data, database, new=True) as accounts:
        secret = accounts.add_token(
            name,
            Role.parse(role),
            by=_author(),
            sends=sends,
            station=station or None,
            expires=round(accounts.clock() + days * DAY) if days else None,
        )
    print(secret)


@token_app.command("list")
def list_tokens(data: DataFolder = DEFAULT_FOLDER, database: Database = "", as_json: Json = False) -> None:
    """List tokens without their secrets; the line may run meanwhile."""
    from andon.line.clock import utc

    _people, tokens = _read(data, database)
    if as_json:
        print_json([each.to_json() for each in tokens])
        return
    for each in tokens:
        sends = ", sends parts" if each.sends else ""
        until = f"until {utc(each.expires)}" if each.expires else "without end"
        print(f"{each.name}  {each.role.word}{sends}  {each.station or 'all stations'}  {until}")


@token_app.command("revoke")
def revoke(name: TokenName, data: DataFolder = DEFAULT_FOLDER, database: Database = "") -> None:
    """Refuse a token from now on."""
    with opened(data, database) as accounts:
        accounts.revoke(name, by=_author())


@contextmanager
def opened(data: Path, database: str, *, new: bool = False) -> Iterator[Accounts]:
    """Accounts of a line that does not run. `new`: make the data folder where it is missing."""
    from andon.line.accounts import Accounts
    from andon.line.store import Store

    if not new and not data.is_dir():
        raise UsageError(f"there is no folder {data}: give the data folder of the line (--data)")
    with Store.open(database or data, folder=data, line="andon account") as store:
        yield Accounts(store)


def _read(data: Path, database: str) -> tuple[list[Account], list[Token]]:
    from andon.line.accounts import read
    from andon.line.store.connection import ask_database

    return ask_database(database or data, read)


def _secret(asked: str) -> str:
    """What a person types twice, or the first line of stdin: never an argument, which others can read."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    typed = getpass.getpass(f"{asked}: ")
    if getpass.getpass("The same again: ") != typed:
        raise UsageError("both differ: type it twice alike")
    return typed


def _author() -> str:
    return f"command line ({getpass.getuser()})"
