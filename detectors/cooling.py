"""Cooling that gets worse: a temperature that power, the room and the neighbours do not explain.

Mechanism: at a steady load a GPU sits above the air or water that cools it by its power times its thermal resistance.
Dust, dried paste, a loose heat sink, a tired pump or fan raise the resistance, long before any limit is reached; warm
supply raises all of a rack alike. The air that reaches a GPU is warmed by those in front of it, and the fans follow the
hottest of them. So each GPU's temperature is compared with what it was in the last hours when it, and its node, drew
about as much as now, less what the air became warmer that goes into its rack, if its nodes tell of it; then what all
nodes of the rack have in common is taken out. What all GPUs of a node have is the node's, and a rack is compared with
the other racks in the same way; so is the air that goes into it, which needs no load. A load that was not seen before
tells nothing.
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
    GroupAxis,
    Health,
    Ints,
    NodeSignal,
    Said,
    Signal,
    Singles,
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
    least_c: a GPU, or a node, that is warmer than expected by less is left alone, ...
    deviations: ... and so is one within so many standard deviations of what its past allows.
    rack_least_c: the same for a rack against the other racks, of which there are two or more, ...
    rack_deviations: ... and for what their past allows.
    inlet_c: the air that goes into a rack's nodes has become warmer by so much, against that of the other racks.
    alone_least_c: for a rack that has no other to be compared with: the weather is in it.
    """

    least_c: float = 4.0
    deviations: float = 4.0
    rack_least_c: float = 2.5
    rack_deviations: float = 3.0
    inlet_c: float = 4.0
    alone_least_c: float = 6.0


_NOW = timedelta(minutes=5)
_ALIKE_W = 50.0  # of the GPU, and of its node's GPUs on average
_UNLIKE_ANY_W = np.float32(-1e9)
_FEWEST_ALIKE = 3  # slots of the past
_NOISE_C = 0.9  # of one mean of five minutes, with what rounding, fans and the job's kind add
_ALIKE_BESIDES = 4.0  # slots that follow one another err alike: so many count as one
_RESISTANCE_C_PER_W = 0.055  # of a board whose model nobody has seen under changing load
_POSSIBLE_RESISTANCE_C_PER_W = (0.02, 0.15)
_RESISTANCE_SPREAD = 0.3
_AIR_C_PER_W = 0.005  # how much a rack may warm its own air with each watt that its GPUs draw on average
# Of the mean power from the minutes before: what is more has not settled yet, or has a pause in it, and fans lag.
_LARGEST_CHANGE, _LEAST_CHANGE_W = 0.06, 30.0
_LARGEST_CHANGE_ALONE = 2.0  # times as much for a single GPU
_FEWEST = 3  # nodes, or racks, that make a crowd
_FEWEST_WORKING = 2  # nodes of a rack
_FEWEST_SLOTS = 6
_BLOCK = 1024  # GPUs that are compared with the past at a time: so much fits a core's cache
_HALF, _MOST = 0.5, 0.75
_WORKS = 0.6  # of the power of the node of a rack that draws most


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
        air_c: how much of it the air may be that the rack warms by itself.
    """

    warmer_c: Floats
    doubt_c: Floats
    air_c: Floats
    power_w: Floats
    temperature_c: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Common:
    """What GPUs have in common with those around them.

    Attributes:
        of_gpu: (n_gpus,) of its rack, of the fleet where the rack is no crowd, of its node where the fleet is none.
        elsewhere: (n_gpus,) whether it is not of its rack.
        of_node: (n_nodes,) the median over the node's GPUs of what is left; NaN where they are no crowd.
        of_rack: (n_racks,) the median over the rack's nodes that work.
        of_others: (n_racks,) the same of the other racks.
        share: (n_racks,) of its nodes that work, those that are warmer than the other racks by most of what the rack
            is; 0 where too few of its nodes work.
        racks: how many racks there are to compare with one another.
    """

    of_gpu: Floats
    elsewhere: Bools
    of_node: Floats
    of_rack: Floats
    of_others: Floats
    share: Floats
    racks: int


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """What the hours before were like, for all of a slot's length. Single precision is a thousandth of a kelvin.

    Attributes:
        power_w: (n_slots, n_gpus) unlike any where it tells nothing: unknown, or the load had just changed.
        cool_c: (n_slots, n_gpus) the temperature less what the power adds by the slope; 0 where that is unknown.
        node_w, rack_w: (n_slots, n_nodes) of the GPUs of the node, and of its rack, on average; NaN where unknown.
        slope: (n_gpus,) kelvins per watt, of the GPU's model.
        inlet_c: (n_slots, n_nodes) of the air that went into its rack, 0 where unknown; no slots if nobody tells.
        inlet_known: (n_slots, n_nodes) 1 where it is known.
    """

    power_w: Singles
    cool_c: Singles
    node_w: Singles
    rack_w: Singles
    slope: Floats
    inlet_c: Singles
    inlet_known: Singles


def _excess(frame: Frame) -> _Excess:
    n = len(frame.gpus)
    temperatures, powers = frame.window(Signal.GPU_TEMPERATURE, _NOW), frame.window(Signal.POWER, _NOW)
    unknown = np.full(n, np.nan)
    if temperatures.shape != powers.shape or frame.times[0] > -2 * _NOW.total_seconds() + 1.0:
        return _Excess(unknown, unknown, unknown, unknown, unknown)
    temperature, power = _mean(temperatures), _mean(powers)
    before = _mean(frame.window(Signal.POWER, 2 * _NOW)[: -len(powers)])
    node, node_before = (_around(frame.nodes.groups, each) for each in (power, before))
    told = frame.current & _settled(power, before, _LARGEST_CHANGE_ALONE) & _settled(node, node_before)
    half = len(powers) // 2
    told &= _settled(_mean(powers[half:]), _mean(powers[:half]), _LARGEST_CHANGE_ALONE)  # a load that swings does not

    nodes = frame.nodes.groups
    # The axis is kept beside, so that no other one can come to have its identity.
    _, past = frame.past.once(f"cooling {id(nodes)}", lambda: (nodes, _past(frame)))
    alike = _alike(frame, past, power, node)
    told &= alike.count >= _FEWEST_ALIKE
    count = np.where(told, alike.count, np.nan)
    bent = _RESISTANCE_SPREAD * past.slope * (power - alike.power_w / count)
    doubt = np.sqrt(_NOISE_C**2 * (1.0 + _ALIKE_BESIDES / count) + bent**2)
    air = _AIR_C_PER_W * np.abs(_around(frame.racks.groups, power) - alike.rack_w / count)
    colder = np.zeros(n)
    if len(past.inlet_c):
        inlets = _mean(frame.nodes.signals.window(NodeSignal.INLET_TEMPERATURE, _NOW))
        inlet = nodes.spread(_of_their_racks(frame, inlets))
        colder = np.nan_to_num(inlet * alike.inlet_count - alike.inlet_c) / count
    warmer = temperature - past.slope * power - alike.cool_c / count - colder
    return _Excess(np.where(told, warmer, np.nan), doubt, air, power, temperature)


@dataclass(frozen=True, slots=True, eq=False)
class _Alike:
    """Sums over the slots in which a GPU, and its node, drew about as much as now. Arrays: (n_gpus,).

    Attributes:
        inlet_count: of how many of the slots the air that went in is known.
    """

    count: Floats
    cool_c: Floats
    power_w: Floats
    rack_w: Floats
    inlet_c: Floats
    inlet_count: Floats


def _alike(frame: Frame, past: _Past, power_w: Floats, node_w: Floats) -> _Alike:
    sums = np.zeros((6, len(power_w)))
    node = frame.nodes.groups.of_gpu
    for first in range(0, len(power_w), _BLOCK):
        gpus = slice(first, first + _BLOCK)
        then_w = past.power_w[:, gpus]
        alike = np.abs(then_w - power_w[gpus].astype(np.float32)) <= _ALIKE_W
        node_then_w = _spread(past.node_w, node[gpus], then_w)
        alike &= np.abs(node_then_w - node_w[gpus].astype(np.float32)) <= _ALIKE_W
        picked = alike.astype(np.float32)
        told = [past.cool_c[:, gpus], then_w, _spread(past.rack_w, node[gpus], then_w)]
        if len(past.inlet_c):
            told += [_spread(each, node[gpus], np.zeros_like(then_w)) for each in (past.inlet_c, past.inlet_known)]
        sums[0, gpus] = picked.sum(axis=0)
        for number, each in enumerate(told, start=1):
            sums[number, gpus] = np.einsum("sg,sg->g", picked, each)
    return _Alike(*sums)


def _spread(of_groups: Singles, of_gpu: Ints, otherwise: Singles) -> Singles:
    """(n_slots, n) of `of_groups` (n_slots, n_groups) what each GPU's group has; `otherwise` for a GPU in none, and
    where that is unknown.
    """
    if not of_groups.shape[1]:
        return otherwise
    spread = of_groups[:, np.maximum(of_gpu, 0)]
    alone = np.isnan(spread) | (of_gpu < 0)
    return np.where(alone, otherwise, spread) if alone.any() else spread


def _of_their_racks(frame: Frame, of_nodes: Floats) -> Floats:
    """(n_nodes,) of `of_nodes` (n_nodes,) the median over the rack of each node, counted by GPUs; NaN where unknown."""
    of_racks = frame.racks.groups.medians(frame.nodes.groups.spread(of_nodes))
    return np.append(of_racks, np.nan)[frame.rack_of_nodes]  # the last stands for none


def _settled(now_w: Floats | Singles, before_w: Floats | Singles, times: float = 1.0) -> Bools:
    settled: Bools = np.abs(now_w - before_w) <= times * np.maximum(_LARGEST_CHANGE * now_w, _LEAST_CHANGE_W)
    return settled


def _around(groups: GroupAxis, power_w: Floats) -> Floats:
    """(n_gpus,) the mean over the GPU's group; its own where it is in none."""
    mean = groups.spread(groups.means(power_w))
    return np.where(np.isnan(mean), power_w, mean)


def _past(frame: Frame) -> _Past:
    power, temperature = frame.past.mean(Signal.POWER), frame.past.mean(Signal.GPU_TEMPERATURE)
    slots = min(len(power), len(temperature))
    power, temperature = power[:slots], temperature[:slots]
    node, rack = _means(frame, power)
    around = _spread(node, frame.nodes.groups.of_gpu, power)
    told = ~np.isnan(temperature)
    told[1:] &= _settled(power[1:], power[:-1], _LARGEST_CHANGE_ALONE) & _settled(around[1:], around[:-1])
    told[:-1] &= _settled(around[:-1], around[1:])  # a pause shows in the slot that has it, and against both beside it
    told[:1] = False
    slope = _slopes(power, temperature, frame.gpus.peers)
    cool = np.where(told, temperature - slope.astype(np.float32) * power, np.float32(0))
    inlet = np.empty((0, len(frame.nodes)), dtype=np.float32)
    if len(frame.nodes.inlet_past_c) == slots and np.isfinite(frame.nodes.inlet_past_c).any():
        inlet = np.array([_of_their_racks(frame, row) for row in frame.nodes.inlet_past_c], dtype=np.float32)
    return _Past(
        power_w=np.where(told, power, _UNLIKE_ANY_W),
        cool_c=cool,
        node_w=node,
        rack_w=rack,
        slope=slope,
        inlet_c=np.nan_to_num(inlet),
        inlet_known=(~np.isnan(inlet)).astype(np.float32),
    )


def _means(frame: Frame, slots: Singles) -> tuple[Singles, Singles]:
    """(n_slots, n_nodes) of `slots` (n_slots, n_gpus) the mean of each node, and of its rack."""
    nodes, racks, rack = frame.nodes.groups, frame.racks.groups, frame.rack_of_nodes
    of_nodes, of_racks = (np.empty((len(slots), len(nodes)), dtype=np.float32) for _ in range(2))
    for number, slot in enumerate(slots):
        watts = slot.astype(np.float64)
        of_nodes[number] = nodes.means(watts)
        of_racks[number] = np.append(racks.means(watts), np.nan)[rack]  # the last stands for none
    return of_nodes, of_racks


def _slopes(power: Singles, temperature: Singles, peers: Ints) -> Floats:
    """(n_gpus,) kelvins per watt, of each GPU's model: what the lines through its GPUs' pasts have in common."""
    count, x, y, xx, xy = (np.zeros(len(peers)) for _ in range(5))
    for watts, kelvins in zip(power.astype(np.float64), temperature, strict=True):
        known = ~np.isnan(watts) & ~np.isnan(kelvins)
        count += known
        x += np.where(known, watts, 0.0)
        y += np.where(known, kelvins, 0.0)
        xx += np.where(known, watts * watts, 0.0)
        xy += np.where(known, watts * kelvins, 0.0)
    several = np.maximum(count, 1.0)
    n_peers = int(peers.max(initial=-1)) + 1
    varied = np.bincount(peers, weights=xx - x * x / several, minlength=n_peers)
    together = np.bincount(peers, weights=xy - x * y / several, minlength=n_peers)
    enough = varied > 100.0 * np.bincount(peers, weights=count >= 2, minlength=n_peers) + 1e4
    slopes = np.where(enough, together / np.maximum(varied, 1.0), _RESISTANCE_C_PER_W)
    return np.clip(slopes, *_POSSIBLE_RESISTANCE_C_PER_W)[peers]


def _common(frame: Frame, excess: _Excess) -> _Common:
    nodes, racks = frame.nodes.groups, frame.racks.groups
    of_node, watts = nodes.medians(excess.warmer_c), nodes.means(excess.power_w)
    rack_of_node = frame.rack_of_nodes
    rack = np.maximum(rack_of_node, 0)
    # Less air is hardly felt by nodes that rest: a rack is what those are that work.
    known = np.flatnonzero((rack_of_node >= 0) & ~np.isnan(of_node))
    most_w = np.zeros(max(len(racks), 1))
    np.maximum.at(most_w, rack[known], watts[known])
    works = np.where(watts >= _WORKS * most_w[rack], of_node, np.nan)
    of_rack = grouped_medians(rack_of_node, works, len(racks))
    working = (rack_of_node >= 0) & ~np.isnan(works)
    n_working = np.bincount(rack_of_node[working], minlength=len(racks))
    measured = np.flatnonzero(n_working >= _FEWEST_WORKING)
    of_others = _of_others(of_rack, measured)
    crowd = np.bincount(rack_of_node[known], minlength=len(racks))
    all_of_rack = grouped_medians(rack_of_node, of_node, len(racks))
    fleet = float(np.median(of_node[known])) if len(known) >= _FEWEST else np.nan
    in_crowd = racks.spread(np.where(crowd >= _FEWEST, all_of_rack, np.nan))
    of_gpu = np.where(np.isnan(in_crowd), np.where(np.isnan(fleet), nodes.spread(of_node), fleet), in_crowd)

    more = (of_rack - of_others)[rack] if len(racks) else np.zeros(len(nodes))
    warm = working & (works - of_others[rack] >= 0.7 * more) if len(racks) else working
    in_rack = np.bincount(rack_of_node[rack_of_node >= 0], minlength=len(racks))
    share = np.bincount(rack_of_node[warm], minlength=len(racks)) / np.maximum(n_working, 1)
    share[n_working < np.maximum(_FEWEST_WORKING, _HALF * in_rack)] = 0.0  # too few to speak for the rack
    apart = excess.warmer_c - of_gpu
    together = np.where(nodes.count(~np.isnan(apart)) >= _FEWEST, nodes.medians(apart), np.nan)
    return _Common(of_gpu, np.isnan(in_crowd), together, of_rack, of_others, share, len(measured))


def _gpus(frame: Frame, settings: Settings, excess: _Excess, common: _Common) -> Findings:
    """Those that are warmer than the others of their node: what a node has as a whole is the node's."""
    own = excess.warmer_c - common.of_gpu
    own -= np.nan_to_num(frame.nodes.groups.spread(common.of_node))
    # How far healthy GPUs are off right now says how well the lines hold right now.
    spread = 1.48 * float(np.nanmedian(np.abs(own))) if np.isfinite(own).any() else 0.0
    doubt = np.hypot(np.hypot(excess.doubt_c, spread), np.where(common.elsewhere, excess.air_c, 0.0))
    warm: Bools = (own >= settings.least_c) & (own >= settings.deviations * doubt)

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
    doubt = groups.medians(np.hypot(excess.doubt_c, np.where(common.elsewhere, excess.air_c, 0.0)))
    follows = excess.warmer_c - common.of_gpu >= 0.5 * np.nan_to_num(groups.spread(own))
    share = groups.count(follows) / np.maximum(groups.count(frame.current), 1)
    warm = (own >= settings.least_c) & (own >= settings.deviations * doubt) & (share >= _MOST)

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
    doubt = frame.racks.groups.medians(np.hypot(0.5 * excess.doubt_c, excess.air_c))  # many GPUs err less than one
    least = _rack_least(settings, common.racks)
    warm = (own >= least) & (own >= settings.rack_deviations * doubt) & (common.share >= _MOST)
    warm &= common.of_rack >= _HALF * least  # it is the rack that got warmer, not the others that got colder

    inlets, by_inlet = _inlets(frame, settings)

    health = np.full(len(frame.racks), Health.UNKNOWN, dtype=np.int8)
    # Cool air that goes in does not say that it goes through, nor do too few nodes that are warm say that all is well.
    health[own < least] = Health.HEALTHY
    health[warm | by_inlet] = Health.DEGRADED
    inlet = frame.nodes.signals

    def describe(row: int) -> Said:
        compared = "the other racks" if common.racks > 1 else "its own past"
        reasons = []
        if warm[row]:
            reasons.append(f"its GPUs are {own[row]:.1f} C warmer than their power explains, against {compared}")
        if by_inlet[row]:
            reasons.append(f"the air that goes in has become {inlets[row]:.1f} C warmer, against {compared}")
        members = frame.racks.groups.members(row)
        nodes = np.unique(frame.nodes.groups.of_gpu[members])
        air = inlet.gauges.get(NodeSignal.INLET_TEMPERATURE)
        told = _mean_evidence(frame, members)
        if air is not None and np.isfinite(air[:, nodes]).any():
            history = _mean(air[:, nodes].T)
            reasons.append(f"{'it' if by_inlet[row] else 'the air that goes in'} is at {history[-1]:.0f} C")
            told += (
                Evidence(
                    "inlet", float(history[-1]), "C", frame.at, "mean of the rack", points(inlet.times_s, history)
                ),
            )
        size = own[row] / least if warm[row] else inlets[row] / settings.inlet_c
        return Said("; ".join(reasons), told, score=float(size / (size + 1.0)))

    return findings(MODES[1], ComponentKind.RACK, health, frame.racks.components, describe, basis=Basis.LEARNT)


def _rack_least(settings: Settings, racks: int) -> float:
    """Of two racks the other one errs as much as the one itself."""
    if racks >= _FEWEST:
        return settings.rack_least_c
    return 0.5 * (settings.rack_least_c + settings.alone_least_c) if racks > 1 else settings.alone_least_c


def _inlets(frame: Frame, settings: Settings) -> tuple[Floats, Bools]:
    """(n_racks,) by how many kelvins the air that goes in is warmer than it was, against the other racks; NaN where
    that is unknown. And where it is too much, at most of the nodes.
    """
    groups, racks = frame.nodes.groups, frame.racks.groups
    past, now = frame.nodes.inlet_past_c, frame.nodes.signals.window(NodeSignal.INLET_TEMPERATURE, _NOW)
    told = np.isfinite(past).sum(axis=0) >= _FEWEST_SLOTS
    if not told.any() or not len(now):
        return np.full(len(racks), np.nan), np.zeros(len(racks), dtype=np.bool_)
    told &= np.isfinite(now[-1])
    rise = np.full(len(groups), np.nan)
    rise[told] = _mean(now)[told] - np.nanmedian(past[:, told], axis=0)
    rack_of_node = frame.rack_of_nodes
    known = (rack_of_node >= 0) & told
    count = np.bincount(rack_of_node[known], minlength=len(racks))
    of_rack = np.where(count >= _FEWEST_WORKING, grouped_medians(rack_of_node, rise, len(racks)), np.nan)
    measured = np.flatnonzero(~np.isnan(of_rack))
    others = _of_others(of_rack, measured)
    least = settings.inlet_c if len(measured) > 1 else settings.alone_least_c
    warm = known & (rise - others[np.maximum(rack_of_node, 0)] >= _HALF * least)
    share = np.bincount(rack_of_node[warm], minlength=len(racks)) / np.maximum(count, 1)
    own = of_rack - others
    return own, (own >= least) & (of_rack >= _HALF * least) & (share >= _MOST)


def _of_others(of_rack: Floats, measured: Ints) -> Floats:
    """(n_racks,) the median of the racks that are measured; of two the other one; 0 where there is no other."""
    of_others = np.zeros(len(of_rack))
    if len(measured) >= _FEWEST:
        of_others[:] = np.median(of_rack[measured])
    elif len(measured) > 1:
        of_others[measured] = of_rack[measured[::-1]]
    return of_others


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
