"""Marks: what happens to a simulated fleet at a moment and stays until a driver is loaded anew or a board swapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from healer.domain.axes import Ints
from healer.sim.world import World, XidEntry


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Quantities of `GpuState` are set, and others counted up."""

    at_s: float
    gpus: Ints
    to: Mapping[str, float] = field(default_factory=dict)
    by: Mapping[str, float] = field(default_factory=dict)

    def leave(self, world: World) -> None:
        for name, value in self.to.items():
            getattr(world.gpus, name)[self.gpus] = value
        for name, more in self.by.items():
            getattr(world.gpus, name)[self.gpus] += more


@dataclass(frozen=True, slots=True, eq=False)
class Xid:
    """The driver reports an error; the exporter shows the last one."""

    at_s: float
    gpus: Ints
    code: int

    def leave(self, world: World) -> None:
        world.gpus.xid[self.gpus] = self.code
        world.xids += [XidEntry(world.now_s, gpu, self.code) for gpu in self.gpus.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Reload:
    """The driver is loaded anew, as a reboot does; perhaps another version of it."""

    at_s: float
    gpus: Ints
    driver: str | None = None

    def leave(self, world: World) -> None:
        world.gpus.start_anew(self.gpus)
        if self.driver is not None:
            for node in {gpu // world.layout.gpus_per_node for gpu in self.gpus.tolist()}:
                world.drivers[node] = self.driver
            world.relabelled.update(self.gpus.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """Other boards stand in the slots."""

    at_s: float
    gpus: Ints
    uuids: tuple[str, ...]

    def leave(self, world: World) -> None:
        world.gpus.replace(self.gpus)
        for gpu, uuid in zip(self.gpus.tolist(), self.uuids, strict=True):
            world.uuids[gpu] = uuid
        world.relabelled.update(self.gpus.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class NewPods:
    """The work goes on in pods of other names."""

    at_s: float
    gpus: Ints

    def leave(self, world: World) -> None:
        world.pod_generation[self.gpus] += 1
        world.relabelled.update(self.gpus.tolist())
