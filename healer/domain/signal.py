"""Signal: a named series of one component, with its unit. The vendors' spellings are in healer.telemetry."""

from __future__ import annotations

from enum import StrEnum


class Signal(StrEnum):
    """Every series that a detector or a model may read. The unit is in the name; ratios are 0 to 1."""

    # Gauges of one GPU
    GPU_TEMPERATURE = "gpu_temperature_celsius"
    MEMORY_TEMPERATURE = "gpu_memory_temperature_celsius"
    POWER = "gpu_power_watts"
    POWER_LIMIT = "gpu_power_limit_watts"
    SM_CLOCK = "gpu_sm_clock_hertz"
    MEMORY_CLOCK = "gpu_memory_clock_hertz"
    UTILIZATION = "gpu_utilization_ratio"
    MEMORY_UTILIZATION = "gpu_memory_utilization_ratio"
    MEMORY_USED = "gpu_memory_used_bytes"
    MEMORY_FREE = "gpu_memory_free_bytes"
    SM_ACTIVE = "gpu_sm_active_ratio"
    TENSOR_ACTIVE = "gpu_tensor_active_ratio"
    DRAM_ACTIVE = "gpu_dram_active_ratio"
    CLOCK_REASONS = "gpu_clock_event_reasons"  # bit mask, DCGM field 112
    XID = "gpu_last_xid"  # the last XID seen; never clears by itself
    RECOVERY_ACTION = "gpu_recovery_action"  # DCGM field 1523: 0 none, 1 reset, 2 node reboot, ...
    ROW_REMAP_FAILED = "gpu_row_remap_failed"
    ROW_REMAP_PENDING = "gpu_row_remap_pending"
    # Counters of one GPU: they fall only when something was reset
    ENERGY = "gpu_energy_joules_total"
    ECC_SBE_VOLATILE = "gpu_ecc_sbe_volatile_total"
    ECC_DBE_VOLATILE = "gpu_ecc_dbe_volatile_total"
    ECC_SBE_AGGREGATE = "gpu_ecc_sbe_aggregate_total"
    ECC_DBE_AGGREGATE = "gpu_ecc_dbe_aggregate_total"
    ROW_REMAP_UNCORRECTABLE = "gpu_row_remap_uncorrectable_total"
    ROW_REMAP_CORRECTABLE = "gpu_row_remap_correctable_total"
    PCIE_REPLAY = "gpu_pcie_replay_total"
    PCIE_TX = "gpu_pcie_tx_bytes_per_second"
    PCIE_RX = "gpu_pcie_rx_bytes_per_second"
    NVLINK_TX = "gpu_nvlink_tx_bytes_per_second"
    NVLINK_RX = "gpu_nvlink_rx_bytes_per_second"
