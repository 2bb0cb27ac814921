"""Signal: a named series of one GPU, with its unit. What it means, and how vendors spell it, is in healer.telemetry."""

from __future__ import annotations

from enum import StrEnum


class Signal(StrEnum):
    """Every series that a detector or a model may read. The unit is in the name; ratios are 0 to 1."""

    # Heat
    GPU_TEMPERATURE = "gpu_temperature_celsius"
    MEMORY_TEMPERATURE = "gpu_memory_temperature_celsius"
    TEMPERATURE_MARGIN = "gpu_temperature_margin_celsius"
    SLOWDOWN_TEMPERATURE = "gpu_slowdown_temperature_celsius"
    SHUTDOWN_TEMPERATURE = "gpu_shutdown_temperature_celsius"
    HIGHEST_OPERATING_TEMPERATURE = "gpu_highest_operating_temperature_celsius"
    HIGHEST_OPERATING_MEMORY_TEMPERATURE = "gpu_highest_operating_memory_temperature_celsius"
    FAN_SPEED = "gpu_fan_speed_ratio"
    # Power and clocks
    POWER = "gpu_power_watts"
    POWER_LIMIT = "gpu_power_limit_watts"
    POWER_LIMIT_ENFORCED = "gpu_power_limit_enforced_watts"
    ENERGY = "gpu_energy_joules_total"
    SM_CLOCK = "gpu_sm_clock_hertz"
    SM_CLOCK_MAX = "gpu_sm_clock_max_hertz"
    MEMORY_CLOCK = "gpu_memory_clock_hertz"
    CLOCK_REASONS = "gpu_clock_event_reasons"
    # How long it was held back, and by what
    POWER_VIOLATION = "gpu_power_violation_seconds_total"
    THERMAL_VIOLATION = "gpu_thermal_violation_seconds_total"
    SYNC_BOOST_VIOLATION = "gpu_sync_boost_violation_seconds_total"
    BOARD_LIMIT_VIOLATION = "gpu_board_limit_violation_seconds_total"
    RELIABILITY_VIOLATION = "gpu_reliability_violation_seconds_total"
    THERMAL_SLOWDOWN = "gpu_thermal_slowdown_seconds_total"
    POWER_BRAKE = "gpu_power_brake_seconds_total"
    POWER_THROTTLE = "gpu_power_throttle_ratio"
    THERMAL_THROTTLE = "gpu_thermal_throttle_ratio"
    MEMORY_THERMAL_THROTTLE = "gpu_memory_thermal_throttle_ratio"
    PROCESSOR_HOT = "gpu_processor_hot_ratio"
    # Work
    UTILIZATION = "gpu_utilization_ratio"
    MEMORY_UTILIZATION = "gpu_memory_utilization_ratio"
    MEMORY_USED = "gpu_memory_used_bytes"
    MEMORY_FREE = "gpu_memory_free_bytes"
    GRAPHICS_ACTIVE = "gpu_graphics_active_ratio"
    SM_ACTIVE = "gpu_sm_active_ratio"
    TENSOR_ACTIVE = "gpu_tensor_active_ratio"
    DRAM_ACTIVE = "gpu_dram_active_ratio"
    # What the driver and the vendor's tools say
    XID = "gpu_last_xid"
    XID_RECENT = "gpu_recent_xid_errors"
    XID_ERRORS = "gpu_xid_errors_total"
    AFID = "gpu_last_afid"
    RECOVERY_ACTION = "gpu_recovery_action"
    GPU_HEALTH = "gpu_health"
    # Memory errors
    ECC_SBE_VOLATILE = "gpu_ecc_sbe_volatile_total"
    ECC_DBE_VOLATILE = "gpu_ecc_dbe_volatile_total"
    ECC_SBE_AGGREGATE = "gpu_ecc_sbe_aggregate_total"
    ECC_DBE_AGGREGATE = "gpu_ecc_dbe_aggregate_total"
    ECC_DEFERRED = "gpu_ecc_deferred_total"
    SRAM_THRESHOLD_EXCEEDED = "gpu_sram_threshold_exceeded"
    MEMORY_UNREPAIRABLE = "gpu_memory_unrepairable"
    ROW_REMAP_FAILED = "gpu_row_remap_failed"
    ROW_REMAP_PENDING = "gpu_row_remap_pending"
    ROW_REMAP_UNCORRECTABLE = "gpu_row_remap_uncorrectable_total"
    ROW_REMAP_CORRECTABLE = "gpu_row_remap_correctable_total"
    ROW_REMAP_EXHAUSTED_BANKS = "gpu_row_remap_exhausted_banks"
    PAGES_RETIRED_DBE = "gpu_pages_retired_dbe_total"
    PAGES_PENDING = "gpu_pages_retirement_pending"
    # PCIe
    PCIE_TX = "gpu_pcie_tx_bytes_per_second"
    PCIE_RX = "gpu_pcie_rx_bytes_per_second"
    PCIE_REPLAY = "gpu_pcie_replay_total"
    PCIE_CORRECTABLE = "gpu_pcie_correctable_errors_total"
    PCIE_GENERATION = "gpu_pcie_generation"
    PCIE_GENERATION_MAX = "gpu_pcie_generation_max"
    PCIE_WIDTH = "gpu_pcie_width_lanes"
    PCIE_WIDTH_MAX = "gpu_pcie_width_max_lanes"
    PCIE_SPEED = "gpu_pcie_speed_transfers_per_second"
    PCIE_SPEED_MAX = "gpu_pcie_speed_max_transfers_per_second"
    # NVLink, and AMD's xGMI
    NVLINK_TX = "gpu_nvlink_tx_bytes_per_second"
    NVLINK_RX = "gpu_nvlink_rx_bytes_per_second"
    NVLINK_THROUGHPUT = "gpu_nvlink_throughput_bytes_per_second"
    NVLINK_SENT = "gpu_nvlink_sent_bytes_total"
    NVLINK_RECEIVED = "gpu_nvlink_received_bytes_total"
    NVLINK_STATE = "gpu_nvlink_state"
    NVLINK_CRC_FLIT = "gpu_nvlink_crc_flit_errors_total"
    NVLINK_CRC_DATA = "gpu_nvlink_crc_data_errors_total"
    NVLINK_CRC = "gpu_nvlink_crc_errors_total"
    NVLINK_REPLAY = "gpu_nvlink_replay_errors_total"
    NVLINK_RECOVERY = "gpu_nvlink_recovery_errors_total"
    NVLINK_RECOVERY_FAILED = "gpu_nvlink_failed_recoveries_total"
    NVLINK_RX_ERRORS = "gpu_nvlink_rx_errors_total"
    NVLINK_ECC = "gpu_nvlink_ecc_errors_total"
    NVLINK_BIT_ERROR_RATE = "gpu_nvlink_bit_error_ratio"
    FABRIC_STATUS = "gpu_fabric_status"
    FABRIC_HEALTH = "gpu_fabric_health"


class NodeSignal(StrEnum):
    """What is known of a whole node, from others than its GPUs' exporter."""

    READY = "node_ready"
    CORDONED = "node_cordoned"
    INLET_TEMPERATURE = "node_inlet_temperature_celsius"


class PortSignal(StrEnum):
    """Of one fabric port of a node, InfiniBand or Ethernet."""

    ACTIVE = "port_active"
    LINK_DOWNED = "port_link_downed_total"
    CARRIER_CHANGES = "port_carrier_changes_total"
    LINK_RECOVERY = "port_link_error_recovery_total"
    SYMBOL_ERRORS = "port_symbol_errors_total"
    RECEIVE_ERRORS = "port_receive_errors_total"
    RECEIVED = "port_received_bytes_total"
    SENT = "port_sent_bytes_total"
