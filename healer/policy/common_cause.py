"""Common cause: what most parts of a whole have at once is the whole's, not each part's.

Eight GPUs of a node that lose their brake signal together are a node; four nodes of a rack that fall silent together
are a rack. The whole takes over the finding when three quarters of its parts have it: fewer may be chance, or a person
at work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Finding
from healer.domain.frame import Frame

_SHARE = 0.75
_FEWEST_GPUS = 3
_FEWEST_NODES = 2

# What a rack can do to its nodes, and what it is then called.
_OF_RACKS: Mapping[Mode, Mode] = {
    Mode.TELEMETRY_LOST: Mode.TELEMETRY_LOST,
    Mode.NODE_UNREACHABLE: Mode.NODE_UNREACHABLE,
    Mode.GPU_POWER_BRAKE: Mode.GPU_POWER_BRAKE,
    Mode.GPU_COOLING_DEGRADED: Mode.RACK_COOLING_DEGRADED,
    Mode.GPU_THERMAL_LIMIT: Mode.RACK_COOLING_DEGRADED,
}
# What a leaf switch can do, and what a power feed.
_OF_SWITCHES = {Mode.FABRIC_LINK_FLAP: Mode.FABRIC_LINK_FLAP, Mode.TELEMETRY_LOST: Mode.TELEMETRY_LOST}
_OF_FEEDS = {Mode.NODE_UNREACHABLE: Mode.NODE_UNREACHABLE, Mode.GPU_POWER_BRAKE: Mode.GPU_POWER_BRAKE}


def gathered(findings: Iterable[Finding], frame: Frame) -> tuple[Finding, ...]:
    """The same findings, those of most parts of a whole replaced by one of the whole."""
    nodes = _by_node(findings, frame)
    for of_wholes, whole_of, fewest in (
        (_OF_RACKS, _rack_of, _FEWEST_NODES),
        (_OF_SWITCHES, _switch_of, _FEWEST_NODES + 1),
        (_OF_FEEDS, _feed_of, _FEWEST_NODES + 1),
    ):
        nodes = _by_whole(nodes, frame, of_wholes, whole_of, fewest)
    return tuple(nodes)


def _by_node(findings: Iterable[Finding], frame: Frame) -> list[Finding]:
    """GPUs into nodes."""
    kept: list[Finding] = []
    alike: dict[tuple[Mode, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        where = finding.component
        if where.kind is ComponentKind.GPU and where.node is not None:
            alike[finding.failure_mode, where.node].append(finding)
        else:
            kept.append(finding)
    for (mode, node), parts in alike.items():
        whole = Component(ComponentKind.NODE, node=node)
        row = frame.row_of(whole)
        size = 0 if row is None else len({frame.gpus.components[gpu].device for gpu in frame.nodes.groups.members(row)})
        devices = {part.component.device for part in parts}
        if row is not None and len(devices) >= max(_FEWEST_GPUS, _SHARE * size):
            kept.append(_of_whole(mode, frame.nodes.components[row], parts, f"{len(devices)} of {size} GPUs"))
        else:
            kept += parts
    return kept


def _by_whole(
    findings: Sequence[Finding],
    frame: Frame,
    of_wholes: Mapping[Mode, Mode],
    whole_of: Callable[[Component, Frame], Component | None],
    fewest: int,
) -> list[Finding]:
    """Nodes into what they are in."""
    if sum(finding.failure_mode in of_wholes for finding in findings) < fewest:
        return list(findings)
    sizes: dict[str, int] = defaultdict(int)
    for node in frame.nodes.components:
        if (whole := whole_of(node, frame)) is not None:
            sizes[whole.key] += 1
    kept: list[Finding] = []
    alike: dict[tuple[Mode, str], list[Finding]] = defaultdict(list)
    wholes: dict[str, Component] = {}
    for finding in findings:
        mode, where = of_wholes.get(finding.failure_mode), finding.component
        whole = whole_of(where, frame) if where.kind in {ComponentKind.GPU, ComponentKind.NODE} else None
        if mode is None or whole is None:
            kept.append(finding)
        else:
            wholes[whole.key] = whole
            alike[mode, whole.key].append(finding)
    for (mode, key), parts in alike.items():
        nodes = {part.component.node for part in parts}
        if len(nodes) >= max(fewest, _SHARE * sizes[key]):
            kept.append(_of_whole(mode, wholes[key], parts, f"{len(nodes)} of {sizes[key]} nodes"))
        else:
            kept += parts
    return kept


def _of_whole(mode: Mode, whole: Component, parts: Sequence[Finding], count: str) -> Finding:
    worst = max(parts, key=lambda part: (part.health, part.score))
    members = tuple(dict.fromkeys(member for part in parts for member in (part.members or (part.component,))))
    return replace(
        worst,
        failure_mode=mode,
        component=whole,
        reason=f"{count}, such as {worst.component}: {worst.reason}",
        culprit=None,
        members=members,
    )


def _rack_of(component: Component, _frame: Frame) -> Component | None:
    return None if component.rack is None else Component(ComponentKind.RACK, rack=component.rack)


def _switch_of(component: Component, frame: Frame) -> Component | None:
    place = frame.places.get(str(component.node))
    return None if place is None or place.switch is None else Component(ComponentKind.LINK, link=place.switch)


def _feed_of(component: Component, frame: Frame) -> Component | None:
    place = frame.places.get(str(component.node))
    return None if place is None or place.feed is None else Component(ComponentKind.POWER_FEED, link=place.feed)
