"""Schedule: which jobs run where over a day, as a batch scheduler and its users would have it.

Gangs get whole nodes and start together; what is free earliest is used first, and stands idle until enough is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from healer.domain.axes import Ints
from healer.sim.jobs.profile import JobKind, drawn_profile
from healer.sim.jobs.run import Phase, PhaseKind, Run, built_run
from healer.sim.layout import Layout
from healer.sim.strikes.blow import Gang, Interruption

_GANGS = (JobKind.DENSE, JobKind.DENSE, JobKind.TALKATIVE, JobKind.TALKATIVE, JobKind.PIPELINE, JobKind.EXPERTS)
_SINGLES = (JobKind.FINE_TUNING, JobKind.FINE_TUNING, JobKind.SMALL, JobKind.PREPROCESSING, JobKind.PINNED)
_PARTS = (JobKind.NOTEBOOK, JobKind.SMALL, JobKind.FINE_TUNING, JobKind.PREPROCESSING, JobKind.PINNED)
_MODELS = ("llama", "mixtral", "qwen", "vit", "esm", "whisper", "dit", "gpt", "t5", "graphcast")
_SHORTEST_S = 120.0
_BEFORE_S = 6 * 3600.0  # the day begins in the middle of what runs


@dataclass(frozen=True, slots=True)
class Mix:
    """Attributes:
    serving, shared, singles: shares of the nodes that serve requests, are given out by the GPU, or run jobs of one
        node; the rest runs gangs.
    largest_gang: nodes.
    gap_s: how long a node is free between two jobs, on average.
    numbered: whether jobs are known by numbers, as Slurm's are.
    """

    serving: float = 0.12
    shared: float = 0.08
    singles: float = 0.2
    largest_gang: int = 8
    gap_s: float = 900.0
    numbered: bool = False


def drawn_mix(rng: np.random.Generator, *, largest_gang: int) -> Mix:
    return Mix(
        serving=float(rng.choice([0.0, 0.1, 0.15, 0.3])),
        shared=float(rng.choice([0.0, 0.06, 0.12])),
        singles=float(rng.choice([0.1, 0.2, 0.4])),
        largest_gang=largest_gang,
        gap_s=rng.uniform(120.0, 2400.0),
        numbered=bool(rng.random() < 0.4),
    )


def scheduled(layout: Layout, mix: Mix, duration_s: float, rng: np.random.Generator) -> tuple[Run, ...]:
    """All runs that are under way at some time from 0 to `duration_s`."""
    nodes = len(layout.nodes)
    names = _names(mix, rng)
    # Pools are neighbours, and begin anywhere.
    order = (np.arange(nodes) + rng.integers(nodes)) % nodes
    sizes = [round(nodes * share) for share in (mix.serving, mix.shared, mix.singles)]
    serving, shared, singles, gangs = np.split(order, np.cumsum(sizes))
    runs: list[Run] = []
    booking = _Booking(layout, mix, duration_s, rng, names)
    runs += booking.whole_nodes(gangs, _GANGS, largest=mix.largest_gang)
    runs += booking.whole_nodes(singles, _SINGLES, largest=1)
    runs += booking.served(serving)
    runs += booking.by_gpu(shared)
    return tuple(sorted((run for run in runs if run.end_s > 0), key=lambda run: run.start_s))


@dataclass(frozen=True, slots=True)
class _Booking:
    layout: Layout
    mix: Mix
    duration_s: float
    rng: np.random.Generator
    names: Iterator[str]

    def whole_nodes(self, pool: Ints, kinds: Sequence[JobKind], *, largest: int) -> Iterator[Run]:
        free_s = {node: -_BEFORE_S * self.rng.random() for node in pool.tolist()}
        while free_s and min(free_s.values()) < self.duration_s:
            wanted = min(len(free_s), self._size(largest))
            chosen = sorted(sorted(free_s, key=lambda node: (free_s[node], node))[:wanted])
            start_s = max(free_s[node] for node in chosen) + self.rng.exponential(self.mix.gap_s)
            end_s = start_s + self._lasts_s()
            if end_s > 0:
                yield self._run(kinds[int(self.rng.integers(len(kinds)))], self._gpus(chosen), start_s, end_s)
            for node in chosen:
                free_s[node] = end_s

    def served(self, pool: Ints) -> Iterator[Run]:
        """Services that stay; one or two nodes each, and now and then a new version of one."""
        at = 0
        while at < len(pool):
            size = int(self.rng.integers(1, 3))
            gpus = self._gpus(sorted(pool[at : at + size].tolist()))
            at += size
            renewed_s = self.rng.uniform(0.2, 3.0) * self.duration_s
            yield self._run(JobKind.INFERENCE, gpus, -_BEFORE_S, min(renewed_s, self.duration_s))
            if renewed_s < self.duration_s:
                yield self._run(JobKind.INFERENCE, gpus, renewed_s + 60.0, self.duration_s)

    def by_gpu(self, pool: Ints) -> Iterator[Run]:
        for node in pool.tolist():
            for gpu in self._gpus([node]).tolist():
                at_s = -_BEFORE_S * self.rng.random()
                while at_s < self.duration_s:
                    at_s += self.rng.exponential(1.5 * self.mix.gap_s)
                    end_s = at_s + 0.5 * self._lasts_s()
                    if end_s > 0:
                        kind = _PARTS[int(self.rng.integers(len(_PARTS)))]
                        yield self._run(kind, np.array([gpu]), at_s, end_s)
                    at_s = end_s

    def _size(self, largest: int) -> int:
        """Small gangs are common, and most sizes are powers of two."""
        size = 2 ** int(self.rng.integers(0, max(1, int(np.log2(largest)) + 1)))
        return min(largest, size if self.rng.random() < 0.8 else int(self.rng.integers(1, largest + 1)))

    def _lasts_s(self) -> float:
        """From minutes to days."""
        return float(np.clip(np.exp(self.rng.normal(np.log(3.5 * 3600.0), 1.4)), 240.0, 4 * 86_400.0))

    def _gpus(self, nodes: Sequence[int]) -> Ints:
        per_node = self.layout.gpus_per_node
        return (np.array(nodes)[:, None] * per_node + np.arange(per_node)).ravel()

    def _run(self, kind: JobKind, gpus: Ints, start_s: float, end_s: float) -> Run:
        return built_run(next(self.names), drawn_profile(kind, self.rng), gpus, start_s, end_s, rng=self.rng)


def gang_at(runs: Sequence[Run], gpu: int, at_s: float) -> Gang | None:
    """The gang that has the GPU then."""
    run = run_at(runs, gpu, at_s)
    return None if run is None else Gang(run.job, run.gpus if run.profile.synced else np.array([gpu]))


def run_at(runs: Sequence[Run], gpu: int, at_s: float) -> Run | None:
    return next((run for run in runs if run.start_s <= at_s < run.end_s and gpu in run.gpus), None)


def interrupted(
    runs: Sequence[Run], cut: Interruption, *, gpus_per_node: int, rng: np.random.Generator
) -> tuple[Run, ...]:
    """The schedule with a run cut short, and begun again where that is told and there is somewhere left."""
    found: list[Run] = []
    for run in runs:
        if run.job != cut.gang.job or not run.start_s <= cut.stuck_s < run.end_s or cut.gang.gpus[0] not in run.gpus:
            found.append(run)
            continue
        found.append(_stopped(run, cut.stuck_s, min(run.end_s, cut.killed_s)))
        left = run.gpus[~np.isin(run.gpus // gpus_per_node, cut.without)]
        if len(left) and cut.back_s + _SHORTEST_S < run.end_s:
            attempt = run.attempt + 1
            found.append(built_run(run.job, run.profile, left, cut.back_s, run.end_s, rng=rng, attempt=attempt))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Absence:
    """Nodes on which nothing may run for a while; the jobs in `spare` are dealt with by somebody else."""

    nodes: tuple[int, ...]
    from_s: float
    until_s: float
    spare: tuple[str, ...] = ()


def kept_off(runs: Sequence[Run], absence: Absence, *, gpus_per_node: int, rng: np.random.Generator) -> tuple[Run, ...]:
    """With what runs there moved: gangs go on with fewer nodes, the rest waits until the nodes are back."""
    from_s, until_s = absence.from_s, absence.until_s
    found: list[Run] = []
    for run in runs:
        there = np.isin(run.gpus // gpus_per_node, absence.nodes)
        untouched = run.end_s <= from_s or run.start_s >= until_s or run.job in absence.spare
        if untouched or not there.any():
            found.append(run)
            continue
        if run.start_s < from_s:
            found.append(_ended(run, from_s))
        left = run.gpus[~there]
        soon_s, later_s = max(run.start_s, from_s + rng.uniform(60.0, 600.0)), until_s + rng.uniform(30.0, 300.0)
        again_s = soon_s if len(left) else later_s
        if again_s + _SHORTEST_S < run.end_s:
            gpus = left if len(left) else run.gpus
            found.append(built_run(run.job, run.profile, gpus, again_s, run.end_s, rng=rng, attempt=run.attempt + 1))
    return tuple(found)


def _ended(run: Run, end_s: float) -> Run:
    return replace(run, end_s=end_s, phases=tuple(phase for phase in run.phases if phase.start_s < end_s))


def _stopped(run: Run, stuck_s: float, end_s: float) -> Run:
    """It was at work, goes no further, and is ended."""
    phases = tuple(phase for phase in run.phases if phase.start_s < stuck_s)
    if phases and phases[-1].kind is not PhaseKind.STEADY:
        phases = (*phases, Phase(PhaseKind.STEADY, stuck_s))
    return replace(run, end_s=end_s, phases=phases)


def _names(mix: Mix, rng: np.random.Generator) -> Iterator[str]:
    number = int(rng.integers(10_000, 900_000))
    while True:
        number += int(rng.integers(1, 9))
        yield str(number) if mix.numbered else f"{_MODELS[int(rng.integers(len(_MODELS)))]}-{number}"
