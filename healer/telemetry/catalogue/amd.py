"""What AMD's device-metrics-exporter calls each signal, with its prefix `amd_` and without.

Sources: the exporter's list of metrics and its release notes, amd-smi's headers, AMD's kernel driver. Everything is
typed gauge, counters included; energy is in microjoules; megabytes and kilobytes are powers of 1,024, but for the first
generation's `gpu_total_memory`. In a guest, and on partitions other than 0, sensors that cannot be read are 0.
"""

from __future__ import annotations

from dataclasses import replace

from healer.domain.signal import Signal
from healer.telemetry.catalogue.spelling import COUNT, LARGE, READING, Combine, Field, Spelling, Vendor

AMD_PREFIX = "amd_"

_MIB = 1024.0 * 1024.0
_KIB = 1024.0
_MHZ = 1e6
_GT = 1e9
_PERCENT = 0.01
# One name, several clocks; a generation spells the type as in its protocol.
_SHADER_CLOCK = ("clock_type", frozenset({"system", "GPU_CLOCK_TYPE_SYSTEM"}))
_FIRST_OF_LIST = ("afid_index", frozenset({"0"}))


def _metric(
    metric: str,
    signal: Signal,
    *,
    field: Field = READING,
    scale: float = 1.0,
    offset: float = 0.0,
    combine: Combine = Combine.NEWEST,
    part: str = "",
    only: tuple[str, frozenset[str]] | None = None,
    zero_is_blank: bool = False,
) -> Spelling:
    return Spelling(
        metric=metric,
        signal=signal,
        vendor=Vendor.AMD,
        field=field,
        scale=scale,
        offset=offset,
        combine=combine,
        part=part,
        only=only,
        zero_is_blank=zero_is_blank,
    )


# The junction is the hottest point of the chip, the edge is not; the socket's power is the board's, as NVIDIA's is.
_PLAIN = (
    _metric("gpu_junction_temperature", Signal.GPU_TEMPERATURE, zero_is_blank=True),
    _metric("gpu_edge_temperature", Signal.GPU_TEMPERATURE, zero_is_blank=True),
    _metric("gpu_memory_temperature", Signal.MEMORY_TEMPERATURE, zero_is_blank=True),
    _metric("gpu_package_power", Signal.POWER, zero_is_blank=True),
    _metric("gpu_average_package_power", Signal.POWER, zero_is_blank=True),
    _metric("gpu_power_usage", Signal.POWER, zero_is_blank=True),
    _metric("gpu_energy_consumed", Signal.ENERGY, field=LARGE, scale=1e-6, zero_is_blank=True),
    _metric(
        "gpu_clock",
        Signal.SM_CLOCK,
        scale=_MHZ,
        combine=Combine.MAX,
        part="clock_index",
        only=_SHADER_CLOCK,
        zero_is_blank=True,
    ),
    _metric(
        "gpu_max_clock",
        Signal.SM_CLOCK_MAX,
        scale=_MHZ,
        combine=Combine.MAX,
        part="clock_index",
        only=_SHADER_CLOCK,
        zero_is_blank=True,
    ),
    _metric("gpu_violation_ppt_residency_percentage", Signal.POWER_THROTTLE, scale=_PERCENT),
    _metric("gpu_violation_socket_thermal_residency_percentage", Signal.THERMAL_THROTTLE, scale=_PERCENT),
    _metric("gpu_violation_hbm_thermal_residency_percentage", Signal.MEMORY_THERMAL_THROTTLE, scale=_PERCENT),
    _metric("gpu_violation_processor_hot_residency_percentage", Signal.PROCESSOR_HOT, scale=_PERCENT),
    _metric("gpu_gfx_activity", Signal.UTILIZATION, scale=_PERCENT),
    _metric("gpu_usage", Signal.UTILIZATION, scale=_PERCENT),
    _metric("gpu_umc_activity", Signal.MEMORY_UTILIZATION, scale=_PERCENT),
    _metric("gpu_used_vram", Signal.MEMORY_USED, field=COUNT, scale=_MIB),
    _metric("gpu_free_vram", Signal.MEMORY_FREE, field=COUNT, scale=_MIB),
    _metric("gpu_prof_gui_util_percent", Signal.GRAPHICS_ACTIVE, scale=_PERCENT),
    _metric("gpu_prof_sm_active", Signal.SM_ACTIVE, scale=_PERCENT),
    _metric("gpu_prof_tensor_active_percent", Signal.TENSOR_ACTIVE, scale=_PERCENT),
    _metric("gpu_afid_errors", Signal.AFID, only=_FIRST_OF_LIST),
    # 1 is healthy, 0 is not; in DCGM's terms 0 and 20.
    _metric("gpu_health", Signal.GPU_HEALTH, scale=-20.0, offset=20.0),
    _metric("gpu_ecc_correct_total", Signal.ECC_SBE_VOLATILE, field=COUNT),
    _metric("gpu_ecc_uncorrect_total", Signal.ECC_DBE_VOLATILE, field=COUNT),
    _metric("gpu_ecc_deferred_total", Signal.ECC_DEFERRED, field=COUNT),
    _metric("pcie_replay_count", Signal.PCIE_REPLAY, field=COUNT),
    _metric("pcie_speed", Signal.PCIE_SPEED, scale=_GT, zero_is_blank=True),
    _metric("pcie_max_speed", Signal.PCIE_SPEED_MAX, scale=_GT, zero_is_blank=True),
    _metric("gpu_xgmi_link_tx", Signal.NVLINK_SENT, field=LARGE, scale=_KIB, combine=Combine.SUM, part="link_index"),
    _metric(
        "gpu_xgmi_link_rx", Signal.NVLINK_RECEIVED, field=LARGE, scale=_KIB, combine=Combine.SUM, part="link_index"
    ),
    _metric("gpu_ecc_correct_xgmi_wafl", Signal.NVLINK_ECC, field=COUNT),
)

AMD = (*_PLAIN, *(replace(spelling, metric=f"{AMD_PREFIX}{spelling.metric}") for spelling in _PLAIN))
