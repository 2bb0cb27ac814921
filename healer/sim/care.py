"""The node agents of a simulated fleet, as far as they do something to their nodes: reset, reboot, burn in, collect.

A reset does what a reload of the driver does. A reboot also brings back what fell off the bus; until it is over, the
node's exporter, its agent and, with a cluster, its kubelet do not answer. A burn-in passes on GPUs without a fault.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.care import CareOrder, CareReport, CareState, GpuUse, NodeCondition, Operation
from healer.errors import HealerError, NotFound, Rejected, Unavailable
from healer.sim.fleet import SimulatedFleet

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
_TAKES = {
    Operation.RESET_GPU: timedelta(seconds=20),
    Operation.REBOOT: timedelta(seconds=90),
    Operation.COLLECT: timedelta(seconds=15),
}


@dataclass(frozen=True, slots=True)
class _Begun:
    order: CareOrder
    at_s: float
    ends_s: float


class FleetCare:
    """Implements `healer.ports.NodeCare`. Safe to use from several threads.

    Attributes:
        silent: nodes whose agent does not answer.
        broken: nodes whose GPUs pass no burn-in, for a reason that nothing else shows.
        begun: every operation that was begun, as (node, order), oldest first.
    """

    def __init__(
        self, fleet: SimulatedFleet, *, cluster: SimulatedCluster | None = None, since: datetime = SINCE
    ) -> None:
        """Args:
        cluster: whose workloads use the GPUs; without one, the fleet's own trainings do.
        since: the time at which the fleet's began.
        """
        self.fleet = fleet
        self.silent: set[str] = set()
        self.broken: set[str] = set()
        self.begun: list[tuple[str, CareOrder]] = []
        self._cluster = cluster
        self._since = since
        self._known: dict[tuple[str, str], _Begun] = {}
        self._over: dict[tuple[str, str], CareReport] = {}
        self._lost_answers: list[HealerError] = []
        self._lock = threading.RLock()

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        with self._lock:
            self._reach(node)
            known = self._known.get((node, key))
            if known is not None and known.order != order:
                text = f"knows {key} for another operation, {known.order.operation}, not {order.operation}"
                raise Rejected(_named(node), text)
            if known is None:
                self._begin(node, key, order)
            if self._lost_answers:
                raise self._lost_answers.pop()
            return self._report(node, key)

    def report(self, node: str, key: str) -> CareReport | None:
        with self._lock:
            self._reach(node)
            return self._report(node, key) if (node, key) in self._known else None

    def condition(self, node: str) -> NodeCondition:
        with self._lock:
            self._reach(node)
            users = self._users(node)
            gpus = tuple(GpuUse(gpu, uuid, users.get(gpu, 0)) for gpu, uuid in self.fleet.listed(node).items())
            boots = sum(begun.order.operation is Operation.REBOOT for begun in self._of(node))
            return NodeCondition(f"{node}-boot-{boots + 1}", gpus)

    def operation(self, node: str, key: str) -> Operation:
        """What was ordered under a key that is known."""
        with self._lock:
            return self._known[node, key].order.operation

    def lose_next_answer(self, error: HealerError) -> None:
        """The next operation is begun, and nobody hears of it."""
        self._lost_answers.append(error)

    def _begin(self, node: str, key: str, order: CareOrder) -> None:
        takes_s = self._takes(node, order).total_seconds()
        now_s = self.fleet.elapsed_s
        self._known[node, key] = _Begun(order, now_s, now_s + takes_s)
        self.begun.append((node, order))
        match order.operation:
            case Operation.RESET_GPU:
                self.fleet.reset(node, order.gpu or 0, takes_s=takes_s)
            case Operation.REBOOT:
                self.fleet.reboot(node, takes_s=takes_s)
                self._ready(node, ready=False)
            case Operation.BURN_IN | Operation.COLLECT:
                pass

    def _takes(self, node: str, order: CareOrder) -> timedelta:
        """How long it will take. Raises Rejected for an order that cannot be carried out."""
        if order.operation is Operation.BURN_IN:
            if order.duration is None:
                raise Rejected(_named(node), "a burn-in needs its duration")
            return order.duration
        if order.operation is Operation.RESET_GPU:
            uuid = None if order.gpu is None else self.fleet.listed(node).get(order.gpu)
            if uuid is None or uuid != order.uuid:
                raise Rejected(_named(node), f"lists no GPU {order.gpu} with the UUID {order.uuid}")
            if self._users(node).get(order.gpu or 0, 0):
                raise Rejected(_named(node), f"GPU {order.gpu} is in use")
        return _TAKES[order.operation]

    def _reach(self, node: str) -> None:
        """Every question comes through here first. Raises Unavailable while the node boots."""
        try:
            self.fleet.layout.node_index(node)
        except NotFound as error:
            raise Rejected(_named(node), error.detail) from error
        now_s = self.fleet.elapsed_s
        booting = any(each.order.operation is Operation.REBOOT and each.ends_s > now_s for each in self._of(node))
        for (where, key), begun in self._known.items():
            if where == node and begun.ends_s <= now_s and (node, key) not in self._over:
                self._over[node, key] = self._ended(node, begun)
        if booting or node in self.silent:
            raise Unavailable(_named(node), "did not answer")

    def _ended(self, node: str, begun: _Begun) -> CareReport:
        state, detail = CareState.DONE, ""
        match begun.order.operation:
            case Operation.REBOOT:
                self._ready(node, ready=True)
            case Operation.COLLECT:
                detail = f"{node}:/var/lib/healer/evidence"
            case Operation.BURN_IN:
                faults = [f"GPU {gpu}: {what}" for gpu, what in self.fleet.faults_of(node).items()]
                if node in self.broken:
                    faults.append("GPU 0: wrong results under load")
                state = CareState.FAILED if faults else CareState.DONE
                detail = "; ".join(faults) or "passed"
            case Operation.RESET_GPU:
                detail = f"GPU {begun.order.gpu} was reset"
        return CareReport(state, detail, self._time(begun.at_s), self._time(begun.ends_s))

    def _report(self, node: str, key: str) -> CareReport:
        begun = self._known[node, key]
        running = CareReport(CareState.RUNNING, str(begun.order.operation), self._time(begun.at_s))
        return self._over.get((node, key), running)

    def _users(self, node: str) -> dict[int, int]:
        """How many processes use each GPU; a burn-in is one."""
        n = self.fleet.layout.gpus_per_node
        if self._cluster is not None:
            working = min(n, self._cluster.gpus_in_use(node))
        else:
            working = n if self.fleet.read(node).job is not None else 0
        tests = sum(
            each.order.operation is Operation.BURN_IN and each.ends_s > self.fleet.elapsed_s for each in self._of(node)
        )
        return {gpu: (gpu < working) + tests for gpu in range(n)}

    def _of(self, node: str) -> list[_Begun]:
        return [begun for (where, _), begun in self._known.items() if where == node]

    def _ready(self, node: str, *, ready: bool) -> None:
        if self._cluster is not None:
            self._cluster.set_ready(node, ready=ready)

    def _time(self, elapsed_s: float) -> datetime:
        return self._since + timedelta(seconds=elapsed_s)


def _named(node: str) -> str:
    return f"node agent of {node}"
