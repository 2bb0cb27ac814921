"""XidLog: every XID of the last day, put together from a gauge that only knows the last one and from counts by code.

`DCGM_FI_DEV_XID_ERRORS` holds the last XID and never clears: only its change is news, and what it holds when it is
first seen may be years old. The exporter's own counts tell of each code by itself, also of the same one again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.history import Xids

KEPT_S = 24 * 3600.0
_MOST_ENTRIES = 200_000


@dataclass(slots=True)
class _Entry:
    first_s: float
    last_s: float
    count: int
    standing: bool


_Key = tuple[int, int, int, str]  # row, code, job, who told it


class XidLog:
    def __init__(self) -> None:
        self._gauge: Floats = np.empty(0)  # (n,) the newest known last XID of each GPU, NaN before the first
        self._counts: dict[tuple[int, int, str], float] = {}
        self._entries: dict[_Key, _Entry] = {}
        self._shown: Xids | None = None

    def note_gauge(self, last_xid: Floats, at_s: float, jobs: Ints) -> Ints:
        """Take in the gauge of the last XID: (n,) codes, NaN where unknown. The rows that were cleared.

        Args:
            jobs: (n,) numbers of the GPUs' jobs.
        """
        n = len(last_xid)
        self._gauge = np.concatenate([self._gauge, np.full(n - len(self._gauge), np.nan)])
        known = ~np.isnan(last_xid)
        differs = known & (last_xid != self._gauge)
        if not differs.any():
            return np.empty(0, dtype=np.int64)
        rows: Ints = np.flatnonzero(differs)
        before, after = self._gauge[rows], last_xid[rows]
        self._gauge = np.where(known, last_xid, self._gauge)
        for row, code, first in zip(rows.tolist(), after.tolist(), np.isnan(before).tolist(), strict=True):
            if code > 0:
                self._note((row, int(code), int(jobs[row]), "gauge"), at_s, 1, standing=first)
        cleared: Ints = rows[(after == 0) & (before > 0)]
        return cleared

    def note_counts(
        self, told: str, rows: Ints, codes: Floats, values: Floats, *, at_s: float, jobs: Ints, known_before: Bools
    ) -> None:
        """Take in counts by code: (m,) each.

        Args:
            told: which count it is. One of a sliding window falls again; one since the exporter's start only grows.
            known_before: (n_gpus,) whether the GPU was there at an earlier reading: then a count that was not is new.
        """
        numbers = (rows.tolist(), codes.tolist(), values.tolist())
        for row, code, value in zip(*numbers, strict=True):
            if not (value >= 0 and code >= 0):
                continue
            key = (row, int(code), told)
            before = self._counts.get(key)
            self._counts[key] = value
            grown = value - (before or 0.0)
            if grown > 0:
                standing = before is None and told == "total" and not known_before[row]
                self._note((row, int(code), int(jobs[row]), told), at_s, int(grown), standing=standing)

    def note(self, row: int, code: int, at_s: float, job: int, told: str) -> None:
        """Take in one XID that somebody saw, such as a line of the kernel's log."""
        self._note((row, code, job, told), at_s, 1, standing=False)

    def forget(self, at_s: float) -> None:
        old = [key for key, entry in self._entries.items() if at_s - entry.last_s > KEPT_S]
        crowded = len(self._entries) - len(old) - _MOST_ENTRIES
        if crowded > 0:
            by_age = sorted(self._entries, key=lambda key: self._entries[key].last_s)
            old = by_age[: len(old) + crowded]
        for key in old:
            del self._entries[key]
            self._shown = None

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        places = {row: place for place, row in enumerate(rows.tolist())}
        self._gauge = self._gauge[rows[rows < len(self._gauge)]]
        self._counts = {
            (places[row], code, told): value for (row, code, told), value in self._counts.items() if row in places
        }
        self._entries = {
            (places[row], code, job, told): entry
            for (row, code, job, told), entry in self._entries.items()
            if row in places
        }
        self._shown = None

    def shown(self) -> Xids:
        if self._shown is None:
            self._shown = _arrays(self._entries.items())
        return self._shown

    def _note(self, key: _Key, at_s: float, count: int, *, standing: bool) -> None:
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(at_s, at_s, count, standing)
        else:
            entry.last_s, entry.count = max(entry.last_s, at_s), entry.count + count
            entry.standing = entry.standing and standing
        self._shown = None


def _arrays(entries: Iterable[tuple[_Key, _Entry]]) -> Xids:
    listed = list(entries)
    if not listed:
        return Xids.none()
    keys, values = [key for key, _ in listed], [entry for _, entry in listed]
    return Xids(
        rows=np.array([key[0] for key in keys], dtype=np.int64),
        codes=np.array([key[1] for key in keys], dtype=np.int64),
        first_s=np.array([entry.first_s for entry in values]),
        last_s=np.array([entry.last_s for entry in values]),
        counts=np.array([entry.count for entry in values], dtype=np.int64),
        jobs=np.array([key[2] for key in keys], dtype=np.int64),
        standing=np.array([entry.standing for entry in values], dtype=np.bool_),
        told=tuple(key[3] for key in keys),
    )
