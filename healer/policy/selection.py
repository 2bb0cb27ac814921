"""Which playbook answers an incident, and on what it is to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from healer.domain.component import Component, ComponentKind
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.playbook import ForEach, Playbook
from healer.errors import Rejected


def choose_playbook(
    incident: Incident, playbooks: Sequence[Playbook], variables: Mapping[str, object], now: datetime
) -> Playbook | None:
    """The first playbook, in the order given, that matches, or the one that is next. One that waits until the fault has
    lasted keeps its place before those of lower priority.

    Raises Rejected if a condition cannot be evaluated, or if the next one is not there any more.
    """
    if incident.next_playbook:
        next_one = next((each for each in playbooks if each.name == incident.next_playbook), None)
        if next_one is None:
            raise Rejected(
                "playbooks", f"{incident.next_playbook} was to be next, and is no playbook of this deployment"
            )
        return next_one
    kept: int | None = None
    for playbook in playbooks:
        if incident.failure_mode not in playbook.failure_modes:
            continue
        if playbook.condition is None or playbook.condition({**variables, "params": playbook.params}) is True:
            if kept is not None and playbook.priority < kept:
                return None
            if now - incident.found_at >= playbook.hold:
                return playbook
            kept = playbook.priority
    return None


def urgency(incident: Incident) -> tuple[int, datetime, str]:
    """Where only some can be answered now, the worst come first, and of those the oldest."""
    return -incident.health, incident.opened_at, incident.id


def target_of(incident: Incident, kind: ComponentKind | None) -> Component | None:
    """The component of that kind that the incident's component belongs to, itself if no kind is asked for; None if the
    telemetry does not name it.
    """
    return incident.component if kind is None else _around(incident.component, kind)


def items_of(which: ForEach, incident: Incident, target: Component, frame: Frame | None) -> tuple[Component, ...]:
    """The parts of the target that a step is done to one by one, by their names; none if they are not known."""
    if which is ForEach.CULPRIT:
        blamed = incident.culprit
        node = None if blamed is None else _around(blamed, ComponentKind.NODE)
        return () if node is None else (node,)
    if frame is None:
        return ()
    parts = [frame.gpus.components[row] for row in frame.parts_of(target)]
    items = {item.key: item for part in parts if (item := _around(part, which.kind)) is not None}
    return tuple(sorted(items.values(), key=str))


def _around(where: Component, kind: ComponentKind) -> Component | None:
    """The component of that kind that `where` is, or is part of."""
    if kind is where.kind:
        return where
    match kind:
        case ComponentKind.NODE if where.node is not None:
            return Component(ComponentKind.NODE, rack=where.rack, node=where.node)
        case ComponentKind.RACK if where.rack is not None:
            return Component(ComponentKind.RACK, rack=where.rack)
        case ComponentKind.JOB if where.job is not None:
            return Component(ComponentKind.JOB, job=where.job)
        case _:
            return None
