"""Run: one execution of a plan, a row that survives the process; Outcome: what an action reports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from healer.domain.plan import Plan
from healer.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Done:
    """The step has had its effect and it was observed."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Not finished; nothing is wrong. Look again after `wait`."""

    wait: timedelta
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be done; what this run did is undone in reverse.

    Attributes:
        by_person: because of what a person has done, whose decision stands: nothing else is tried after it.
    """

    detail: str
    by_person: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A guard spoke against it before the effect."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is not known whether the effect happened. Nothing may follow until that is known."""

    wait: timedelta
    detail: str


Outcome = Done | RetryAfter | Failed | Refused | Unknown


class RunState(StrEnum):
    RUNNING = "running"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Run:
    """Attributes:
    approval_id: None for a plan that needed none.
    position: program counter: the index of the step that is being run, or undone.
    cause: why it is being undone or has failed.
    held_since: since when a silence or the breaker holds its next effect; None while neither does.
    held: how long they have held it before: time that does not count against it.
    failures: how often the present step has failed and is tried again.
    skipped: ids of the steps that failed and were gone past.
    finished: of the present step, that is done to several things, those that are done, by their step ids.
    by_person: it was ended by what a person did, cancelled or not.
    paused_by: who wants it to have no further effect for now, and why; empty if nobody does.
    line: the first run of its incident: in whose name nodes are taken out, so that what it has kept is this one's too.
    """

    id: str
    incident_id: str
    approval_id: str | None
    plan: Plan
    state: RunState
    position: int
    started_at: datetime
    step_started_at: datetime
    next_look_at: datetime
    detail: str = ""
    cause: str = ""
    cancelled_by: str = ""
    ended_at: datetime | None = None
    held_since: datetime | None = None
    held: timedelta = timedelta(0)
    failures: int = 0
    skipped: tuple[str, ...] = ()
    line: str = ""
    by_person: bool = False
    finished: tuple[str, ...] = ()
    paused_by: str = ""

    @property
    def owner(self) -> str:
        """In whose name it takes nodes out."""
        return self.line or self.id


@dataclass(frozen=True, slots=True)
class Start:
    """That of a run, as far as the limits of its playbook ask.

    Attributes:
        target: its `Component.key`.
    """

    playbook: str
    target: str
    at: datetime


class EffectState(StrEnum):
    INTENT = "intent"  # written before the effect: it may or may not have happened
    DONE = "done"
    FAILED = "failed"  # known not to have happened
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """One effect in the journal: intent before, outcome after.

    Attributes:
        key: what makes it the same effect within its run and step: "evict/ns/pod/uid".
        found: the state before the effect, as the action needs it for its undo (JSON text).
    """

    run_id: str
    step_id: str
    key: str
    state: EffectState
    intended_at: datetime
    settled_at: datetime | None = None
    found: str = ""
    detail: str = ""
