"""Pages as answers."""

from __future__ import annotations

from typing import Any

from fastapi.responses import HTMLResponse

from andon.line.page.render import render


def html(template: str, *, gloves: bool = False, **values: Any) -> HTMLResponse:
    """A page that browsers do not keep."""
    return HTMLResponse(render(template, gloves=gloves, **values), headers={"Cache-Control": "no-store"})
