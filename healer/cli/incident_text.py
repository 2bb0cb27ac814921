"""Incidents as the commands print them: as a row of a table, or all that there is to say about one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from healer.cli.options import age, one_line, view_of
from healer.decoding import convert
from healer.domain.component import Component, ComponentKind
from healer.domain.incident import IncidentState
from healer.runtime.web.views import ComponentView, EvidenceView, IncidentView, PlanView

COLUMNS = ("ID", "AGE", "SEVERITY", "STATE", "FAILURE", "COMPONENT", "CULPRIT", "JOBS", "SYMPTOMS", "STORY")
_ENDED = frozenset({IncidentState.RESOLVED, IncidentState.ESCALATED})
_MOST_JOBS = 2  # in a cell


def parsed(item: dict[str, Any]) -> IncidentView:
    """Raises HealerError if the daemon is of another version."""
    return view_of(item, IncidentView, what="incidents")


def row(incident: IncidentView, now: datetime) -> tuple[str, ...]:
    return (
        incident.id,
        age(incident.opened_at, now),
        incident.severity,
        incident.state,
        incident.failure_mode,
        named(incident.component),
        *reach(incident),
        incident.story,
    )


def reach(incident: IncidentView) -> tuple[str, str, str]:
    """Who is to blame, whose jobs are hurt, and how many symptoms it explains."""
    jobs, more = incident.jobs[:_MOST_JOBS], len(incident.jobs) - _MOST_JOBS
    culprit = "" if incident.culprit is None else named(incident.culprit)
    return culprit, ", ".join(jobs) + (f" +{more}" if more > 0 else ""), str(len(incident.symptoms) or "")


def named(component: ComponentView) -> str:
    """As everywhere else, with the rack that a person has to walk to."""
    known = convert(component, Component, from_attributes=True)
    return f"{known} ({known.rack})" if known.rack and known.kind is not ComponentKind.RACK else str(known)


def lines(incident: IncidentView, now: datetime) -> Iterable[str]:
    yield one_line(f"{incident.id}: {incident.failure_mode} of {named(incident.component)}")
    for name, texts in _facts(incident, now):
        for number, text in enumerate(filter(None, texts)):
            yield f"  {'' if number else name:10} {one_line(text)}"


def _facts(incident: IncidentView, now: datetime) -> Iterable[tuple[str, Sequence[str]]]:
    opened = f"opened {_moment(incident.opened_at)}, {age(incident.opened_at, now)} ago"
    yield "state", [f"{incident.severity}, {incident.state}, {opened}", incident.story]
    yield "why", incident.reasons[:1]
    yield "disputed", incident.reasons[1:]
    yield "basis", [f"{incident.basis}, score {incident.score:.2f}"]
    yield "culprit", [] if incident.culprit is None else [named(incident.culprit)]
    yield "jobs", incident.jobs
    yield "symptoms", [f"{s.failure_mode} of {named(s.component)}: {s.reason}" for s in incident.symptoms]
    yield "evidence", [_evidence(evidence) for evidence in incident.evidence]
    yield "tried", list(incident.tried)
    yield "reopened", [f"{incident.reopened}, each time after it had gone away by itself"] if incident.reopened else []
    if incident.state in _ENDED:
        yield "fault", [_fault(incident)]
    if incident.plan is not None:
        yield "plan", [*_plan(incident.plan)]
    if (why := incident.silenced) is not None:
        yield "silenced", [f"by {why.by} until {_moment(why.until)}: {why.reason} ({why.source})"]


def _evidence(evidence: EvidenceView) -> str:
    value = "unknown" if evidence.value is None else f"{evidence.value:.6g} {evidence.unit}"
    text = f"{evidence.signal}: {value} at {_moment(evidence.at)}"
    if evidence.points:
        values = [value for _, value in evidence.points]
        text += f"; {min(values):.6g} to {max(values):.6g} since {_moment(evidence.points[0][0])}"
    return f"{text}; {evidence.note}" if evidence.note else text


def _fault(incident: IncidentView) -> str:
    if incident.gone:
        return "observed to be over" + (", if it is back soon, it is this incident again" if incident.persists else "")
    return f"not observed to be over, found again, it {'opens nothing' if incident.persists else 'is a new incident'}"


def _plan(plan: PlanView) -> Iterable[str]:
    yield (
        plan.playbook
        + (", needs approval" if plan.needs_approval else "")
        + (f": {plan.reason}" if plan.reason else "")
    )
    for effect in plan.effects:
        yield f"{effect.verb} {effect.target}{f' ({effect.detail})' if effect.detail else ''}"
    if plan.verdict is not None:
        yield f"held by {plan.verdict.guard}: {plan.verdict.message}; lifts when {plan.verdict.lifts}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
