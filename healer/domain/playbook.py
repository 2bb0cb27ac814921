"""Playbook: what is done about a failure mode, as an SRE wrote it, parsed and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from healer.domain.component import ComponentKind
from healer.domain.finding import FailureMode

Scalar = str | int | float | bool | None


class Expression(Protocol):
    """A compiled CEL expression."""

    @property
    def text(self) -> str: ...

    def __call__(self, variables: Mapping[str, object]) -> Scalar:
        """Evaluate. Raises healer.errors.Rejected naming the expression and what it lacked."""
        ...


Argument = Scalar | Expression


def given(arguments: Mapping[str, Argument], variables: Mapping[str, object]) -> dict[str, Scalar]:
    """The arguments as plain values. Raises Rejected, for expressions can lack anything."""
    return {name: value(variables) if callable(value) else value for name, value in arguments.items()}


class ResolvesWhen(StrEnum):
    """What proves that the incident is over once the run has ended."""

    CONTAINED = "contained"  # the target is out of service: the fault may persist, nothing runs on it
    HEALTHY = "healthy"  # the telemetry says so
    HANDED_OVER = "handed over"  # nothing: a person takes over


class OnFailure(StrEnum):
    """What becomes of a step's effect when a later step fails."""

    UNDO = "undo"
    KEEP = "keep"  # a faulty node stays out of service although it could not be emptied


class OnError(StrEnum):
    """What becomes of the run when a step fails and is not tried again."""

    STOP = "stop"  # it fails
    GO_ON = "go on"  # with the next step: evidence that cannot be had must not keep a node in service


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step that failed is tried again, and after which time.

    Attributes:
        factor: each wait is so many times the one before, up to `longest`.
    """

    times: int
    wait: timedelta = timedelta(seconds=30)
    factor: float = 2.0
    longest: timedelta = timedelta(minutes=10)

    def after(self, failures: int) -> timedelta:
        """How long to wait after so many failures, of which there has been one at least."""
        longest_s = self.longest.total_seconds()
        wait_s = self.wait.total_seconds()
        for _ in range(failures - 1):
            wait_s *= self.factor
            if wait_s >= longest_s or self.factor <= 1.0:
                break
        return timedelta(seconds=min(wait_s, longest_s))


class ForEach(StrEnum):
    """To which parts of its target a step is done, one by one or several at a time."""

    NODES = "nodes"
    GPUS = "gpus"
    JOBS = "jobs"
    CULPRIT = "culprit"  # the node of what the incident blames

    @property
    def kind(self) -> ComponentKind:
        match self:
            case ForEach.GPUS:
                return ComponentKind.GPU
            case ForEach.JOBS:
                return ComponentKind.JOB
            case ForEach.NODES | ForEach.CULPRIT:  # pragma: no branch
                return ComponentKind.NODE


@dataclass(frozen=True, slots=True)
class Scope:
    """A playbook as it stands within another one.

    Attributes:
        params: what it is given, by the eyes of the outer one.
        condition: whether it is wanted, by the same.
    """

    params: Mapping[str, Argument]
    condition: Expression | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Attributes:
    playbook: in place of `use`: whose steps stand here; only until the playbooks of a deployment are joined.
    verify: a condition on the world that has to be met before the step counts as done.
    place: which of the steps of its own document it is, or is part of.
    within: the playbooks that it stands in, the outermost first.
    """

    id: str
    use: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    condition: Expression | None = None
    timeout: timedelta = timedelta(minutes=15)
    on_failure: OnFailure = OnFailure.UNDO
    on_error: OnError = OnError.STOP
    retry: Retry | None = None
    for_each: ForEach | None = None
    max_parallel: int = 1
    verify: str = ""
    playbook: str = ""
    place: int = 0
    within: tuple[Scope, ...] = ()

    def sees(self, variables: Mapping[str, object]) -> Mapping[str, object] | None:
        """What its expressions see, given what those of the outermost playbook see; None if it is not wanted."""
        for scope in self.within:
            if scope.condition is not None and scope.condition(variables) is not True:
                return None
            variables = {**variables, "params": given(scope.params, variables)}
        return variables if self.condition is None or self.condition(variables) is True else None


class OnReturn(StrEnum):
    """What is next when the fault is found again after a run that has succeeded."""

    NEXT = "next"  # what `otherwise` names, if anything
    AGAIN = "again"  # the first playbook of the ladder: what helps for a while is as it should be


class OnExpire(StrEnum):
    """What becomes of the incident when its question was not answered in time."""

    NEXT = "next"  # what `otherwise` names, else a person
    ESCALATE = "escalate"  # a person, whatever `otherwise` says


@dataclass(frozen=True, slots=True)
class Escalation:
    """Attributes:
    after: from when on, since the question was put, if it is still open.
    to: groups or people who may answer from then on, too.
    """

    after: timedelta
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """How a question is put.

    Attributes:
        who: groups or people; None for all of approvals.approvers.
        quorum: so many different people have to agree.
    """

    who: tuple[str, ...] | None = None
    quorum: int = 1
    escalation: Escalation | None = None
    on_expire: OnExpire = OnExpire.NEXT


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Attributes:
    when: a CEL expression; a person is asked if it is true. In mode `recommend` a person is always asked.
    """

    when: Expression
    expires_after: timedelta = timedelta(minutes=30)
    asking: Asking = Asking()


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts within any stretch of that time."""

    runs: int
    per: timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a playbook is started, and how many of its runs go on at once; None does not limit.

    Attributes:
        starts: on all targets together.
        per_target: on one and the same target.
    """

    starts: Rate | None = None
    per_target: Rate | None = None
    at_once: int | None = None

    @property
    def looks_back(self) -> timedelta:
        """How old a start may be that still counts."""
        return max((rate.per for rate in (self.starts, self.per_target) if rate is not None), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Playbook:
    """Attributes:
    failure_modes: that it answers by itself; none for one that only another playbook leads to.
    target: what it works on, found from the incident's component; None for that component itself.
    priority: of those that match, the one with the highest is taken; among equals the first by its file's name.
    otherwise: the playbook that is planned when a run of this one has failed, or nobody has answered.
    on_return: what is next when the fault is found again after a run that has succeeded.
    hold: the finding must have lasted this long before the playbook is planned.
    moment: a condition on the target (CEL): while it is not met, nobody is asked and nothing begins.
    limits: None if nothing but the guards that all playbooks have limits it.
    locks: names that a run of it holds exclusively, besides its target and the nodes that it takes out.
    digest: sha256 of the document's text: a run keeps the document it was planned with.
    file: where it stands, for messages.
    """

    name: str
    description: str
    failure_modes: frozenset[FailureMode]
    target: ComponentKind | None
    approval: ApprovalRule
    steps: tuple[Step, ...]
    resolves_when: ResolvesWhen
    digest: str
    text: str
    file: str
    condition: Expression | None = None
    hold: timedelta = timedelta(0)
    moment: str = ""
    deadline: timedelta = timedelta(hours=1)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    otherwise: str | None = None
    on_return: OnReturn = OnReturn.NEXT
    limits: Limits | None = None
    locks: tuple[Argument, ...] = ()
    priority: int = 0
