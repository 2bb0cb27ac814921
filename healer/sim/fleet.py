"""The simulated fleet to live with: its time passes, its power limits can be set, faults can strike it, all of it read.

Deterministic: the same seed, the same calls and the same steps give the same readings. Safe to share between threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Floats
from healer.errors import NotFound, Rejected
from healer.sim.exporters.labels import port_name
from healer.sim.exporters.style import Style
from healer.sim.exporters.text import TextPages
from healer.sim.faults import Fault, objections
from healer.sim.knobs import Effect, Knob
from healer.sim.layout import COMPONENT, Layout, build_layout
from healer.sim.marks import Reload
from healer.sim.physics import DEFAULT_LIMIT_W, MAX_LIMIT_W, MIN_LIMIT_W
from healer.sim.rhythm import Rhythm
from healer.sim.state import GpuState
from healer.sim.strikes.all import struck
from healer.sim.strikes.blow import Gang, Hidden, Scene
from healer.sim.world import PLAIN_HALL, Hall, World

_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """A wanted limit of one GPU. With a time to live it falls back to `fallback_w` unless it is renewed in time."""

    gpu: int
    limit_w: float
    ttl_s: float | None = None
    fallback_w: float | None = None


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What can be read from one node at one instant; a GPU that fell off the bus is in no field of it.

    Attributes:
        hidden: what the node's exporter leaves out, or shows as no value; GPUs by their index on the node.
    """

    node: str
    model: str
    job: str | None
    exporter_up: bool
    gpus: tuple[int, ...]
    uuids: tuple[str, ...]
    state: GpuState
    hidden: tuple[Hidden, ...] = ()


class SimulatedFleet:
    """`nodes` is the number of nodes in all, spread over the racks; each runs one training, named after its number."""

    def __init__(
        self,
        *,
        racks: int = 2,
        nodes: int = 8,
        gpus: int = 8,
        seed: int = 0,
        faults: Iterable[Fault] = (),
        hall: Hall = PLAIN_HALL,
    ) -> None:
        self.layout: Layout = build_layout(racks=racks, nodes=nodes, gpus=gpus, seed=seed)
        self._lock = threading.RLock()
        rng = np.random.default_rng(seed)
        self._rhythm = Rhythm(self.layout, rng)
        self._world = World(self.layout, self._rhythm, hall=hall, rng=rng)
        self._around = TextPages(self._world, Style(feeds=True))
        self._luck = np.random.default_rng((seed, 1))  # of faults, so that one more does not change the weather
        self._limit_expires_s = np.full(self.layout.n_gpus, np.inf)
        self._fallback_w = np.full(self.layout.n_gpus, DEFAULT_LIMIT_W)
        self._frozen: dict[int, Floats] = {}
        self._hidden: list[Hidden] = []
        self._pending: list[Fault] = []
        self._scene = Scene(
            self.layout,
            self._world.uuids,
            hall.ports,
            self._gang,
            shown=lambda _quantity: True,
            port_name=lambda port: port_name(Style(), port),
            limit_w=hall.limit_w,
            kelvin_per_w=hall.chassis.sink_k_per_w + hall.chassis.chip_k_per_w,
            jobs_die=False,
        )
        self.schedule(faults)

    @property
    def elapsed_s(self) -> float:
        return self._world.now_s

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
            self._world.turn()

    def mend(self, node: str) -> None:
        """Resets the GPUs of a node, as its reboot does: what a reset ends is over, what still acts on them goes on."""
        here = self.layout.gpus_of_node(node)
        with self._lock:
            self._world.add(marks=[Reload(self.elapsed_s, np.arange(here.start, here.stop))])
            self._world.turn()

    def reset(self, node: str, gpu: int, *, takes_s: float) -> None:
        """Resets one GPU, as its driver does: what a reset ends is over then."""
        index = self.layout.gpu_index(node, gpu)
        with self._lock:
            self._world.add(marks=[Reload(self.elapsed_s + takes_s, np.array([index]))])

    def reboot(self, node: str, *, takes_s: float) -> None:
        """Boots a node: its exporter is silent meanwhile, and what fell off the bus is back afterwards."""
        index, here = self.layout.node_index(node), self.layout.gpus_of_node(node)
        gpus, up_s = np.arange(here.start, here.stop), self.elapsed_s + takes_s
        with self._lock:
            silent = Effect(Knob.EXPORTER_DOWN, np.array([index]), 1.0, self.elapsed_s, up_s)
            self._world.knobs.end(Knob.LOST, gpus, up_s)
            self._world.add([silent], [Reload(up_s, gpus)])
            self._world.turn()

    def listed(self, node: str) -> dict[int, str]:
        """The UUIDs of the GPUs that the node's driver lists, by index, whatever its exporter shows."""
        here = self.layout.gpus_of_node(node)
        with self._lock:
            there = np.flatnonzero(self._world.knobs[Knob.LOST][here] <= 0).tolist()
            return {gpu: self._world.uuids[here.start + gpu] for gpu in there}

    def faults_of(self, node: str) -> dict[int, str]:
        """What a device test would find on the node, by GPU."""
        here = self.layout.gpus_of_node(node)
        with self._lock:
            gpus, knobs = self._world.gpus, self._world.knobs
            found = (
                ("off the bus", knobs[Knob.LOST]),
                ("an NVLink is down", knobs[Knob.NVLINK_DOWN]),
                ("a row could not be remapped", gpus.remap_failed),
                ("a row awaits its remap", gpus.remap_pending),
                ("uncorrectable errors", gpus.dbe_volatile),
                ("the driver asks for a reset", gpus.recovery_action),
            )
            by_gpu: dict[int, str] = {}
            for what, values in found:
                for gpu in np.flatnonzero(values[here] > 0).tolist():
                    by_gpu.setdefault(gpu, what)
            return dict(sorted(by_gpu.items()))

    def set_idle(self, node: str, idle: bool) -> None:  # noqa: FBT001 - the name of the verb says what it means
        """Takes the work off a node, or gives it back its own training."""
        self.place_job(node, None if idle else f"train-{self.layout.node_index(node) + 1}")

    def place_job(self, node: str, job: str | None) -> None:
        """Makes `job` the work of a node, as the cluster's scheduler would; None leaves the node idle."""
        index = self.layout.node_index(node)
        with self._lock:
            self._rhythm.place(index, job)

    def read(self, node: str) -> NodeReading:
        index = self.layout.node_index(node)
        with self._lock:
            gpus = self.layout.gpus_of_node(node)
            knobs, now_s = self._world.knobs, self._world.now_s
            present = np.flatnonzero((knobs[Knob.LOST][gpus] <= 0) & (knobs[Knob.EXPORTER_EMPTY][index] <= 0))
            at = present + gpus.start
            shown = self._frozen.get(index)
            return NodeReading(
                node=node,
                model=self.layout.model,
                job=self._rhythm.jobs[index],
                exporter_up=bool(knobs[Knob.EXPORTER_DOWN][index] <= 0),
                gpus=tuple(present.tolist()),
                uuids=tuple(self._world.uuids[i] for i in at),
                state=self._world.gpus.pick(at) if shown is None else GpuState.of(shown[:, present]),
                hidden=tuple(one.on(gpus) for one in self._hidden if one.start_s <= now_s < one.end_s),
            )

    def page(self, job: str, place: int) -> str | None:
        """What another exporter than the GPUs' shows, by job and number of its node or rack; None for no answer."""
        with self._lock:
            return self._around.page(job, place)

    def rack_power_w(self) -> dict[str, float]:
        """What each rack's power distribution unit shows."""
        with self._lock:
            return dict(zip(self.layout.racks, self._world.power.rack_w.tolist(), strict=True))

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
                self._world.gpus.limit_w[index] = limit.limit_w
                self._limit_expires_s[index] = np.inf if limit.ttl_s is None else self.elapsed_s + limit.ttl_s
                self._fallback_w[index] = DEFAULT_LIMIT_W if limit.fallback_w is None else limit.fallback_w

    def _settable(self, node: str, limit: PowerLimit) -> int:
        index = self.layout.gpu_index(node, limit.gpu)
        who = f"{node} GPU {limit.gpu}"
        if self._world.knobs[Knob.LOST][index] > 0:
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
        now_s = self.elapsed_s + dt_s
        while self._pending and self._pending[0].at_s <= now_s:
            self._strike(self._pending.pop(0), at_s=now_s)
        expired = self._limit_expires_s <= now_s
        self._world.gpus.limit_w[expired] = self._fallback_w[expired]
        self._limit_expires_s[expired] = np.inf
        self._world.step(dt_s)
        self._freeze()

    def _freeze(self) -> None:
        """An exporter that is frozen shows what it showed when it froze."""
        frozen = set(np.flatnonzero(self._world.knobs[Knob.EXPORTER_FROZEN]).tolist())
        per_node = self.layout.gpus_per_node
        for node in frozen - self._frozen.keys():
            self._frozen[node] = self._world.gpus.matrix[:, node * per_node : (node + 1) * per_node].copy()
        self._frozen = {node: shown for node, shown in self._frozen.items() if node in frozen}

    def _checked(self, fault: Fault) -> Fault:
        wrong = objections(fault, self.layout)
        if wrong:
            text = "; ".join(f"{each.field}: {each.text}" + (f" ({each.hint})" if each.hint else "") for each in wrong)
            raise (NotFound if all(each.unknown for each in wrong) else Rejected)(COMPONENT, text)
        return fault

    def _strike(self, fault: Fault, at_s: float | None = None) -> None:
        happening = struck(fault, self._scene, at_s=self.elapsed_s if at_s is None else at_s, rng=self._luck)
        self._world.add(happening.effects, happening.marks)
        self._hidden += happening.hidden

    def _gang(self, gpu: int, _at_s: float) -> Gang | None:
        work = self._world.work
        job = work.jobs[gpu]
        return None if job is None else Gang(job, work.gang_of(gpu))
