"""A cable to a real server that can be pulled, and plugged into something else that answers nonsense."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16
_LOOK_S = 0.05


class Relay:
    """Passes bytes on to a server on this machine, on one port for its whole life. Plugged in from the start."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._canned: bytes | None = None
        self._guard = threading.Lock()
        self._listening: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Self:
        self.plug_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pull()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plug_in(self) -> None:
        """The real server answers."""
        self._listen(None)

    def answer(self, canned: bytes) -> None:
        """Whatever is asked, these bytes come back, and the connection ends."""
        self._listen(canned)

    def pull(self) -> None:
        """Nobody listens any more, and what was connected is cut off."""
        with self._guard:
            if self._listening is not None:
                _shut(self._listening)
            self._listening = None
            for connection in self._connections:
                _shut(connection)
            self._connections.clear()

    def _listen(self, canned: bytes | None) -> None:
        self.pull()
        listening = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        with self._guard:
            self._listening = listening
        threading.Thread(target=self._accept, args=(listening, canned), name="relay", daemon=True).start()

    def _accept(self, listening: socket.socket, canned: bytes | None) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with self._guard:
                    if self._listening is not listening:
                        _shut(connection)
                        return
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection, canned), name="relay", daemon=True).start()

    def _serve(self, connection: socket.socket, canned: bytes | None) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as ended:
            ended.callback(self._forget, connection)
            if canned is not None:
                connection.recv(_CHUNK)
                connection.sendall(canned)
                return
            server = socket.create_connection(self._to)
            ended.callback(_shut, server)
            _pass_on(connection, server)

    def _forget(self, connection: socket.socket) -> None:
        with self._guard:
            self._connections.discard(connection)
        _shut(connection)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Until either end has had enough."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while one.fileno() >= 0:
            for key, _ in ready.select(_LOOK_S):
                assert isinstance(key.fileobj, socket.socket)
                received = key.fileobj.recv(_CHUNK)
                if not received:
                    return
                key.data.sendall(received)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
