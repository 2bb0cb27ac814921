"""Changes: counters of errors and states over the ticks, of which only what changes is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.domain.history import Steps

S = TypeVar("S", bound=StrEnum)

_NO_ROWS: Ints = np.empty(0, dtype=np.int64)
_NO_VALUES: Floats = np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What changed of one signal at one tick.

    Attributes:
        rows: (m,)
        before: (m,) their values until then, NaN where unknown.
        gained: (m,) how much a counter grew since it was last known; 0 where it never was.
        last_s: (m,) unix seconds at which it was last known.
    """

    tick: int
    rows: Ints
    before: Floats
    gained: Floats
    last_s: Floats


@dataclass(slots=True, eq=False)
class _Changing:
    """Attributes:
    now: (n,) NaN where unknown.
    last: (n,) the newest known value of each row, NaN where it was never known.
    last_s: (n,) unix seconds of the tick that had it, -inf where none had.
    since_s: (n,) unix seconds of the first known value, inf before.
    changes: oldest first.
    """

    now: Floats
    last: Floats
    last_s: Floats
    since_s: Floats
    changes: list[Change] = field(default_factory=list)


class Changes(Generic[S]):
    def __init__(self) -> None:
        self._signals: dict[S, _Changing] = {}
        self._tick = -1
        self._first = 0
        self._n = 0

    def append(self, at_s: float, values: Mapping[S, Floats], n: int) -> None:
        """One more tick: signal -> (n,), not to be written to afterwards. `n` never falls but by `keep`."""
        self._tick += 1
        self._n = n
        for signal in {**self._signals, **values}:
            held = self._signals.get(signal)
            if held is None:
                held = _Changing(_unknown(n), _unknown(n), np.full(n, -np.inf), np.full(n, np.inf))
                self._signals[signal] = held
            elif len(held.now) < n:
                new = n - len(held.now)
                held.now = np.concatenate([held.now, _unknown(new)])
                held.last = np.concatenate([held.last, _unknown(new)])
                held.last_s = np.concatenate([held.last_s, np.full(new, -np.inf)])
                held.since_s = np.concatenate([held.since_s, np.full(new, np.inf)])
            given = values.get(signal)
            self._take(held, _unknown(n) if given is None else given, at_s)

    def drop_first(self) -> dict[S, Change]:
        """Forget the oldest tick; what changed at it."""
        dropped: dict[S, Change] = {}
        for signal, held in self._signals.items():
            if held.changes and held.changes[0].tick == self._first:
                dropped[signal] = held.changes.pop(0)
        self._first += 1
        return dropped

    def forget_unknown(self) -> None:
        """Drop the signals that no row has now and that have not changed within the ticks."""
        self._signals = {
            signal: held for signal, held in self._signals.items() if held.changes or not np.isnan(held.now).all()
        }

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        places = np.full(self._n, -1, dtype=np.int64)
        places[rows] = np.arange(len(rows))
        self._n = len(rows)
        for held in self._signals.values():
            held.now, held.since_s = held.now[rows], held.since_s[rows]
            held.last, held.last_s = held.last[rows], held.last_s[rows]
            held.changes = [moved for change in held.changes if len((moved := _moved(change, places)).rows)]

    def steps(self) -> dict[S, Steps]:
        return {signal: self._steps(held) for signal, held in self._signals.items()}

    def _take(self, held: _Changing, now: Floats, at_s: float) -> None:
        known = ~np.isnan(now)
        was_known = ~np.isnan(held.now)
        first = known & np.isinf(held.since_s)
        if first.any():
            held.since_s = np.where(first, at_s, held.since_s)
        rows = np.flatnonzero(((now != held.now) & (known | was_known)) & ~first)
        if len(rows):
            gained = np.nan_to_num(np.maximum(now[rows] - held.last[rows], 0.0))
            held.changes.append(Change(self._tick, rows, held.now[rows], gained, held.last_s[rows]))
        held.last[known] = now[known]
        held.last_s[known] = at_s
        held.now = now

    def _steps(self, held: _Changing) -> Steps:
        changes = held.changes
        if not changes:
            return Steps(held.now, held.since_s, _NO_ROWS, _NO_ROWS, _NO_VALUES, _NO_VALUES)
        ticks = np.array([change.tick - self._first for change in changes])
        return Steps(
            now=held.now,
            since_s=held.since_s,
            ticks=np.repeat(ticks, [len(change.rows) for change in changes]),
            rows=np.concatenate([change.rows for change in changes]),
            before=np.concatenate([change.before for change in changes]),
            gained=np.concatenate([change.gained for change in changes]),
        )


def _unknown(n: int) -> Floats:
    return np.full(n, np.nan)


def _moved(change: Change, places: Ints) -> Change:
    kept = places[change.rows] >= 0
    rows = places[change.rows[kept]]
    return Change(change.tick, rows, change.before[kept], change.gained[kept], change.last_s[kept])
