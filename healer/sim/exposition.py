"""The pages that a simulated fleet is scraped by: dcgm-exporter's for a node, a power meter's for the racks.

Metric and label names are those of dcgm-exporter 4.8 with a counters file that also switches on what healer looks at
beyond the default: ECC counters, pending row remaps, clock event reasons and the power limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from healer.sim.fleet import NodeReading
from healer.sim.layout import pci_bus_id
from healer.sim.physics import FRAMEBUFFER_MIB, MEMORY_CLOCK_MHZ, Floats, GpuState, Ints

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DRIVER = "570.172.08"
_NAMESPACE = "training"
_CONTAINER = "trainer"


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    kind: str
    meaning: str
    read: Callable[[GpuState], Floats | Ints]
    decimals: int = 0


def _percent(share: Floats) -> Floats:
    return np.minimum(100.0, 100.0 * share)


_METRICS = (
    _Metric("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock, MHz.", lambda s: s.sm_clock_mhz),
    _Metric("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock, MHz.", lambda s: np.full(len(s.xid), MEMORY_CLOCK_MHZ)),
    _Metric("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "HBM temperature, C.", lambda s: s.memory_c),
    _Metric("DCGM_FI_DEV_GPU_TEMP", "gauge", "Core temperature, C.", lambda s: s.core_c),
    _Metric("DCGM_FI_DEV_POWER_USAGE", "gauge", "Board power, W.", lambda s: s.power_w, 3),
    _Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Energy since boot, mJ.", lambda s: s.energy_mj),
    _Metric("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "PCIe replays.", lambda s: s.pcie_replays),
    _Metric("DCGM_FI_DEV_GPU_UTIL", "gauge", "Time with a kernel running, %.", lambda s: _percent(1.35 * s.load)),
    _Metric("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Time with memory busy, %.", lambda s: _percent(s.dram_active)),
    _Metric("DCGM_FI_DEV_XID_ERRORS", "gauge", "The last XID; stays until the driver is reloaded.", lambda s: s.xid),
    _Metric("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer free, MiB.", lambda s: FRAMEBUFFER_MIB - s.fb_used_mib),
    _Metric("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer used, MiB.", lambda s: s.fb_used_mib),
    _Metric("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "counter", "Corrected, since reset.", lambda s: s.sbe_volatile),
    _Metric("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "Uncorrected, since reset.", lambda s: s.dbe_volatile),
    _Metric("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "counter", "Corrected, for life.", lambda s: s.sbe_aggregate),
    _Metric("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "counter", "Uncorrected, for life.", lambda s: s.dbe_aggregate),
    _Metric(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "counter",
        "Rows remapped after uncorrected errors.",
        lambda s: s.remapped_uncorrectable,
    ),
    _Metric(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "counter",
        "Rows remapped after corrected errors.",
        lambda s: s.remapped_correctable,
    ),
    _Metric("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "1 when a row could not be remapped.", lambda s: s.remap_failed),
    _Metric("DCGM_FI_DEV_ROW_REMAP_PENDING", "gauge", "1 when a remap awaits a reset.", lambda s: s.remap_pending),
    _Metric("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "gauge", "Why clocks are low, bits.", lambda s: s.clock_reasons),
    _Metric("DCGM_FI_DEV_POWER_MGMT_LIMIT", "gauge", "Power limit in force, W.", lambda s: s.limit_w, 3),
    _Metric("DCGM_FI_PROF_SM_ACTIVE", "gauge", "Share of cycles with an SM active.", lambda s: s.sm_active, 6),
    _Metric("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", "Share with tensor pipes busy.", lambda s: s.tensor_active, 6),
    _Metric("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", "Share with device memory moving.", lambda s: s.dram_active, 6),
)


def node_page(reading: NodeReading, *, host_label: str = "hostname") -> str:
    """One node's page. `host_label` is `Hostname` for exporters from before May 2026."""
    labels = [
        _labels(reading, gpu, uuid, host_label=host_label)
        for gpu, uuid in zip(reading.gpus, reading.uuids, strict=True)
    ]
    lines: list[str] = []
    for metric in _METRICS if labels else ():
        lines += (f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}")
        values = metric.read(reading.state).tolist()
        lines += [
            f"{metric.name}{{{label}}} {value:.{metric.decimals}f}" for label, value in zip(labels, values, strict=True)
        ]
    return "".join(f"{line}\n" for line in lines)


def rack_page(power_w: Mapping[str, float]) -> str:
    lines = [
        "# HELP rack_power_watts Power drawn by the rack, W.",
        "# TYPE rack_power_watts gauge",
        *(f'rack_power_watts{{rack="{rack}"}} {watts:.0f}' for rack, watts in power_w.items()),
    ]
    return "".join(f"{line}\n" for line in lines)


def _labels(reading: NodeReading, gpu: int, uuid: str, *, host_label: str) -> str:
    labels = {
        "gpu": str(gpu),
        "UUID": uuid,
        "pci_bus_id": pci_bus_id(gpu),
        "device": f"nvidia{gpu}",
        "modelName": reading.model,
        host_label: reading.node,
        "DCGM_FI_DRIVER_VERSION": _DRIVER,
    }
    if reading.job is not None:
        pod = f"{reading.job}-worker-0"
        labels |= {"hpc_job": reading.job, "container": _CONTAINER, "namespace": _NAMESPACE, "pod": pod}
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
