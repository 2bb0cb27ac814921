"""Blow: one fault that strikes, with everything that those who say what it does need to know."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from healer.domain.axes import Ints
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.sim.faults import Fault
from healer.sim.knobs import Effect, Knob, Ramp
from healer.sim.layout import Layout
from healer.sim.physics import DEFAULT_LIMIT_W
from healer.sim.world import Mark


@dataclass(frozen=True, slots=True, eq=False)
class Gang:
    """The GPUs that work on one job and wait for each other."""

    job: str
    gpus: Ints


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault finds when it strikes.

    Attributes:
        uuids: by GPU.
        ports: of each node.
        gang: the gang of a GPU at a time; None for one that has no work.
        port_name: what the exporters call a port of a node.
        shown: whether the site exports a quantity of `GpuState`.
        limit_w: the power limit that the site's GPUs usually have.
        kelvin_per_w: how much warmer than the air a sound GPU is for each watt.
        jobs_die: whether the work on a GPU that breaks breaks too; else whoever drives the fleet sees to that.
    """

    layout: Layout
    uuids: list[str]
    ports: int
    gang: Callable[[int, float], Gang | None]
    shown: Callable[[str], bool]
    port_name: Callable[[int], str]
    limit_w: float = DEFAULT_LIMIT_W
    kelvin_per_w: float = 0.046
    jobs_die: bool = True

    def gpu(self, gpu: int) -> Component:
        node = self.layout.nodes[gpu // self.layout.gpus_per_node]
        index = str(gpu % self.layout.gpus_per_node)
        return Component(ComponentKind.GPU, rack=self.layout.rack_of(node), node=node, gpu=index, uuid=self.uuids[gpu])

    def node(self, node: int) -> Component:
        name = self.layout.nodes[node]
        return Component(ComponentKind.NODE, rack=self.layout.rack_of(name), node=name)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Quantities of GPUs that their exporter leaves out, or shows as `value`."""

    rows: frozenset[str]
    gpus: frozenset[int]
    start_s: float
    end_s: float
    value: float | None = None

    def on(self, gpus: slice) -> Hidden:
        """The same for the GPUs of one node, by their index there."""
        here = frozenset(gpu - gpus.start for gpu in self.gpus if gpus.start <= gpu < gpus.stop)
        return replace(self, gpus=here)


@dataclass(frozen=True, slots=True, eq=False)
class Interruption:
    """A gang that stops working: from `stuck_s` on it hangs, at `killed_s` it is gone, at `back_s` it starts again."""

    gang: Gang
    stuck_s: float
    killed_s: float
    back_s: float = math.inf
    without: tuple[int, ...] = ()  # nodes


@dataclass(frozen=True, slots=True)
class Claim:
    """What is true of it; see `truth.Truth`, but for times in seconds."""

    mode: FailureMode
    component: Component
    culprit: Component | None = None
    full_s: float | None = None
    hard: bool = True
    jobs: tuple[str, ...] = ()
    symptoms: tuple[FailureMode, ...] = ()


@dataclass(frozen=True, slots=True)
class Happening:
    claim: Claim
    effects: tuple[Effect, ...] = ()
    marks: tuple[Mark, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    interruptions: tuple[Interruption, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Blow:
    """Attributes:
    gpus: those that it is aimed at.
    severity: None where nobody said.
    """

    fault: Fault
    scene: Scene
    variant: str
    gpus: Ints
    at_s: float
    rng: np.random.Generator
    end_s: float = math.inf

    @property
    def gpu(self) -> int:
        return int(self.gpus[0])

    @property
    def nodes(self) -> Ints:
        return np.unique(self.gpus // self.scene.layout.gpus_per_node)

    @property
    def lasts_s(self) -> float:
        """For how long, or for an hour if it does not end."""
        return min(self.end_s - self.at_s, 3600.0)

    @property
    def is_one_gpu(self) -> bool:
        return self.fault.gpu is not None

    @property
    def component(self) -> Component:
        """What it is aimed at."""
        if self.is_one_gpu:
            return self.scene.gpu(self.gpu)
        if self.fault.node is not None:
            return self.scene.node(int(self.nodes[0]))
        if self.fault.rack is not None:
            return Component(ComponentKind.RACK, rack=self.fault.rack)
        return Component(ComponentKind.SOURCE, link="prometheus")

    @property
    def gang(self) -> Gang | None:
        """That works on the first of its GPUs, when it strikes."""
        return self.scene.gang(self.gpu, self.at_s)

    @property
    def jobs(self) -> tuple[str, ...]:
        """Of all GPUs that it is aimed at."""
        gangs = (self.scene.gang(gpu, self.at_s) for gpu in self.gpus.tolist())
        return tuple(sorted({gang.job for gang in gangs if gang is not None}))

    def graded(self, low: float, high: float) -> float:
        """Between the two, by severity; in equal steps."""
        return low + (high - low) * self._severity()

    def graded_log(self, low: float, high: float) -> float:
        """Between the two, by severity; in equal factors."""
        return float(low * (high / low) ** self._severity())

    def turn(self, knob: Knob, value: float, where: Ints | None = None, ramp: Ramp = Ramp.LINEAR) -> Effect:
        """From beginning to end, with the ramp that was asked for."""
        ramp_s = self.fault.ramp_s or 0.0
        return Effect(knob, self.gpus if where is None else where, value, self.at_s, self.end_s, ramp_s, ramp)

    def episodes(self, *, on_s: tuple[float, float], off_s: tuple[float, float]) -> list[tuple[float, float]]:
        """On and off again and again, as long as it lasts."""
        found, at_s = [], self.at_s
        while at_s < self.at_s + min(self.end_s - self.at_s, 86_400.0):
            until_s = at_s + self.rng.uniform(*on_s)
            found.append((at_s, min(until_s, self.end_s)))
            at_s = until_s + self.rng.uniform(*off_s)
        return found

    def _severity(self) -> float:
        return 0.5 if self.fault.severity is None else self.fault.severity


Strike: TypeAlias = Callable[[Blow], Happening]
