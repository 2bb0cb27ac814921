"""Profile: how one job uses its GPUs, drawn for its kind. No two jobs are alike, and few are as in the textbook.

Figures are those of measured runs: dense training at the power limit has SMs active .87, tensor pipes .58, memory .37;
a training that communicates more has .63, .19 and .32 at 540 W; small batches leave a GPU at 180 W on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from healer.domain.axes import Floats
from healer.sim.activity import GB, MB, SPINNING, Activity
from healer.sim.physics import FRAMEBUFFER_MIB


class JobKind(StrEnum):
    DENSE = "dense pre-training"
    TALKATIVE = "training that communicates much"
    PIPELINE = "pipeline-parallel training"
    EXPERTS = "mixture of experts"
    FINE_TUNING = "fine-tuning"
    SMALL = "small batches"
    INFERENCE = "inference"
    NOTEBOOK = "notebook"
    PREPROCESSING = "preprocessing"
    PINNED = "busy without tensor pipes"


class Writing(StrEnum):
    """How a checkpoint is written."""

    IDLE = "all wait on their processors"
    BARRIER = "one writes, all others spin"


@dataclass(frozen=True, slots=True)
class Habit:
    """Something that a job does again and again."""

    every_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Attributes:
    active, spin, evaluation: what a rank does while it works, waits, evaluates.
    synced: whether its ranks wait for each other.
    swing: by how much power and activity are above or below the mean with the whole gang, from moment to moment; much
        where a step lasts longer than a look at it.
    jitter, moe, data_gap: see `work.Work`.
    stages: into how many groups of ranks it is cut that do not have the same to do.
    memory_mib: of each GPU.
    start_up_s: pulling the container, loading, compiling.
    evaluates_on_one: whether only the first node evaluates, and the others wait.
    """

    kind: JobKind
    active: Activity
    spin: Activity
    evaluation: Activity
    synced: bool
    swing: float
    jitter: float
    moe: float
    data_gap: float
    stages: int
    memory_mib: float
    start_up_s: tuple[float, float, float]
    checkpoint: Habit | None = None
    writing: Writing = Writing.IDLE
    evaluates: Habit | None = None
    evaluates_on_one: bool = False

    def rank_work(self, ranks: int, rng: np.random.Generator) -> Floats:
        """(ranks,) how long each rank's part of a step takes, against the longest."""
        own = 1.0 - np.abs(rng.normal(0.0, 0.008, ranks))
        if self.stages > 1:
            stage = np.arange(ranks) * self.stages // ranks
            own *= rng.uniform(0.72, 1.0, self.stages)[stage]
        work: Floats = own / own.max()
        return work


def drawn_profile(kind: JobKind, rng: np.random.Generator) -> Profile:
    return _KINDS[kind](rng)


def _base(kind: JobKind, active: Activity, rng: np.random.Generator, **changes: object) -> Profile:
    spin_power = rng.uniform(0.15, 0.32)
    drawn = Profile(
        kind=kind,
        active=active,
        spin=replace(SPINNING, sm=rng.uniform(0.02, 0.14), power=spin_power, dram=rng.uniform(0.001, 0.012)),
        evaluation=_forward_only(active, rng),
        synced=True,
        swing=float(rng.choice([0.01, 0.02, 0.04, 0.1, 0.25])),
        jitter=rng.uniform(0.004, 0.02),
        moe=rng.uniform(0.0, 0.01),
        data_gap=0.0,
        stages=1,
        memory_mib=rng.uniform(0.5, 0.97) * FRAMEBUFFER_MIB,
        start_up_s=(rng.uniform(10.0, 120.0), rng.uniform(20.0, 300.0), rng.uniform(10.0, 300.0)),
    )
    return replace(drawn, **changes)  # type: ignore[arg-type]


def _forward_only(active: Activity, rng: np.random.Generator) -> Activity:
    share = rng.uniform(0.5, 0.85)
    return replace(
        active,
        sm=active.sm * share,
        tensor=active.tensor * share,
        power=active.power * share,
        nvlink=active.nvlink * 0.5,
        fabric=active.fabric * 0.1,
    )


def _saves(rng: np.random.Generator) -> dict[str, object]:
    """How most trainings save and evaluate."""
    every_s = rng.uniform(600.0, 5400.0)
    evaluates = Habit(rng.uniform(3600.0, 14_400.0), rng.uniform(60.0, 360.0)) if rng.random() < 0.5 else None
    return {
        "checkpoint": Habit(every_s, min(float(np.exp(rng.uniform(np.log(10.0), np.log(240.0)))), 0.15 * every_s)),
        "writing": Writing(rng.choice(list(Writing))),
        "evaluates": evaluates,
        "evaluates_on_one": bool(rng.random() < 0.35),
    }


def _dense(rng: np.random.Generator, kind: JobKind = JobKind.DENSE) -> Profile:
    active = Activity(
        rng.uniform(0.97, 1.0),
        rng.uniform(0.78, 0.9),
        rng.uniform(0.4, 0.6),
        rng.uniform(0.31, 0.4),
        rng.uniform(0.9, 1.08),
        nvlink=rng.uniform(1.0, 6.0) * GB,
        pcie_sent=rng.uniform(5.0, 15.0) * MB,
        pcie_received=rng.uniform(20.0, 60.0) * MB,
        fabric=rng.uniform(0.4, 6.0) * GB,
    )
    return _base(kind, active, rng, **_saves(rng))


def _talkative(rng: np.random.Generator, kind: JobKind = JobKind.TALKATIVE) -> Profile:
    active = Activity(
        rng.uniform(0.8, 0.95),
        rng.uniform(0.6, 0.72),
        rng.uniform(0.17, 0.34),
        rng.uniform(0.28, 0.36),
        rng.uniform(0.66, 0.84),
        nvlink=rng.uniform(6.0, 10.0) * GB,
        pcie_sent=rng.uniform(8.0, 20.0) * MB,
        pcie_received=rng.uniform(50.0, 100.0) * MB,
        fabric=rng.uniform(2.0, 12.0) * GB,
    )
    return _base(kind, active, rng, **_saves(rng))


def _pipeline(rng: np.random.Generator) -> Profile:
    return replace(_dense(rng, JobKind.PIPELINE), stages=int(rng.choice([2, 4, 4, 8])), data_gap=rng.uniform(0.0, 0.08))


def _experts(rng: np.random.Generator) -> Profile:
    return replace(_talkative(rng, JobKind.EXPERTS), moe=rng.uniform(0.02, 0.08))


def _fine_tuning(rng: np.random.Generator) -> Profile:
    active = Activity(
        rng.uniform(0.7, 0.98),
        rng.uniform(0.45, 0.8),
        rng.uniform(0.15, 0.45),
        rng.uniform(0.2, 0.4),
        rng.uniform(0.5, 0.9),
        nvlink=rng.uniform(0.5, 5.0) * GB,
        pcie_sent=rng.uniform(5.0, 50.0) * MB,
        pcie_received=rng.uniform(20.0, 200.0) * MB,
        fabric=rng.uniform(0.1, 2.0) * GB,
    )
    return _base(JobKind.FINE_TUNING, active, rng, data_gap=rng.uniform(0.0, 0.1), **_saves(rng))


def _small(rng: np.random.Generator) -> Profile:
    active = Activity(
        rng.uniform(0.12, 0.4),
        rng.uniform(0.08, 0.25),
        rng.uniform(0.02, 0.1),
        rng.uniform(0.03, 0.12),
        rng.uniform(0.1, 0.32),
        nvlink=rng.uniform(0.1, 5.0) * GB,
        pcie_sent=rng.uniform(10.0, 600.0) * MB,
        pcie_received=rng.uniform(30.0, 1400.0) * MB,
    )
    swing = rng.uniform(0.3, 0.6)
    return _base(JobKind.SMALL, active, rng, swing=swing, synced=bool(rng.random() < 0.5), **_saves(rng))


def _inference(rng: np.random.Generator) -> Profile:
    active = Activity(
        rng.uniform(0.6, 1.0),
        rng.uniform(0.2, 0.55),
        rng.uniform(0.02, 0.18),
        rng.uniform(0.14, 0.65),
        rng.uniform(0.16, 0.6),
        nvlink=rng.uniform(0.0, 3.0) * GB,
        pcie_sent=rng.uniform(5.0, 50.0) * MB,
        pcie_received=rng.uniform(30.0, 400.0) * MB,
    )
    memory = rng.uniform(0.85, 0.96) * FRAMEBUFFER_MIB
    return _base(JobKind.INFERENCE, active, rng, synced=False, jitter=rng.uniform(0.02, 0.06), memory_mib=memory)


def _notebook(rng: np.random.Generator) -> Profile:
    active = Activity(
        rng.uniform(0.2, 1.0),
        rng.uniform(0.1, 0.7),
        rng.uniform(0.0, 0.3),
        rng.uniform(0.05, 0.4),
        rng.uniform(0.1, 0.7),
        pcie_received=rng.uniform(1.0, 900.0) * MB,
    )
    start_up_s = (rng.uniform(5.0, 60.0), rng.uniform(5.0, 60.0), 1.0)
    memory = rng.uniform(0.02, 0.7) * FRAMEBUFFER_MIB
    return _base(JobKind.NOTEBOOK, active, rng, synced=False, start_up_s=start_up_s, memory_mib=memory)


def _preprocessing(rng: np.random.Generator) -> Profile:
    active = Activity(
        rng.uniform(0.1, 0.5),
        rng.uniform(0.05, 0.3),
        0.0,
        rng.uniform(0.05, 0.3),
        rng.uniform(0.06, 0.3),
        pcie_sent=rng.uniform(0.3, 5.0) * GB,
        pcie_received=rng.uniform(1.0, 15.0) * GB,
    )
    return _base(JobKind.PREPROCESSING, active, rng, synced=False, swing=0.0, jitter=rng.uniform(0.02, 0.08))


def _pinned(rng: np.random.Generator) -> Profile:
    """Double precision, rendering, hashing: all SMs busy, the tensor pipes never."""
    active = Activity(
        1.0,
        rng.uniform(0.93, 1.0),
        0.0,
        rng.uniform(0.0, 0.5),
        rng.uniform(0.55, 1.0),
        pcie_sent=rng.uniform(0.5, 5.0) * MB,
        pcie_received=rng.uniform(0.5, 5.0) * MB,
    )
    return _base(JobKind.PINNED, active, rng, synced=False, swing=0.0, jitter=rng.uniform(0.001, 0.01))


_KINDS: Mapping[JobKind, Callable[[np.random.Generator], Profile]] = {
    JobKind.DENSE: _dense,
    JobKind.TALKATIVE: _talkative,
    JobKind.PIPELINE: _pipeline,
    JobKind.EXPERTS: _experts,
    JobKind.FINE_TUNING: _fine_tuning,
    JobKind.SMALL: _small,
    JobKind.INFERENCE: _inference,
    JobKind.NOTEBOOK: _notebook,
    JobKind.PREPROCESSING: _preprocessing,
    JobKind.PINNED: _pinned,
}
