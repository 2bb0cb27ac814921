"""Which exported metric is which signal, in which unit, for every spelling in use.

Sources: DCGM field ids and the renames of DCGM 4.6 (dcgm-exporter 4.9), AMD device-metrics-exporter. Whether a field
is a counter is decided by the field, never by the exported TYPE: AMD types everything gauge, dcgm-exporter types
windowed counts counter. The unit is decided by the spelling: the renamed fields changed theirs (MHz to Hz, mJ to J, %
to ratio, MiB to bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from healer.domain.signal import Signal

_MIB = 1024.0 * 1024.0
_MHZ = 1e6
_PERCENT = 0.01


@dataclass(frozen=True, slots=True)
class Spelling:
    """One exported metric name; `value * scale` is in the signal's unit.

    Attributes:
        zero_is_blank: the exporter writes 0 where the sensor cannot be read (AMD guests and partitions other than 0).
    """

    metric: str
    signal: Signal
    scale: float = 1.0
    zero_is_blank: bool = False


_DCGM = (
    Spelling("DCGM_FI_DEV_GPU_TEMP", Signal.GPU_TEMPERATURE),
    Spelling("DCGM_FI_DEV_GPU_TEMP_CELSIUS", Signal.GPU_TEMPERATURE),
    Spelling("DCGM_FI_DEV_MEMORY_TEMP", Signal.MEMORY_TEMPERATURE),
    Spelling("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", Signal.MEMORY_TEMPERATURE),
    Spelling("DCGM_FI_DEV_POWER_USAGE", Signal.POWER),
    Spelling("DCGM_FI_DEV_BOARD_POWER_WATTS", Signal.POWER),
    Spelling("DCGM_FI_DEV_POWER_MGMT_LIMIT", Signal.POWER_LIMIT),
    Spelling("DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS", Signal.POWER_LIMIT),
    Spelling("DCGM_FI_DEV_SM_CLOCK", Signal.SM_CLOCK, _MHZ),
    Spelling("DCGM_FI_DEV_MEM_CLOCK", Signal.MEMORY_CLOCK, _MHZ),
    Spelling("DCGM_FI_DEV_GPU_UTIL", Signal.UTILIZATION, _PERCENT),
    Spelling("DCGM_FI_DEV_GPU_UTIL_RATIO", Signal.UTILIZATION),
    Spelling("DCGM_FI_DEV_MEM_COPY_UTIL", Signal.MEMORY_UTILIZATION, _PERCENT),
    Spelling("DCGM_FI_DEV_FB_USED", Signal.MEMORY_USED, _MIB),
    Spelling("DCGM_FI_DEV_FB_FREE", Signal.MEMORY_FREE, _MIB),
    Spelling("DCGM_FI_PROF_SM_ACTIVE", Signal.SM_ACTIVE),
    Spelling("DCGM_FI_PROF_SM_UTIL_RATIO", Signal.SM_ACTIVE),
    Spelling("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", Signal.TENSOR_ACTIVE),
    Spelling("DCGM_FI_PROF_TENSOR_UTIL_RATIO", Signal.TENSOR_ACTIVE),
    Spelling("DCGM_FI_PROF_DRAM_ACTIVE", Signal.DRAM_ACTIVE),
    Spelling("DCGM_FI_PROF_DRAM_UTIL_RATIO", Signal.DRAM_ACTIVE),
    Spelling("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", Signal.CLOCK_REASONS),
    Spelling("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", Signal.CLOCK_REASONS),
    Spelling("DCGM_FI_DEV_XID_ERRORS", Signal.XID),
    Spelling("DCGM_FI_DEV_XID_ERROR", Signal.XID),
    Spelling("DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION", Signal.RECOVERY_ACTION),
    Spelling("DCGM_FI_DEV_GPU_RECOVERY_ACTION", Signal.RECOVERY_ACTION),
    Spelling("DCGM_FI_DEV_ROW_REMAP_FAILURE", Signal.ROW_REMAP_FAILED),
    Spelling("DCGM_FI_DEV_ROW_REMAP_FAILED", Signal.ROW_REMAP_FAILED),
    Spelling("DCGM_FI_DEV_ROW_REMAP_PENDING", Signal.ROW_REMAP_PENDING),
    Spelling("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", Signal.ROW_REMAP_UNCORRECTABLE),
    Spelling("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL", Signal.ROW_REMAP_UNCORRECTABLE),
    Spelling("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", Signal.ROW_REMAP_CORRECTABLE),
    Spelling("DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL", Signal.ROW_REMAP_CORRECTABLE),
    Spelling("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", Signal.ENERGY, 1e-3),
    Spelling("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", Signal.ECC_SBE_VOLATILE),
    Spelling("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", Signal.ECC_DBE_VOLATILE),
    Spelling("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", Signal.ECC_SBE_AGGREGATE),
    Spelling("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", Signal.ECC_DBE_AGGREGATE),
    Spelling("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", Signal.PCIE_REPLAY),
    Spelling("DCGM_FI_DEV_PCIE_REPLAY_TOTAL", Signal.PCIE_REPLAY),
    Spelling("DCGM_FI_PROF_PCIE_TX_BYTES", Signal.PCIE_TX),
    Spelling("DCGM_FI_PROF_PCIE_RX_BYTES", Signal.PCIE_RX),
    Spelling("DCGM_FI_PROF_NVLINK_TX_BYTES", Signal.NVLINK_TX),
    Spelling("DCGM_FI_PROF_NVLINK_RX_BYTES", Signal.NVLINK_RX),
)

# Earlier spellings win over later ones when an exporter offers both: the junction is the hottest point, the edge is
# not.
_AMD = (
    Spelling("gpu_junction_temperature", Signal.GPU_TEMPERATURE, zero_is_blank=True),
    Spelling("gpu_edge_temperature", Signal.GPU_TEMPERATURE, zero_is_blank=True),
    Spelling("gpu_memory_temperature", Signal.MEMORY_TEMPERATURE, zero_is_blank=True),
    Spelling("gpu_package_power", Signal.POWER, zero_is_blank=True),
    Spelling("gpu_average_package_power", Signal.POWER, zero_is_blank=True),
    Spelling("gpu_power_usage", Signal.POWER, zero_is_blank=True),
    Spelling("gpu_gfx_activity", Signal.UTILIZATION, _PERCENT),
    Spelling("gpu_usage", Signal.UTILIZATION, _PERCENT),
    Spelling("gpu_used_vram", Signal.MEMORY_USED, 1e6),
    Spelling("gpu_free_vram", Signal.MEMORY_FREE, 1e6),
    Spelling("gpu_energy_consumed", Signal.ENERGY, 1e-6),
    Spelling("gpu_ecc_correct_total", Signal.ECC_SBE_VOLATILE),
    Spelling("gpu_ecc_uncorrect_total", Signal.ECC_DBE_VOLATILE),
    Spelling("pcie_replay_count", Signal.PCIE_REPLAY),
)

SPELLINGS: Mapping[str, Spelling] = {
    spelling.metric: spelling for spelling in (*_DCGM, *_AMD, *(replace(s, metric=f"amd_{s.metric}") for s in _AMD))
}

COUNTERS = frozenset(signal for signal in Signal if signal.endswith("_total"))

_INT64_BLANK = float(0x7FFFFFFFFFFFFFF0)
_FP64_BLANK = 140737488355328.0
_INT32_BLANK = float(0x7FFFFFF0)
_INT32_END = float(0x80000000)

# A millijoule counter passes 2^31 in days, and a DCGM fp64 blank only after decades: only the int64 blank is safe to
# cut.
_LARGE_VALUES_ARE_REAL = frozenset({Signal.ENERGY, Signal.PCIE_TX, Signal.PCIE_RX, Signal.NVLINK_TX, Signal.NVLINK_RX})


def convert(spelling: Spelling, exported: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exported values (n,) in the signal's unit; a vendor's "no value" becomes NaN.

    DCGM writes its blanks as ordinary numbers: int64 from 0x7ffffffffffffff0, int32 from 0x7ffffff0, fp64 from 2^47.
    """
    blank = exported >= _INT64_BLANK * 0.999999
    if spelling.signal not in _LARGE_VALUES_ARE_REAL:
        blank |= exported >= _FP64_BLANK
        blank |= (exported >= _INT32_BLANK) & (exported < _INT32_END)
    if spelling.zero_is_blank:
        blank |= exported == 0
    with np.errstate(over="ignore"):
        converted = exported * spelling.scale
    return np.where(blank | ~np.isfinite(converted), np.nan, converted)
