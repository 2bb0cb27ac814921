"""What the simulated systems that speak HTTP share: they are there from `start` until `stop`, or for a `with`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from starlette.types import ASGIApp

from healer.adapters.http.server import HttpServer


class Served:
    def __init__(self, app: ASGIApp, *, name: str, host: str, port: int) -> None:
        self._server = HttpServer(app, host, port, name=name)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
