"""What an exported number means: the spelling decides the unit, and a vendor's "no value" is not a value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from healer.domain.signal import Signal
from healer.telemetry.catalogue import COUNTERS, SPELLINGS, convert

_EVERY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=64)


def _one(metric: str, exported: float) -> float:
    return float(convert(SPELLINGS[metric], np.array([exported]))[0])


@pytest.mark.parametrize(
    ("metric", "exported", "expected"),
    [
        ("DCGM_FI_DEV_SM_CLOCK", 1530.0, 1.53e9),
        ("DCGM_FI_DEV_GPU_UTIL", 44.0, 0.44),
        ("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.44, 0.44),
        ("DCGM_FI_DEV_FB_USED", 2.0, 2.0 * 1024 * 1024),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 4335301032.0, 4335301.032),
        ("DCGM_FI_DEV_POWER_USAGE", 302.206, 302.206),
        ("DCGM_FI_DEV_BOARD_POWER_WATTS", 302.206, 302.206),
        ("gpu_used_vram", 2.0, 2e6),
        ("amd_gpu_usage", 50.0, 0.5),
    ],
)
def test_the_spelling_decides_the_unit(metric: str, exported: float, expected: float) -> None:
    assert _one(metric, exported) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "blank",
    [
        pytest.param(9223372036854775794.0, id="int64 not supported"),
        pytest.param(float(0x7FFFFFFFFFFFFFF0), id="int64 blank"),
        pytest.param(float(0x7FFFFFF0), id="int32 blank"),
        pytest.param(float(0x7FFFFFF2), id="int32 not supported"),
        pytest.param(140737488355328.0, id="fp64 blank"),
        pytest.param(140737488355330.0, id="fp64 not supported"),
        pytest.param(float("nan"), id="NaN"),
        pytest.param(float("inf"), id="infinity"),
    ],
)
def test_a_blank_of_dcgm_is_unknown(blank: float) -> None:
    assert np.isnan(_one("DCGM_FI_DEV_MEMORY_TEMP", blank))


def test_an_energy_counter_beyond_the_int32_blank_is_real() -> None:
    assert _one("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", float(0x7FFFFFF0)) == pytest.approx(2147483.632)


def test_a_zero_temperature_of_an_amd_guest_is_unknown_and_of_nvidia_is_zero() -> None:
    assert np.isnan(_one("gpu_edge_temperature", 0.0))
    assert _one("DCGM_FI_DEV_GPU_TEMP", 0.0) == 0.0


@pytest.mark.parametrize("metric", sorted(SPELLINGS))
@settings(deadline=None)
@given(exported=arrays(np.float64, st.integers(0, 5), elements=_EVERY_FLOAT))
def test_every_number_becomes_a_finite_one_or_unknown(metric: str, exported: np.ndarray) -> None:
    converted = convert(SPELLINGS[metric], exported)
    assert converted.shape == exported.shape
    assert not np.isinf(converted).any()


def test_what_is_a_counter_follows_from_the_signal_not_from_an_exporter() -> None:
    assert Signal.ECC_DBE_VOLATILE in COUNTERS
    assert Signal.XID not in COUNTERS
    assert Signal.PCIE_TX not in COUNTERS
