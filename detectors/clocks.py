"""Clocks that are held down: by the power brake, or for no reason that one can see.

Mechanism: the power brake is a wire: when a power supply or a rack controller pulls it, the GPU halves its clocks
within microseconds, and stays there until somebody lets go. Other GPUs run slow for what nobody tells: a driver's
leftover lock, a loose power cable, firmware. Both cost a gang its speed and raise no error.
Sources: DCGM field 112 (clock event reasons: 0x80 power brake, 0x8 hardware slowdown), the counter of time in power
brake, DCGM fields 100 and 155. Power brake on nine nodes went unseen for 36 hours (NVSentinel 1666); it now asks for
three polls. Slowed by the power limit (0x4) is normal at full load, and so are equal clocks of all GPUs of a job.
Cost of a false positive: a node looked at, a GPU reset between two jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    NOWHERE_ROW,
    Bools,
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
    grouped_medians,
    lasting,
)

MODES = (FailureMode.GPU_POWER_BRAKE, FailureMode.GPU_THROTTLED)
READS = (
    Signal.CLOCK_REASONS,
    Signal.POWER_BRAKE,
    Signal.PROCESSOR_HOT,
    Signal.SM_CLOCK,
    Signal.UTILIZATION,
    Signal.POWER,
    Signal.POWER_LIMIT,
    Signal.GPU_TEMPERATURE,
)

_POWER_CAP, _HARDWARE_SLOWDOWN, _HEAT, _BRAKE = 0x4, 0x8, 0x20 | 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    brake_share: braked for more than this share of the last two minutes is a brake, also where no reason is exported.
    slower: a busy GPU whose clock is below that of its equally busy peers by this share ...
    slower_for_s: ... for so long is throttled.
    """

    brake_share: float = 0.2
    slower: float = 0.15
    slower_for_s: float = 180.0


_LOOKS = timedelta(minutes=2)
_BUSY = 0.1  # who does anything at all has the clock of those who do much
_FEWEST_PEERS = 3
_AT_LIMIT = 0.93
_PINNED = 0.02  # power that scatters less than this share of itself is held, too: under work it scatters by a tenth
_STILL = 0.01  # a clock that moves less than this, about one step, is held where it is


def detect(frame: Frame, settings: Settings) -> Findings:
    slow = _slower_than_peers(frame, settings)
    return _braked(frame, settings, slow) + _throttled(frame, settings, slow)


@dataclass(frozen=True, slots=True, eq=False)
class _Slow:
    """Attributes:
    lasting: (n_gpus,) slower than its peers throughout the time.
    now: (n_gpus,) slower than its peers at the last look.
    known: (n_gpus,) whether there are peers to compare it with.
    behind: (n_gpus,) by which share its clock is below theirs now.
    usual_hz: (n_gpus,) the peers' clock now.
    """

    lasting: Bools
    now: Bools
    known: Bools
    behind: Floats
    usual_hz: Floats


def _braked(frame: Frame, settings: Settings, slow: _Slow) -> Findings:
    reasons = frame.window(Signal.CLOCK_REASONS, _LOOKS)
    pulled = _set(reasons, _BRAKE)
    times = frame.signals.times_s[frame.signals.first_tick(_LOOKS) :]
    span_s = max(float(times[-1] - times[0]), 1.0)
    share = np.fmax(
        frame.growth(Signal.POWER_BRAKE, _LOOKS) / span_s, np.nan_to_num(frame.latest(Signal.PROCESSOR_HOT))
    )
    braked = lasting(pulled, 2) | (pulled[-1] & slow.now) | (share > settings.brake_share)

    counted = ~np.isnan(frame.latest(Signal.POWER_BRAKE)) | ~np.isnan(frame.latest(Signal.PROCESSOR_HOT))
    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[~np.isnan(reasons[-1]) | counted] = Health.HEALTHY
    health[braked] = Health.FAILED

    def describe(row: int) -> Said:
        parts = ["the system has pulled the power brake"]
        if slow.behind[row] > settings.slower:
            parts.append(f"its clock is {slow.behind[row]:.0%} below that of its peers")
        if share[row] > settings.brake_share:
            parts.append(f"for {min(share[row], 1.0):.0%} of the last minutes")
        return Said(", ".join(parts), evidence(frame, Signal.CLOCK_REASONS, Signal.SM_CLOCK, Signal.POWER, row=row))

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _throttled(frame: Frame, settings: Settings, slow: _Slow) -> Findings:
    reasons = frame.latest(Signal.CLOCK_REASONS)
    named = _set(reasons, _HEAT | _BRAKE)
    limit, power = frame.latest(Signal.POWER_LIMIT), frame.latest(Signal.POWER)
    at_limit = power >= _AT_LIMIT * limit
    lowered = (
        limit
        < 0.95 * grouped_medians(frame.gpus.peers, limit, int(frame.gpus.peers.max(initial=-1)) + 1)[frame.gpus.peers]
    )

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[slow.known] = Health.HEALTHY
    # Slowed by its hardware, and neither heat nor the brake is the cause.
    hardware = _set(frame.window(Signal.CLOCK_REASONS, _LOOKS), _HARDWARE_SLOWDOWN) & ~named
    told = (lasting(hardware, 2) | (hardware[-1] & slow.now)) & (frame.latest(Signal.UTILIZATION) >= _BUSY)
    # At its power limit, below a limit that somebody lowered, or for a reason that has a mode of its own, it may.
    health[told | (slow.lasting & ~named & ~at_limit & ~lowered)] = Health.DEGRADED
    clock = frame.latest(Signal.SM_CLOCK)

    def describe(row: int) -> Said:
        figures = f"{clock[row] / 1e6:.0f} MHz, {slow.usual_hz[row] / 1e6:.0f} MHz on its equally busy peers"
        why = (
            "for no stated reason"
            if np.isnan(reasons[row]) or not reasons[row]
            else f"clock event reasons {int(reasons[row]):#x}"
        )
        if slow.lasting[row]:
            span = f"for {settings.slower_for_s / 60:g} minutes"
            reason = f"clock {slow.behind[row]:.0%} below its peers {span}: {figures}, {why}"
        else:
            reason = f"slowed by its hardware ({why}): {figures if slow.known[row] else f'{clock[row] / 1e6:.0f} MHz'}"
        signals = (Signal.SM_CLOCK, Signal.CLOCK_REASONS, Signal.POWER, Signal.UTILIZATION)
        return Said(reason, evidence(frame, *signals, row=row))

    return findings(MODES[1], ComponentKind.GPU, health, frame.gpus.components, describe)


def _slower_than_peers(frame: Frame, settings: Settings) -> _Slow:
    """Compare each busy GPU with the busy ones of its job; of a small job, or of none, with those of its node."""
    span = timedelta(seconds=settings.slower_for_s)
    clocks, load = frame.window(Signal.SM_CLOCK, span), frame.window(Signal.UTILIZATION, span)
    groups = _peer_groups(frame)
    n_groups = int(groups.max(initial=-1)) + 1
    if len(load) != len(clocks):
        load = np.full(clocks.shape, np.nan)
    compared = np.where((load >= _BUSY) & frame.current, clocks, np.nan)
    busy = ~np.isnan(compared[-1])
    usual = grouped_medians(groups, compared[-1], n_groups)
    crowd = np.bincount(groups[busy & (groups >= 0)], minlength=n_groups) > _FEWEST_PEERS
    there = groups >= 0
    known = busy & there
    known[there] &= crowd[groups[there]]
    usual_hz = np.full(len(groups), np.nan)
    usual_hz[there] = usual[groups[there]]
    behind = np.where(known, 1.0 - compared[-1] / usual_hz, np.nan)
    now = known & (behind > settings.slower)
    lasts = now & (frame.held_s >= settings.slower_for_s)
    long_enough = len(clocks) > 1 and frame.times[0] <= -settings.slower_for_s
    if lasts.any() and long_enough:
        # Against the peers' clock of now: that of a job moves together, and only few GPUs come this far.
        with_slack = clocks[:, lasts] < (1.0 - settings.slower) * usual_hz[lasts]
        # Who shows neither limit nor reason may be short of power: then its power stands still, below its peers', and
        # not its clock.
        silent = np.isnan(frame.latest(Signal.POWER_LIMIT)[lasts]) & np.isnan(frame.latest(Signal.CLOCK_REASONS)[lasts])
        still = np.ptp(clocks[:, lasts], axis=0) <= _STILL * usual_hz[lasts]
        power = frame.latest(Signal.POWER)
        usual_w = grouped_medians(groups, np.where(busy, power, np.nan), n_groups)[groups[lasts]]
        capped = _pinned(frame.window(Signal.POWER, span)[:, lasts]) & (power[lasts] < _AT_LIMIT * usual_w)
        lasts[lasts] = (with_slack & (load[:, lasts] >= _BUSY)).all(axis=0) & (still & ~capped | ~silent)
    else:
        lasts[:] = False
    return _Slow(lasts, now, known, behind, usual_hz)


def _pinned(power_w: Floats) -> Bools:
    """(n_gpus,) whether the power (n_ticks, n_gpus) stands still, as that of a GPU under a limit does at any load."""
    pinned: Bools = np.std(power_w, axis=0) <= _PINNED * np.mean(power_w, axis=0)
    return pinned


_IDLE, _APPLICATIONS = 0x1, 0x2
_AT_WORK = 0.5


def _peer_groups(frame: Frame) -> Ints:
    """(n_gpus,) who is compared with whom: those of a job; where that is too small, or none, those of a node. There are
    other jobs on it, so that who rests, whose clock was set for its job, or who is short of power, is left out.
    """
    jobs, nodes = frame.jobs.of_gpu, frame.nodes.groups.of_gpu
    small = (jobs != NOWHERE_ROW) & (frame.jobs.spread(frame.jobs.sizes.astype(np.float64)) <= _FEWEST_PEERS)
    reasons = frame.latest(Signal.CLOCK_REASONS)
    works = ~np.isnan(reasons) & ~_set(reasons, _IDLE | _APPLICATIONS | _POWER_CAP)
    works &= frame.latest(Signal.UTILIZATION) >= _AT_WORK
    comparable = (jobs == NOWHERE_ROW) | (small & works)
    of_node = np.where(comparable & (nodes != NOWHERE_ROW), len(frame.jobs) + nodes, NOWHERE_ROW)
    return np.where((jobs == NOWHERE_ROW) | small, of_node, jobs)


def _set(reasons: Floats, bits: int) -> Bools:
    """Which of the clock event reasons (any shape) have one of the bits; not where they are unknown."""
    there: Bools = (np.nan_to_num(reasons).astype(np.int64) & bits) != 0
    return there
