"""The HTTP application: health, metrics, Slack's clicks, the JSON API, and the console when it is wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from healer.adapters.push.alertmanager import AlertmanagerWebhook
from healer.adapters.slack.channel import Click, SlackInteractions, parse_interaction, reply
from healer.config import HttpSettings, SilencesSettings
from healer.domain.approval import ApprovalState
from healer.domain.maintenance import MaintenanceWindow
from healer.errors import HealerError, NotFound, NotPermitted
from healer.policy.approval import progress
from healer.ports import Clock, Journal
from healer.runtime.snapshot import Board
from healer.runtime.web import console as console_pages
from healer.runtime.web.auth import Gate, ResolvedToken, Role, Unauthenticated
from healer.runtime.web.decisions import Declined, Forbidden, decide
from healer.runtime.web.ingest import ALERTS, WRITE, Receiver, alerts_endpoint, write_endpoint
from healer.runtime.web.metrics import exposition
from healer.runtime.web.openapi import Extra, document
from healer.runtime.web.operations import OPERATIONS, Call, Operation
from healer.runtime.web.readiness import why_not_ready
from healer.runtime.web.site import (
    PROTECTIVE,
    BadRequest,
    Endpoint,
    ProtectiveHeaders,
    Site,
    error_answer,
    json_answer,
    log_unexpected,
    read_body,
    status_of,
)

PREFIX = "/api/v1"
_MACHINE_PATHS = ("/api/", "/-/", "/slack/", "/metrics")
_log = structlog.get_logger(__name__)

EXTRAS = (
    WRITE,
    ALERTS,
    Extra("GET", "/-/healthy", "The process serves", {"200": "It does"}),
    Extra("GET", "/-/ready", "The newest turn of the loop succeeded", {"200": "It did", "503": "Why not"}),
    Extra(
        "GET",
        "/metrics",
        "The daemon's own metrics; open on loopback",
        {"200": "Text"},
        CONTENT_TYPE_LATEST,
        open=False,
    ),
    Extra(
        "POST",
        "/slack/interactions",
        "A click in Slack, proven by Slack's signature",
        {"200": "What became of it", "400": "No click of ours", "401": "Not signed by Slack", "413": "Too long"},
    ),
    Extra("GET", f"{PREFIX}/openapi.json", "This document", {"200": "OpenAPI 3.1"}, open=False),
)


class Readiness(msgspec.Struct, frozen=True):
    ready: bool
    reason: str


class ClickAnswer(msgspec.Struct, frozen=True):
    outcome: str
    message: str


def build_app(
    *,
    journal: Journal,
    board: Board,
    clock: Clock,
    approvers: Collection[str],
    http: HttpSettings,
    tokens: Mapping[str, ResolvedToken],
    slack: SlackInteractions | None = None,
    receiver: Receiver | None = None,
    notices: AlertmanagerWebhook | None = None,
    console: bool = True,
    interval: timedelta = timedelta(seconds=30),
    silences: SilencesSettings = SilencesSettings(),  # noqa: B008 - frozen
    maintenance: Sequence[MaintenanceWindow] = (),
) -> Starlette:
    """What is None is not switched on: its route says how to.

    Args:
        receiver: takes remote writes.
        notices: takes alerts.
        interval: the loop's: readiness is lost when several turns have been missed.
        silences: how long a person may silence something.
        maintenance: the windows of the configuration, to be shown.
    """
    site = Site(journal, board, clock, Gate(http, tokens), frozenset(approvers), interval, silences, maintenance)
    routes: list[BaseRoute] = [
        Route(WRITE.path, write_endpoint(site, receiver), methods=[WRITE.method]),
        Route(ALERTS.path, alerts_endpoint(site, notices), methods=[ALERTS.method]),
        Route("/-/healthy", _healthy, methods=["GET"]),
        Route("/-/ready", _ready(site), methods=["GET"]),
        Route("/metrics", _metrics(site, notices), methods=["GET"]),
        Route("/slack/interactions", _slack(site, slack), methods=["POST"]),
        Route(f"{PREFIX}/openapi.json", _openapi(site), methods=["GET"]),
        *(Route(PREFIX + op.path, _endpoint(site, op), methods=[op.method]) for op in OPERATIONS),
        *(console_pages.routes(site) if console else ()),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(ProtectiveHeaders)],
        exception_handlers={HealerError: _refused, HTTPException: _not_routed, Exception: _unexpected},
    )


async def _healthy(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _ready(site: Site) -> Endpoint:
    async def ready(_request: Request) -> Response:
        reason = why_not_ready(site.board.look(), site.clock.now(), site.interval)
        return json_answer(Readiness(reason is None, reason or ""), 200 if reason is None else 503)

    return ready


def _metrics(site: Site, notices: AlertmanagerWebhook | None) -> Endpoint:
    async def metrics(request: Request) -> Response:
        now = site.clock.now()
        site.gate.require_scrape(request, now)
        alerts = None if notices is None else notices.told()
        text = await run_in_threadpool(exposition, site.journal, site.board.look(), now, alerts)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return metrics


def _openapi(site: Site) -> Endpoint:
    content = document(OPERATIONS, EXTRAS, prefix=PREFIX)

    async def openapi(request: Request) -> Response:
        site.gate.require(request, Role.VIEWER, site.clock.now())
        return json_answer(content)

    return openapi


def _endpoint(site: Site, operation: Operation) -> Endpoint:
    async def answer(request: Request) -> Response:
        now = site.clock.now()
        identity = site.gate.require(request, operation.role, now)
        query = dict(request.query_params)
        unknown = sorted(set(query) - {*operation.query, *operation.flags})
        if unknown:
            raise BadRequest(f"unknown query parameter '{unknown[0][:40]}'", 422)
        body = await read_body(request) if operation.takes is not None else b""
        call = Call(identity, request.path_params, query, body, now)
        return json_answer(await run_in_threadpool(operation.run, site, call))

    return answer


def _slack(site: Site, slack: SlackInteractions | None) -> Endpoint:
    async def interactions(request: Request) -> Response:
        if slack is None:
            raise NotFound("Slack", "approvals.slack is not configured")
        now, body = site.clock.now(), await read_body(request)
        try:
            click = parse_interaction(body, request.headers, signing_secret=slack.signing_secret, now=now)
        except NotPermitted as error:
            _log.warning("click refused", error=str(error))
            raise Unauthenticated("Slack", error.detail) from error
        answer = await run_in_threadpool(_clicked, site, click, now)
        response = json_answer(answer)
        if click.response_url is not None:
            response.background = BackgroundTask(reply, click.response_url, answer.message, api_url=slack.api_url)
        return response

    return interactions


def _clicked(site: Site, click: Click, now: datetime) -> ClickAnswer:
    """What became of a proven click. A refusal is an answer too: Slack shows an error for anything but 200."""
    reason = "clicked Approve in Slack" if click.approve else "clicked Deny in Slack"
    try:
        approval = decide(
            site.journal, site.approvers, click.approval_id, click.person, now, approve=click.approve, reason=reason
        )
    except NotFound:
        return ClickAnswer("not_found", f"{click.approval_id} is not known here: was it asked by another healer?")
    except (Forbidden, Declined) as error:
        return ClickAnswer(str(error.ground), error.detail)
    if approval.state is ApprovalState.PENDING:
        return ClickAnswer("agreed", f"{progress(approval)} to {approval.id}, you among them: {approval.missing} more.")
    return ClickAnswer(str(approval.state), f"{approval.id} is {approval.state}; recorded as answered by you.")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HealerError)
    status, code = status_of(error)
    message = str(error)
    if status == 500:
        message = f"unexpected; the log has it as {log_unexpected(request, error)}"
    return _answer(request, status, code, message)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return _answer(request, error.status_code, code, f"{request.method} {request.url.path[:200]}: {error.detail}")


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answers outside of all middleware, so the protective headers are put on here."""
    answer = _answer(request, 500, "internal", f"unexpected; the log has it as {log_unexpected(request, error)}")
    answer.headers.update(PROTECTIVE)
    return answer


def _answer(request: Request, status: int, code: str, message: str) -> Response:
    """People get a page, programs get JSON."""
    if request.url.path.startswith(_MACHINE_PATHS):
        return error_answer(status, code, message)
    return console_pages.error_page(request, status, message)
