"""A web server on a port of this machine that answers exactly what a test tells it to, sense or nonsense."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, slots=True)
class Canned:
    """Attributes:
    declared_length: what Content-Length claims, if it is to lie.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    declared_length: int | None = None
    drips: bool = False
    stalls: bool = False


Respond: TypeAlias = Callable[[Asked], Canned]


@dataclass(slots=True)
class CannedServer:
    """`respond` may be replaced at any time; `asked` is every request so far."""

    url: str
    respond: Respond
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    canned: CannedServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has given up is what many of these tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Web

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        pass

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(str(self.command), parts.path, dict(parse_qsl(parts.query)), headers, body)
        self.server.canned.asked.append(asked)
        try:
            self._send(self.server.canned.respond(asked))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, canned: Canned) -> None:
        if canned.stalls:
            self.server.canned.closing.wait()
        self.send_response(canned.status)
        length = len(canned.body) if canned.declared_length is None else canned.declared_length
        for name, value in {"Content-Length": str(length), **canned.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        pieces = [canned.body] if not canned.drips else [canned.body[i : i + 1] for i in range(len(canned.body))]
        for piece in pieces:
            self.wfile.write(piece)
            if canned.drips and self.server.canned.closing.wait(0.05):
                break
        self.close_connection = self.close_connection or length != len(canned.body)


@contextmanager
def canned_server(respond: Respond | None = None) -> Iterator[CannedServer]:
    web = _Web(("127.0.0.1", 0), _Handler)
    web.canned = CannedServer(f"http://127.0.0.1:{web.server_address[1]}", respond or (lambda _: Canned(status=404)))
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web.canned
    finally:
        web.canned.closing.set()
        web.shutdown()
        web.server_close()
        thread.join()
