"""Anew: when a GPU, or its driver, was last seen to start anew. What counts since then has begun again at nought."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.domain.signal import Signal

# All of these count since the driver was loaded, and never fall else.
_SINCE_START = (Signal.ENERGY, Signal.ECC_SBE_VOLATILE, Signal.ECC_DBE_VOLATILE)


class Anew:
    def __init__(self) -> None:
        self._last: dict[Signal, Floats] = {}  # the newest known values
        self._started_s: Floats = np.empty(0)  # (n,) unix seconds, -inf where it was never seen

    def note(self, values: Mapping[Signal, Floats], at_s: float, n: int) -> None:
        """One tick's values: signal -> (n,)."""
        self._grow(n)
        for signal in _SINCE_START:
            now = values.get(signal)
            if now is None:
                continue
            last = self._last.get(signal, np.empty(0))
            last = np.concatenate([last, np.full(n - len(last), np.nan)])
            self._started_s[now < last] = at_s
            self._last[signal] = np.where(np.isnan(now), last, now)

    def started(self, rows: Ints, at_s: float) -> None:
        """Somebody else noticed."""
        if len(rows):
            self._grow(int(rows.max()) + 1)
            self._started_s[rows] = at_s

    def ago_s(self, at_s: float) -> Floats:
        """(n,) seconds since then, inf where it was never seen."""
        return at_s - self._started_s

    def keep(self, rows: Ints) -> None:
        self._started_s = self._started_s[rows]
        self._last = {signal: last[rows] for signal, last in self._last.items() if len(last) > rows.max(initial=-1)}

    def _grow(self, n: int) -> None:
        new = max(n - len(self._started_s), 0)
        self._started_s = np.concatenate([self._started_s, np.full(new, -np.inf)])
