"""A cluster in memory that behaves as a real one towards healer: the demo's, the dry run's and the replay's.

It passes the same contract suite as Kubernetes. Nothing happens by itself: every question first lets the time since
the last one take effect, in order, so that one clock gives one history.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from healer.adapters.simulated_placement import NAME, Placement
from healer.adapters.simulated_workloads import Budget, Effect, Verb, budget_names
from healer.domain.fleet import Disposition, Gang, Node, Workload
from healer.domain.topology import GpuSlot
from healer.errors import Conflict, HealerError, Rejected
from healer.ports import Clock, Eviction, EvictionAnswer

__all__ = ["Effect", "SimulatedCluster", "Verb"]

DEFAULT_NAMESPACE = "default"


class SimulatedCluster:
    """Implements `healer.ports.Cluster`. Safe to use from several threads.

    Args:
        racks: each node's rack, or None.
        pools: of the nodes that are in one.
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
        pools: Mapping[str, str] | None = None,
    ) -> None:
        nodes = (
            Node(name, ready=True, cordoned=False, rack=rack, pool=(pools or {}).get(name))
            for name, rack in racks.items()
        )
        self._work = Placement(nodes, termination=termination, gpus_per_node=gpus_per_node)
        self._clock = clock
        self._budgets: list[Budget] = []
        self._effects: list[Effect] = []
        self._failures: deque[HealerError] = deque()
        self._lost_answers: deque[HealerError] = deque()
        self._lock = threading.RLock()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Everything that healer changed, oldest first."""
        with self._lock:
            return tuple(self._effects)

    def nodes(self) -> tuple[Node, ...]:
        with self._lock:
            self._begin()
            return tuple(self._work.nodes.values())

    def node(self, name: str) -> Node:
        with self._lock:
            self._begin()
            return self._work.known(name)

    def workloads(self, node: str) -> tuple[Workload, ...]:
        with self._lock:
            self._begin()
            self._work.known(node)
            here = [placed.workload for placed in self._work.on(node)]
            return tuple(replace(workload, blocked_by=self._blocker(workload)) for workload in here)

    def cordon(self, node: str, *, by: str, reason: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._work.known(node)
            if seen.cordoned and seen.cordoned_by == by:
                return
            if seen.cordoned:
                raise Conflict(NAME, f"node {node} is already cordoned by {seen.cordoned_by or 'a person'}")
            self._work.nodes[node] = replace(seen, cordoned=True, cordoned_by=by)
            self._changed(Effect(now, Verb.CORDON, node, by=by, reason=reason))

    def uncordon(self, node: str, *, by: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._work.known(node)
            if not seen.cordoned:
                raise Conflict(NAME, f"node {node} is not cordoned any more: somebody has lifted the cordon of {by}")
            if seen.cordoned_by != by:
                raise Conflict(NAME, f"node {node} is cordoned by {seen.cordoned_by or 'a person'}, not by {by}")
            self._work.nodes[node] = replace(seen, cordoned=False, cordoned_by=None)
            self._work.place_waiting()
            self._changed(Effect(now, Verb.UNCORDON, node, by=by))

    def evict(self, workload: Workload, *, grace: timedelta | None) -> Eviction:
        with self._lock:
            now = self._begin()
            placed = self._work.placed.get(workload.uid)
            if placed is None:
                return Eviction(EvictionAnswer.GONE)
            if placed.workload.leaving:
                return Eviction(EvictionAnswer.ACCEPTED)
            if len(covering := self._covering(placed.workload)) > 1:
                raise Rejected(
                    NAME, f"cannot evict {workload}: more than one budget covers it ({budget_names(covering)})"
                )
            if blocker := self._blocker(placed.workload):
                return Eviction(EvictionAnswer.BLOCKED, f"budget {blocker}")
            takes = self._work.termination if grace is None else min(grace, self._work.termination)
            self._work.send_away(placed, now + takes)
            gone = placed.workload
            self._changed(Effect(now, Verb.EVICT, gone.node, workload=str(gone), of=gone.stable_name))
            return Eviction(EvictionAnswer.ACCEPTED)

    def job(self, name: str) -> Gang:
        with self._lock:
            self._begin()
            return self._work.gang(name)

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._work.gang(job)
            if seen.why_not:
                raise Rejected(NAME, f"cannot suspend {job}: {seen.why_not}")
            if seen.suspended and seen.suspended_by == by:
                return
            if seen.suspended:
                raise Conflict(NAME, f"{job} is already suspended by {seen.suspended_by or 'a person'}")
            self._work.suspend(job, now, by=by)
            self._changed(Effect(now, Verb.SUSPEND, "", by=by, reason=reason, of=job))

    def resume(self, job: str, *, by: str) -> None:
        with self._lock:
            now = self._begin()
            seen = self._work.gang(job)
            if not seen.suspended:
                raise Conflict(NAME, f"{job} is not suspended any more: somebody has resumed what {by} suspended")
            if seen.suspended_by != by:
                raise Conflict(NAME, f"{job} is suspended by {seen.suspended_by or 'a person'}, not by {by}")
            self._work.resume(job)
            self._changed(Effect(now, Verb.RESUME, "", by=by, of=job))

    def add_node(self, name: str, *, rack: str | None) -> None:
        """A node that joins; one that is there already stays as it is."""
        with self._lock:
            self._work.nodes.setdefault(name, Node(name, ready=True, cordoned=False, rack=rack))
            self._work.place_waiting()

    def add_workload(
        self,
        owner: str,
        *,
        node: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        gpus: int = 0,
        priority: int = 0,
    ) -> None:
        """Start one workload of `owner`, which is "Kind/name", on `node` or else wherever there is room.

        A DaemonSet without `node` gets one on every node; its workloads stay there. Kind Pod has no controller, so
        that a drain refuses it. Every other kind makes its workload again elsewhere.
        """
        with self._lock:
            self._work.settle(self._clock.now())
            self._work.start(owner, node=node, namespace=namespace, gpus=gpus, priority=priority)

    def gpu_jobs(self) -> dict[GpuSlot, str]:
        """Which job has which GPU: those of a node are given away in their order."""
        with self._lock:
            self._work.settle(self._clock.now())
            held = {
                node: [placed.workload.stable_name for placed in self._work.on(node) for _ in range(placed.gpus)]
                for node in self._work.nodes
            }
        return {(node, str(gpu)): job for node, jobs in held.items() for gpu, job in enumerate(jobs)}

    def set_budget(self, name: str, *, owner: str, min_available: int, namespace: str = DEFAULT_NAMESPACE) -> None:
        with self._lock:
            others = [budget for budget in self._budgets if (budget.namespace, budget.name) != (namespace, name)]
            self._budgets = [*others, Budget(namespace, name, owner, min_available)]

    def finish_work(self, node: str) -> None:
        """Everything on the node that a drain would evict ends by itself."""
        with self._lock:
            self._work.settle(self._clock.now())
            for placed in list(self._work.on(node)):
                if placed.workload.disposition is Disposition.EVICT:
                    del self._work.placed[placed.workload.uid]

    def gpus_in_use(self, node: str) -> int:
        """By everything that is on the node, also what is leaving it."""
        with self._lock:
            self._work.settle(self._clock.now())
            return sum(placed.gpus for placed in self._work.on(self._work.known(node).name))

    def cordon_by_person(self, node: str) -> None:
        """As with kubectl, a node that is already cordoned stays as it is, and its owner's."""
        with self._lock:
            self._work.settle(self._clock.now())
            seen = self._work.known(node)
            if not seen.cordoned:
                self._work.nodes[node] = replace(seen, cordoned=True, cordoned_by=None)

    def uncordon_by_person(self, node: str) -> None:
        with self._lock:
            self._work.settle(self._clock.now())
            self._work.nodes[node] = replace(self._work.known(node), cordoned=False, cordoned_by=None)
            self._work.place_waiting()

    def suspend_by_person(self, job: str) -> None:
        """As with kubectl, one that is already suspended stays as it is, and its owner's."""
        with self._lock:
            now = self._clock.now()
            self._work.settle(now)
            if not self._work.gang(job).suspended:
                self._work.suspend(job, now, by=None)

    def resume_by_person(self, job: str) -> None:
        with self._lock:
            self._work.settle(self._clock.now())
            if self._work.gang(job).suspended:
                self._work.resume(job)

    def set_ready(self, node: str, *, ready: bool) -> None:
        """What the scheduler hears from the node itself."""
        with self._lock:
            self._work.settle(self._clock.now())
            self._work.nodes[node] = replace(self._work.known(node), ready=ready)
            self._work.place_waiting()

    def lose_gpus(self, node: str, count: int) -> None:
        """Its device plugin does not vouch for so many of its GPUs any more."""
        with self._lock:
            self._work.nodes[node] = replace(self._work.known(node), lost_gpus=count)

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
        self._work.settle(now)
        return now

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
            return f"{budget_names(covering)} (no workload that more than one budget covers is evicted)"
        staying = sum(
            (held.workload.namespace, held.workload.owner) == (workload.namespace, workload.owner)
            and not held.workload.leaving
            for held in self._work.placed.values()
        )
        if covering and staying <= covering[0].min_available:
            return f"{budget_names(covering)} (0 disruptions allowed)"
        return None
