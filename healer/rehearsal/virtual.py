"""What stands in for the outside while a playbook is rehearsed: a clock that goes on when told to, and the simulated
fleet's exporters and agents without the HTTP between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.fleet import GpuPower
from healer.domain.reading import Labels, Reading
from healer.domain.ticket import Ticket
from healer.domain.topology import Topology
from healer.errors import HealerError, NotFound, Rejected, Unavailable
from healer.sim.exposition import node_page, rack_page
from healer.sim.fleet import PowerLimit, SimulatedFleet
from healer.sim.physics import DEFAULT_LIMIT_W, MAX_LIMIT_W, MIN_LIMIT_W
from healer.telemetry.wire.exposition import Pages

START = datetime(2026, 3, 1, tzinfo=UTC)


class VirtualClock:
    """Goes on only when it is told to."""

    def __init__(self, at: datetime = START) -> None:
        self.time = at

    def now(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


class FleetPower:
    """Implements `healer.ports.PowerControl` on a simulated fleet, without the agents' HTTP between.

    Attributes:
        silent: nodes whose agent does not answer.
        refused: nodes whose agent says no to every change.
        asked: every change that was asked for, as (node, watts by GPU); an empty mapping for a restore.
    """

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet
        self.silent: set[str] = set()
        self.refused: set[str] = set()
        self.asked: list[tuple[str, Mapping[int, float]]] = []
        self._lost_answers: list[HealerError] = []

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        self._reach(node)
        reading = self.fleet.read(node)
        state = reading.state
        return tuple(
            GpuPower(
                node=node,
                gpu=gpu,
                uuid=reading.uuids[i],
                limit_w=float(state.limit_w[i]),
                default_w=DEFAULT_LIMIT_W,
                min_w=MIN_LIMIT_W,
                max_w=MAX_LIMIT_W,
                power_w=float(state.power_w[i]),
            )
            for i, gpu in enumerate(reading.gpus)
        )

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        self._reach(node)
        self._set(node, [PowerLimit(gpu, w, ttl.total_seconds(), fallback_w) for gpu, w in limits_w.items()])
        self.asked.append((node, dict(limits_w)))
        self._answer()

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        self._reach(node)
        self._set(node, [PowerLimit(gpu, DEFAULT_LIMIT_W) for gpu in gpus])
        self.asked.append((node, {}))
        self._answer()

    def limit_by_person(self, node: str) -> None:
        """All GPUs of the node are at the lowest limit that they take, for longer than anything here lasts."""
        for_good_s = timedelta(days=365).total_seconds()
        gpus = self.fleet.read(node).gpus
        self.fleet.set_power_limits(node, [PowerLimit(gpu, MIN_LIMIT_W, for_good_s, MIN_LIMIT_W) for gpu in gpus])

    def lose_next_answer(self, error: HealerError) -> None:
        """The next change happens, and nobody hears of it."""
        self._lost_answers.append(error)

    def _reach(self, node: str) -> None:
        if node in self.silent:
            raise Unavailable(f"power agent of {node}", "did not answer")

    def _set(self, node: str, limits: list[PowerLimit]) -> None:
        if node in self.refused:
            raise Rejected(f"power agent of {node}", "not in this maintenance window")
        try:
            self.fleet.set_power_limits(node, limits)
        except NotFound as error:
            raise Rejected(f"power agent of {node}", error.detail) from error

    def _answer(self) -> None:
        if self._lost_answers:
            raise self._lost_answers.pop()


class HeldTickets:
    """Implements `healer.ports.Tickets`.

    Attributes:
        opened: by their keys, in order.
    """

    def __init__(self) -> None:
        self.opened: dict[str, Ticket] = {}

    def open(self, ticket: Ticket) -> str:
        self.opened[ticket.key] = ticket
        return f"ticket {ticket.key}"

    def find(self, key: str) -> str | None:
        return f"ticket {key}" if key in self.opened else None


class ClusterJobs:
    """Implements `healer.ports.TopologySource`: which of the simulated cluster's jobs has which GPU."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._told = Topology()

    def topology(self, at: datetime) -> Topology:  # noqa: ARG002
        held = self._cluster.gpu_jobs()
        if held != self._told.gpu_jobs:
            self._told = Topology(gpu_jobs=held)
        return self._told


class FleetTelemetry:
    """Implements `healer.ports.TelemetrySource`: the simulated exporters' pages, without their HTTP.

    Attributes:
        silent: nodes whose exporter does not answer.
        down: nothing at all can be had.
        metered: whether the racks' meter answers.
    """

    name = "virtual"

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.silent: set[str] = set()
        self.down = False
        self.metered = True
        self._fleet = fleet
        self._pages = Pages()

    def read(self, at: datetime) -> Reading:
        if self.down:
            raise Unavailable(self.name, "did not answer")
        return replace(self._pages.reading(at, self._shown()), silent=tuple(sorted(self.silent)))

    def _shown(self) -> Iterator[tuple[Labels, str]]:
        """Each target's labels and its page."""
        layout = self._fleet.layout
        for node in layout.nodes:
            reading = self._fleet.read(node)
            if reading.exporter_up and node not in self.silent:
                yield {"instance": node, "node": node, "rack": layout.rack_of(node)}, node_page(reading)
        if self.metered:
            yield {}, rack_page(self._fleet.rack_power_w())
