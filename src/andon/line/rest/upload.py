"""One part from a request: `multipart/form-data` with a file `image`, or the bytes of the image as the body."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from andon.core.text import LARGEST_NUMBER, whole_number
from andon.line.rest.problems import Problem
from andon.line.station import Part

BODY_SECONDS = 30.0
"""Longest time in which the body has to come."""
LONGEST_ID = 300
"""Bytes of a request id, as the store keeps."""
NUMBERS = ("t_trigger", "trigger_no")
FIELDS = ("part_id", "lot", "request_id", *NUMBERS)


async def read_part(request: Request) -> Part:
    """The part of a request. Texts come from the form or the query, the request id from `Idempotency-Key` as well.

    Raises `Problem` for what is missing, twice, not a number, or takes longer than `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            image, form = await _body(request)
    except TimeoutError:
        raise Problem(
            408, "timeout", f"the body did not come within {BODY_SECONDS:g} s: send it again"
        ) from None
    except ClientDisconnect:
        raise Problem(400, "disconnected", "the connection ended before the body") from None
    if not image:
        raise Problem(
            422, "no_image", "the request has no image: send a file `image` or the bytes as the body"
        )
    texts = {name: value for name in FIELDS if (value := form.get(name) or request.query_params.get(name))}
    request_id = request_id_of(request, texts.get("request_id"))
    return Part(
        image=image,
        request_id=request_id or uuid.uuid4().hex,
        part_id=texts.get("part_id"),
        lot=texts.get("lot"),
        trigger_no=_number(texts, "trigger_no"),
        t_trigger=_number(texts, "t_trigger"),
    )


async def _body(request: Request) -> tuple[bytes, Mapping[str, str]]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return b"".join([chunk async for chunk in request.stream()]), {}
    try:
        async with request.form(max_files=1, max_fields=20) as form:
            image = form.get("image")
            content = await image.read() if isinstance(image, UploadFile) else b""
            texts = {key: value for key, value in form.items() if isinstance(value, str)}
            for text in (*texts, *texts.values()):
                text.encode()
            return content, texts
    except HTTPException as error:
        raise Problem(422, "invalid", f"the form cannot be read: {error.detail}") from None
    except (ValueError, LookupError) as error:  # a charset by which the texts are no texts
        raise Problem(422, "invalid", f"the form cannot be read: {error}; send it in UTF-8") from None


def request_id_of(request: Request, named: str | None) -> str | None:
    """The request id that the sender chose; the header may be a quoted string. Raises `Problem`."""
    header = request.headers.get("idempotency-key", "").strip()
    if len(header) > 1 and header[0] == header[-1] == '"':
        header = header[1:-1]
    if named and header and named != header:
        raise Problem(422, "invalid", "request_id and Idempotency-Key differ: send one of them")
    chosen = named or header or None
    if chosen is not None and not chosen.strip():
        raise Problem(422, "invalid", "the request id is blank: give one, or leave it out")
    if chosen is not None and len(chosen.encode()) > LONGEST_ID:
        raise Problem(422, "invalid", f"the request id has more than {LONGEST_ID} bytes: use a shorter one")
    return chosen


def _number(texts: Mapping[str, str], name: str) -> int | None:
    text = texts.get(name)
    if text is None:
        return None
    found = whole_number(text)
    if found is None:
        raise Problem(422, "invalid", f"{name} {text[:100]!r} is no whole number from 0 to {LARGEST_NUMBER}")
    return found
