"""A random day: a fleet with its jobs, what goes wrong on it and what only looks so, all of it drawn from one seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from healer.domain.component import Component, ComponentKind
from healer.sim.days.day import Day, at
from healer.sim.days.harmless import add_harmless, drawn_harmless
from healer.sim.days.plan import Plan, Seeming, Told
from healer.sim.days.site import drawn_site
from healer.sim.days.trouble import add_faults, add_given, drawn_kinds
from healer.sim.exporters.style import Style
from healer.sim.faults import Fault, FaultKind
from healer.sim.jobs.profile import JobKind, Writing
from healer.sim.jobs.schedule import scheduled
from healer.sim.layout import NAMINGS, build_layout
from healer.sim.truth import LookAlike, Truth
from healer.sim.world import World

START = datetime(2026, 3, 2, tzinfo=UTC)
_NODES_PER_FAULT = 6  # and day
_NODES_PER_HARMLESS = 3
_HOT = 1.1


def random_day(
    seed: int,
    *,
    racks: int = 4,
    nodes: int = 32,
    gpus: int = 8,
    duration: timedelta = timedelta(hours=24),
    start: datetime = START,
    faults: int | None = None,
    harmless: int | None = None,
    kinds: Sequence[FaultKind] | None = None,
    given: Sequence[Fault] | None = None,
    largest_gang: int = 8,
    style: Style | None = None,
) -> Day:
    """The same seed and arguments, the same day.

    Args:
        nodes: in all, spread over the racks; `gpus` on each.
        start: on a full minute.
        faults, harmless: how many are tried to be placed; if not given, as many as fit a fleet of this size and a day
            of this length, one at least. There may be less where there is no room, or where the site lacks what it
            takes.
        kinds: of faults; all if not given.
        given: these faults in place of random ones. They have been found to be possible.
        largest_gang: nodes.
        style: how the site exports; drawn if not given.
    """
    rng = np.random.default_rng((seed, 0))
    # Who gives faults has names for where they strike, and must know them.
    naming = NAMINGS[int(rng.integers(len(NAMINGS)))] if given is None else NAMINGS[0]
    layout = build_layout(racks=racks, nodes=nodes, gpus=gpus, seed=seed, naming=naming)
    site = drawn_site(layout, rng, largest_gang=largest_gang, style=style)
    duration_s = duration.total_seconds()
    plan = Plan(site, duration_s, rng, scheduled(site.layout, site.mix, duration_s, rng))
    days = duration / timedelta(days=1)
    wide, narrow = drawn_harmless(plan, _count(harmless, nodes / _NODES_PER_HARMLESS * days, rng))
    add_harmless(plan, wide)  # what happens to all nodes finds no room later
    if given is None:
        add_faults(plan, drawn_kinds(plan, _count(faults, nodes / _NODES_PER_FAULT * days, rng), kinds))
    else:
        add_given(plan, given)
    add_harmless(plan, narrow)
    day = Day(
        seed=seed,
        start=start,
        duration=duration,
        site=site,
        truths=tuple(_truth(told, start) for told in sorted(plan.told, key=lambda told: told.onset_s)),
        look_alikes=(),
        runs=plan.runs,
        effects=tuple(plan.effects),
        marks=tuple(plan.marks),
        hidden=tuple(plan.hidden),
        upgrades=plan.versions,
    )
    seeming = [*plan.seeming, *_standing(plan), *_hot_slots(plan, day.world())]
    return _with(day, sorted(seeming, key=lambda each: each.start_s))


def _count(asked: int | None, expected: float, rng: np.random.Generator) -> int:
    return max(1, int(rng.poisson(expected))) if asked is None else asked


def _truth(told: Told, start: datetime) -> Truth:
    claim = told.claim
    full_s = told.onset_s if claim.full_s is None else min(claim.full_s, told.end_s)
    return Truth(
        failure_mode=claim.mode,
        component=claim.component,
        culprit=claim.culprit,
        onset=at(start, told.onset_s),
        full=at(start, max(full_s, told.onset_s) if math.isfinite(full_s) else told.onset_s),
        end=at(start, told.end_s) if math.isfinite(told.end_s) else None,
        hard=claim.hard,
        severity=told.severity,
        kind=str(told.kind),
        variant=told.variant,
        blast=claim.jobs,
        symptoms=claim.symptoms,
    )


def _with(day: Day, seeming: Iterable[Seeming]) -> Day:
    looks = tuple(
        LookAlike(str(each.kind), each.components, at(day.start, each.start_s), _until(day, each.end_s), each.note)
        for each in seeming
    )
    return replace(day, look_alikes=looks)


def _until(day: Day, seconds: float) -> datetime:
    return at(day.start, min(seconds, day.duration.total_seconds()))


def _standing(plan: Plan) -> list[Seeming]:
    """What looks odd all day long, and how jobs look when nothing is wrong with them."""
    site, end_s = plan.site, plan.duration_s
    found = [
        Seeming("rack_near_budget", (plan.rack(rack),), 0.0, end_s)
        for rack in site.layout.racks
        if site.is_near_budget(rack)
    ]
    if site.warm:
        found.append(Seeming("warm_day", tuple(plan.rack(rack) for rack in site.layout.racks), 0.0, end_s))
    if site.hall.limit_w < 700.0:
        found.append(Seeming("site_power_cap", tuple(plan.rack(rack) for rack in site.layout.racks), 0.0, end_s))
    if site.hall.unused:
        found.append(Seeming("unused_ports", tuple(plan.component(n) for n in range(plan.nodes)), 0.0, end_s))
    for run in plan.runs:
        if run.end_s <= 0 or run.start_s >= end_s:
            continue
        job = (Component(ComponentKind.JOB, job=run.job),)
        begin_s = max(run.start_s, 0.0)
        if run.profile.kind is JobKind.PINNED:
            found.append(Seeming("pinned_job", job, begin_s, run.end_s))
        if run.profile.checkpoint is not None:
            spins = run.profile.writing is Writing.BARRIER
            found.append(Seeming("checkpoints_in_a_barrier" if spins else "checkpoints", job, begin_s, run.end_s))
        if run.profile.evaluates is not None:
            one = run.profile.evaluates_on_one
            found.append(Seeming("evaluation_on_one_node" if one else "evaluation", job, begin_s, run.end_s))
        if run.profile.stages > 1:
            found.append(Seeming("uneven_stages", job, begin_s, run.end_s))
    return found


def _hot_slots(plan: Plan, world: World) -> list[Seeming]:
    usual = plan.site.hall.chassis.sink_k_per_w
    worse = np.flatnonzero(world.heat.warmth.sink_k_per_w > _HOT * usual).tolist()
    return [Seeming("hot_slot", (plan.scene.gpu(gpu),), 0.0, plan.duration_s) for gpu in worse]
