"""What is left alone, and what may be: silences that people make, maintenance windows that the configuration has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from healer.domain.component import Component, ComponentKind
from healer.domain.incident import Incident
from healer.domain.maintenance import MaintenanceWindow
from healer.domain.matcher import Label, Matcher, Operator, covers
from healer.domain.silence import Silence, Silenced, SilenceState
from healer.schema import format_duration


class Fault(StrEnum):
    """Why a silence is not taken."""

    ENDS_FIRST = "ends_first"
    OVER = "over"
    TOO_LONG = "too_long"
    TOO_FAR = "too_far"


@dataclass(frozen=True, slots=True)
class Objection:
    fault: Fault
    message: str

    def __str__(self) -> str:
        return self.message


def covering(
    incident: Incident, silences: Iterable[Silence], windows: Iterable[MaintenanceWindow], now: datetime
) -> Silenced | None:
    """Of all that covers the incident now, what lasts longest; None if nothing does."""
    return max(_covers(incident, silences, windows, now), key=lambda cover: cover.until, default=None)


def objection(silence: Silence, now: datetime, *, longest: timedelta) -> Objection | None:
    """None when the silence may be: it has an end, within bounds. What it matches was checked when it was read."""
    if silence.ends_at <= silence.starts_at:
        return Objection(Fault.ENDS_FIRST, "the silence ends before it starts")
    if silence.ends_at <= now:
        return Objection(Fault.OVER, "the silence would be over already")
    if silence.ends_at - silence.starts_at > longest:
        most = format_duration(longest)
        return Objection(Fault.TOO_LONG, f"a silence lasts at most {most}: see detectors.silences.longest")
    if silence.starts_at - now > longest:
        most = format_duration(longest)
        return Objection(Fault.TOO_FAR, f"a silence starts within {most}: see detectors.silences.longest")
    return None


def matchers_of(component: Component) -> tuple[Matcher, ...]:
    """What silences the component. A node's GPUs belong to it; a rack's nodes and a job's GPUs are others' as well."""
    return tuple(Matcher(label, Operator.EQUAL, value or "") for label, value in _names_of(component))


def _names_of(component: Component) -> tuple[tuple[Label, str | None], ...]:
    kind = (Label.KIND, str(component.kind))
    match component.kind:
        case ComponentKind.GPU if component.uuid is not None:
            return ((Label.UUID, component.uuid),)
        case ComponentKind.GPU:
            return (Label.NODE, component.node), (Label.GPU, component.gpu)
        case ComponentKind.NODE:
            return ((Label.NODE, component.node),)
        case ComponentKind.RACK:
            return kind, (Label.RACK, component.rack)
        case ComponentKind.JOB:
            return kind, (Label.JOB, component.job)
        case ComponentKind.LINK | ComponentKind.POWER_FEED | ComponentKind.SOURCE:  # pragma: no branch
            return kind, (Label.LINK, component.link)


def _covers(
    incident: Incident, silences: Iterable[Silence], windows: Iterable[MaintenanceWindow], now: datetime
) -> Iterator[Silenced]:
    for silence in silences:
        if silence.state(now) is SilenceState.ACTIVE and covers(silence.matchers, incident):
            yield Silenced(silence.id, str(silence.created_by), silence.until, silence.reason)
    for window in windows:
        period = window.active(now)
        if period is not None and covers(window.matchers, incident):
            yield Silenced(window.name, f"the maintenance window {window.name}", period.end, window.reason)
