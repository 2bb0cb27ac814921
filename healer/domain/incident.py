"""Incident: correlated findings with one life."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from healer.domain.component import Component
from healer.domain.finding import Basis, Evidence, FailureMode, Finding, Health
from healer.domain.plan import Plan
from healer.domain.verdict import Verdict


class IncidentState(StrEnum):
    OPEN = "open"
    AWAITING_APPROVAL = "awaiting_approval"
    REMEDIATING = "remediating"
    VERIFYING = "verifying"
    RESOLVED = "resolved"
    ESCALATED = "escalated"

    @property
    def ended(self) -> bool:
        return self in {IncidentState.RESOLVED, IncidentState.ESCALATED}


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"

    @classmethod
    def of(cls, health: Health) -> Severity:
        return cls.CRITICAL if health is Health.FAILED else cls.WARNING


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something else that was found, and that this incident explains.

    Attributes:
        found_at: when it was first found; None in what was written before that was kept.
    """

    failure_mode: FailureMode
    component: Component
    reason: str
    found_at: datetime | None = None

    def __str__(self) -> str:
        return f"{self.failure_mode} of {self.component}: {self.reason}"

    @property
    def key(self) -> str:
        return f"{self.failure_mode}@{self.component.key}"


@dataclass(frozen=True, slots=True)
class Incident:
    """Attributes:
    reasons: why it was opened, or when it became worse; then who said what, where sources disagree.
    culprit: of a job or a rack, the part that is to blame.
    symptoms: what else was found that this explains.
    jobs: whose GPUs it touches.
    since: when the present spell of the fault was first found, None for when it was opened: it may have come back, or
        turned out to be something else.
    told_at: when reasons and evidence are from, None for when it was opened; they are renewed now and then.
    healthy_since: when the component was first observed healthy again, None while it is not, or while it is unknown.
    gone: its fault was observed to be over, at the end or since.
    persists: it still stands for its fault: that has been there ever since the end, or is gone only lately.
    reopened: how often it came back after it had gone away by itself.
    next_playbook: what is tried next, because another playbook has failed; empty for what its failure mode calls for.
    tried: what was done and has not helped, and why, oldest first.
    vanished: all that ever said so is that it is not shown any more.
    line: its first run, whose name is on what was kept; empty before.
    kept: of a run that has failed something stands, a cordon, a limit, a suspended job: it does not go away by itself
        before a person knows.
    story: one line on where it stands, for the person who opens it.
    """

    id: str
    failure_mode: FailureMode
    component: Component
    state: IncidentState
    health: Health
    score: float
    basis: Basis
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    opened_at: datetime
    changed_at: datetime
    since: datetime | None = None
    told_at: datetime | None = None
    culprit: Component | None = None
    symptoms: tuple[Symptom, ...] = ()
    jobs: tuple[str, ...] = ()
    healthy_since: datetime | None = None
    resolved_at: datetime | None = None
    gone: bool = False
    persists: bool = True
    reopened: int = 0
    plan: Plan | None = None
    verdict: Verdict | None = None
    approval_id: str | None = None
    run_id: str | None = None
    next_playbook: str = ""
    tried: tuple[str, ...] = ()
    line: str = ""
    vanished: bool = False
    kept: bool = False
    story: str = ""

    @classmethod
    def opened(cls, finding: Finding, at: datetime) -> Incident:
        """The id is derived, so that replaying the same history gives the same ids."""
        fingerprint = hashlib.sha256(f"{finding.key}@{at.isoformat()}".encode()).hexdigest()
        return cls(
            id=f"inc-{fingerprint[:10]}",
            failure_mode=finding.failure_mode,
            component=finding.component,
            state=IncidentState.OPEN,
            health=finding.health,
            score=finding.score,
            basis=finding.basis,
            reasons=(finding.reason, *finding.disputed),
            evidence=finding.evidence,
            culprit=finding.culprit,
            vanished=finding.vanished,
            opened_at=at,
            changed_at=at,
            story="found",
        )

    @property
    def key(self) -> str:
        return f"{self.failure_mode}@{self.component.key}"

    @property
    def found_at(self) -> datetime:
        """When the present spell of the fault was first found."""
        return self.since or self.opened_at

    @property
    def severity(self) -> Severity:
        return Severity.of(self.health)
