"""HTML of the pages. Jinja is imported here."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from andon.line.clock import SECOND, utc
from andon.line.page.words import ERROR_CAUSES, OFFLINE, STATES, STOP_CAUSES, VERDICTS
from andon.line.roles import ACTING, Role
from andon.line.verdicts import Verdict

FOLDER = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


def render(template: str, **values: Any) -> str:
    """A page as HTML."""
    return _environment().get_template(f"{template}.html").render(**values)


def words() -> dict[str, Any]:
    """The signs and texts, for the script of the line page."""
    return {
        "verdicts": {verdict.name: sign._asdict() for verdict, sign in VERDICTS.items()},
        "states": {state.value: sign._asdict() for state, sign in STATES.items()},
        "offline": OFFLINE._asdict(),
        "errors": {str(cause): text for cause, text in ERROR_CAUSES.items()},
    }


def data_block(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`, which nothing in it can end."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def percent(rate: float) -> str:
    """Percent with one decimal, halves rounded up as in browsers."""
    return str(Decimal(100 * rate).quantize(Decimal("0.1"), ROUND_HALF_UP))


def report_file(report: Any) -> str:
    """A shift report as one file without references, for mail and archive."""
    style = (STATIC / "report.css").read_text(encoding="utf-8")
    return render("shift_file", report=report, style=Markup(style))


def local(t: int) -> str:
    """Local time of this computer, to the minute, of microseconds UTC."""
    return datetime.fromtimestamp(t / SECOND).strftime("%Y-%m-%d %H:%M")


def zone(t: int) -> str:
    """Distance of local time from UTC, e.g. `UTC+01:00`."""
    return "UTC" + datetime.fromtimestamp(t / SECOND).astimezone().isoformat()[-6:]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        acting=ACTING.get, roles=Role, verdict_signs=VERDICTS, state_signs=STATES, stop_causes=STOP_CAUSES
    )
    environment.filters.update(
        percent=percent,
        utc=utc,
        local=local,
        zone=zone,
        verdict=lambda name: Verdict[name],
        data_block=data_block,
        error_cause=lambda c: ERROR_CAUSES.get(c, c),
    )
    return environment
