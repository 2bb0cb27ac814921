"""Seeming: what harmless things are called, where and when they happen, and how they are written down."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from healer.domain.axes import Ints
from healer.domain.component import Component, ComponentKind
from healer.sim.days.plan import Plan, Seeming
from healer.sim.jobs.run import Run

Span: TypeAlias = tuple[float, float]  # seconds after the start of the day


class HarmlessKind(StrEnum):
    EXPORTER_RESTART = "exporter_restart"
    ROLLING_RESTART = "rolling_restart"
    PLANNED_REBOOT = "planned_reboot"
    DRIVER_RELOAD = "driver_reload"
    APPLICATION_CRASH = "application_crash"
    KILLED_JOB = "killed_job"
    CONTAINED_ERROR = "contained_error"
    STICKY_XID = "sticky_xid"
    FEW_ERRORS = "few_errors"
    RACK_POWER_CAP = "rack_power_cap"
    JOB_POWER_CAP = "job_power_cap"
    APPLICATION_CLOCKS = "application_clocks"
    PORT_BOUNCE = "port_bounce"
    EXPORTER_UPGRADE = "exporter_upgrade"
    DECOMMISSIONED = "decommissioned"
    NODE_REPLACED = "node_replaced"
    GPU_SWAPPED = "gpu_swapped"
    POD_CHURN = "pod_churn"
    SCRAPE_PAUSE = "scrape_pause"


def some_time(plan: Plan) -> float:
    return float(plan.rng.uniform(0.03, 0.95) * plan.duration_s)


def some_node(plan: Plan) -> int:
    return int(plan.rng.integers(plan.nodes))


def some_run(plan: Plan, at_s: float, *, gang: bool = False) -> Run | None:
    fit = [run for run in plan.runs if plan.is_at_work(run, at_s) and (not gang or len(run.gpus) > 1)]
    return fit[int(plan.rng.integers(len(fit)))] if fit else None


def nodes_seem(plan: Plan, kind: HarmlessKind, nodes: tuple[int, ...], span: Span, note: str = "") -> None:
    plan.seeming.append(Seeming(kind, tuple(plan.component(node) for node in nodes), *span, note))


def gpus_seem(plan: Plan, kind: HarmlessKind, gpus: Ints, span: Span, note: str = "") -> None:
    plan.seeming.append(Seeming(kind, tuple(plan.scene.gpu(gpu) for gpu in gpus.tolist()), *span, note))


def job_seems(plan: Plan, kind: HarmlessKind, run: Run, span: Span, note: str = "") -> None:
    plan.seeming.append(Seeming(kind, (Component(ComponentKind.JOB, job=run.job),), *span, note))


def taken(plan: Plan, nodes: tuple[int, ...], start_s: float, end_s: float) -> bool:
    if not plan.is_free(nodes, start_s, end_s):
        return False
    plan.take(nodes, start_s, end_s)
    return True
