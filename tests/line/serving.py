"""A real server in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from andon.line.line import Line
from andon.line.server import Server, listen
from line.running import until


@contextmanager
def served(line: Line, port: int = 0) -> Iterator[int]:
    """Serve a started line; the port."""
    with closing(listen("127.0.0.1", port)) as taken:
        server = Server(line)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        until(lambda: server.started)
        try:
            yield taken.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
