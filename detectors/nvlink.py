"""NVLink: links that report errors, and links that are down.

Mechanism: a link of the NVLink fabric corrects what arrives damaged by sending it again, and trains anew when that is
not enough; both cost time, and a gang waits for its slowest link. When training fails the link is down, and with it
whatever the GPU was doing with its neighbours. A few checksum errors in days are within the specification.
Sources: DCGM fields 409, 419, 429, 1200 and following (checksum, replay and recovery errors), 966 (link state), 170
(fabric manager's registration), NVIDIA's Xid catalogue (74; 144 to 150 with their sub-codes on NVLink 5, which only the
kernel log tells: where it is read, they decide). Link-down was raised on 214 of 288 nodes at once by a rule without
memory (NVSentinel 1701), all planned reboots; a fabric mask that is not zero is no fault (EKS NMA 181).
Cost of a false positive: a node drained from a running gang.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Action,
    Bools,
    ComponentKind,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Said,
    Signal,
    codes_of,
    evidence,
    findings,
    grouped_medians,
    lasting,
)

MODES = (FailureMode.NVLINK_ERRORS, FailureMode.NVLINK_DOWN)
_DAMAGED = (
    Signal.NVLINK_CRC_FLIT,
    Signal.NVLINK_CRC_DATA,
    Signal.NVLINK_CRC,
    Signal.NVLINK_REPLAY,
    Signal.NVLINK_RX_ERRORS,
    Signal.NVLINK_ECC,
)
_TRAINED_ANEW = (Signal.NVLINK_RECOVERY, Signal.NVLINK_RECOVERY_FAILED)
_TRAFFIC = (Signal.NVLINK_TX, Signal.NVLINK_THROUGHPUT)
READS = (
    *_DAMAGED,
    *_TRAINED_ANEW,
    *_TRAFFIC,
    Signal.NVLINK_STATE,
    Signal.FABRIC_STATUS,
    Signal.FABRIC_HEALTH,
    Signal.TENSOR_ACTIVE,
    Signal.XID,
)
REMEMBERS = (*_DAMAGED, *_TRAINED_ANEW)

_CODES = codes_of(FailureMode.NVLINK_ERRORS)
_SUBCODE_DECIDES = frozenset(range(144, 151))
_TAKES_GPU_AWAY = frozenset(
    {
        Action.RESET_GPU,
        Action.DRAIN_AND_RESET,
        Action.RESET_BUS,
        Action.RESET_FABRIC,
        Action.RESTART_VM,
        Action.RESTART_BM,
        Action.RESTART_SYSTEM,
        Action.CHECK_MECHANICALS,
    }
)
_REGISTRATION_FAILED, _UNHEALTHY = 4, 2


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    window_s: errors are counted over this long.
    least: so many damaged packets within the window, at several looks, ...
    at_once: ... or so many at a single look ...
    ratio: ... are errors if they are so many times what the GPU's own past has.
    recoveries: so often trained anew within the window.
    silent_for_s: a link without traffic for so long, while the GPU works and its neighbours talk, is down.
    """

    window_s: float = 300.0
    least: float = 20.0
    at_once: float = 1000.0
    ratio: float = 10.0
    recoveries: float = 2.0
    silent_for_s: float = 240.0


_SEVERAL = 3


def detect(frame: Frame, settings: Settings) -> Findings:
    return _errors(frame, settings) + _down(frame, settings)


def _errors(frame: Frame, settings: Settings) -> Findings:
    span = timedelta(seconds=settings.window_s)
    counters = [counter for counter in (*_DAMAGED, *_TRAINED_ANEW) if counter in frame.signals]
    n = len(frame.gpus)
    damaged, looks, usual = np.zeros(n), np.zeros(n, dtype=np.int64), np.zeros(n)
    trained, lost = np.zeros(n), frame.growth(Signal.NVLINK_RECOVERY_FAILED, span)
    known = np.zeros(n, dtype=np.bool_)
    for counter in counters:
        known |= ~np.isnan(frame.latest(counter))
        if counter in _TRAINED_ANEW:
            trained += frame.growth(counter, span)
        else:
            damaged += frame.growth(counter, span)
            usual += frame.past.most_grown(counter)
            looks = np.maximum(looks, frame.signals.growing_ticks(counter, span))
    many = ((damaged >= settings.least) & (looks >= _SEVERAL)) | (damaged >= settings.at_once)
    many &= damaged >= settings.ratio * usual
    often = trained >= settings.recoveries
    told = frame.xids_since_reset(_CODES)
    lines = {(row, line.code): line for row, line in frame.xid_lines(_CODES)}
    fatal = [row for row, line in frame.xid_lines(_SUBCODE_DECIDES) if line.action in _TAKES_GPU_AWAY]

    health = np.full(n, Health.UNKNOWN, dtype=np.int8)
    known |= frame.latest(Signal.XID) == 0
    health[known & ~frame.xids_since_reset(_CODES, standing=True)] = Health.HEALTHY
    health[many | often | told] = Health.DEGRADED
    health[(lost > 0) | frame.xids_since_reset(set(_CODES) - _SUBCODE_DECIDES)] = Health.FAILED
    health[fatal] = Health.FAILED

    def describe(row: int) -> Said:
        span_min = settings.window_s / 60
        parts = []
        if many[row]:
            parts.append(f"{damaged[row]:.0f} damaged packets on its NVLinks in {span_min:g} minutes")
        if often[row] or lost[row] > 0:
            parts.append(f"trained anew {trained[row]:.0f} times, {lost[row]:.0f} of them in vain")
        codes = frame.xid_codes(row, _CODES)
        parts += [f"XID {code}" + (f": {lines[row, code].why}" if (row, code) in lines else "") for code in codes]
        grown = [counter for counter in counters if frame.growth(counter, span)[row] > 0]
        disputed = tuple(said for code in codes if (row, code) in lines for said in lines[row, code].said)
        return Said("; ".join(parts), evidence(frame, *grown, Signal.XID, row=row), disputed=disputed)

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _down(frame: Frame, settings: Settings) -> Findings:
    state = frame.window(Signal.NVLINK_STATE, timedelta(minutes=10))
    nodes = frame.nodes.groups
    # Some links are wired nowhere: down is what was up, or what is up on the GPU's neighbours.
    up = nodes.count(state[-1] > 0)
    mates = np.where(nodes.of_gpu >= 0, up[nodes.of_gpu] if len(nodes) else 0, 0)
    sizes = np.where(nodes.of_gpu >= 0, nodes.sizes[nodes.of_gpu] if len(nodes) else 1, 1)
    fell = (state[-1] == 0) & ((state > 0).any(axis=0) | (lasting(state == 0, 2) & (mates >= 0.7 * sizes)))
    unregistered = lasting(frame.window(Signal.FABRIC_STATUS, timedelta(minutes=2)) == _REGISTRATION_FAILED, 2)
    unhealthy = lasting(frame.window(Signal.FABRIC_HEALTH, timedelta(minutes=2)) == _UNHEALTHY, 2)
    silent, talks, usual = _silent(frame, settings)
    lines = {row: line for row, line in frame.xid_lines(_CODES) if line.mode is FailureMode.NVLINK_DOWN}

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[(state[-1] > 0) | (talks & np.isnan(state[-1]))] = Health.HEALTHY
    health[silent | unhealthy] = Health.DEGRADED
    health[fell | unregistered] = Health.FAILED
    health[[*lines]] = Health.FAILED

    def describe(row: int) -> Said:
        parts = ["one of its NVLinks is down"] if fell[row] else []
        if unregistered[row]:
            parts.append("its registration with the NVLink fabric has failed")
        if row in lines:
            parts.append(f"XID {lines[row].code}: {lines[row].why}")
        if unhealthy[row]:
            parts.append("the NVLink fabric calls it unhealthy")
        if silent[row]:
            parts.append(
                f"no traffic on its NVLinks for {settings.silent_for_s / 60:g} minutes, while it works and its "
                f"neighbours send {usual[row] / 1e9:.2g} GB/s"
            )
        signals = (Signal.NVLINK_STATE, *_TRAFFIC, Signal.FABRIC_STATUS, Signal.TENSOR_ACTIVE)
        return Said("; ".join(parts), evidence(frame, *signals, row=row))

    return findings(MODES[1], ComponentKind.GPU, health, frame.gpus.components, describe)


def _silent(frame: Frame, settings: Settings) -> tuple[Bools, Bools, Floats]:
    """(n_gpus,) who sends nothing, while it works and the others of its job on its node do; who sends something, as
    they do; and what they send, in bytes per second.
    """
    span = timedelta(seconds=settings.silent_for_s)
    signal = next((one for one in _TRAFFIC if one in frame.signals), None)
    n = len(frame.gpus)
    if signal is None or frame.times[0] > -settings.silent_for_s:
        return np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_), np.full(n, np.nan)
    sent = frame.latest(signal)
    jobs, nodes = frame.jobs.of_gpu, frame.nodes.groups.of_gpu
    together = np.where((jobs >= 0) & (nodes >= 0), jobs * max(len(frame.nodes), 1) + nodes, -1)
    _, groups = np.unique(together, return_inverse=True)
    groups = np.where(together >= 0, groups, -1)
    usual = np.full(n, np.nan)
    there = groups >= 0
    usual[there] = grouped_medians(groups, sent, int(groups.max(initial=-1)) + 1)[groups[there]]
    now = there & (usual > _SOME_TRAFFIC) & (sent < _NONE * usual) & (frame.latest(Signal.TENSOR_ACTIVE) > _WORKS)
    now &= frame.held_s >= settings.silent_for_s
    for row in np.flatnonzero(now).tolist():  # hardly ever any
        history = frame.signals.of_row(signal, row)
        lately = history[frame.signals.first_tick(span) :]
        now[row] = bool((lately < _NONE * usual[row]).all()) and bool(np.nanmax(history) > 0.1 * usual[row])
    return now, sent >= _NONE * usual, usual


_SOME_TRAFFIC, _NONE, _WORKS = 1e7, 0.01, 0.03
