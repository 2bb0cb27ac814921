"""The simulated fleet's physics, power limits and faults, driven in process."""

from __future__ import annotations

import numpy as np
import pytest

from healer.errors import NotFound, Rejected
from healer.sim.faults import Fault, FaultKind
from healer.sim.fleet import NodeReading, PowerLimit, SimulatedFleet
from healer.sim.physics import REASON_IDLE, REASON_SW_POWER_CAP


def all_readings(fleet: SimulatedFleet) -> list[NodeReading]:
    return [fleet.read(node) for node in fleet.layout.nodes]


def test_nodes_are_spread_evenly_over_the_racks_and_neighbours_share_one() -> None:
    layout = SimulatedFleet(racks=3, nodes=8).layout
    assert layout.racks == ("rack-1", "rack-2", "rack-3")
    assert [len(layout.nodes_of(rack)) for rack in layout.racks] == [3, 3, 2]
    assert layout.nodes_of("rack-1") == ("gpu-001", "gpu-002", "gpu-003")
    assert layout.rack_of("gpu-008") == "rack-3"


def test_every_gpu_has_its_own_uuid_and_a_seed_gives_the_same_ones() -> None:
    first, again, other = SimulatedFleet(seed=1), SimulatedFleet(seed=1), SimulatedFleet(seed=2)
    assert first.layout.uuids == again.layout.uuids
    assert not set(first.layout.uuids) & set(other.layout.uuids)
    assert len(set(first.layout.uuids)) == 64


def test_a_seed_gives_one_history() -> None:
    fault = Fault(FaultKind.LOAD_SURGE, 20.0, rack="rack-1", duration_s=30.0)
    one, two = (SimulatedFleet(seed=5, faults=[fault]) for _ in range(2))
    for fleet in (one, two):
        fleet.advance(60.5)
        fleet.set_power_limit("gpu-002", 3, limit_w=300.0, ttl_s=20.0, fallback_w=400.0)
        fleet.advance(60.0)
    assert one.elapsed_s == pytest.approx(120.5)
    for left, right in zip(all_readings(one), all_readings(two), strict=True):
        np.testing.assert_array_equal(left.state.power_w, right.state.power_w)
        np.testing.assert_array_equal(left.state.core_c, right.state.core_c)
    other = SimulatedFleet(seed=6, faults=[fault])
    other.advance(120.5)
    assert not np.array_equal(other.read("gpu-001").state.power_w, one.read("gpu-001").state.power_w)


def test_an_idle_node_is_cool_slow_and_says_why_while_a_busy_one_works() -> None:
    fleet = SimulatedFleet(seed=3)
    fleet.set_idle("gpu-001", idle=True)
    fleet.advance(180.0)
    idle, busy = fleet.read("gpu-001"), fleet.read("gpu-002")
    assert idle.job is None
    assert busy.job == "train-2"
    assert np.all(idle.state.power_w < 90.0)
    assert np.all(busy.state.power_w > 150.0)
    assert idle.state.core_c.max() < busy.state.core_c.min()
    assert np.all(idle.state.clock_reasons == REASON_IDLE)
    assert idle.state.sm_clock_mhz.max() < busy.state.sm_clock_mhz.min()
    fleet.set_idle("gpu-001", idle=False)
    fleet.advance(60.0)
    assert fleet.read("gpu-001").job == "train-1"
    assert np.all(fleet.read("gpu-001").state.power_w > 150.0)


def test_a_placed_job_is_the_one_that_the_node_shows() -> None:
    fleet = SimulatedFleet()
    fleet.place_job("gpu-004", "train-1")
    assert fleet.read("gpu-004").job == "train-1"


def test_readings_stay_within_what_such_a_board_shows() -> None:
    fleet = SimulatedFleet(seed=4)
    before = np.concatenate([reading.state.energy_mj for reading in all_readings(fleet)])
    for _ in range(30):
        fleet.advance(20.0)
        for reading in all_readings(fleet):
            assert np.all((reading.state.power_w > 60.0) & (reading.state.power_w <= 700.0))
            assert np.all((reading.state.core_c > 22.0) & (reading.state.core_c < 80.0))
            assert np.all((reading.state.dram_active >= 0.0) & (reading.state.dram_active <= 1.0))
    after = np.concatenate([reading.state.energy_mj for reading in all_readings(fleet)])
    mean_w = (after - before) / 1000.0 / 600.0
    assert np.all((mean_w > 350.0) & (mean_w < 650.0))


def test_power_stays_below_a_lowered_limit_and_the_clocks_pay_for_it() -> None:
    fleet = SimulatedFleet(seed=1, faults=[Fault(FaultKind.LOAD_SURGE, 0.0, rack="rack-1")])
    fleet.advance(30.0)
    free = fleet.read("gpu-001").state
    fleet.set_power_limits("gpu-001", [PowerLimit(gpu, 400.0, 300.0, 500.0) for gpu in range(8)])
    fleet.advance(60.0)
    capped = fleet.read("gpu-001").state
    assert np.all(capped.power_w <= 400.0)
    assert np.all(capped.power_w > 385.0)
    assert np.all(capped.clock_reasons == REASON_SW_POWER_CAP)
    assert capped.sm_clock_mhz.max() < free.sm_clock_mhz.min()
    assert capped.core_c.mean() < free.core_c.mean() - 10.0


def test_a_cap_that_is_not_renewed_falls_back_to_its_fallback_and_not_to_the_maximum() -> None:
    fleet = SimulatedFleet()
    fleet.set_power_limit("gpu-001", 0, limit_w=300.0, ttl_s=120.0, fallback_w=450.0)
    fleet.advance(119.0)
    assert fleet.read("gpu-001").state.limit_w[0] == 300.0
    fleet.advance(1.0)
    assert fleet.read("gpu-001").state.limit_w.tolist() == [450.0, *[700.0] * 7]
    fleet.advance(1000.0)
    assert fleet.read("gpu-001").state.limit_w[0] == 450.0


def test_a_renewed_cap_lives_on_and_a_restore_ends_it_for_good() -> None:
    fleet = SimulatedFleet()
    for _ in range(3):
        fleet.set_power_limit("gpu-001", 0, limit_w=300.0, ttl_s=60.0, fallback_w=450.0)
        fleet.advance(50.0)
    assert fleet.read("gpu-001").state.limit_w[0] == 300.0
    fleet.restore_power_limits("gpu-001", [0])
    fleet.advance(100.0)
    assert fleet.read("gpu-001").state.limit_w[0] == 700.0


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        pytest.param(PowerLimit(1, 199.0, 60.0, 400.0), "limit of 199 W", id="below the device's minimum"),
        pytest.param(PowerLimit(1, 701.0, 60.0, 400.0), "limit of 701 W", id="above the device's maximum"),
        pytest.param(PowerLimit(1, float("nan"), 60.0, 400.0), "limit of nan W", id="no number"),
        pytest.param(PowerLimit(1, 300.0, 60.0, 100.0), "fallback of 100 W", id="fallback out of range"),
        pytest.param(PowerLimit(1, 300.0, 0.0, 400.0), "time to live of 0 s", id="no time at all"),
        pytest.param(PowerLimit(1, 300.0), "needs both", id="a cap for ever"),
        pytest.param(PowerLimit(1, 300.0, 60.0), "needs both", id="nothing to fall back to"),
    ],
)
def test_a_wrong_limit_is_refused_and_the_right_ones_beside_it_are_not_set(limit: PowerLimit, says: str) -> None:
    fleet = SimulatedFleet()
    with pytest.raises(Rejected, match=says):
        fleet.set_power_limits("gpu-001", [PowerLimit(0, 300.0, 60.0, 400.0), limit])
    assert fleet.read("gpu-001").state.limit_w.tolist() == [700.0] * 8


def test_unknown_names_are_answered_with_the_nearest_known_one() -> None:
    fleet = SimulatedFleet()
    with pytest.raises(NotFound, match=r"'gpu-01'.*did you mean gpu-01|'gpu-01'.*did you mean gpu-0"):
        fleet.read("gpu-01")
    with pytest.raises(NotFound, match="gpu-001 has no GPU 8"):
        fleet.set_power_limit("gpu-001", 8, limit_w=700.0)


@pytest.mark.parametrize(("racks", "nodes", "gpus"), [(3, 2, 8), (0, 2, 8), (1, 1, 0)])
def test_a_fleet_that_cannot_be_laid_out_is_refused(racks: int, nodes: int, gpus: int) -> None:
    with pytest.raises(Rejected):
        SimulatedFleet(racks=racks, nodes=nodes, gpus=gpus)


def test_a_double_bit_error_is_counted_once_on_its_gpu_and_leaves_its_xid_behind() -> None:
    fleet = SimulatedFleet(faults=[Fault(FaultKind.UNCORRECTABLE_ECC, 10.0, node="gpu-003", gpu=5)])
    fleet.advance(9.0)
    assert fleet.read("gpu-003").state.xid.tolist() == [0] * 8
    fleet.advance(200.0)
    state = fleet.read("gpu-003").state
    for counter in (state.dbe_volatile, state.dbe_aggregate, state.remap_pending):
        assert counter.tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert state.xid[5] == 48
    assert fleet.read("gpu-002").state.dbe_volatile.sum() == 0


def test_a_load_surge_takes_its_rack_to_full_power_and_ends() -> None:
    fleet = SimulatedFleet(faults=[Fault(FaultKind.LOAD_SURGE, 30.0, rack="rack-2", duration_s=60.0)])
    fleet.set_idle("gpu-008", idle=True)
    fleet.advance(29.0)
    calm = fleet.rack_power_w()
    fleet.advance(40.0)
    surging = fleet.rack_power_w()
    assert surging["rack-2"] > calm["rack-2"] + 3000.0
    assert surging["rack-2"] == pytest.approx(3 * (8 * 700.0 + 1200.0) + 8 * 70.0 + 1200.0, rel=0.02)
    assert surging["rack-1"] < 24_000.0
    fleet.advance(60.0)
    assert fleet.rack_power_w()["rack-2"] < surging["rack-2"] - 2000.0


def test_a_lost_gpu_is_gone_from_the_readings_while_its_peers_and_its_exporter_stay() -> None:
    fleet = SimulatedFleet(faults=[Fault(FaultKind.GPU_LOST, 5.0, node="gpu-001", gpu=2, duration_s=20.0)])
    fleet.advance(10.0)
    reading = fleet.read("gpu-001")
    assert reading.exporter_up
    assert reading.gpus == (0, 1, 3, 4, 5, 6, 7)
    assert fleet.layout.uuids[2] not in reading.uuids
    assert len(reading.state.power_w) == 7
    assert reading.state.xid.tolist() == [0] * 7
    with pytest.raises(Rejected, match="lost"):
        fleet.set_power_limit("gpu-001", 2, limit_w=700.0)
    fleet.advance(20.0)
    assert fleet.read("gpu-001").gpus == tuple(range(8))


def test_lost_cooling_heats_a_gpu_without_more_power() -> None:
    fleet = SimulatedFleet(seed=2)
    fleet.inject(Fault(FaultKind.COOLING_LOSS, 0.0, node="gpu-001", gpu=4, severity=0.6))
    fleet.advance(150.0)
    state = fleet.read("gpu-001").state
    peers = np.delete(np.arange(8), 4)
    assert state.core_c[4] > state.core_c[peers].max() + 8.0
    assert abs(state.power_w[4] - state.power_w[peers].mean()) < 40.0


def test_an_exporter_goes_silent_and_comes_back() -> None:
    fleet = SimulatedFleet()
    fleet.inject(Fault(FaultKind.EXPORTER_DOWN, 0.0, node="gpu-001", duration_s=10.0))
    assert not fleet.read("gpu-001").exporter_up
    assert fleet.read("gpu-002").exporter_up
    fleet.advance(10.0)
    assert fleet.read("gpu-001").exporter_up


def test_a_fault_that_names_nothing_in_the_fleet_is_refused() -> None:
    fleet = SimulatedFleet()
    with pytest.raises(NotFound, match="rack-9"):
        fleet.inject(Fault(FaultKind.LOAD_SURGE, 0.0, rack="rack-9"))
    with pytest.raises(Rejected, match="aimed by rack, not by node"):
        fleet.schedule([Fault(FaultKind.LOAD_SURGE, 0.0, node="gpu-001")])


def test_a_hundred_thousand_gpus_can_be_stepped() -> None:
    fleet = SimulatedFleet(racks=1000, nodes=12_500)
    fleet.advance(3.0)
    assert fleet.layout.n_gpus == 100_000
    assert len(fleet.rack_power_w()) == 1000
    assert len(fleet.read("gpu-12500").gpus) == 8


def test_mending_a_node_ends_what_a_reset_ends_on_all_of_its_gpus_and_on_no_others() -> None:
    fleet = SimulatedFleet(nodes=2)
    for node in fleet.layout.nodes:
        fleet.inject(Fault(FaultKind.UNCORRECTABLE_ECC, 0.0, node=node, gpu=3))
    fleet.mend("gpu-001")
    mended, other = fleet.read("gpu-001").state, fleet.read("gpu-002").state
    for name in ("xid", "dbe_volatile", "remap_pending"):
        assert getattr(mended, name).max() == 0, name
        assert getattr(other, name)[3] > 0, name
    assert mended.dbe_aggregate[3] == 1, "what the board has lived through is not forgotten"


def test_mending_a_node_does_not_end_what_still_acts_on_it() -> None:
    fleet = SimulatedFleet(nodes=2)
    fleet.inject(Fault(FaultKind.GPU_LOST, 0.0, node="gpu-001", gpu=3))
    fleet.mend("gpu-001")
    fleet.advance(5.0)
    assert fleet.read("gpu-001").gpus == (0, 1, 2, 4, 5, 6, 7)


def test_only_a_node_that_exists_is_mended() -> None:
    with pytest.raises(NotFound):
        SimulatedFleet(nodes=2).mend("gpu-009")
