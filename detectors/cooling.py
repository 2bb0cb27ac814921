"""Cooling that gets worse: a temperature that power, the room and the neighbours do not explain.

Mechanism: at a steady load a GPU sits above the air or water that cools it by its power times its thermal resistance.
Dust, dried paste, a loose heat sink, a tired pump or fan raise the resistance, long before any limit is reached; warm
supply raises all of a rack alike. So each GPU's temperature is compared with the line through its own past (means of
five minutes, hours of them), drawn towards the line of its model as long as its own past is short, and what all nodes
of the rack have in common is taken out. A rack is compared with the other racks in the same way.
Source: recorded H100 nodes: GPUs of one node differ by 10 C at equal power for all their lives, so that comparing with
neighbours alone finds nothing, and a line fitted for another node is worthless; a line of the GPU's own finds a tenth
of cooling lost. Its own past is learnt, so this is no rule: it may ask, and not drain.
Cost of a false positive: a person looks at a heat sink in vain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Basis,
    Bools,
    ComponentKind,
    Evidence,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Ints,
    Moments,
    NodeSignal,
    Said,
    Signal,
    evidence,
    findings,
    grouped_medians,
    points,
)

MODES = (FailureMode.GPU_COOLING_DEGRADED, FailureMode.RACK_COOLING_DEGRADED)
READS = (Signal.GPU_TEMPERATURE, Signal.POWER)
REMEMBERS = READS


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    gpu_least_c: a GPU that is warmer than expected by less is left alone, ...
    gpu_deviations: ... and so is one within so many standard deviations of what its past allows.
    rack_least_c: the same for a rack against the other racks.
    alone_least_c: for a rack that has no other to be compared with: the weather is in it.
    """

    gpu_least_c: float = 4.0
    gpu_deviations: float = 5.0
    rack_least_c: float = 3.0
    alone_least_c: float = 6.0


_NOW = timedelta(minutes=5)
_NOISE_C = 1.0  # of one mean of five minutes about the GPU's line, with what rounding, fans and the job's kind add
_RESISTANCE_C_PER_W = 0.055  # of a board whose model nobody has seen under changing load
_RESISTANCE_SPREAD = 0.15  # between boards of one model, as a share
_LEVEL_SPREAD_C = 6.0  # between the slots of a chassis
_LARGEST_CHANGE = 0.2  # of the mean power from the minutes before: what is more has not settled yet
_LEAST_CHANGE_W = 50.0
_MOST_DOUBT_C = 2.5  # of the expectation; beyond that nothing is said
_FEWEST = 3  # nodes, or racks, that make a crowd
_MOST_OF_RACK = 0.75


def detect(frame: Frame, settings: Settings) -> Findings:
    excess = _excess(frame)
    common = _common(frame, excess)
    return _gpus(frame, settings, excess, common) + _racks(frame, settings, excess, common)


@dataclass(frozen=True, slots=True, eq=False)
class _Excess:
    """By how much each GPU is warmer than its past lets expect at its power. Arrays: (n_gpus,), NaN where unknown.

    Attributes:
        doubt_c: the standard deviation of the expectation.
    """

    warmer_c: Floats
    doubt_c: Floats
    power_w: Floats
    temperature_c: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Common:
    """What GPUs have in common with those around them.

    Attributes:
        of_gpu: (n_gpus,) of its rack, of the fleet where the rack is no crowd, of its node where the fleet is none.
        of_rack: (n_racks,) the median over the rack's nodes.
        of_others: (n_racks,) the same of the other racks.
        share: (n_racks,) of its nodes that are warmer than the other racks by most of what the rack is.
        has_others: whether there are other racks to compare with.
    """

    of_gpu: Floats
    of_rack: Floats
    of_others: Floats
    share: Floats
    has_others: bool


def _excess(frame: Frame) -> _Excess:
    n = len(frame.gpus)
    temperatures, powers = frame.window(Signal.GPU_TEMPERATURE, _NOW), frame.window(Signal.POWER, _NOW)
    unknown = np.full(n, np.nan)
    if temperatures.shape != powers.shape or frame.times[0] > -2 * _NOW.total_seconds() + 1.0:
        return _Excess(unknown, unknown, unknown, unknown)
    temperature, power = _mean(temperatures), _mean(powers)
    before = _mean(frame.window(Signal.POWER, 2 * _NOW)[: -len(powers)])
    steady = np.abs(power - before) <= np.maximum(_LARGEST_CHANGE * power, _LEAST_CHANGE_W)
    expected, doubt = _expected(frame, power, temperature)
    told = steady & frame.current & (doubt <= _MOST_DOUBT_C)
    return _Excess(np.where(told, temperature - expected, np.nan), np.where(told, doubt, np.nan), power, temperature)


def _expected(frame: Frame, power: Floats, temperature: Floats) -> tuple[Floats, Floats]:
    """The temperature that each GPU's past lets expect at its present power, and the doubt in it.

    Bayesian regression of a line with two unknowns, its level at the present power and its slope, whose prior is the
    line of the model: a GPU without a past is expected to be as its model is, within a wide margin.
    """
    past = frame.past.moments(Signal.POWER, Signal.GPU_TEMPERATURE)
    peers = frame.gpus.peers
    n_peers = int(peers.max(initial=-1)) + 1
    slope = _slopes(past, peers, n_peers)[peers]
    level = grouped_medians(peers, temperature - slope * power, n_peers)[peers] + slope * power
    # Sums about the present power.
    x, xx = past.x - past.count * power, past.xx - 2.0 * power * past.x + past.count * power**2
    xy = past.xy - power * past.y
    noise, level_prior, slope_prior = _NOISE_C**-2, _LEVEL_SPREAD_C**-2, (_RESISTANCE_SPREAD * slope) ** -2
    a, b, d = past.count * noise + level_prior, x * noise, xx * noise + slope_prior
    u, v = past.y * noise + level * level_prior, xy * noise + slope * slope_prior
    determinant = a * d - b * b
    expected = (d * u - b * v) / determinant
    return expected, np.sqrt(d / determinant + _NOISE_C**2)


def _slopes(past: Moments, peers: Ints, n_peers: int) -> Floats:
    """(n_peers,) kelvins per watt of each model: what its GPUs' own lines have in common."""
    known = past.count >= 2
    count = np.maximum(past.count, 1.0)
    varied = np.where(known, past.xx - past.x * past.x / count, 0.0)
    together = np.where(known, past.xy - past.x * past.y / count, 0.0)
    total = np.bincount(peers, weights=varied, minlength=n_peers)
    slopes = np.bincount(peers, weights=together, minlength=n_peers) / np.maximum(total, 1.0)
    enough = total > 100.0 * np.bincount(peers, weights=known, minlength=n_peers) + 1e4
    return np.clip(np.where(enough, slopes, _RESISTANCE_C_PER_W), 0.02, 0.15)


def _common(frame: Frame, excess: _Excess) -> _Common:
    nodes, racks = frame.nodes.groups, frame.racks.groups
    of_node = nodes.medians(excess.warmer_c)
    rack_of_node = np.full(len(nodes), -1, dtype=np.int64)
    there = (nodes.of_gpu >= 0) & (racks.of_gpu >= 0)
    rack_of_node[nodes.of_gpu[there]] = racks.of_gpu[there]
    of_rack = grouped_medians(rack_of_node, of_node, len(racks))
    measured = np.flatnonzero(~np.isnan(of_rack))
    of_others = np.zeros(len(racks))
    if len(measured) >= _FEWEST:
        of_others[:] = np.median(of_rack[measured])
    elif len(measured) > 1:
        of_others[measured] = of_rack[measured[::-1]]
    crowd = np.bincount(rack_of_node[(rack_of_node >= 0) & ~np.isnan(of_node)], minlength=len(racks))
    fleet = float(np.nanmedian(of_node)) if np.count_nonzero(~np.isnan(of_node)) >= _FEWEST else np.nan
    in_crowd = racks.spread(np.where(crowd >= _FEWEST, of_rack, np.nan))
    of_gpu = np.where(np.isnan(in_crowd), np.where(np.isnan(fleet), nodes.spread(of_node), fleet), in_crowd)
    warm = of_node - of_others[np.maximum(rack_of_node, 0)] >= 0.7 * (of_rack - of_others)[np.maximum(rack_of_node, 0)]
    warm &= (rack_of_node >= 0) & ~np.isnan(of_node)
    share = np.bincount(rack_of_node[warm], minlength=len(racks)) / np.maximum(crowd, 1)
    return _Common(of_gpu, of_rack, of_others, share, len(measured) > 1)


def _gpus(frame: Frame, settings: Settings, excess: _Excess, common: _Common) -> Findings:
    own = excess.warmer_c - common.of_gpu
    # How far healthy GPUs are off right now says how well the lines hold right now.
    spread = 1.48 * float(np.nanmedian(np.abs(own))) if np.isfinite(own).any() else 0.0
    doubt = np.hypot(excess.doubt_c, spread)
    warm: Bools = (own >= settings.gpu_least_c) & (own >= settings.gpu_deviations * doubt)

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[~np.isnan(own)] = Health.HEALTHY
    health[warm] = Health.DEGRADED

    def describe(row: int) -> Said:
        now = f"{excess.temperature_c[row]:.0f} C at {excess.power_w[row]:.0f} W"
        reason = f"{own[row]:.1f} C warmer than its own past and its neighbours explain: {now}"
        deviations = own[row] / doubt[row]
        return Said(reason, evidence(frame, *READS, row=row), score=float(deviations / (deviations + 2.5)))

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe, basis=Basis.LEARNT)


def _racks(frame: Frame, settings: Settings, excess: _Excess, common: _Common) -> Findings:
    own = common.of_rack - common.of_others
    doubt = frame.racks.groups.medians(excess.doubt_c)
    least = settings.rack_least_c if common.has_others else settings.alone_least_c
    warm = (own >= least) & (own >= 2.0 * doubt) & (common.share >= _MOST_OF_RACK)

    health = np.full(len(frame.racks), Health.UNKNOWN, dtype=np.int8)
    health[~np.isnan(own)] = Health.HEALTHY
    health[warm] = Health.DEGRADED
    inlet = frame.nodes.signals

    def describe(row: int) -> Said:
        compared = "the other racks" if common.has_others else "its own past"
        reason = f"its GPUs are {own[row]:.1f} C warmer than their power explains, against {compared}"
        members = frame.racks.groups.members(row)
        nodes = np.unique(frame.nodes.groups.of_gpu[members])
        air = inlet.gauges.get(NodeSignal.INLET_TEMPERATURE)
        told = _rack_evidence(frame, members)
        if air is not None and np.isfinite(air[:, nodes]).any():
            history = _mean(air[:, nodes].T)
            reason += f"; the air that goes in is at {history[-1]:.0f} C"
            told += (
                Evidence(
                    "inlet", float(history[-1]), "C", frame.at, "mean of the rack", points(inlet.times_s, history)
                ),
            )
        return Said(reason, told, score=float(own[row] / (own[row] + least)))

    return findings(MODES[1], ComponentKind.RACK, health, frame.racks.components, describe, basis=Basis.LEARNT)


def _rack_evidence(frame: Frame, members: Ints) -> tuple[Evidence, ...]:
    told = []
    for signal, unit in ((Signal.GPU_TEMPERATURE, "C"), (Signal.POWER, "W")):
        history = _mean(frame.window(signal, timedelta(minutes=10))[:, members].T)
        shown = points(frame.signals.times_s[-len(history) :], history)
        told.append(Evidence(str(signal), float(history[-1]), unit, frame.at, "mean of the rack's GPUs", shown))
    return tuple(told)


def _mean(window: Floats) -> Floats:
    """(n,) over the known values of the ticks; NaN where there is none."""
    known = ~np.isnan(window)
    counts = known.sum(axis=0)
    total = np.where(known, window, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, counts, out=np.full(window.shape[1], np.nan), where=counts > 0)
    return mean
