"""A server on this machine that behaves as badly as a test asks for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@dataclass
class Server:
    """What it has, what it does wrong, and what was asked of it.

    Attributes:
        url: where it listens.
        files: content by path.
        ranges: whether it sends parts of files.
        faults: what it does wrong, a request after the other: a status to answer with, or a number
            of bytes, negative, after which it breaks off; 0 for nothing wrong.
        asked: path and first byte of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    faults: list[int] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    shift: int = 0
    retry_after: str | None = None

    def forget(self) -> None:
        """As new, with the same files."""
        self.ranges, self.shift, self.retry_after = True, 0, None
        self.faults.clear()
        self.asked.clear()

    def add(self, folder: Path) -> None:
        """Serve the files of a folder."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.files[f"/{file.relative_to(folder)}"] = file.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server_version = "Test"
    state: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        state.asked.append((self.path, start))
        fault = state.faults.pop(0) if state.faults else 0
        content = state.files.get(self.path)
        if fault > 0 or content is None:
            self._head(fault if fault > 0 else 404, {"Content-Length": "0"})
            return
        if found and state.ranges:
            if start >= len(content):
                self._head(416, {"Content-Length": "0"})
                return
            start += state.shift
            about = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            status, content = 206, content[start:]
        else:
            status, about = 200, {}
        self._head(status, about | {"Content-Length": str(len(content))})
        self.wfile.write(content[: -fault or None] if fault else content)
        self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        if self.state.retry_after is not None:
            headers = headers | {"Retry-After": self.state.retry_after}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving() -> Iterator[Server]:
    """A server, until the block ends."""
    state = Server()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
