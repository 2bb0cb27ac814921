"""The fields of a simulated dcgm-exporter: what each is called, in which release, in which unit, and who exports it.

DCGM 4.6 renamed fields and kept their units; DCGM 4.7 gave those that are exported by default twins in SI units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum

from healer.sim.exporters.metric import Metric, MetricKind
from healer.sim.heat import MEMORY_LIMIT_C, SLOWDOWN_C
from healer.sim.physics import MAX_CLOCK_MHZ


class Names(StrEnum):
    """Whose names a site's counters file has."""

    CLASSIC = "before DCGM 4.6"
    DCGM_46 = "DCGM 4.6"
    DCGM_47 = "DCGM 4.7"


class FieldSet(StrEnum):
    """What a site exports."""

    PLAIN = "what the first detectors read"
    EVERYTHING = "all that healer's counters file asks for"
    DEFAULT = "the exporter's own counters file, and ECC"
    NO_PROFILING = "everything but what needs the profiling module"


class _By(Enum):
    """Who exports a field, beside those who export everything."""

    DEFAULT = "default"
    ECC = "default, and ECC"
    FEW = "few"


@dataclass(frozen=True, slots=True)
class _Field:
    row: str  # of GpuState; empty for a constant
    meaning: str
    classic: str
    by: _By
    kind: MetricKind = MetricKind.GAUGE
    decimals: int = 0
    dcgm_46: str = ""
    dcgm_47: str = ""
    scale_47: float = 1.0
    decimals_47: int | None = None
    plain: bool = False
    constant: float = 0.0

    @property
    def is_profiling(self) -> bool:
        return "_PROF_" in self.classic

    def metric(self, names: Names) -> Metric:
        if names is Names.DCGM_47 and self.dcgm_47:
            decimals = self.decimals if self.decimals_47 is None else self.decimals_47
            return Metric(self.dcgm_47, self.kind, self.meaning, self.row, self.scale_47, decimals, self.constant)
        name = self.classic if names is Names.CLASSIC else self.dcgm_46 or self.classic
        return Metric(name, self.kind, self.meaning, self.row, 1.0, self.decimals, self.constant)


_COUNTER = MetricKind.COUNTER
_D, _E, _F = _By.DEFAULT, _By.ECC, _By.FEW
_DEV = "DCGM_FI_DEV_"
_PROF = "DCGM_FI_PROF_"


def _dev(row: str, meaning: str, classic: str, by: _By, **more: object) -> _Field:
    named = {key: f"{_DEV}{more.pop(key)}" for key in ("dcgm_46", "dcgm_47") if key in more}
    return _Field(row, meaning, _DEV + classic, by, **named, **more)  # type: ignore[arg-type]


def _prof(row: str, meaning: str, classic: str, by: _By, *, new: str = "", decimals: int = 6) -> _Field:
    later = _PROF + (new or classic)
    plain = classic in {"SM_ACTIVE", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE"}
    return _Field(row, meaning, _PROF + classic, by, dcgm_46=later, dcgm_47=later, decimals=decimals, plain=plain)


_FIELDS = (
    _dev("sm_clock_mhz", "SM clock.", "SM_CLOCK", _D, dcgm_47="SM_CLOCK_HERTZ", scale_47=1e6, plain=True),
    _dev("memory_clock_mhz", "Memory clock.", "MEM_CLOCK", _D, dcgm_47="MEMORY_CLOCK_HERTZ", scale_47=1e6, plain=True),
    _dev("memory_c", "HBM temperature, C.", "MEMORY_TEMP", _D, dcgm_46="MEMORY_TEMP_CELSIUS", plain=True),
    _dev("core_c", "Core temperature, C.", "GPU_TEMP", _D, dcgm_46="GPU_TEMP_CELSIUS", plain=True),
    _dev("power_w", "Board power, W.", "POWER_USAGE", _D, dcgm_46="BOARD_POWER_WATTS", decimals=3, plain=True),
    _dev(
        "energy_mj", "Energy since the driver was loaded.", "TOTAL_ENERGY_CONSUMPTION", _D, kind=_COUNTER,
        dcgm_47="GPU_ENERGY_JOULES_TOTAL", scale_47=1e-3, decimals_47=3, plain=True,
    ),
    _dev(
        "pcie_replays", "PCIe replays.", "PCIE_REPLAY_COUNTER", _D, kind=_COUNTER,
        dcgm_46="PCIE_REPLAY_TOTAL", plain=True,
    ),
    _dev(
        "util_percent", "Time with a kernel running.", "GPU_UTIL", _D,
        dcgm_47="GPU_UTIL_RATIO", scale_47=0.01, decimals_47=2, plain=True,
    ),
    _dev(
        "memory_util_percent", "Time with memory busy.", "MEM_COPY_UTIL", _D,
        dcgm_47="MEMORY_UTIL_RATIO", scale_47=0.01, decimals_47=2, plain=True,
    ),
    _dev("xid", "The last XID; stays until the driver is reloaded.", "XID_ERRORS", _D, dcgm_46="XID_ERROR", plain=True),
    _dev("fb_free_mib", "Framebuffer free.", "FB_FREE", _D, dcgm_47="FB_FREE_BYTES", scale_47=2.0**20, plain=True),
    _dev("fb_used_mib", "Framebuffer used.", "FB_USED", _D, dcgm_47="FB_USED_BYTES", scale_47=2.0**20, plain=True),
    _dev(
        "remapped_uncorrectable", "Rows remapped after uncorrected errors.", "UNCORRECTABLE_REMAPPED_ROWS", _D,
        kind=_COUNTER, dcgm_46="ROW_REMAP_UNCORRECTABLE_TOTAL", plain=True,
    ),
    _dev(
        "remapped_correctable", "Rows remapped after corrected errors.", "CORRECTABLE_REMAPPED_ROWS", _D,
        kind=_COUNTER, dcgm_46="ROW_REMAP_CORRECTABLE_TOTAL", plain=True,
    ),
    _dev(
        "remap_failed", "1 when a row could not be remapped.", "ROW_REMAP_FAILURE", _D,
        dcgm_46="ROW_REMAP_FAILED", plain=True,
    ),
    _dev(
        "nvlink_mb", "NVLink, both ways.", "NVLINK_BANDWIDTH_TOTAL", _D,
        dcgm_46="NVLINK_THROUGHPUT_TOTAL", dcgm_47="NVLINK_THROUGHPUT_BYTES_PER_SECOND", scale_47=1024000.0,
    ),
    _prof("graphics_active", "Share with the engine busy.", "GR_ENGINE_ACTIVE", _D, new="GR_ENGINE_UTIL_RATIO"),
    _prof("tensor_active", "Share with tensor pipes busy.", "PIPE_TENSOR_ACTIVE", _D, new="TENSOR_UTIL_RATIO"),
    _prof("dram_active", "Share with device memory moving.", "DRAM_ACTIVE", _D, new="DRAM_UTIL_RATIO"),
    _prof("pcie_tx", "Sent over PCIe, B/s.", "PCIE_TX_BYTES", _D, decimals=0),
    _prof("pcie_rx", "Received over PCIe, B/s.", "PCIE_RX_BYTES", _D, decimals=0),
    _dev("sbe_volatile", "Corrected, since reset.", "ECC_SBE_VOL_TOTAL", _E, kind=_COUNTER, plain=True),
    _dev("dbe_volatile", "Uncorrected, since reset.", "ECC_DBE_VOL_TOTAL", _E, kind=_COUNTER, plain=True),
    _dev("sbe_aggregate", "Corrected, for life.", "ECC_SBE_AGG_TOTAL", _E, kind=_COUNTER, plain=True),
    _dev("dbe_aggregate", "Uncorrected, for life.", "ECC_DBE_AGG_TOTAL", _E, kind=_COUNTER, plain=True),
    _dev("remap_pending", "1 when a remap awaits a reset.", "ROW_REMAP_PENDING", _F, plain=True),
    _dev(
        "clock_reasons", "Why clocks are low, bits.", "CLOCK_THROTTLE_REASONS", _F,
        dcgm_46="CLOCKS_EVENT_REASONS", plain=True,
    ),
    _dev(
        "limit_w", "Power limit in force, W.", "POWER_MGMT_LIMIT", _F,
        dcgm_46="BOARD_POWER_LIMIT_REQUESTED_WATTS", decimals=3, plain=True,
    ),
    _dev(
        "limit_w", "Power limit that is enforced, W.", "ENFORCED_POWER_LIMIT", _F,
        dcgm_46="BOARD_POWER_LIMIT_ENFORCED_WATTS", decimals=3,
    ),
    _dev("margin_c", "Distance to the slowdown, C.", "GPU_TEMP_LIMIT", _F, dcgm_46="GPU_TEMP_MARGIN_CELSIUS"),
    _dev("", "Slowdown temperature, C.", "SLOWDOWN_TEMP", _F, dcgm_46="GPU_TEMP_SLOWDOWN_CELSIUS", constant=SLOWDOWN_C),
    _dev("", "Shutdown temperature, C.", "SHUTDOWN_TEMP", _F, dcgm_46="GPU_TEMP_SHUTDOWN_CELSIUS", constant=92.0),
    _dev("", "Highest operating temperature, C.", "GPU_MAX_OP_TEMP", _F, constant=SLOWDOWN_C),
    _dev("", "Highest operating HBM temperature, C.", "MEM_MAX_OP_TEMP", _F, constant=MEMORY_LIMIT_C),
    _dev("", "Highest SM clock, MHz.", "MAX_SM_CLOCK", _F, constant=MAX_CLOCK_MHZ),
    _dev(
        "power_violation_ns", "Time held back by power.", "POWER_VIOLATION", _F, kind=_COUNTER,
        dcgm_46="CLOCKS_EVENT_REASON_SW_POWER_CAP_NS",
        dcgm_47="GPU_POWER_THROTTLE_SECONDS_TOTAL", scale_47=1e-9, decimals_47=9,
    ),
    _dev(
        "thermal_violation_ns", "Time held back by heat.", "THERMAL_VIOLATION", _F, kind=_COUNTER,
        dcgm_46="CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS",
        dcgm_47="GPU_THERMAL_THROTTLE_SECONDS_TOTAL", scale_47=1e-9, decimals_47=9,
    ),
    _dev(
        "thermal_slowdown_ns", "Time with the clocks halved for heat, ns.",
        "CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS", _F, kind=_COUNTER,
    ),
    _dev(
        "power_brake_ns", "Time with the power brake pulled, ns.",
        "CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS", _F, kind=_COUNTER,
    ),
    _prof("sm_active", "Share of cycles with an SM active.", "SM_ACTIVE", _F, new="SM_UTIL_RATIO"),
    _prof("nvlink_tx", "Sent over NVLink, B/s.", "NVLINK_TX_BYTES", _F, decimals=0),
    _prof("nvlink_rx", "Received over NVLink, B/s.", "NVLINK_RX_BYTES", _F, decimals=0),
    _dev("recovery_action", "The driver's verdict.", "GET_GPU_RECOVERY_ACTION", _F, dcgm_46="GPU_RECOVERY_ACTION"),
    _dev("sram_exceeded", "1 when SRAM errors pass a threshold.", "THRESHOLD_SRM", _F, dcgm_46="SRAM_EXCEEDED"),
    _dev(
        "banks_exhausted", "Memory banks without a spare row.", "BANKS_REMAP_ROWS_AVAIL_NONE", _F,
        dcgm_46="BANK_REMAP_AVAIL_NONE",
    ),
    _dev(
        "pcie_correctable", "Corrected PCIe errors.", "PCIE_COUNT_CORRECTABLE_ERRORS", _F, kind=_COUNTER,
        dcgm_46="PCIE_CORRECTABLE_ERROR_TOTAL",
    ),
    _dev("pcie_generation", "PCIe generation.", "PCIE_LINK_GEN", _F),
    _dev("", "Highest PCIe generation.", "PCIE_MAX_LINK_GEN", _F, constant=5.0),
    _dev("pcie_width", "PCIe lanes.", "PCIE_LINK_WIDTH", _F),
    _dev("", "Most PCIe lanes.", "PCIE_MAX_LINK_WIDTH", _F, constant=16.0),
    _dev(
        "nvlink_sent", "Sent over NVLink, B.", "NVLINK_COUNT_TX_BYTES", _F, kind=_COUNTER,
        dcgm_46="NVLINK_TX_BYTES_TOTAL",
    ),
    _dev(
        "nvlink_received", "Received over NVLink, B.", "NVLINK_COUNT_RX_BYTES", _F, kind=_COUNTER,
        dcgm_46="NVLINK_RX_BYTES_TOTAL",
    ),
    _dev("nvlink_state", "Lowest state of the NVLinks.", "NVLINK_GET_STATE", _F, dcgm_46="NVLINK_LINK_STATUS"),
    _dev(
        "nvlink_crc_flit", "NVLink flow control checksums.", "NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", _F, kind=_COUNTER,
        dcgm_46="NVLINK_CRC_FLIT_ERROR_TOTAL",
    ),
    _dev(
        "nvlink_crc_data", "NVLink data checksums.", "NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", _F, kind=_COUNTER,
        dcgm_46="NVLINK_CRC_DATA_ERROR_TOTAL",
    ),
    _dev(
        "nvlink_replays", "NVLink replays.", "NVLINK_REPLAY_ERROR_COUNT_TOTAL", _F, kind=_COUNTER,
        dcgm_46="NVLINK_REPLAY_ERROR_TOTAL",
    ),
    _dev(
        "nvlink_recoveries", "NVLink recoveries.", "NVLINK_RECOVERY_ERROR_COUNT_TOTAL", _F, kind=_COUNTER,
        dcgm_46="NVLINK_RECOVERY_ERROR_TOTAL",
    ),
    _dev("nvlink_crc", "NVLink checksums.", "NVLINK_ERROR_DL_CRC", _F, kind=_COUNTER, dcgm_46="NVLINK_CRC_ERROR_TOTAL"),
)  # fmt: skip


def gpu_metrics(fields: FieldSet, names: Names) -> tuple[Metric, ...]:
    return tuple(field.metric(names) for field in _chosen(fields))


def shows(fields: FieldSet, row: str) -> bool:
    """Whether a site that exports these shows this quantity."""
    return any(field.row == row for field in _chosen(fields))


def _chosen(fields: FieldSet) -> Iterator[_Field]:
    yield from (field for field in _FIELDS if _is_in(field, fields))


def _is_in(field: _Field, fields: FieldSet) -> bool:
    match fields:
        case FieldSet.PLAIN:
            return field.plain
        case FieldSet.EVERYTHING:
            return True
        case FieldSet.DEFAULT:
            return field.by is not _By.FEW
        case FieldSet.NO_PROFILING:
            return not field.is_profiling
