"""How often each XID came up within the last five minutes, as dcgm-exporter counts them; a count falls again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.sim.world import XidEntry

SLOTS = 3  # different XIDs of one GPU that are told apart
_WINDOW_S = 300.0


class XidWindow:
    """Attributes:
    codes: (n_gpus, SLOTS) which XID each slot counts, 0 for none yet.
    """

    def __init__(self, n_gpus: int) -> None:
        self.codes: Ints = np.zeros((n_gpus, SLOTS), dtype=np.int64)
        self._known = 0

    def counts(self, entries: Sequence[XidEntry], now_s: float) -> Floats:
        """(1, n_gpus * SLOTS)"""
        for entry in entries[self._known :]:
            self._slot(entry)
        self._known = len(entries)
        counts = np.zeros(self.codes.shape)
        for entry in reversed(entries):
            if entry.at_s <= now_s - _WINDOW_S:
                break
            counts[entry.gpu, self._slot(entry)] += 1.0
        return counts.reshape(1, -1)

    def _slot(self, entry: XidEntry) -> int:
        """A code that finds no slot left takes the last."""
        slots = self.codes[entry.gpu]
        same = np.flatnonzero(slots == entry.code)
        if len(same):
            return int(same[0])
        free = np.flatnonzero(slots == 0)
        slot = int(free[0]) if len(free) else SLOTS - 1
        slots[slot] = entry.code
        return slot
