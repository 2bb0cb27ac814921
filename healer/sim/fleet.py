"""The simulated fleet: GPUs in nodes in racks, the training that runs on them, their power limits, and their faults.

Deterministic: the same seed, the same calls and the same steps give the same readings. Safe to share between threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from healer.errors import NotFound, Rejected
from healer.sim.faults import Fault, FaultKind, objections
from healer.sim.layout import COMPONENT, Layout, build_layout
from healer.sim.physics import (
    DEFAULT_LIMIT_W,
    MAX_LIMIT_W,
    MIN_LIMIT_W,
    Drive,
    Floats,
    GpuState,
    draw_traits,
    settled,
    step,
)

_STEP_S = 1.0
_CHASSIS_W_PER_GPU = 150.0  # fans, CPUs and switches: about 1.2 kW for eight GPUs
_CHECKPOINT_S = 12.0
_CHECKPOINT_LOAD = 0.2
_DEFAULT_COOLING_SEVERITY = 0.5
_DOUBLE_BIT_XID = 48


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """A wanted limit of one GPU. With a time to live it falls back to `fallback_w` unless it is renewed in time."""

    gpu: int
    limit_w: float
    ttl_s: float | None = None
    fallback_w: float | None = None


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What can be read from one node at one instant; a GPU that fell off the bus is in no field of it."""

    node: str
    model: str
    job: str | None
    exporter_up: bool
    gpus: tuple[int, ...]
    uuids: tuple[str, ...]
    state: GpuState


@dataclass(frozen=True, slots=True)
class _Rhythm:
    """How the training on each node breathes: a slow wave, and a checkpoint every few minutes. Arrays: (n_nodes,)."""

    base: Floats
    wave_s: Floats
    checkpoint_every_s: Floats
    offset_s: Floats

    def load(self, now_s: float) -> Floats:
        at = now_s + self.offset_s
        wave = self.base + 0.05 * np.sin(2 * np.pi * at / self.wave_s)
        return np.where(at % self.checkpoint_every_s < _CHECKPOINT_S, _CHECKPOINT_LOAD, wave)


class SimulatedFleet:
    """`nodes` is the number of nodes in all, spread over the racks; each runs one training, named after its number."""

    def __init__(
        self, *, racks: int = 2, nodes: int = 8, gpus: int = 8, seed: int = 0, faults: Iterable[Fault] = ()
    ) -> None:
        self.layout: Layout = build_layout(racks=racks, nodes=nodes, gpus=gpus, seed=seed)
        self.elapsed_s = 0.0
        self._lock = threading.RLock()
        self._rng = np.random.default_rng(seed)
        n = self.layout.n_gpus
        self._jobs: list[str | None] = [f"train-{number}" for number in range(1, nodes + 1)]
        self._idle = np.zeros(nodes, bool)
        self._rhythm = _draw_rhythm(nodes, self._rng)
        self._inlet_c = self._rng.normal(24.0, 0.8, racks)[self.layout.rack_of_node].repeat(gpus)
        self._cooling_factor = np.ones(n)
        self._cooling_until_s = np.full(n, -np.inf)
        self._surge_until_s = np.full(n, -np.inf)
        self._lost_until_s = np.full(n, -np.inf)
        self._exporter_down_until_s = np.full(nodes, -np.inf)
        self._limit_expires_s = np.full(n, np.inf)
        self._fallback_w = np.full(n, DEFAULT_LIMIT_W)
        self._traits = draw_traits(n, self._rng)
        self._state = settled(self._traits, self._drive(), self._rng)
        self._chassis_w = self._draw_chassis_w()
        self._pending: list[Fault] = []
        self.schedule(faults)

    def advance(self, seconds: float) -> None:
        """Lets `seconds` of simulated time pass, in steps of one second and what is left over."""
        left_s = seconds
        while left_s > 1e-9:
            dt_s = min(_STEP_S, left_s)
            with self._lock:  # step by step, so that readers of a large fleet need not wait for all of them
                self._step(dt_s)
            left_s -= dt_s

    def schedule(self, faults: Iterable[Fault]) -> None:
        """Faults to come; one whose time has passed strikes at the next step."""
        checked = [self._checked(fault) for fault in faults]
        with self._lock:
            self._pending = sorted([*self._pending, *checked], key=lambda fault: fault.at_s)

    def inject(self, fault: Fault) -> None:
        """Lets a fault strike now, whatever its `at_s`."""
        with self._lock:
            self._strike(self._checked(fault))

    def set_idle(self, node: str, idle: bool) -> None:  # noqa: FBT001 - the name of the verb says what it means
        """Takes the work off a node, or gives it back its own training."""
        self.place_job(node, None if idle else f"train-{self.layout.node_index(node) + 1}")

    def place_job(self, node: str, job: str | None) -> None:
        """Makes `job` the work of a node, as the cluster's scheduler would; None leaves the node idle."""
        index = self.layout.node_index(node)
        with self._lock:
            self._jobs[index] = job
            self._idle[index] = job is None

    def read(self, node: str) -> NodeReading:
        index = self.layout.node_index(node)
        with self._lock:
            gpus = self.layout.gpus_of_node(node)
            present = np.flatnonzero(self._lost_until_s[gpus] <= self.elapsed_s)
            at = present + gpus.start
            return NodeReading(
                node=node,
                model=self.layout.model,
                job=self._jobs[index],
                exporter_up=bool(self._exporter_down_until_s[index] <= self.elapsed_s),
                gpus=tuple(present.tolist()),
                uuids=tuple(self.layout.uuids[i] for i in at),
                state=self._state.pick(at),
            )

    def rack_power_w(self) -> dict[str, float]:
        """What each rack's power distribution unit shows."""
        with self._lock:
            node_w = self._state.power_w.reshape(len(self.layout.nodes), -1).sum(axis=1) + self._chassis_w
        rack_w = np.bincount(self.layout.rack_of_node, weights=node_w, minlength=len(self.layout.racks))
        return dict(zip(self.layout.racks, rack_w.tolist(), strict=True))

    def set_power_limit(
        self, node: str, gpu: int, *, limit_w: float, ttl_s: float | None = None, fallback_w: float | None = None
    ) -> None:
        self.set_power_limits(node, [PowerLimit(gpu, limit_w, ttl_s, fallback_w)])

    def restore_power_limits(self, node: str, gpus: Iterable[int]) -> None:
        self.set_power_limits(node, [PowerLimit(gpu, DEFAULT_LIMIT_W) for gpu in gpus])

    def set_power_limits(self, node: str, limits: Sequence[PowerLimit]) -> None:
        """Sets all of these limits or none.

        Raises:
            NotFound: the node or a GPU does not exist.
            Rejected: a limit is outside the device's constraints, or a cap has no time to live or no fallback.
        """
        with self._lock:
            indices = [self._settable(node, limit) for limit in limits]
            for index, limit in zip(indices, limits, strict=True):
                self._state.limit_w[index] = limit.limit_w
                self._limit_expires_s[index] = np.inf if limit.ttl_s is None else self.elapsed_s + limit.ttl_s
                self._fallback_w[index] = DEFAULT_LIMIT_W if limit.fallback_w is None else limit.fallback_w

    def _settable(self, node: str, limit: PowerLimit) -> int:
        index = self.layout.gpu_index(node, limit.gpu)
        who = f"{node} GPU {limit.gpu}"
        if self._lost_until_s[index] > self.elapsed_s:
            raise Rejected(COMPONENT, f"{who} is lost: it takes no power limit until it is back")
        if limit.limit_w < DEFAULT_LIMIT_W and (limit.ttl_s is None or limit.fallback_w is None):
            raise Rejected(COMPONENT, f"{who}: a cap needs both a time to live and a fallback")
        if limit.ttl_s is not None and not 0 < limit.ttl_s < np.inf:
            raise Rejected(COMPONENT, f"{who}: a time to live of {limit.ttl_s:g} s is not a positive number of seconds")
        for name, value in (("limit", limit.limit_w), ("fallback", limit.fallback_w)):
            if value is not None and not MIN_LIMIT_W <= value <= MAX_LIMIT_W:
                span = f"{MIN_LIMIT_W:g} to {MAX_LIMIT_W:g} W"
                raise Rejected(COMPONENT, f"{who}: a {name} of {value:g} W is outside what the device takes, {span}")
        return index

    def _step(self, dt_s: float) -> None:
        self.elapsed_s += dt_s
        while self._pending and self._pending[0].at_s <= self.elapsed_s:
            self._strike(self._pending.pop(0))
        expired = self._limit_expires_s <= self.elapsed_s
        self._state.limit_w[expired] = self._fallback_w[expired]
        self._limit_expires_s[expired] = np.inf
        step(self._state, self._traits, self._drive(), dt_s=dt_s, rng=self._rng)
        self._chassis_w = self._draw_chassis_w()

    def _drive(self) -> Drive:
        gpus = self.layout.gpus_per_node
        idle = self._idle.repeat(gpus)
        load = np.where(self._surge_until_s > self.elapsed_s, 1.0, self._rhythm.load(self.elapsed_s).repeat(gpus))
        warming = self._cooling_until_s > self.elapsed_s
        return Drive(
            load=np.where(idle | (self._lost_until_s > self.elapsed_s), 0.0, load),
            inlet_c=self._inlet_c + 0.4 * np.sin(2 * np.pi * self.elapsed_s / 1800.0),
            resistance_factor=np.where(warming, self._cooling_factor, 1.0),
        )

    def _draw_chassis_w(self) -> Floats:
        return _CHASSIS_W_PER_GPU * self.layout.gpus_per_node * self._rng.normal(1.0, 0.01, len(self.layout.nodes))

    def _checked(self, fault: Fault) -> Fault:
        wrong = objections(fault, self.layout)
        if wrong:
            text = "; ".join(f"{each.field}: {each.text}" + (f" ({each.hint})" if each.hint else "") for each in wrong)
            raise (NotFound if all(each.unknown for each in wrong) else Rejected)(COMPONENT, text)
        return fault

    def _strike(self, fault: Fault) -> None:
        until_s = np.inf if fault.duration_s is None else self.elapsed_s + fault.duration_s
        where = self._aim(fault)
        match fault.kind:
            case FaultKind.UNCORRECTABLE_ECC:
                self._state.dbe_volatile[where] += 1
                self._state.dbe_aggregate[where] += 1
                self._state.remap_pending[where] = 1
                self._state.xid[where] = _DOUBLE_BIT_XID
            case FaultKind.LOAD_SURGE:
                self._surge_until_s[where] = until_s
            case FaultKind.EXPORTER_DOWN:
                self._exporter_down_until_s[where.reshape(len(self.layout.nodes), -1).any(axis=1)] = until_s
            case FaultKind.GPU_LOST:
                self._lost_until_s[where] = until_s
            case FaultKind.COOLING_LOSS:
                self._cooling_until_s[where] = until_s
                self._cooling_factor[where] = 1.0 + (fault.severity or _DEFAULT_COOLING_SEVERITY)

    def _aim(self, fault: Fault) -> NDArray[np.bool_]:
        """Mask over all GPUs."""
        if fault.rack is not None:
            return self.layout.gpus_of_rack(fault.rack)
        mask = np.zeros(self.layout.n_gpus, bool)
        if fault.node is not None:
            mask[self.layout.gpus_of_node(fault.node) if fault.gpu is None else self._one(fault.node, fault.gpu)] = True
        return mask

    def _one(self, node: str, gpu: int) -> slice:
        index = self.layout.gpu_index(node, gpu)
        return slice(index, index + 1)


def _draw_rhythm(nodes: int, rng: np.random.Generator) -> _Rhythm:
    every_s = rng.uniform(180.0, 420.0, nodes)
    return _Rhythm(
        base=rng.uniform(0.66, 0.76, nodes),
        wave_s=rng.uniform(60.0, 140.0, nodes),
        checkpoint_every_s=every_s,
        offset_s=rng.uniform(0.0, every_s),
    )
