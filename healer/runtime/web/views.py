"""Views: what the API, the backtest and the console show of the journal, as structs made by pure functions.

Keys without a value are null, times are RFC 3339 UTC, durations are written as in config.yaml, an unknown number is
null. What they show of the fleet is in `healer.runtime.web.fleet_views`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from healer.domain.approval import Approval, Person
from healer.domain.component import Component
from healer.domain.finding import Evidence
from healer.domain.incident import Incident, Symptom
from healer.domain.plan import Effect, Plan, PlannedStep
from healer.domain.playbook import Scalar
from healer.domain.run import EffectRecord, Run
from healer.domain.silence import Silenced
from healer.domain.verdict import Verdict
from healer.ports import AuditEntry
from healer.schema import format_duration


class ComponentView(msgspec.Struct, frozen=True):
    kind: str
    rack: str | None
    node: str | None
    gpu: str | None
    uuid: str | None
    job: str | None
    link: str | None


class EvidenceView(msgspec.Struct, frozen=True):
    signal: str
    value: float | None
    unit: str
    at: datetime
    note: str
    points: list[tuple[datetime, float]]


class EffectView(msgspec.Struct, frozen=True):
    verb: str
    target: str
    detail: str
    takes_out: str | None


class StepView(msgspec.Struct, frozen=True):
    id: str
    use: str
    arguments: dict[str, Scalar]
    timeout: str
    on_failure: str


class VerdictView(msgspec.Struct, frozen=True):
    guard: str
    message: str
    lifts: str


class PlanView(msgspec.Struct, frozen=True):
    playbook: str
    playbook_digest: str
    digest: str
    target: ComponentView
    effects: list[EffectView]
    steps: list[StepView]
    needs_approval: bool
    approval_expires_after: str
    deadline: str
    resolves_when: str
    impediments: list[str]
    budget: str
    reason: str
    verdict: VerdictView | None


class SilencedView(msgspec.Struct, frozen=True):
    """Attributes:
    source: the silence's id, or the maintenance window's name.
    """

    source: str
    by: str
    until: datetime
    reason: str


class SymptomView(msgspec.Struct, frozen=True):
    failure_mode: str
    component: ComponentView
    reason: str


class IncidentView(msgspec.Struct, frozen=True):
    """Attributes:
    silenced: why it is left alone now; null if it is not, and in a backtest.
    """

    id: str
    failure_mode: str
    component: ComponentView
    culprit: ComponentView | None
    state: str
    health: str
    severity: str
    score: float
    basis: str
    reasons: list[str]
    evidence: list[EvidenceView]
    symptoms: list[SymptomView]
    jobs: list[str]
    opened_at: datetime
    changed_at: datetime
    healthy_since: datetime | None
    resolved_at: datetime | None
    persists: bool
    plan: PlanView | None
    approval_id: str | None
    run_id: str | None
    story: str
    silenced: SilencedView | None


class PersonView(msgspec.Struct, frozen=True):
    id: str
    name: str


class ApprovalView(msgspec.Struct, frozen=True):
    id: str
    incident_id: str
    state: str
    digest: str
    plan: PlanView
    asked_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: PersonView | None
    reason: str
    announced: bool
    closed: bool


class EffectRecordView(msgspec.Struct, frozen=True):
    step_id: str
    key: str
    state: str
    intended_at: datetime
    settled_at: datetime | None
    found: str
    detail: str


class RunView(msgspec.Struct, frozen=True):
    id: str
    incident_id: str
    approval_id: str | None
    state: str
    position: int
    plan: PlanView
    started_at: datetime
    step_started_at: datetime
    next_look_at: datetime
    ended_at: datetime | None
    detail: str
    cause: str
    cancelled_by: str


class RunDetailView(RunView, frozen=True):
    """A run with every effect that it intended, in that order."""

    effects: list[EffectRecordView]


class AuditView(msgspec.Struct, frozen=True):
    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    detail: str
    previous: str
    digest: str


def incident_view(incident: Incident, silenced: Silenced | None = None) -> IncidentView:
    return IncidentView(
        id=incident.id,
        failure_mode=str(incident.failure_mode),
        component=component_view(incident.component),
        culprit=None if incident.culprit is None else component_view(incident.culprit),
        state=str(incident.state),
        health=incident.health.name.lower(),
        severity=str(incident.severity),
        score=incident.score,
        basis=str(incident.basis),
        reasons=list(incident.reasons),
        evidence=[_evidence_view(evidence) for evidence in incident.evidence],
        symptoms=[_symptom_view(symptom) for symptom in incident.symptoms],
        jobs=list(incident.jobs),
        opened_at=_utc(incident.opened_at),
        changed_at=_utc(incident.changed_at),
        healthy_since=_utc_or_none(incident.healthy_since),
        resolved_at=_utc_or_none(incident.resolved_at),
        persists=incident.persists,
        plan=None if incident.plan is None else plan_view(incident.plan, incident.verdict),
        approval_id=incident.approval_id,
        run_id=incident.run_id,
        story=incident.story,
        silenced=_silenced_view(silenced),
    )


def approval_view(approval: Approval) -> ApprovalView:
    return ApprovalView(
        id=approval.id,
        incident_id=approval.incident_id,
        state=str(approval.state),
        digest=approval.digest,
        plan=plan_view(approval.plan),
        asked_at=_utc(approval.asked_at),
        expires_at=_utc(approval.expires_at),
        decided_at=_utc_or_none(approval.decided_at),
        decided_by=person_view(approval.decided_by),
        reason=approval.reason,
        announced=approval.announced,
        closed=approval.closed,
    )


def run_view(run: Run) -> RunView:
    return RunView(
        id=run.id,
        incident_id=run.incident_id,
        approval_id=run.approval_id,
        state=str(run.state),
        position=run.position,
        plan=plan_view(run.plan),
        started_at=_utc(run.started_at),
        step_started_at=_utc(run.step_started_at),
        next_look_at=_utc(run.next_look_at),
        ended_at=_utc_or_none(run.ended_at),
        detail=run.detail,
        cause=run.cause,
        cancelled_by=run.cancelled_by,
    )


def run_detail_view(run: Run, effects: Iterable[EffectRecord]) -> RunDetailView:
    return RunDetailView(**msgspec.structs.asdict(run_view(run)), effects=[_record_view(effect) for effect in effects])


def plan_view(plan: Plan, verdict: Verdict | None = None) -> PlanView:
    return PlanView(
        playbook=plan.playbook,
        playbook_digest=plan.playbook_digest,
        digest=plan.digest,
        target=component_view(plan.target),
        effects=[_effect_view(effect) for effect in plan.effects],
        steps=[_step_view(step) for step in plan.steps],
        needs_approval=plan.needs_approval,
        approval_expires_after=format_duration(plan.approval_expires_after),
        deadline=format_duration(plan.deadline),
        resolves_when=str(plan.resolves_when),
        impediments=list(plan.impediments),
        budget=plan.budget,
        reason=plan.reason,
        verdict=_verdict_view(verdict),
    )


def component_view(component: Component) -> ComponentView:
    return ComponentView(
        kind=str(component.kind),
        rack=component.rack,
        node=component.node,
        gpu=component.gpu,
        uuid=component.uuid,
        job=component.job,
        link=component.link,
    )


def known(value: float) -> float | None:
    """A number as JSON can say it: null where it is NaN or endless."""
    return value if math.isfinite(value) else None


def audit_view(entry: AuditEntry) -> AuditView:
    return AuditView(
        number=entry.number,
        at=_utc(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        detail=entry.detail,
        previous=entry.previous,
        digest=entry.digest,
    )


def _evidence_view(evidence: Evidence) -> EvidenceView:
    return EvidenceView(
        signal=evidence.signal,
        value=evidence.value,
        unit=evidence.unit,
        at=_utc(evidence.at),
        note=evidence.note,
        points=[(_utc(at), value) for at, value in evidence.points],
    )


def _symptom_view(symptom: Symptom) -> SymptomView:
    return SymptomView(str(symptom.failure_mode), component_view(symptom.component), symptom.reason)


def _step_view(step: PlannedStep) -> StepView:
    return StepView(
        id=step.id,
        use=step.use,
        arguments=dict(step.arguments),
        timeout=format_duration(step.timeout),
        on_failure=str(step.on_failure),
    )


def _effect_view(effect: Effect) -> EffectView:
    return EffectView(verb=effect.verb, target=effect.target, detail=effect.detail, takes_out=effect.takes_out)


def _record_view(effect: EffectRecord) -> EffectRecordView:
    return EffectRecordView(
        step_id=effect.step_id,
        key=effect.key,
        state=str(effect.state),
        intended_at=_utc(effect.intended_at),
        settled_at=_utc_or_none(effect.settled_at),
        found=effect.found,
        detail=effect.detail,
    )


def _verdict_view(verdict: Verdict | None) -> VerdictView | None:
    if verdict is None:
        return None
    return VerdictView(guard=str(verdict.guard), message=verdict.message, lifts=verdict.lifts)


def _silenced_view(silenced: Silenced | None) -> SilencedView | None:
    if silenced is None:
        return None
    return SilencedView(silenced.source, silenced.by, _utc(silenced.until), silenced.reason)


def person_view(person: Person | None) -> PersonView | None:
    return None if person is None else PersonView(id=person.id, name=person.name)


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _utc_or_none(at: datetime | None) -> datetime | None:
    return None if at is None else _utc(at)
