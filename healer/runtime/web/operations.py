"""The operations of the HTTP API, as one table: what serves them, who may, what they take and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec

from healer.domain.approval import Person
from healer.domain.matcher import Matcher, parse_matcher
from healer.domain.run import Run
from healer.runtime.web.auth import Identity, Role
from healer.runtime.web.breaker_views import BreakerView, TripView, breaker_view, trip_view
from healer.runtime.web.decisions import checked_id, decide
from healer.runtime.web.fleet_views import (
    ModelView,
    NodeView,
    TelemetryView,
    model_views,
    node_views,
    telemetry_view,
)
from healer.runtime.web.record_views import (
    ApprovalView,
    AuditView,
    RunDetailView,
    RunView,
    approval_view,
    audit_view,
    run_detail_view,
    run_view,
)
from healer.runtime.web.silence_views import SilenceList, SilenceView, maintenance_view, silence_view
from healer.runtime.web.silences import Wish, add_silence, expire_silence, silenced
from healer.runtime.web.site import BadRequest, Site, checked_reason, decoded
from healer.runtime.web.views import IncidentView, incident_view
from healer.schema import parse_duration

_DEFAULT_LIMIT = 100
_HIGHEST_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """One request, authenticated and read."""

    identity: Identity
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class Operation:
    """Attributes:
    query: the whole-number query parameters that it knows.
    flags: those that are true or false.
    takes: the shape of its JSON body; None if it takes none.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    role: Role
    answers: type[msgspec.Struct]
    run: Callable[[Site, Call], msgspec.Struct]
    query: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    takes: type[msgspec.Struct] | None = None


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class SilenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attributes:
    matchers: as on the command line: `rack=r7`, `failure_mode=~"Nvlink.*"`.
    starts_at: now, if it is left out.
    ends_at, duration: one of them (a duration is written `2h`); detectors.silences.lasts if both are left out.
    """

    matchers: list[str]
    reason: str
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    ends_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    duration: str | None = None


class IncidentList(msgspec.Struct, frozen=True):
    items: list[IncidentView]


class ApprovalList(msgspec.Struct, frozen=True):
    items: list[ApprovalView]


class RunList(msgspec.Struct, frozen=True):
    items: list[RunView]


class NodeList(msgspec.Struct, frozen=True):
    """Attributes:
    as_of: when the turn ended that saw this.
    problem: why the scheduler could not be asked, if it could not.
    """

    as_of: datetime | None
    problem: str | None
    items: list[NodeView]


class ModelList(msgspec.Struct, frozen=True):
    as_of: datetime | None
    items: list[ModelView]


class AuditList(msgspec.Struct, frozen=True):
    """Attributes:
    next_after: give it as `after` to read on; null at the end.
    """

    items: list[AuditView]
    next_after: int | None


def _incidents(site: Site, call: Call) -> IncidentList:
    incidents = site.journal.incidents(limit=_limit(call))
    covers = silenced(site, incidents, call.now)
    return IncidentList([incident_view(found, cover) for found, cover in zip(incidents, covers, strict=True)])


def _incident(site: Site, call: Call) -> IncidentView:
    incident = site.journal.incident(checked_id(call.path["id"], "incident"))
    return incident_view(incident, *silenced(site, [incident], call.now))


def _approvals(site: Site, call: Call) -> ApprovalList:
    return ApprovalList([approval_view(found) for found in site.journal.approvals(limit=_limit(call))])


def _approval(site: Site, call: Call) -> ApprovalView:
    return approval_view(site.journal.approval(checked_id(call.path["id"], "approval")))


def _runs(site: Site, call: Call) -> RunList:
    return RunList([run_view(found) for found in site.journal.runs(limit=_limit(call))])


def _run(site: Site, call: Call) -> RunDetailView:
    run = site.journal.run(checked_id(call.path["id"], "run"))
    return run_detail_view(run, site.journal.effects(run.id))


def _nodes(site: Site, _call: Call) -> NodeList:
    snapshot = site.board.look()
    problem = None if snapshot.fleet is None else snapshot.fleet.problem
    return NodeList(snapshot.at, problem, list(node_views(snapshot)))


def _telemetry(site: Site, _call: Call) -> TelemetryView:
    return telemetry_view(site.board.look())


def _models(site: Site, _call: Call) -> ModelList:
    snapshot = site.board.look()
    return ModelList(snapshot.at, list(model_views(snapshot)))


def _audit(site: Site, call: Call) -> AuditList:
    limit = _limit(call)
    entries = site.journal.audit_log(after=_number(call, "after", default=0, lowest=0), limit=limit)
    more = entries[-1].number if len(entries) == limit else None
    return AuditList([audit_view(entry) for entry in entries], more)


def _approve(site: Site, call: Call) -> ApprovalView:
    return _answered(site, call, approve=True)


def _deny(site: Site, call: Call) -> ApprovalView:
    return _answered(site, call, approve=False)


def _answered(site: Site, call: Call, *, approve: bool) -> ApprovalView:
    reason, approval_id = checked_reason(decoded(call.body, Reason).reason), call.path["id"]
    person = call.identity.person
    answered = decide(site.journal, site.approvers, approval_id, person, call.now, approve=approve, reason=reason)
    return approval_view(answered)


def _cancel(site: Site, call: Call) -> RunView:
    return _said_of_run(call, site.journal.request_cancel)


def _pause(site: Site, call: Call) -> RunView:
    return _said_of_run(call, site.journal.pause)


def _resume(site: Site, call: Call) -> RunView:
    return _said_of_run(call, site.journal.resume)


def _said_of_run(call: Call, say: Callable[[str, Person, datetime, str], Run]) -> RunView:
    reason = checked_reason(decoded(call.body, Reason).reason)
    return run_view(say(checked_id(call.path["id"], "run"), call.identity.person, call.now, reason))


def _silences(site: Site, call: Call) -> SilenceList:
    unended_at = call.now if _flag(call, "active") else None
    found = site.journal.silences(unended_at=unended_at, limit=_limit(call))
    windows = [maintenance_view(window, call.now) for window in site.maintenance]
    return SilenceList([silence_view(silence, call.now) for silence in found], windows)


def _silence(site: Site, call: Call) -> SilenceView:
    body = decoded(call.body, SilenceBody)
    lasts = None if body.duration is None else _duration(body.duration)
    wish = Wish([_matcher(text) for text in body.matchers], body.reason, body.starts_at, body.ends_at, lasts)
    return silence_view(add_silence(site, wish, call.identity.person, call.now), call.now)


def _expire(site: Site, call: Call) -> SilenceView:
    reason, person = decoded(call.body, Reason).reason, call.identity.person
    return silence_view(expire_silence(site.journal, call.path["id"], person, call.now, reason), call.now)


def _breaker(site: Site, call: Call) -> BreakerView:
    return breaker_view(site.journal.trips(limit=_limit(call)))


def _reset(site: Site, call: Call) -> TripView:
    reason = checked_reason(decoded(call.body, Reason).reason)
    return trip_view(site.journal.reset_breaker(call.identity.person, call.now, reason))


def _matcher(text: str) -> Matcher:
    try:
        return parse_matcher(text)
    except ValueError as error:
        raise BadRequest(str(error), 422) from error


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadRequest(f"duration: {error}", 422) from error


def _flag(call: Call, name: str) -> bool:
    match call.query.get(name, "false"):
        case "" | "true":
            return True
        case "false":
            return False
        case text:
            raise BadRequest(f"{name} is true or false, not '{text[:40]}'", 422)


def _limit(call: Call) -> int:
    return _number(call, "limit", default=_DEFAULT_LIMIT, lowest=1, highest=_HIGHEST_LIMIT)


def _number(call: Call, name: str, *, default: int, lowest: int, highest: int = 2**53) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and lowest <= int(text) <= highest):
        raise BadRequest(f"{name} must be a whole number from {lowest} to {highest}, not '{text[:40]}'", 422)
    return int(text)


OPERATIONS = (
    Operation("GET", "/incidents", "Incidents, newest first", Role.VIEWER, IncidentList, _incidents, query=("limit",)),
    Operation("GET", "/incidents/{id}", "One incident with its plan", Role.VIEWER, IncidentView, _incident),
    Operation("GET", "/runs", "Runs, newest first", Role.VIEWER, RunList, _runs, query=("limit",)),
    Operation("GET", "/runs/{id}", "One run with every effect it intended", Role.VIEWER, RunDetailView, _run),
    Operation("POST", "/runs/{id}/cancel", "Undo what a run did", Role.APPROVER, RunView, _cancel, takes=Reason),
    Operation(
        "POST", "/runs/{id}/pause", "Let a run have no further effect", Role.APPROVER, RunView, _pause, takes=Reason
    ),
    Operation("POST", "/runs/{id}/resume", "Let a paused run go on", Role.APPROVER, RunView, _resume, takes=Reason),
    Operation("GET", "/approvals", "Approvals, newest first", Role.VIEWER, ApprovalList, _approvals, query=("limit",)),
    Operation("GET", "/approvals/{id}", "One approval with its plan", Role.VIEWER, ApprovalView, _approval),
    Operation(
        "POST", "/approvals/{id}/approve", "Approve the plan", Role.APPROVER, ApprovalView, _approve, takes=Reason
    ),
    Operation("POST", "/approvals/{id}/deny", "Deny the plan", Role.APPROVER, ApprovalView, _deny, takes=Reason),
    Operation(
        "GET",
        "/silences",
        "Silences, newest first; `active` leaves out those that have ended",
        Role.VIEWER,
        SilenceList,
        _silences,
        query=("limit",),
        flags=("active",),
    ),
    Operation(
        "POST",
        "/silences",
        "Leave what matches alone for a while",
        Role.APPROVER,
        SilenceView,
        _silence,
        takes=SilenceBody,
    ),
    Operation("POST", "/silences/{id}/expire", "End a silence now", Role.APPROVER, SilenceView, _expire, takes=Reason),
    Operation(
        "GET", "/breaker", "The breaker, its trips newest first", Role.VIEWER, BreakerView, _breaker, query=("limit",)
    ),
    Operation("POST", "/breaker/reset", "Close the breaker", Role.APPROVER, TripView, _reset, takes=Reason),
    Operation("GET", "/nodes", "Nodes and their GPUs as of the newest turn", Role.VIEWER, NodeList, _nodes),
    Operation("GET", "/telemetry", "What is seen and what is not", Role.VIEWER, TelemetryView, _telemetry),
    Operation("GET", "/models", "Models and their newest scores", Role.VIEWER, ModelList, _models),
    Operation("GET", "/audit", "Audit log, oldest first", Role.VIEWER, AuditList, _audit, query=("after", "limit")),
)
