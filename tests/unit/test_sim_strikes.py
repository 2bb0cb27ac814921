"""What each kind of fault makes the exporters show, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from healer.domain.axes import Floats
from healer.errors import Rejected
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.targets import HOST_JOB, IPMI_JOB, METER_JOB, SCHEDULER_JOB
from healer.sim.exposition import node_page
from healer.sim.faults import SHAPES, Fault, FaultKind
from healer.sim.fleet import SimulatedFleet
from healer.sim.strikes.all import STRIKES

NODE, SICK = "gpu-002", 3
OTHERS = [0, 1, 2, 4, 5, 6, 7]
AIMS: dict[str, dict[str, object]] = {
    "gpu": {"node": NODE, "gpu": SICK},
    "node": {"node": NODE},
    "rack": {"rack": "rack-1"},
}


@dataclass(frozen=True)
class Shown:
    """The first node's GPUs before and after the fault struck the second node's fourth."""

    fleet: SimulatedFleet
    before: dict[str, Floats]

    def now(self, row: str) -> Floats:
        return np.asarray(getattr(self.fleet.read(NODE).state, row))

    def grown(self, row: str) -> Floats:
        return self.now(row) - self.before[row]


def struck(kind: FaultKind, seconds: float = 300.0, *, aim: str = "gpu", **how: object) -> Shown:
    fleet = SimulatedFleet(seed=11)
    fleet.advance(120.0)
    state = fleet.read(NODE).state
    before = {name: np.array(getattr(state, name)) for name in state.names()}
    fleet.inject(Fault(kind, 0.0, **{**AIMS[aim], **how}))  # type: ignore[arg-type]
    fleet.advance(seconds)
    return Shown(fleet, before)


def samples(page: str | None) -> dict[tuple[str, ...], float]:
    """By name and the labels that differ."""
    assert page is not None
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def series(page: str, metric: str) -> dict[str, float]:
    return {
        sample.labels["gpu"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.removesuffix("_total") == metric
    }


def test_every_kind_of_fault_is_known_to_the_fault_file_and_does_something() -> None:
    assert set(STRIKES) == set(FaultKind) == set(SHAPES)


@pytest.mark.parametrize(
    ("variant", "xid", "counted"),
    [
        ("double_bit", 48, True),
        ("uncontained", 95, None),
        ("contained", 94, True),
        ("counter_only", 0, True),
        ("sram_threshold", 0, True),
        ("repeating", 48, True),
    ],
)
def test_uncorrectable_errors_show_as_an_xid_a_count_or_both(variant: str, *, xid: int, counted: bool | None) -> None:
    shown = struck(FaultKind.UNCORRECTABLE_ECC, variant=variant)
    assert shown.now("xid")[SICK] == xid
    if counted is not None:
        assert (shown.grown("dbe_volatile")[SICK] >= 1) == counted
    assert shown.now("sram_exceeded")[SICK] == (variant == "sram_threshold")
    assert shown.grown("dbe_aggregate")[OTHERS].sum() == 0
    assert shown.now("xid")[OTHERS].sum() == 0


@pytest.mark.parametrize(("severity", "low", "high"), [(0.01, 50, 300), (0.5, 15_000, 35_000), (1.0, 5e6, 7e6)])
def test_a_storm_of_corrected_errors_is_as_fast_as_it_is_severe(severity: float, low: float, high: float) -> None:
    shown = struck(FaultKind.CORRECTABLE_ECC_STORM, severity=severity)
    for row in ("sbe_volatile", "sbe_aggregate"):
        assert low < shown.grown(row)[SICK] < high
        assert shown.grown(row)[OTHERS].sum() <= 1
    assert shown.grown("dbe_aggregate").sum() == 0


def test_a_storm_may_come_in_bursts_or_rise() -> None:
    bursts = struck(FaultKind.CORRECTABLE_ECC_STORM, 0, severity=0.4, variant="bursts")
    rising = struck(FaultKind.CORRECTABLE_ECC_STORM, 0, severity=0.4, variant="rising", ramp_s=600.0)
    for shown, calm in ((bursts, True), (rising, False)):
        growth, last = [], shown.now("sbe_volatile")[SICK]
        for _ in range(60):
            shown.fleet.advance(30.0)
            growth.append(shown.now("sbe_volatile")[SICK] - last)
            last += growth[-1]
        assert (min(growth[:40]) == 0) == calm
        if not calm:
            assert growth[2] < 0.5 * growth[-1]


@pytest.mark.parametrize(
    ("kind", "flag"), [("row_remap_pending", "remap_pending"), ("row_remap_failed", "remap_failed")]
)
@pytest.mark.parametrize("variant", ["flag_and_xid", "flag_only"])
def test_a_row_that_waits_or_cannot_be_remapped_is_flagged(kind: str, flag: str, variant: str) -> None:
    shown = struck(FaultKind(kind), variant=variant)
    assert shown.now(flag).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert shown.now("xid")[SICK] == {"flag_only": 0, "flag_and_xid": 63 if kind.endswith("pending") else 64}[variant]
    assert shown.grown("dbe_aggregate").sum() == 0


@pytest.mark.parametrize("variant", ["silent", "xid_first", "blank_first"])
def test_a_lost_gpu_takes_its_series_along_and_its_gang_hangs(variant: str) -> None:
    shown = struck(FaultKind.GPU_LOST, 0, variant=variant)
    seen = set()
    for _ in range(200):
        shown.fleet.advance(1.0)
        reading = shown.fleet.read(NODE)
        if SICK in reading.gpus:
            seen.add(int(reading.state.xid[SICK]))
    assert seen == (set() if variant == "silent" else {79})
    reading = shown.fleet.read(NODE)
    assert reading.gpus == tuple(OTHERS)
    shown.fleet.advance(30.0)
    state = shown.fleet.read(NODE).state
    assert np.all(state.util_percent > 98)
    assert np.all(state.tensor_active < 0.02)


@pytest.mark.parametrize(
    ("variant", "codes"),
    [("gsp", {119, 120}), ("engine", {46, 62, 109, 110, 143, 158}), ("unknown", {211, 257, 311, 500})],
)
def test_the_driver_reports_what_it_reports(variant: str, codes: set[int]) -> None:
    shown = struck(FaultKind.GPU_XID, variant=variant)
    assert shown.now("xid")[SICK] in codes
    assert shown.now("xid")[OTHERS].sum() == 0


def test_a_fault_that_is_mended_leaves_counters_as_a_reset_does() -> None:
    shown = struck(FaultKind.UNCORRECTABLE_ECC, 400.0, duration_s=300.0)
    assert (shown.now("xid")[SICK], shown.now("dbe_volatile")[SICK], shown.now("remap_pending")[SICK]) == (0, 0, 0)
    assert shown.grown("dbe_aggregate")[SICK] == 1, "a life's count stays"


def test_a_heat_sink_that_is_off_brings_its_gpu_to_the_limit() -> None:
    shown = struck(FaultKind.THERMAL_LIMIT, 900.0, severity=0.8)
    assert 84 < shown.now("core_c")[SICK] < 90
    assert int(shown.now("clock_reasons")[SICK]) & (0x20 | 0x40)
    assert shown.now("thermal_violation_ns")[SICK] > 0
    assert shown.now("sm_clock_mhz")[SICK] < shown.now("sm_clock_mhz")[OTHERS].min()
    assert shown.now("tensor_active")[OTHERS].max() < 0.9 * shown.before["tensor_active"].min(), (
        "all of the gang slow down"
    )


def test_a_regulator_too_hot_halves_the_clocks_of_a_cool_chip() -> None:
    shown = struck(FaultKind.THERMAL_LIMIT, 0, variant="regulator")
    reasons = set()
    for _ in range(60):
        shown.fleet.advance(5.0)
        reasons.add(int(shown.now("clock_reasons")[SICK]) & 0x48)
        assert shown.now("core_c")[SICK] < 75
    assert 0x48 in reasons


@pytest.mark.parametrize(
    ("kind", "how"), [("cooling_loss", {"severity": 0.4}), ("fan_failure", {"variant": "several"})]
)
def test_bad_cooling_shows_as_kelvins_that_the_power_does_not_explain(kind: str, how: dict[str, object]) -> None:
    shown = struck(FaultKind(kind), 600.0, aim="gpu" if kind == "cooling_loss" else "node", **how)
    hot = [SICK] if kind == "cooling_loss" else list(range(8))
    other = shown.fleet.read("gpu-003").state
    kelvin = (shown.now("core_c") - 24) / shown.now("power_w")
    usual = np.median((other.core_c - 24) / other.power_w)
    assert np.all(kelvin[hot] > 1.15 * usual)
    cool = [gpu for gpu in range(8) if gpu not in hot]
    assert np.all(kelvin[cool] < 1.15 * usual)
    assert not np.any(shown.now("clock_reasons")[cool].astype(int) & 0x60)


def test_a_creeping_loss_takes_its_time() -> None:
    shown = struck(FaultKind.COOLING_LOSS, 600.0, severity=0.6, variant="creeping", ramp_s=3600.0)
    soon = shown.now("core_c")[SICK] - shown.now("core_c")[OTHERS].mean()
    shown.fleet.advance(3600.0)
    later = shown.now("core_c")[SICK] - shown.now("core_c")[OTHERS].mean()
    assert later > soon + 6.0


@pytest.mark.parametrize(("variant", "air", "chips"), [("inlet", 4.0, 4.0), ("airflow", 0.0, 1.0), ("both", 4.0, 5.0)])
def test_a_rack_that_loses_cooling_warms_as_a_whole(variant: str, air: float, chips: float) -> None:
    calm = SimulatedFleet(seed=11)
    calm.advance(120.0 + 900.0)
    shown = struck(FaultKind.RACK_COOLING_LOSS, 900.0, aim="rack", variant=variant, severity=0.5, ramp_s=300.0)
    for node in ("gpu-001", "gpu-004"):
        warmer = (shown.fleet.read(node).state.core_c - calm.read(node).state.core_c).mean()
        assert warmer > chips
    assert abs((shown.fleet.read("gpu-007").state.core_c - calm.read("gpu-007").state.core_c).mean()) < 3.0
    inlet = samples(shown.fleet.page(IPMI_JOB, 1))["ipmi_temperature_celsius", "Inlet Temp"]
    before = samples(calm.page(IPMI_JOB, 1))["ipmi_temperature_celsius", "Inlet Temp"]
    assert inlet - before >= air
    assert (inlet - before < 2.0) == (air == 0.0)


@pytest.mark.parametrize("aim", ["gpu", "node"])
def test_the_power_brake_halves_clocks_and_says_so(aim: str) -> None:
    shown = struck(FaultKind.POWER_BRAKE, 60.0, aim=aim)
    braked = [SICK] if aim == "gpu" else list(range(8))
    assert np.all(shown.now("sm_clock_mhz")[braked] < 1000)
    assert np.all(shown.now("clock_reasons")[braked].astype(int) & 0x80)
    assert np.all(shown.now("power_brake_ns")[braked] > 30e9)
    if aim == "gpu":
        assert np.all(shown.now("sm_clock_mhz")[OTHERS] > 1500)


def test_clocks_that_are_stuck_have_no_reason() -> None:
    shown = struck(FaultKind.CLOCKS_STUCK, 60.0, severity=0.5)
    assert 800 < shown.now("sm_clock_mhz")[SICK] < 1100
    assert shown.now("clock_reasons")[SICK] == 0
    assert shown.now("power_w")[SICK] < 0.7 * shown.now("power_w")[OTHERS].min()


def watts(fleet: SimulatedFleet, rack: int = 0) -> dict[str, float]:
    found = samples(fleet.page(METER_JOB, rack))
    return {labels[1]: value for labels, value in found.items()}


@pytest.mark.parametrize("variant", ["dead", "silent", "weak", "dead_and_braked"])
def test_a_rack_that_loses_a_feed_draws_all_from_the_other(variant: str) -> None:
    shown = struck(FaultKind.POWER_FEED_LOST, 30.0, aim="rack", variant=variant)
    feeds, other = watts(shown.fleet), watts(shown.fleet, 1)
    total = shown.fleet.rack_power_w()["rack-1"]
    assert feeds["B"] > 0.65 * total
    assert set(feeds) == ({"B"} if variant == "silent" else {"A", "B"})
    assert abs(other["A"] - other["B"]) < 0.25 * sum(other.values())
    state = shown.fleet.read("gpu-001").state
    assert np.any(state.clock_reasons.astype(int) & 0x80) == (variant == "dead_and_braked")


@pytest.mark.parametrize("variant", ["full_load", "caps_lost", "other_load"])
def test_a_rack_draws_more_for_different_reasons(variant: str) -> None:
    fleet = SimulatedFleet(seed=11)
    fleet.advance(120.0)
    before, gpus = fleet.rack_power_w(), fleet.read("gpu-001").state.power_w.sum()
    fleet.inject(Fault(FaultKind.LOAD_SURGE, 0.0, rack="rack-1", variant=variant))
    fleet.advance(60.0)
    after = fleet.rack_power_w()
    assert after["rack-1"] > before["rack-1"] + 3000
    assert abs(after["rack-2"] - before["rack-2"]) < 3000
    assert (fleet.read("gpu-001").state.power_w.sum() > 1.2 * gpus) == (variant != "other_load")


def test_links_err_at_the_rate_that_they_err() -> None:
    shown = struck(FaultKind.NVLINK_ERRORS, severity=0.5, variant="mixed")
    for row in ("nvlink_crc_data", "nvlink_crc_flit", "nvlink_replays", "nvlink_recoveries"):
        assert shown.grown(row)[SICK] > 10
        assert shown.grown(row)[OTHERS].sum() == 0
    assert np.all(shown.now("nvlink_state") == 1)


@pytest.mark.parametrize(("variant", "xid"), [("xid_74", 74), ("state_only", 0)])
def test_a_link_that_is_down_says_so_and_carries_less(variant: str, xid: int) -> None:
    shown = struck(FaultKind.NVLINK_DOWN, 60.0, variant=variant)
    assert shown.now("nvlink_state").tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert shown.now("xid")[SICK] == xid
    assert shown.now("nvlink_tx")[SICK] < 0.9 * np.median(shown.now("nvlink_tx")[OTHERS])


@pytest.mark.parametrize(
    ("variant", "wrong"),
    [
        ("replays", lambda shown: shown.grown("pcie_replays")[SICK] > 100),
        ("width", lambda shown: shown.now("pcie_width")[SICK] < 16),
        ("generation", lambda shown: shown.now("pcie_generation")[SICK] < 5),
    ],
)
def test_pcie_degrades_in_replays_lanes_or_speed(variant: str, wrong: Callable[[Shown], bool]) -> None:
    shown = struck(FaultKind.PCIE_DEGRADED, variant=variant, severity=0.5)
    assert wrong(shown)
    assert np.all(shown.now("pcie_width")[OTHERS] == 16)
    assert np.all(shown.now("pcie_generation")[OTHERS] == 5)
    assert shown.grown("pcie_replays")[OTHERS].sum() <= 2


def ports(fleet: SimulatedFleet, metric: str) -> list[float]:
    found = samples(fleet.page(HOST_JOB, 1))
    return [value for (name, *_), value in sorted(found.items()) if name == metric]


def test_a_port_that_flaps_goes_down_again_and_again() -> None:
    shown = struck(FaultKind.FABRIC_LINK_FLAP, 0, aim="node", variant="flaps", duration_s=3600.0)
    states = set()
    for _ in range(120):
        shown.fleet.advance(30.0)
        states.add(tuple(ports(shown.fleet, "node_infiniband_state_id")))
    assert {sum(1 for state in each if state == 1) for each in states} == {0, 1}
    downs = ports(shown.fleet, "node_infiniband_link_downed_total")
    assert sorted(downs)[:-1] == [0] * 7
    assert max(downs) >= 2


def test_a_port_may_stay_down_or_only_err() -> None:
    down = struck(FaultKind.FABRIC_LINK_FLAP, 120.0, aim="node", variant="down").fleet
    assert sorted(ports(down, "node_infiniband_state_id")) == [1, *[4] * 7]
    assert sorted(ports(down, "node_infiniband_physical_state_id")) == [2, *[5] * 7]
    errs = struck(FaultKind.FABRIC_LINK_FLAP, 120.0, aim="node", variant="symbol_errors").fleet
    assert sorted(ports(errs, "node_infiniband_state_id")) == [4] * 8
    assert max(ports(errs, "node_infiniband_symbol_error_total")) > 20


def test_ethernet_loses_its_carrier() -> None:
    shown = struck(FaultKind.FABRIC_LINK_FLAP, 1800.0, aim="node", variant="carrier", duration_s=1800.0)
    assert ports(shown.fleet, "node_network_carrier_changes_total")[0] >= 4


@pytest.mark.parametrize(
    ("variant", "util", "like_others"),
    [("processor", 0, False), ("process_dead", 0, False), ("kernel_spin", 100, False), ("network", 100, True)],
)
def test_a_stalled_job_spins_on_all_but_the_rank_that_is_to_blame(
    variant: str, util: float, *, like_others: bool
) -> None:
    shown = struck(FaultKind.JOB_STALLED, 60.0, variant=variant)
    assert np.all(shown.now("util_percent")[OTHERS] > 98)
    assert np.all(shown.now("tensor_active")[OTHERS] < 0.02)
    assert shown.now("util_percent")[SICK] == pytest.approx(util, abs=2)
    apart = abs(shown.now("power_w")[SICK] - shown.now("power_w")[OTHERS].mean())
    assert (apart < 25) == like_others
    assert (shown.now("fb_used_mib")[SICK] < 100) == (variant == "process_dead")
    assert np.all(shown.fleet.read("gpu-003").state.tensor_active > 0.05)


@pytest.mark.parametrize("variant", ["data_loader", "slow_memory", "slow_clocks"])
def test_a_straggler_slows_its_gang_and_makes_the_others_wait(variant: str) -> None:
    shown = struck(FaultKind.JOB_STRAGGLER, 60.0, variant=variant, severity=0.8)
    calm = SimulatedFleet(seed=11)
    calm.advance(180.0)
    usual = calm.read(NODE).state
    assert shown.now("tensor_active")[OTHERS].mean() < 0.8 * usual.tensor_active.mean()
    assert shown.now("util_percent")[OTHERS].mean() > 90, "they spin meanwhile"
    match variant:
        case "data_loader":
            assert shown.now("util_percent")[SICK] < 0.8 * usual.util_percent.mean()
        case "slow_memory":
            assert shown.now("sm_active")[SICK] > 1.15 * shown.now("sm_active")[OTHERS].mean()
        case _:
            assert shown.now("sm_clock_mhz")[SICK] < 0.75 * shown.now("sm_clock_mhz")[OTHERS].mean()


def test_an_exporter_may_show_an_empty_page() -> None:
    shown = struck(FaultKind.EXPORTER_DOWN, 5.0, aim="node", variant="empty_page")
    assert shown.fleet.read(NODE).exporter_up
    assert node_page(shown.fleet.read(NODE)) == ""


def test_a_frozen_exporter_repeats_itself_to_the_last_digit_until_it_is_mended() -> None:
    shown = struck(FaultKind.EXPORTER_FROZEN, 5.0, aim="node", duration_s=120.0)
    page = node_page(shown.fleet.read(NODE), fields=FieldSet.EVERYTHING)
    shown.fleet.advance(60.0)
    assert node_page(shown.fleet.read(NODE), fields=FieldSet.EVERYTHING) == page
    shown.fleet.advance(120.0)
    assert node_page(shown.fleet.read(NODE), fields=FieldSet.EVERYTHING) != page


def test_fields_go_missing_on_one_gpu_or_on_a_node() -> None:
    one = struck(FaultKind.FIELDS_MISSING, 5.0, variant="temperatures").fleet
    assert set(series(node_page(one.read(NODE)), "DCGM_FI_DEV_GPU_TEMP")) == set("0124567")
    assert len(series(node_page(one.read(NODE)), "DCGM_FI_DEV_POWER_USAGE")) == 8
    node = struck(FaultKind.FIELDS_MISSING, 5.0, aim="node", variant="profiling").fleet
    assert series(node_page(node.read(NODE)), "DCGM_FI_PROF_SM_ACTIVE") == {}
    assert len(series(node_page(node.read("gpu-001")), "DCGM_FI_PROF_SM_ACTIVE")) == 8


@pytest.mark.parametrize(("variant", "least"), [("int64", 9.2e18), ("int32", 2**31 - 16), ("float", 2**47)])
def test_a_sentinel_stands_where_a_value_should(variant: str, least: float) -> None:
    page = node_page(struck(FaultKind.SENTINELS, 5.0, variant=variant).fleet.read(NODE))
    power, heat = series(page, "DCGM_FI_DEV_POWER_USAGE"), series(page, "DCGM_FI_DEV_GPU_TEMP")
    assert max(power["3"], heat["3"]) >= least
    assert max(power["2"], heat["2"]) < 1000


def test_an_unreachable_node_is_gone_for_all_but_its_board_and_the_scheduler_notices() -> None:
    shown = struck(FaultKind.NODE_UNREACHABLE, 20.0, aim="node")
    fleet = shown.fleet
    assert not fleet.read(NODE).exporter_up
    assert fleet.page(HOST_JOB, 1) is None
    assert fleet.page(IPMI_JOB, 1) is not None

    def ready() -> float:
        found = samples(fleet.page(SCHEDULER_JOB, 0))
        return found["kube_node_status_condition", "Ready", NODE, "true"]

    assert ready() == 1, "not at once"
    fleet.advance(60.0)
    assert ready() == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(FaultKind.GPU_XID, 0.0, node=NODE, gpu=1, variant="gps"), "did you mean gsp"),
        (Fault(FaultKind.EXPORTER_FROZEN, 0.0, node=NODE, variant="slow"), "it has none"),
        (Fault(FaultKind.SOURCE_GAP, 0.0, node=NODE), "is aimed by none"),
        (Fault(FaultKind.POWER_BRAKE, 0.0, node=NODE, ramp_s=3.0), "ramp: does not apply"),
        (Fault(FaultKind.COOLING_LOSS, 0.0, node=NODE, ramp_s=-3.0), "not longer than nothing"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_a_hint(fault: Fault, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        SimulatedFleet().inject(fault)
