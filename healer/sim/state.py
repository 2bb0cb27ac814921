"""What can be read from a simulated fleet at one instant: its GPUs, its nodes, their fabric ports.

Each kind of thing is one matrix with a row for each quantity, in the units of the exporters' oldest names, so that an
exporter that is looked at copies some columns of it and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from healer.domain.axes import Floats, Ints


@dataclass(frozen=True, slots=True)
class _Rows:
    """Quantities as rows of `matrix` (n_quantities, n). The rows are views: writing into one writes into the matrix."""

    matrix: Floats

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls) if field.name != "matrix")

    @classmethod
    def of(cls, matrix: Floats) -> Self:
        return cls(matrix, *matrix)

    @classmethod
    def zeros(cls, n: int) -> Self:
        return cls.of(np.zeros((len(cls.names()), n)))

    def pick(self, columns: Ints) -> Self:
        """A copy of some columns, so that a reader is not disturbed by the next step."""
        return self.of(self.matrix[:, columns])


@dataclass(frozen=True, slots=True)
class GpuState(_Rows):
    """Arrays: (n_gpus,). Counters fall only when a driver is loaded anew or a GPU is swapped."""

    power_w: Floats
    limit_w: Floats
    energy_mj: Floats
    core_c: Floats
    memory_c: Floats
    margin_c: Floats  # to the slowdown temperature
    sm_clock_mhz: Floats
    memory_clock_mhz: Floats
    clock_reasons: Floats
    power_violation_ns: Floats
    thermal_violation_ns: Floats
    thermal_slowdown_ns: Floats
    power_brake_ns: Floats
    util_percent: Floats
    memory_util_percent: Floats
    graphics_active: Floats
    sm_active: Floats
    tensor_active: Floats
    dram_active: Floats
    fb_used_mib: Floats
    fb_free_mib: Floats
    xid: Floats  # the last one
    recovery_action: Floats
    sbe_volatile: Floats
    dbe_volatile: Floats
    sbe_aggregate: Floats
    dbe_aggregate: Floats
    sram_exceeded: Floats
    remapped_correctable: Floats
    remapped_uncorrectable: Floats
    remap_pending: Floats
    remap_failed: Floats
    banks_exhausted: Floats
    pcie_tx: Floats
    pcie_rx: Floats
    pcie_replays: Floats
    pcie_correctable: Floats
    pcie_generation: Floats
    pcie_width: Floats
    nvlink_tx: Floats
    nvlink_rx: Floats
    nvlink_mb: Floats  # sent and received, MB/s
    nvlink_sent: Floats
    nvlink_received: Floats
    nvlink_state: Floats
    nvlink_crc_flit: Floats
    nvlink_crc_data: Floats
    nvlink_crc: Floats
    nvlink_replays: Floats
    nvlink_recoveries: Floats

    def start_anew(self, gpus: Ints) -> None:
        """What a reload of the driver does: counts since the load are 0 again, what awaited a reset is done."""
        for row in (
            self.energy_mj,
            self.xid,
            self.recovery_action,
            self.sbe_volatile,
            self.dbe_volatile,
            self.remap_pending,
            self.power_violation_ns,
            self.thermal_violation_ns,
            self.thermal_slowdown_ns,
            self.power_brake_ns,
            self.pcie_replays,
            self.pcie_correctable,
            self.nvlink_sent,
            self.nvlink_received,
            self.nvlink_crc_flit,
            self.nvlink_crc_data,
            self.nvlink_crc,
            self.nvlink_replays,
            self.nvlink_recoveries,
        ):
            row[gpus] = 0.0

    def replace(self, gpus: Ints) -> None:
        """What another board in the slot does: it has no past at all."""
        self.start_anew(gpus)
        for row in (
            self.sbe_aggregate,
            self.dbe_aggregate,
            self.sram_exceeded,
            self.remapped_correctable,
            self.remapped_uncorrectable,
            self.remap_failed,
            self.banks_exhausted,
        ):
            row[gpus] = 0.0


@dataclass(frozen=True, slots=True)
class NodeState(_Rows):
    """Arrays: (n_nodes,)."""

    inlet_c: Floats
    power_w: Floats
    ready: Floats
    cordoned: Floats
    network_up: Floats
    carrier_changes: Floats


@dataclass(frozen=True, slots=True)
class PortState(_Rows):
    """Arrays: (n_ports,), node-major as GPUs are."""

    state_id: Floats  # 4 active, 1 down
    physical_state_id: Floats  # 5 link up, 2 polling, 3 disabled
    link_downed: Floats
    carrier_changes: Floats
    link_recovery: Floats
    receive_errors: Floats
    discards: Floats
    received: Floats
    sent: Floats
    symbol_errors: Floats
