"""Interference: 500 GPUs fault at once. None is forgotten, what has one cause is one incident, and no turn is late."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from healer.domain.axes import Ints
from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode as Mode
from healer.domain.incident import IncidentState
from healer.sim.days.day import Day
from healer.sim.faults import Fault, FaultKind
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown, Xid
from healer.sim.world import Mark
from tests.replay.fleet_at_work import GPUS, Said, Watch, fleet, training
from tests.virtual_site import Site

NODES, PER_RACK = 130, 10  # 1,040 GPUs
BEGINS_S = 660.0
SCATTERED: Ints = np.arange(NODES * GPUS)[::2][:500]  # half of the GPUs of most nodes
TOGETHER: Ints = np.arange(500)  # 62 nodes, and half of another
# Of a turn, from the reading to its incidents; turns are due every 30 s.
MOST_S = 2.0
MOST_TIMES_A_QUIET_TURN = 25.0


def at_work(*effects: Effect, marks: Sequence[Mark] = ()) -> Day:
    racks = range(NODES // PER_RACK)
    jobs = [training(f"job-{rack}", range(rack * PER_RACK, (rack + 1) * PER_RACK)) for rack in racks]
    return fleet(racks=len(racks), nodes=NODES, jobs=jobs, lasts=timedelta(minutes=30), effects=effects, marks=marks)


def hurt(gpus: Ints) -> Day:
    counted = {"dbe_volatile": 1.0, "dbe_aggregate": 1.0}
    return at_work(marks=[Shown(BEGINS_S + 1, gpus, by=counted), Xid(BEGINS_S + 1, gpus, 48)])


def gpu(number: int) -> str:
    return f"GPU {number % GPUS} of {node(number // GPUS)}"


def node(number: int) -> str:
    return f"gpu-{number + 1:03d}"


def of_gpus(mode: Mode, gpus: Ints) -> set[Said]:
    return {(mode, gpu(number)) for number in gpus.tolist()}


def of_nodes(mode: Mode, nodes: range) -> set[Said]:
    return {(mode, f"node {node(number)}") for number in nodes}


CASES: dict[str, tuple[Day, set[Said]]] = {
    "memory of scattered GPUs": (hurt(SCATTERED), of_gpus(Mode.GPU_UNCORRECTABLE_ECC, SCATTERED)),
    "memory of whole nodes": (
        hurt(TOGETHER),
        of_nodes(Mode.GPU_UNCORRECTABLE_ECC, range(62)) | of_gpus(Mode.GPU_UNCORRECTABLE_ECC, TOGETHER[496:]),
    ),
    "off the bus": (
        at_work(Effect(Knob.LOST, SCATTERED, 1.0, BEGINS_S + 1)),
        of_gpus(Mode.GPU_FELL_OFF_BUS, SCATTERED),
    ),
    "the same XID": (
        at_work(marks=[Xid(BEGINS_S + 1, SCATTERED, 119)]),
        of_gpus(Mode.GPU_XID, SCATTERED),
    ),
    "the power brake of six racks": (
        at_work(Effect(Knob.BRAKE, np.arange(480), 1.0, BEGINS_S + 1)),
        {(Mode.GPU_POWER_BRAKE, f"rack rack-{number}") for number in range(1, 7)},
    ),
}


@pytest.mark.parametrize(("day", "expected"), CASES.values(), ids=CASES)
def test_every_fault_is_in_an_incident_and_every_cause_in_one(day: Day, expected: set[Said]) -> None:
    """Within two scrapes, and after that nothing changes any more."""
    watch = Watch(day)
    watch.look_until(BEGINS_S)
    assert watch.ever == set()
    watch.look_until(BEGINS_S + 60)
    assert watch.open == expected
    watch.look_until(BEGINS_S + 300)
    assert watch.open == expected


@pytest.mark.parametrize("gpus", [SCATTERED, TOGETHER], ids=["scattered", "whole nodes"])
def test_the_turn_in_which_they_are_found_and_those_after_it_are_quick(gpus: Ints) -> None:
    watch = Watch(hurt(gpus))
    watch.look_until(BEGINS_S - 300)
    quiet = costs_s(watch, BEGINS_S)
    busy = costs_s(watch, BEGINS_S + 300)
    assert max(busy) < MOST_S
    assert np.median(busy) < MOST_TIMES_A_QUIET_TURN * np.median(quiet), (np.median(busy), np.median(quiet))


def costs_s(watch: Watch, until_s: float) -> list[float]:
    """Of each turn up to then, in seconds of the processor."""
    costs = []
    for reading in watch.readings_until(until_s):
        began_s = time.process_time()
        watch.look(reading)
        costs.append(time.process_time() - began_s)
    return costs


def test_a_turn_of_the_whole_operator_ends_before_the_next_is_due(tmp_path: Path) -> None:
    """With a plan, a verdict and a line in the journal for each of them."""
    with Site(tmp_path, racks=13, nodes=NODES, gpus=GPUS) as site:
        site.ticks(2)
        sick = [(name, number) for name in site.fleet.layout.nodes for number in range(0, GPUS, 2)][:500]
        at_s = site.fleet.elapsed_s + 5
        faults = [Fault(FaultKind.UNCORRECTABLE_ECC, at_s, node=name, gpu=number) for name, number in sick]
        site.fleet.schedule(faults)
        site.let_pass(10)
        costs = []
        for _ in range(2):
            began_s = time.process_time()
            site.operator.turn()
            costs.append(time.process_time() - began_s)
            site.let_pass(10)
        found = site.journal.incidents(limit=1000)
        assert len(found) == 500
        assert {key(incident.component) for incident in found} == {(name, str(number)) for name, number in sick}
        assert {incident.state for incident in found} <= {IncidentState.OPEN, IncidentState.AWAITING_APPROVAL}
        assert max(costs) < site.config.telemetry.interval.total_seconds()


def key(component: Component) -> tuple[str | None, str | None]:
    assert component.kind is ComponentKind.GPU
    return component.node, component.gpu
