"""What HTTP endpoints share: the site's parts, bodies with a limit, answers in one shape, headers that protect."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import msgspec
import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from healer.config import SilencesSettings
from healer.decoding import decode
from healer.domain.maintenance import MaintenanceWindow
from healer.errors import Conflict, Fenced, HealerError, NotFound, NotPermitted, Rejected, Unavailable
from healer.ports import Clock, Journal
from healer.runtime.snapshot import Board
from healer.runtime.web.auth import Gate, Unauthenticated

Endpoint = Callable[[Request], Awaitable[Response]]

BODY_LIMIT = 1 << 20  # bytes
_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

PROTECTIVE: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # no-referrer would make the Origin of our own forms null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Site:
    """Attributes:
    interval: of the loop; readiness is judged by it.
    silences: how long a person may silence something.
    maintenance: the windows of the configuration.
    """

    journal: Journal
    board: Board
    clock: Clock
    gate: Gate
    approvers: frozenset[str]
    interval: timedelta
    silences: SilencesSettings
    maintenance: Sequence[MaintenanceWindow]


class BadRequest(Rejected):
    """The request itself is wrong; `status` says in which way."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__("request", detail)
        self.status = status


_BAD_REQUESTS = {400: "bad_request", 413: "too_large", 422: "invalid"}
# A subclass stands before its base.
_STATUSES: tuple[tuple[type[HealerError], int, str], ...] = (
    (Unauthenticated, 401, "unauthenticated"),
    (NotPermitted, 403, "not_permitted"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (Rejected, 400, "bad_request"),
    (Unavailable, 503, "unavailable"),
    (Fenced, 503, "unavailable"),
)


class Fault(msgspec.Struct, frozen=True):
    code: str
    message: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    error: Fault


def status_of(error: HealerError) -> tuple[int, str]:
    """The HTTP status and the stable code of an error."""
    if isinstance(error, BadRequest):
        return error.status, _BAD_REQUESTS[error.status]
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return status, code
    return 500, "internal"


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def error_answer(status: int, code: str, message: str) -> Response:
    headers = {"www-authenticate": 'Bearer realm="healer"'} if status == 401 else None
    return json_answer(ErrorAnswer(Fault(code, message)), status, headers)


def log_unexpected(request: Request, error: Exception) -> str:
    """The id under which the log has what the answer does not say."""
    incident = secrets.token_hex(6)
    _log.error("request failed", error_id=incident, method=request.method, path=request.url.path, exc_info=error)
    return incident


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """Raises BadRequest: 413 as soon as the body is known to be longer than the limit, 400 when it breaks off."""
    announced = announced_length(request)
    if announced > limit:
        raise too_long(limit)
    body = b""
    parts: bytearray | None = None
    try:
        async for part in request.stream():
            if not body:
                body = part  # almost every body comes in one part
            elif part:
                parts = bytearray(body) if parts is None else parts
                parts += part
            if len(parts or body) > limit:
                raise too_long(limit)
    except ClientDisconnect:
        raise BadRequest("the sender hung up in the middle of the body") from None
    return body if parts is None else bytes(parts)


def announced_length(request: Request) -> int:
    """What Content-Length says; 0 if it says nothing. The server has seen to it that it is a number."""
    return int(request.headers.get("content-length", "0")[:18])


def too_long(limit: int) -> BadRequest:
    return BadRequest(f"the body is longer than {limit} bytes", 413)


def decoded(body: bytes, shape: type[_T]) -> _T:
    """Raises BadRequest: 400 if it is not JSON, 422 if it is not this shape."""
    try:
        return decode(body, shape)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), 422) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def checked_reason(text: str) -> str:
    """A reason as it may enter the journal: said, printable, of bounded length. Raises BadRequest (422)."""
    reason = " ".join(text.split())
    if not reason:
        raise BadRequest("a reason is needed: one sentence for whoever reads the audit log", 422)
    if len(reason) > 1000 or not reason.isprintable():
        raise BadRequest("the reason must be at most 1000 printable characters", 422)
    return reason


class ProtectiveHeaders:
    """ASGI middleware: every answer carries the headers; only static files may be cached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(PROTECTIVE)
                headers["cache-control"] = (
                    "public, max-age=3600" if scope["path"].startswith("/static/") else "no-store"
                )
            await send(message)

        await self._app(scope, receive, send_protected)
