"""Work: what each GPU of a fleet is asked to do, and how the ranks of a gang wait for each other.

A step of a gang takes as long as its slowest rank. Each rank's time has a share in which it works, a share in which its
GPU has nothing to do (its data is late), and the rest, in which it spins in a collective. So one slow rank shows as
more waiting on all others, and a rank that never arrives as nothing but waiting.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.sim.activity import RESTING, SPINNING, Activity, Row
from healer.sim.knobs import Knob, Knobs
from healer.sim.physics import Asked

_NEVER_S = 1e9  # in place of the time of a step that does not end
_SPEED_BY_CLOCK = 0.85
_SURGE = Activity(1.0, 0.9, 0.58, 0.5, 1.0, nvlink=2e9, pcie_sent=8e6, pcie_received=3e7)


class Hold(IntEnum):
    """Where a rank hangs. All but DEAD keep their memory."""

    NOWHERE = 0
    COLLECTIVE = 1  # it waits like everybody: what is broken is between the ranks
    PROCESSOR = 2  # its process does not come to launch anything: deadlock, garbage collection, storage
    DEAD = 3  # its process has gone
    KERNEL_SPIN = 4  # a kernel that never ends, on all SMs
    KERNEL_MEMORY = 5  # the same, and it moves memory
    KERNEL_NARROW = 6  # on one SM


_HELD = {
    Hold.PROCESSOR: RESTING,
    Hold.DEAD: Activity(),
    Hold.KERNEL_SPIN: Activity(1.0, 0.98, 0.0, 0.01, 0.42, pcie_sent=0.8e6, pcie_received=0.7e6),
    Hold.KERNEL_MEMORY: Activity(1.0, 0.85, 0.0, 0.55, 0.5, pcie_sent=0.8e6, pcie_received=0.7e6),
    Hold.KERNEL_NARROW: Activity(1.0, 0.012, 0.0, 0.002, 0.1, pcie_sent=0.8e6, pcie_received=0.7e6),
}


class Work:
    """What the GPUs are asked to do; whoever drives it writes into its arrays.

    Attributes:
        active: (n_rows, n_gpus) what each does while it works.
        spin: (n_rows, n_gpus) what each does while it waits.
        context: (n_gpus,) whether a process holds it.
        memory_mib: (n_gpus,)
        rank_work: (n_gpus,) how long its part of a step takes, against the longest of its gang, at full clocks.
        data_gap: (n_gpus,) for how long it has nothing to do in each step.
        moe: (n_gpus,) by how much `rank_work` varies from moment to moment.
        jitter: (n_gpus,) by how much its power does.
        swing: (n_gpus,) by how much its gang's power does.
        jobs: the job of each GPU; None for none.
        reseated: GPUs that have another job than before; whoever writes labels clears it.
    """

    def __init__(self, n_gpus: int) -> None:
        self.active: Floats = np.zeros((len(Row), n_gpus))
        self.spin: Floats = np.repeat(SPINNING.column(), n_gpus, axis=1)
        self.context: Bools = np.zeros(n_gpus, dtype=np.bool_)
        self.memory_mib: Floats = np.zeros(n_gpus)
        self.rank_work: Floats = np.ones(n_gpus)
        self.data_gap: Floats = np.zeros(n_gpus)
        self.moe: Floats = np.zeros(n_gpus)
        self.jitter: Floats = np.full(n_gpus, 0.02)
        self.swing: Floats = np.zeros(n_gpus)
        self.jobs: list[str | None] = [None] * n_gpus
        self.reseated: set[int] = set()
        self._gang: Ints = np.arange(n_gpus)
        self._order: Ints = np.arange(n_gpus)
        self._first: Ints = np.arange(n_gpus)
        self._group: Ints = np.arange(n_gpus)  # of each GPU, which entry of `_first`
        self._regrouped = True

    def seat(self, gpus: Ints, job: str | None) -> None:
        """Whose they are from now on."""
        changed = [gpu for gpu in gpus.tolist() if self.jobs[gpu] != job]
        for gpu in changed:
            self.jobs[gpu] = job
        self.reseated.update(changed)

    def bind(self, gpus: Ints) -> None:
        """From now on these wait for each other."""
        self._gang[gpus] = gpus[0]
        self._regrouped = False

    def unbind(self, gpus: Ints) -> None:
        """From now on each goes its own way."""
        self._gang[gpus] = gpus
        self._regrouped = False

    def gang_of(self, gpu: int) -> Ints:
        """The GPUs that wait for each other with this one, itself included."""
        return np.flatnonzero(self._gang == self._gang[gpu])

    def asked(self, knobs: Knobs, clock_share: Floats, rng: np.random.Generator) -> Asked:
        """What the silicon is asked for at this moment."""
        if not self._regrouped:
            self._regroup()
        noise = rng.standard_normal((2, len(self.context)))
        works, waits, pace = self._shares(knobs, clock_share, noise[0])
        activity = self.active * works
        activity[: Row.NVLINK] += self.spin[: Row.NVLINK] * waits
        activity[Row.NVLINK :] = self.active[Row.NVLINK :] * pace + self.spin[Row.NVLINK :] * waits
        context = self.context
        if knobs.is_turned(Knob.SPEED):  # it works as long as ever, and gets less done
            activity[Row.TENSOR] *= knobs[Knob.SPEED]
        if knobs.is_turned(Knob.HOLD):
            context = self._hold(activity, knobs)
        if knobs.is_turned(Knob.SURGE):
            surging = (knobs[Knob.SURGE] > 0) & context
            activity[:, surging] = np.maximum(activity[:, surging], _SURGE.column())
        if knobs.is_turned(Knob.IDLE) or knobs.is_turned(Knob.LOST):
            off = (knobs[Knob.IDLE] > 0) | (knobs[Knob.LOST] > 0)
            activity[:, off] = 0.0
            context = context & ~off
        together = noise[1][self._first[self._group]]
        swing = self.swing * np.clip(together, -2.0, 2.0) * np.minimum(works, 1.0)  # who waits, waits evenly
        return Asked(activity, context, self.jitter, swing, self.memory_mib)

    def _shares(self, knobs: Knobs, clock_share: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
        """(n_gpus,) each: how much of its time a GPU works and waits, and at what pace its gang goes."""
        work = self.rank_work * (1.0 + self.moe * np.clip(noise, -2.5, 2.5))
        work /= clock_share**_SPEED_BY_CLOCK * knobs[Knob.SPEED]
        took = work + self.data_gap + knobs[Knob.DATA_STALL]
        if knobs.is_turned(Knob.HOLD) or knobs.is_turned(Knob.LOST):
            stuck = ((knobs[Knob.HOLD] > 0) | (knobs[Knob.LOST] > 0)) & self.context
            took = np.where(stuck, _NEVER_S, took)
        step = np.maximum.reduceat(took[self._order], self._first)[self._group]
        works = work / step
        waits = np.maximum(0.0, (step - took) / step)
        return works, waits, np.minimum(1.0, 1.0 / step)

    def _hold(self, activity: Floats, knobs: Knobs) -> Bools:
        held = knobs[Knob.HOLD]
        context = self.context
        for code in np.unique(held[held > 0]).tolist():
            hold, there = Hold(int(code)), (held == code) & self.context
            if hold is Hold.COLLECTIVE:
                activity[:, there] = self.spin[:, there]
            else:
                activity[:, there] = _HELD[hold].column()
            if hold is Hold.DEAD:
                context = context & ~there
        return context

    def _regroup(self) -> None:
        self._order = np.argsort(self._gang, kind="stable")
        gangs = self._gang[self._order]
        begins = np.diff(gangs, prepend=-1) != 0
        self._first = np.flatnonzero(begins)
        self._group = np.empty(len(gangs), dtype=np.int64)
        self._group[self._order] = np.cumsum(begins) - 1
        self._regrouped = True
