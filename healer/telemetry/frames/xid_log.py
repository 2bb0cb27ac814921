"""XidLog: every XID of the last day, put together from a gauge that only knows the last one, from counts by code, and
from lines of the kernel's log.

`DCGM_FI_DEV_XID_ERRORS` holds the last XID and never clears: only its change is news, and what it holds when it is
first seen may be years old. The exporter's own counts tell of each code by itself, also of the same one again. A line
tells the most, such as a sub-code, and so it stands above both: where it says that there is nothing to do, what gauge
and counts say of the same XID is nothing either. An XID that several tell is of the job in which it was told first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.history import Xids
from healer.domain.kernel_line import KernelLine
from healer.telemetry.xids.xid_verdicts import RECOVERY_CHANGED

KEPT_S = 24 * 3600.0
_MOST_ENTRIES = 200_000
_SAME_S = 180.0  # a line, a scrape and a turn that tell of the same XID are no further apart
_LOG = "log"
_EXPORTED = ("gauge", "recent", "total")


@dataclass(slots=True)
class _Entry:
    first_s: float
    last_s: float
    count: int
    standing: bool
    line: KernelLine | None = None


@dataclass(slots=True)
class _Mention:
    """Attributes:
    matched: who else has told of the same one.
    """

    at_s: float
    job: int
    matched: set[str] = field(default_factory=set)


_Key = tuple[int, int, int, str, str]  # row, code, job, who told it, what the line asks for


class XidLog:
    def __init__(self) -> None:
        self._gauge: Floats = np.empty(0)  # (n,) the newest known last XID of each GPU, NaN before the first
        self._counts: dict[tuple[int, int, str], float] = {}
        self._entries: dict[_Key, _Entry] = {}
        self._mentions: dict[tuple[int, int, str], _Mention] = {}  # by row, code and who told: the newest
        self._nothing: dict[tuple[int, int], float] = {}  # by row and code, when there was nothing to do
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
                self._note(row, int(code), int(jobs[row]), "gauge", at_s, standing=first)
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
                self._note(row, int(code), int(jobs[row]), told, at_s, count=int(grown), standing=standing)

    def note(self, row: int, line: KernelLine, job: int) -> None:
        """Take in what a line of the kernel's log tells of the GPU."""
        at_s = line.at.timestamp()
        if line.counts:
            self._note(row, line.code, job, _LOG, at_s, count=line.count, standing=line.is_old, line=line)
        elif not line.is_old:
            self._dismiss(row, line.code, at_s)

    def forget(self, at_s: float) -> None:
        old = [key for key, entry in self._entries.items() if at_s - entry.last_s > KEPT_S]
        crowded = len(self._entries) - len(old) - _MOST_ENTRIES
        if crowded > 0:
            by_age = sorted(self._entries, key=lambda key: self._entries[key].last_s)
            old = by_age[: len(old) + crowded]
        for key in old:
            del self._entries[key]
            self._shown = None
        self._mentions = {key: m for key, m in self._mentions.items() if at_s - m.at_s <= _SAME_S}
        self._nothing = {key: told_s for key, told_s in self._nothing.items() if at_s - told_s <= _SAME_S}

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        places = {row: place for place, row in enumerate(rows.tolist())}
        self._gauge = self._gauge[rows[rows < len(self._gauge)]]
        self._counts = {
            (places[row], code, told): value for (row, code, told), value in self._counts.items() if row in places
        }
        self._entries = {
            (places[row], code, job, told, asks): entry
            for (row, code, job, told, asks), entry in self._entries.items()
            if row in places
        }
        self._mentions = {
            (places[row], code, told): mention for (row, code, told), mention in self._mentions.items() if row in places
        }
        self._nothing = {(places[row], code): at_s for (row, code), at_s in self._nothing.items() if row in places}
        self._shown = None

    def shown(self) -> Xids:
        if self._shown is None:
            self._shown = _arrays(self._entries.items())
        return self._shown

    def _note(
        self,
        row: int,
        code: int,
        job: int,
        told: str,
        at_s: float,
        *,
        standing: bool,
        count: int = 1,
        line: KernelLine | None = None,
    ) -> None:
        if not standing:
            if told != _LOG and abs(at_s - self._nothing.get((row, code), -np.inf)) <= _SAME_S:
                return
            job = self._job_of(row, code, job, told, at_s)
        key = (row, code, job, told, "" if line is None else line.action)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(at_s, at_s, count, standing, line)
        else:
            if at_s >= entry.last_s:
                entry.line = line
            entry.first_s, entry.last_s = min(entry.first_s, at_s), max(entry.last_s, at_s)
            entry.count, entry.standing = entry.count + count, entry.standing and standing
        self._shown = None

    def _job_of(self, row: int, code: int, job: int, told: str, at_s: float) -> int:
        """The job, or that in which somebody else told of the same XID before: by now another one may have begun."""
        mention = _Mention(at_s, job)
        for other in _EXPORTED if told == _LOG else (_LOG,):
            before = self._mentions.get((row, code, other))
            if before is not None and abs(at_s - before.at_s) <= _SAME_S and told not in before.matched:
                before.matched.add(told)
                mention.matched.add(other)
                mention.job = before.job
        self._mentions[row, code, told] = mention
        return mention.job

    def _dismiss(self, row: int, code: int, at_s: float) -> None:
        """There is nothing to do for this one; a recovery action that ended takes back every one before."""
        self._nothing[row, code] = at_s
        is_end = code == RECOVERY_CHANGED
        for key, entry in [*self._entries.items()]:
            is_line = key[3] == _LOG
            if key[:2] != (row, code) or (is_line and not is_end):
                continue
            began = is_end or entry.first_s >= at_s - _SAME_S
            if began and entry.last_s <= at_s + (0.0 if is_line else _SAME_S):
                del self._entries[key]
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
        lines=tuple(entry.line for entry in values) if any(key[3] == _LOG for key in keys) else (),
    )
