"""One rank that slows its gang.

Mechanism: in synchronous training all ranks wait for the last one at every step. A slow rank (a data loader that
starves, a processor shared with somebody else, retries in memory or on a link) makes all of them slow: the gang does
less in the same time, and the slow rank is the one that does not wait. Which way it differs depends on what ails it,
so it is looked for in every direction: in activity, memory traffic, power and clock, each against its own share of the
gang in the hours before, and in every quarter of the last ten minutes: a rank that writes a checkpoint, or evaluates
while the others wait, is done sooner. Where all ranks of a node differ alike, it is the node. Ranks of a pipeline
differ for all their lives and are not meant.
Source: recorded step times of distributed jobs (alibaba cluster-trace-gpu-v2020): against peers alone the healthy ones
alarm, too; against peers and the own past one worker that is 5 % slow is found two times in three. NVRx calls a rank a
straggler below 0.75 of the others, DLRover above twice their time.
Cost of a false positive: a gang restarted without a node that was sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import numpy as np

from healer.sdk import (
    Basis,
    Bools,
    Component,
    ComponentKind,
    FailureMode,
    Findings,
    Floats,
    Frame,
    GroupAxis,
    Health,
    Ints,
    Said,
    Signal,
    Singles,
    evidence,
    findings,
)

MODES = (FailureMode.JOB_STRAGGLER,)
_COMPARED = (
    Signal.TENSOR_ACTIVE,
    Signal.SM_ACTIVE,
    Signal.DRAM_ACTIVE,
    Signal.POWER,
    Signal.SM_CLOCK,
    Signal.UTILIZATION,
)
# What tells how much a gang does, the best first: what it is at rest, and the least by which it is more at work.
_WORK = {
    Signal.TENSOR_ACTIVE: (0.0, 0.03),
    Signal.DRAM_ACTIVE: (0.0, 0.03),
    Signal.NVLINK_THROUGHPUT: (0.0, 2e8),
    Signal.POWER: (110.0, 60.0),
}
READS = (*_COMPARED, Signal.NVLINK_THROUGHPUT, Signal.POWER_LIMIT, Signal.CLOCK_REASONS)
REMEMBERS = (*_COMPARED, Signal.NVLINK_THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    slower: the gang does less than before by this share, ...
    deviations: ... and one rank, or one node, has moved away from the others by so many times their own scatter, ...
    alone: ... which is so many times what the next one has, ...
    explains: ... and by this share of what the gang has lost, or more.
    """

    slower: float = 0.04
    deviations: float = 6.0
    alone: float = 1.6
    explains: float = 0.3


_NOW = timedelta(minutes=10)
_PARTS = 4  # of the last minutes, in each of which it must be so
_STARTS_UP = timedelta(minutes=15)  # a job's first minutes are no measure of it
_FEWEST_SLOTS = 4
_CAPPED = 0.97
_GIVES_WAY, _STILL = 0.99, 0.01  # a clock that is held moves less than this, about one step
_FEWEST_RANKS = 4
_FEWEST_NODES = 3  # to tell which one has moved; of two, what they do has to tell it
_MOST_WORK = 0.75  # of the last minutes: a gang that pauses is not slow
_MIDDLE = (15.0, 85.0)  # percentiles, between which lies what ranks do that are not to blame
_USUAL = (3.0, 97.0)  # percentiles
# Chips differ in how they give way when the power is short: so many times as much has to be seen of these.
_OF_THE_CHIP = {Signal.POWER: 1.5, Signal.SM_CLOCK: 1.5}
_HALF = 0.5
_FLOOR = 0.005  # scatter is never taken for less than this share of the gang's level


def detect(frame: Frame, settings: Settings) -> Findings:
    health = np.full(len(frame.jobs), Health.UNKNOWN, dtype=np.int8)
    found: dict[int, _Found] = {}
    covered = -frame.times[0] >= 0.9 * _NOW.total_seconds() if len(frame.times) else False
    measured = _measured(frame, _held_s(frame))
    wanted = (frame.jobs.sizes >= _FEWEST_RANKS) & (measured.sum(axis=0) >= _FEWEST_SLOTS)
    for work in _WORK if covered else ():
        rows, paces = _paces(frame, work, wanted & (health == Health.UNKNOWN), measured)
        health[rows] = Health.HEALTHY
        for row, pace in zip(rows.tolist(), paces.tolist(), strict=True):
            if pace > 1.0 - settings.slower:
                continue
            suspect = _Gang(frame, row, work, pace).suspect(settings)
            if suspect is not None:
                found[row] = suspect
                health[row] = Health.DEGRADED

    def describe(row: int) -> Said:
        who = found[row]
        reason = (
            f"the gang does {1.0 - who.pace:.0%} less than in the hours before, and {who.culprit} has moved away from "
            f"the other ranks in {who.signal}, by {who.deviations:.0f} times their scatter"
        )
        score = who.deviations / (who.deviations + settings.deviations)
        told = evidence(frame, *_COMPARED, row=who.row, note=str(frame.gpus.components[who.row]))
        return Said(reason, told, score=score, culprit=who.culprit)

    return findings(MODES[0], ComponentKind.JOB, health, frame.jobs.components, describe, basis=Basis.LEARNT)


def _held_s(frame: Frame) -> Floats:
    """(n_jobs,) for how many seconds all its GPUs have had each."""
    held_s, there = np.full(len(frame.jobs), np.inf), frame.jobs.of_gpu >= 0
    np.minimum.at(held_s, frame.jobs.of_gpu[there], frame.held_s[there])
    return held_s


def _paces(frame: Frame, work: Signal, wanted: Bools, measured: Bools) -> tuple[Ints, Floats]:
    """(m,) the rows of those of the `wanted` jobs (n_jobs,) of which it can be said how much they do, and how much that
    is against the hours before.

    Args:
        measured: (n_slots, n_jobs) which slots tell that.
    """
    jobs, slots, (rest, least) = frame.jobs, frame.past.mean(work), _WORK[work]
    none = np.empty(0, dtype=np.int64), np.empty(0)
    if work not in frame.signals or len(slots) < _FEWEST_SLOTS or not wanted.any():
        return none
    seen = jobs.count(frame.current & ~np.isnan(frame.latest(work)))
    rows = np.flatnonzero(wanted & (seen == jobs.sizes))
    if not len(rows):
        return none
    gangs = _Gangs.of(jobs, rows)
    past = np.where(measured[:, rows], gangs.means(slots) - rest, np.nan)
    window = gangs.means(frame.window(work, _NOW)) - rest
    level, known = _medians(past), (~np.isnan(past)).sum(axis=0)
    judged = (known >= _FEWEST_SLOTS) & (level > least) & ((window > 0.5 * level).mean(axis=0) >= _MOST_WORK)
    return rows[judged], _medians(window)[judged] / level[judged]


@dataclass(frozen=True, slots=True, eq=False)
class _Gangs:
    """The ranks of some jobs, one job after the other.

    Attributes:
        gpus: (n_ranks,) their rows.
        first: (n_gangs,) where in `gpus` each begins.
    """

    gpus: Ints
    first: Ints

    @classmethod
    def of(cls, jobs: GroupAxis, rows: Ints) -> _Gangs:
        """Args:
        rows: (n_gangs,) ascending, of jobs that have GPUs.
        """
        wanted = np.zeros(len(jobs) + 1, dtype=np.bool_)  # the last stands for none
        wanted[rows] = True
        gpus = np.flatnonzero(wanted[jobs.of_gpu])
        gpus = gpus[np.argsort(jobs.of_gpu[gpus], kind="stable")]
        sizes = jobs.sizes[rows]
        return cls(gpus, np.cumsum(sizes) - sizes)

    def means(self, values: Floats | Singles) -> Floats:
        """(m, n_gangs) of the known `values` (m, n_gpus); NaN where none is known."""
        means = np.full((len(values), len(self.first)), np.nan)
        for number, row in enumerate(values):
            of_ranks = row[self.gpus].astype(np.float64)
            known = ~np.isnan(of_ranks)
            of_ranks[~known] = 0.0
            sums, counts = (np.add.reduceat(each, self.first) for each in (of_ranks, known.astype(np.int64)))
            np.divide(sums, counts, out=means[number], where=counts > 0)
        return means


def _measured(frame: Frame, held_s: Floats) -> Bools:
    """(n_slots, n) which slots tell how a job is that all its GPUs have had for `held_s`."""
    began_s = frame.at.timestamp() - held_s + _STARTS_UP.total_seconds()
    measured: Bools = frame.past.times_s[:, None] - frame.past.slot.total_seconds() >= began_s[None, :]
    return measured


def _medians(values: Floats) -> Floats:
    """(n,) of the known of `values` (m, n), NaN where there is none."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    ordered, known = np.sort(values, axis=0), np.count_nonzero(~np.isnan(values), axis=0)  # NaN comes last
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, len(values) - 1)
    column = np.arange(values.shape[1])
    medians: Floats = 0.5 * (ordered[low, column] + ordered[high, column])
    return medians


@dataclass(frozen=True, slots=True)
class _Found:
    """Attributes:
    row: of the GPU to show.
    """

    culprit: Component
    row: int
    signal: Signal
    deviations: float
    pace: float


@dataclass(frozen=True, slots=True)
class _Moved:
    """How the ranks of a gang have moved in one signal, against the hours before.

    Attributes:
        by: (_PARTS, n_ranks) against the median of the gang's past.
        usual: (n_ranks,) whether the mean of all of it, or half of its parts, is what the rank, against the gang, was
            before now and then: whose past has pauses of its own has no one place that is usual.
        past: (n_slots, n_ranks)
        floor: less than which is nothing in this signal.
        least: what would be a part of the gang's loss.
    """

    by: Floats
    usual: Bools
    past: Floats
    floor: float
    least: float


class _Gang:
    def __init__(self, frame: Frame, row: int, work: Signal, pace: float) -> None:
        self.frame = frame
        self.pace = pace
        self.rows = frame.jobs.members(row)
        self.nodes = frame.nodes.groups.of_gpu[self.rows]
        level = frame.window(work, _NOW)[:, self.rows].mean(axis=1) - _WORK[work][0]
        at_work = np.flatnonzero(level > 0.5 * np.nanmedian(level))
        self.parts = np.array_split(at_work, _PARTS)
        self.measured = _measured(frame, np.full(1, frame.held_s[self.rows].min()))[:, 0]

    def suspect(self, settings: Settings) -> _Found | None:
        """The one rank, or the one node, that stands out; None if there is none, or more than one."""
        if min(len(part) for part in self.parts) == 0:
            return None
        moved = {signal: moved for signal in _COMPARED if (moved := self._moved(signal, settings)) is not None}
        met, of_rank = np.unique(self.nodes, return_inverse=True)
        crowded = met[0] >= 0 and np.bincount(of_rank).min() >= _FEWEST_RANKS
        beside = of_rank if crowded else np.zeros(len(self.rows), dtype=np.int64)
        ranks = self._most_apart(
            moved, lambda values: _against_mates(values, beside), np.arange(len(self.rows)), settings
        )
        if ranks is not None:
            rank, signal, deviations = ranks
            culprit = self.frame.gpus.components[self.rows[rank]]
            return self._unless_capped(culprit, int(self.rows[rank]), signal, deviations)
        if met[0] < 0 or len(met) < 2 or np.bincount(of_rank).min() < 2:
            return None
        if len(met) >= _FEWEST_NODES:
            apart = self._most_apart(
                moved, lambda values: _against_others(values, of_rank, len(met)), of_rank, settings
            )
        else:
            apart = self._one_of_two(moved, of_rank, settings)
        if apart is None:
            return None
        node, signal, deviations = apart
        shown = self.rows[np.flatnonzero(of_rank == node)[0]]
        return self._unless_capped(self.frame.nodes.components[met[node]], int(shown), signal, deviations)

    def _unless_capped(self, culprit: Component, row: int, signal: Signal, deviations: float) -> _Found | None:
        """None where somebody has given it less power than the others: that is meant."""
        limit = self.frame.latest(Signal.POWER_LIMIT)
        if limit[row] < _CAPPED * np.median(limit[self.rows]) or self._may_lack_power(row):
            return None
        return _Found(culprit, row, signal, deviations, self.pace)

    def _may_lack_power(self, row: int) -> bool:
        """Whether its clock gives way and does not stand still, as that of one that may draw no more, and nothing that
        is shown says why.
        """
        frame = self.frame
        if not np.isnan([frame.latest(each)[row] for each in (Signal.POWER_LIMIT, Signal.CLOCK_REASONS)]).all():
            return False
        past = frame.past.mean(Signal.SM_CLOCK)[:, row].astype(np.float64)
        past = past[self.measured[: len(past)]]
        now = frame.window(Signal.SM_CLOCK, _NOW)[:, row]
        now, past = now[~np.isnan(now)], past[~np.isnan(past)]
        if not len(now) or not len(past):
            return False
        level, usual = float(np.median(now)), float(np.median(past))
        return level < _GIVES_WAY * usual and float(np.ptp(now)) > _STILL * usual

    def _moved(self, signal: Signal, settings: Settings) -> _Moved | None:
        if signal not in self.frame.signals:
            return None
        past = self.frame.past.mean(signal)[:, self.rows].astype(np.float64)
        past = past[self.measured[: len(past)] & ~np.isnan(past).any(axis=1)]
        window = self.frame.window(signal, _NOW)[:, self.rows]
        now = np.array([np.median(window[part], axis=0) for part in self.parts])
        if len(past) < _FEWEST_SLOTS or np.isnan(now).any():
            return None
        base = np.median(past, axis=0)
        own = past - np.median(past, axis=1, keepdims=True)
        level = float(np.median(np.abs(base)))
        least = settings.explains * (1.0 - self.pace) * level
        low, high = np.percentile(own, _USUAL, axis=0)
        mean = window.mean(axis=0)
        mean -= np.median(mean)
        slack = 0.5 * least
        usual = (mean >= low - slack) & (mean <= high + slack)
        apart = now - np.median(now, axis=1, keepdims=True)
        usual |= ((apart >= low - slack) & (apart <= high + slack)).mean(axis=0) >= _HALF
        return _Moved(now - base, usual, past, max(_FLOOR * level, 1e-9), least)

    def _most_apart(
        self, moved: Mapping[Signal, _Moved], against: Callable[[Floats], Floats], units: Ints, settings: Settings
    ) -> tuple[int, Signal, float] | None:
        """Which unit has moved most: (unit, in which signal, by how many times the scatter).

        Args:
            against: values of the ranks (m, n_ranks) to how far each unit is off (m, n_units).
            units: (n_ranks,) the number of the rank, or of its node.
        """
        n = int(units.max()) + 1
        apart = np.zeros(n)
        by: list[Signal] = [_COMPARED[0]] * n
        for signal, one in moved.items():
            off = against(one.by)
            between = np.maximum(
                1.48 * np.median(np.abs(off), axis=1), np.ptp(np.percentile(off, _MIDDLE, axis=1), axis=0) / 2.07
            )
            scatter = np.maximum(np.maximum(between, _wobble(against(one.past))), one.floor)
            scatter *= _OF_THE_CHIP.get(signal, 1.0)
            deviations = _throughout(off, scatter[:, None], one.least)
            deviations[np.bincount(units, one.usual) > 0.5 * np.bincount(units)] = 0.0
            for unit in np.flatnonzero(deviations > apart).tolist():
                by[unit] = signal
            apart = np.maximum(apart, deviations)
        second, first = np.argsort(apart)[-2:].tolist()
        if apart[first] < settings.deviations or apart[first] < settings.alone * apart[second]:
            return None
        return first, by[first], float(apart[first])

    def _one_of_two(
        self, moved: Mapping[Signal, _Moved], of_rank: Ints, settings: Settings
    ) -> tuple[int, Signal, float] | None:
        """Of two nodes the one that does not wait: it pauses while the other spins, or works while the other rests."""
        for signal, slow in _WHO_OF_TWO.items():
            if signal not in moved:
                continue
            one = moved[signal]
            off = 2.0 * _against_others(one.by, of_rank, 2)[:, 0]  # the median of two is between them
            scatter = max(_wobble(2.0 * _against_others(one.past, of_rank, 2)), one.floor)
            apart = float(_throughout(off[:, None], np.full((_PARTS, 1), scatter), one.least)[0])
            if apart >= settings.deviations and not one.usual.all():
                lower = 0 if off[0] < 0 else 1
                return (lower if slow is _Side.LOWER else 1 - lower), signal, apart
        return None


class _Side(Enum):
    LOWER = "lower"
    HIGHER = "higher"


# Of two nodes that differ in a signal, which is the slow one; the first that differs tells.
_WHO_OF_TWO = {
    Signal.SM_CLOCK: _Side.LOWER,
    Signal.UTILIZATION: _Side.LOWER,
    Signal.SM_ACTIVE: _Side.HIGHER,
    Signal.POWER: _Side.HIGHER,
    Signal.DRAM_ACTIVE: _Side.HIGHER,
}


def _against_others(values: Floats, units: Ints, n: int) -> Floats:
    """(m, n) of `values` (m, n_ranks) the median of each unit, against the median unit."""
    each = np.stack([np.median(values[:, units == unit], axis=1) for unit in range(n)], axis=1)
    return each - np.median(each, axis=1, keepdims=True)


def _against_mates(values: Floats, of_rank: Ints) -> Floats:
    """(m, n_ranks) of `values` (m, n_ranks) each rank against the median of its node, scraped at the same instant."""
    off = np.empty_like(values)
    for node in range(int(of_rank.max()) + 1):
        mates = of_rank == node
        off[:, mates] = values[:, mates] - np.median(values[:, mates], axis=1, keepdims=True)
    return off


def _wobble(own: Floats) -> float:
    """How far a unit usually is off its own usual place, from slot to slot; parts are shorter than slots."""
    return 1.5 * 1.48 * float(np.median(np.abs(own - np.median(own, axis=0))))


def _throughout(off: Floats, scatter: Floats, least: float) -> Floats:
    """(n,) by how many times the scatter each is off in every part, to the same side and by enough; else 0."""
    one_side = (off > 0).all(axis=0) | (off < 0).all(axis=0)
    enough = np.abs(off).min(axis=0) >= least
    deviations: Floats = np.where(one_side & enough, (np.abs(off) / scatter).min(axis=0), 0.0)
    return deviations
