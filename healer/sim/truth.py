"""Truth: what was really wrong with a simulated fleet, as a fair judge would write it down; and what only looked so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from healer.domain.component import Component
from healer.domain.finding import FailureMode


@dataclass(frozen=True, slots=True)
class Truth:
    """One fault: the cause, not what follows from it.

    Attributes:
        component: what is at fault. Of a stalled or slowed job it is the job.
        culprit: the rank's GPU, or its node, that holds the job up; None where none does, or where the component says
            it already.
        onset: when it began. What creeps in is not to be seen at once.
        full: when it had come on fully.
        end: when it was over, or mended; None if it lasts.
        hard: whether a counter, a state or a code that no healthy fleet shows names it outright from its onset on, in
            what this site exports. What restarts, single errors or links that sleep look like at first is not hard.
        kind, variant: of the fault, as `faults.SHAPES` has them; "" for a kind that is always alike.
        severity: 0 to 1, within its kind.
        blast: the jobs that it harms.
        symptoms: failure modes that follow from it, on the component, on what is in it, or on the jobs of `blast`: an
            incident that names one of these there is late or coarse, not false.
    """

    failure_mode: FailureMode
    component: Component
    culprit: Component | None
    onset: datetime
    full: datetime
    end: datetime | None
    hard: bool
    severity: float
    kind: str
    variant: str
    blast: tuple[str, ...] = ()
    symptoms: tuple[FailureMode, ...] = ()


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Something that happens in healthy fleets, and of which no incident is right.

    Attributes:
        components: what it shows on.
    """

    kind: str
    components: tuple[Component, ...]
    start: datetime
    end: datetime
    note: str = ""


def as_json(record: Truth | LookAlike) -> dict[str, object]:
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def component_as_json(component: Component) -> Mapping[str, str | None]:
    return {field.name: _plain(getattr(component, field.name)) for field in fields(component)}  # type: ignore[misc]


def _plain(value: object) -> object:
    match value:
        case Component():
            return component_as_json(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case tuple():
            return [_plain(each) for each in value]
        case _:
            return value
