"""The HTTP server: uvicorn in a thread, so that the loop keeps the main one."""

from __future__ import annotations

import errno
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from healer.errors import Unavailable

_PATIENCE_S = 10.0


class HttpServer:
    """Answers from `start` until `stop`."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",  # the application logs its own failures, with the id that the client was given
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> int:
        """Returns the port, which port 0 leaves to the system. Raises Unavailable if it cannot listen there."""
        self._socket = _listen(self._host, self._port)
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise Unavailable("http", f"the server did not come up within {_PATIENCE_S:g} s")
            time.sleep(0.005)
        return int(self._socket.getsockname()[1])

    def stop(self) -> None:
        """Lets the answers that are under way finish, for two seconds at most."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        if self._socket is not None:
            self._socket.close()

    def _serve(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])


def _listen(host: str, port: int) -> socket.socket:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        what = "address in use" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
        raise Unavailable("http", f"{what}: cannot listen on {where}; change http.listen") from error
