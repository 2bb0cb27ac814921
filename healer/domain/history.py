"""The history behind a frame: what signals were at each tick of the window, and what they were like hours before.

Gauges are kept as arrays. Counters of errors and states hardly ever change, and there are many of them: of those the
changes are kept, which costs next to nothing, and growth is summed over them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np

from healer.domain.axes import Bools, Floats, Ints, Singles
from healer.domain.kernel_line import KernelLine

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A counter or a state over the window, as the changes in it.

    Attributes:
        now: (n,) the newest values, NaN where unknown.
        since_s: (n,) unix seconds of the first tick at which it was known, inf where it never was.
        ticks: (m,) at which tick of the window each change was first seen, ascending.
        rows: (m,) whose change it is.
        before: (m,) the value until then, NaN where it was unknown.
        gained: (m,) by how much a counter has grown since it was last known; 0 after a reset, and where it is unknown.
    """

    now: Floats
    since_s: Floats
    ticks: Ints
    rows: Ints
    before: Floats
    gained: Floats

    def window(self, first: int, times_s: Floats) -> Floats:
        """(n_ticks - first, n) the values from tick `first` on.

        Args:
            times_s: (n_ticks,) unix seconds of all ticks.
        """
        cells = np.repeat(self.now[None, :], len(times_s) - first, axis=0)
        for tick, changed in self._by_tick(first):
            cells[: tick - first, self.rows[changed]] = self.before[changed]
        cells[times_s[first:, None] < self.since_s[None, :]] = np.nan
        return cells

    def of_row(self, row: int, times_s: Floats) -> Floats:
        """(n_ticks,) the values of one row."""
        cells = np.full(len(times_s), self.now[row])
        for number in np.flatnonzero(self.rows == row)[::-1].tolist():
            cells[: self.ticks[number]] = self.before[number]
        cells[times_s < self.since_s[row]] = np.nan
        return cells

    def growth(self, first: int) -> Floats:
        """(n,) by how much a counter has grown after tick `first`; 0 also where nothing is known."""
        begin = int(np.searchsorted(self.ticks, first, side="right"))
        growth: Floats = np.zeros(len(self.now))
        np.add.at(growth, self.rows[begin:], self.gained[begin:])
        return growth

    def growing_ticks(self, first: int) -> Ints:
        """(n,) at how many of the ticks after `first` it grew."""
        begin = int(np.searchsorted(self.ticks, first, side="right"))
        grew = self.gained[begin:] > 0
        counts: Ints = np.bincount(self.rows[begin:][grew], minlength=len(self.now))
        return counts

    def _by_tick(self, first: int) -> list[tuple[int, slice]]:
        """The changes after tick `first` by their tick, the newest first."""
        ticks, starts = np.unique(self.ticks, return_index=True)
        ends = [*starts[1:].tolist(), len(self.ticks)] if len(starts) else []
        parts = [
            (tick, slice(start, end))
            for tick, start, end in zip(ticks.tolist(), starts.tolist(), ends, strict=True)
            if tick > first
        ]
        return parts[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Signals(Generic[S]):
    """The signals of one axis over the ticks of the window. The arrays are read-only.

    Attributes:
        times_s: (n_ticks,) unix seconds, oldest first.
        gauges: signal -> (n_ticks, n) float64, NaN where unknown.
        steps: signal -> its changes.
        n: how many rows there are.
    """

    times_s: Floats
    n: int
    gauges: Mapping[S, Floats] = field(default_factory=dict)
    steps: Mapping[S, Steps] = field(default_factory=dict)

    def __contains__(self, signal: S) -> bool:
        return signal in self.gauges or signal in self.steps

    def latest(self, signal: S) -> Floats:
        """(n,) the newest values; all NaN if no exporter offers the signal."""
        if signal in self.gauges:
            newest: Floats = self.gauges[signal][-1]
            return newest
        steps = self.steps.get(signal)
        return np.full(self.n, np.nan) if steps is None else steps.now

    def window(self, signal: S, span: timedelta) -> Floats:
        """(n_ticks_in_span, n) the values of the last `span`, oldest first; one row of NaN for what nobody offers."""
        first = self.first_tick(span)
        if signal in self.gauges:
            return self.gauges[signal][first:]
        steps = self.steps.get(signal)
        return np.full((1, self.n), np.nan) if steps is None else steps.window(first, self.times_s)

    def growth(self, signal: S, span: timedelta) -> Floats:
        """(n,) by how much a counter has grown within the last `span`.

        A fall is a reset, after which counting starts again; a gap hides nothing, the next sample is compared with the
        last. 0 also where nothing is known: ask `latest` whether it is.
        """
        first = self.first_tick(span)
        if signal in self.gauges:
            return growth_of(self.gauges[signal][first:])
        steps = self.steps.get(signal)
        return np.zeros(self.n) if steps is None else steps.growth(first)

    def growing_ticks(self, signal: S, span: timedelta) -> Ints:
        """(n,) at how many ticks of the last `span` a counter grew: once is a burst, many are a habit."""
        steps = self.steps.get(signal)
        return np.zeros(self.n, dtype=np.int64) if steps is None else steps.growing_ticks(self.first_tick(span))

    def of_row(self, signal: S, row: int) -> Floats:
        """(n_ticks,) the values of one row; all NaN if no exporter offers the signal."""
        if signal in self.gauges:
            history: Floats = self.gauges[signal][:, row]
            return history
        steps = self.steps.get(signal)
        return np.full(len(self.times_s), np.nan) if steps is None else steps.of_row(row, self.times_s)

    def first_tick(self, span: timedelta) -> int:
        """The oldest tick that is not more than `span` before the newest."""
        if not len(self.times_s):
            return 0
        # Times are floats: a tick that is exactly `span` old is within it.
        return int(np.searchsorted(self.times_s, self.times_s[-1] - span.total_seconds() - 1e-6))


@dataclass(frozen=True, slots=True, eq=False)
class Past(Generic[S]):
    """What came before the window: hours of it, in slots of minutes. Only what was not found sick counts, so that a
    fault that lasts is never learnt as normal.

    Attributes:
        times_s: (n_slots,) unix seconds at which each slot ended, oldest first.
        slot: how long a slot is.
        means: signal -> (n_slots, n) float32, NaN where unknown. Only signals that somebody asked to be remembered.
        grown: counter -> for each slot, also the one that is not over, the rows in which it grew, and by how much.
    """

    times_s: Floats
    slot: timedelta
    n: int
    means: Mapping[S, Singles] = field(default_factory=dict)
    grown: Mapping[S, Sequence[tuple[Ints, Floats]]] = field(default_factory=dict)
    _worked_out: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, key: str, work: Callable[[], T]) -> T:
        """What `work` makes of this past: done once, and kept for as long as the past is the same."""
        if key not in self._worked_out:
            self._worked_out[key] = work()
        kept: T = self._worked_out[key]
        return kept

    def mean(self, signal: S) -> Singles:
        """(n_slots, n) float32; without a slot for what nobody remembers."""
        return self.means.get(signal, np.empty((0, self.n), dtype=np.float32))

    def growth(self, signal: S) -> Floats:
        """(n,) by how much a counter has grown in all slots together."""
        total = np.zeros(self.n)
        for rows, gained in self.grown.get(signal, ()):
            total[rows] += gained
        return total

    def most_grown(self, signal: S) -> Floats:
        """(n,) by how much a counter has grown in the slot in which it grew most."""
        most = np.zeros(self.n)
        for rows, gained in self.grown.get(signal, ()):
            most[rows] = np.maximum(most[rows], gained)
        return most


def growth_of(window: Floats) -> Floats:
    """(n,) by how much a counter grew over `window` (n_ticks, n), oldest first."""
    last = np.maximum.accumulate(np.where(np.isnan(window), -1, np.arange(len(window))[:, None]), axis=0)
    filled = np.take_along_axis(window, np.maximum(last, 0), axis=0)
    growth: Floats = np.nansum(np.clip(np.diff(filled, axis=0), 0, None), axis=0)
    return growth


@dataclass(frozen=True, slots=True, eq=False)
class Xids:
    """Every XID that was seen in the last day: one entry for each GPU, code and job. Several sources tell of the same.

    Attributes:
        rows: (m,) the GPU.
        codes: (m,)
        first_s, last_s: (m,) unix seconds of the first and the last that was seen of these.
        counts: (m,) how many, as far as the source counts.
        jobs: (m,) which jobs they were, as numbers; NOWHERE_ROW for none.
        standing: (m,) whether it was there before anybody looked: its time is not known, nor whether it still matters.
        told: (m,) who told: a word for each entry.
        lines: (m,) of what the kernel's log told, the newest line; empty where it told nothing at all.
    """

    rows: Ints
    codes: Ints
    first_s: Floats
    last_s: Floats
    counts: Ints
    jobs: Ints
    standing: Bools
    told: tuple[str, ...]
    lines: tuple[KernelLine | None, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def among(self, codes: Collection[int]) -> Bools:
        """(m,) which of them have one of these codes."""
        return np.isin(self.codes, np.fromiter(codes, dtype=np.int64, count=len(codes)))

    @classmethod
    def none(cls) -> Xids:
        whole, real = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(whole, whole, real, real, whole, whole, np.empty(0, dtype=np.bool_), ())
