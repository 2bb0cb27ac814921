"""May this person answer this question now, and what becomes of it? Pure decisions; who the person is was proven by
the channel before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from healer.domain.approval import Agreement, Approval, ApprovalState, Person


class Ground(StrEnum):
    """Why an answer does not count."""

    NOT_PERMITTED = "not_permitted"
    NOT_ASKED = "not_asked"
    EXPIRED = "expired"
    ALREADY_DECIDED = "already_decided"
    ALREADY_AGREED = "already_agreed"
    VOID = "void"


# Of these, who is refused is told that it is not for them to answer.
FORBIDDEN = frozenset({Ground.NOT_PERMITTED, Ground.NOT_ASKED})


@dataclass(frozen=True, slots=True)
class Refusal:
    ground: Ground
    message: str

    def __str__(self) -> str:
        return self.message


def may_decide(
    approval: Approval, person: Person, approvers: Collection[str], now: datetime, *, approve: bool
) -> Refusal | None:
    """None when the answer counts. An empty list of approvers means nobody, never everybody.

    Whether the person may answer comes first: who may not, learns nothing of the question's state.

    Args:
        approvers: who may answer at all, as it is now; whom the question was put to, it knows itself.
    """
    return _not_permitted(approval, person, approvers, now) or not_open(approval, person, now, approve=approve)


def not_open(approval: Approval, person: Person, now: datetime, *, approve: bool) -> Refusal | None:
    """Why an answer of somebody who may give it comes too late, or was given before."""
    if approval.state in {ApprovalState.APPROVED, ApprovalState.DENIED}:
        return Refusal(Ground.ALREADY_DECIDED, _decided(approval))
    if approval.state is ApprovalState.VOID:
        return Refusal(Ground.VOID, f"{approval.id} is void: {approval.reason or 'its plan no longer stands'}")
    if approval.state is ApprovalState.EXPIRED or now >= approval.expires_at:
        expired = approval.expires_at.isoformat(timespec="seconds")
        return Refusal(Ground.EXPIRED, f"{approval.id} expired at {expired}; if the plan still holds, it is asked anew")
    before = next((agreement for agreement in approval.agreed if agreement.person.id == person.id), None)
    if approve and before is not None:
        at = before.at.isoformat(timespec="seconds")
        message = f"{person} agreed to {approval.id} at {at} already; {progress(approval)}: another person is needed"
        return Refusal(Ground.ALREADY_AGREED, message)
    return None


def answered(approval: Approval, person: Person, now: datetime, *, approve: bool, reason: str) -> Approval:
    """The question with an answer that counts: one no is a no, a yes decides when it is the last one that is needed."""
    if not approve:
        return replace(approval, state=ApprovalState.DENIED, decided_at=now, decided_by=person, reason=reason)
    agreed = replace(approval, agreed=(*approval.agreed, Agreement(person, now, reason)))
    if agreed.missing:
        return agreed
    return replace(agreed, state=ApprovalState.APPROVED, decided_at=now, decided_by=person, reason=reason)


def progress(approval: Approval) -> str:
    return f"{len(approval.agreed)} of {approval.quorum} have agreed"


def _not_permitted(approval: Approval, person: Person, approvers: Collection[str], now: datetime) -> Refusal | None:
    if not approvers:
        return Refusal(Ground.NOT_PERMITTED, "nobody may answer: approvals.approvers is empty")
    if person.id not in approvers:
        return Refusal(Ground.NOT_PERMITTED, f"{person} is not listed in approvals.approvers")
    if approval.who is None or person.id in approval.who:
        return None
    if person.id not in approval.escalate_to or approval.escalate_at is None:
        return Refusal(Ground.NOT_ASKED, f"{person} is not among those whom {approval.id} was put to")
    if not approval.is_escalated(now):
        at = approval.escalate_at.isoformat(timespec="seconds")
        return Refusal(Ground.NOT_ASKED, f"{person} may answer {approval.id} from {at} on, if it is still open then")
    return None


def _decided(approval: Approval) -> str:
    who = f" by {approval.decided_by}" if approval.decided_by else ""
    when = f" at {approval.decided_at.isoformat(timespec='seconds')}" if approval.decided_at else ""
    return f"{approval.id} was already {approval.state}{who}{when}"
