"""What NVIDIA's exporters call each signal: DCGM's names before 4.6, of 4.6 and of 4.7, and the lower-case ones of 1.x.

Sources: dcgm_fields.h of DCGM 4.6 and 4.7, the counters files and README of dcgm-exporter 1.x to 4.9, nvml.h. DCGM 4.6
renamed fields and kept their units. DCGM 4.7 gave eleven of the fields that are exported by default a twin in SI units
under a new name, and dcgm-exporter 4.9 exports the twins.
"""

from __future__ import annotations

from healer.domain.signal import Signal
from healer.telemetry.catalogue.spelling import (
    COUNT,
    LARGE,
    RATIO_OR_PERCENT,
    READING,
    SECONDS,
    Combine,
    Field,
    Listing,
    Spelling,
    Vendor,
)

_MIB = 1024.0 * 1024.0
_MHZ = 1e6
_PERCENT = 0.01
_NS = 1e-9


def field_of(
    signal: Signal,
    *names: str,
    field: Field = READING,
    scale: float = 1.0,
    combine: Combine = Combine.NEWEST,
    part: str = "",
    listing: Listing = Listing.ALWAYS,
) -> tuple[Spelling, ...]:
    """One field of DCGM under all its names; the first is the one that most exporters know, and that is listed."""
    return tuple(
        Spelling(
            metric=name,
            signal=signal,
            vendor=Vendor.NVIDIA,
            field=field,
            scale=scale,
            combine=combine,
            part=part,
            listing=listing if name == names[0] else Listing.NONE,
        )
        for name in names
    )


def count_of(
    signal: Signal,
    *names: str,
    combine: Combine = Combine.NEWEST,
    part: str = "",
    listing: Listing = Listing.ALWAYS,
) -> tuple[Spelling, ...]:
    return field_of(signal, *names, field=COUNT, combine=combine, part=part, listing=listing)


def _nanoseconds(signal: Signal, *names: str, listing: Listing = Listing.ALWAYS) -> tuple[Spelling, ...]:
    return field_of(signal, *names, field=LARGE, scale=_NS, listing=listing)


def _seconds(signal: Signal, *names: str) -> tuple[Spelling, ...]:
    return field_of(signal, *names, field=SECONDS, listing=Listing.NONE)


_HEAT = (
    *field_of(Signal.GPU_TEMPERATURE, "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS", "dcgm_gpu_temp"),
    *field_of(
        Signal.MEMORY_TEMPERATURE, "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", "dcgm_memory_temp"
    ),
    *field_of(
        Signal.TEMPERATURE_MARGIN,
        "DCGM_FI_DEV_GPU_TEMP_LIMIT",
        "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS",
        listing=Listing.RECENT,
    ),
    *field_of(Signal.SLOWDOWN_TEMPERATURE, "DCGM_FI_DEV_SLOWDOWN_TEMP", "DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS"),
    *field_of(Signal.SHUTDOWN_TEMPERATURE, "DCGM_FI_DEV_SHUTDOWN_TEMP", "DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS"),
    *field_of(
        Signal.HIGHEST_OPERATING_TEMPERATURE, "DCGM_FI_DEV_GPU_MAX_OP_TEMP", "DCGM_FI_DEV_GPU_MAX_OP_TEMP_CELSIUS"
    ),
    *field_of(
        Signal.HIGHEST_OPERATING_MEMORY_TEMPERATURE,
        "DCGM_FI_DEV_MEM_MAX_OP_TEMP",
        "DCGM_FI_DEV_MEMORY_MAX_OP_TEMP_CELSIUS",
    ),
    *field_of(Signal.FAN_SPEED, "DCGM_FI_DEV_FAN_SPEED", scale=_PERCENT),
    *field_of(Signal.FAN_SPEED, "DCGM_FI_DEV_FAN_SPEED_RATIO", listing=Listing.NONE),
)

_POWER = (
    *field_of(
        Signal.POWER,
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_BOARD_POWER_WATTS",
        "dcgm_power_usage",
        "DCGM_FI_DEV_POWER_USAGE_INSTANT",
        "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS",
    ),
    *field_of(Signal.POWER_LIMIT, "DCGM_FI_DEV_POWER_MGMT_LIMIT", "DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS"),
    *field_of(
        Signal.POWER_LIMIT_ENFORCED, "DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS"
    ),
    *field_of(
        Signal.ENERGY, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "dcgm_total_energy_consumption", field=LARGE, scale=1e-3
    ),
    *field_of(Signal.ENERGY, "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", field=LARGE, listing=Listing.NONE),
    *field_of(Signal.SM_CLOCK, "DCGM_FI_DEV_SM_CLOCK", "dcgm_sm_clock", scale=_MHZ),
    *field_of(Signal.SM_CLOCK, "DCGM_FI_DEV_SM_CLOCK_HERTZ", field=LARGE, listing=Listing.NONE),
    *field_of(Signal.SM_CLOCK_MAX, "DCGM_FI_DEV_MAX_SM_CLOCK", scale=_MHZ),
    *field_of(Signal.SM_CLOCK_MAX, "DCGM_FI_DEV_SM_MAX_CLOCK_HERTZ", field=LARGE, listing=Listing.NONE),
    *field_of(Signal.MEMORY_CLOCK, "DCGM_FI_DEV_MEM_CLOCK", "dcgm_memory_clock", scale=_MHZ),
    *field_of(Signal.MEMORY_CLOCK, "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", field=LARGE, listing=Listing.NONE),
    *count_of(Signal.CLOCK_REASONS, "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"),
)

# The name of the twin in seconds is published for power; the others follow DCGM's grammar of names.
_HELD_BACK = (
    *_nanoseconds(
        Signal.POWER_VIOLATION,
        "DCGM_FI_DEV_POWER_VIOLATION",
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS",
        "dcgm_power_violation",
    ),
    *_seconds(Signal.POWER_VIOLATION, "DCGM_FI_DEV_GPU_POWER_THROTTLE_SECONDS_TOTAL"),
    *_nanoseconds(
        Signal.THERMAL_VIOLATION,
        "DCGM_FI_DEV_THERMAL_VIOLATION",
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",
        "dcgm_thermal_violation",
    ),
    *_seconds(Signal.THERMAL_VIOLATION, "DCGM_FI_DEV_GPU_THERMAL_THROTTLE_SECONDS_TOTAL"),
    *_nanoseconds(
        Signal.SYNC_BOOST_VIOLATION,
        "DCGM_FI_DEV_SYNC_BOOST_VIOLATION",
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_NS",
        "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_COUNT_NS",
        "dcgm_sync_boost_violation",
    ),
    *_seconds(Signal.SYNC_BOOST_VIOLATION, "DCGM_FI_DEV_GPU_SYNC_BOOST_THROTTLE_SECONDS_TOTAL"),
    *_nanoseconds(Signal.BOARD_LIMIT_VIOLATION, "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION", "dcgm_board_limit_violation"),
    *_seconds(Signal.BOARD_LIMIT_VIOLATION, "DCGM_FI_DEV_BOARD_LIMIT_THROTTLE_SECONDS_TOTAL"),
    *_nanoseconds(Signal.RELIABILITY_VIOLATION, "DCGM_FI_DEV_RELIABILITY_VIOLATION", "dcgm_reliability_violation"),
    *_seconds(Signal.RELIABILITY_VIOLATION, "DCGM_FI_DEV_GPU_RELIABILITY_THROTTLE_SECONDS_TOTAL"),
    *_nanoseconds(
        Signal.THERMAL_SLOWDOWN, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS", listing=Listing.RECENT
    ),
    *_nanoseconds(
        Signal.POWER_BRAKE, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS", listing=Listing.RECENT
    ),
)

_WORK = (
    *field_of(Signal.UTILIZATION, "DCGM_FI_DEV_GPU_UTIL", "dcgm_gpu_utilization", scale=_PERCENT),
    *field_of(Signal.UTILIZATION, "DCGM_FI_DEV_GPU_UTIL_RATIO", field=RATIO_OR_PERCENT, listing=Listing.NONE),
    *field_of(Signal.MEMORY_UTILIZATION, "DCGM_FI_DEV_MEM_COPY_UTIL", "dcgm_mem_copy_utilization", scale=_PERCENT),
    *field_of(Signal.MEMORY_UTILIZATION, "DCGM_FI_DEV_MEMORY_UTIL_RATIO", listing=Listing.NONE),
    *field_of(Signal.MEMORY_USED, "DCGM_FI_DEV_FB_USED", "dcgm_fb_used", field=COUNT, scale=_MIB),
    *field_of(Signal.MEMORY_USED, "DCGM_FI_DEV_FB_USED_BYTES", field=LARGE, listing=Listing.NONE),
    *field_of(Signal.MEMORY_FREE, "DCGM_FI_DEV_FB_FREE", "dcgm_fb_free", field=COUNT, scale=_MIB),
    *field_of(Signal.MEMORY_FREE, "DCGM_FI_DEV_FB_FREE_BYTES", field=LARGE, listing=Listing.NONE),
    *field_of(
        Signal.GRAPHICS_ACTIVE,
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO",
        "dcgm_fi_prof_gr_engine_active",
    ),
    *field_of(Signal.SM_ACTIVE, "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_UTIL_RATIO", "dcgm_fi_prof_sm_active"),
    *field_of(
        Signal.TENSOR_ACTIVE,
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "DCGM_FI_PROF_TENSOR_UTIL_RATIO",
        "dcgm_fi_prof_pipe_tensor_active",
    ),
    *field_of(
        Signal.DRAM_ACTIVE, "DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_UTIL_RATIO", "dcgm_fi_prof_dram_active"
    ),
)

_VERDICTS = (
    *count_of(Signal.XID, "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR", "dcgm_xid_errors"),
    *count_of(Signal.XID_RECENT, "DCGM_EXP_XID_ERRORS_COUNT", combine=Combine.SUM, part="xid"),
    *count_of(Signal.XID_ERRORS, "DCGM_EXP_XID_ERRORS_TOTAL", combine=Combine.SUM, part="xid", listing=Listing.RECENT),
    *field_of(
        Signal.RECOVERY_ACTION,
        "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION",
        "DCGM_FI_DEV_GPU_RECOVERY_ACTION",
        listing=Listing.RECENT,
    ),
    *field_of(
        Signal.GPU_HEALTH,
        "DCGM_EXP_GPU_HEALTH_STATUS",
        combine=Combine.MAX,
        part="health_watch",
        listing=Listing.RECENT,
    ),
)

_MEMORY_ERRORS = (
    *count_of(Signal.ECC_SBE_VOLATILE, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "dcgm_ecc_sbe_volatile_total"),
    *count_of(Signal.ECC_DBE_VOLATILE, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "dcgm_ecc_dbe_volatile_total"),
    *count_of(Signal.ECC_SBE_AGGREGATE, "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "dcgm_ecc_sbe_aggregate_total"),
    *count_of(Signal.ECC_DBE_AGGREGATE, "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "dcgm_ecc_dbe_aggregate_total"),
    *field_of(
        Signal.SRAM_THRESHOLD_EXCEEDED, "DCGM_FI_DEV_THRESHOLD_SRM", "DCGM_FI_DEV_SRAM_EXCEEDED", listing=Listing.RECENT
    ),
    *field_of(
        Signal.MEMORY_UNREPAIRABLE,
        "DCGM_FI_DEV_MEMORY_UNREPAIRABLE_FLAG",
        "DCGM_FI_DEV_MEMORY_UNREPAIRABLE",
        listing=Listing.RECENT,
    ),
    *field_of(Signal.ROW_REMAP_FAILED, "DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED"),
    *field_of(Signal.ROW_REMAP_PENDING, "DCGM_FI_DEV_ROW_REMAP_PENDING", listing=Listing.RECENT),
    *count_of(
        Signal.ROW_REMAP_UNCORRECTABLE,
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL",
    ),
    *count_of(
        Signal.ROW_REMAP_CORRECTABLE, "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL"
    ),
    *field_of(
        Signal.ROW_REMAP_EXHAUSTED_BANKS,
        "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_NONE",
        "DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.PAGES_RETIRED_DBE,
        "DCGM_FI_DEV_RETIRED_DBE",
        "DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL",
        "dcgm_retired_pages_dbe",
    ),
    *field_of(
        Signal.PAGES_PENDING,
        "DCGM_FI_DEV_RETIRED_PENDING",
        "DCGM_FI_DEV_PAGE_RETIRED_PENDING",
        "dcgm_retired_pages_pending",
    ),
)

DEVICE = (*_HEAT, *_POWER, *_HELD_BACK, *_WORK, *_VERDICTS, *_MEMORY_ERRORS)
