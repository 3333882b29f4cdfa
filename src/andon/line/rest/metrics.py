"""Route of the metrics, where they are switched on."""

from __future__ import annotations

from fastapi import APIRouter, Response

from andon.line.prometheus import CONTENT_TYPE
from andon.line.rest.access import TheLine, requires
from andon.line.roles import Role

router = APIRouter()


@router.get("/metrics", dependencies=[requires(Role.VIEWER)])
def metrics(line: TheLine) -> Response:
    """Metrics in the text format of Prometheus."""
    assert line.metrics is not None
    return Response(line.metrics.text(), media_type=CONTENT_TYPE)
