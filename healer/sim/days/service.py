"""Service: what operators do to a healthy fleet, planned and announced, and what it looks like from outside."""

from __future__ import annotations

import math

import numpy as np

from healer.domain.component import Component, ComponentKind
from healer.sim.days.plan import Plan, Seeming
from healer.sim.days.seeming import HarmlessKind, nodes_seem, some_node, some_time, taken
from healer.sim.days.trouble import new_uuids
from healer.sim.exporters.fields import Names
from healer.sim.jobs.schedule import Absence
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import NewPods, Reload, Swap

_DRIVERS = ("570.195.03", "575.57.08", "580.82.07")


def exporter_restart(plan: Plan) -> bool:
    node, at_s = some_node(plan), some_time(plan)
    until_s = at_s + plan.rng.uniform(20.0, 90.0)
    if not taken(plan, (node,), at_s, until_s):
        return False
    plan.effects.append(Effect(Knob.EXPORTER_DOWN, np.array([node]), 1.0, at_s, until_s))
    nodes_seem(plan, HarmlessKind.EXPORTER_RESTART, (node,), (at_s, until_s))
    return True


def _rolling(plan: Plan, kind: HarmlessKind, *, upgrade: bool) -> bool:
    """One node after the other, all of them."""
    every_s = plan.rng.uniform(10.0, 60.0)
    at_s = plan.rng.uniform(0.1, 0.8) * plan.duration_s
    nodes = tuple(range(plan.nodes))
    end_s = at_s + every_s * len(nodes) + 90.0
    if end_s > plan.duration_s or not taken(plan, nodes, at_s, end_s):
        return False
    for place, node in enumerate(nodes):
        down_s = at_s + place * every_s
        up_s = down_s + plan.rng.uniform(20.0, 80.0)
        plan.effects.append(Effect(Knob.EXPORTER_DOWN, np.array([node]), 1.0, down_s, up_s))
        if upgrade:
            plan.effects.append(Effect(Knob.EXPORTER_VERSION, np.array([node]), 1.0, down_s))
    nodes_seem(plan, kind, nodes, (at_s, end_s))
    return True


def rolling_restart(plan: Plan) -> bool:
    return _rolling(plan, HarmlessKind.ROLLING_RESTART, upgrade=False)


def exporter_upgrade(plan: Plan) -> bool:
    if plan.versions or plan.site.style.names is Names.DCGM_47:  # once, and not what is the newest already
        return False
    plan.versions = _rolling(plan, HarmlessKind.EXPORTER_UPGRADE, upgrade=True)
    return plan.versions


def _out_of_service(
    plan: Plan, kind: HarmlessKind, *, down_s: tuple[float, float], for_good: bool, note: str = ""
) -> tuple[int, float, float] | None:
    """The node, and from when until when it was down."""
    node, cordon_s, rng = some_node(plan), some_time(plan), plan.rng
    begin_s = cordon_s + rng.uniform(60.0, 900.0)
    up_s = begin_s + rng.uniform(*down_s)
    open_s = up_s + rng.uniform(30.0, 900.0)
    if not taken(plan, (node,), cordon_s, math.inf if for_good else open_s):
        return None
    plan.take_down((node,), cordon_s=cordon_s, down_s=begin_s, up_s=up_s, back_s=open_s)
    nodes_seem(plan, kind, (node,), (cordon_s, open_s), note)
    return node, begin_s, up_s


def planned_reboot(plan: Plan) -> bool:
    out = _out_of_service(plan, HarmlessKind.PLANNED_REBOOT, down_s=(240.0, 900.0), for_good=False)
    if out is not None:
        plan.marks.append(Reload(out[1], plan.gpus_of([out[0]])))
    return out is not None


def node_replaced(plan: Plan) -> bool:
    out = _out_of_service(
        plan, HarmlessKind.NODE_REPLACED, down_s=(1800.0, 7200.0), for_good=True, note="another machine, the same name"
    )
    if out is not None:
        gpus = plan.gpus_of([out[0]])
        plan.marks.append(Swap(out[1] + 60.0, gpus, new_uuids(plan, len(gpus))))
    return out is not None


def gpu_swapped(plan: Plan) -> bool:
    out = _out_of_service(plan, HarmlessKind.GPU_SWAPPED, down_s=(600.0, 2400.0), for_good=True)
    if out is not None:
        gpus = plan.gpus_of([out[0]])
        one = gpus[plan.rng.integers(len(gpus))][None]
        plan.marks += [Reload(out[1], gpus), Swap(out[1] + 60.0, one, new_uuids(plan, 1))]
    return out is not None


def decommissioned(plan: Plan) -> bool:
    node, cordon_s = some_node(plan), plan.rng.uniform(0.2, 0.9) * plan.duration_s
    gone_s = cordon_s + plan.rng.uniform(120.0, 3600.0)
    if not taken(plan, (node,), cordon_s, math.inf):
        return False
    where = np.array([node])
    plan.effects += [
        Effect(Knob.CORDONED, where, 1.0, cordon_s),
        Effect(Knob.GONE, where, 1.0, gone_s),
    ]
    plan.keep_off(Absence((node,), cordon_s, math.inf))
    nodes_seem(plan, HarmlessKind.DECOMMISSIONED, (node,), (cordon_s, plan.duration_s))
    return True


def driver_reload(plan: Plan) -> bool:
    """Counters begin anew, the last XID is forgotten, and the labels tell of another driver."""
    node, at_s = some_node(plan), some_time(plan)
    begin_s = at_s + plan.rng.uniform(30.0, 600.0)
    up_s = begin_s + plan.rng.uniform(30.0, 150.0)
    if not taken(plan, (node,), at_s, up_s):
        return False
    where = np.array([node])
    plan.effects += [
        Effect(Knob.CORDONED, where, 1.0, at_s, up_s + 60.0),
        Effect(Knob.EXPORTER_DOWN, where, 1.0, begin_s, up_s),
    ]
    plan.keep_off(Absence((node,), at_s, up_s + 60.0))
    driver = str(plan.rng.choice(_DRIVERS)) if plan.rng.random() < 0.7 else None
    plan.marks.append(Reload(begin_s, plan.gpus_of([node]), driver))
    nodes_seem(plan, HarmlessKind.DRIVER_RELOAD, (node,), (at_s, up_s + 60.0))
    return True


def pod_churn(plan: Plan) -> bool:
    """The same GPUs, held by pods of other names: a service is rolled over, again and again."""
    node, at_s = some_node(plan), some_time(plan)
    times = [at_s + plan.rng.uniform(0.0, 7200.0) for _ in range(int(plan.rng.integers(2, 12)))]
    plan.marks += [NewPods(each, plan.gpus_of([node])) for each in times]
    nodes_seem(plan, HarmlessKind.POD_CHURN, (node,), (min(times), max(times)))
    return True


def scrape_pause(plan: Plan) -> bool:
    at_s = some_time(plan)
    until_s = at_s + plan.rng.uniform(60.0, 180.0)
    if not taken(plan, tuple(range(plan.nodes)), at_s, until_s):
        return False
    plan.effects.append(Effect(Knob.SOURCE_DOWN, np.array([0]), 1.0, at_s, until_s))
    source = Component(ComponentKind.SOURCE, link="prometheus")
    plan.seeming.append(Seeming(HarmlessKind.SCRAPE_PAUSE, (source,), at_s, until_s))
    return True
