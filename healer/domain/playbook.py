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


class OnFailure(StrEnum):
    """What becomes of a step's effect when a later step fails."""

    UNDO = "undo"
    KEEP = "keep"  # a faulty node stays out of service although it could not be emptied


@dataclass(frozen=True, slots=True)
class Step:
    id: str
    use: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    condition: Expression | None = None
    timeout: timedelta = timedelta(minutes=15)
    on_failure: OnFailure = OnFailure.UNDO


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
    hold: the finding must have lasted this long before the playbook is planned.
    digest: sha256 of the document's text: a run keeps the document it was planned with.
    file: where it stands, for messages.
    """

    name: str
    description: str
    failure_modes: frozenset[FailureMode]
    target: ComponentKind
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
