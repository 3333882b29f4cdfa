"""Webhooks: results and alarms by HTTP POST, signed after Standard Webhooks (https://www.standardwebhooks.com).

The headers `webhook-id` (the same for each attempt), `webhook-timestamp` (seconds) and `webhook-signature` belong to each
request; the signature is `v1,` and the Base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. httpx is imported here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from andon.core.errors import ConfigError
from andon.core.text import whole_number
from andon.core.version import VERSION
from andon.line.clock import SECOND, Clock
from andon.line.outbox.reports import Refused, Report, Undelivered
from andon.line.outbox.settings import WebhookSettings
from andon.line.store.outbox import Stream

logging.getLogger("httpx").setLevel(
    logging.WARNING
)  # otherwise it logs whole addresses, which may hold secrets
TIMEOUT_SECONDS = 10.0
REFUSING = (400, 413, 415, 422)
"""Statuses about the report itself: it is given up after some attempts. All others are about the receiver."""
SHORT = 4096
"""Bytes of an answer that are read, so that the connection is used again."""
PREFIX = "whsec_"
"""Start of secrets that are Base64."""


class WebhookSink:
    """Tells one program."""

    station = None
    batch = 20

    def __init__(
        self,
        settings: WebhookSettings,
        line: str,
        clock: Clock,
        *,
        key: bytes = b"",
        encryption: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key`: of the signature, empty for none."""
        self.name = f"webhook/{settings.name}"
        chosen = {Stream.RESULT: settings.results, Stream.ALARM: settings.alarms}
        self.streams: Sequence[Stream] = [stream for stream, wanted in chosen.items() if wanted]
        self._url, self._line, self._clock, self._key = settings.url, line, clock, key
        self._place = urlsplit(settings.url).netloc
        self._client = httpx.Client(
            verify=encryption or True, transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=False
        )

    def refresh(self) -> None:
        """There is nothing to keep up."""

    def deliver(self, reports: Sequence[Report], ending: threading.Event) -> Iterator[Report]:
        """One request for each report, in order. Raises `Undelivered`, `Refused`."""
        for report in reports:
            if ending.is_set():
                return
            self._post(report)
            yield report

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _post(self, report: Report) -> None:
        body = json.dumps(document(report, self._line)).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"andon/{VERSION}",
            **signed(self._key, f"{report.stream}_{report.id}", self._clock() // SECOND, body),
        }
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                if whole_number(response.headers.get("content-length", ""), SHORT) is not None:
                    response.read()
                status = response.status_code
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise Undelivered(f"{self._place} cannot be reached ({type(error).__name__}: {error})") from None
        if 300 <= status < 400:
            raise Undelivered(
                f"{self._place} answers {status}, a redirect, which is not followed: give the address it leads to"
            )
        if status in REFUSING:
            raise Refused(f"{self._place} answers {status}")
        if not 200 <= status < 300:
            raise Undelivered(f"{self._place} answers {status}")


def document(report: Report, line: str) -> dict[str, Any]:
    """The body of a request."""
    time = datetime.fromtimestamp(report.at / SECOND, UTC).isoformat(timespec="milliseconds")
    return {"type": report.stream.value, "timestamp": time, "line": line, "data": report.to_json()}


def signed(key: bytes, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers of a request; without `key` the signature is left out."""
    headers = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    if key:
        digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return headers


def key_of(secret: str, what: str) -> bytes:
    """Bytes of a secret: Base64 after `whsec_`, any other text as it is. Raises `ConfigError`."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ConfigError(f"{what}: the secret begins with {PREFIX} and is not Base64: correct it") from None
