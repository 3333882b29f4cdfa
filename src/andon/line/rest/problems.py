"""Errors as `application/problem+json` (RFC 9457): type, title, status, detail (what, why, what to do) and a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from andon.core.errors import UsageError
from andon.line.andon_states import NotAllowed
from andon.line.models import UnknownRecipe
from andon.line.review.reviews import Held, OutOfDate
from andon.line.store import QueryTimeout, RequestConflict, StoreError
from andon.line.versions import Stale

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


class Problem(Exception):  # noqa: N818 (an answer)
    """An answer that is not a result. `extra` are further members of the document."""

    def __init__(
        self, status: int, code: str, detail: str, *, retry: int | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry, self.extra = status, code, detail, retry, extra

    def response(self) -> JSONResponse:
        """The document, with `Retry-After` where trying again can help."""
        headers = {} if self.retry is None else {"Retry-After": str(self.retry)}
        return document(self.status, self.code, self.detail, headers, **self.extra)


def document(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> JSONResponse:
    """A problem document."""
    content = {
        "type": f"urn:andon:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **extra,
    }
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def not_found(what: str) -> Problem:
    """404."""
    return Problem(404, "not_found", f"there is no {what}")


def from_store(error: StoreError) -> Problem:
    """A part whose verdict could not be stored is bad; a question that could not be answered can be asked again."""
    if isinstance(error, RequestConflict):
        return Problem(422, "request_conflict", str(error))
    code = "query_timeout" if isinstance(error, QueryTimeout) else "store_unavailable"
    return Problem(503, code, str(error), retry=RETRY_SECONDS)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""

    @app.exception_handler(Problem)
    def problem(_request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(StoreError)
    def store(_request: Request, error: StoreError) -> JSONResponse:
        return from_store(error).response()

    @app.exception_handler(NotAllowed)
    def not_allowed(_request: Request, error: NotAllowed) -> JSONResponse:
        return document(409, "not_allowed", str(error))

    @app.exception_handler(UnknownRecipe)
    def unknown_recipe(_request: Request, error: UnknownRecipe) -> JSONResponse:
        return document(404, "unknown_recipe", str(error))

    @app.exception_handler(Stale)
    def stale(_request: Request, error: Stale) -> JSONResponse:
        return document(412, "stale", str(error))

    @app.exception_handler(OutOfDate)
    def out_of_date(_request: Request, error: OutOfDate) -> JSONResponse:
        return document(412, "stale", str(error))

    @app.exception_handler(Held)
    def held(_request: Request, error: Held) -> JSONResponse:
        return document(409, "held", str(error))

    @app.exception_handler(UsageError)
    def usage(_request: Request, error: UsageError) -> JSONResponse:
        return document(422, "invalid", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return document(422, "invalid", f"{place}: {first['msg']}; see /docs")

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid")
        return document(error.status_code, code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    def unexpected(_request: Request, _error: Exception) -> JSONResponse:  # the server logs it
        return document(500, "internal", "an error of andon: see its log; the part is bad")
