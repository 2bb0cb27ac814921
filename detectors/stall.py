"""A job that stands still: its ranks wait in a collective that one of them never enters.

Mechanism: NCCL's ranks spin on the GPU while they wait. So a stalled gang looks busy: utilisation is pinned, clocks
are high, and nothing gets done: tensor pipes and memory idle, links are silent, power lies between idle and load,
on all ranks but the one they wait for. Checkpoints and evaluations make ranks wait in the same way, for less long;
start-up and idling do not pin the GPU; an application that computes without tensor pipes keeps its SMs busy and
draws power.
Sources: waiting ranks as recorded from outside (docs/telemetry.md); DLRover and Ray wait ten minutes for a step,
NCCL's own watchdog ten. A rack stalled for 15 minutes without a word in marin 8934. From inside, where it is
offered: NCCL's RAS, PyTorch's Flight Recorder and the watchdog's log lines name the rank; what they say wins.
Cost of a false positive: a gang that was only writing a checkpoint is restarted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Bools,
    Component,
    ComponentKind,
    Evidence,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Ints,
    Progress,
    Said,
    Signal,
    Testimony,
    evidence,
    findings,
)

MODES = (FailureMode.JOB_STALLED,)
READS = (
    Signal.UTILIZATION,
    Signal.TENSOR_ACTIVE,
    Signal.DRAM_ACTIVE,
    Signal.SM_ACTIVE,
    Signal.MEMORY_UTILIZATION,
    Signal.POWER,
    Signal.POWER_LIMIT,
    Signal.NVLINK_TX,
)
REMEMBERS = (Signal.TENSOR_ACTIVE, Signal.DRAM_ACTIVE, Signal.MEMORY_UTILIZATION, Signal.POWER)


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    stalled_after_s: ranks that have waited for so long are stalled, ...
    pauses: ... and for so many times as long as the job ever paused before.
    works_on_after_s: the same where a rank does useful work while the others wait: it may evaluate.
    never_began_after_s: the same for a job that has not done anything yet.
    testimony_counts_s: what a job said of itself counts for so long.
    """

    stalled_after_s: float = 300.0
    pauses: float = 1.5
    works_on_after_s: float = 900.0
    never_began_after_s: float = 540.0
    testimony_counts_s: float = 120.0


_PINNED, _IDLE = 0.85, 0.1
_NO_TENSOR, _NO_DRAM, _FEW_SMS, _NO_COPIES = 0.02, 0.06, 0.35, 0.05
# What a GPU that spins is not above.
_RESTS = (
    (Signal.TENSOR_ACTIVE, _NO_TENSOR),
    (Signal.DRAM_ACTIVE, _NO_DRAM),
    (Signal.SM_ACTIVE, _FEW_SMS),
    (Signal.MEMORY_UTILIZATION, _NO_COPIES),
)
# Which of these tell whether a job works: the first two, or the copies, where nobody profiles.
_WORK, _WORK_UNPROFILED = _RESTS[:2], _RESTS[3:]
_BELOW_LOAD = 0.7  # of the power at which the job works
_BELOW_LIMIT = 0.62  # of the power limit, where nobody has seen it work
_FEWEST_RANKS, _FEWEST_LOOKS = 2, 3
_LOOKED_AWAY, _LOOKED_AWAY_S = 2.5, 90.0  # times the usual time between looks, and seconds: longer is a gap
_MOST = 0.5  # of the ranks
_DUMPS_COUNT = 15  # times as long
_GPUS_PER_NODE = 8


def detect(frame: Frame, settings: Settings) -> Findings:
    jobs = frame.jobs
    health = np.full(len(jobs), Health.UNKNOWN, dtype=np.int8)
    found: dict[int, Said] = {}
    testimonies = _testimonies(frame, settings)
    if len(jobs):
        ceiling = _power_below_work(frame)
        waiting = _waiting(frame, ceiling, -1, slice(None))
        utilization = frame.latest(Signal.UTILIZATION)
        told = np.logical_or.reduce([~np.isnan(frame.latest(signal)) for signal, _ in _RESTS])
        # Who spins looks busy: without a word on what it does, nobody knows.
        known = frame.current & ((utilization < _PINNED) | (~np.isnan(utilization) & told))
        seen, wait = jobs.count(known), jobs.count(waiting & known)
        # Most of those who are seen have to be at work: who waits may have waited for long, unseen.
        health[(seen >= np.maximum(_MOST * jobs.sizes, 1)) & (wait < _MOST * seen)] = Health.HEALTHY
        suspects = (jobs.sizes >= _FEWEST_RANKS) & (wait >= 1) & (jobs.sizes - wait <= _most_others(jobs.sizes))
        for job in np.flatnonzero(suspects).tolist():
            rows = jobs.members(job)
            waited = _waiting(frame, ceiling[rows], slice(None), rows)
            said = _judged(frame, settings, rows, waited, testimonies.get(job))
            if said is not None:
                found[job] = said
    for job, testimony in testimonies.items():
        if testimony.progress in {Progress.STUCK, Progress.FAILED} and job not in found:
            found[job] = _inside_only(frame, testimony)
    health[list(found)] = Health.FAILED
    return findings(MODES[0], ComponentKind.JOB, health, jobs.components, lambda job: found[job])


def _most_others(sizes: Ints) -> Ints:
    """How many ranks may not wait and the gang still stalls: the culprit, or the culprit's whole node."""
    return np.where(sizes > 2 * _GPUS_PER_NODE - 1, _GPUS_PER_NODE, np.maximum(sizes // 4, 1))


def _waiting(frame: Frame, ceiling: Floats, tick: int | slice, rows: Ints | slice) -> Bools:
    """Which GPUs spin without doing anything, at a tick or at several.

    Args:
        ceiling: (len(rows),) watts above which a GPU works.
    """
    span = timedelta(hours=1)
    utilization = frame.window(Signal.UTILIZATION, span)[tick][..., rows]
    waits: Bools = utilization >= _PINNED
    told = np.zeros(waits.shape, dtype=np.bool_)
    for signal, most in _RESTS:
        if signal in frame.signals:
            values = frame.window(signal, span)[tick][..., rows]
            known = ~np.isnan(values)
            waits &= ~known | (values <= most)
            told |= known
    power = frame.window(Signal.POWER, span)[tick][..., rows]
    return waits & told & (power <= ceiling)


def _power_below_work(frame: Frame) -> Floats:
    """(n_gpus,) watts below which a GPU of a job does not work; of the job's own past where it has one."""
    past = frame.past.mean(Signal.POWER)
    usual = np.full(len(frame.gpus), np.nan)
    if len(past):
        usual = np.fmax.reduce(past[-12:], axis=0).astype(np.float64)
    highest = np.fmax(usual, np.fmax.reduce(frame.window(Signal.POWER, timedelta(hours=1)), axis=0))
    of_job = frame.jobs.spread(frame.jobs.means(highest))
    limit = frame.latest(Signal.POWER_LIMIT)
    by_limit = np.where(np.isnan(limit), np.inf, _BELOW_LIMIT * limit)
    worked = _BELOW_LOAD * of_job
    return np.where(of_job > 2.0 * _idle_w(frame), np.minimum(worked, by_limit), by_limit)


def _idle_w(frame: Frame) -> float:
    power = frame.latest(Signal.POWER)[frame.latest(Signal.UTILIZATION) < _IDLE]
    return float(np.nanmedian(power)) if np.isfinite(power).any() else 100.0


def _judged(frame: Frame, settings: Settings, rows: Ints, waiting: Bools, testimony: Testimony | None) -> Said | None:
    """What there is to say of a job that looks stalled now; None if it has not for long enough, or says otherwise.

    Args:
        rows: its GPUs.
        waiting: (n_ticks, len(rows)) which of them spin.
    """
    if testimony is not None and testimony.progress is Progress.PROGRESSING:
        return None
    waits = waiting.sum(axis=1)
    enough = len(rows) - waits <= int(_most_others(np.array([len(rows)]))[0])
    enough[1:-1] |= enough[:-2] & enough[2:] & (waits[1:-1] >= 0.5 * len(rows))  # one odd look at some of them is none
    enough[: _looked_on_from(frame.times)] = False
    since = len(enough) - int(np.argmin(enough[::-1])) if not enough.all() else 0
    if len(enough) - since < _FEWEST_LOOKS:
        return None
    # Since the window's first look, it may have been so for longer.
    for_s = -float(frame.times[since]) if since else _rested_s(frame, rows)
    worked, pause_s = _worked(frame, rows, since, for_s)
    held_s = float(np.median(frame.held_s[rows]))
    works_on = _works_on(frame, rows, rows[~waiting[-1]], since)
    after_s = settings.works_on_after_s if works_on else settings.stalled_after_s
    needed = max(after_s, settings.pauses * pause_s) if worked else settings.never_began_after_s
    if for_s < needed - 1.0 or held_s < needed or (not worked and held_s < 2.0 * settings.never_began_after_s):
        return None
    culprit, how = _culprit(frame, rows, waiting, since)
    began = "" if worked else "; it has not been seen to work"
    reason = f"{waits[-1]} of {len(rows)} ranks have waited for {for_s / 60:.0f} minutes without doing anything{began}"
    said: tuple[str, ...] = ()
    if testimony is not None:
        inside = _located(frame, testimony)
        if inside is not None and culprit is not None and not _same(inside, culprit):
            said = (f"{testimony.witness}: {testimony.says}", f"from outside {culprit} is the one that differs: {how}")
        if inside is not None:
            culprit, how = inside, testimony.says
    reason += f"; {culprit} is the one that they wait for: {how}" if culprit else "; no rank stands out"
    shown = rows[np.flatnonzero(waiting[-1])[:1]].tolist()
    told = tuple(
        one for row in shown for one in evidence(frame, *READS[:4], Signal.POWER, row=row, note="a rank that waits")
    )
    if culprit is not None and culprit.kind is ComponentKind.GPU:
        row = frame.gpus.rows.get(culprit.key)
        if row is not None:
            told += evidence(frame, *READS[:4], Signal.POWER, row=row, note="the rank that they wait for")
    return Said(reason, told, culprit=culprit, disputed=said)


def _looked_on_from(times: Floats) -> int:
    """The first of the looks (n_ticks,) after which nobody looked away: what was not seen was no waiting."""
    if len(times) < _FEWEST_LOOKS:
        return 0
    apart = np.diff(times)
    gaps = np.flatnonzero(apart > max(_LOOKED_AWAY * float(np.median(apart)), _LOOKED_AWAY_S))
    return int(gaps[-1]) + 1 if len(gaps) else 0


def _rested_s(frame: Frame, rows: Ints) -> float:
    """For how many seconds, without a gap, the past has nothing of any work of the ranks; what was found stalled is not
    in it.
    """
    past = frame.past
    kept = [(signal, least) for signal, least in _work(frame, rows) if signal in past.means]
    rested_s = -float(frame.times[0])
    if not kept:
        return rested_s
    busy = np.logical_or.reduce([(past.mean(signal)[:, rows] > least).mean(axis=1) > _MOST for signal, least in kept])
    slot_s = past.slot.total_seconds()
    for ended_s, worked in zip(reversed(past.times_s.tolist()), reversed(busy.tolist()), strict=True):
        since_s = frame.at.timestamp() - ended_s
        if worked or since_s - rested_s > 1.5 * slot_s:
            break
        rested_s = max(rested_s, since_s + slot_s)
    return rested_s


def _work(frame: Frame, rows: Ints) -> Sequence[tuple[Signal, float]]:
    """What tells whether a job with these GPUs works, and above what."""
    profiled = any(np.isfinite(frame.window(signal, timedelta(hours=1))[:, rows]).any() for signal, _ in _WORK)
    return _WORK if profiled else _WORK_UNPROFILED


def _works_on(frame: Frame, rows: Ints, others: Ints, since: int) -> bool:
    """Whether one of the ranks that do not wait does what a stuck one does not: it multiplies matrices; where nobody
    profiles, it moves memory.
    """
    signal, least = _work(frame, rows)[0]
    activity = frame.window(signal, timedelta(hours=1))[since:, others]
    return bool((np.nan_to_num(activity).mean(axis=0) > least).any()) if activity.size else False


def _worked(frame: Frame, rows: Ints, since: int, for_s: float) -> tuple[bool, float]:
    """Whether the job was ever seen to work, and for how many seconds it paused at most and went on.

    Args:
        since, for_s: since which tick, and for how long, it waits now: that is no pause from which it went on.
    """
    best = 0.0
    pause_s = 0.0
    for signal, least in _work(frame, rows):
        before = frame.window(signal, timedelta(hours=1))[:since, rows]
        if before.size and np.isfinite(before).any():
            best = max(best, float(np.nanmax(np.nanmean(before, axis=1, where=~np.isnan(before)))) / least)
        past = frame.past.mean(signal)[:, rows]
        if not len(past):
            continue
        began_s = frame.at.timestamp() - float(np.median(frame.held_s[rows]))
        slot_s, ended_s = frame.past.slot.total_seconds(), frame.past.times_s
        before_this_s = frame.at.timestamp() - for_s - (slot_s if since == 0 else 0.0)
        past = past[(ended_s - slot_s >= began_s) & (ended_s <= before_this_s)]
        known = np.isfinite(past).any(axis=1)
        if known.any():
            activity = np.nanmean(past[known], axis=1)
            usual = float(np.quantile(activity, 0.75))
            best = max(best, usual / least)
            if usual > least:
                missing = np.clip(1.0 - activity / usual, 0.0, 1.0) * slot_s
                # A pause may lie across two slots; the first ones are the job's start.
                pairs = missing[2:] + np.concatenate([missing[3:], [0.0]]) if len(missing) > 2 else np.zeros(1)
                pause_s = max(pause_s, float(pairs.max(initial=0.0)))
    return best > 2.0, pause_s


def _culprit(frame: Frame, rows: Ints, waiting: Bools, since: int) -> tuple[Component | None, str]:
    """The rank, or the node, that differs from all that wait, and in what."""
    components = frame.gpus.components
    gone = [row for row in rows.tolist() if not frame.current[row]]
    if gone:
        return _one(frame, gone, "it is no longer seen")
    others = rows[waiting[since:].mean(axis=0) < _MOST].tolist()
    if others:
        idle = [row for row in others if frame.latest(Signal.UTILIZATION)[row] < _IDLE]
        if idle:
            return _one(frame, idle, "it does not even wait")
        one, how = _one(frame, others, "it is busy with something else")
        if one is not None:
            return one, how
    apart = _most_apart(frame, rows, since)
    if apart is None:
        return None, ""
    rank, signal = apart
    return components[int(rows[rank])], f"unlike the others in {signal}"


# Who stands out does so by so many times the scatter, and by so many times what the next one does.
_STANDS_OUT = ((8.0, 2.0), (4.0, 3.0))


def _one(frame: Frame, rows: list[int], how: str) -> tuple[Component | None, str]:
    """The GPU if it is one, its node if they are all on one."""
    if len(rows) == 1:
        return frame.gpus.components[rows[0]], how
    nodes = np.unique(frame.nodes.groups.of_gpu[rows])
    if len(nodes) == 1 and nodes[0] >= 0:
        return frame.nodes.components[int(nodes[0])], f"{len(rows)} of its ranks are alike: {how}"
    return None, ""


def _most_apart(frame: Frame, rows: Ints, since: int) -> tuple[int, Signal] | None:
    """Which rank stands out from the others most since they wait, and in what; None if none does."""
    best, most = None, 0.0
    for signal, floor in (
        (Signal.UTILIZATION, 0.02),
        (Signal.SM_ACTIVE, 0.02),
        (Signal.DRAM_ACTIVE, 0.01),
        (Signal.POWER, 8.0),
    ):
        if signal not in frame.signals:
            continue
        values = np.nanmedian(frame.window(signal, timedelta(hours=1))[since:, rows], axis=0)
        apart = np.abs(values - np.nanmedian(values))
        scatter = max(1.48 * float(np.nanmedian(apart)), floor)
        deviations = np.nan_to_num(apart / scatter)
        order = np.argsort(-deviations)
        first, second = float(deviations[order[0]]), float(deviations[order[1]])
        if first > most and any(first >= least and first >= times * second for least, times in _STANDS_OUT):
            best, most = (int(order[0]), signal), first
    return best


def _testimonies(frame: Frame, settings: Settings) -> dict[int, Testimony]:
    """By job, the newest of what it says of itself that decides something, while it counts."""
    told: dict[int, Testimony] = {}
    for testimony in sorted(frame.testimonies, key=lambda one: one.at):
        age_s = (frame.at - testimony.at).total_seconds()
        job = (
            None if testimony.job is None else frame.jobs.rows.get(Component(ComponentKind.JOB, job=testimony.job).key)
        )
        if job is None or testimony.progress is Progress.UNKNOWN:
            continue
        # That it goes on is news of a moment; that it is stuck stays true for a while: a dump is written once.
        counts_s = settings.testimony_counts_s * (1 if testimony.progress is Progress.PROGRESSING else _DUMPS_COUNT)
        if age_s <= counts_s:
            told[job] = testimony
    return told


def _inside_only(frame: Frame, testimony: Testimony) -> Said:
    at = Evidence(str(testimony.witness), None, "", testimony.at, testimony.says)
    return Said(testimony.says, (at,), culprit=_located(frame, testimony))


def _located(frame: Frame, testimony: Testimony) -> Component | None:
    """The one culprit that a job names, as the frame knows it; None if it names none, or several."""
    named = testimony.culprits[0].component if len(testimony.culprits) == 1 else None
    if named is None:
        return None
    node = frame.nodes.groups.rows.get(Component(ComponentKind.NODE, node=named.node).key)
    if node is None:
        return named
    gpus: Sequence[Component] = frame.gpus.components
    nodes: Sequence[Component] = frame.nodes.components
    beside = frame.nodes.groups.members(node).tolist()
    return next((gpus[row] for row in beside if gpus[row].gpu == named.gpu), nodes[node])


def _same(one: Component, other: Component) -> bool:
    return one.key == other.key or (ComponentKind.NODE in {one.kind, other.kind} and one.node == other.node)
