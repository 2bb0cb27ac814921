"""Findings into incidents: one life for each fault, however often it is found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from healer.domain.finding import Basis, Finding, Findings, Health
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.playbook import ResolvesWhen


def correlate(
    incidents: Iterable[Incident], findings: Findings, frame: Frame, *, clear_after: timedelta
) -> tuple[Incident, ...]:
    """The incidents that are new or have changed. `incidents` are the live ones.

    A finding that persists after its incident has ended is the same fault and opens nothing. An incident ends by
    itself only when its component was *observed* healthy for `clear_after`: silence clears nothing. Where another
    system found the fault and has fallen silent, nobody observes any more: that is for a person to look at.
    """
    live = {incident.key: incident for incident in incidents}
    # Where two detectors find the same, the worse counts, and of two alike the rule.
    ranked = sorted(findings.found, key=lambda finding: (finding.health, finding.basis is Basis.RULE))
    found = {finding.key: finding for finding in ranked}
    reported = {report.key: report.health for report in sorted(findings.reports, key=lambda report: report.health)}
    changed = [
        _refreshed(_recurred(live[key], frame.at, clear_after), finding)
        for key, finding in found.items()
        if key in live
    ]
    changed += [Incident.opened(finding, frame.at) for key, finding in found.items() if key not in live]
    for key, incident in live.items():
        if key not in found:
            where = incident.component
            judged = findings.health_of(incident.failure_mode, where.kind, frame.row_of(where))
            health = max(judged, reported.get(key, Health.UNKNOWN))
            since = incident.healthy_since if _looked_on(frame, clear_after) else None
            unbroken = replace(incident, healthy_since=since)
            if health is Health.UNKNOWN and key in reported:
                changed.append(_fallen_silent(unbroken, frame.at))
            else:
                changed.append(_not_found(unbroken, health, frame.at, clear_after))
    return tuple(incident for incident in changed if incident != live.get(incident.key))


def _looked_on(frame: Frame, clear_after: timedelta) -> bool:
    """Whether the frame before this one is recent: what was healthy before a long silence counts anew."""
    return len(frame.times) > 1 and -frame.times[-2] <= clear_after.total_seconds()


def _recurred(incident: Incident, at: datetime, clear_after: timedelta) -> Incident:
    """Open again if the remedy has not lasted: the fault is back, or is still there when it should long be gone."""
    if incident.state is not IncidentState.VERIFYING or _contains(incident):
        return incident
    if incident.healthy_since is None and at - incident.changed_at < clear_after:
        return incident
    return replace(incident, state=IncidentState.OPEN, changed_at=at, run_id=None, story="found again after its remedy")


def _refreshed(incident: Incident, finding: Finding) -> Incident:
    """The incident with the newest evidence; its worst health stays, so that flapping does not lower the severity."""
    if incident.state.ended:
        return replace(incident, healthy_since=None)
    return replace(
        incident,
        component=finding.component,
        health=max(incident.health, finding.health),
        score=max(incident.score, finding.score),
        basis=Basis.RULE if finding.basis is Basis.RULE else incident.basis,
        reasons=(finding.reason,),
        evidence=finding.evidence or incident.evidence,
        healthy_since=None,
    )


def _not_found(incident: Incident, health: Health, at: datetime, clear_after: timedelta) -> Incident:
    if health is not Health.HEALTHY:
        return replace(incident, healthy_since=None)
    since = incident.healthy_since or at
    if at - since < clear_after:
        return replace(incident, healthy_since=since)
    if incident.state.ended:
        return replace(incident, healthy_since=since, persists=False)
    if _may_end(incident):
        how = "remedied" if incident.state is IncidentState.VERIFYING else "it went away by itself"
        return replace(
            incident,
            state=IncidentState.RESOLVED,
            healthy_since=since,
            resolved_at=at,
            changed_at=at,
            persists=False,
            verdict=None,
            story=f"{how}: observed healthy since {since:%H:%M:%S}Z",
        )
    return replace(incident, healthy_since=since)


def _fallen_silent(incident: Incident, at: datetime) -> Incident:
    """Who found it would long have repeated it, and has not said that it is over: if it is found again, it is news."""
    incident = replace(incident, healthy_since=None)
    if incident.state.ended:
        return replace(incident, persists=False)
    if incident.state is not IncidentState.OPEN:
        return incident
    story = "who reported it has fallen silent, neither repeating it nor calling it over: a person has to look"
    return replace(incident, state=IncidentState.ESCALATED, changed_at=at, persists=False, story=story)


def _may_end(incident: Incident) -> bool:
    """A run that is under way ends first; one that must contain is verified in the cluster, not in the telemetry."""
    match incident.state:
        case IncidentState.OPEN | IncidentState.AWAITING_APPROVAL:
            return True
        case IncidentState.VERIFYING:
            return not _contains(incident)
        case IncidentState.REMEDIATING | IncidentState.RESOLVED | IncidentState.ESCALATED:  # pragma: no branch
            return False


def _contains(incident: Incident) -> bool:
    """Whether the incident's plan leaves the fault where it is and takes its component out of service."""
    return incident.plan is None or incident.plan.resolves_when is ResolvesWhen.CONTAINED
