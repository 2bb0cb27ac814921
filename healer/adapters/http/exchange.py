"""One GET over a connection that never blocks: what is sent, how far it has come, and what became of it.

The parser is httptools, which is Node's; it is told nothing but bytes. `fetching` drives thousands of these.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from selectors import EVENT_READ, EVENT_WRITE
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

import httptools

from healer.adapters.http.bounded import redacted
from healer.errors import Unavailable

Place: TypeAlias = tuple[str, str, int]  # scheme, host, port
Address: TypeAlias = tuple[int, tuple[object, ...]]  # family, and what is connected to

_PORTS = {"http": 80, "https": 443}
_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PACKINGS = frozenset({"gzip", "x-gzip", "deflate"})
_ANY_PACKING = 47  # how zlib is told to find out by itself, with the widest window


@dataclass(frozen=True, slots=True)
class Question:
    """A GET of one URL, as it goes over the wire.

    Attributes:
        component: who is asked, for errors.
    """

    component: str
    place: Place
    sent: bytes

    @classmethod
    def of(cls, component: str, url: str, *, accept: str) -> Question:
        """Raises Unavailable when the URL is not one that can be asked."""
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna").decode()
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise _not_valid(component) from None
        if not host or quote(host, safe=":%._-~") != host:
            raise _not_valid(component)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        name = f"[{host}]" if ":" in host else host
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {name}" if port == _PORTS[parts.scheme] else f"Host: {name}:{port}",
            f"Accept: {accept}",
            "Accept-Encoding: identity",  # packing costs the exporter more than the wire does
            "User-Agent: healer",
        ]
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines.append(f"Authorization: Basic {base64.b64encode(secret.encode()).decode()}")
        return cls(component, (parts.scheme, host, port), "\r\n".join([*lines, "", ""]).encode())


class Unanswered(ConnectionResetError):
    """The connection was closed before anything came."""


class _Step(Enum):
    DIALLING = auto()
    SHAKING = auto()  # hands, of TLS
    SENDING = auto()
    RECEIVING = auto()


class Exchange:
    """A question on its way, over a connection that was kept or over a new one.

    Attributes:
        number, deadline: the caller's.
        socket: None until there is an address to connect to.
        reused: the connection had been kept, and may have been closed at the other end since.
        wants: what has to happen before `advance` gets any further, as `selectors` say it.
        watched: the caller's: what is being waited for.
        held_bytes: of the answer, so far.
    """

    __slots__ = (
        "_addresses", "_answer", "_step", "_unsent", "deadline", "number", "question", "reused", "socket", "wants",
        "watched",
    )  # fmt: skip

    def __init__(self, number: int, question: Question, *, deadline: float, limit_bytes: int) -> None:
        self.number = number
        self.question = question
        self.deadline = deadline
        self.socket: socket.socket | None = None
        self.reused = False
        self.wants = EVENT_WRITE
        self.watched = 0
        self._addresses: list[Address] = []
        self._answer = _Answer(question.component, limit_bytes)
        self._step = _Step.DIALLING
        self._unsent = question.sent

    @property
    def held_bytes(self) -> int:
        return self._answer.held_bytes

    @property
    def keeps(self) -> bool:
        """Whether the connection is good for another question, once the answer is whole."""
        return self._answer.keeps

    def reuse(self, kept: socket.socket) -> None:
        self.socket, self.reused, self._step = kept, True, _Step.SENDING

    def connect(self, addresses: Sequence[Address]) -> None:
        """Over a new connection to the first of the addresses that takes one. Raises OSError."""
        self._addresses = list(addresses)
        self.reused = False
        self._dial()

    def dial_next(self) -> bool:
        """After a failure: try the next address, if it was for want of a connection and if there is one."""
        if self._step is not _Step.DIALLING or not self._addresses:
            return False
        self._dial()
        return True

    def advance(self, buffer: memoryview) -> bool:
        """Go as far as it goes without waiting. True once the answer is whole. Raises OSError or Unavailable."""
        assert self.socket is not None
        try:
            if self._step is _Step.DIALLING:
                self._connected(self.socket)
            if self._step is _Step.SHAKING:
                self.socket.do_handshake()  # type: ignore[attr-defined]
                self._step = _Step.SENDING
            if self._step is _Step.SENDING:
                self._send(self.socket)
            return self._step is _Step.RECEIVING and self._receive(self.socket, buffer)
        except ssl.SSLWantReadError:
            self.wants = EVENT_READ
        except ssl.SSLWantWriteError:
            self.wants = EVENT_WRITE
        except BlockingIOError:
            self.wants = EVENT_READ if self._step is _Step.RECEIVING else EVENT_WRITE
        return False

    def body(self) -> bytes:
        """What was answered. Raises Unavailable if it is not the page that was asked for."""
        return self._answer.body()

    def give_up(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _dial(self) -> None:
        self.give_up()
        family, address = self._addresses.pop(0)
        self._answer = _Answer(self.question.component, self._answer.limit_bytes)
        self._step, self._unsent, self.wants = _Step.DIALLING, self.question.sent, EVENT_WRITE
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(0)
        _check(self.socket.connect_ex(address))

    def _connected(self, connection: socket.socket) -> None:
        _check(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        self._step = _Step.SENDING
        scheme, host, _ = self.question.place
        if scheme == "https":
            self.socket = _trust().wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
            self._step = _Step.SHAKING

    def _send(self, connection: socket.socket) -> None:
        self._unsent = self._unsent[connection.send(self._unsent) :]
        if not self._unsent:
            self._step, self.wants = _Step.RECEIVING, EVENT_READ

    def _receive(self, connection: socket.socket, buffer: memoryview) -> bool:
        while True:
            got = connection.recv_into(buffer)
            if self._answer.take(buffer[:got]):
                return True
            # TLS may hold more than the selector knows of; otherwise it will say when there is more.
            if not isinstance(connection, ssl.SSLSocket):
                return False


class _Answer:
    """An answer as it comes in: what httptools calls back, and what that comes to."""

    __slots__ = (
        "_close_ends_it",
        "_headers",
        "_parser",
        "_parts",
        "_status",
        "_whole",
        "component",
        "held_bytes",
        "keeps",
        "limit_bytes",
    )

    def __init__(self, component: str, limit_bytes: int) -> None:
        self.component = component
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.keeps = False
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._close_ends_it = False
        self._whole = False
        self._status = 0

    def take(self, data: memoryview) -> bool:
        """True when the answer is whole. Raises Unavailable when it never will be, Unanswered."""
        if not data:
            return self._ended()
        self.held_bytes += len(data)
        if self.held_bytes > self.limit_bytes:
            raise self._too_much()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.keeps = False
            if not self._whole:  # else it is what came after the answer that made no sense
                raise Unavailable(self.component, "answers something that is not HTTP; check the address") from None
        return self._whole

    def body(self) -> bytes:
        """Raises Unavailable if the answer is not a page."""
        status = self._status
        if status in _REDIRECTS:
            target = redacted(self._headers.get(b"location", b"").decode("ascii", errors="replace"))
            raise Unavailable(self.component, f"redirects to {target}; configure the address that answers itself")
        if status != 200:
            raise Unavailable(self.component, f"answered with status {status}; check its log")
        packing = self._headers.get(b"content-encoding", b"identity").decode("ascii", errors="replace").lower()
        body = b"".join(self._parts)
        self._parts.clear()  # the parser and this hold each other, and would hold the page until that is noticed
        if packing in _PACKINGS:
            return self._unpacked(body)
        if packing != "identity":
            raise Unavailable(self.component, f"packs its answer as {packing[:20]!r}, which was not asked for")
        return body

    def on_message_begin(self) -> None:
        self.keeps = False  # what comes after the answer is nobody's
        if not self._whole:
            self._headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._whole:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        chunked = b"chunked" in self._headers.get(b"transfer-encoding", b"").lower()
        self._close_ends_it = not chunked and b"content-length" not in self._headers

    def on_body(self, data: bytes) -> None:
        if not self._whole:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._whole:
            self._whole, self._status, self.keeps = True, status, self._parser.should_keep_alive()

    def _ended(self) -> bool:
        """The connection was closed at the other end."""
        if not self.held_bytes:
            raise Unanswered(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        # Without a length nobody knows whether it is whole; a page that is ends with a line.
        if self._close_ends_it and (not self._parts or self._parts[-1].endswith(b"\n")):
            self._status = self._parser.get_status_code()
            return True
        raise Unavailable(self.component, "broke off its answer; check its log")

    def _unpacked(self, body: bytes) -> bytes:
        unpacking = zlib.decompressobj(_ANY_PACKING)
        try:
            unpacked = unpacking.decompress(body, self.limit_bytes + 1)
        except zlib.error:
            raise Unavailable(self.component, "answers something that cannot be unpacked; check its log") from None
        if len(unpacked) > self.limit_bytes:
            raise self._too_much()
        if not unpacking.eof:
            raise Unavailable(self.component, "broke off its answer; check its log")
        return unpacked

    def _too_much(self) -> Unavailable:
        return Unavailable(self.component, f"answers with more than {self.limit_bytes >> 20} MiB; ask for less at once")


def _check(error: int) -> None:
    if error not in _UNDER_WAY:
        raise OSError(error, os.strerror(error))


def _not_valid(component: str) -> Unavailable:
    return Unavailable(component, "the address is not valid for HTTP; correct it")


@cache
def _trust() -> ssl.SSLContext:
    """Of the system, and what `requests` would trust for the other outside systems."""
    context = ssl.create_default_context()
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context
