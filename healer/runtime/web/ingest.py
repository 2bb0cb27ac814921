"""The two routes that telemetry comes in by: Prometheus remote write, and Alertmanager's webhook.

Machines call them, many times a second, so they do little besides what they are for. A body is read by the event loop
and decoded in a thread, few at a time; how much of all bodies is in memory at once is bounded, and a sender beyond that
is asked to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.errors import NotFound
from healer.runtime.web.openapi import Extra
from healer.runtime.web.site import Endpoint, Site, announced_length, error_answer, json_answer, read_body

WRITE_LIMIT = 32 << 20  # bytes of a body, compressed
ALERTS_LIMIT = 8 << 20
_LIMIT_OF_ALL = 128 << 20  # bytes of all the bodies that are in memory
_WRITES_AT_ONCE = 2  # decoding holds the interpreter for most of its time: more threads only take turns
_RETRY_AFTER_S = "5"

WRITE = Extra(
    "POST",
    "/api/v1/write",
    "Prometheus remote write, 1.0 and 2.0, in snappy; needs the role sender",
    {
        "204": "Taken",
        "400": "Not to be sent again: it cannot be decoded, or holds samples that are not acceptable",
        "401": "It is not known who is asking",
        "403": "The asker may not send, or is a web page",
        "404": "Remote write is not switched on",
        "413": f"Longer than {WRITE_LIMIT >> 20} MiB",
        "415": "Neither of the two protocols, or not snappy",
        "429": "Too fast: to be sent again after Retry-After",
        "503": "Too much at once: to be sent again after Retry-After",
    },
    "text/plain",
    open=False,
    takes="application/x-protobuf",
)
ALERTS = Extra(
    "POST",
    "/api/v1/alerts",
    "Alertmanager's webhook (or Grafana's): an alert becomes a finding; needs the role sender",
    {
        "200": "How many alerts became what",
        "400": "Not a notification; what is wrong with it",
        "401": "It is not known who is asking",
        "403": "The asker may not send, or is a web page",
        "404": "Alerts are not taken",
        "413": f"Longer than {ALERTS_LIMIT >> 20} MiB",
        "503": "Too much at once: to be sent again",
    },
    open=False,
    takes="application/json",
)


class Answer(Protocol):
    """What is answered to a write: `text` is for the log of the sender."""

    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Receiver(Protocol):
    def receive(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Answer:
        """Takes one remote write in, or says why not. Called from several threads."""
        ...


class _Intake:
    """The bodies that are in memory. Used from the event loop alone.

    Attributes:
        held: their bytes, as announced; a body that does not say counts as the longest one.
    """

    def __init__(self, limit: int, limit_of_all: int) -> None:
        self.held = 0
        self._limit = limit
        self._limit_of_all = limit_of_all

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes | None]:
        """The body as long as it is needed; None if there is no room for it. Raises BadRequest."""
        size = announced_length(request) if "content-length" in request.headers else self._limit
        if size <= self._limit and self.held + size > self._limit_of_all:
            yield None
            return
        self.held += size
        try:
            yield await read_body(request, self._limit)
        finally:
            self.held -= size


def write_endpoint(site: Site, receiver: Receiver | None) -> Endpoint:
    intake, turns = _Intake(WRITE_LIMIT, _LIMIT_OF_ALL), asyncio.Semaphore(_WRITES_AT_ONCE)

    async def write(request: Request) -> Response:
        now = site.clock.now()
        site.gate.require_sender(request, now)
        if receiver is None:
            raise NotFound("remote write", "it is not switched on; set telemetry.source: remote_write")
        async with intake.body(request) as body:
            if body is None:
                return _busy()
            async with turns:
                answer = await run_in_threadpool(receiver.receive, request.headers, body, now)
        text = None if answer.status == 204 else answer.text
        return PlainTextResponse(text, answer.status, answer.headers)

    return write


def alerts_endpoint(site: Site, notices: AlertmanagerWebhook | None) -> Endpoint:
    intake, turns = _Intake(ALERTS_LIMIT, _LIMIT_OF_ALL), asyncio.Semaphore(1)

    async def alerts(request: Request) -> Response:
        now = site.clock.now()
        site.gate.require_sender(request, now)
        if notices is None:
            raise NotFound("alerts", "they are not taken; set telemetry.alerts.receive: true")
        async with intake.body(request) as body:
            if body is None:
                return _busy()
            async with turns:
                fates = await run_in_threadpool(notices.receive, body, now)
        return json_answer(fates)

    return alerts


def _busy() -> Response:
    answer = error_answer(503, "unavailable", "too much is being sent at once")
    answer.headers["retry-after"] = _RETRY_AFTER_S
    return answer
