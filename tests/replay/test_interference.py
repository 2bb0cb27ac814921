"""Interference: half of the fleet falls silent. What is not seen is neither sick nor well, and nobody drowns in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest

from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Health
from healer.sim.days.day import Day
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown
from healer.sim.work import Hold
from tests.replay.fleet_at_work import Said, Watch, fleet, training

HOUR_S = 3600.0
BACK_S = HOUR_S + 1200.0
CLEAR_S = 120.0
EXPORTERS = (Knob.EXPORTER_DOWN,)
NODES = (Knob.EXPORTER_DOWN, Knob.HOST_EXPORTER_DOWN)
SOURCE: Said = (Mode.TELEMETRY_LOST, "source telemetry")
ECC: Said = (Mode.GPU_UNCORRECTABLE_ECC, "GPU 2 of gpu-010")
PENDING: Said = (Mode.GPU_ROW_REMAP_PENDING, "GPU 5 of gpu-014")


def silenced(nodes: Sequence[int], knobs: Sequence[Knob], *effects: Effect, marks: Sequence[Shown] = ()) -> Day:
    """Four racks of four nodes; these nodes are silent from the end of the first hour on, for 20 minutes."""
    gangs = {"a": [0, 1], "b": [2, 3, 4, 5], "c": [6, 7, 8, 9], "d": [10, 11, 12, 13], "e": [14], "f": [15]}
    silent = [Effect(knob, np.array(nodes), 1.0, HOUR_S, BACK_S) for knob in knobs]
    return fleet(
        racks=4,
        nodes=16,
        jobs=[training(name, where) for name, where in gangs.items()],
        lasts=timedelta(hours=2),
        effects=[*silent, *effects],
        marks=marks,
    )


@pytest.mark.parametrize(
    ("knobs", "mode", "found_within_s"),
    [(EXPORTERS, Mode.TELEMETRY_LOST, 240.0), (NODES, Mode.NODE_UNREACHABLE, 120.0)],
    ids=["their exporters", "all that is on them"],
)
def test_two_silent_racks_of_four_are_two_incidents_and_what_was_open_there_stays_open(
    knobs: Sequence[Knob], mode: Mode, found_within_s: float
) -> None:
    watch = Watch(
        silenced(
            range(8, 16),
            knobs,
            marks=[
                Shown(HOUR_S - 1500, np.array([9 * 8 + 2]), by={"dbe_volatile": 1.0, "dbe_aggregate": 1.0}),
                Shown(HOUR_S - 1500, np.array([13 * 8 + 5]), to={"remap_pending": 1.0}),
                Shown(HOUR_S + 300, np.array([13 * 8 + 5]), to={"remap_pending": 0.0}),  # and nobody sees it
            ],
        )
    )
    racks = {(mode, "rack rack-3"), (mode, "rack rack-4")}
    watch.look_until(HOUR_S)
    assert watch.ever == {ECC, PENDING}
    assert watch.judged(Mode.JOB_STALLED) == {Health.HEALTHY}, "else nothing could be faked"
    assert watch.judged(Mode.JOB_STRAGGLER) == {Health.HEALTHY}, "else nothing could be faked"
    ids = {watch.the(ECC).id, watch.the(PENDING).id}

    for at_s in watch.looks_until(BACK_S):
        expected = (
            [{ECC, PENDING, *racks}] if at_s > HOUR_S + found_within_s else [{ECC, PENDING}, {ECC, PENDING, *racks}]
        )
        assert watch.open in expected, at_s - HOUR_S
    # Back within one scrape; then healthy for as long as it takes, and no sooner.
    for at_s in watch.looks_until(BACK_S + CLEAR_S):
        assert watch.open == {ECC, PENDING, *racks}, at_s - BACK_S
    watch.look_until(BACK_S + CLEAR_S + 90)
    assert watch.open == {ECC}
    watch.look_until(BACK_S + 1200)
    assert watch.open == {ECC}
    assert watch.ever == {ECC, PENDING, *racks}
    assert {watch.the(ECC).id, watch.the(PENDING).id} == ids


@pytest.mark.parametrize("nodes", [range(12), range(0, 16, 2)], ids=["three racks of four", "every second node"])
def test_what_has_half_of_the_fleet_and_no_rack_to_blame_is_the_source_s(nodes: Sequence[int]) -> None:
    watch = Watch(silenced(nodes, EXPORTERS))
    for at_s in watch.looks_until(BACK_S + CLEAR_S):
        expected = [{SOURCE}] if at_s > HOUR_S + 360 else [set(), {SOURCE}]
        assert watch.open in expected, at_s - HOUR_S
    watch.look_until(BACK_S + CLEAR_S + 90)
    assert watch.open == set()
    assert watch.ever == {SOURCE}


def test_a_source_that_tells_nothing_at_all_is_one_incident_within_minutes() -> None:
    """It tells nothing of the scheduler either, which so has not forgotten its nodes."""
    watch = Watch(silenced([], (), Effect(Knob.SOURCE_DOWN, np.array([0]), 1.0, HOUR_S, BACK_S)))
    for at_s in watch.looks_until(BACK_S + CLEAR_S):
        # Five minutes after a sample has become too old to count.
        expected = [{SOURCE}] if at_s > HOUR_S + 300 + 90 + 30 else [set(), {SOURCE}]
        assert watch.open in expected, at_s - HOUR_S
    watch.look_until(BACK_S + CLEAR_S + 90)
    assert watch.open == set()
    assert watch.ever == {SOURCE}


@pytest.mark.parametrize("silent", [(4, 5), (2, 3)], ids=["of those that wait", "with the culprit"])
def test_a_stalled_job_of_which_half_falls_silent_is_still_stalled(silent: Sequence[int]) -> None:
    stall: Said = (Mode.JOB_STALLED, "job b")
    watch = Watch(silenced(silent, EXPORTERS, Effect(Knob.HOLD, np.array([19]), Hold.PROCESSOR, HOUR_S - 900, 1e9)))
    watch.look_until(HOUR_S)
    assert watch.open == {stall}
    for at_s in watch.looks_until(BACK_S + 900):
        assert stall in watch.open, (at_s - HOUR_S, watch.the(stall).story)
    assert watch.open == {stall}
    assert watch.the(stall).reopened == 0
