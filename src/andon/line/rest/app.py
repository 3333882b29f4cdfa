"""The web application of a line: REST below `/api/v1`, pages above it. Everything is built by one call."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from andon.core.version import VERSION
from andon.line.accounts import LogIn
from andon.line.line import Line
from andon.line.page.render import STATIC
from andon.line.rest import (
    accounts,
    audit,
    cameras,
    candidates,
    drift,
    events,
    golden,
    inspections,
    log_in,
    metrics,
    outbox,
    pages,
    plant,
    problems,
    reports,
    reviews,
    rule_pages,
    rules,
    stations,
    studies,
    threshold_pages,
    thresholds,
)
from andon.line.rest.access import NoCaller
from andon.line.rest.drawings import Drawings
from andon.line.rest.guard import LARGEST_IMAGE, Guard
from andon.line.rest.identify import Identify
from andon.line.rest.queries import refuse_unknown
from andon.line.rest.shapes import PREFIX


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
    app.state.log_in = LogIn(line.accounts)
    app.state.verifier = audit.Verifier(line)
    app.state.drawings = Drawings()
    problems.install(app)
    app.add_exception_handler(NoCaller, _no_caller)
    for module in (
        inspections,
        reviews,
        stations,
        thresholds,
        rules,
        events,
        outbox,
        log_in,
        audit,
        drift,
        golden,
        cameras,
        reports,
        candidates,
        studies,
        plant,
    ):
        app.include_router(module.router, prefix=PREFIX, dependencies=[Depends(refuse_unknown)])
    for page in (
        pages.router,
        reviews.page_router,
        rule_pages.page_router,
        threshold_pages.page_router,
        outbox.page_router,
        log_in.page_router,
        accounts.page_router,
        audit.page_router,
        drift.page_router,
        golden.page_router,
        reports.page_router,
        candidates.page_router,
        studies.page_router,
        plant.page_router,
    ):
        app.include_router(page, include_in_schema=False)
    if line.metrics is not None:
        app.include_router(metrics.router, include_in_schema=False)
    app.mount("/static", Static(directory=STATIC))
    app.add_middleware(Identify, log_in=app.state.log_in, access=line.settings.access)
    app.add_middleware(Guard, hosts=hosts, largest=largest)
    return app


def _no_caller(request: Request, error: Exception) -> Response:
    """Pages lead to the log-in; programs get the problem."""
    assert isinstance(error, NoCaller)
    is_page = request.method == "GET" and not request.url.path.startswith(("/api/", "/metrics"))
    return log_in.to_log_in(request) if is_page else error.response()
