"""A remote write receiver behind a small web application, for senders that are real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from healer.adapters.http.server import HttpServer
from healer.adapters.push.remote_write import RemoteWrite, WriteAnswer

Veto = Callable[[bytes], WriteAnswer | None]


def _takes_all(_body: bytes) -> WriteAnswer | None:
    return None


@contextmanager
def receiving(receiver: RemoteWrite, *, port: int = 0, veto: Veto = _takes_all) -> Iterator[str]:
    """The URL to write to.

    Args:
        veto: what to answer to a body instead of taking it in.
    """

    async def write(request: Request) -> Response:
        body = await request.body()
        answer = veto(body)
        if answer is None:
            answer = await run_in_threadpool(receiver.receive, request.headers, body, datetime.now(UTC))
        return Response(answer.text or None, answer.status, dict(answer.headers), media_type="text/plain")

    server = HttpServer(Starlette(routes=[Route("/api/v1/write", write, methods=["POST"])]), port=port)
    server.start()
    try:
        yield f"{server.url}/api/v1/write"
    finally:
        server.stop()
