"""Tick: one reading, sorted into the rows of a frame."""

from __future__ import annotations

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.domain.reading import Column
from healer.domain.signal import Signal
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.catalogue.spelling import Combine, combined, convert
from healer.telemetry.frames.roster import NO_GPU, Roster


class Tick:
    """Columns are placed in the order of precedence: of two spellings of one signal the first that has a value wins.

    Attributes:
        values: signal -> (n_rows,) in the signal's unit, NaN where unknown.
        fresh, seen: (n_rows,) whether the reading has a sample of the GPU that is young enough, or any at all.
        newest_of_row: (n_rows,) unix seconds of the newest sample, NaN without one.
        newest_of_set: (n_label_sets,) unix seconds of the newest sample that is young enough, -inf without one.
        homeless: how many series name no GPU.
    """

    def __init__(self, at_s: float, max_age_s: float, roster: Roster) -> None:
        self.at_s = at_s
        self.values: dict[Signal, Floats] = {}
        self.fresh = np.zeros(len(roster), dtype=np.bool_)
        self.seen = np.zeros(len(roster), dtype=np.bool_)
        self.newest_of_row = np.full(len(roster), np.nan)
        self.newest_of_set = np.full(len(roster.row_of), -np.inf)
        self.homeless = 0
        self._max_age_s = max_age_s
        self._roster = roster
        self._mark = np.empty(len(roster), dtype=np.int64)

    def place(self, column: Column) -> None:
        """Sort one column in. Two series of one row (an HA pair, time slicing): the newest sample wins."""
        spelling = SPELLINGS[column.metric]
        values = convert(spelling, column.values)
        series, times, rows = column.series, column.times, self._roster.row_of[column.series]
        if not (rows >= 0).all() or spelling.only is not None:
            wanted = rows >= 0
            self.homeless += int(np.count_nonzero(rows == NO_GPU))
            if spelling.only is not None:
                wanted &= self._roster.having(*spelling.only)[series]
            series, times, rows, values = series[wanted], times[wanted], rows[wanted], values[wanted]
        if not self._unique(rows):
            # Where a row is assigned twice, the last one stays.
            order = oldest_first(times)
            series, times, rows, values = series[order], times[order], rows[order], values[order]
        self.seen[rows] = True
        self.newest_of_row[rows] = np.fmax(self.newest_of_row[rows], times)
        young = ~(self.at_s - times > self._max_age_s)  # a time that is not told is no reason to doubt
        if not young.all():
            series, times, rows, values = series[young], times[young], rows[young], values[young]
        self.fresh[rows] = True
        told = np.where(np.isnan(times), self.at_s, times)
        self.newest_of_set[series] = np.maximum(self.newest_of_set[series], told)
        if spelling.combine is Combine.NEWEST:
            self._fill(spelling.signal, self._newest(rows, values))
        else:
            parts, n = self._roster.numbered(spelling.part)[series], len(self.fresh)
            self._fill(spelling.signal, combined(spelling.combine, rows, parts, times=told, values=values, n=n))

    def _newest(self, rows: Ints, values: Floats) -> Floats:
        """(n_rows,) the last value of each row."""
        known = ~np.isnan(values)
        if not known.all():
            rows, values = rows[known], values[known]
        newest = np.full(len(self.fresh), np.nan)
        newest[rows] = values
        return newest

    def _fill(self, signal: Signal, spelled: Floats) -> None:
        before = self.values.get(signal)
        self.values[signal] = spelled if before is None else np.where(np.isnan(before), spelled, before)

    def _unique(self, rows: Ints) -> bool:
        order = np.arange(len(rows))
        self._mark[rows] = order
        return bool((self._mark[rows] == order).all())


def oldest_first(times: Floats) -> Ints:
    """The order of the times, those that are not told first."""
    return np.argsort(np.where(np.isnan(times), -np.inf, times), kind="stable")
