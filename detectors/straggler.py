"""One rank that slows its gang.

Mechanism: in synchronous training all ranks wait for the last one at every step. A slow rank (a data loader that
starves, a processor shared with somebody else, retries in memory or on a link) makes all of them slow: the gang does
less in the same time, and the slow rank is the one that does not wait. Which way it differs depends on what ails it,
so it is looked for in every direction: in activity, memory traffic, power and clock, each against its own share of the
gang an hour ago. Ranks of a pipeline differ for all their lives and are not meant.
Source: recorded step times of distributed jobs (alibaba cluster-trace-gpu-v2020): against peers alone the healthy ones
alarm, too; against peers and the own past one worker that is 5 % slow is found two times in three. NVRx calls a rank a
straggler below 0.75 of the others, DLRover above twice their time.
Cost of a false positive: a gang restarted without a node that was sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Basis,
    ComponentKind,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Ints,
    Said,
    Signal,
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
READS = _COMPARED
REMEMBERS = _COMPARED


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    slower: the gang does less than before by this share, ...
    deviations: ... and one rank has moved away from the others by so many times their own scatter, ...
    alone: ... which is so many times what the next one has.
    floor: scatter is never taken for less than this share of the gang's level.
    """

    slower: float = 0.05
    deviations: float = 6.0
    alone: float = 1.7
    floor: float = 0.015


_NOW = timedelta(minutes=5)
_PAST = timedelta(hours=2)
_FEWEST_SLOTS = 3
_FEWEST_RANKS = 4
_WORKS = 0.03
_MOST_WORK = 0.9  # of the ranks work in most of the minutes: a gang that pauses is not slow


def detect(frame: Frame, settings: Settings) -> Findings:
    health = np.full(len(frame.jobs), Health.UNKNOWN, dtype=np.int8)
    found: dict[int, _Found] = {}
    work = next((signal for signal in (Signal.TENSOR_ACTIVE, Signal.DRAM_ACTIVE) if signal in frame.signals), None)
    if work is not None and len(frame.jobs) and frame.times[0] <= -2 * _NOW.total_seconds() + 1.0:
        now, before = _lately(frame, work), _before(frame, work)
        both = ~np.isnan(now) & ~np.isnan(before)
        ranks = frame.jobs.count(both)
        pace = frame.jobs.sums(np.where(both, now, np.nan)) / np.maximum(
            frame.jobs.sums(np.where(both, before, np.nan)), 1e-9
        )
        level = frame.jobs.means(before)
        judged = (ranks >= _FEWEST_RANKS) & (ranks >= _MOST_WORK * frame.jobs.sizes) & (level > _WORKS)
        health[judged] = Health.HEALTHY
        for row in np.flatnonzero(judged & (pace <= 1.0 - settings.slower)).tolist():
            suspect = _suspect(frame, settings, row, work, float(pace[row]))
            if suspect is not None:
                found[row] = suspect
                health[row] = Health.DEGRADED

    def describe(row: int) -> Said:
        who = found[row]
        culprit = frame.gpus.components[who.rank]
        reason = (
            f"the gang does {1.0 - who.pace:.0%} less than in the hours before, and {culprit} has moved away from the "
            f"other {frame.jobs.sizes[row] - 1} ranks in {who.signal}, by {who.deviations:.0f} times their scatter"
        )
        score = who.deviations / (who.deviations + settings.deviations)
        return Said(reason, evidence(frame, *_COMPARED, row=who.rank, note=str(culprit)), score=score, culprit=culprit)

    return findings(MODES[0], ComponentKind.JOB, health, frame.jobs.components, describe, basis=Basis.LEARNT)


@dataclass(frozen=True, slots=True)
class _Found:
    """Attributes:
    rank: the row of the GPU that differs.
    """

    rank: int
    signal: Signal
    deviations: float
    pace: float


def _lately(frame: Frame, signal: Signal) -> Floats:
    """(n_gpus,) the mean over the last minutes; NaN where anything is missing of them."""
    mean: Floats = np.where(frame.current, frame.window(signal, _NOW).mean(axis=0), np.nan)
    return mean


def _before(frame: Frame, signal: Signal, rows: Ints | slice = slice(None)) -> Floats:
    """(n_gpus,) the mean over the last hours in which the GPU had its present job; NaN where they are too few."""
    past = frame.past.mean(signal)[-int(_PAST / frame.past.slot) :, rows]
    began_s = frame.at.timestamp() - frame.held_s[rows]
    # A job's first minutes are no measure of it.
    whole = frame.past.times_s[-len(past) :, None] - 2 * frame.past.slot.total_seconds() >= began_s[None, :]
    known = ~np.isnan(past) & whole
    counts = known.sum(axis=0)
    total = np.where(known, past, 0.0).sum(axis=0, dtype=np.float64)
    mean: Floats = np.divide(total, counts, out=np.full(past.shape[1], np.nan), where=counts >= _FEWEST_SLOTS)
    return mean


def _suspect(frame: Frame, settings: Settings, job: int, work: Signal, pace: float) -> _Found | None:
    """The one rank that stands out, in both halves of the last minutes; None if there is none, or more than one."""
    rows = frame.jobs.members(job)
    working = frame.window(work, _NOW)[:, rows] > 0.5 * _WORKS
    if working.mean() < _MOST_WORK:
        return None
    first = _most_apart(frame, settings, rows, slice(None))
    if first is None:
        return None
    halves = [_most_apart(frame, settings, rows, half) for half in (slice(0, 5), slice(5, None))]
    if any(half is None or half[0] != first[0] for half in halves):
        return None
    rank, signal, deviations = first
    return _Found(int(rows[rank]), signal, deviations, pace)


def _most_apart(frame: Frame, settings: Settings, rows: Ints, ticks: slice) -> tuple[int, Signal, float] | None:
    apart = np.zeros(len(rows))
    by: list[Signal] = [_COMPARED[0]] * len(rows)
    for signal in _COMPARED:
        if signal not in frame.signals:
            continue
        window = frame.window(signal, _NOW)[:, rows]
        half = len(window) // 2
        chosen = window if ticks == slice(None) else (window[:half] if ticks.start == 0 else window[half:])
        before = _before(frame, signal, rows)
        moved = chosen.mean(axis=0) - before
        known = ~np.isnan(moved)
        if known.sum() < _FEWEST_RANKS:
            continue
        moved -= np.median(moved[known])
        scatter = max(1.48 * float(np.median(np.abs(moved[known]))), settings.floor * float(np.nanmedian(before)))
        deviations = np.nan_to_num(np.abs(moved) / max(scatter, 1e-9))
        for rank in np.flatnonzero(deviations > apart).tolist():
            by[rank] = signal
        apart = np.maximum(apart, deviations)
    order = np.argsort(-apart)
    first, second = int(order[0]), int(order[1])
    if apart[first] < settings.deviations or apart[first] < settings.alone * apart[second]:
        return None
    return first, by[first], float(apart[first])
