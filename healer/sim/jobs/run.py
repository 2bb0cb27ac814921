"""Run: one job on its GPUs from start to end, phase by phase."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.sim.jobs.profile import JobKind, Profile, Writing


class PhaseKind(StrEnum):
    PULLING = "pulling the container"
    LOADING = "loading"
    COMPILING = "compiling"
    STEADY = "steady"
    CHECKPOINT = "checkpoint"
    EVALUATION = "evaluation"
    RESTING = "resting"  # a notebook whose person thinks


@dataclass(frozen=True, slots=True)
class Phase:
    kind: PhaseKind
    start_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Attributes:
    rank_work: (n_gpus,) see `work.Work`.
    tilt: (n_gpus,) by what factor each rank's activity is more or less than the profile's.
    attempt: 1 for the first; more after a crash.
    """

    job: str
    profile: Profile
    gpus: Ints
    start_s: float
    end_s: float
    phases: tuple[Phase, ...]
    rank_work: Floats
    tilt: Floats
    attempt: int = 1

    def phase(self, now_s: float) -> PhaseKind | None:
        """None before the start and after the end."""
        if not self.start_s <= now_s < self.end_s:
            return None
        return next(phase.kind for phase in reversed(self.phases) if phase.start_s <= now_s)


def built_run(
    job: str, profile: Profile, gpus: Ints, start_s: float, end_s: float, *, rng: np.random.Generator, attempt: int = 1
) -> Run:
    return Run(
        job=job,
        profile=profile,
        gpus=gpus,
        start_s=start_s,
        end_s=end_s,
        phases=tuple(_phases(profile, start_s, end_s, rng)),
        rank_work=profile.rank_work(len(gpus), rng),
        tilt=np.clip(rng.normal(1.0, 0.01, len(gpus)), 0.96, 1.04),
        attempt=attempt,
    )


def _phases(profile: Profile, start_s: float, end_s: float, rng: np.random.Generator) -> Iterator[Phase]:
    at_s = start_s
    for kind, lasts_s in zip(
        (PhaseKind.PULLING, PhaseKind.LOADING, PhaseKind.COMPILING), profile.start_up_s, strict=True
    ):
        yield Phase(kind, at_s)
        at_s += lasts_s
    yield Phase(PhaseKind.STEADY, at_s)
    if profile.kind is JobKind.NOTEBOOK:
        yield from _bursts(at_s, end_s, rng)
        return
    due = []
    for kind, habit in ((PhaseKind.CHECKPOINT, profile.checkpoint), (PhaseKind.EVALUATION, profile.evaluates)):
        if habit is not None:
            first_s = at_s + habit.every_s * rng.uniform(0.7, 1.1)
            due += [(at, kind, habit.lasts_s) for at in np.arange(first_s, end_s, habit.every_s)]
    for begins_s, kind, lasts_s in sorted(due):
        if begins_s > at_s:  # what would begin within another one is left out
            at_s = begins_s + lasts_s * rng.uniform(0.85, 1.3)
            yield Phase(kind, begins_s)
            yield Phase(PhaseKind.STEADY, at_s)


def _bursts(at_s: float, end_s: float, rng: np.random.Generator) -> Iterator[Phase]:
    while at_s < end_s:
        at_s += rng.exponential(120.0) + 10.0
        yield Phase(PhaseKind.RESTING, at_s)
        at_s += rng.exponential(900.0) + 30.0
        yield Phase(PhaseKind.STEADY, at_s)


def spins_meanwhile(run: Run, kind: PhaseKind) -> bool:
    """Whether most ranks spin in a collective in this phase."""
    if kind is PhaseKind.CHECKPOINT:
        return run.profile.writing is Writing.BARRIER
    return kind is PhaseKind.EVALUATION and run.profile.evaluates_on_one
