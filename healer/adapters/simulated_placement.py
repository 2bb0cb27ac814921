"""Where the work of a simulated cluster is: its scheduler, and the controllers that make again what has gone."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from healer.adapters.simulated_workloads import DISPOSITIONS, Placed, Suspension, gang_of, leaving
from healer.domain.fleet import Disposition, Gang, Node, Workload, parse_gang_name
from healer.errors import NotFound, Rejected

NAME = "simulated cluster"


class Placement:
    """Not safe to use from several threads: whoever owns it has the lock.

    Attributes:
        nodes: by name.
        placed: by uid; what is on a node.
    """

    def __init__(self, nodes: Iterable[Node], *, termination: timedelta, gpus_per_node: int) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.placed: dict[str, Placed] = {}
        self.termination = termination
        self._gpus_per_node = gpus_per_node
        self._waiting: deque[Placed] = deque()  # for room; on no node
        self._suspended: dict[str, Suspension] = {}  # by the job's name
        self._numbers = itertools.count(1)

    def known(self, name: str) -> Node:
        if name not in self.nodes:
            raise NotFound(NAME, f"there is no node {name}")
        return self.nodes[name]

    def on(self, node: str) -> Iterator[Placed]:
        return (placed for placed in self.placed.values() if placed.workload.node == node)

    def start(self, owner: str, *, node: str | None, namespace: str, gpus: int, priority: int) -> None:
        make = partial(self._make, owner, namespace=namespace, gpus=gpus, priority=priority)
        if node is not None:
            self._put(make(), self.known(node).name)
        elif owner.startswith("DaemonSet/"):
            for name in self.nodes:
                self._put(make(), name)
        else:
            self._waiting.append(make())
            self.place_waiting()

    def send_away(self, placed: Placed, at: datetime) -> None:
        """From now on it is leaving, and has gone by then."""
        self.placed[placed.workload.uid] = replace(placed, workload=leaving(placed.workload), ends_at=at)

    def settle(self, now: datetime) -> None:
        """Let everything end that has had its time. On a node that does not answer, nothing ever ends."""
        ended = [placed for placed in self.placed.values() if self._has_ended(placed, now)]
        for placed in sorted(ended, key=lambda placed: placed.ends_at or now):
            gone = placed.workload
            del self.placed[gone.uid]
            if gone.owner.startswith("Pod/"):
                continue
            another = self._make(gone.owner, namespace=gone.namespace, gpus=placed.gpus, priority=placed.priority)
            if gone.owner.startswith("DaemonSet/"):
                self._put(another, gone.node)
            elif gone.stable_name in self._suspended:
                self._suspended[gone.stable_name].kept.append(another)
            else:
                self._waiting.append(another)
        self.place_waiting()

    def place_waiting(self) -> None:
        """First come, first served; one that needs more room than there is does not hold up the smaller ones."""
        for _ in range(len(self._waiting)):
            made = self._waiting.popleft()
            node = self._roomiest(made)
            if node is None:
                self._waiting.append(made)
            else:
                self._put(made, node)

    def gang(self, job: str) -> Gang:
        held = (*self.placed.values(), *self._waiting)
        pods = [each for each in held if each.workload.stable_name == job]
        suspension = self._suspended.get(job)
        name = parse_gang_name(job)
        if name is None or not (pods or suspension):
            raise NotFound(NAME, f"there is no job {job}")
        return gang_of(name, pods, suspension)

    def suspend(self, job: str, now: datetime, *, by: str | None) -> None:
        for placed in list(self.placed.values()):
            if placed.workload.stable_name == job and not placed.workload.leaving:
                self.send_away(placed, now + self.termination)
        kept = [made for made in self._waiting if made.workload.stable_name == job]
        self._waiting = deque(made for made in self._waiting if made.workload.stable_name != job)
        self._suspended[job] = Suspension(by, kept)

    def resume(self, job: str) -> None:
        self._waiting.extend(self._suspended.pop(job).kept)
        self.place_waiting()

    def _has_ended(self, placed: Placed, now: datetime) -> bool:
        return placed.ends_at is not None and placed.ends_at <= now and self.nodes[placed.workload.node].ready

    def _roomiest(self, made: Placed) -> str | None:
        room = {name: self._room(name) for name, node in self.nodes.items() if node.available}
        fitting = [name for name in room if room[name] >= made.gpus]
        return min(fitting, key=lambda name: (-room[name], name), default=None)

    def _room(self, node: str) -> int:
        return self._gpus_per_node - sum(held.gpus for held in self.on(node))

    def _make(self, owner: str, *, namespace: str, gpus: int, priority: int) -> Placed:
        kind, _, stem = owner.partition("/")
        if not kind or not stem:
            raise Rejected(NAME, f'owner {owner!r} is not of the form "Kind/name"')
        number = next(self._numbers)
        name = stem if kind == "Pod" else f"{stem}-{number}"
        uid = f"00000000-0000-0000-0000-{number:012d}"
        disposition, why = DISPOSITIONS.get(kind, (Disposition.EVICT, ""))
        return Placed(Workload(namespace, name, uid, "", owner, disposition, why=why), gpus, priority=priority)

    def _put(self, made: Placed, node: str) -> None:
        workload = replace(made.workload, node=node)
        self.placed[workload.uid] = replace(made, workload=workload)
