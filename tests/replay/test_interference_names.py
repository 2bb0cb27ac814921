"""Interference: racks are renamed, a machine is replaced under its name, jobs move. Names are not what they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest

from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Health
from healer.domain.incident import IncidentState
from healer.sim.days.day import Day
from healer.sim.jobs.run import Run
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown, Swap, Xid
from healer.sim.work import Hold
from healer.sim.world import Mark
from tests.replay.fleet_at_work import START, Relabelled, Said, Watch, fleet, gpus_of, training

HOUR_S = 3600.0
NOW = START + timedelta(seconds=HOUR_S)
TRAININGS = (training("a", [0]), training("b", [2, 3, 4, 5]), training("c", [6]), training("d", [7]))
ECC: Said = (Mode.GPU_UNCORRECTABLE_ECC, "GPU 5 of gpu-002")


def at_work(*effects: Effect, marks: Sequence[Mark] = (), jobs: Sequence[Run] = TRAININGS, racks: int = 4) -> Day:
    return fleet(racks=racks, nodes=8, jobs=jobs, lasts=timedelta(hours=3), effects=effects, marks=marks)


# Racks


@pytest.mark.parametrize("markers", [True, False], ids=["with the ends of series", "without"])
def test_racks_of_other_names_are_nothing_to_report(markers: bool) -> None:  # noqa: FBT001 - a row of the table
    watch = Watch(at_work(), markers=markers)
    watch.seen_as = Relabelled("rack", {"rack-1": "row-b.1", "rack-2": "row-b.2"}, NOW)
    watch.look_until(HOUR_S + 2400)
    assert {rack.rack for rack in watch.frame.racks.components} == {"row-b.1", "row-b.2", "rack-3", "rack-4"}
    assert watch.ever == set()


def test_what_is_wrong_with_a_renamed_rack_is_found_under_its_new_name_and_ends_under_the_old() -> None:
    old: Said = (Mode.RACK_POWER_OVER_BUDGET, "rack rack-2")
    new: Said = (Mode.RACK_POWER_OVER_BUDGET, "rack row-b.2")
    brake: Said = (Mode.GPU_POWER_BRAKE, "GPU 1 of gpu-003")
    more = Effect(Knob.RACK_LOAD, np.array([1]), 40_000.0, HOUR_S - 600, HOUR_S + 3000)
    held = Effect(Knob.BRAKE, np.array([17]), 1.0, HOUR_S - 600, HOUR_S + 3000)
    day = at_work(more, held)
    budgets = {**day.rack_budget_w, "row-b.2": day.rack_budget_w["rack-2"]}
    watch = Watch(replace(day, site=replace(day.site, rack_budget_w=budgets)))
    watch.seen_as = Relabelled("rack", {"rack-1": "row-b.1", "rack-2": "row-b.2"}, NOW)
    watch.look_until(HOUR_S)
    assert watch.open == {old, brake}
    gpu = watch.the(brake)
    watch.look_until(HOUR_S + 120)
    assert new in watch.open
    watch.look_until(HOUR_S + 900)
    assert watch.open == {new, brake}
    assert watch.the(old).story == "no GPU is of rack rack-2 any more"
    assert watch.the(brake).id == gpu.id
    assert (gpu.component.rack, watch.the(brake).component.rack) == ("rack-2", "row-b.2")
    watch.look_until(HOUR_S + 3600)
    assert watch.open == set()
    assert watch.ever == {old, new, brake}


def test_racks_that_change_names_change_incidents_and_their_gpus_do_not() -> None:
    first: Said = (Mode.RACK_POWER_OVER_BUDGET, "rack rack-2")
    then: Said = (Mode.RACK_POWER_OVER_BUDGET, "rack rack-4")
    brake: Said = (Mode.GPU_POWER_BRAKE, "GPU 1 of gpu-003")
    more = Effect(Knob.RACK_LOAD, np.array([1]), 40_000.0, HOUR_S - 600)
    watch = Watch(at_work(more, Effect(Knob.BRAKE, np.array([17]), 1.0, HOUR_S - 600)))
    watch.seen_as = Relabelled("rack", {"rack-2": "rack-4", "rack-4": "rack-2"}, NOW)
    watch.look_until(HOUR_S)
    assert watch.open == {first, brake}
    known = watch.the(brake).id
    watch.look_until(HOUR_S + 300)
    assert watch.open == {then, brake}
    assert watch.the(brake).id == known
    watch.look_until(HOUR_S + 2400)
    assert watch.open == {then, brake}
    assert watch.ever == {first, then, brake}


# A machine under the name of another


def replaced(down_s: float, *, cordoned: bool) -> tuple[list[Effect], list[Mark]]:
    """Another machine is gpu-002 from `down_s` after the first hour on; it has a longer past than the old one."""
    node, gpus, up_s = np.array([1]), gpus_of([1]), HOUR_S + down_s
    uuids = tuple(f"GPU-00000000-0000-4000-8000-{number:012d}" for number in range(8))
    effects = [Effect(knob, node, 1.0, HOUR_S, up_s) for knob in (Knob.EXPORTER_DOWN, Knob.HOST_EXPORTER_DOWN)]
    effects.append(Effect(Knob.NOT_READY, node, 1.0, HOUR_S + 20, up_s))
    if cordoned:
        effects.append(Effect(Knob.CORDONED, node, 1.0, HOUR_S - 60, up_s + 60))
    past = {"dbe_aggregate": 4.0, "sbe_aggregate": 1e6, "sbe_volatile": 2000.0, "remapped_correctable": 5.0}
    past |= {"remapped_uncorrectable": 2.0, "pcie_replays": 1e5, "nvlink_replays": 4000.0, "nvlink_crc": 1e4}
    return effects, [Swap(HOUR_S + 5, gpus, uuids), Shown(HOUR_S + 6, gpus, to={"xid": 79.0}, by=past)]


@dataclass(frozen=True, slots=True)
class Replacement:
    """Attributes:
    unreachable: whether that is what there is to say of the node meanwhile.
    """

    down_s: float = 1800.0
    cordoned: bool = True
    markers: bool = True
    unreachable: bool = False


REPLACEMENTS = {
    "in maintenance": Replacement(),
    "by surprise": Replacement(cordoned=False, unreachable=True),
    "where a store does not say that series end": Replacement(markers=False),
    "there at once": Replacement(down_s=30.0),
    "there at once, where a store does not say that series end": Replacement(down_s=30.0, markers=False),
}


@pytest.mark.parametrize("how", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_machine_is_not_blamed_for_the_past_of_the_one_whose_name_it_has(how: Replacement) -> None:
    effects, marks = replaced(how.down_s, cordoned=how.cordoned)
    watch = Watch(at_work(*effects, marks=marks), markers=how.markers)
    watch.look_until(HOUR_S + how.down_s + 1800)
    assert watch.open == set()
    assert watch.ever == ({(Mode.NODE_UNREACHABLE, "node gpu-002")} if how.unreachable else set())


GPU = np.array([13])
SICK: dict[Mode, list[Mark]] = {
    Mode.GPU_UNCORRECTABLE_ECC: [
        Shown(HOUR_S - 900, GPU, by={"dbe_volatile": 1.0, "dbe_aggregate": 1.0}),
        Xid(HOUR_S - 900, GPU, 48),
    ],
    Mode.GPU_ROW_REMAP_FAILED: [Shown(HOUR_S - 900, GPU, to={"remap_failed": 1.0}), Xid(HOUR_S - 900, GPU, 64)],
    Mode.GPU_XID: [Xid(HOUR_S - 900, GPU, 119)],
    Mode.GPU_FELL_OFF_BUS: [Xid(HOUR_S - 900, GPU, 79)],
}


@pytest.mark.parametrize("mode", SICK)
def test_what_was_wrong_with_a_gpu_ends_when_another_one_is_in_its_place(mode: Mode) -> None:
    effects, marks = replaced(1800.0, cordoned=True)
    watch = Watch(at_work(*effects, marks=[*SICK[mode], *marks]))
    sick: Said = (mode, "GPU 5 of gpu-002")
    for at_s in watch.looks_until(HOUR_S + 1800):
        if at_s > HOUR_S - 840:
            assert watch.open == {sick}, at_s - HOUR_S
    watch.look_until(HOUR_S + 1800 + 240)
    assert watch.open == set()
    assert watch.the(sick).state is IncidentState.RESOLVED
    assert watch.the(sick).story == "another GPU is in its place"
    watch.look_until(HOUR_S + 3600)
    assert watch.open == set()
    assert watch.ever == {sick}


# Jobs


def test_a_job_that_moves_and_one_that_takes_its_place_are_neither_stalled_nor_slow() -> None:
    moved = [training("x", [0, 1], end_s=HOUR_S), training("x", [2, 3], start_s=HOUR_S + 60)]
    others = [training("y", [0, 1], start_s=HOUR_S + 120), training("z", [6, 7])]
    watch = Watch(at_work(jobs=[*moved, *others]))
    watch.look_until(HOUR_S + 3600)
    assert watch.judged(Mode.JOB_STALLED) == {Health.HEALTHY}
    assert watch.judged(Mode.JOB_STRAGGLER) == {Health.HEALTHY}
    assert watch.ever == set()


STALL: Said = (Mode.JOB_STALLED, "job x")


def test_a_job_that_stalls_again_elsewhere_is_the_same_incident_with_the_culprit_of_there() -> None:
    runs = [training("x", [0, 1], end_s=HOUR_S + 900), training("x", [2, 3], start_s=HOUR_S + 960)]
    others = [training("y", [0, 1], start_s=HOUR_S + 1020), training("z", [6, 7])]
    here = Effect(Knob.HOLD, np.array([3]), Hold.PROCESSOR, HOUR_S, HOUR_S + 900)
    there = Effect(Knob.HOLD, np.array([26]), Hold.PROCESSOR, HOUR_S + 1800, HOUR_S + 3600)
    watch = Watch(at_work(here, there, jobs=[*runs, *others]))
    watch.look_until(HOUR_S + 900)
    assert watch.open == {STALL}
    first = watch.the(STALL)
    assert str(first.culprit) == "GPU 3 of gpu-001"
    watch.look_until(HOUR_S + 1200)
    assert watch.open == set()
    for _ in watch.looks_until(HOUR_S + 3600):
        assert watch.open <= {STALL}
        if watch.open:
            assert str(watch.the(STALL).culprit) == "GPU 2 of gpu-004"
    assert watch.open == {STALL}
    assert (watch.the(STALL).id, watch.the(STALL).reopened) == (first.id, 1)
    assert watch.ever == {STALL}


def test_a_stall_is_over_with_its_job() -> None:
    runs = [training("x", [0, 1], end_s=HOUR_S + 900), training("y", [0, 1], start_s=HOUR_S + 1020)]
    stuck = Effect(Knob.HOLD, np.array([3]), Hold.PROCESSOR, HOUR_S, HOUR_S + 900)
    watch = Watch(at_work(stuck, jobs=[*runs, training("z", [6, 7])]))
    watch.look_until(HOUR_S + 900)
    assert watch.open == {STALL}
    watch.look_until(HOUR_S + 1080)
    assert watch.open == set()
    assert watch.the(STALL).story == "no GPU is of job x any more"
    watch.look_until(HOUR_S + 2400)
    assert watch.ever == {STALL}
