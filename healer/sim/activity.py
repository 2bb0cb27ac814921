"""Activity: what a GPU does, as shares of its cycles, and what its links carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from healer.domain.axes import Floats

GB = 1e9
MB = 1e6


class Row(IntEnum):
    """The rows of an activity matrix. Those after POWER are bytes per second."""

    UTIL = 0
    SM = 1
    TENSOR = 2
    DRAM = 3
    POWER = 4  # the share of the dynamic power that it asks for
    NVLINK = 5
    PCIE_SENT = 6
    PCIE_RECEIVED = 7
    FABRIC = 8


@dataclass(frozen=True, slots=True)
class Activity:
    util: float = 0.0
    sm: float = 0.0
    tensor: float = 0.0
    dram: float = 0.0
    power: float = 0.0
    nvlink: float = 0.0
    pcie_sent: float = 0.0
    pcie_received: float = 0.0
    fabric: float = 0.0

    def column(self) -> Floats:
        """(n_rows, 1)"""
        rows = (self.util, self.sm, self.tensor, self.dram, self.power)
        links = (self.nvlink, self.pcie_sent, self.pcie_received, self.fabric)
        return np.array([[value] for value in (*rows, *links)])


RESTING = Activity(pcie_sent=0.7 * MB, pcie_received=0.6 * MB)  # a process has the GPU and does nothing
# What waits in a collective: a few SMs spin, nothing moves, power is well above idle and well below load.
SPINNING = Activity(1.0, 0.07, 0.0, 0.006, 0.24, nvlink=0.02 * GB, pcie_sent=0.9 * MB, pcie_received=0.8 * MB)
