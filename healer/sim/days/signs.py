"""Signs: errors and limits that healthy fleets show every day: crashing programs, single errors, wanted limits."""

from __future__ import annotations

import math

import numpy as np

from healer.domain.axes import Ints
from healer.sim.days.plan import Plan, Seeming
from healer.sim.days.seeming import (
    HarmlessKind,
    gpus_seem,
    job_seems,
    nodes_seem,
    some_node,
    some_run,
    some_time,
    taken,
)
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown, Xid
from healer.sim.physics import REASON_APPLICATION_CLOCKS
from healer.sim.strikes.blow import Gang, Interruption

_CRASHES = (13, 31, 43, 45, 13, 31)
_OLD = (13, 31, 43, 45, 63, 94)


def application_crash(plan: Plan) -> bool:
    """A program does something illegal, on one GPU or on all of a node, and is started again."""
    rng, at_s = plan.rng, some_time(plan)
    run = some_run(plan, at_s)
    if run is None or not taken(plan, plan.nodes_of(run.gpus), at_s, at_s + 1800.0):
        return False
    code = int(rng.choice(_CRASHES))
    node = int(rng.choice(plan.nodes_of(run.gpus)))
    there = run.gpus[run.gpus // plan.site.layout.gpus_per_node == node]
    struck = there if rng.random() < 0.5 else rng.choice(there, 1)
    plan.marks.append(Xid(at_s, struck, code))
    if rng.random() < 0.4:
        plan.marks.append(Xid(at_s + rng.uniform(1.0, 8.0), struck, 45))
    back_s = at_s + rng.uniform(60.0, 900.0) if rng.random() < 0.8 else math.inf
    plan.cut(Interruption(Gang(run.job, run.gpus), at_s, at_s + rng.uniform(2.0, 20.0), back_s))
    gpus_seem(plan, HarmlessKind.APPLICATION_CRASH, struck, (at_s, at_s + 1800.0), f"XID {code}")
    return True


def killed_job(plan: Plan) -> bool:
    """A job is cancelled, and the driver takes the channels of all its processes away."""
    rng, at_s = plan.rng, some_time(plan)
    run = some_run(plan, at_s, gang=True)
    if run is None or not taken(plan, plan.nodes_of(run.gpus), at_s, at_s + 900.0):
        return False
    plan.marks += [Xid(at_s + rng.uniform(0.0, 30.0), run.gpus, 45) for _ in range(int(rng.integers(1, 6)))]
    plan.cut(Interruption(Gang(run.job, run.gpus), at_s, at_s + rng.uniform(1.0, 15.0)))
    gpus_seem(plan, HarmlessKind.KILLED_JOB, run.gpus, (at_s, at_s + 900.0), "XID 45")
    return True


def contained_error(plan: Plan) -> bool:
    """XID 94 without a count: a program that was told of somebody else's error ends, and starts again."""
    rng, at_s = plan.rng, some_time(plan)
    run = some_run(plan, at_s)
    if run is None or not taken(plan, plan.nodes_of(run.gpus), at_s, at_s + 1800.0):
        return False
    gpu = rng.choice(run.gpus, 1)
    plan.marks.append(Xid(at_s, gpu, 94))
    plan.cut(
        Interruption(Gang(run.job, run.gpus), at_s, at_s + rng.uniform(2.0, 20.0), at_s + rng.uniform(60.0, 600.0))
    )
    gpus_seem(plan, HarmlessKind.CONTAINED_ERROR, gpu, (at_s, at_s + 1800.0), "XID 94")
    return True


def sticky_xid(plan: Plan) -> bool:
    """It came up before the day began, and nobody has reloaded the driver since."""
    gpu = np.array([plan.rng.integers(plan.site.layout.n_gpus)])
    code = int(plan.rng.choice(_OLD))
    plan.marks.append(Shown(-1.0, gpu, to={"xid": float(code)}))
    gpus_seem(plan, HarmlessKind.STICKY_XID, gpu, (0.0, plan.duration_s), f"XID {code}")
    return True


def few_errors(plan: Plan) -> bool:
    rng, at_s = plan.rng, some_time(plan)
    gpu = np.array([rng.integers(plan.site.layout.n_gpus)])
    nodes = plan.nodes_of(gpu)
    span_s = rng.uniform(30.0, 3600.0)
    if not taken(plan, nodes, at_s, at_s + span_s):
        return False
    rows, most = (
        (("sbe_volatile", "sbe_aggregate"), 6),
        (("nvlink_crc_data", "nvlink_crc"), 4),
        (("nvlink_replays",), 3),
        (("pcie_replays", "pcie_correctable"), 8),
    )[int(rng.integers(4))]
    for _ in range(int(rng.integers(1, most + 1))):
        plan.marks.append(Shown(at_s + rng.uniform(0.0, span_s), gpu, by=dict.fromkeys(rows, 1.0)))
    gpus_seem(plan, HarmlessKind.FEW_ERRORS, gpu, (at_s, at_s + span_s), rows[0])
    return True


def _capped(plan: Plan, gpus: Ints, at_s: float, until_s: float) -> None:
    limit_w = float(50 * plan.rng.integers(8, 13))
    usual_w = plan.site.hall.limit_w
    plan.marks += [
        Shown(at_s, gpus, to={"limit_w": min(limit_w, usual_w - 50.0)}),
        Shown(until_s, gpus, to={"limit_w": usual_w}),
    ]


def rack_power_cap(plan: Plan) -> bool:
    layout, at_s = plan.site.layout, some_time(plan)
    until_s = at_s + plan.rng.uniform(1800.0, 28_800.0)
    rack = str(plan.rng.choice(layout.racks))
    gpus = np.flatnonzero(layout.gpus_of_rack(rack))
    if not taken(plan, plan.nodes_of(gpus), at_s, until_s):
        return False
    _capped(plan, gpus, at_s, until_s)
    plan.seeming.append(Seeming(HarmlessKind.RACK_POWER_CAP, (plan.rack(rack),), at_s, until_s))
    return True


def job_power_cap(plan: Plan) -> bool:
    run = some_run(plan, some_time(plan), gang=True)
    if run is None or not taken(plan, plan.nodes_of(run.gpus), run.start_s, run.end_s):
        return False
    _capped(plan, run.gpus, run.start_s, run.end_s)
    job_seems(plan, HarmlessKind.JOB_POWER_CAP, run, (max(run.start_s, 0.0), run.end_s))
    return True


def application_clocks(plan: Plan) -> bool:
    """Somebody gave a whole job lower clocks, and the driver says so."""
    run = some_run(plan, some_time(plan), gang=True)
    if run is None or not taken(plan, plan.nodes_of(run.gpus), run.start_s, run.end_s):
        return False
    clock_mhz = 15.0 * float(plan.rng.integers(80, 118))
    for knob, value in ((Knob.CLOCK_CAP, clock_mhz), (Knob.CLOCK_REASON, float(REASON_APPLICATION_CLOCKS))):
        plan.effects.append(Effect(knob, run.gpus, value, run.start_s, run.end_s))
    job_seems(plan, HarmlessKind.APPLICATION_CLOCKS, run, (max(run.start_s, 0.0), run.end_s), f"{clock_mhz:.0f} MHz")
    return True


def port_bounce(plan: Plan) -> bool:
    node, at_s = some_node(plan), some_time(plan)
    until_s = at_s + plan.rng.uniform(10.0, 25.0)
    if not taken(plan, (node,), at_s, until_s):
        return False
    port = node * plan.site.hall.ports + int(plan.rng.integers(plan.site.hall.ports))
    plan.effects.append(Effect(Knob.PORT_DOWN, np.array([port]), 1.0, at_s, until_s))
    nodes_seem(plan, HarmlessKind.PORT_BOUNCE, (node,), (at_s, until_s))
    return True
