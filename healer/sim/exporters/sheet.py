"""Sheet: what a Prometheus has of one kind of page, as it scrapes one target after the other.

A row is a GPU, a port, a node; a series is a row under a metric. What was scraped counts until it is scraped again, is
told to be gone, or is older than the lookback.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.reading import Column
from healer.sim.exporters.metric import Formats, Metric
from healer.telemetry.wire.label_sets import LabelSets

_LONGEST_LOOKBACK_S = 600.0

LabelsOf = Callable[[int], Mapping[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """Series that were there and then were not any more: their last samples. Arrays: (n_metrics, n)."""

    rows: Ints  # (n,)
    ids: Ints
    page: Floats
    times_s: Floats  # (n,)
    shown: Bools


class Sheet:
    """Attributes:
    formats: the metrics.
    labels: of each row, as they are now.
    page: (n_metrics, n) the newest samples.
    times_s: (n,) when each row was scraped, -inf for never.
    """

    def __init__(self, formats: Formats, labels_of: LabelsOf, n: int, book: LabelSets) -> None:
        self.formats = formats
        self.labels = labels_of
        self._book = book
        self._extras: tuple[tuple[tuple[str, str], ...], ...] = tuple(
            dict.fromkeys(metric.labels for metric in formats.metrics)
        )
        self._extra_of = np.array([self._extras.index(metric.labels) for metric in formats.metrics], dtype=np.int64)
        m = len(formats.metrics)
        self.page: Floats = np.full((m, n), np.nan)
        self.times_s: Floats = np.full(n, -np.inf)
        self._ids: Ints = np.full((len(self._extras), n), -1, dtype=np.int64)
        self._shown: Bools = np.ones((m, n), dtype=np.bool_)
        self._gone: Bools = np.zeros(n, dtype=np.bool_)
        self._stale: Bools = np.ones(n, dtype=np.bool_)
        self._left: list[_Left] = []

    @property
    def metrics(self) -> Sequence[Metric]:
        return self.formats.metrics

    def relabel(self, rows: Iterable[int]) -> None:
        """With their next scrape these have other labels."""
        self._stale[list(rows)] = True

    def drop(self, rows: Ints) -> None:
        """A scrape without them."""
        self._gone[rows] = True

    def scrape(self, rows: Ints, times_s: Floats, quantities: Floats, shown: Bools | None = None) -> None:
        """Args:
        times_s: (n_rows,)
        quantities: (n_quantities, n) of all rows.
        shown: (n_metrics, n_rows) which of the metrics are on the page; None for all.
        """
        if not len(rows):
            return
        self._keep(rows, shown)
        stale = rows[self._stale[rows]]
        for row in stale.tolist():
            labels = self.labels(row)
            self._ids[:, row] = [self._book.add({**labels, **dict(extra)}) for extra in self._extras]
        self._stale[stale] = False
        self.page[:, rows] = self.formats.values(quantities[:, rows])
        self.times_s[rows] = times_s
        self._gone[rows] = False
        self._shown[:, rows] = True if shown is None else shown

    def overwrite(self, metrics: Sequence[int], rows: Ints, value: float) -> None:
        """What the newest scrape brought here was this."""
        self.page[np.ix_(np.array(metrics, dtype=np.int64), rows)] = value

    def columns(self, at_s: float, *, lookback_s: float, markers: bool, wanted: Container[str]) -> list[Column]:
        """Args:
        markers: whether a series ends with the scrape that lacks it; else it ends when it is too old.
        """
        fresh = self.times_s > at_s - lookback_s
        if markers:
            fresh &= ~self._gone
        rows = np.flatnonzero(fresh)
        whole = len(rows) == len(fresh)
        page = self.page.copy() if whole else self.page[:, rows]
        ids = self._ids.copy() if whole else self._ids[:, rows]
        times_s = self.times_s[rows]
        shown = self._shown if whole else self._shown[:, rows]
        full = bool(shown.all())
        left = [] if markers else self._lingering(at_s - lookback_s, fresh)
        found = []
        for number, metric in enumerate(self.metrics):
            if metric.name not in wanted:
                continue
            column = Column(metric.name, ids[self._extra_of[number]], page[number], times_s)
            if not full:
                column = _only(column, shown[number])
            for one in left:
                column = _with(column, number, one)
            if len(column.values):
                found.append(column)
        return found

    def samples(self, rows: Ints) -> Iterable[tuple[Metric, Ints, Floats, Floats]]:
        """Of each metric what its newest scrape of these rows brought: label sets, values, times."""
        for number, metric in enumerate(self.metrics):
            there = rows[self._shown[number, rows]]
            yield metric, self._ids[self._extra_of[number], there], self.page[number, there], self.times_s[there]

    def _keep(self, rows: Ints, shown: Bools | None) -> None:
        """What ends with this scrape stays a while for those who look back."""
        known = self.times_s[rows] > -np.inf
        ends = self._shown[:, rows] & (self._stale[rows] & known)
        if shown is not None:
            ends |= self._shown[:, rows] & ~shown & known
        if ends.any():
            ended = ends.any(axis=0)
            rows, ends = rows[ended], ends[:, ended]
            times_s = self.times_s[rows]
            since_s = times_s.max() - _LONGEST_LOOKBACK_S
            self._left = [left for left in self._left if left.times_s.max() > since_s]
            self._left.append(_Left(rows, self._ids[self._extra_of][:, rows], self.page[:, rows], times_s, ends))

    def _lingering(self, since_s: float, fresh: Bools) -> list[_Left]:
        """What ended and is not yet too old, but for what is back."""
        found: list[_Left] = []
        for left in reversed(self._left):
            lasts = left.shown & (left.times_s > since_s)
            if not lasts.any():
                continue
            back = fresh[left.rows] & self._shown[:, left.rows] & (self._ids[self._extra_of][:, left.rows] == left.ids)
            lasts &= ~back
            for newer in found:
                same = (newer.rows[:, None] == left.rows[None, :]).any(axis=0)
                if same.any():  # the newest end of a series counts
                    lasts &= ~(same & np.isin(left.ids, newer.ids[newer.shown]))
            found.append(_Left(left.rows, left.ids, left.page, left.times_s, lasts))
        return found


def _with(column: Column, number: int, left: _Left) -> Column:
    there = left.shown[number]
    if not there.any():
        return column
    return Column(
        column.metric,
        np.concatenate([column.series, left.ids[number][there]]),
        np.concatenate([column.values, left.page[number][there]]),
        np.concatenate([column.times, left.times_s[there]]),
    )


def _only(column: Column, shown: Bools) -> Column:
    if shown.all():
        return column
    return Column(column.metric, column.series[shown], column.values[shown], column.times[shown])
