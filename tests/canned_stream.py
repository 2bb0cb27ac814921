"""A web server on a port of this machine that streams what a test tells it to, whole or not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
class Streamed:
    """Attributes:
    pieces: each is sent as one piece of a chunked body.
    breaks: whether the connection is closed before the body has ended.
    stalls: whether nothing comes after the pieces until the test is over.
    pause_s: after each piece.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks: bool = False
    stalls: bool = False
    pause_s: float = 0.0


Respond: TypeAlias = Callable[[Asked], Streamed]


@dataclass(slots=True)
class StreamServer:
    """`respond` may be replaced at any time; `asked` is every request so far."""

    url: str
    respond: Respond
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    canned: StreamServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has given up is what some of these tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Web

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
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

    def _send(self, streamed: Streamed) -> None:
        self.send_response(streamed.status)
        for name, value in {
            "Content-Type": streamed.content_type,
            "Transfer-Encoding": "chunked",
            **streamed.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in streamed.pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if self.server.canned.closing.wait(streamed.pause_s):
                break
        if streamed.stalls:
            self.server.canned.closing.wait()
        if streamed.breaks:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def stream_server(respond: Respond) -> Iterator[StreamServer]:
    web = _Web(("127.0.0.1", 0), _Handler)
    web.canned = StreamServer(f"http://127.0.0.1:{web.server_address[1]}", respond)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web.canned
    finally:
        web.canned.closing.set()
        web.shutdown()
        web.server_close()
        thread.join()
