"""Pulse: tells an exporter that hangs and repeats itself from a GPU that is truly idle.

An idle GPU is never still: its energy counter goes on, its board power flickers in the milliwatts. An exporter that
hangs gives the same numbers again and again, under fresh times. So a GPU is frozen when nothing that is measured finely
has moved for longer than a sample may be old; one that is only measured in whole watts and degrees is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.signal import Signal

# What moves by itself. Counters of errors and limits stand still on a healthy GPU.
_MOVING = (
    Signal.ENERGY,
    Signal.POWER,
    Signal.GPU_TEMPERATURE,
    Signal.MEMORY_TEMPERATURE,
    Signal.UTILIZATION,
    Signal.MEMORY_UTILIZATION,
    Signal.SM_CLOCK,
    Signal.SM_ACTIVE,
    Signal.TENSOR_ACTIVE,
    Signal.DRAM_ACTIVE,
    Signal.PCIE_TX,
    Signal.PCIE_RX,
    Signal.NVLINK_TX,
    Signal.NVLINK_RX,
)
_FEWEST_LOOKS = 3  # an exporter may collect less often than it is asked


class Pulse:
    def __init__(self) -> None:
        self._last: dict[Signal, Floats] = {}
        self._moved_at: Floats = np.empty(0)  # (n,) unix seconds
        self._still_looks: Ints = np.empty(0, dtype=np.int64)
        self._fine: Bools = np.empty(0, dtype=np.bool_)  # (n,) whether it was ever measured finely

    def beat(self, values: Mapping[Signal, Floats], at_s: float, n: int) -> None:
        """One tick's values as exported: signal -> (n,)."""
        self._grow(at_s, n)
        moved, seen = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        for signal in _MOVING:
            now, before = values.get(signal), self._last.get(signal)
            if now is None:
                continue
            known = ~np.isnan(now)
            seen |= known
            if before is None:
                moved |= known
            else:
                moved[: len(before)] |= (now[: len(before)] != before) & known[: len(before)]
            if signal is Signal.ENERGY:
                self._fine |= known
            elif signal is Signal.POWER:
                self._fine |= known & (now != np.floor(now))
            self._last[signal] = now
        self._moved_at[moved] = at_s
        self._still_looks[seen] += 1
        self._still_looks[moved] = 0

    def frozen(self, at_s: float, longest_s: float) -> Bools:
        """(n,) whether nothing has moved for longer than `longest_s`."""
        still = (at_s - self._moved_at > longest_s) & (self._still_looks >= _FEWEST_LOOKS)
        return still & self._fine

    @property
    def moved_at(self) -> Floats:
        return self._moved_at

    def keep(self, rows: Ints) -> None:
        self._moved_at, self._still_looks = self._moved_at[rows], self._still_looks[rows]
        self._fine = self._fine[rows]
        self._last = {signal: values[rows] for signal, values in self._last.items()}

    def _grow(self, at_s: float, n: int) -> None:
        new = n - len(self._moved_at)
        if new:
            self._moved_at = np.concatenate([self._moved_at, np.full(new, at_s)])
            self._still_looks = np.concatenate([self._still_looks, np.zeros(new, dtype=np.int64)])
            self._fine = np.concatenate([self._fine, np.zeros(new, dtype=np.bool_)])
