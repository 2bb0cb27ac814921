"""Tracks: the values of gauges over the ticks, kept so that one more tick costs one more row, whatever the history.

A frame gets views of these arrays. What a view shows is never written again: a track that is full moves to a new array,
and the old one lives as long as a frame that shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from healer.domain.axes import Ints

S = TypeVar("S", bound=StrEnum)
Cells = NDArray[np.floating[Any]]

_FEWEST_SPARE = 4
_SPREAD = 8  # tracks are moved at different ticks, so that no tick pays for all of them


@dataclass(slots=True, eq=False)
class _Track:
    """Attributes:
    cells: (capacity in ticks, capacity in rows) float64.
    first: the cell row of the oldest tick.
    silent_ticks: how many of the newest ticks had no value at all.
    """

    cells: Cells
    first: int = 0
    silent_ticks: int = 0


class Tracks(Generic[S]):
    """Attributes:
    dtype: float32 where a hundred thousandth of the value does not matter, and half of the memory does.
    """

    def __init__(self, dtype: type[np.floating[Any]] = np.float64) -> None:
        self.dtype = dtype
        self._tracks: dict[S, _Track] = {}
        self._times: list[float] = []
        self._n = 0

    def append(self, at_s: float, values: Mapping[S, Cells], n: int) -> None:
        """One more tick: signal -> (n,). `n` never falls but by `keep`."""
        for signal in {**self._tracks, **values}:
            track = self._tracks.get(signal)
            if track is None:
                track = self._tracks[signal] = _Track(self._moved(None, len(self._tracks), n))
            end = track.first + len(self._times)
            if end == len(track.cells) or n > track.cells.shape[1]:
                position = list(self._tracks).index(signal)
                track.cells, track.first = self._moved(track, position, n), 0
                end = len(self._times)
            elif n > self._n:
                track.cells[track.first : end, self._n : n] = np.nan
            row = values.get(signal)
            track.silent_ticks = track.silent_ticks + 1 if row is None else 0
            track.cells[end, :n] = np.nan if row is None else row
        self._times.append(at_s)
        self._n = n

    def drop_before(self, at_s: float) -> None:
        """Forget the ticks before `at_s`, and the signals that none of the remaining ticks has."""
        gone = 0
        while gone < len(self._times) and self._times[gone] < at_s:
            gone += 1
        del self._times[:gone]
        for track in self._tracks.values():
            track.first += gone
        self._tracks = {s: track for s, track in self._tracks.items() if track.silent_ticks < len(self._times)}

    def keep(self, rows: Ints) -> None:
        """Only these rows, in this order."""
        count = len(self._times)
        for track in self._tracks.values():
            track.cells, track.first = track.cells[track.first : track.first + count, rows], 0
        self._n = len(rows)

    @property
    def times_s(self) -> list[float]:
        """The ticks, oldest first."""
        return self._times

    def oldest(self, signal: S) -> Cells | None:
        """(n,) the values at the oldest tick; None for a signal that no tick has."""
        track = self._tracks.get(signal)
        return None if track is None else track.cells[track.first, : self._n]

    def views(self) -> dict[S, Any]:
        """By signal, (n_ticks, n) read-only."""
        views = {}
        for signal, track in self._tracks.items():
            view = track.cells[track.first : track.first + len(self._times), : self._n]
            view.flags.writeable = False
            views[signal] = view
        return views

    def _moved(self, track: _Track | None, position: int, n: int) -> Cells:
        """A new array with room for more ticks and rows, the history of `track` at its beginning."""
        count = len(self._times)
        spare = max(_FEWEST_SPARE, count // 8) + position % _SPREAD
        cells = np.empty((count + spare, n + n // 16), dtype=self.dtype)
        if track is None:
            cells[:count, :n] = np.nan
        else:
            cells[:count, : self._n] = track.cells[track.first : track.first + count, : self._n]
            cells[:count, self._n : n] = np.nan
        return cells
