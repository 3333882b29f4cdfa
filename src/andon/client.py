"""Client of a running line: send parts, read verdicts, act on alarms and stops, follow events.

    with Client("http://localhost:8000") as client:
        answer = client.inspect("press", Path("part.png"), part_id="4711")
        if not answer.passes:
            ...                                     # bad, whatever the reason

A part is good where `passes` is true, and bad in every other case, errors included.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from andon.core.errors import AndonError, UsageError
from andon.core.interface import API, LONGEST_WAIT

ADDRESS = "http://localhost:8000"
LONGEST_TIMEOUT = 86_400.0
"""Seconds."""


class ClientError(AndonError):
    """The server cannot be reached, or refused. A part that was sent is bad."""

    def __init__(self, message: str, status: int | None = None, code: str = "unreachable") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says about a part."""

    verdict: str
    """`OK`, `NG`, `REVIEW`, `ERROR`, or `NONE` where there was no verdict in time."""
    id: int | None
    """Number of the inspection."""
    cause: str
    """Why the verdict is ERROR; empty otherwise."""
    data: Mapping[str, Any]
    """The whole answer: score, regions, thresholds, links, ... (docs/reference/rest.md)."""
    replayed: bool = False
    """The same request came before: this is its first answer."""

    @property
    def passes(self) -> bool:
        """Whether the part is good."""
        return self.verdict == "OK"


class Event(NamedTuple):
    """One event of the line."""

    id: str
    """For `Client.events` after a break."""
    kind: str
    """`inspection`, `state`, `alarm`, `tick`, `reset`."""
    data: dict[str, Any]


class Client:
    """Asks one server. Any thread may ask. All methods raise `ClientError`."""

    def __init__(
        self,
        url: str = ADDRESS,
        *,
        token: str = "",
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`token`: of this program, where the line has accounts; `timeout`: seconds in which an answer has to come.

        Raises `UsageError` for what is no address, no token or no time.
        """
        if not _is_address(url):
            raise UsageError(f"{url[:100]!r} is no address of a server: give one like {ADDRESS}")
        if not 0.0 < timeout <= LONGEST_TIMEOUT:
            raise UsageError(f"timeout {timeout:g} s has to be above 0 and at most {LONGEST_TIMEOUT:g} s")
        if not token.isascii() or not token.isprintable():
            raise UsageError("this is no token: give it as `andon token add` printed it")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        # The system's proxies are for the internet, not for a line.
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport, trust_env=False
        )

    def inspect(
        self,
        station: str,
        image: bytes | Path,
        *,
        part_id: str | None = None,
        lot: str | None = None,
        request_id: str | None = None,
        trigger_no: int | None = None,
        tries: int = 3,
    ) -> Answer:
        """Judge an encoded image. A broken connection is tried again with the same request id, so that a part has one row.

        `trigger_no`: the trigger of a PLC that waits for this image.
        """
        content = image.read_bytes() if isinstance(image, Path) else image
        named = {"part_id": part_id, "lot": lot, "request_id": request_id or uuid.uuid4().hex}
        query: dict[str, str | int] = {key: text for key, text in named.items() if text is not None}
        if trigger_no is not None:
            query["trigger_no"] = trigger_no
        query["wait"] = min(int(self._timeout * 900), LONGEST_WAIT)  # milliseconds, below the timeout
        path = f"{API}/stations/{quote(station, safe='')}/inspections"
        for left in reversed(range(tries)):
            try:
                response = self._http.post(path, params=query, content=content)
                return _answer(response)
            except httpx.TransportError as error:
                if left == 0:
                    raise _unreachable(self._http, error) from None
        raise ValueError("tries has to be at least 1")

    def inspection(self, id: int) -> dict[str, Any]:
        """One inspection."""
        return self._object("GET", f"/inspections/{id}")

    def inspections(self, **filters: str | int) -> Iterator[dict[str, Any]]:
        """Inspections, newest first. Filters: `station`, `verdict`, `part_id`, `lot`, `since` (microseconds UTC)."""
        page = self._object("GET", "/inspections", params=filters)
        while True:
            yield from page["inspections"]
            if not page["next"]:
                return
            page = self._object("GET", page["next"].removeprefix(API))

    def stations(self) -> list[dict[str, Any]]:
        """All stations with state, model, thresholds, counts of the shift and alarms."""
        return self._list("/stations")

    def station(self, name: str) -> dict[str, Any]:
        """One station; `wants_stop`: the line must not move."""
        return self._object("GET", f"/stations/{quote(name, safe='')}/state")

    def alarms(self) -> list[dict[str, Any]]:
        """Alarms that are not over, oldest first."""
        return self._list("/alarms")

    def outbox(self) -> list[dict[str, Any]]:
        """What each receiver (`mqtt/STATION`, `webhook/NAME`, `email`) has been told, and what waits."""
        return self._list("/outbox")

    def acknowledge(self, alarm: int, who: str) -> dict[str, Any]:
        """Say that a person knows. Returns the alarm."""
        return self._object("POST", f"/alarms/{alarm}/acknowledge", json={"who": who})

    def cause(self, station: str, cause: str, who: str, note: str = "") -> dict[str, Any]:
        """Give the cause of a stop: `product`, `camera`, `light`, `setting`, `false_stop`, `other`. Returns the station."""
        body = {"cause": cause, "who": who, "note": note}
        return self._object("POST", f"/stations/{quote(station, safe='')}/cause", json=body)

    def resume(self, station: str, who: str) -> dict[str, Any]:
        """Let the line run again, after its cause was given. Returns the station."""
        return self._object("POST", f"/stations/{quote(station, safe='')}/resume", json={"who": who})

    def golden(self, station: str) -> dict[str, Any]:
        """Golden parts of a station and what is due; while `state` is `overdue` or `failed` no part is OK."""
        return self._object("GET", f"/golden/{quote(station, safe='')}")

    def add_golden(self, station: str, image: bytes | Path, **values: str | float | bool) -> dict[str, Any]:
        """Add a golden part: `name`, `kind` (`bad`, `good`, `borderline`), `who`, `why`; `defect_type`, `has_part`, ..."""
        content = image.read_bytes() if isinstance(image, Path) else image
        path = f"/golden/{quote(station, safe='')}/images"
        return self._object("POST", path, params=values, content=content)

    def run_golden(self, station: str, who: str) -> dict[str, Any]:
        """Judge the stored images of all golden parts. Returns the check with its results."""
        return self._object("POST", f"/golden/{quote(station, safe='')}/runs", json={"who": who})

    def candidates(self, station: str) -> list[dict[str, Any]]:
        """Packed files that may replace the model of a station, newest first."""
        return self._list(_candidates(station))

    def candidate(self, station: str, id: int) -> dict[str, Any]:
        """A candidate with the figures of its newest `comparison` and `shadow` run."""
        return self._object("GET", f"{_candidates(station)}/{id}")

    def add_candidate(self, station: str, pack: Path, who: str, why: str) -> dict[str, Any]:
        """Send a packed file, which is verified and kept. Give the client a timeout that lasts for it."""
        values = {"name": pack.name, "who": who, "why": why}
        with pack.open("rb") as file:
            return self._object("POST", _candidates(station), params=values, content=file)

    def compare_candidate(self, station: str, id: int, who: str, sample: int = 500) -> dict[str, Any]:
        """Begin to judge stored parts by a candidate and the model in use. Returns the candidate."""
        body = {"who": who, "sample": sample}
        return self._object("POST", f"{_candidates(station)}/{id}/compare", json=body)

    def shadow_candidate(self, station: str, id: int, who: str, *, on: bool = True) -> dict[str, Any]:
        """Begin or end shadow mode. Returns the candidate."""
        return self._object("POST", f"{_candidates(station)}/{id}/shadow", json={"who": who, "on": on})

    def promote_candidate(self, station: str, id: int, who: str, why: str) -> dict[str, Any]:
        """Judge by a candidate from the next part on; `is_used` is false where a second person has to approve."""
        return self._object("POST", f"{_candidates(station)}/{id}/promote", json={"who": who, "why": why})

    def return_model(self, station: str, who: str, why: str = "") -> None:
        """Judge by the model before the candidate in use from the next part on."""
        self._ask("POST", f"{_candidates(station)}/return", json={"who": who, "why": why})

    def events(self, station: str | None = None, last_id: str | None = None) -> Iterator[Event]:
        """Events as they happen, first those after `last_id`, until the server ends. `reset`: read the state again.

        Raises `ClientError` where nothing comes any more (there is a tick each second); go on with the last id then.
        """
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        params = {} if station is None else {"station": station}
        try:
            with self._http.stream("GET", f"{API}/events", params=params, headers=headers) as response:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    response.read()
                    raise _refused(response)
                yield from _events(response.iter_lines())
        except httpx.TransportError as error:
            raise _unreachable(self._http, error) from None

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _object(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(method, path, **values)
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", path)
        return found

    def _ask(self, method: str, path: str, **values: Any) -> Any:
        try:
            response = self._http.request(method, API + path, **values)
        except httpx.TransportError as error:
            raise _unreachable(self._http, error) from None
        if not response.is_success:
            raise _refused(response)
        return _content(response)


def _is_address(url: str) -> bool:
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return False
    if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
        return False
    return found.port is None or 0 < found.port < 1 << 16


def _candidates(station: str) -> str:
    return f"/stations/{quote(station, safe='')}/candidates"


def _answer(response: httpx.Response) -> Answer:
    """Raises `ClientError` where the server has no row for the part."""
    content = _content(response)
    if not isinstance(content, dict):
        raise _refused(response)
    if response.status_code in (200, 201) and {"verdict", "id", "cause"} <= content.keys():
        replayed = response.headers.get("idempotency-replayed") == "true"
        return Answer(content["verdict"], content["id"], content["cause"], content, replayed)
    if response.status_code == 202:
        return Answer("NONE", None, "", content)
    if content.get("verdict") == "ERROR":
        return Answer("ERROR", content.get("id"), content["code"], content)
    raise _refused(response)


def _content(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ClientError(
            f"{response.url} does not answer as andon does (status {response.status_code}): give the address of `andon serve`",
            response.status_code,
            "no_andon",
        ) from None


def _refused(response: httpx.Response) -> ClientError:
    content = _content(response)
    detail = content.get("detail", "") if isinstance(content, dict) else ""
    code = content.get("code", "unknown") if isinstance(content, dict) else "unknown"
    return ClientError(detail or f"status {response.status_code}", response.status_code, code)


def _unreachable(http: httpx.Client, error: httpx.TransportError) -> ClientError:
    why = str(error) or type(error).__name__
    return ClientError(f"{http.base_url} does not answer ({why}): start `andon serve`, or give its address")


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Events of a stream; each ends with an empty line."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, text = line.partition(":")
            fields[name] = text.removeprefix(" ")
        elif not line and fields:
            yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields.get("data") or "{}"))
            fields = {}
