"""What an exported number means: the name decides the unit and the "no value", the field decides what is a counter."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from healer.domain.signal import Signal
from healer.telemetry.catalogue.signals import COUNTERS, MEANINGS, SPELLINGS, Kind, Vendor, spelled
from healer.telemetry.catalogue.spelling import COUNT, LARGE, READING, SECONDS, Combine, Listing, convert

_EVERY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=64)
_MIB = 1024.0 * 1024.0

_Means = tuple[str, float, Signal, float]  # metric, as exported, signal, in its unit

NVIDIA: list[_Means] = [
    ("DCGM_FI_DEV_GPU_TEMP", 44, Signal.GPU_TEMPERATURE, 44),
    ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", 44, Signal.GPU_TEMPERATURE, 44),
    ("DCGM_FI_DEV_MEMORY_TEMP", 90, Signal.MEMORY_TEMPERATURE, 90),
    ("DCGM_FI_DEV_GPU_TEMP_LIMIT", -2, Signal.TEMPERATURE_MARGIN, -2),
    ("DCGM_FI_DEV_SLOWDOWN_TEMP", 92, Signal.SLOWDOWN_TEMPERATURE, 92),
    ("DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS", 95, Signal.SHUTDOWN_TEMPERATURE, 95),
    ("DCGM_FI_DEV_FAN_SPEED", 35, Signal.FAN_SPEED, 0.35),
    ("DCGM_FI_DEV_FAN_SPEED_RATIO", 1.2, Signal.FAN_SPEED, 1.2),
    ("DCGM_FI_DEV_POWER_USAGE", 302.206, Signal.POWER, 302.206),
    ("DCGM_FI_DEV_BOARD_POWER_WATTS", 302.206, Signal.POWER, 302.206),
    ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", 700, Signal.POWER_LIMIT_ENFORCED, 700),
    ("DCGM_FI_DEV_MAX_SM_CLOCK", 1980, Signal.SM_CLOCK_MAX, 1.98e9),
    ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", 0x448, Signal.CLOCK_REASONS, 0x448),
    ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0x80, Signal.CLOCK_REASONS, 0x80),
    ("DCGM_FI_DEV_POWER_VIOLATION", 2_500_000_000, Signal.POWER_VIOLATION, 2.5),
    ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS", 2_500_000_000, Signal.POWER_VIOLATION, 2.5),
    ("DCGM_FI_DEV_GPU_POWER_THROTTLE_SECONDS_TOTAL", 2.5, Signal.POWER_VIOLATION, 2.5),
    ("DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS", 1e9, Signal.POWER_BRAKE, 1),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.41, Signal.TENSOR_ACTIVE, 0.41),
    ("DCGM_FI_PROF_TENSOR_UTIL_RATIO", 0.41, Signal.TENSOR_ACTIVE, 0.41),
    ("DCGM_FI_DEV_XID_ERRORS", 79, Signal.XID, 79),
    ("DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION", 2, Signal.RECOVERY_ACTION, 2),
    ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 1, Signal.ECC_DBE_VOLATILE, 1),
    ("DCGM_FI_DEV_THRESHOLD_SRM", 1, Signal.SRAM_THRESHOLD_EXCEEDED, 1),
    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 3, Signal.ROW_REMAP_UNCORRECTABLE, 3),
    ("DCGM_FI_PROF_PCIE_TX_BYTES", 25e9, Signal.PCIE_TX, 25e9),
    ("DCGM_FI_DEV_PCIE_REPLAY_TOTAL", 12, Signal.PCIE_REPLAY, 12),
    ("DCGM_FI_DEV_PCIE_LINK_WIDTH", 8, Signal.PCIE_WIDTH, 8),
    ("DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", 5e12, Signal.NVLINK_SENT, 5e12),
    ("DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT", 1e-12, Signal.NVLINK_BIT_ERROR_RATE, 1e-12),
    ("dcgm_sm_clock", 1530, Signal.SM_CLOCK, 1.53e9),
    ("dcgm_total_energy_consumption", 1000, Signal.ENERGY, 1),
    ("dcgm_nvlink_flit_crc_error_count_total", 7, Signal.NVLINK_CRC_FLIT, 7),
]

# dcgm-exporter 4.9 renamed these of the fields that are on by default, and changed their unit.
RENAMED_WITH_A_NEW_UNIT = [
    ("DCGM_FI_DEV_SM_CLOCK", 1530, "DCGM_FI_DEV_SM_CLOCK_HERTZ", 1_530_000_000, 1.53e9),
    ("DCGM_FI_DEV_MEM_CLOCK", 2619, "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 2_619_000_000, 2.619e9),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 4_335_301_000, "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 4_335_301, 4335301),
    ("DCGM_FI_DEV_GPU_UTIL", 44, "DCGM_FI_DEV_GPU_UTIL_RATIO", 0.44, 0.44),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", 12, "DCGM_FI_DEV_MEMORY_UTIL_RATIO", 0.12, 0.12),
    ("DCGM_FI_DEV_FB_USED", 2048, "DCGM_FI_DEV_FB_USED_BYTES", 2_147_483_648, 2048 * _MIB),
    ("DCGM_FI_DEV_FB_FREE", 79_000, "DCGM_FI_DEV_FB_FREE_BYTES", 82_837_504_000, 79_000 * _MIB),
    (
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        450_000,
        "DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND",
        460_800_000_000,
        460.8e9,
    ),
]

AMD: list[_Means] = [
    ("gpu_junction_temperature", 71, Signal.GPU_TEMPERATURE, 71),
    ("gpu_package_power", 255, Signal.POWER, 255),
    ("gpu_energy_consumed", 5_000_000, Signal.ENERGY, 5),
    ("gpu_clock", 2100, Signal.SM_CLOCK, 2.1e9),
    ("gpu_violation_ppt_residency_percentage", 12, Signal.POWER_THROTTLE, 0.12),
    ("gpu_gfx_activity", 99, Signal.UTILIZATION, 0.99),
    ("amd_gpu_usage", 50, Signal.UTILIZATION, 0.5),
    ("gpu_umc_activity", 7, Signal.MEMORY_UTILIZATION, 0.07),
    ("gpu_used_vram", 196_592, Signal.MEMORY_USED, 196_592 * _MIB),
    ("gpu_prof_tensor_active_percent", 40, Signal.TENSOR_ACTIVE, 0.4),
    ("gpu_health", 1, Signal.GPU_HEALTH, 0),
    ("gpu_health", 0, Signal.GPU_HEALTH, 20),
    ("gpu_afid_errors", 30, Signal.AFID, 30),
    ("gpu_ecc_uncorrect_total", 1, Signal.ECC_DBE_VOLATILE, 1),
    ("amd_gpu_ecc_deferred_total", 2, Signal.ECC_DEFERRED, 2),
    ("pcie_speed", 32, Signal.PCIE_SPEED, 32e9),
    ("gpu_xgmi_link_tx", 3_539_423_344, Signal.NVLINK_SENT, 3_539_423_344 * 1024.0),
]

# One metric for each way to convert.
WAYS = list({(s.field, s.scale, s.offset, s.zero_is_blank): metric for metric, s in SPELLINGS.items()}.values())

INT64_BLANKS = [float(0x7FFFFFFFFFFFFFF0 + i) for i in range(4)]
INT32_BLANKS = [float(0x7FFFFFF0 + i) for i in range(4)]
FP64_BLANKS = [140737488355328.0 + i for i in range(4)]


def _one(metric: str, exported: float) -> float:
    return float(convert(SPELLINGS[metric], np.array([exported], dtype=np.float64))[0])


@pytest.mark.parametrize(("metric", "exported", "signal", "expected"), NVIDIA + AMD)
def test_a_metric_is_its_signal_in_its_unit(metric: str, exported: float, signal: Signal, expected: float) -> None:
    assert SPELLINGS[metric].signal is signal
    assert _one(metric, exported) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("old", "said", "new", "said_anew", "expected"), RENAMED_WITH_A_NEW_UNIT)
def test_a_field_that_was_renamed_with_a_new_unit_means_the_same(
    old: str, said: float, new: str, said_anew: float, expected: float
) -> None:
    assert SPELLINGS[old].signal is SPELLINGS[new].signal
    assert _one(old, said) == pytest.approx(expected, rel=1e-12)
    assert _one(new, said_anew) == pytest.approx(expected, rel=1e-12)


def test_a_utilization_in_percent_under_the_name_of_a_ratio_is_taken_for_percent() -> None:
    spelling = SPELLINGS["DCGM_FI_DEV_GPU_UTIL_RATIO"]
    exported = np.array([0.0, 0.5, 1.0, 2.0, 97.0, 9223372036854775794.0])
    assert convert(spelling, exported).tolist() == pytest.approx([0, 0.5, 1, 0.02, 0.97, np.nan], nan_ok=True)


@pytest.mark.parametrize("blank", [*INT64_BLANKS, float(2**64), np.nan, np.inf, -np.inf])
def test_no_metric_takes_a_blank_of_64_bits_for_a_value(blank: float) -> None:
    assert [metric for metric in SPELLINGS if not np.isnan(_one(metric, blank))] == []


@pytest.mark.parametrize("blank", [*INT32_BLANKS, *FP64_BLANKS, float(0xFFFF), float(0xFFFFFFFF)])
def test_a_reading_takes_no_blank_of_any_width_for_a_value(blank: float) -> None:
    readings = [metric for metric, spelling in SPELLINGS.items() if spelling.field is READING]
    assert [metric for metric in readings if not np.isnan(_one(metric, blank))] == []


@pytest.mark.parametrize("metric", [m for m in WAYS if SPELLINGS[m].field is COUNT])
def test_a_count_may_be_large_but_is_no_blank_of_32_bits(metric: str) -> None:
    assert all(np.isnan(_one(metric, blank)) for blank in [*INT32_BLANKS, float(0x7FFFFFFF), float(0xFFFFFFFF)])
    scale = SPELLINGS[metric].scale
    assert _one(metric, float(0x7FFFFFEF)) == pytest.approx(0x7FFFFFEF * scale)
    assert _one(metric, 3e9) == pytest.approx(3e9 * scale)


@pytest.mark.parametrize("metric", [m for m in WAYS if SPELLINGS[m].field is LARGE])
def test_bytes_hertz_and_nanoseconds_pass_every_smaller_blank(metric: str) -> None:
    scale = SPELLINGS[metric].scale
    for exported in (*INT32_BLANKS, *FP64_BLANKS, float(0xFFFFFFFF), 1e16):
        assert _one(metric, exported) == pytest.approx(exported * scale)


@pytest.mark.parametrize("metric", [m for m in WAYS if SPELLINGS[m].field is SECONDS])
def test_seconds_are_doubles_with_the_blank_of_a_double(metric: str) -> None:
    assert _one(metric, float(0x7FFFFFF0)) == float(0x7FFFFFF0)
    assert all(np.isnan(_one(metric, blank)) for blank in FP64_BLANKS)


@pytest.mark.parametrize(
    "metric", ["gpu_edge_temperature", "amd_gpu_package_power", "gpu_energy_consumed", "gpu_clock"]
)
def test_a_zero_of_a_sensor_that_amd_cannot_read_is_unknown(metric: str) -> None:
    assert np.isnan(_one(metric, 0.0))
    mixed = convert(SPELLINGS[metric], np.array([0.0, 50.0]))
    assert np.isnan(mixed[0])
    assert mixed[1] > 0


@pytest.mark.parametrize("metric", ["gpu_gfx_activity", "gpu_ecc_uncorrect_total", "DCGM_FI_DEV_GPU_TEMP"])
def test_any_other_zero_is_zero(metric: str) -> None:
    assert _one(metric, 0.0) == 0.0


@pytest.mark.parametrize("metric", WAYS)
@settings(deadline=None)
@given(exported=arrays(np.float64, st.integers(0, 5), elements=_EVERY_FLOAT))
def test_every_number_becomes_a_finite_one_or_unknown(metric: str, exported: np.ndarray) -> None:
    before = exported.copy()
    converted = convert(SPELLINGS[metric], exported)
    assert converted.shape == exported.shape
    assert not np.isinf(converted).any()
    converted[:] = 1
    np.testing.assert_array_equal(exported, before)


@pytest.mark.parametrize("metric", WAYS)
@given(exported=st.lists(_EVERY_FLOAT, min_size=2, max_size=6))
def test_a_number_means_the_same_alone_and_beside_others(metric: str, exported: list[float]) -> None:
    together = convert(SPELLINGS[metric], np.array(exported))
    np.testing.assert_array_equal(together, [_one(metric, number) for number in exported])


def test_every_second_value_of_a_column_can_be_converted() -> None:
    exported = np.array([40.0, 9e18, 41.0, 9e18])[::2]
    assert convert(SPELLINGS["DCGM_FI_DEV_GPU_TEMP"], exported).tolist() == [40, 41]


def test_every_signal_has_a_meaning_and_somebody_who_exports_it() -> None:
    assert set(MEANINGS) == set(Signal)
    assert {spelling.signal for spelling in SPELLINGS.values()} == set(Signal)


def test_the_unit_of_a_signal_is_the_one_in_its_name() -> None:
    units = {
        "celsius": "°C",
        "watts": "W",
        "hertz": "Hz",
        "ratio": "ratio",
        "bytes": "B",
        "bytes_per_second": "B/s",
        "transfers_per_second": "T/s",
        "joules": "J",
        "seconds": "s",
        "lanes": "lanes",
    }
    for signal, meaning in MEANINGS.items():
        name = signal.removesuffix("_total")
        suffix = max((unit for unit in units if name.endswith(f"_{unit}")), key=len, default=None)
        assert meaning.unit == (units[suffix] if suffix else ""), signal


def test_a_signal_is_a_counter_by_what_its_field_counts() -> None:
    assert {signal for signal in Signal if signal.endswith("_total")} == COUNTERS
    # Typed counter by dcgm-exporter, and none: a windowed count, two rates, a flag.
    for signal in (Signal.XID_RECENT, Signal.PCIE_TX, Signal.NVLINK_THROUGHPUT, Signal.PAGES_PENDING):
        assert signal not in COUNTERS
    # Typed gauge by AMD's exporter, and counters.
    for metric in ("gpu_energy_consumed", "gpu_ecc_correct_total", "pcie_replay_count", "gpu_xgmi_link_rx"):
        assert SPELLINGS[metric].signal in COUNTERS


def test_what_may_be_written_into_a_state_is_not_compared_by_size() -> None:
    for signal in (Signal.CLOCK_REASONS, Signal.XID, Signal.RECOVERY_ACTION, Signal.GPU_HEALTH):
        assert MEANINGS[signal].kind is Kind.STATE


def test_a_metric_whose_rows_are_parts_of_a_gpu_says_how_they_add_up() -> None:
    for spelling in SPELLINGS.values():
        assert (spelling.combine is Combine.NEWEST) == (spelling.part == ""), spelling.metric
    of_links = [s for s in SPELLINGS.values() if "PER_LINK" in s.metric]
    assert of_links
    assert {(s.combine, s.part) for s in of_links} == {(Combine.SUM, "nvlink")}


def test_of_two_spellings_the_better_one_comes_first() -> None:
    order = {metric: position for position, metric in enumerate(SPELLINGS)}
    assert order["gpu_junction_temperature"] < order["gpu_edge_temperature"]
    assert order["DCGM_FI_DEV_POWER_USAGE"] < order["DCGM_FI_DEV_POWER_USAGE_INSTANT"]
    assert order["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] < order["DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL"]


def test_amd_is_known_with_its_prefix_and_without() -> None:
    names = {metric for metric, spelling in SPELLINGS.items() if spelling.vendor is Vendor.AMD}
    assert {f"amd_{name}" for name in names if not name.startswith("amd_")} == {
        n for n in names if n.startswith("amd_")
    }


def test_whoever_asks_for_a_signal_gets_its_spellings_of_one_vendor_or_of_all() -> None:
    every = {spelling.metric for spelling in spelled(Signal.SM_ACTIVE)}
    amd = {spelling.metric for spelling in spelled(Signal.SM_ACTIVE, Vendor.AMD)}
    assert amd == {"gpu_prof_sm_active", "amd_gpu_prof_sm_active"}
    assert amd < every


def test_the_counters_file_has_each_signal_of_nvidia_under_a_name_of_dcgm() -> None:
    nvidia = [spelling for spelling in SPELLINGS.values() if spelling.vendor is Vendor.NVIDIA]
    listed = [spelling for spelling in nvidia if spelling.listing is not Listing.NONE]
    assert {spelling.signal for spelling in listed} == {spelling.signal for spelling in nvidia}
    assert all(re.fullmatch("DCGM_(FI|EXP)_[A-Z0-9_]+", spelling.metric) for spelling in listed)
    assert not [s.metric for s in SPELLINGS.values() if s.vendor is Vendor.AMD and s.listing is not Listing.NONE]
