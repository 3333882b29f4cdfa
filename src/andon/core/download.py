"""Resumable downloads, and the switch that forbids them."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path


def is_offline() -> bool:
    """Whether downloads are forbidden (`ANDON_OFFLINE=1` or `--offline`)."""
    return os.environ.get("ANDON_OFFLINE", "").lower() not in {"", "0", "false", "no"}


class WrongFile(OSError):  # noqa: N818
    """The server offers a file of another size than expected; retrying does not help."""


def download(
    url: str,
    target: Path,
    *,
    size: int = 0,
    progress: Callable[[int, int], None] | None = None,
    timeout: float = 30.0,
) -> None:
    """Download `url` to `target`, resuming from `target.part` where an earlier call stopped.

    `size` is the expected length in bytes, 0 where unknown. `progress` is called with (bytes so far, total bytes or 0).
    Raises `WrongFile` when the server states another length, `OSError` when the transfer fails or is incomplete.
    """
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    if size and done > size:
        part.unlink()
        done = 0
    if not size or done < size:
        try:
            _transfer(url, part, done, size, progress, timeout)
        except http.client.HTTPException as error:  # the response is not HTTP, or ended inside a chunk
            raise OSError(f"the server's answer broke off or is no HTTP ({type(error).__name__})") from error
    part.replace(target)


def _transfer(
    url: str, part: Path, done: int, size: int, progress: Callable[[int, int], None] | None, timeout: float
) -> None:
    """Append the missing bytes to `part`, which holds `done`; start over where the server does not resume."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:  # the partial file is longer than the file on the server
            part.unlink()
            raise OSError("the partial download did not fit and was removed") from error
        raise
    with response:
        if done and response.status != 206:  # the server ignored the range and sends the whole file
            done = 0
        _check_range(response.headers.get("Content-Range"), done, part)
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else size
        if size and total != size:
            kind = response.headers.get("Content-Type") or "no stated type"
            raise WrongFile(f"the server offers {total} bytes ({kind}), the file has {size}")
        with part.open("ab" if done else "wb") as stream:
            while chunk := response.read(1 << 20):
                done += len(chunk)
                if total and done > total:
                    raise WrongFile(f"the server sends more than the {total} bytes the file has")
                stream.write(chunk)
                if progress is not None:
                    progress(done, total)
    if total and done != total:
        raise OSError(f"the transfer ended after {done} of {total} bytes")


def _check_range(stated: str | None, done: int, part: Path) -> None:
    """Raise `OSError` when the server resumes at another position than `done`, which would corrupt the file."""
    if stated is not None and done and not stated.startswith(f"bytes {done}-"):
        part.unlink()
        raise OSError("the server continued at another place; the partial download was removed")
