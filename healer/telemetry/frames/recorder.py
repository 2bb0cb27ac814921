"""Recorder: the signals of one axis over the window, and the hours before it in slots.

What leaves the window goes into the past, unless it was found sick meanwhile: whoever compares with the past compares
with health. By then a fault has had the length of the window to show itself. What was counted while nobody looked for
longer than that is no burst: it is spread over the time that nobody saw; and of days, it is no matter of hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.history import Past, Signals
from healer.telemetry.frames.changes import Change, Changes
from healer.telemetry.frames.tracks import Cells, Tracks

S = TypeVar("S", bound=StrEnum)

SLOT = timedelta(minutes=5)
PAST_SPAN = timedelta(hours=6)

_Growth: TypeAlias = dict[S, list[tuple[Ints, Floats]]]
"""Counter -> the rows in which it grew, and by how much; an entry for each slot."""


class Recorder(Generic[S]):
    """Attributes:
    steps: whether a signal is one of which only the changes are kept.
    remembered: the signals that somebody wants to compare with their past.
    tallied: those of the remembered counters that are no measure of health, but a tally: the sick are counted, too.
    """

    def __init__(
        self,
        *,
        span: timedelta,
        steps: Callable[[S], bool],
        remembered: Collection[S] = (),
        tallied: Collection[S] = (),
    ) -> None:
        self.steps = steps
        self.remembered = frozenset(remembered)
        self.tallied = frozenset(tallied)
        self._span_s = span.total_seconds()
        self._gauges: Tracks[S] = Tracks()
        self._changes: Changes[S] = Changes()
        self._past: Tracks[S] = Tracks(np.float32)
        self._grown: deque[_Growth[S]] = deque()
        self._open: _Slot[S] | None = None
        self._n = 0
        self._shown: Past[S] | None = None

    def append(self, at_s: float, values: Mapping[S, Floats], n: int, sick: Bools | None = None) -> None:
        """One more tick: signal -> (n,). `n` never falls but by `keep`.

        Args:
            sick: (<= n,) the rows that are found sick now; None for none.
        """
        if n != self._n:
            self._n, self._shown = n, None
        self._gauges.append(at_s, {signal: row for signal, row in values.items() if not self.steps(signal)}, n)
        self._changes.append(at_s, {signal: row for signal, row in values.items() if self.steps(signal)}, n)
        learnt = np.ones(n, dtype=np.bool_)
        if sick is not None:
            learnt[: len(sick)] = ~sick
        oldest_s = at_s - self._span_s
        while self._gauges.times_s[0] < oldest_s:
            self._remember(self._gauges.times_s[0], learnt)
            self._gauges.drop_before(np.nextafter(self._gauges.times_s[0], np.inf))
        self._changes.forget_unknown()
        self._end_slots(oldest_s)

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        places = np.full(self._n, -1, dtype=np.int64)
        places[rows] = np.arange(len(rows))
        self._n, self._shown = len(rows), None
        self._gauges.keep(rows)
        self._changes.keep(rows)
        self._past.keep(rows)
        for slot in self._grown:
            for signal, entries in slot.items():
                slot[signal] = [_placed(grew, gained, places) for grew, gained in entries]
        if self._open is not None:
            self._open.keep(rows, places)

    def signals(self) -> Signals[S]:
        times_s = np.array(self._gauges.times_s)
        return Signals(times_s, self._n, self._gauges.views(), self._changes.steps())

    def past(self) -> Past[S]:
        """The same object until another slot is over."""
        if self._shown is None:
            self._shown = self._worked_out()
        return self._shown

    def _worked_out(self) -> Past[S]:
        grown: dict[S, list[tuple[Ints, Floats]]] = {}
        so_far = {} if self._open is None else self._open.growth()
        for slot in (*self._grown, so_far):
            for signal, entries in slot.items():
                grown.setdefault(signal, []).extend(entries)
        means = {signal: _padded(cells, self._n) for signal, cells in self._past.views().items()}
        return Past(np.array(self._past.times_s), SLOT, self._n, means, grown)

    def _remember(self, at_s: float, learnt: Bools) -> None:
        """Let the oldest tick of the window go into the past."""
        dropped = self._changes.drop_first()
        if not self.remembered:
            return
        number = int(at_s // SLOT.total_seconds())
        if self._open is not None and number != self._open.number:
            self._close(self._open)
            self._open = None
        if self._open is None:
            self._open = _Slot(number)
        for signal in self.remembered:
            if not self.steps(signal) and (row := self._gauges.oldest(signal)) is not None:
                self._open.add(signal, row, learnt)
            elif signal in dropped:
                counts = np.ones_like(learnt) if signal in self.tallied else learnt
                unseen_s = at_s - dropped[signal].last_s
                unseen_s[unseen_s <= self._span_s] = 0.0
                self._open.add_growth(signal, dropped[signal], unseen_s, counts)
                self._shown = None

    def _end_slots(self, oldest_s: float) -> None:
        """After a gap: the slot before it gets nothing more, and what is hours old has passed."""
        if self._open is not None and _end_s(self._open) < oldest_s:
            self._close(self._open)
            self._open = None
        # Of the last slot that is over, hours are kept; the next one is not over yet.
        self._drop_before(oldest_s - (PAST_SPAN + SLOT).total_seconds())

    def _close(self, slot: _Slot[S]) -> None:
        self._shown = None
        end_s = _end_s(slot)
        self._past.append(end_s, slot.means(self._n), self._n)
        self._grown.append(slot.growth())
        self._drop_before(end_s - PAST_SPAN.total_seconds())

    def _drop_before(self, at_s: float) -> None:
        before = len(self._past.times_s)
        self._past.drop_before(at_s)
        for _ in range(before - len(self._past.times_s)):
            self._grown.popleft()
            self._shown = None


def _padded(cells: Cells, n: int) -> NDArray[np.float32]:
    """With columns of NaN for the rows that came after its last tick."""
    new = n - cells.shape[1]
    unknown = np.full((len(cells), new), np.nan, dtype=np.float32)
    whole = np.concatenate([cells, unknown], axis=1) if new > 0 else cells
    return whole.astype(np.float32, copy=False)


def _placed(grew: Ints, gained: Floats, places: Ints) -> tuple[Ints, Floats]:
    """The same for the rows that are kept."""
    kept = places[grew] >= 0
    return places[grew[kept]], gained[kept]


def _end_s(slot: _Slot[S]) -> float:
    return (slot.number + 1) * SLOT.total_seconds()


class _Slot(Generic[S]):
    """What has gone into a slot of the past so far."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._sums: dict[S, Floats] = {}
        self._counts: dict[S, Floats] = {}
        self._growth: dict[tuple[S, int], list[tuple[Ints, Floats]]] = {}  # by how many slots it is spread over

    def add(self, signal: S, row: Cells, learnt: Bools) -> None:
        taken = ~np.isnan(row) & learnt
        if signal not in self._sums:
            self._sums[signal], self._counts[signal] = np.zeros(len(row)), np.zeros(len(row))
        sums, counts = self._padded(signal, len(row))
        np.add(sums, row, out=sums, where=taken)
        counts += taken

    def add_growth(self, signal: S, change: Change, unseen_s: Floats, learnt: Bools) -> None:
        """Args:
        unseen_s: (m,) for how long before the change nobody looked; 0 where somebody did.
        """
        grew = (change.gained > 0) & learnt[change.rows] & (unseen_s <= PAST_SPAN.total_seconds())
        slots = np.maximum(np.ceil(unseen_s[grew] / SLOT.total_seconds()), 1).astype(np.int64)
        rows, gained = change.rows[grew], change.gained[grew]
        for number in np.unique(slots).tolist():
            part = slots == number
            self._growth.setdefault((signal, number), []).append((rows[part], gained[part]))

    def means(self, n: int) -> dict[S, Cells]:
        means: dict[S, Cells] = {}
        for signal in self._sums:
            sums, counts = self._padded(signal, n)
            means[signal] = np.divide(sums, counts, out=np.full(n, np.nan), where=counts > 0)
        return means

    def growth(self) -> _Growth[S]:
        total: _Growth[S] = {}
        for (signal, slots), parts in self._growth.items():
            rows, inverse = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
            gained = np.zeros(len(rows))
            np.add.at(gained, inverse, np.concatenate([part for _, part in parts]))
            total.setdefault(signal, []).extend([(rows, gained / slots)] * slots)
        return total

    def keep(self, rows: Ints, places: Ints) -> None:
        for signal in self._sums:
            sums, counts = self._padded(signal, len(places))
            self._sums[signal], self._counts[signal] = sums[rows], counts[rows]
        for key, parts in self._growth.items():
            self._growth[key] = [_placed(grew, gained, places) for grew, gained in parts]

    def _padded(self, signal: S, n: int) -> tuple[Floats, Floats]:
        new = n - len(self._sums[signal])
        if new > 0:
            self._sums[signal] = np.concatenate([self._sums[signal], np.zeros(new)])
            self._counts[signal] = np.concatenate([self._counts[signal], np.zeros(new)])
        return self._sums[signal], self._counts[signal]
