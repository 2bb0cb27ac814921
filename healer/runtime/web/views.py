"""Views: what the API, the backtest and the command line show of incidents and their plans, by pure functions.

Keys without a value are null, times are RFC 3339 UTC, durations are written as in config.yaml, an unknown number is
null. What they show of approvals, runs and the audit log is in `healer.runtime.web.record_views`, of the fleet in
`healer.runtime.web.fleet_views`.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec

from healer.domain.component import Component
from healer.domain.finding import Evidence
from healer.domain.incident import Incident, Symptom
from healer.domain.plan import Effect, Plan, PlannedStep
from healer.domain.playbook import Asking, Scalar
from healer.domain.silence import Silenced
from healer.domain.verdict import Verdict
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


class AskingView(msgspec.Struct, frozen=True):
    """Attributes:
    who, escalate_to: groups or people, as the playbook names them; null for all of approvals.approvers.
    """

    who: list[str] | None
    quorum: int
    escalate_after: str | None
    escalate_to: list[str]
    on_expire: str


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
    asking: AskingView
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
    culprit: of a job or a rack, the part that is to blame.
    reasons: why it was opened, or became worse; then who said what, where sources disagree.
    symptoms: what else was found that this explains.
    told_at: when reasons and evidence are from.
    gone: its fault was observed to be over.
    persists: while it does, the fault that is found again is this one and opens nothing.
    reopened: how often it came back after it had gone away by itself.
    tried: what was done and has not helped, and why, oldest first.
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
    told_at: datetime
    healthy_since: datetime | None
    resolved_at: datetime | None
    gone: bool
    persists: bool
    reopened: int
    tried: list[str]
    plan: PlanView | None
    approval_id: str | None
    run_id: str | None
    story: str
    silenced: SilencedView | None


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
        opened_at=utc(incident.opened_at),
        changed_at=utc(incident.changed_at),
        told_at=utc(incident.told_at or incident.opened_at),
        healthy_since=utc_or_none(incident.healthy_since),
        resolved_at=utc_or_none(incident.resolved_at),
        gone=incident.gone,
        persists=incident.persists,
        reopened=incident.reopened,
        tried=list(incident.tried),
        plan=None if incident.plan is None else plan_view(incident.plan, incident.verdict),
        approval_id=incident.approval_id,
        run_id=incident.run_id,
        story=incident.story,
        silenced=_silenced_view(silenced),
    )


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
        asking=_asking_view(plan.asking),
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


def _evidence_view(evidence: Evidence) -> EvidenceView:
    return EvidenceView(
        signal=evidence.signal,
        value=evidence.value,
        unit=evidence.unit,
        at=utc(evidence.at),
        note=evidence.note,
        points=[(utc(at), value) for at, value in evidence.points if math.isfinite(value)],
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


def _asking_view(asking: Asking) -> AskingView:
    escalation = asking.escalation
    return AskingView(
        who=None if asking.who is None else list(asking.who),
        quorum=asking.quorum,
        escalate_after=None if escalation is None else format_duration(escalation.after),
        escalate_to=[] if escalation is None else list(escalation.to),
        on_expire=str(asking.on_expire),
    )


def _verdict_view(verdict: Verdict | None) -> VerdictView | None:
    if verdict is None:
        return None
    return VerdictView(guard=str(verdict.guard), message=verdict.message, lifts=verdict.lifts)


def _silenced_view(silenced: Silenced | None) -> SilencedView | None:
    if silenced is None:
        return None
    return SilencedView(silenced.source, silenced.by, utc(silenced.until), silenced.reason)


def utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def utc_or_none(at: datetime | None) -> datetime | None:
    return None if at is None else utc(at)
