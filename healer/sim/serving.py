"""An ASGI application on a port of this machine, in a thread of its own, for as long as somebody needs it."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from healer.errors import Unavailable

_PATIENCE_S = 10.0


class BackgroundServer:
    """Listens from the moment it is made (port 0 takes a free one), answers from `start` until `stop`."""

    def __init__(self, app: ASGIApp, *, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self._name = name
        self._socket = _listen(name, host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Returns at once: the socket already listens, so the first caller merely waits for the loop to come up."""
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        self._socket.close()
        if self._thread.is_alive():
            raise Unavailable(self._name, f"its server did not stop within {_PATIENCE_S:g} s")

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


def _listen(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {host} port {port}: {error.strerror}; choose another port"
        raise Unavailable(name, text) from error
    return listener
