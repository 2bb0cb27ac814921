"""Approval: a question to a person about one concrete plan, and the answer."""

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
class Approval:
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
    announced: bool = False  # the question reached the channel
    announced_as: str = ""  # the channel's name of the message, to update it; empty if it cannot be updated
    closed: bool = False  # the channel shows the answer
