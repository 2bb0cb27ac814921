"""An ASGI application on an address of this machine: uvicorn in a thread, for as long as somebody needs it."""

from __future__ import annotations

import errno
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from healer.errors import Unavailable

_PATIENCE_S = 10.0
_KEEP_ALIVE_S = 75  # senders and scrapers come back every some seconds, and find their connection still open


class HttpServer:
    """Listens from the moment it is made (port 0 takes a free one), answers from `start` until `stop`.

    Args:
        name: who could not listen, in errors.
        hint: what to do about it.
        log_level: of uvicorn's own log; None leaves it to the process.

    Raises:
        Unavailable: it cannot listen there.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        name: str = "http",
        hint: str = "choose another port",
        log_level: str | None = None,
    ) -> None:
        self._name = name
        self._socket = _listen(name, host, port, hint)
        self.host, self.port = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level=log_level,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{_shown(self.host, self.port)}"

    def start(self) -> int:
        """Returns the port once it answers. Raises Unavailable if it does not come up."""
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(self._name, f"the server did not come up within {_PATIENCE_S:g} s")
            time.sleep(0.005)
        return int(self.port)

    def stop(self) -> None:
        """Lets the answers that are under way finish, for two seconds at most. Raises Unavailable if it goes on."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        self._socket.close()
        if self._thread.is_alive():
            raise Unavailable(self._name, f"its server did not stop within {_PATIENCE_S:g} s")

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


def _listen(name: str, host: str, port: int, hint: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        what = "address in use" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise Unavailable(name, f"{what}: cannot open port {port} to listen on {_shown(host, port)}; {hint}") from error


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
