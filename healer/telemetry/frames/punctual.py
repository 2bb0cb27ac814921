"""Punctual: tells a GPU that its exporter has stopped showing from one whose newest sample is merely not old yet.

All GPUs of an exporter are on one page and share the time of its scrape. Where a store does not say that a series has
ended (history that was filled in, a sender that lost the mark), a lost GPU shows its last sample until that is too old:
minutes in which it looks well. But it falls behind its neighbours, by one scrape after another.
"""

from __future__ import annotations

import numpy as np

from healer.domain.axes import Bools, Floats, Ints

_SCRAPES_BEHIND = 0.5
_ARRIVES_S = 2.0  # a page may come in parts: only then has all of it been seen


class Punctual:
    def __init__(self) -> None:
        self._newest: Floats = np.empty(0)  # by exporter, unix seconds of its newest sample
        self._interval: Floats = np.empty(0)  # by exporter, seconds between its last two

    def behind(self, at_s: float, exporters: Ints, newest_of_row: Floats, last_sample: Floats) -> Bools:
        """(n,) whether a GPU is not on the newest page of its exporter, which shows others.

        Args:
            newest_of_row: (n,) unix seconds of the newest sample in this reading, NaN without one.
            last_sample: (n,) the newest ever.
        """
        size = int(exporters.max(initial=-1)) + 1
        new = size - len(self._newest)
        if new > 0:
            self._newest = np.concatenate([self._newest, np.full(new, np.nan)])
            self._interval = np.concatenate([self._interval, np.full(new, np.nan)])
        shown = np.full(len(self._newest), -np.inf)
        known = ~np.isnan(newest_of_row)
        np.maximum.at(shown, exporters[known], newest_of_row[known])
        since = shown - self._newest
        moved = since > 0
        self._interval[moved] = since[moved]
        self._newest = np.where(moved | (np.isnan(self._newest) & np.isfinite(shown)), shown, self._newest)
        behind: Bools = self._newest[exporters] - last_sample > _SCRAPES_BEHIND * self._interval[exporters]
        return behind & (at_s - self._newest[exporters] >= _ARRIVES_S)
