"""What `andon data fetch` answers when a download goes wrong: every fault is made, the real command is run, and a Markdown
table is printed.

    python benchmarks/fetch_faults.py > docs/results/fetch_faults.md

A local server breaks off, ignores ranges, lies about lengths and serves hostile archives. Nothing leaves this machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

SECRET = Path("outside/secret.txt")
"""What hostile archives try to write."""


class Server:
    """Serves `content`; `behaviour` says how badly."""

    content = b""
    behaviour = ""
    answers = 0

    def __init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/set.tar.gz"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.answers += 1
        content, how = self.content, self.behaviour
        if how in ("404", "500"):
            request.send_error(int(how))
            return
        if how == "no HTTP":
            request.wfile.write(b"good day\r\n\r\n")
            return
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and how != "ignores ranges" else 0
        body = content[start:]
        request.send_response(206 if start else 200)
        shift = 5 if how == "continues elsewhere" else 0
        if start:
            request.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        lie = {"says too little": -100, "says too much": 100}.get(how, 0)
        request.send_header("Content-Length", str(len(body) + lie))
        request.end_headers()
        breaks = how == "always breaks off" or (how in ("breaks off", "ignores ranges") and self.answers <= 2)
        request.wfile.write(body[: len(body) // 2] if breaks else body)


def data_set(root: Path) -> Path:
    """Two dozen noise pictures in the layout of MVTec AD."""
    rng = np.random.default_rng(0)
    for place, count in (("train/good", 20), ("test/good", 2), ("test/dent", 2), ("ground_truth/dent", 2)):
        (root / "part" / place).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
            is_mask = place.startswith("ground_truth")
            values = (pixels > 127).astype(np.uint8) * 255 if is_mask else pixels
            Image.fromarray(values).save(root / "part" / place / f"{k:03}{'_mask' * is_mask}.png")
    return root


def tar(*members: tuple[str, bytes, str]) -> bytes:
    """A tar.gz file of (name, type, target of a link) with a few bytes in each regular file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 5 if kind == tarfile.REGTYPE else 0
            opened.addfile(info, io.BytesIO(b"inside"[: info.size]))
    return buffer.getvalue()


def bomb() -> bytes:
    """A zip file of 100 kB that holds 100 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("part/train/good/000.png", bytes(100 << 20))
    return buffer.getvalue()


def main() -> None:
    """Print the table."""
    home = Path(tempfile.mkdtemp())
    os.chdir(home)
    environment = os.environ | {"ANDON_HOME": str(home / "home"), "COLUMNS": "300"}
    environment.pop("ANDON_OFFLINE", None)
    made = data_set(home / "made")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        opened.add(made / "part", "part")
    good = buffer.getvalue()
    server = Server()
    print("# Fetching data sets: what the command answers when it goes wrong\n")
    print("`LINK`: a local server; `HASH`: the sha256 of the archive that was asked for.\n")
    print("| case | command | answer | exit | requests | left behind |\n|---|---|---|---|---|---|")

    def row(
        case: str,
        behaviour: str = "",
        content: bytes = good,
        *,
        asked: bytes | None = good,
        options: str = "--yes",
        link: bool = True,
        name: str = "visa",
        before: bytes | None = None,
        out: str = "",
    ) -> None:
        """`asked` is the content whose hash is passed; None = the hash of the real archive, from the table."""
        server.content, server.behaviour, server.answers = content, behaviour, 0
        folder = Path(out or f"sets-{row_number()}/{name}")
        if before is not None:
            folder.parent.mkdir(parents=True)
            folder.with_name(f"{folder.name}.download.part").write_bytes(before)
        given = f"{options}{' --url LINK' * link}{' --sha256 HASH' * (asked is not None)}".strip()
        real = given.replace("LINK", server.url).replace("HASH", hashlib.sha256(asked or b"").hexdigest())
        done = subprocess.run(
            [sys.executable, "-m", "andon", "data", "fetch", name, str(folder), *real.split()],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        said = [line for line in done.stderr.splitlines() if line.startswith("andon: ")]
        answer = " ⏎ ".join(said if done.returncode else [*done.stdout.splitlines(), *said])
        answer = answer.replace(server.url, "LINK").replace(f"{folder.parent}/", "")
        left = (
            ", ".join(sorted(path.name for path in folder.parent.iterdir())) if folder.parent.is_dir() else ""
        )
        outside = ", **secret.txt**" if SECRET.exists() else ""
        cells = (
            case,
            f"`andon data fetch {name} {folder.name} {given}`",
            answer,
            str(done.returncode),
            str(server.answers),
            (left or "nothing") + outside,
        )
        print("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |", flush=True)

    numbers = iter(range(1000))

    def row_number() -> int:
        return next(numbers)

    row("all is well")
    row("connection breaks off twice: continued", "breaks off")
    row("breaks off twice, server ignores ranges: begun again", "ignores ranges")
    row("an earlier call stopped: continued", before=good[:2000])
    row("server continues at another place: begun again", "continues elsewhere", before=good[:2000])
    row("connection always breaks off", "always breaks off", name="mtd")
    row("server states too few bytes", "says too little")
    row("server states too many bytes", "says too much")
    row("link has rotated to a page", "", b"<html>please log in</html>", asked=None)
    row("link has rotated, length not known", "", b"<html>please log in</html>", asked=None, name="mtd")
    row("link is gone", "404")
    row("server is broken", "500")
    row("server speaks no HTTP", "no HTTP")
    row("another archive of the same name", "", good[:-1] + b"!")
    row("archive damaged, hash not known", "", good[:4000], asked=None, name="mtd")

    reg, sym = tarfile.REGTYPE, tarfile.SYMTYPE
    hostile = {
        "archive with an absolute name": tar((str(home / SECRET), reg, "")),
        "archive with ..": tar(("part/../../../outside/secret.txt", reg, "")),
        "archive with a link out, and a file through it": tar(
            ("part", sym, str(home / "outside")), ("part/secret.txt", reg, "")
        ),
        "archive with a hard link": tar(("a.png", reg, ""), ("b.png", tarfile.LNKTYPE, "a.png")),
        "archive with a device": tar(("part/null", tarfile.CHRTYPE, "")),
        "archive with a name twice": tar(("part/a.png", reg, ""), ("part/./a.png", reg, "")),
        "archive of 100 kB that unpacks to 100 MB": bomb(),
    }
    SECRET.parent.mkdir()
    for case, content in hostile.items():
        row(case, "", content, asked=content)

    Path("mine.zip").write_bytes(b"not an archive")
    row(
        "archive given by hand is another one",
        options="--yes --from-archive mine.zip",
        link=False,
        asked=None,
    )
    row("folder is there already", out="made/part")
    row("licence not agreed to", options="")
    row("no direct link", link=False, asked=None, name="mpdd")
    row("access is gated", link=False, asked=None, name="real_iad")
    row("link that is none", options="--yes --url file:///etc/passwd", link=False, asked=None)
    row("hash that is none", options="--yes --sha256 abc", asked=None)
    row("unknown data set", name="vissa")
    environment["ANDON_OFFLINE"] = "1"
    row("offline", link=False, asked=None)
    Path("set.tar.gz").write_bytes(good)
    row("offline, archive brought by hand", options="--yes --from-archive set.tar.gz", link=False)
    os.chdir("/")
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
