"""Errors as `application/problem+json` (RFC 9457): type, title, status, detail (what, why, what to do) and a stable `code`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from andon.core.errors import UsageError
from andon.line.andon_states import NotAllowed
from andon.line.models import UnknownRecipe
from andon.line.rest.html import html
from andon.line.review.reviews import Held, OutOfDate
from andon.line.store import QueryTimeout, RequestConflict, StoreError
from andon.line.versions import Stale

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
UNSTORED = "the change is not stored yet: see whether it is there before it is made again"
KEPT = ("Retry-After", "Allow", "WWW-Authenticate")
"""Headers of a document that its page has too."""


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
    """Make every error of the application a problem document; browsers get it as a page."""

    def handle(kind: type[Exception], made: Callable[[Any], JSONResponse]) -> None:
        def answer(request: Request, error: Exception) -> Response:
            return shown(request, made(error))

        app.add_exception_handler(kind, answer)

    handle(Problem, lambda error: error.response())
    handle(StoreError, lambda error: from_store(error).response())
    handle(
        TimeoutError, lambda _: Problem(503, "store_unavailable", UNSTORED, retry=RETRY_SECONDS).response()
    )
    handle(NotAllowed, lambda error: document(409, "not_allowed", str(error)))
    handle(UnknownRecipe, lambda error: document(404, "unknown_recipe", str(error)))
    handle(Stale, lambda error: document(412, "stale", str(error)))
    handle(OutOfDate, lambda error: document(412, "stale", str(error)))
    handle(Held, lambda error: document(409, "held", str(error)))
    handle(UsageError, lambda error: document(422, "invalid", str(error)))
    handle(RequestValidationError, _invalid)
    handle(HTTPException, _http)
    # The server logs it.
    handle(Exception, lambda _: document(500, "internal", "an error of andon: see its log; the part is bad"))


def shown(request: Request, answer: JSONResponse) -> Response:
    """The document as a page where a browser asked for one; it is read again where trying again can help."""
    if "text/html" not in request.headers.get("Accept", ""):
        return answer
    found = json.loads(bytes(answer.body))
    page = html("problem", problem=found, again="Retry-After" in answer.headers)
    page.status_code = answer.status_code
    page.headers.update({name: answer.headers[name] for name in KEPT if name in answer.headers})
    return page


def _invalid(error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return document(422, "invalid", f"{place}: {first['msg']}; see /docs")


def _http(error: HTTPException) -> JSONResponse:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid")
    return document(error.status_code, code, str(error.detail), error.headers)
