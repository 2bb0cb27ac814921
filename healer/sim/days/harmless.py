"""Harmless: what happens in every healthy fleet and looks like trouble. No incident is right for any of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from healer.sim.days import service, signs
from healer.sim.days.plan import Plan
from healer.sim.days.seeming import HarmlessKind

_TRIES = 40


def drawn_harmless(plan: Plan, count: int) -> tuple[list[HarmlessKind], list[HarmlessKind]]:
    """As many as that: first those that happen to the whole fleet, then the others."""
    kinds = list(_WEIGHTS)
    weights = np.array([_WEIGHTS[kind] for kind in kinds])
    picked = [kinds[number] for number in plan.rng.choice(len(kinds), size=count, p=weights / weights.sum()).tolist()]
    return [kind for kind in picked if kind in _WIDE], [kind for kind in picked if kind not in _WIDE]


def add_harmless(plan: Plan, kinds: Sequence[HarmlessKind]) -> None:
    for kind in kinds:
        for _ in range(_TRIES):
            if plan.tried(partial(_MAKERS[kind], plan)):
                break


_WIDE = frozenset({HarmlessKind.ROLLING_RESTART, HarmlessKind.EXPORTER_UPGRADE, HarmlessKind.SCRAPE_PAUSE})
_WEIGHTS: Mapping[HarmlessKind, float] = {
    HarmlessKind.EXPORTER_RESTART: 2.0,
    HarmlessKind.ROLLING_RESTART: 0.15,
    HarmlessKind.PLANNED_REBOOT: 1.2,
    HarmlessKind.DRIVER_RELOAD: 1.0,
    HarmlessKind.APPLICATION_CRASH: 2.5,
    HarmlessKind.KILLED_JOB: 1.0,
    HarmlessKind.CONTAINED_ERROR: 0.6,
    HarmlessKind.STICKY_XID: 1.5,
    HarmlessKind.FEW_ERRORS: 2.0,
    HarmlessKind.RACK_POWER_CAP: 0.4,
    HarmlessKind.JOB_POWER_CAP: 0.8,
    HarmlessKind.APPLICATION_CLOCKS: 0.8,
    HarmlessKind.PORT_BOUNCE: 1.0,
    HarmlessKind.EXPORTER_UPGRADE: 0.2,
    HarmlessKind.DECOMMISSIONED: 0.5,
    HarmlessKind.NODE_REPLACED: 0.5,
    HarmlessKind.GPU_SWAPPED: 0.5,
    HarmlessKind.POD_CHURN: 0.8,
    HarmlessKind.SCRAPE_PAUSE: 0.25,
}
_MAKERS: Mapping[HarmlessKind, Callable[[Plan], bool]] = {
    HarmlessKind.EXPORTER_RESTART: service.exporter_restart,
    HarmlessKind.ROLLING_RESTART: service.rolling_restart,
    HarmlessKind.PLANNED_REBOOT: service.planned_reboot,
    HarmlessKind.DRIVER_RELOAD: service.driver_reload,
    HarmlessKind.APPLICATION_CRASH: signs.application_crash,
    HarmlessKind.KILLED_JOB: signs.killed_job,
    HarmlessKind.CONTAINED_ERROR: signs.contained_error,
    HarmlessKind.STICKY_XID: signs.sticky_xid,
    HarmlessKind.FEW_ERRORS: signs.few_errors,
    HarmlessKind.RACK_POWER_CAP: signs.rack_power_cap,
    HarmlessKind.JOB_POWER_CAP: signs.job_power_cap,
    HarmlessKind.APPLICATION_CLOCKS: signs.application_clocks,
    HarmlessKind.PORT_BOUNCE: signs.port_bounce,
    HarmlessKind.EXPORTER_UPGRADE: service.exporter_upgrade,
    HarmlessKind.DECOMMISSIONED: service.decommissioned,
    HarmlessKind.NODE_REPLACED: service.node_replaced,
    HarmlessKind.GPU_SWAPPED: service.gpu_swapped,
    HarmlessKind.POD_CHURN: service.pod_churn,
    HarmlessKind.SCRAPE_PAUSE: service.scrape_pause,
}
