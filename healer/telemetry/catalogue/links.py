"""What NVIDIA's exporters call the signals of a GPU's links: PCIe, NVLink and its fabric."""

from __future__ import annotations

from healer.domain.signal import Signal
from healer.telemetry.catalogue.nvidia import count_of, field_of
from healer.telemetry.catalogue.spelling import COUNT, LARGE, Combine, Listing

# DCGM divides KiB/s by 1,000 and calls that MB/s.
_NVLINK_MB = 1024.0 * 1000.0

PCIE = (
    *field_of(Signal.PCIE_TX, "DCGM_FI_PROF_PCIE_TX_BYTES", "dcgm_fi_prof_pcie_tx_bytes", field=LARGE),
    *field_of(Signal.PCIE_RX, "DCGM_FI_PROF_PCIE_RX_BYTES", "dcgm_fi_prof_pcie_rx_bytes", field=LARGE),
    *count_of(
        Signal.PCIE_REPLAY,
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "DCGM_FI_DEV_PCIE_REPLAY_TOTAL",
        "dcgm_pcie_replay_counter",
    ),
    *count_of(
        Signal.PCIE_CORRECTABLE,
        "DCGM_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS",
        "DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL",
        listing=Listing.RECENT,
    ),
    *field_of(Signal.PCIE_GENERATION, "DCGM_FI_DEV_PCIE_LINK_GEN"),
    *field_of(Signal.PCIE_GENERATION_MAX, "DCGM_FI_DEV_PCIE_MAX_LINK_GEN"),
    *field_of(Signal.PCIE_WIDTH, "DCGM_FI_DEV_PCIE_LINK_WIDTH"),
    *field_of(Signal.PCIE_WIDTH_MAX, "DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH"),
)

# Error counters: the totals of the first generations, those of the data link layer since Hopper, those of Blackwell,
# and those that come with a row for each link.
NVLINK = (
    *field_of(Signal.NVLINK_TX, "DCGM_FI_PROF_NVLINK_TX_BYTES", field=LARGE),
    *field_of(Signal.NVLINK_RX, "DCGM_FI_PROF_NVLINK_RX_BYTES", field=LARGE),
    *field_of(
        Signal.NVLINK_THROUGHPUT,
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        "DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL",
        "dcgm_nvlink_bandwidth_total",
        field=COUNT,
        scale=_NVLINK_MB,
    ),
    *field_of(
        Signal.NVLINK_THROUGHPUT, "DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", field=LARGE, listing=Listing.NONE
    ),
    *field_of(
        Signal.NVLINK_SENT,
        "DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES",
        "DCGM_FI_DEV_NVLINK_TX_BYTES_TOTAL",
        field=LARGE,
        listing=Listing.RECENT,
    ),
    *field_of(
        Signal.NVLINK_RECEIVED,
        "DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES",
        "DCGM_FI_DEV_NVLINK_RX_BYTES_TOTAL",
        field=LARGE,
        listing=Listing.RECENT,
    ),
    *field_of(
        Signal.NVLINK_STATE,
        "DCGM_FI_DEV_NVLINK_GET_STATE",
        "DCGM_FI_DEV_NVLINK_LINK_STATUS",
        combine=Combine.MIN,
        part="nvlink",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_CRC_FLIT,
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL",
        "dcgm_nvlink_flit_crc_error_count_total",
    ),
    *count_of(
        Signal.NVLINK_CRC_FLIT,
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL",
        combine=Combine.SUM,
        part="nvlink",
        listing=Listing.NONE,
    ),
    *count_of(
        Signal.NVLINK_CRC_DATA,
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL",
        "dcgm_nvlink_data_crc_error_count_total",
    ),
    *count_of(
        Signal.NVLINK_CRC_DATA,
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_PER_LINK_TOTAL",
        combine=Combine.SUM,
        part="nvlink",
        listing=Listing.NONE,
    ),
    *count_of(
        Signal.NVLINK_CRC,
        "DCGM_FI_DEV_NVLINK_ERROR_DL_CRC",
        "DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_REPLAY,
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL",
        "dcgm_nvlink_replay_error_count_total",
    ),
    *count_of(
        Signal.NVLINK_REPLAY,
        "DCGM_FI_DEV_NVLINK_ERROR_DL_REPLAY",
        "DCGM_FI_DEV_NVLINK_REPLAY_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_REPLAY,
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_PER_LINK_TOTAL",
        combine=Combine.SUM,
        part="nvlink",
        listing=Listing.NONE,
    ),
    *count_of(
        Signal.NVLINK_RECOVERY,
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL",
        "dcgm_nvlink_recovery_error_count_total",
    ),
    *count_of(
        Signal.NVLINK_RECOVERY,
        "DCGM_FI_DEV_NVLINK_ERROR_DL_RECOVERY",
        "DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_RECOVERY,
        "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS",
        "DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_RECOVERY,
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_PER_LINK_TOTAL",
        combine=Combine.SUM,
        part="nvlink",
        listing=Listing.NONE,
    ),
    *count_of(
        Signal.NVLINK_RECOVERY_FAILED,
        "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS",
        "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_RX_ERRORS,
        "DCGM_FI_DEV_NVLINK_COUNT_RX_ERRORS",
        "DCGM_FI_DEV_NVLINK_RX_ERROR_TOTAL",
        listing=Listing.RECENT,
    ),
    *count_of(
        Signal.NVLINK_ECC,
        "DCGM_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL",
        listing=Listing.RECENT,
    ),
    *field_of(
        Signal.NVLINK_BIT_ERROR_RATE,
        "DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT",
        "DCGM_FI_DEV_NVLINK_EFFECTIVE_BER_RATIO",
        listing=Listing.RECENT,
    ),
    *field_of(Signal.FABRIC_STATUS, "DCGM_FI_DEV_FABRIC_MANAGER_STATUS", listing=Listing.RECENT),
    *field_of(Signal.FABRIC_HEALTH, "DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY", listing=Listing.RECENT),
)
