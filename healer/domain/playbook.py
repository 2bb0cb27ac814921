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


@dataclass(frozen=True, slots=True)
class Step:
    id: str
    use: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    condition: Expression | None = None
    timeout: timedelta = timedelta(minutes=15)
    on_failure: OnFailure = OnFailure.UNDO
    on_error: OnError = OnError.STOP
    retry: Retry | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Attributes:
    when: a CEL expression; a person is asked if it is true. In mode `recommend` a person is always asked.
    """

    when: Expression
    expires_after: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Playbook:
    """Attributes:
    failure_modes: that it answers by itself; none for one that only another playbook leads to.
    target: what it works on, found from the incident's component; None for that component itself.
    priority: of those that match, the one with the highest is taken; among equals the first by its file's name.
    otherwise: the playbook that is planned when a run of this one has failed, or nobody has answered.
    hold: the finding must have lasted this long before the playbook is planned.
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
    deadline: timedelta = timedelta(hours=1)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    otherwise: str | None = None
    priority: int = 0
