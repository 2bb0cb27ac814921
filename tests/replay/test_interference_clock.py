"""Interference: the clock jumps, or nobody looks for a while. In time that nobody saw pass nothing was seen to last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from healer.domain.finding import FailureMode as Mode
from healer.domain.finding import Health
from healer.sim.days.day import Day
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown
from healer.sim.world import Mark, World
from tests.replay.fleet_at_work import Said, Watch, fleet, later_by, looked_at_later_by, training

HOUR_S = 3600.0
SOURCE: Said = (Mode.TELEMETRY_LOST, "source telemetry")
ECC: Said = (Mode.GPU_UNCORRECTABLE_ECC, "GPU 2 of gpu-002")
BRAKE: Said = (Mode.GPU_POWER_BRAKE, "GPU 5 of gpu-004")
HURT = Shown(HOUR_S - 600, np.array([10]), by={"dbe_volatile": 1.0, "dbe_aggregate": 1.0})
JUMPS = {
    "5 minutes back": timedelta(minutes=-5),
    "8 minutes on": timedelta(minutes=8),
    "an hour on": timedelta(hours=1),
    "two days on": timedelta(days=2),
}
jumps = pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)


def at_work(
    *effects: Effect, marks: Sequence[Mark] = (), saves: Sequence[tuple[float, float]] = (), hours: float = 2.0
) -> Day:
    return fleet(
        racks=2,
        nodes=8,
        jobs=[training("a", [0, 1], saves=saves), training("b", [2, 3, 4, 5], saves=saves), training("c", [6, 7])],
        lasts=timedelta(hours=hours),
        effects=effects,
        marks=marks,
    )


@jumps
def test_a_jump_in_the_middle_of_a_checkpoint_is_no_stall(jump: timedelta) -> None:
    """All ranks wait before it and after it: for three minutes, whatever the clock says."""
    watch = Watch(at_work(saves=[(HOUR_S - 60, HOUR_S + 120)]))
    watch.look_until(HOUR_S)
    assert watch.judged(Mode.JOB_STALLED) == {Health.HEALTHY, Health.UNKNOWN}  # who waits may have waited for long
    watch.seen_as = later_by(jump)
    watch.look_until(HOUR_S + 1800)
    assert watch.ever == set()


@pytest.mark.parametrize("slept_s", [480.0, HOUR_S], ids=["8 minutes", "an hour"])
def test_whoever_wakes_up_while_a_job_saves_does_not_call_it_stalled(slept_s: float) -> None:
    woken_s = HOUR_S + slept_s
    watch = Watch(at_work(saves=[(HOUR_S - 60, HOUR_S + 60), (woken_s - 60, woken_s + 90)], hours=3.0))
    watch.look_until(HOUR_S)
    watch.sleep_until(woken_s)
    watch.look_until(woken_s + 1200)
    assert watch.ever == set()


@jumps
def test_a_jump_ends_nothing_and_opens_nothing(jump: timedelta) -> None:
    """Healthy for a minute before it, and then for two minutes: one after the other, not for days."""
    pending: Said = (Mode.GPU_ROW_REMAP_PENDING, "GPU 5 of gpu-004")
    flagged = [
        Shown(at_s, np.array([29]), to={"remap_pending": to}) for at_s, to in ((HOUR_S - 600, 1), (HOUR_S - 70, 0))
    ]
    watch = Watch(at_work(marks=[HURT, *flagged]))
    watch.look_until(HOUR_S)
    assert watch.open == {ECC, pending}
    assert watch.the(pending).healthy_since == watch.frame.at - timedelta(seconds=60)
    before = watch.the(ECC).id, watch.the(pending).id
    watch.seen_as = later_by(jump)
    for at_s in watch.looks_until(HOUR_S + 120):
        assert watch.open == {ECC, pending}, at_s - HOUR_S
    watch.look_until(HOUR_S + 180)
    assert watch.open == {ECC}
    watch.look_until(HOUR_S + 1800)
    assert watch.open == {ECC}
    assert watch.ever == {ECC, pending}
    assert before == (watch.the(ECC).id, watch.the(pending).id)


def test_who_looks_with_a_clock_that_is_ahead_suspects_the_source_or_the_clock_and_nothing_else() -> None:
    watch = Watch(at_work(marks=[HURT]))
    watch.look_until(HOUR_S)
    watch.seen_as = looked_at_later_by(timedelta(hours=1))
    for at_s in watch.looks_until(HOUR_S + 900):
        assert watch.open == {ECC, SOURCE}, at_s - HOUR_S
    watch.seen_as = lambda reading: reading  # it is set right, which is an hour back
    watch.look_until(HOUR_S + 1200)
    assert watch.open == {ECC}
    assert watch.ever == {ECC, SOURCE}


def test_who_looks_with_a_clock_that_is_behind_sees_what_there_is() -> None:
    later = Effect(Knob.BRAKE, np.array([29]), 1.0, HOUR_S + 600)
    watch = Watch(at_work(later, marks=[HURT]))
    watch.look_until(HOUR_S)
    watch.seen_as = looked_at_later_by(timedelta(minutes=-5))
    watch.look_until(HOUR_S + 600)
    assert watch.ever == {ECC}
    watch.look_until(HOUR_S + 690)
    assert watch.open == {ECC, BRAKE}


@dataclass(frozen=True, slots=True)
class PortsCounted:
    """Two days of what healthy cables do, and of what their maintenance does."""

    at_s: float

    def leave(self, world: World) -> None:
        world.ports.link_downed[:] += 4.0
        world.ports.carrier_changes[:] += 8.0
        world.ports.symbol_errors[:] += 500.0


EVERY = np.arange(64)
COUNTED: dict[str, Mark] = {
    "corrected errors": Shown(HOUR_S + 1, EVERY, by={"sbe_volatile": 300.0, "sbe_aggregate": 300.0}),
    "rows remapped": Shown(HOUR_S + 1, EVERY[::7], by={"remapped_correctable": 3.0}),
    "PCIe replays": Shown(HOUR_S + 1, EVERY, by={"pcie_replays": 2000.0, "pcie_correctable": 2000.0}),
    "NVLink retries": Shown(HOUR_S + 1, EVERY, by={"nvlink_replays": 900.0, "nvlink_crc": 900.0}),
    "time spent slowed": Shown(
        HOUR_S + 1, EVERY, by={"power_violation_ns": 1e13, "thermal_violation_ns": 1e12, "power_brake_ns": 1e12}
    ),
    "drops of fabric links": PortsCounted(HOUR_S + 1),
}


@pytest.mark.parametrize("counted", COUNTED.values(), ids=COUNTED)
def test_what_was_counted_in_two_days_without_a_look_is_not_a_burst(counted: Mark) -> None:
    watch = Watch(at_work(marks=[counted]))
    watch.look_until(HOUR_S)
    watch.sleep_until(HOUR_S + 90)
    watch.seen_as = later_by(timedelta(days=2))
    watch.look_until(HOUR_S + 2400)
    assert watch.ever == set()


def test_nor_does_it_hide_a_burst_that_comes_afterwards() -> None:
    storm = Effect(Knob.SBE_RATE, np.array([20]), 5.0, HOUR_S + 1500)
    watch = Watch(at_work(storm, marks=[COUNTED["corrected errors"]]))
    watch.look_until(HOUR_S)
    watch.sleep_until(HOUR_S + 90)
    watch.seen_as = later_by(timedelta(days=2))
    watch.look_until(HOUR_S + 2100)
    assert watch.ever == {(Mode.GPU_CORRECTABLE_ECC_STORM, "GPU 4 of gpu-003")}


def test_a_feed_that_has_been_dead_for_longer_than_the_window_is_dead() -> None:
    """It is not mended by nobody's remembering that it ever carried anything."""
    lost: Said = (Mode.RACK_POWER_FEED_LOST, "rack rack-2")
    watch = Watch(at_work(Effect(Knob.FEED_A, np.array([1]), 0.0, HOUR_S, HOUR_S + 1800)))
    watch.look_until(HOUR_S + 120)
    for at_s in watch.looks_until(HOUR_S + 1800):
        assert watch.open == {lost}, (at_s - HOUR_S, watch.the(lost).story)
    watch.look_until(HOUR_S + 2100)
    assert watch.open == set()
