"""Trouble: puts faults of random kinds into the plan of a day, each where it can be seen and nothing else goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from healer.domain.axes import Ints
from healer.sim.days.plan import Need, Plan, Seeming, Told
from healer.sim.days.rules import RULES, Aim, Needs, Rule, visible_variants
from healer.sim.faults import SHAPES, Fault, FaultKind
from healer.sim.jobs.profile import JobKind
from healer.sim.jobs.run import Run
from healer.sim.jobs.schedule import Absence
from healer.sim.marks import Swap
from healer.sim.physics import MAX_LIMIT_W
from healer.sim.strikes.all import aimed_at, struck
from healer.sim.strikes.power import OTHER_LOAD_W

_TRIES = 80
_LIGHT = frozenset({JobKind.NOTEBOOK, JobKind.SMALL, JobKind.PREPROCESSING, JobKind.INFERENCE})
_EARLIEST_S, _LATEST = 1800.0, 0.92
_HEAVY = 0.5
_SEEN_WITHIN_S = 1200.0  # of work
_FOLLOWS_STORM = 0.3


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where and when a fault could strike."""

    at_s: float
    lasts_s: float
    node: int | None = None
    gpu: int | None = None  # of the whole fleet
    rack: str | None = None
    severity: float | None = None
    workers: tuple[int, ...] = ()  # the GPUs whose work it takes to see it


def add_faults(plan: Plan, kinds: Sequence[FaultKind]) -> None:
    """One of each that is named, as far as there is room for it; the wide ones are placed first."""
    for kind in sorted(kinds, key=_width):
        variants = visible_variants(kind, plan.site)
        if variants is None:
            continue
        for _ in range(_TRIES):
            variant = str(plan.rng.choice(variants))
            spot = _spot(plan, kind, RULES[kind], variant)
            if spot is not None and plan.tried(partial(_strike, plan, kind, spot, variant)):
                break


def add_given(plan: Plan, faults: Sequence[Fault]) -> None:
    """Just these, wherever they strike."""
    for fault in sorted(faults, key=lambda fault: fault.at_s):
        happening = struck(fault, plan.scene, at_s=fault.at_s, rng=plan.rng)
        end_s = math.inf if fault.duration_s is None else fault.at_s + fault.duration_s
        plan.add(happening, until_s=end_s)
        severity = 1.0 if fault.severity is None else fault.severity
        variant = fault.variant or next(iter(SHAPES[fault.kind].variants), "")
        plan.told.append(Told(happening.claim, fault.at_s, end_s, severity, fault.kind, variant))
        plan.take(plan.nodes_of(aimed_at(fault, plan.site.layout)), fault.at_s, end_s)


def drawn_kinds(plan: Plan, count: int, among: Sequence[FaultKind] | None) -> list[FaultKind]:
    known = [kind for kind in (among or tuple(RULES)) if visible_variants(kind, plan.site) is not None]
    weights = np.array([RULES[kind].weight for kind in known])
    picked = plan.rng.choice(len(known), size=count, p=weights / weights.sum()) if known else ()
    return [known[number] for number in picked]


def _width(kind: FaultKind) -> int:
    aim = RULES[kind].aims[0][0]
    if aim is Aim.GPU and RULES[kind].needs is Needs.GANG:
        return 2
    return {Aim.SITE: 0, Aim.RACK: 1, Aim.NODE: 3, Aim.GPU: 4}[aim]


def _spot(plan: Plan, kind: FaultKind, rule: Rule, variant: str) -> _Spot | None:
    rng = plan.rng
    low_s, high_s = rule.lasts_s
    lasts_s = low_s * (high_s / low_s) ** rng.random()
    at_s = rng.uniform(min(_EARLIEST_S, 0.1 * plan.duration_s), _LATEST * plan.duration_s)
    aim = Aim(rng.choice([aim for aim, _ in rule.aims], p=[weight for _, weight in rule.aims]))
    if kind is FaultKind.JOB_STALLED:  # what is said to hang everywhere is a node's storage
        aim = Aim.NODE if variant == "storage" else Aim.GPU
    if rng.random() < rule.stays:
        lasts_s = math.inf
    if aim is Aim.SITE:
        return _Spot(at_s, lasts_s)
    if aim is Aim.RACK:
        return _rack_spot(plan, kind, variant, at_s, lasts_s)
    if rule.needs is Needs.NOTHING:
        gpu = int(rng.integers(plan.site.layout.n_gpus))
        return _Spot(at_s, lasts_s, node=gpu // plan.site.layout.gpus_per_node, gpu=gpu if aim is Aim.GPU else None)
    several = rule.needs is Needs.GANG and aim is Aim.NODE  # else all of the gang would be to blame
    run = _victim(plan, rule.needs, at_s, lasts_s, several=several)
    if run is None:
        return None
    if rule.needs is Needs.GANG and at_s + lasts_s > run.end_s:  # with the job, what is wrong with it is over
        lasts_s = math.inf if run.end_s > plan.duration_s else run.end_s - at_s
    gpu = int(rng.choice(run.gpus))
    node = gpu // plan.site.layout.gpus_per_node
    return _Spot(at_s, lasts_s, node=node, gpu=gpu if aim is Aim.GPU else None, workers=(gpu,))


def _victim(plan: Plan, needs: Needs, at_s: float, lasts_s: float, *, several: bool) -> Run | None:
    """A run that is at work then, and stays at it long enough."""
    long_s = min(lasts_s, 2.0 * _SEEN_WITHIN_S)
    fit = [run for run in plan.runs if _serves(plan, run, needs, at_s) and run.end_s > at_s + long_s]
    if several:
        fit = [run for run in fit if len(plan.nodes_of(run.gpus)) > 1]
    if not fit:
        return None
    sizes = np.array([len(run.gpus) for run in fit], dtype=np.float64) ** 0.5
    return fit[int(plan.rng.choice(len(fit), p=sizes / sizes.sum()))]


def _serves(plan: Plan, run: Run, needs: Needs, at_s: float) -> bool:
    if not plan.is_at_work(run, at_s):
        return False
    match needs:
        case Needs.GANG:
            return run.profile.synced and len(run.gpus) >= 4 and run.profile.kind not in _LIGHT
        case Needs.HEAT:
            return run.profile.active.power > _HEAVY and run.profile.kind not in _LIGHT
        case Needs.WORK | Needs.NOTHING:
            return run.profile.kind is not JobKind.NOTEBOOK


def _rack_spot(plan: Plan, kind: FaultKind, variant: str, at_s: float, lasts_s: float) -> _Spot | None:
    site, layout = plan.site, plan.site.layout
    rack = str(plan.rng.choice(layout.racks))
    if kind is FaultKind.POWER_FEED_LOST:
        return _Spot(at_s, lasts_s, rack=rack)
    gpus = np.flatnonzero(layout.gpus_of_rack(rack))
    there = plan.occupants(at_s)
    until_s = at_s + min(lasts_s, 3600.0)
    heavy = [gpu for gpu in gpus.tolist() if gpu in there and _is_heavy(plan, there[gpu], at_s, until_s)]
    if len(heavy) < 0.5 * len(gpus):
        return None
    workers = tuple(heavy)
    if kind is not FaultKind.LOAD_SURGE:
        return _Spot(at_s, lasts_s, rack=rack, workers=workers)
    budget_w = site.rack_budget_w[rack]
    if variant == "caps_lost":
        idle_w = (len(gpus) - len(there.keys() & set(gpus.tolist()))) * MAX_LIMIT_W
        enough = 0.96 * site.most_w(rack, MAX_LIMIT_W) - idle_w > 1.02 * budget_w
        return _Spot(at_s, lasts_s, rack=rack, workers=workers) if enough else None
    nodes = len(gpus) // layout.gpus_per_node
    wanted_w = (budget_w * plan.rng.uniform(1.06, 1.2) - _expected_w(plan, rack, there)) / nodes
    severity = (wanted_w - OTHER_LOAD_W[0]) / (OTHER_LOAD_W[1] - OTHER_LOAD_W[0])
    return _Spot(at_s, lasts_s, rack=rack, severity=severity, workers=workers) if 0 < severity <= 1 else None


def _is_heavy(plan: Plan, run: Run, at_s: float, until_s: float) -> bool:
    return run.end_s > until_s and _serves(plan, run, Needs.HEAT, at_s)


def _expected_w(plan: Plan, rack: str, there: Mapping[int, Run]) -> float:
    """Somewhat less than what the rack is likely to draw."""
    hall, layout = plan.site.hall, plan.site.layout
    gpu_w = 0.0
    for gpu in np.flatnonzero(layout.gpus_of_rack(rack)).tolist():
        run, boards = there.get(gpu), hall.boards
        load_w = 0.0 if run is None else boards.context_w + 0.9 * run.profile.active.power * 590.0
        gpu_w += min(hall.limit_w, boards.idle_w + load_w)
    nodes = len(layout.nodes_of(rack))
    return 0.93 * gpu_w * (1.0 + hall.supply.loss) + nodes * layout.gpus_per_node * hall.supply.chassis_w_per_gpu


def _strike(plan: Plan, kind: FaultKind, spot: _Spot, variant: str) -> bool:
    """Whether there was room for it."""
    rule, layout = RULES[kind], plan.site.layout
    if spot.at_s + spot.lasts_s > plan.duration_s:
        spot = replace(spot, lasts_s=math.inf)
    end_s = spot.at_s + spot.lasts_s
    fault = _fault(plan, kind, spot, variant)
    gpus = aimed_at(fault, layout)
    mended_s = end_s + plan.rng.uniform(240.0, 900.0) if rule.repaired else end_s
    swapped = rule.repaired and math.isfinite(end_s) and plan.rng.random() < rule.swapped
    own = plan.nodes_of(gpus) if fault.rack or fault.node else tuple(range(plan.nodes))
    with_them = _neighbours(plan, gpus, spot.at_s) - set(own)
    shared_s = min(end_s, spot.at_s + 5400.0)
    if not plan.is_free(own, spot.at_s, math.inf if swapped else mended_s):
        return False
    if not plan.is_free(with_them, spot.at_s, shared_s):
        return False
    plan.take(own, spot.at_s, math.inf if swapped else mended_s)
    plan.take(with_them, spot.at_s, shared_s)
    if spot.workers:
        plan.needs.append(Need(spot.workers, spot.at_s, spot.at_s + min(spot.lasts_s, _SEEN_WITHIN_S)))
    happening = struck(fault, plan.scene, at_s=spot.at_s, rng=plan.rng)
    plan.add(happening, until_s=mended_s)
    if kind is FaultKind.NODE_UNREACHABLE:
        plan.keep_off(Absence(own, spot.at_s, mended_s, spare=happening.claim.jobs))
    severity = 1.0 if fault.severity is None else fault.severity
    plan.told.append(Told(happening.claim, spot.at_s, end_s, severity, kind, variant))
    if rule.repaired and math.isfinite(end_s):
        _repair(plan, own, at_s=spot.at_s, end_s=end_s, mended_s=mended_s, swapped=gpus if swapped else None)
    if kind is FaultKind.CORRECTABLE_ECC_STORM and plan.rng.random() < _FOLLOWS_STORM:
        _follow(plan, spot, end_s)
    return True


def _fault(plan: Plan, kind: FaultKind, spot: _Spot, variant: str) -> Fault:
    shape, rule, layout, rng = SHAPES[kind], RULES[kind], plan.site.layout, plan.rng
    severity = spot.severity
    if severity is None and "severity" in shape.others:
        severity = float(rng.uniform(*rule.grades))
    ramp_s = None
    if rule.ramps_s is not None and rng.random() < 0.75:
        low_s, high_s = rule.ramps_s
        ramp_s = low_s * (high_s / low_s) ** rng.random()
    return Fault(
        kind=kind,
        at_s=spot.at_s,
        node=None if spot.node is None else layout.nodes[spot.node],
        gpu=None if spot.gpu is None else spot.gpu % layout.gpus_per_node,
        rack=spot.rack,
        duration_s=None if math.isinf(spot.lasts_s) else spot.lasts_s,
        severity=severity,
        variant=variant or None,
        ramp_s=ramp_s,
    )


def _neighbours(plan: Plan, gpus: Ints, at_s: float) -> set[int]:
    """The nodes on which anybody works with these GPUs."""
    there = plan.occupants(at_s)
    runs = {id(run): run for gpu in gpus.tolist() if (run := there.get(gpu)) is not None}
    return {node for run in runs.values() for node in plan.nodes_of(run.gpus)}


def _repair(
    plan: Plan, nodes: Sequence[int], *, at_s: float, end_s: float, mended_s: float, swapped: Ints | None
) -> None:
    """Somebody has noticed: the node is cordoned, emptied and rebooted, perhaps with another board."""
    cordon_s = max(at_s + 60.0, end_s - plan.rng.uniform(300.0, 2400.0))
    plan.take_down(nodes, cordon_s=cordon_s, down_s=end_s, up_s=mended_s)
    note = "after a fault"
    if swapped is not None:
        plan.marks.append(Swap(end_s + 30.0, swapped, new_uuids(plan, len(swapped))))
        note = "after a fault, with another board"
    components = tuple(plan.component(node) for node in nodes)
    plan.seeming.append(Seeming("planned_reboot", components, cordon_s, mended_s, note))


def _follow(plan: Plan, spot: _Spot, end_s: float) -> None:
    """Memory that errs much may come to err badly, before anybody has mended it."""
    at_s = spot.at_s + plan.rng.uniform(3000.0, 9000.0)
    if at_s < min(end_s - 1800.0, _LATEST * plan.duration_s):
        worse = _Spot(at_s, end_s - at_s, spot.node, spot.gpu)
        fault = _fault(plan, FaultKind.UNCORRECTABLE_ECC, worse, "double_bit")
        happening = struck(fault, plan.scene, at_s=at_s, rng=plan.rng)
        plan.add(happening, until_s=end_s)
        plan.told.append(Told(happening.claim, at_s, end_s, 1.0, fault.kind, "double_bit"))


def new_uuids(plan: Plan, count: int) -> tuple[str, ...]:
    parts = [plan.rng.bytes(16).hex() for _ in range(count)]
    return tuple(f"GPU-{p[:8]}-{p[8:12]}-{p[12:16]}-{p[16:20]}-{p[20:32]}" for p in parts)
