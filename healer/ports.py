"""The few protocols that the shell implements. One adapter, one outside system.

All of them raise `healer.errors.Unavailable` when the outside system did not answer or answered nonsense, and
`healer.errors.Rejected` when it said no. None of them ever returns an empty answer for a failed question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from healer.domain.approval import Approval, Person
from healer.domain.breaker import Trip
from healer.domain.care import CareOrder, CareReport, NodeCondition
from healer.domain.finding import Findings
from healer.domain.fleet import Gang, GpuPower, Node, Workload
from healer.domain.frame import Frame
from healer.domain.incident import Incident, IncidentState
from healer.domain.kernel_line import KernelLine
from healer.domain.reading import Reading
from healer.domain.run import EffectRecord, Run, Start
from healer.domain.silence import Silence
from healer.domain.testimony import Testimony
from healer.domain.ticket import Ticket
from healer.domain.topology import Topology
from healer.telemetry.history import Stretch


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, aware, UTC."""
        ...


class TelemetrySource(Protocol):
    @property
    def name(self) -> str: ...

    def read(self, at: datetime) -> Reading:
        """The newest sample of every series, as of `at`."""
        ...


class TelemetryHistory(Protocol):
    def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
        """One reading per step, oldest first, each as `read` would have returned it at that time."""
        ...


class SampleHistory(Protocol):
    """Stored telemetry as it was stored, for training."""

    def fetch(self, metrics: Sequence[str], start: datetime, end: datetime) -> Iterator[Stretch]:
        """Every stored sample with start <= time < end, each once, as stretches of whole series.

        Slice after slice, and in each slice all metrics; a slice without samples does not come. Stale marks are left
        out, every other value is as it was stored. May fail in the middle: what has come by then is whole.
        """
        ...


class TopologySource(Protocol):
    """Who knows where each node is, and which job holds what."""

    def topology(self, at: datetime) -> Topology:
        """All that is so as of `at`; the very same object while nothing has changed."""
        ...


class Notices(Protocol):
    """What other systems found and told us of their own accord."""

    def findings(self, frame: Frame, now: datetime) -> Findings: ...

    def warnings(self, now: datetime) -> tuple[str, ...]: ...


class JobWitness(Protocol):
    """What distributed jobs tell of themselves from inside."""

    def testimonies(self, now: datetime, suspects: Mapping[str, Sequence[str]]) -> tuple[Testimony, ...]:
        """What jobs say of themselves, as far as it is known by now: it returns at once, and never raises Unavailable.

        Args:
            suspects: job -> its nodes, of those that look stalled from outside: only these are asked over the network,
                and what they answer a later call tells.
        """
        ...

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """Who could not be asked, and what could not be read."""
        ...


class KernelLog(Protocol):
    """What the kernel logs of the nodes say of GPUs."""

    def lines(self, now: datetime) -> tuple[KernelLine, ...]:
        """What was written since the last call, each line once. Never raises Unavailable."""
        ...

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """What could not be read."""
        ...


class EvictionAnswer(StrEnum):
    ACCEPTED = "accepted"  # it was asked to go; it has not gone yet
    BLOCKED = "blocked"  # a disruption budget said not now
    GONE = "gone"  # it was no longer there


@dataclass(frozen=True, slots=True)
class Eviction:
    answer: EvictionAnswer
    detail: str = ""
    retry_after: timedelta = timedelta(seconds=5)


class Cluster(Protocol):
    """The scheduler."""

    def nodes(self) -> tuple[Node, ...]: ...

    def node(self, name: str) -> Node:
        """Raises NotFound."""
        ...

    def workloads(self, node: str) -> tuple[Workload, ...]:
        """Everything on the node, finished and system workloads included, each with what a drain would do with it."""
        ...

    def cordon(self, node: str, *, by: str, reason: str) -> None:
        """Keep new work away, and record `by` (a run's id) as the owner of the cordon. Idempotent for one owner.

        Raises Conflict if somebody else cordoned it.
        """
        ...

    def uncordon(self, node: str, *, by: str) -> None:
        """Undo the cordon of `by`. Raises Conflict if the cordon is not, or no longer, `by`'s."""
        ...

    def evict(self, workload: Workload, *, grace: timedelta | None) -> Eviction:
        """Ask exactly this workload (its uid is a precondition) to go. `grace` None keeps the workload's own."""
        ...

    def job(self, name: str) -> Gang:
        """The job that topology names so. One that cannot be restarted whole says why. Raises NotFound."""
        ...

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        """Have all its pods go and none come, and record `by` (a run's id) as the owner. Idempotent for one owner.

        Returns before they have gone. Raises Conflict if somebody else suspended it, Rejected if it cannot be.
        """
        ...

    def resume(self, job: str, *, by: str) -> None:
        """Undo the suspension of `by`: its pods are made again. Raises Conflict if it is not, or no longer, `by`'s."""
        ...


class PowerControl(Protocol):
    """The node agents' power limits."""

    def limits(self, node: str) -> tuple[GpuPower, ...]: ...

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        """Set limits by GPU index, all or none. Unless renewed within `ttl` the agent falls back to `fallback_w`."""
        ...

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        """Put the device's default limits back."""
        ...


class NodeCare(Protocol):
    """The node agents' hands on their nodes: long operations, each begun once under a key and observed afterwards."""

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        """Begin it, and return at once. The same key again is the same operation, running or over.

        Raises Rejected if the agent does not do such a thing, or knows the key for another order.
        """
        ...

    def report(self, node: str, key: str) -> CareReport | None:
        """How far it is, also after the node has booted; None if the agent says that it was never asked for it."""
        ...

    def condition(self, node: str) -> NodeCondition:
        """As it is now."""
        ...


class Tickets(Protocol):
    """Where people are handed what healer can do no more about."""

    def open(self, ticket: Ticket) -> str:
        """Returns where it is to be read. The same key once more is the same ticket."""
        ...

    def find(self, key: str) -> str | None:
        """Where the ticket is to be read, None if there is none, or if that cannot be asked."""
        ...


class ApprovalChannel(Protocol):
    """Where on-call is asked. The channel only carries the question; authority stays with the journal."""

    def ask(self, approval: Approval, incident: Incident) -> str:
        """Put the question; return the channel's name of the message, or "" if it cannot be updated later."""
        ...

    def escalate(self, approval: Approval, incident: Incident) -> str:
        """Put the question anew, to those who may answer from now on; return the name of this message as `ask` does."""
        ...

    def update(self, approval: Approval, incident: Incident) -> None:
        """Show who has agreed by now, where the question stands."""
        ...

    def close(self, approval: Approval, incident: Incident) -> None:
        """Show the answer in place of the question, wherever it stands."""
        ...

    def warn(self, trip: Trip) -> None:
        """Say that the breaker has opened."""
        ...


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the hash-chained audit log.

    Attributes:
        actor: "healer", or the person's id.
        subject: the id of the incident, approval or run, or the name of the component.
        detail: JSON object text.
        previous, digest: hex sha256; digest covers every other field.
    """

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    detail: str
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many the journal holds, by state; a state that nothing is in is left out."""

    incidents: Mapping[str, int]
    runs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Lease:
    """Attributes:
    run_id: who holds it.
    taken_out: the node that the run takes out of service by it, if it does.
    """

    run_id: str
    taken_out: str | None = None


class Transaction(Protocol):
    """Writes that happen together or not at all, in the name of the leader that opened it."""

    def save_incident(self, incident: Incident) -> None: ...

    def add_approval(self, approval: Approval) -> None: ...

    def change_approval(self, approval_id: str, change: Callable[[Approval], Approval]) -> Approval:
        """Read, change and write in one go: the loop, the channel and people all change approvals. Raises NotFound."""
        ...

    def add_run(self, run: Run, leases: Sequence[str]) -> None:
        """Start a run and take its leases (component keys, locks); raises Conflict if another run holds one."""
        ...

    def save_run(self, run: Run) -> None:
        """A run that has ended gives its leases back."""
        ...

    def save_effect(self, effect: EffectRecord) -> None: ...

    def add_trip(self, trip: Trip) -> None: ...

    def change_trip(self, trip_id: str, change: Callable[[Trip], Trip]) -> Trip:
        """As `change_approval`: a person may reset the breaker while its trip is being announced."""
        ...

    def audit(
        self,
        at: datetime,
        actor: str,
        action: str,
        subject: str,
        *,
        reason: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None: ...


class Journal(Protocol):
    """What must survive the process. Every read is of committed state."""

    def lead(self, holder: str, now: datetime, ttl: timedelta) -> int:
        """Become, or stay, the leader; returns the epoch. Raises Conflict while another process leads."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Raises Fenced at its start and at its commit if another process leads meanwhile."""
        ...

    def incidents(
        self, *, open_only: bool = False, states: Collection[IncidentState] = (), limit: int = 1000
    ) -> tuple[Incident, ...]:
        """Newest first.

        Args:
            open_only: those that have not ended, and those whose finding still persists.
            states: only those in one of these, if any are given.
        """
        ...

    def incident(self, incident_id: str) -> Incident:
        """Raises NotFound."""
        ...

    def approvals(self, *, open_only: bool = False, limit: int = 1000) -> tuple[Approval, ...]:
        """Newest first. `open_only`: pending, or not yet shown as closed in the channel."""
        ...

    def approval(self, approval_id: str) -> Approval:
        """Raises NotFound."""
        ...

    def decide(self, approval_id: str, person: Person, now: datetime, *, approve: bool, reason: str) -> Approval:
        """Answer a pending approval, with its audit line; of a yes that is not the last one needed it stays pending.

        Whether the person may answer was decided before. Raises NotFound; Conflict if answered, expired, or if the
        person has agreed already.
        """
        ...

    def runs(self, *, active_only: bool = False, due_at: datetime | None = None, limit: int = 1000) -> tuple[Run, ...]:
        """Newest first. `due_at`: only those whose next look is due then, or that a person has cancelled."""
        ...

    def starts(self, after: Mapping[str, datetime]) -> tuple[Start, ...]:
        """Of the runs of these playbooks, those after the time that is given for each, whatever became of the runs."""
        ...

    def active(self, playbooks: Collection[str]) -> Mapping[str, int]:
        """How many runs of each of these playbooks have not ended; one that has none is left out."""
        ...

    def run(self, run_id: str) -> Run:
        """Raises NotFound."""
        ...

    def request_cancel(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        """Ask a running run to undo what it did. Raises NotFound, Conflict if it has ended."""
        ...

    def pause(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        """Let a run have no further effect until it is resumed. Raises NotFound, Conflict if it is not running."""
        ...

    def resume(self, run_id: str, person: Person, now: datetime, reason: str) -> Run:
        """Raises NotFound, Conflict if it is not paused."""
        ...

    def silences(self, *, unended_at: datetime | None = None, limit: int | None = None) -> tuple[Silence, ...]:
        """Newest first, all of them unless limited. `unended_at`: those that are active then, or still to come."""
        ...

    def silence(self, silence_id: str) -> Silence:
        """Raises NotFound."""
        ...

    def add_silence(self, silence: Silence) -> None:
        """With its audit line, in the name of who made it."""
        ...

    def expire_silence(self, silence_id: str, person: Person, now: datetime, reason: str) -> Silence:
        """End it now, with its audit line. Raises NotFound; Conflict if it has ended."""
        ...

    def trips(self, *, limit: int = 1000) -> tuple[Trip, ...]:
        """Of the breaker, newest first: it is open if the first one is."""
        ...

    def reset_breaker(self, person: Person, now: datetime, reason: str) -> Trip:
        """Close it, with the audit line. Raises Conflict if it is not open."""
        ...

    def effects(self, run_id: str) -> tuple[EffectRecord, ...]:
        """In the order of their intents."""
        ...

    def inherited(self, run: Run) -> tuple[EffectRecord, ...]:
        """The effects of the earlier runs of its incident, in the order of their intents."""
        ...

    def leases(self) -> Mapping[str, Lease]:
        """By component key, or "lock/NAME"."""
        ...

    def counts(self) -> Counts: ...

    def audit_log(self, *, after: int = 0, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Oldest first."""
        ...
