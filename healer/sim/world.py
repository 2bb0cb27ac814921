"""The world that a simulated fleet lives in: everything that is there, and how all of it goes on by one step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from healer.domain.axes import Bools, Ints
from healer.sim.air import CALM, Air, Climate
from healer.sim.heat import Chassis, Heat
from healer.sim.knobs import Effect, Knob, Knobs, Scope
from healer.sim.layout import Layout
from healer.sim.links import Background, Fabric, Wear, carry
from healer.sim.physics import DEFAULT_LIMIT_W, Boards, Silicon
from healer.sim.state import GpuState, NodeState, PortState
from healer.sim.supply import Power, Supply
from healer.sim.work import Work


@dataclass(frozen=True, slots=True)
class Hall:
    """What a machine room and its machines are like.

    Attributes:
        ports: fabric ports of each node.
        unused: the share of ports into which no cable was ever plugged.
        sleepy: the share of nodes whose PCIe links slow down while nothing is done.
        limit_w: the power limit that all GPUs were given.
        uneven: how far the luck of GPUs with harmless errors differs, as the sigma of a lognormal.
        worn: the share of GPUs with a past: errors of long ago, and rows that were remapped for them.
    """

    boards: Boards = field(default_factory=Boards)
    chassis: Chassis = field(default_factory=Chassis)
    climate: Climate = field(default_factory=Climate)
    supply: Supply = field(default_factory=Supply)
    background: Background = field(default_factory=Background)
    ports: int = 0
    unused: float = 0.0
    sleepy: float = 0.0
    limit_w: float = DEFAULT_LIMIT_W
    uneven: float = 0.0
    worn: float = 0.0


# The demo's: every GPU is like the next, so that what differs is a fault.
PLAIN_HALL = Hall(
    boards=Boards(idle_spread_w=2.0, context_w=0.0, full_w=703.0, full_spread=0.008, leak_w_per_k=0.0),
    chassis=Chassis(
        sink_k_per_w=0.046, chip_k_per_w=0.012, fan_gain=0.0, spread=0.04, hot_slots=0.0, memory_spread_c=0.0
    ),
    climate=CALM,
    ports=8,
)


class Driver(Protocol):
    """Whoever decides what runs on the fleet."""

    def drive(self, now_s: float, work: Work) -> None:
        """Write into `work` what is asked of the GPUs from now on."""


class Mark(Protocol):
    """Something that happens at one moment and leaves its mark."""

    @property
    def at_s(self) -> float: ...

    def leave(self, world: World) -> None: ...


@dataclass(frozen=True, slots=True)
class XidEntry:
    at_s: float
    gpu: int
    code: int


class World:
    """Attributes:
    now_s: counts from the start of the simulation.
    uuids: by GPU; a swapped GPU has a new one.
    drivers: by node, the version of the driver.
    xids: every XID that came up since the start, oldest first.
    relabelled: GPUs whose UUID, driver or pod has changed; whoever writes labels clears it.
    pod_generation: by GPU, how often its pod has been made again.
    """

    def __init__(
        self, layout: Layout, driver: Driver, *, hall: Hall, rng: np.random.Generator, cabled: Ints | None = None
    ) -> None:
        """Args:
        cabled: ports that have a cable, whatever the hall's share of unused ones.
        """
        nodes, gpus = len(layout.nodes), layout.n_gpus
        self.layout = layout
        self.now_s = 0.0
        self.gpus = GpuState.zeros(gpus)
        self.nodes = NodeState.zeros(nodes)
        self.ports = PortState.zeros(nodes * hall.ports)
        sizes = {Scope.GPU: gpus, Scope.NODE: nodes, Scope.PORT: nodes * hall.ports}
        self.knobs = Knobs({**sizes, Scope.RACK: len(layout.racks), Scope.SITE: 1})
        self.uuids = list(layout.uuids)
        self.drivers = ["570.172.08"] * nodes
        self.xids: list[XidEntry] = []
        self.relabelled: set[int] = set()
        self.pod_generation: Ints = np.zeros(gpus, dtype=np.int64)
        self.rng = rng
        self.work = Work(gpus)
        self.power = Power(hall.supply, layout.rack_of_node, layout.gpus_per_node, rng)
        self.air = Air(hall.climate, layout.rack_of_node, rng)
        self._driver = driver
        self._marks: list[Mark] = []
        self._node_of_gpu: Ints = np.repeat(np.arange(nodes), layout.gpus_per_node)
        self._silicon = Silicon(hall.boards.draw(gpus, rng))
        self.heat = Heat(hall.chassis.draw(gpus, layout.gpus_per_node, rng), self._node_of_gpu, nodes)
        self._wear = Wear(hall.background, np.exp(rng.normal(0.0, hall.uneven, gpus)) if hall.uneven else np.ones(gpus))
        self._sleepy: Bools = (rng.random(nodes) < hall.sleepy)[self._node_of_gpu]
        self._fabric = self._built_fabric(hall, cabled)
        self._full_w = np.bincount(layout.rack_of_node) * layout.gpus_per_node * hall.boards.full_w
        self._begin(hall)

    def add(self, effects: Iterable[Effect] = (), marks: Iterable[Mark] = ()) -> None:
        """What has been due before now comes with the next step."""
        self.knobs.add(effects)
        self._marks = sorted([*self._marks, *marks], key=lambda mark: mark.at_s, reverse=True)

    def step(self, dt_s: float) -> None:
        self.now_s += dt_s
        self.turn()
        asked = self.work.asked(self.knobs, self._silicon.clock_share, self.rng)
        self._silicon.step(self.gpus, asked, self.knobs, dt_s=dt_s, rng=self.rng)
        self.heat.step(self.gpus, self.knobs, self.air.inlet_c[self._node_of_gpu], dt_s=dt_s, rng=self.rng)
        carry(self.gpus, self.knobs, self._silicon.activity, sleepy=self._sleepy, dt_s=dt_s)
        self._wear.step(self.gpus, self.knobs, dt_s=dt_s, rng=self.rng)
        self._fabric.step(self.ports, self.knobs, self._silicon.activity, dt_s=dt_s, rng=self.rng)
        self.power.step(self.gpus.power_w, self.heat.fan, self.knobs, self.rng)
        self.air.step(self.now_s, self.power.rack_w / self._full_w, dt_s=dt_s, rng=self.rng)
        self._look_at_nodes()

    def turn(self) -> None:
        """Let come what is due, and no time pass."""
        while self._marks and self._marks[-1].at_s <= self.now_s:
            self._marks.pop().leave(self)
        self.knobs.refresh(self.now_s)
        self._driver.drive(self.now_s, self.work)

    def _begin(self, hall: Hall) -> None:
        """Boards have a past: a few corrected errors are healthy."""
        gpus, rng = self.gpus, self.rng
        n = self.layout.n_gpus
        gpus.limit_w[:] = hall.limit_w
        gpus.energy_mj[:] = np.floor(rng.uniform(1e11, 9e12, n))
        gpus.sbe_aggregate[:] = rng.poisson(0.4, n)
        worn = np.flatnonzero(rng.random(n) < hall.worn)
        gpus.sbe_aggregate[worn] += np.floor(np.exp(rng.normal(3.0, 2.5, len(worn))))
        gpus.remapped_correctable[worn] += rng.poisson(0.3, len(worn))
        gpus.remapped_uncorrectable[worn] += rng.poisson(0.4, len(worn))
        gpus.dbe_aggregate[worn] += gpus.remapped_uncorrectable[worn]
        gpus.pcie_replays[worn] += rng.poisson(3.0, len(worn))
        gpus.pcie_generation[:], gpus.pcie_width[:] = 5.0, 16.0
        gpus.nvlink_state[:] = 1.0
        self._fabric.settle(self.ports)
        self.turn()
        asked = self.work.asked(self.knobs, np.ones(n), rng)
        self._silicon.settle(asked)
        gpus.margin_c[:] = 40.0
        self._silicon.step(gpus, asked, self.knobs, dt_s=0.0, rng=rng)
        self.heat.settle(gpus, self.air.inlet_c[self._node_of_gpu])
        carry(gpus, self.knobs, self._silicon.activity, sleepy=self._sleepy, dt_s=0.0)
        self.power.step(gpus.power_w, self.heat.fan, self.knobs, rng)
        self._look_at_nodes()

    def _look_at_nodes(self) -> None:
        nodes, knobs = self.nodes, self.knobs
        warmed = knobs[Knob.INLET].reshape(len(self.layout.nodes), -1).max(axis=1)
        nodes.inlet_c[:] = self.air.inlet_c + warmed
        nodes.power_w[:] = self.power.node_w
        nodes.ready[:] = knobs[Knob.NOT_READY] <= 0
        nodes.cordoned[:] = knobs[Knob.CORDONED] > 0
        up = knobs[Knob.NETWORK_DOWN] <= 0
        nodes.carrier_changes[:] += up != (nodes.network_up > 0) if self.now_s else 0.0
        nodes.network_up[:] = up

    def _built_fabric(self, hall: Hall, cabled: Ints | None) -> Fabric:
        n = len(self.layout.nodes) * hall.ports
        used: Bools = self.rng.random(n) >= hall.unused if hall.unused else np.ones(n, dtype=np.bool_)
        if cabled is not None:
            used[cabled] = True
        gpu = np.arange(self.layout.n_gpus) % self.layout.gpus_per_node
        of_gpu = self._node_of_gpu * hall.ports + gpu % max(hall.ports, 1)
        return Fabric(used, of_gpu, hall.background)
