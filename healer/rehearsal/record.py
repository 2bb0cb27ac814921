"""What the journal holds of one run: its incident, its questions, its effects, and what it led to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from healer.domain.approval import Approval, ApprovalState
from healer.domain.incident import Incident
from healer.domain.plan import Plan
from healer.domain.run import Run
from healer.ports import AuditEntry, Journal
from healer.runtime.course import Carried
from healer.runtime.knowledge import EVERY

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """Attributes:
    runs: the run itself, then those that its incident led to afterwards.
    approvals: the questions that led to them, also those that nobody answered, oldest first.
    audit: the lines about any of them, oldest first.
    is_first: no other run was about the incident before.
    """

    incident: Incident
    runs: tuple[Carried, ...]
    approvals: tuple[Approval, ...]
    audit: tuple[AuditEntry, ...]
    is_first: bool = True

    @property
    def run(self) -> Run:
        return self.runs[0].run

    @property
    def first_plan(self) -> Plan:
        """A question that nobody answered leads to the run of another playbook."""
        asked = [each for each in self.approvals if each.asked_at <= self.run.started_at]
        return asked[0].plan if asked else self.run.plan

    @property
    def began(self) -> datetime:
        """When the fault was found, as far as the run is about it."""
        first = min([self.run.started_at, *(approval.asked_at for approval in self.approvals)])
        return self.incident.found_at if self.incident.found_at <= first else self.incident.opened_at


def read_record(journal: Journal, run_id: str) -> Record:
    """What the journal holds of a run and of what followed it. Raises NotFound."""
    run = journal.run(run_id)
    of_incident = [each for each in reversed(journal.runs(limit=EVERY)) if each.incident_id == run.incident_id]
    runs = [each for each in of_incident if each.id == run.id or each.started_at > run.started_at]
    is_first = of_incident[0].id == run.id
    answered = {each.approval_id for each in runs}
    since = datetime.min.replace(tzinfo=UTC) if is_first else run.started_at
    approvals = [
        each
        for each in reversed(journal.approvals(limit=EVERY))
        if each.incident_id == run.incident_id
        and (each.id in answered or (each.state is ApprovalState.EXPIRED and each.asked_at >= since))
    ]
    subjects = {run.incident_id, *(each.id for each in runs), *(each.id for each in approvals)}
    return Record(
        incident=journal.incident(run.incident_id),
        runs=tuple(Carried(each, journal.effects(each.id)) for each in runs),
        approvals=tuple(approvals),
        audit=tuple(entry for entry in _audit_log(journal) if entry.subject.partition("/")[0] in subjects),
        is_first=is_first,
    )


def _audit_log(journal: Journal) -> Iterator[AuditEntry]:
    after = 0
    while page := journal.audit_log(after=after, limit=_PAGE):
        yield from page
        after = page[-1].number
