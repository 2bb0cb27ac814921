"""Approval: a question to people about one concrete plan, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from healer.domain.plan import Plan


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    VOID = "void"  # the plan changed or the incident went away before anyone answered


@dataclass(frozen=True, slots=True)
class Person:
    """Who answered, as the channel that authenticated them names them: "slack:U024BE7LH", "token:alice"."""

    id: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.id})" if self.name else self.id


@dataclass(frozen=True, slots=True)
class Agreement:
    """One person's yes; it counts for the question that it was given to, and ends with it."""

    person: Person
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """Attributes:
    decided_by: whose answer decided it: the last one that was needed, or the one no.
    who: the members whom it was put to, by id, as approvals.groups stood then; None, as before there were groups,
        for all of approvals.approvers.
    quorum: so many different people have to agree.
    agreed: those who have, oldest first.
    escalate_at: from then on the members `escalate_to` may answer, too; None for never.
    escalated: the audit log says so.
    announced: the question reached the channel.
    announced_as: the channel's name of the message, to update it; empty if it cannot be updated.
    escalation_announced, escalated_as: the same of the message that told the escalation.
    shown: how many agreements the channel shows.
    closed: the channel shows the answer.
    """

    id: str
    incident_id: str
    plan: Plan
    digest: str
    state: ApprovalState
    asked_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    decided_by: Person | None = None
    reason: str = ""
    announced: bool = False
    announced_as: str = ""
    closed: bool = False
    who: tuple[str, ...] | None = None
    quorum: int = 1
    agreed: tuple[Agreement, ...] = ()
    escalate_at: datetime | None = None
    escalate_to: tuple[str, ...] = ()
    escalated: bool = False
    escalation_announced: bool = False
    escalated_as: str = ""
    shown: int = 0

    @property
    def missing(self) -> int:
        """How many more have to agree."""
        return max(0, self.quorum - len(self.agreed))

    @property
    def approved_by(self) -> str:
        """Everybody whose yes it took; of what was approved before there was a quorum, who decided."""
        return " and ".join(str(agreement.person) for agreement in self.agreed) or str(self.decided_by)

    def is_escalated(self, now: datetime) -> bool:
        """Whether it was still open when more people were to be asked. True from then on, told or not."""
        return self.escalate_at is not None and now >= self.escalate_at
