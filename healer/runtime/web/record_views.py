"""Views of what was asked, done and recorded: approvals, runs, and the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from healer.domain.approval import Agreement, Approval, Person
from healer.domain.run import EffectRecord, Run
from healer.ports import AuditEntry
from healer.runtime.web.views import PlanView, plan_view, utc, utc_or_none


class PersonView(msgspec.Struct, frozen=True):
    id: str
    name: str


class AgreementView(msgspec.Struct, frozen=True):
    person: PersonView
    at: datetime
    reason: str


class ApprovalView(msgspec.Struct, frozen=True):
    """Attributes:
    who: ids of those whom it was put to, among them usergroups of Slack; null for all of approvals.approvers.
    quorum: so many different people have to agree; `missing` more than have by now.
    escalates_at: from then on those of `escalate_to` may answer, too; null for never.
    """

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
    who: list[str] | None
    quorum: int
    missing: int
    agreed: list[AgreementView]
    escalates_at: datetime | None
    escalate_to: list[str]
    escalated: bool


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
    paused_by: str


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


def approval_view(approval: Approval) -> ApprovalView:
    return ApprovalView(
        id=approval.id,
        incident_id=approval.incident_id,
        state=str(approval.state),
        digest=approval.digest,
        plan=plan_view(approval.plan),
        asked_at=utc(approval.asked_at),
        expires_at=utc(approval.expires_at),
        decided_at=utc_or_none(approval.decided_at),
        decided_by=person_view(approval.decided_by),
        reason=approval.reason,
        announced=approval.announced,
        closed=approval.closed,
        who=None if approval.who is None else list(approval.who),
        quorum=approval.quorum,
        missing=approval.missing,
        agreed=[_agreement_view(agreement) for agreement in approval.agreed],
        escalates_at=utc_or_none(approval.escalate_at),
        escalate_to=list(approval.escalate_to),
        escalated=approval.escalated,
    )


def run_view(run: Run) -> RunView:
    return RunView(
        id=run.id,
        incident_id=run.incident_id,
        approval_id=run.approval_id,
        state=str(run.state),
        position=run.position,
        plan=plan_view(run.plan),
        started_at=utc(run.started_at),
        step_started_at=utc(run.step_started_at),
        next_look_at=utc(run.next_look_at),
        ended_at=utc_or_none(run.ended_at),
        detail=run.detail,
        cause=run.cause,
        cancelled_by=run.cancelled_by,
        paused_by=run.paused_by,
    )


def run_detail_view(run: Run, effects: Iterable[EffectRecord]) -> RunDetailView:
    return RunDetailView(**msgspec.structs.asdict(run_view(run)), effects=[_record_view(effect) for effect in effects])


def audit_view(entry: AuditEntry) -> AuditView:
    return AuditView(
        number=entry.number,
        at=utc(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        detail=entry.detail,
        previous=entry.previous,
        digest=entry.digest,
    )


def person_view(person: Person | None) -> PersonView | None:
    return None if person is None else _person_view(person)


def _person_view(person: Person) -> PersonView:
    return PersonView(id=person.id, name=person.name)


def _agreement_view(agreement: Agreement) -> AgreementView:
    return AgreementView(_person_view(agreement.person), utc(agreement.at), agreement.reason)


def _record_view(effect: EffectRecord) -> EffectRecordView:
    return EffectRecordView(
        step_id=effect.step_id,
        key=effect.key,
        state=str(effect.state),
        intended_at=utc(effect.intended_at),
        settled_at=utc_or_none(effect.settled_at),
        found=effect.found,
        detail=effect.detail,
    )
