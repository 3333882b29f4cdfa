"""Page of the thresholds of a station: known images and stored parts at two thresholds, trial, change, rollback."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from andon.line.line import Line
from andon.line.page.render import percent as percent_text
from andon.line.rest.access import TheLine, TheStation, first_station, requires
from andon.line.rest.html import html
from andon.line.rest.problems import not_found
from andon.line.rest.shapes import PREFIX
from andon.line.rest.thresholds import NEAREST, Score, versions_shape
from andon.line.roles import Role
from andon.line.store import PastScore, reviews
from andon.line.studio.histogram import histogram
from andon.line.verdicts import Opinion
from andon.thresholds.evidence import Images
from andon.thresholds.figures import Figures, Prices, Share, cost, figures, verdicts, wrong_images

page_router = APIRouter(default_response_class=HTMLResponse)
KINDS = ("good", "good_tests", "bad", "line")
Price = Annotated[float, Query(gt=0, le=1e9, allow_inf_nan=False)]
Parts = Annotated[int, Query(ge=0, le=10_000)]


@page_router.get("/thresholds", dependencies=[requires(Role.VIEWER)])
def first_thresholds(line: TheLine) -> Response:
    """The page of the first station."""
    return RedirectResponse(f"/stations/{first_station(line)}/thresholds")


@page_router.get("/stations/{station}/thresholds", dependencies=[requires(Role.VIEWER)])
def thresholds_page(
    line: TheLine,
    station: TheStation,
    accept: Score = None,
    reject: Score = None,
    parts: Parts = 1000,
    escape: Price = 100.0,
    rejected: Price = 1.0,
    percent: Annotated[float, Query(gt=0, lt=100)] = 1.0,
) -> Response:
    """Known images and the last parts at two thresholds, by default those in use; `percent` of all parts are bad."""
    now, model = station.thresholds, station.model
    low, high = sorted((accept or now.accept, reject or now.reject))
    stored = line.store.last_scores(station.name, model.sha256, parts, regions_from=float("inf"))
    scored = [part for part in stored if part.score is not None]
    of_line = [part.score for part in scored if part.score is not None]
    found, known = figures(model.evidence, low, high), model.evidence
    good, bad, images = _reviewed(line, station.name, scored)
    base = f"{PREFIX}/stations/{station.name}/thresholds/image?"
    images |= {name: base + urlencode({"name": name}) for name in model.images}
    prices = Prices(escape, rejected, percent / 100)
    every = (known.good.scores, known.good_tests.scores, known.bad.scores, of_line)
    return html(
        "thresholds",
        station=station.name,
        stations=[*line.stations],
        accept=low,
        reject=high,
        parts=parts,
        prices={"escape": f"{escape:g}", "rejected": f"{rejected:g}", "percent": f"{percent:g}"},
        figures=found,
        cells=cells(found, of_line, good, bad),
        cost=cost(known, low, high, prices),
        wrong=wrong_images((known.good, known.good_tests, good), (known.bad, bad), low, high)[:NEAREST],
        images=images,
        missing=known.missing,
        histogram=histogram(every, (low, high)),
        totals=dict(zip(KINDS, map(len, every), strict=True)),
        changes=versions_shape(line, station),
        initial={
            "station": station.name,
            "version": now.version or 0,
            "known": known.to_json() | {"reviewed_good": asdict(good), "reviewed_bad": asdict(bad)},
            "pictures": images,
            "line": of_line,
        },
    )


@page_router.get(PREFIX + "/stations/{station}/thresholds/image", dependencies=[requires(Role.VIEWER)])
def known_image(station: TheStation, name: Annotated[str, Query(max_length=1000)]) -> Response:
    """A known image that the packed file of the station holds, PNG."""
    found = station.model.images.get(name)
    if found is None:
        raise not_found(f"image {name!r} in the packed file of station {station.name}")
    return Response(found, media_type="image/png", headers={"Cache-Control": "no-cache"})


def _reviewed(line: Line, station: str, parts: list[PastScore]) -> tuple[Images, Images, dict[str, str]]:
    """Parts that people called good, those that they called bad, and addresses of their pictures by name."""
    if not parts:
        return Images(), Images(), {}
    said = line.store.ask(lambda c: reviews.decided(c, station_name=station, first=parts[0].id))
    names = {part.id: f"part {part.id}" for part in parts if part.id in said}
    good, bad = (
        Images(
            tuple(part.score for part in parts if part.score is not None and said.get(part.id) is opinion),
            tuple(names[part.id] for part in parts if said.get(part.id) is opinion),
        )
        for opinion in (Opinion.GOOD, Opinion.BAD)
    )
    return good, bad, {name: f"{PREFIX}/inspections/{id}/thumbnail" for id, name in names.items()}


def cells(found: Figures, of_line: list[float], good: Images, bad: Images) -> dict[str, dict[str, str]]:
    """Texts of the table, by kind and verdict; the script of the page writes the same ones."""
    kinds = {"good": found.good, "good_tests": found.good_tests, "bad": found.bad}
    of_parts = {"line": of_line, "reviewed_good": good.scores, "reviewed_bad": bad.scores}
    kinds |= {kind: verdicts(scores, found.accept, found.reject) for kind, scores in of_parts.items()}
    shares = {
        f"{kind}.{name}": share for kind, each in kinds.items() for name, share in each._asdict().items()
    }
    shares |= {
        f"session.{k}.{name}": share
        for k, (_, each) in enumerate(found.sessions)
        for name, share in each._asdict().items()
    }
    if found.within is not None:
        shares["within.stopped"] = found.within
    return {key: share_text(share) for key, share in shares.items()}


def share_text(share: Share) -> dict[str, str]:
    """Count and exact interval of a share for people."""
    low, high = share.interval
    return {
        "count": f"{share.count} of {share.n}",
        "interval": f"{percent_text(low)} to {percent_text(high)} %" if share.n else "–",
    }
