"""The demo's work: one training on each node, breathing in a slow wave, with a checkpoint every few minutes."""

from __future__ import annotations

import numpy as np

from healer.domain.axes import Floats
from healer.sim.activity import Activity
from healer.sim.layout import Layout
from healer.sim.physics import FRAMEBUFFER_MIB
from healer.sim.work import Work

_FULL = Activity(1.35, 0.95, 0.62, 0.55, 1.0, nvlink=8e9, pcie_sent=1.2e7, pcie_received=7e7)
_CHECKPOINT_S = 12.0
_CHECKPOINT_LOAD = 0.2


class Rhythm:
    """Attributes:
    jobs: by node; None for a node that is idle.
    """

    def __init__(self, layout: Layout, rng: np.random.Generator) -> None:
        nodes = len(layout.nodes)
        self.jobs: list[str | None] = [f"train-{number}" for number in range(1, nodes + 1)]
        self._layout = layout
        self._checkpoint_every_s: Floats = rng.uniform(180.0, 420.0, nodes)
        self._base: Floats = rng.uniform(0.66, 0.76, nodes)
        self._wave_s: Floats = rng.uniform(60.0, 140.0, nodes)
        self._offset_s: Floats = rng.uniform(0.0, self._checkpoint_every_s)
        self._memory_mib = rng.uniform(0.86, 0.93, layout.n_gpus) * FRAMEBUFFER_MIB
        self._changed = set(range(nodes))

    def place(self, node: int, job: str | None) -> None:
        if self.jobs[node] != job:
            self.jobs[node] = job
            self._changed.add(node)

    def drive(self, now_s: float, work: Work) -> None:
        for node in sorted(self._changed):
            self._seat(node, work)
        self._changed.clear()
        load = self._load(now_s) * [job is not None for job in self.jobs]
        work.active[:] = _FULL.column() * load.repeat(self._layout.gpus_per_node)

    def _seat(self, node: int, work: Work) -> None:
        gpus = np.arange(node * self._layout.gpus_per_node, (node + 1) * self._layout.gpus_per_node)
        job = self.jobs[node]
        work.context[gpus] = job is not None
        work.memory_mib[gpus] = self._memory_mib[gpus]
        work.jitter[gpus] = 0.024
        work.seat(gpus, job)
        if job is None:
            work.unbind(gpus)
        else:
            work.bind(gpus)

    def _load(self, now_s: float) -> Floats:
        """(n_nodes,)"""
        at = now_s + self._offset_s
        wave = self._base + 0.05 * np.sin(2 * np.pi * at / self._wave_s)
        return np.where(at % self._checkpoint_every_s < _CHECKPOINT_S, _CHECKPOINT_LOAD, wave)
