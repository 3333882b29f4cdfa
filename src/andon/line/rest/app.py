"""The web application of a line: REST below `/api/v1`, pages above it. Everything is built by one call."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from andon.core.version import VERSION
from andon.line.line import Line
from andon.line.rest import events, inspections, pages, problems, rule_pages, rules, stations, thresholds
from andon.line.rest.guard import LARGEST_IMAGE, Guard
from andon.line.rest.pictures import Pictures
from andon.line.rest.shapes import PREFIX

STATIC = Path(__file__).parents[1] / "page" / "static"


class Static(StaticFiles):
    """Files of the pages; a browser asks each time whether they changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(line: Line, *, hosts: Collection[str] = (), largest: int = LARGEST_IMAGE) -> FastAPI:
    """The application of a line that is started elsewhere.

    `hosts`: names by which the server may be called, besides addresses and `localhost`; `largest`: bytes of an image.
    """
    app = FastAPI(
        title="andon line",
        version=VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"description": "Problem (RFC 9457)", "content": {problems.MEDIA_TYPE: {}}}},
    )
    app.state.line = line
    app.state.pictures = Pictures()
    problems.install(app)
    for module in (inspections, stations, thresholds, rules, events):
        app.include_router(module.router, prefix=PREFIX)
    for page in (pages.router, rule_pages.page_router):
        app.include_router(page, include_in_schema=False)
    app.mount("/static", Static(directory=STATIC))
    app.add_middleware(Guard, hosts=hosts, largest=largest)
    return app
