"""May this person answer this question now? A pure decision; who the person is was proven by the channel before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from healer.domain.approval import Approval, ApprovalState, Person


class Ground(StrEnum):
    """Why an answer does not count."""

    NOT_PERMITTED = "not_permitted"
    EXPIRED = "expired"
    ALREADY_DECIDED = "already_decided"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Refusal:
    ground: Ground
    message: str

    def __str__(self) -> str:
        return self.message


def may_decide(approval: Approval, person: Person, approvers: Collection[str], now: datetime) -> Refusal | None:
    """None when the answer counts. An empty list of approvers means nobody, never everybody.

    Whether the person may answer comes first: who may not, learns nothing of the question's state.
    """
    if not approvers:
        return Refusal(Ground.NOT_PERMITTED, "nobody may answer: approvals.approvers is empty")
    if person.id not in approvers:
        return Refusal(Ground.NOT_PERMITTED, f"{person} is not listed in approvals.approvers")
    if approval.state in {ApprovalState.APPROVED, ApprovalState.DENIED}:
        return Refusal(Ground.ALREADY_DECIDED, _decided(approval))
    if approval.state is ApprovalState.VOID:
        return Refusal(Ground.VOID, f"{approval.id} is void: {approval.reason or 'its plan no longer stands'}")
    if approval.state is ApprovalState.EXPIRED or now >= approval.expires_at:
        expired = approval.expires_at.isoformat(timespec="seconds")
        return Refusal(Ground.EXPIRED, f"{approval.id} expired at {expired}; if the plan still holds, it is asked anew")
    return None


def _decided(approval: Approval) -> str:
    who = f" by {approval.decided_by}" if approval.decided_by else ""
    when = f" at {approval.decided_at.isoformat(timespec='seconds')}" if approval.decided_at else ""
    return f"{approval.id} was already {approval.state}{who}{when}"
