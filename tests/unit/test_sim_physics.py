"""The physics of simulated GPUs, held to what real nodes of eight H100 were measured to do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from healer.domain.axes import Floats
from healer.sim.activity import RESTING, SPINNING, Activity
from healer.sim.air import Climate
from healer.sim.heat import Chassis
from healer.sim.knobs import Effect, Knob, Ramp
from healer.sim.layout import build_layout
from healer.sim.physics import (
    REASON_HW_THERMAL,
    REASON_IDLE,
    REASON_POWER_BRAKE,
    REASON_SW_POWER_CAP,
    REASON_SW_THERMAL,
    Boards,
)
from healer.sim.state import GpuState
from healer.sim.supply import Supply
from healer.sim.work import Hold, Work
from healer.sim.world import Hall, World

DENSE = Activity(1.0, 0.88, 0.58, 0.37, 1.02, nvlink=1.5e9, pcie_sent=8e6, pcie_received=3e7)  # at the power limit
TALKATIVE = Activity(0.84, 0.63, 0.19, 0.32, 0.72, nvlink=8.8e9, pcie_sent=1.2e7, pcie_received=7e7)
HALL = Hall(
    boards=Boards(),
    chassis=Chassis(preheat_k_per_w=(0.0148, 0.0, 0.003, 0.0115, 0.0125, 0.0004, 0.0118, 0.0012), hot_slots=0.0),
    climate=Climate(mean_c=28.0, rack_spread_c=0.0, swing_c=0.0),
    supply=Supply(loss=0.03, fans_w=600.0),
)


@dataclasses.dataclass
class Bench:
    """Drives all GPUs alike; a test changes what they do."""

    activity: Activity | None = None
    gang: bool = False

    def drive(self, _now_s: float, work: Work) -> None:
        gpus = np.arange(len(work.context))
        work.context[:] = self.activity is not None
        work.active[:] = 0.0 if self.activity is None else self.activity.column()
        if self.gang:
            work.bind(gpus)
        else:
            work.unbind(gpus)


def world_of(bench: Bench, *, nodes: int = 4, hall: Hall = HALL, seed: int = 1) -> World:
    layout = build_layout(racks=1, nodes=nodes, gpus=8, seed=seed)
    return World(layout, bench, hall=hall, rng=np.random.default_rng(seed))


def after(world: World, seconds: float, dt_s: float = 1.0) -> GpuState:
    for _ in range(round(seconds / dt_s)):
        world.step(dt_s)
    return world.gpus


def test_an_idle_gpu_draws_seventy_watts_and_a_context_alone_costs_fifty_more() -> None:
    bench = Bench()
    world = world_of(bench)
    idle_w = after(world, 60).power_w.copy()
    bench.activity = RESTING
    resting = after(world, 60)
    assert np.all((idle_w > 60) & (idle_w < 80))
    assert np.all((resting.power_w > 108) & (resting.power_w < 132))
    assert 45 < (resting.power_w - idle_w).mean() < 53
    assert np.all(resting.util_percent == 0)
    assert np.all(resting.sm_clock_mhz == 1980), "a context holds the clocks up"


def test_an_idle_gpu_rests_at_its_lowest_clock_and_says_so() -> None:
    state = after(world_of(Bench()), 30)
    assert np.all(state.sm_clock_mhz == 345)
    assert np.all(state.clock_reasons == REASON_IDLE)


@pytest.mark.parametrize(
    ("activity", "watts", "reason"),
    [
        pytest.param(DENSE, (670, 700), REASON_SW_POWER_CAP, id="at the power limit, which is a reason all the time"),
        pytest.param(TALKATIVE, (510, 600), 0, id="below it"),
        pytest.param(SPINNING, (225, 300), 0, id="waiting in a collective"),
    ],
)
def test_work_draws_what_it_was_measured_to_draw(activity: Activity, watts: tuple[float, float], reason: int) -> None:
    world = world_of(Bench(activity))
    state = after(world, 600)
    low, high = watts
    assert low < state.power_w.mean() < high
    assert np.median(state.clock_reasons) == reason


def test_boards_differ_at_equal_work_by_some_watts() -> None:
    state = after(world_of(Bench(TALKATIVE), nodes=16), 600)
    assert 3 < state.power_w.std() < 25


def test_what_waits_shows_full_utilisation_and_nothing_that_moves() -> None:
    bench = Bench(TALKATIVE, gang=True)
    world = world_of(bench)
    after(world, 60)
    world.add([Effect(Knob.HOLD, np.array([3]), Hold.PROCESSOR, world.now_s)])
    state = after(world, 30)
    others = np.delete(np.arange(32), 3)
    assert np.all(state.util_percent[others] > 98)
    assert np.all(state.tensor_active[others] < 0.01)
    assert np.all(state.dram_active[others] < 0.02)
    assert np.all((state.sm_active[others] > 0.02) & (state.sm_active[others] < 0.15)), "a few SMs spin"
    assert np.all((state.power_w[others] > 200) & (state.power_w[others] < 330))
    assert np.all(state.sm_clock_mhz[others] == 1980)
    assert np.all(state.nvlink_tx[others] < 1e8)
    assert state.util_percent[3] == 0
    assert state.fb_used_mib[3] == state.fb_used_mib[4], "it keeps its memory"


def test_slots_of_one_node_are_ten_degrees_apart_at_equal_power() -> None:
    state = after(world_of(Bench(DENSE)), 1800, dt_s=5.0)
    core = state.core_c.reshape(4, 8)
    assert np.all((core.max(axis=1) - core.min(axis=1) > 7) & (core.max(axis=1) - core.min(axis=1) < 17))
    assert 52 < core.min() < 62
    assert 66 < core.max() < 80


def test_a_step_in_power_warms_a_gpu_in_tens_of_seconds_and_its_node_in_minutes() -> None:
    bench = Bench(RESTING)
    world = world_of(bench, hall=dataclasses.replace(HALL, chassis=dataclasses.replace(HALL.chassis, fan_gain=0.0)))
    before = after(world, 900, dt_s=5.0).core_c.mean()
    bench.activity = DENSE
    rise = [after(world, 10).core_c.mean() - before for _ in range(90)]
    settled = np.mean(rise[-5:])
    assert 0.35 < rise[0] / settled < 0.65, "the chip, after ten seconds"
    assert 0.75 < rise[4] / settled < 0.93, "the heat sink, after fifty"
    assert rise[11] / settled < 0.97, "the air of the chassis, later than two minutes"


def test_fans_follow_so_that_a_step_overshoots() -> None:
    bench = Bench(RESTING)
    world = world_of(bench)
    after(world, 900, dt_s=5.0)
    bench.activity = DENSE
    hottest = [after(world, 10).core_c.max() for _ in range(60)]
    assert max(hottest[:15]) > hottest[-1] + 1.5
    assert world.heat.fan.max() > 0.55


def test_long_steps_come_to_where_short_ones_come_to() -> None:
    def settled(dt_s: float) -> Floats:
        world = world_of(Bench(TALKATIVE), nodes=8)
        state = after(world, 1200, dt_s=dt_s)
        return np.array([state.core_c.mean(), state.power_w.mean(), state.memory_c.mean(), state.energy_mj.mean()])

    np.testing.assert_allclose(settled(5.0)[:3], settled(1.0)[:3], rtol=0.01)


def test_a_limit_costs_less_clock_than_power() -> None:
    world = world_of(Bench(DENSE))
    free = after(world, 300).sm_clock_mhz.mean()
    world.gpus.limit_w[:] = 450.0
    capped = after(world, 300)
    assert np.all(capped.power_w <= 450.0)
    assert 0.6 < capped.sm_clock_mhz.mean() / free < 0.9
    assert np.all(capped.power_violation_ns > 0)


def test_heat_takes_clocks_away_at_the_device_s_limit_and_says_so() -> None:
    world = world_of(Bench(DENSE))
    after(world, 300)
    world.add([Effect(Knob.RESISTANCE, np.array([2]), 4.0, world.now_s)])
    state = after(world, 600)
    assert 84 < state.core_c[2] < 90
    assert int(state.clock_reasons[2]) & REASON_SW_THERMAL
    assert state.sm_clock_mhz[2] < 0.9 * np.median(state.sm_clock_mhz)
    assert state.thermal_violation_ns[2] > 60e9
    assert np.delete(state.thermal_violation_ns, 2).max() == 0


def test_memory_has_a_limit_of_its_own() -> None:
    world = world_of(Bench(DENSE))
    world.add([Effect(Knob.MEMORY_RESISTANCE, np.array([2]), 7.0, 0.0)])
    state = after(world, 900)
    assert 92 < state.memory_c[2] < 98
    assert state.core_c[2] < 75
    assert int(state.clock_reasons[2]) & REASON_SW_THERMAL


@pytest.mark.parametrize(
    ("knob", "reason"), [(Knob.BRAKE, REASON_POWER_BRAKE), (Knob.HW_THERMAL, REASON_HW_THERMAL)], ids=str
)
def test_the_hardware_halves_the_clocks_at_once(knob: Knob, reason: int) -> None:
    world = world_of(Bench(DENSE))
    before = after(world, 120).sm_clock_mhz[0]
    world.add([Effect(knob, np.array([0]), 1.0, world.now_s)])
    state = after(world, 5)
    assert state.sm_clock_mhz[0] < 0.55 * before
    assert int(state.clock_reasons[0]) & reason
    assert state.power_w[0] < 0.6 * state.power_w[1]


def test_the_node_draws_more_than_its_gpus() -> None:
    world = world_of(Bench(DENSE))
    state = after(world, 300)
    beside_w = world.power.node_w - state.power_w.reshape(4, 8).sum(axis=1)
    assert np.all((beside_w > 1000) & (beside_w < 2500))


def test_the_air_of_a_rack_follows_the_day_the_weather_and_the_load() -> None:
    climate = Climate(mean_c=22.0, swing_c=2.0, warmest_at_s=0.0, front_c=0.3, recirculation_c=3.0, rack_spread_c=0.0)
    idle = world_of(Bench(), hall=dataclasses.replace(HALL, climate=climate))
    busy = world_of(Bench(DENSE), hall=dataclasses.replace(HALL, climate=climate))
    noon = after(idle, 3600, dt_s=5.0), idle.nodes.inlet_c.mean()
    after(busy, 3600, dt_s=5.0)
    assert 1.0 < busy.nodes.inlet_c.mean() - noon[1] < 4.0
    after(idle, 12 * 3600, dt_s=5.0)
    assert idle.nodes.inlet_c.mean() < noon[1] - 2.0


def test_effects_fold_ramp_and_end() -> None:
    world = world_of(Bench(DENSE), nodes=1)
    both = np.array([0, 1])
    world.add(
        [
            Effect(Knob.RESISTANCE, both, 1.5, 10.0, 100.0, ramp_s=20.0),
            Effect(Knob.RESISTANCE, np.array([1]), 2.0, 50.0, 100.0),
            Effect(Knob.CLOCK_CAP, both, 1200.0, 10.0, 100.0),
            Effect(Knob.CLOCK_CAP, np.array([1]), 900.0, 10.0, 60.0),
            Effect(Knob.INLET, both, 4.0, 10.0, 100.0, ramp_s=20.0, ramp=Ramp.CREEPING),
        ]
    )
    after(world, 20)
    assert world.knobs[Knob.RESISTANCE][:3].tolist() == pytest.approx([1.25, 1.25, 1.0])
    assert world.knobs[Knob.CLOCK_CAP][:2].tolist() == [1200.0, 900.0]
    assert 2.5 < world.knobs[Knob.INLET][0] < 4.0
    after(world, 45)
    assert world.knobs[Knob.RESISTANCE][:3].tolist() == pytest.approx([1.5, 3.0, 1.0])
    assert world.knobs[Knob.CLOCK_CAP][:2].tolist() == [1200.0, 1200.0]
    after(world, 60)
    assert not any(world.knobs.is_turned(knob) for knob in Knob)
    assert np.all(world.knobs[Knob.RESISTANCE] == 1.0)
    assert np.all(np.isinf(world.knobs[Knob.CLOCK_CAP]))
