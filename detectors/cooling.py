"""Cooling that gets worse: a temperature that power, the room and the neighbours do not explain.

Mechanism: at a steady load a GPU sits above the air or water that cools it by its power times its thermal resistance.
Dust, dried paste, a loose heat sink, a tired pump or fan raise the resistance, long before any limit is reached; warm
supply raises all of a rack alike. The air that reaches a GPU is warmed by those in front of it, and the fans follow the
hottest of them. So each GPU's temperature is compared with the line through its own past (means of five minutes, hours
of them) in its own power, its node's and its rack's, drawn towards the line of its model as long as its own past is
short, and what all nodes of the rack have in common is taken out. What all GPUs of a node have is the node's, and a rack
is compared with the other racks in the same way.
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
    NodeSignal,
    Said,
    Scatter,
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
    node_deviations: the same for the median of a node's GPUs.
    rack_least_c: the same for a rack against the other racks.
    alone_least_c: for a rack that has no other to be compared with: the weather is in it.
    """

    gpu_least_c: float = 4.0
    gpu_deviations: float = 5.0
    node_deviations: float = 4.0
    rack_least_c: float = 3.0
    alone_least_c: float = 6.0


_NOW = timedelta(minutes=5)
_NOISE_C = 1.0  # of one mean of five minutes about the GPU's line, with what rounding, fans and the job's kind add
_RESISTANCE_C = 5.5  # for each hundred watts, of a board whose model nobody has seen under changing load
_POSSIBLE_RESISTANCE_C = (2.0, 15.0)
_AROUND_SPREAD = (1.0, 0.6)  # C for each hundred watts of the node's GPUs, and of the rack's: warm air, and fans
_RESISTANCE_SPREAD = 0.15  # between boards of one model, as a share
_LEVEL_SPREAD_C = 6.0  # between the slots of a chassis
_LARGEST_CHANGE = 0.2  # of the mean power from the minutes before: what is more has not settled yet
_LEAST_CHANGE_W = 50.0
_MOST_DOUBT_C = 2.5  # of the expectation; beyond that nothing is said
_FEWEST = 3  # nodes, or racks, that make a crowd
_MOST_OF_NODE = _MOST_OF_RACK = 0.75


def detect(frame: Frame, settings: Settings) -> Findings:
    excess = _excess(frame)
    common = _common(frame, excess)
    nodes = _nodes(frame, settings, excess, common)
    return _gpus(frame, settings, excess, common) + nodes + _racks(frame, settings, excess, common)


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
        of_node: (n_nodes,) the median over the node's GPUs of what is left; NaN where they are no crowd.
        of_rack: (n_racks,) the median over the rack's nodes.
        of_others: (n_racks,) the same of the other racks.
        share: (n_racks,) of its nodes that are warmer than the other racks by most of what the rack is.
        has_others: whether there are other racks to compare with.
    """

    of_gpu: Floats
    of_node: Floats
    of_rack: Floats
    of_others: Floats
    share: Floats
    has_others: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Each GPU's temperature as a line in its own power, its node's and its rack's, in hundreds of watts.

    Attributes:
        scatter: of the GPU's past.
        slope: (n_gpus,) of the GPU's model, in its own power.
        slopes: (n_gpus, 3)
        doubts: (n_gpus, 3, 3) the covariance of the slopes.
    """

    scatter: Scatter
    slope: Floats
    slopes: Floats
    doubts: Floats


def _excess(frame: Frame) -> _Excess:
    n = len(frame.gpus)
    temperatures, powers = frame.window(Signal.GPU_TEMPERATURE, _NOW), frame.window(Signal.POWER, _NOW)
    unknown = np.full(n, np.nan)
    if temperatures.shape != powers.shape or frame.times[0] > -2 * _NOW.total_seconds() + 1.0:
        return _Excess(unknown, unknown, unknown, unknown)
    temperature, power = _mean(temperatures), _mean(powers)
    around = _explaining(frame, power)
    before = _explaining(frame, _mean(frame.window(Signal.POWER, 2 * _NOW)[: -len(powers)]))
    change = np.abs(around - before)[:2]  # the air in front of a rack follows slowly, but not by much
    steady = (change <= np.maximum(_LARGEST_CHANGE * around[:2], _LEAST_CHANGE_W / 100.0)).all(axis=0)
    expected, doubt = _expected(frame, around.T, temperature)
    told = steady & frame.current & (doubt <= _MOST_DOUBT_C)
    return _Excess(np.where(told, temperature - expected, np.nan), np.where(told, doubt, np.nan), power, temperature)


def _explaining(frame: Frame, power_w: Floats) -> Floats:
    """(3, n_gpus) hundreds of watts: of the GPU itself, of its node's GPUs and of its rack's on average."""
    around = [frame.nodes.groups, frame.racks.groups]
    means = [groups.spread(groups.means(power_w)) for groups in around]
    return np.array([power_w, *(np.where(np.isnan(mean), power_w, mean) for mean in means)]) / 100.0


def _expected(frame: Frame, around: Floats, temperature: Floats) -> tuple[Floats, Floats]:
    """The temperature that each GPU's past lets expect at the present power, and the doubt in it.

    What the own past says, at the present power, and what the model's line says, each as much as it is worth: a GPU
    without a past is expected to be as its model is, within a wide margin.
    """
    lines = frame.past.once("cooling", lambda: _lines(frame))
    peers, power = frame.gpus.peers, around[:, 0]
    n_peers = int(peers.max(initial=-1)) + 1
    of_model = grouped_medians(peers, temperature - lines.slope * power, n_peers)[peers] + lines.slope * power
    count = np.maximum(lines.scatter.count, 1e-9)
    away = around - lines.scatter.x
    own = lines.scatter.y + (away * lines.slopes).sum(axis=1)
    variance = _NOISE_C**2 / count + np.einsum("ni,nij,nj->n", away, lines.doubts, away)
    weight = _LEVEL_SPREAD_C**2 / (_LEVEL_SPREAD_C**2 + variance)
    expected = weight * own + (1.0 - weight) * of_model
    return expected, np.sqrt(weight * variance + _NOISE_C**2)


def _lines(frame: Frame) -> _Lines:
    """Bayesian regression; the slope in the own power is drawn towards the model's, the other two towards nothing."""
    power = frame.past.mean(Signal.POWER)
    around = np.array([_explaining(frame, slot.astype(np.float64)) for slot in power], dtype=np.float32)
    explaining = [around[:, i] for i in range(3)] if len(power) else [power] * 3
    scatter = Scatter.of(explaining, frame.past.mean(Signal.GPU_TEMPERATURE))
    peers = frame.gpus.peers
    slope = _slopes(scatter, peers, int(peers.max(initial=-1)) + 1)[peers]
    prior = np.column_stack([slope, np.zeros(len(peers)), np.zeros(len(peers))])
    spread = np.column_stack([_RESISTANCE_SPREAD * slope, *(np.full(len(peers), each) for each in _AROUND_SPREAD)])
    precision = scatter.xx / _NOISE_C**2 + np.eye(3) * (spread**-2)[:, None, :]
    doubts = np.linalg.inv(precision)
    slopes = np.einsum("nij,nj->ni", doubts, scatter.xy / _NOISE_C**2 + prior * spread**-2)
    return _Lines(scatter, slope, slopes, doubts)


def _slopes(scatter: Scatter, peers: Ints, n_peers: int) -> Floats:
    """(n_peers,) kelvins per hundred watts of each model: what its GPUs' own lines have in common."""
    varied = np.bincount(peers, weights=scatter.xx[:, 0, 0], minlength=n_peers)
    together = np.bincount(peers, weights=scatter.xy[:, 0], minlength=n_peers)
    known = np.bincount(peers, weights=scatter.count >= 2, minlength=n_peers)
    enough = varied > 0.01 * known + 1.0
    slopes = together / np.maximum(varied, 1e-3)
    return np.clip(np.where(enough, slopes, _RESISTANCE_C), *_POSSIBLE_RESISTANCE_C)


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
    apart = excess.warmer_c - of_gpu
    together = np.where(nodes.count(~np.isnan(apart)) >= _FEWEST, nodes.medians(apart), np.nan)
    return _Common(of_gpu, together, of_rack, of_others, share, len(measured) > 1)


def _gpus(frame: Frame, settings: Settings, excess: _Excess, common: _Common) -> Findings:
    """Those that are warmer than the others of their node: what a node has as a whole is the node's."""
    own = excess.warmer_c - common.of_gpu
    own -= np.nan_to_num(frame.nodes.groups.spread(common.of_node))
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


def _nodes(frame: Frame, settings: Settings, excess: _Excess, common: _Common) -> Findings:
    """Nodes all of whose GPUs are warmer than expected: a fan, a pump, a filter."""
    groups, own = frame.nodes.groups, common.of_node
    doubt = groups.medians(excess.doubt_c)
    follows = excess.warmer_c - common.of_gpu >= 0.5 * np.nan_to_num(groups.spread(own))
    share = groups.count(follows) / np.maximum(groups.count(~np.isnan(excess.warmer_c)), 1)
    warm = (own >= settings.gpu_least_c) & (own >= settings.node_deviations * doubt) & (share >= _MOST_OF_NODE)

    health = np.full(len(groups), Health.UNKNOWN, dtype=np.int8)
    health[~np.isnan(own)] = Health.HEALTHY
    health[warm] = Health.DEGRADED

    def describe(row: int) -> Said:
        members = groups.members(row)
        reason = f"its {len(members)} GPUs are {own[row]:.1f} C warmer than their own past and the other nodes explain"
        deviations = own[row] / doubt[row]
        return Said(reason, _mean_evidence(frame, members), score=float(deviations / (deviations + 2.5)))

    return findings(MODES[0], ComponentKind.NODE, health, groups.components, describe, basis=Basis.LEARNT)


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
        told = _mean_evidence(frame, members)
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


def _mean_evidence(frame: Frame, members: Ints) -> tuple[Evidence, ...]:
    told = []
    for signal, unit in ((Signal.GPU_TEMPERATURE, "C"), (Signal.POWER, "W")):
        history = _mean(frame.window(signal, timedelta(minutes=10))[:, members].T)
        shown = points(frame.signals.times_s[-len(history) :], history)
        told.append(Evidence(str(signal), float(history[-1]), unit, frame.at, f"mean of {len(members)} GPUs", shown))
    return tuple(told)


def _mean(window: Floats) -> Floats:
    """(n,) over the known values of the ticks; NaN where there is none."""
    known = ~np.isnan(window)
    counts = known.sum(axis=0)
    total = np.where(known, window, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, counts, out=np.full(window.shape[1], np.nan), where=counts > 0)
    return mean
