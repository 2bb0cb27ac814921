"""A cluster in memory that behaves as a real one towards healer: the demo's, the dry run's and the replay's.

It passes the same contract suite as Kubernetes. Nothing happens by itself: every question first lets the time since
the last one take effect, in order, so that one clock gives one history.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from healer.domain.fleet import Disposition, Node, Workload
from healer.errors import Conflict, HealerError, NotFound, Rejected
from healer.ports import Clock, Eviction, EvictionAnswer

NAME = "simulated cluster"
DEFAULT_NAMESPACE = "default"
DISPOSITIONS = {
    "DaemonSet": (Disposition.STAYS, "its DaemonSet would start it here again"),
    "Pod": (Disposition.REFUSES, "no controller would make it again"),
}


class Verb(StrEnum):
    """What healer can change in a cluster."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class Effect:
    """One change that healer made. Answers that changed nothing leave none.

    Attributes:
        by, reason: of a cordon; empty for an eviction.
        workload: as namespace/name; empty for a cordon.
        of: the workload by the name that does not churn, as plans have it.
    """

    at: datetime
    verb: Verb
    node: str
    by: str = ""
    reason: str = ""
    workload: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """At least `min_available` workloads of one owner stay."""

    namespace: str
    name: str
    owner: str
    min_available: int


@dataclass(frozen=True, slots=True)
class _Placed:
    workload: Workload
    gpus: int
    ends_at: datetime | None = None  # when it is gone, once it is leaving


class SimulatedCluster:
    """Implements `healer.ports.Cluster`. Safe to use from several threads.

    Args:
        racks: each node's rack, or None.
        termination: how long a workload takes to end; an eviction with less grace ends it sooner.
        gpus_per_node: the room on each node.
    """

    def __init__(
        self,
        racks: Mapping[str, str | None],
        *,
        clock: Clock,
        termination: timedelta = timedelta(seconds=30),
        gpus_per_node: int = 8,
    ) -> None:
        self._nodes = {name: Node(name, ready=True, cordoned=False, rack=rack) for name, rack in racks.items()}
        self._clock = clock
        self._termination = termination
        self._gpus_per_node = gpus_per_node
        self._placed: dict[str, _Placed] = {}  # by uid
        self._waiting: deque[_Placed] = deque()  # for room; on no node
        self._budgets: list[Budget] = []
        self._effects: list[Effect] = []
        self._failures: deque[HealerError] = deque()
        self._lost_answers: deque[HealerError] = deque()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Everything that healer changed, oldest first."""
        with self._lock:
            return tuple(self._effects)

    def nodes(self) -> tuple[Node, ...]:
        with self._lock:
            self._begin()
            return tuple(self._nodes.values())

    def node(self, name: str) -> Node:
        with self._lock:
            self._begin()
            return self._known(name)

    def workloads(self, node: str) -> tuple[Workload, ...]:
        with self._lock:
            self._begin()
            self._known(node)
            here = [placed.workload for placed in self._placed.values() if placed.workload.node == node]
            return tuple(replace(workload, blocked_by=self._blocker(workload)) for workload in here)

    def cordon(self, node: str, *, by: str, reason: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._known(node)
            if seen.cordoned and seen.cordoned_by == by:
                return
            if seen.cordoned:
                raise Conflict(NAME, f"node {node} is already cordoned by {seen.cordoned_by or 'a person'}")
            self._nodes[node] = replace(seen, cordoned=True, cordoned_by=by)
            self._changed(Effect(now, Verb.CORDON, node, by=by, reason=reason))

    def uncordon(self, node: str, *, by: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._known(node)
            if not seen.cordoned:
                raise Conflict(NAME, f"node {node} is not cordoned any more: somebody has lifted the cordon of {by}")
            if seen.cordoned_by != by:
                raise Conflict(NAME, f"node {node} is cordoned by {seen.cordoned_by or 'a person'}, not by {by}")
            self._nodes[node] = replace(seen, cordoned=False, cordoned_by=None)
            self._place_waiting()
            self._changed(Effect(now, Verb.UNCORDON, node, by=by))

    def evict(self, workload: Workload, *, grace: timedelta | None) -> Eviction:
        with self._lock:
            now = self._begin()
            placed = self._placed.get(workload.uid)
            if placed is None:
                return Eviction(EvictionAnswer.GONE)
            if placed.workload.leaving:
                return Eviction(EvictionAnswer.ACCEPTED)
            if len(covering := self._covering(placed.workload)) > 1:
                raise Rejected(NAME, f"cannot evict {workload}: more than one budget covers it ({_names(covering)})")
            if blocker := self._blocker(placed.workload):
                return Eviction(EvictionAnswer.BLOCKED, f"budget {blocker}")
            takes = self._termination if grace is None else min(grace, self._termination)
            leaving = _leaving(placed.workload)
            self._placed[workload.uid] = replace(placed, workload=leaving, ends_at=now + takes)
            self._changed(Effect(now, Verb.EVICT, leaving.node, workload=str(leaving), of=leaving.stable_name))
            return Eviction(EvictionAnswer.ACCEPTED)

    def add_node(self, name: str, *, rack: str | None) -> None:
        """A node that joins; one that is there already stays as it is."""
        with self._lock:
            self._nodes.setdefault(name, Node(name, ready=True, cordoned=False, rack=rack))
            self._place_waiting()

    def add_workload(
        self, owner: str, *, node: str | None = None, namespace: str = DEFAULT_NAMESPACE, gpus: int = 0
    ) -> None:
        """Start one workload of `owner`, which is "Kind/name", on `node` or else wherever there is room.

        A DaemonSet without `node` gets one on every node; its workloads stay there. Kind Pod has no controller, so
        that a drain refuses it. Every other kind makes its workload again elsewhere.
        """
        with self._lock:
            self._settle(self._clock.now())
            if node is not None:
                self._put(self._make(owner, namespace=namespace, gpus=gpus), self._known(node).name)
            elif owner.startswith("DaemonSet/"):
                for name in self._nodes:
                    self._put(self._make(owner, namespace=namespace, gpus=gpus), name)
            else:
                self._waiting.append(self._make(owner, namespace=namespace, gpus=gpus))
                self._place_waiting()

    def set_budget(self, name: str, *, owner: str, min_available: int, namespace: str = DEFAULT_NAMESPACE) -> None:
        with self._lock:
            others = [budget for budget in self._budgets if (budget.namespace, budget.name) != (namespace, name)]
            self._budgets = [*others, Budget(namespace, name, owner, min_available)]

    def finish_work(self, node: str) -> None:
        """Everything on the node that a drain would evict ends by itself."""
        with self._lock:
            self._settle(self._clock.now())
            for uid, placed in list(self._placed.items()):
                if placed.workload.node == node and placed.workload.disposition is Disposition.EVICT:
                    del self._placed[uid]

    def gpus_in_use(self, node: str) -> int:
        """By everything that is on the node, also what is leaving it."""
        with self._lock:
            self._settle(self._clock.now())
            return self._gpus_per_node - self._room(self._known(node).name)

    def cordon_by_person(self, node: str) -> None:
        """As with kubectl, a node that is already cordoned stays as it is, and its owner's."""
        with self._lock:
            self._settle(self._clock.now())
            seen = self._known(node)
            if not seen.cordoned:
                self._nodes[node] = replace(seen, cordoned=True, cordoned_by=None)

    def uncordon_by_person(self, node: str) -> None:
        with self._lock:
            self._settle(self._clock.now())
            self._nodes[node] = replace(self._known(node), cordoned=False, cordoned_by=None)
            self._place_waiting()

    def set_ready(self, node: str, *, ready: bool) -> None:
        """What the scheduler hears from the node itself."""
        with self._lock:
            self._settle(self._clock.now())
            self._nodes[node] = replace(self._known(node), ready=ready)
            self._place_waiting()

    def fail_next(self, error: HealerError, *, times: int = 1) -> None:
        """Let healer's next questions fail, each without effect."""
        with self._lock:
            self._failures.extend([error] * times)

    def lose_next_answer(self, error: HealerError) -> None:
        """Let healer's next change happen, and its answer fail: healer cannot know that it did."""
        with self._lock:
            self._lost_answers.append(error)

    def _changed(self, effect: Effect) -> None:
        self._effects.append(effect)
        if self._lost_answers:
            raise self._lost_answers.popleft()

    def _begin(self) -> datetime:
        """Every question of healer's comes through here first; returns the time it is asked at."""
        if self._failures:
            raise self._failures.popleft()
        now = self._clock.now()
        self._settle(now)
        return now

    def _settle(self, now: datetime) -> None:
        """Let everything end that has had its time. On a node that does not answer, nothing ever ends."""
        ended = [placed for placed in self._placed.values() if self._has_ended(placed, now)]
        for placed in sorted(ended, key=lambda placed: placed.ends_at or now):
            gone = placed.workload
            del self._placed[gone.uid]
            if gone.owner.startswith("DaemonSet/"):
                self._put(self._make(gone.owner, namespace=gone.namespace, gpus=placed.gpus), gone.node)
            elif not gone.owner.startswith("Pod/"):
                self._waiting.append(self._make(gone.owner, namespace=gone.namespace, gpus=placed.gpus))
        self._place_waiting()

    def _has_ended(self, placed: _Placed, now: datetime) -> bool:
        return placed.ends_at is not None and placed.ends_at <= now and self._nodes[placed.workload.node].ready

    def _place_waiting(self) -> None:
        """First come, first served; one that needs more room than there is does not hold up the smaller ones."""
        for _ in range(len(self._waiting)):
            made = self._waiting.popleft()
            node = self._roomiest(made)
            if node is None:
                self._waiting.append(made)
            else:
                self._put(made, node)

    def _roomiest(self, made: _Placed) -> str | None:
        room = {name: self._room(name) for name, node in self._nodes.items() if node.available}
        fitting = [name for name in room if room[name] >= made.gpus]
        return min(fitting, key=lambda name: (-room[name], name), default=None)

    def _room(self, node: str) -> int:
        return self._gpus_per_node - sum(held.gpus for held in self._placed.values() if held.workload.node == node)

    def _make(self, owner: str, *, namespace: str, gpus: int) -> _Placed:
        kind, _, stem = owner.partition("/")
        if not kind or not stem:
            raise Rejected(NAME, f'owner {owner!r} is not of the form "Kind/name"')
        number = next(self._numbers)
        name = stem if kind == "Pod" else f"{stem}-{number}"
        uid = f"00000000-0000-0000-0000-{number:012d}"
        disposition, why = DISPOSITIONS.get(kind, (Disposition.EVICT, ""))
        return _Placed(Workload(namespace, name, uid, "", owner, disposition, why=why), gpus)

    def _put(self, made: _Placed, node: str) -> None:
        workload = replace(made.workload, node=node)
        self._placed[workload.uid] = replace(made, workload=workload)

    def _known(self, name: str) -> Node:
        if name not in self._nodes:
            raise NotFound(NAME, f"there is no node {name}")
        return self._nodes[name]

    def _covering(self, workload: Workload) -> list[Budget]:
        return [
            budget
            for budget in self._budgets
            if (budget.namespace, budget.owner) == (workload.namespace, workload.owner)
        ]

    def _blocker(self, workload: Workload) -> str | None:
        if workload.leaving or workload.disposition is Disposition.STAYS:
            return None
        covering = self._covering(workload)
        if len(covering) > 1:
            return f"{_names(covering)} (no workload that more than one budget covers is evicted)"
        staying = sum(
            (held.workload.namespace, held.workload.owner) == (workload.namespace, workload.owner)
            and not held.workload.leaving
            for held in self._placed.values()
        )
        if covering and staying <= covering[0].min_available:
            return f"{_names(covering)} (0 disruptions allowed)"
        return None


def _names(budgets: list[Budget]) -> str:
    return ", ".join(f"{budget.namespace}/{budget.name}" for budget in budgets)


def _leaving(workload: Workload) -> Workload:
    """What leaves anyway is waited for, whoever made it; only what stays does not count."""
    if workload.disposition is Disposition.STAYS:
        return replace(workload, leaving=True)
    return replace(workload, leaving=True, disposition=Disposition.EVICT, why="")
