"""Requests: a sender that asks again gets the first answer, and nobody gets the verdict of another part."""

from __future__ import annotations

from typing import NamedTuple, Self

from andon.line.store.errors import RequestConflict
from andon.line.store.records import Inspection, NewInspection, Recorded


class Request(NamedTuple):
    """What a sender asks for."""

    station: str
    id: str
    image_sha256: str | None
    """Of the image that was sent; None where the line takes the image."""

    @classmethod
    def of(cls, part: NewInspection | Inspection) -> Self:
        """What was asked for where this part was answered."""
        sha256 = None if part.triggered else part.image_sha256
        return cls(part.station, part.request_id, sha256)


def is_answer(part: NewInspection | Inspection, request: Request) -> bool:
    """Whether `part`, which has the id of the request, is the one that is asked for: its station, its image, its kind."""
    if part.station != request.station:
        return False
    if request.image_sha256 is None:  # rows of an earlier andon do not say who took the image
        return part.triggered is not False or part.image_sha256 is None
    return not part.triggered and part.image_sha256 == request.image_sha256


def first_answer(row: Inspection, request: Request) -> Recorded:
    """The row of this request id as the answer. Raises `RequestConflict` where it is that of another part."""
    if not is_answer(row, request):
        raise RequestConflict(
            f"request {request.id!r} was used for another part (inspection {row.id} of {row.station}): "
            "use a new id for each part"
        )
    return Recorded(row.id, True, row)
