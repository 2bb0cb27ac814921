"""A whole site in virtual time: simulated fleet, cluster, agents and on-call around the real operator and journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Self

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.config import Config
from healer.content.detectors import Detector
from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.care import CareOrder, CareReport
from healer.domain.finding import FailureMode
from healer.domain.fleet import Workload
from healer.domain.incident import Incident
from healer.domain.ticket import Ticket
from healer.domain.verdict import Mode
from healer.errors import Unavailable
from healer.ports import Eviction, Notices, TopologySource, Transaction
from healer.rehearsal.virtual import START, FleetPower, FleetTelemetry, HeldTickets, VirtualClock
from healer.runtime.knowledge import Outside
from healer.runtime.operator import Operator
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.wiring import Content, build_operator, load_content
from healer.sim.care import FleetCare
from healer.sim.fleet import SimulatedFleet

ON_CALL = Person("slack:U0ONCALL", "on-call")
LEASE = timedelta(days=1)
_ROOT = Path(__file__).parents[1]


class Crash(BaseException):
    """The process ends here; nothing of it runs any more."""


class Fuse:
    """Counts the instants at which a process can die, and lets it die at one of them.

    Attributes:
        points: what was about to happen, or had just happened, at each.
    """

    def __init__(self, blows_at: int | None = None) -> None:
        self.points: list[str] = []
        self._blows_at = blows_at

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        self._point(f"before {what}")
        yield
        self._point(f"after {what}")

    def _point(self, name: str) -> None:
        self.points.append(name)
        if len(self.points) - 1 == self._blows_at:
            raise Crash(name)


class FusedJournal(SqlJournal):
    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        self._fuse = fuse

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._fuse.around("write"), super().transaction() as write:
            yield write


class FusedCluster(SimulatedCluster):
    fuse = Fuse()

    def cordon(self, node: str, *, by: str, reason: str) -> None:
        with self.fuse.around("cordon"):
            super().cordon(node, by=by, reason=reason)

    def uncordon(self, node: str, *, by: str) -> None:
        with self.fuse.around("uncordon"):
            super().uncordon(node, by=by)

    def evict(self, workload: Workload, *, grace: timedelta | None) -> Eviction:
        with self.fuse.around("evict"):
            return super().evict(workload, grace=grace)

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        with self.fuse.around("suspend"):
            super().suspend(job, by=by, reason=reason)

    def resume(self, job: str, *, by: str) -> None:
        with self.fuse.around("resume"):
            super().resume(job, by=by)


class FusedPower(FleetPower):
    fuse = Fuse()

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        with self.fuse.around("set_limits"):
            super().set_limits(node, limits_w, ttl=ttl, fallback_w=fallback_w)

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        with self.fuse.around("restore"):
            super().restore(node, gpus)


class FusedCare(FleetCare):
    """Attributes:
    asked: every order that came, as (node, key, order), also one that was begun already.
    """

    fuse = Fuse()

    def __init__(self, fleet: SimulatedFleet, cluster: SimulatedCluster) -> None:
        super().__init__(fleet, cluster=cluster, since=START)
        self.asked: list[tuple[str, str, CareOrder]] = []

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        with self.fuse.around(order.operation):
            self.asked.append((node, key, order))
            return super().start(node, key, order)


class FusedTickets(HeldTickets):
    fuse = Fuse()

    def open(self, ticket: Ticket) -> str:
        with self.fuse.around("ticket"):
            return super().open(ticket)


class RecordingChannel:
    """Implements `healer.ports.ApprovalChannel`.

    Attributes:
        asked, closed, escalated: the ids of approvals, in order.
        updated: with how many have agreed.
        warned: the ids of the breaker's trips, in order.
        down: does not answer.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed: list[tuple[str, ApprovalState]] = []
        self.escalated: list[str] = []
        self.updated: list[tuple[str, int]] = []
        self.warned: list[str] = []
        self.down = False

    def ask(self, approval: Approval, incident: Incident) -> str:
        assert incident.id == approval.incident_id
        if self.down:
            raise Unavailable("channel", "did not answer")
        self.asked.append(approval.id)
        return f"message-{len(self.asked)}"

    def escalate(self, approval: Approval, incident: Incident) -> str:
        assert incident.id == approval.incident_id
        if self.down:
            raise Unavailable("channel", "did not answer")
        self.escalated.append(approval.id)
        return f"escalation-{len(self.escalated)}"

    def update(self, approval: Approval, incident: Incident) -> None:
        assert incident.id == approval.incident_id
        if self.down:
            raise Unavailable("channel", "did not answer")
        self.updated.append((approval.id, len(approval.agreed)))

    def close(self, approval: Approval, incident: Incident) -> None:
        assert incident.id == approval.incident_id
        if self.down:
            raise Unavailable("channel", "did not answer")
        self.closed.append((approval.id, approval.state))

    def warn(self, trip: Trip) -> None:
        if self.down:
            raise Unavailable("channel", "did not answer")
        self.warned.append(trip.id)


class Site:
    """The outside world and the process in it; `restart` ends the process at once and starts another.

    Attributes:
        topology, notices: who else tells of the fleet, from the next start on.
    """

    topology: TopologySource | None = None
    notices: Notices | None = None

    def __init__(
        self,
        folder: Path,
        *,
        racks: int = 1,
        nodes: int = 3,
        gpus: int = 2,
        budget_w: float = 1e6,
        fuse: Fuse | None = None,
        pools: Mapping[str, str] | None = None,
        agents: bool = False,
        notices: Notices | None = None,
    ) -> None:
        """Args:
        agents: whether node agents are configured that reset, reboot, burn in and collect.
        """
        self.clock = VirtualClock()
        self.fleet = SimulatedFleet(racks=racks, nodes=nodes, gpus=gpus, seed=3)
        layout = self.fleet.layout
        self.cluster = FusedCluster(
            {node: layout.rack_of(node) for node in layout.nodes},
            clock=self.clock,
            termination=timedelta(seconds=10),
            gpus_per_node=2 * gpus,
            pools=pools,
        )
        self.power = FusedPower(self.fleet)
        self.care = FusedCare(self.fleet, self.cluster)
        self.agents = agents
        self.telemetry = FleetTelemetry(self.fleet)
        self.channel = RecordingChannel()
        self.tickets = FusedTickets()
        self.fuse = fuse or Fuse()
        self.power.fuse = self.cluster.fuse = self.tickets.fuse = self.care.fuse = self.fuse
        self.notices = notices
        self.config = site_config(folder, budget_w=budget_w)
        self._started = 0
        self.start()

    def start(self) -> None:
        self.journal = FusedJournal(self.config.state.url, self.fuse)
        self._started += 1
        self.journal.lead(f"process-{self._started}", self.clock.now(), LEASE)
        self.board = Board(Snapshot(self.config.mode))
        self.operator: Operator = build_operator(
            self.config,
            content=site_content(self.config.model_dump_json(include={"detectors", "models", "playbooks"})),
            outside=Outside(
                self.telemetry,
                cluster=self.cluster,
                power=self.power,
                tickets=self.tickets,
                channel=self.channel,
                topology=self.topology,
                notices=self.notices,
                care=self.care if self.agents else None,
            ),
            journal=self.journal,
            board=self.board,
            clock=self.clock,
        )

    def restart(self, **changes: object) -> None:
        """Another process on the same database and world; `changes` are to its configuration."""
        self.journal.close()
        self.config = self.config.model_copy(update=changes)
        self.start()

    def stop(self) -> None:
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.fleet.advance(seconds)

    def tick(self, seconds: float = 10) -> None:
        """Time passes, then every loop of the daemon comes round once, in the order that is hardest on it."""
        self.let_pass(seconds)
        with suppress(Unavailable):  # as the daemon does: a channel that is down holds up nothing else
            self.operator.announce()
        self.operator.pursue()
        self.operator.turn()

    def ticks(self, count: int, seconds: float = 10) -> None:
        for _ in range(count):
            self.tick(seconds)

    def observe_with(self, *detectors: Detector) -> None:
        """From now on these detectors."""
        self.operator = replace(self.operator, observer=replace(self.operator.observer, detectors=detectors))

    def incident(self, mode: FailureMode | None = None) -> Incident:
        """The one and only, of its failure mode or of all."""
        (incident,) = (each for each in self.journal.incidents() if mode in {None, each.failure_mode})
        return incident

    def pending(self) -> tuple[Approval, ...]:
        return tuple(a for a in self.journal.approvals(open_only=True) if a.state is ApprovalState.PENDING)

    def answer(self, *, approve: bool, reason: str = "seen") -> Approval:
        """On-call answers the one question that is open."""
        (approval,) = self.pending()
        return self.journal.decide(approval.id, ON_CALL, self.clock.now(), approve=approve, reason=reason)

    def limits_w(self) -> set[float]:
        return {gpu.limit_w for node in self.fleet.layout.nodes for gpu in self.power.limits(node)}


def site_config(folder: Path, *, budget_w: float) -> Config:
    return Config.model_validate(
        {
            "mode": Mode.ACT,
            "telemetry": {"source": "simulator", "interval": "10s", "max_age": "30s", "window": "2m"},
            "topology": {"rack_budget_watts": {"default": budget_w}},
            "detectors": {
                "path": _ROOT / "detectors",
                "clear_after": "20s",
                "settings": {"rack_power": {"window_s": 15.0}},
            },
            "models": {"path": _ROOT / "models", "disabled": ["gpu_anomaly"]},
            "playbooks": {
                "path": _ROOT / "playbooks",
                "params": {
                    "cap-rack-power": {"lasting": "20s"},
                    "cool-rack": {"lasting": "30s"},
                    "cool-gpu": {"lasting": "30s", "cool_below": 90},
                    "check-suspect": {"burn_in": "1m"},
                    "shed-rack-load": {"lasting": "30s", "readmit_below": 0.97},
                    "reset-gpu": {"burn_in": "1m"},
                    "reboot-node": {"burn_in": "1m"},
                },
            },
            "budgets": {
                "fleet": {"max_percent": 50},
                "rack": {"max_percent": 50, "max_nodes": 2},
                "breaker": {"at_least": 1000, "max_nodes": 1000, "together": 0},  # a small site is soon a storm
            },
            "cluster": {"kind": "simulated"},
            "state": {"url": f"sqlite:///{folder / 'journal.db'}"},
            "http": {"listen": "127.0.0.1:0", "auth": "none"},
        }
    )


@lru_cache(maxsize=4)
def site_content(sections: str) -> Content:
    """Loading compiles expressions, which takes longer than a whole site lives."""
    return load_content(Config.model_validate_json(sections))


def add_training(cluster: SimulatedCluster, node: str) -> None:
    """Two workloads of a training, one of an inference service, and the exporter, which stays."""
    for _ in range(2):
        cluster.add_workload("Job/train", node=node, namespace="training", gpus=1)
    cluster.add_workload("Deployment/prefetch", node=node, namespace="training")
    cluster.add_workload("DaemonSet/dcgm-exporter", node=node, namespace="gpu-operator")
