"""Whereabouts: what each node shares with others, from the scheduler and the telemetry. Budgets and the breaker ask."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.topology import NOWHERE
from healer.policy.budget import Grouping, ScopeKind


class Whereabouts:
    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._made: tuple[Fleet, Frame | None, Grouping] | None = None

    def learn(self, frame: Frame) -> None:
        self._frame = frame

    def grouping(self, fleet: Fleet) -> Grouping:
        """Made anew when the scheduler or the telemetry has spoken anew, not for each incident."""
        if self._made is None or self._made[0] is not fleet or self._made[1] is not self._frame:
            self._made = fleet, self._frame, _grouping(fleet, self._frame)
        return self._made[2]

    def shares_of(self, node: str, fleet: Fleet) -> tuple[str, ...]:
        """What the node has in common with others, as far as it is known."""
        place = NOWHERE if self._frame is None else self._frame.places.get(node, NOWHERE)
        racks = self.grouping(fleet).of_node.get(ScopeKind.RACK, {}).get(node, ())
        driver = None if self._frame is None else self._frame.drivers.get(node)
        named = (
            ("rack", next(iter(racks), None)),
            ("feed", place.feed),
            ("switch", place.switch),
            ("driver", driver),
        )
        return tuple(f"{kind} {name}" for kind, name in named if name is not None)

    def sizes(self, fleet: Fleet) -> Mapping[str, int]:
        """By what nodes share, how many of the scheduler's nodes do. It walks the fleet."""
        return Counter(share for node in fleet.nodes for share in self.shares_of(node, fleet))


def _grouping(fleet: Fleet, frame: Frame | None) -> Grouping:
    """Where both say something of a rack, the telemetry's topology is asked first: people configured it."""
    racks = {name: (node.rack,) for name, node in fleet.nodes.items() if node.rack is not None}
    pools = {name: (node.pool,) for name, node in fleet.nodes.items() if node.pool is not None}
    if frame is None:
        return Grouping.of(fleet, {ScopeKind.RACK: racks, ScopeKind.POOL: pools})
    racks |= {name: (place.rack,) for name, place in frame.places.items() if place.rack is not None}
    feeds = {name: (place.feed,) for name, place in frame.places.items() if place.feed is not None}
    return Grouping.of(
        fleet,
        {ScopeKind.RACK: racks, ScopeKind.FEED: feeds, ScopeKind.POOL: pools, ScopeKind.JOB: _jobs(frame)},
    )


def _jobs(frame: Frame) -> Mapping[str, Sequence[str]]:
    """By node, the jobs that have a GPU of it."""
    nodes, jobs = frame.nodes.groups.of_gpu, frame.jobs.of_gpu
    there = (nodes >= 0) & (jobs >= 0)
    by_node: dict[str, list[str]] = defaultdict(list)
    for pair in np.unique(nodes[there] * len(frame.jobs) + jobs[there]).tolist():
        node, job = divmod(pair, len(frame.jobs))
        by_node[str(frame.nodes.components[node].node)].append(str(frame.jobs.components[job].job))
    return by_node
