"""Playback: lets the runs of a schedule happen, phase by phase, by writing what they ask for into the world's work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.sim.activity import GB, RESTING, Activity, Row
from healer.sim.jobs.profile import JobKind
from healer.sim.jobs.run import PhaseKind, Run, spins_meanwhile
from healer.sim.work import Work

_DAY_S = 86_400.0
_DEMAND_TAU_S = 300.0
_LOADING = Activity(0.04, 0.02, 0.0, 0.02, 0.03, pcie_sent=2e7, pcie_received=2.5 * GB)
_WRITING = Activity(0.06, 0.01, 0.0, 0.02, 0.02, pcie_sent=3.0 * GB, pcie_received=2e7)


class Playback:
    """Args:
    peak_s: at what time of the simulation inference has most to do.
    """

    def __init__(self, runs: Sequence[Run], *, gpus_per_node: int, peak_s: float, rng: np.random.Generator) -> None:
        self._runs = runs
        self._per_node = gpus_per_node
        self._peak_s = peak_s
        self._rng = rng
        self._turns = _turns(runs)
        self._next = 0
        self._serving: dict[int, Run] = {}
        self._demand: Floats = np.zeros(0)
        self._rows: Ints = np.empty(0, dtype=np.int64)
        self._full: Floats = np.zeros((len(Row), 0))
        self._at_s = -math.inf

    def drive(self, now_s: float, work: Work) -> None:
        while self._next < len(self._turns) and self._turns[self._next][0] <= now_s:
            at_s, number, place = self._turns[self._next]
            self._next += 1
            run = self._runs[number]
            if place == len(run.phases):
                self._leave(number, run, work)
            elif self._is_over(at_s, number, place, now_s):
                continue  # only the newest phase counts, when the world begins in the middle of a run
            else:
                self._enter(number, run, run.phases[place].kind, work)
        self._serve(now_s, work)

    def _is_over(self, at_s: float, number: int, place: int, now_s: float) -> bool:
        phases = self._runs[number].phases
        return at_s < 0 and place + 1 < len(phases) and phases[place + 1].start_s <= min(now_s, 0.0)

    def _enter(self, number: int, run: Run, kind: PhaseKind, work: Work) -> None:
        gpus, profile = run.gpus, run.profile
        work.seat(gpus, run.job)
        work.context[gpus] = kind is not PhaseKind.PULLING
        work.memory_mib[gpus] = profile.memory_mib * (0.3 if kind is PhaseKind.LOADING else 1.0) * run.tilt
        work.spin[:, gpus] = profile.spin.column()
        work.jitter[gpus] = profile.jitter
        steady = kind is PhaseKind.STEADY
        work.swing[gpus] = profile.swing if steady else 0.0
        work.moe[gpus] = profile.moe if steady else 0.0
        work.data_gap[gpus] = profile.data_gap if steady else 0.0
        work.rank_work[gpus] = run.rank_work if steady else 1.0
        work.active[:, gpus] = self._asked(run, kind) * run.tilt
        if steady and profile.synced and len(gpus) > 1:
            work.bind(gpus)
        else:
            work.unbind(gpus)
        if profile.kind is JobKind.INFERENCE and steady:
            self._serving[number] = run
            self._gather()

    def _asked(self, run: Run, kind: PhaseKind) -> Floats:
        """(n_rows, n_gpus of the run)"""
        ranks, profile, spins = len(run.gpus), run.profile, spins_meanwhile(run, kind)
        alike = {
            PhaseKind.PULLING: Activity(),
            PhaseKind.LOADING: _LOADING,
            PhaseKind.COMPILING: profile.active,
            PhaseKind.STEADY: profile.active,
            PhaseKind.RESTING: RESTING,
            PhaseKind.CHECKPOINT: profile.spin if spins else RESTING,
            PhaseKind.EVALUATION: profile.evaluation,
        }
        asked = alike[kind].column().repeat(ranks, axis=1)
        if kind is PhaseKind.COMPILING:
            asked *= self._rng.uniform(0.05, 0.4, ranks)
        if kind is PhaseKind.CHECKPOINT:
            asked[:, [0] if spins else list(range(0, ranks, self._per_node))] = _WRITING.column()
        if kind is PhaseKind.EVALUATION and spins:
            asked[:, self._per_node :] = profile.spin.column()
        return asked

    def _leave(self, number: int, run: Run, work: Work) -> None:
        gpus = run.gpus
        work.seat(gpus, None)
        work.context[gpus] = False
        work.active[:, gpus] = 0.0
        work.unbind(gpus)
        if self._serving.pop(number, None) is not None:
            self._gather()

    def _gather(self) -> None:
        """Which GPUs serve requests, and what each does when it has all that it can take."""
        parts = [run.gpus for run in self._serving.values()]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        known = dict(zip(self._rows.tolist(), self._demand.tolist(), strict=True))
        self._demand = np.array([known.get(gpu, 0.0) for gpu in rows.tolist()])
        columns = [run.profile.active.column() * run.tilt for run in self._serving.values()]
        self._full = np.concatenate(columns, axis=1) if columns else np.zeros((len(Row), 0))
        self._rows = rows

    def _serve(self, now_s: float, work: Work) -> None:
        """Requests follow the day; how they are spread over the GPUs wanders."""
        if not len(self._rows):
            return
        dt_s = min(max(now_s - self._at_s, 0.0), 3600.0)
        self._at_s = now_s
        kept = math.exp(-dt_s / _DEMAND_TAU_S)
        noise = self._rng.standard_normal(len(self._rows))
        self._demand = self._demand * kept + 0.35 * math.sqrt(1.0 - kept * kept) * noise
        day = 0.55 + 0.4 * math.cos(2 * math.pi * (now_s - self._peak_s) / _DAY_S)
        level = np.clip(day * np.exp(self._demand), 0.02, 1.0)
        work.active[:, self._rows] = self._full * level


def _turns(runs: Sequence[Run]) -> list[tuple[float, int, int]]:
    """Every beginning of a phase, and every end of a run, in order: (time, run, phase; one more than the last)."""
    turns = []
    for number, run in enumerate(runs):
        turns += [(phase.start_s, number, place) for place, phase in enumerate(run.phases) if phase.start_s < run.end_s]
        turns.append((run.end_s, number, len(run.phases)))
    # Of several at one time, ends come first: who comes next finds the GPUs free.
    return sorted(turns, key=lambda turn: (turn[0], turn[2] != len(runs[turn[1]].phases), turn[1]))
