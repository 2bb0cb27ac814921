"""Telemetry from Prometheus, and from what speaks its query API: Thanos, Mimir, VictoriaMetrics.

A read is a replay of one instant: both ask for whole metrics, over one instant or over a slice of sixty, and both find
the true times of the samples the same way. A query answers with the time of its evaluation, so a Prometheus that has
stopped scraping looks healthy; only `timestamp()` shows the age. One such query serves every metric that carries the
same labels, because the samples of one scrape share its time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from healer.adapters.prometheus_api import Page, PrometheusApi
from healer.domain.reading import Column, Labels, Reading
from healer.errors import Unavailable
from healer.telemetry.catalogue import SPELLINGS

_CONCURRENT = 4
_NAMES_HOLD_FOR = timedelta(minutes=5)
_NAMES_WINDOW = timedelta(minutes=10)
_SLICE_STEPS = 60
_SELECTOR = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?")

_T = TypeVar("_T")
_Identity = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Instants:
    """Evenly spaced instants in unix milliseconds, which is how exactly Prometheus tells time."""

    start_ms: int
    step_ms: int
    count: int

    def at(self, k: int) -> datetime:
        return datetime.fromtimestamp((self.start_ms + k * self.step_ms) / 1000, UTC)

    def sliced(self, size: int) -> Iterator[_Instants]:
        for first in range(0, self.count, size):
            yield _Instants(self.start_ms + first * self.step_ms, self.step_ms, min(size, self.count - first))


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The answer to one query.

    Attributes:
        values: (n_series, n_instants) float64.
        present: (n_series, n_instants) whether there was a sample at all; its value may well be NaN.
    """

    query: str
    labels: Sequence[Labels]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    warnings: tuple[str, ...]


class PrometheusSource:
    """Attributes:
    rack_power: the metric, or the PromQL, that gives watts by rack.
    lookback: how old the newest sample of a series may be and still count, whatever the server's own setting.
    """

    name = "prometheus"

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tenant: str | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        rack_power: str = "rack_power_watts",
        lookback: timedelta = timedelta(seconds=90),
    ) -> None:
        lookback_ms = round(lookback.total_seconds() * 1000)
        # A server that does not know the parameter ignores it; the sample times still tell what is stale.
        fixed = {"lookback_delta": f"{lookback_ms}ms", **(query or {})}
        self._api = PrometheusApi(url, headers=headers or {}, tenant=tenant, query=fixed, timeout_s=timeout_s)
        self._rack_power = rack_power
        self._lookback = lookback
        self._names: tuple[str, ...] = ()
        self._names_from: datetime | None = None
        self._jobs: set[str] = set()

    def close(self) -> None:
        self._api.close()

    def read(self, at: datetime) -> Reading:
        """Every series of the fleet as of `at`. Raises Unavailable, also when there is not one GPU in the answer."""
        instants = _Instants(_milliseconds(at), 1, 1)
        warnings: tuple[str, ...] = ()
        reading: Reading | None = None
        if self._names_from is not None and abs(at - self._names_from) < _NAMES_HOLD_FOR:
            reading = next(self._readings(self._names, instants, self._jobs))
        if reading is None or not self._has_gpus(reading):
            names, warnings = self._discover(at - _NAMES_WINDOW, at)
            # While a first scrape is being taken in, only some of its names are there: what has just changed is not
            # relied on, else the rest would be missing for as long as the names hold.
            self._names_from = at if names == self._names else None
            self._names = names
            reading = next(self._readings(names, instants, self._jobs))
        if not self._has_gpus(reading):
            silent = f", and these targets do not answer it: {', '.join(reading.silent[:5])}" if reading.silent else ""
            raise self._no_gpus(f"at {at:%Y-%m-%dT%H:%M:%SZ}{silent}")
        return Reading(at, reading.columns, reading.silent, tuple(dict.fromkeys(warnings + reading.warnings)))

    def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
        """One reading per step from `start` to `end`, both included. Raises Unavailable if there was never a GPU."""
        step_ms = round(step.total_seconds() * 1000)
        if step_ms <= 0 or end < start:
            raise ValueError(f"cannot replay from {start} to {end} in steps of {step}")
        count = (_milliseconds(end) - _milliseconds(start)) // step_ms + 1
        names, warnings = self._discover(start - self._lookback, end)
        jobs: set[str] = set()
        found = False
        for instants in _Instants(_milliseconds(start), step_ms, count).sliced(_SLICE_STEPS):
            for reading in self._readings(names, instants, jobs):
                found = found or self._has_gpus(reading)
                yield Reading(reading.at, reading.columns, reading.silent, warnings + reading.warnings)
        if not found:
            raise self._no_gpus(f"between {start:%Y-%m-%dT%H:%M:%SZ} and {end:%Y-%m-%dT%H:%M:%SZ}")

    def _discover(self, start: datetime, end: datetime) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The exported metrics that exist, of those that we know; and warnings."""
        window = {"start": f"{start.timestamp():.3f}", "end": f"{end.timestamp():.3f}"}
        names, warnings = self._api.metric_names(window)
        return tuple(name for name in SPELLINGS if name in names), warnings

    def _has_gpus(self, reading: Reading) -> bool:
        return any(len(column.values) for column in reading.columns if column.metric != self._rack_power)

    def _no_gpus(self, when: str) -> Unavailable:
        text = f"has no GPU metric {when}; check that it scrapes the exporters, and the tenant, if it has tenants"
        return Unavailable(self._api.component, text)

    def _readings(self, names: Sequence[str], instants: _Instants, jobs: set[str]) -> Iterator[Reading]:
        """The readings of a slice, oldest first. `jobs` collects the scrape jobs that ever carried a GPU."""
        queries = dict.fromkeys((*names, self._rack_power, "up == 0"))
        *tables, down = _in_parallel([partial(self._table, query, instants) for query in queries])
        warnings = tuple(dict.fromkeys(text for table in (*tables, down) for text in table.warnings))
        times = self._sample_times(tables, instants)
        for table in tables:
            if table.query != self._rack_power:
                jobs.update(labels["job"] for labels in table.labels if "job" in labels)
        ours = [row for row, labels in enumerate(down.labels) if labels.get("job") in jobs and "instance" in labels]
        for k in range(instants.count):
            yield Reading(
                at=instants.at(k),
                columns=tuple(_column(table, times[table.query], k) for table in tables if table.present[:, k].any()),
                silent=tuple(sorted({down.labels[row]["instance"] for row in ours if down.present[row, k]})),
                warnings=warnings,
            )

    def _table(self, query: str, instants: _Instants) -> _Table:
        if instants.count == 1:
            page = self._api.query(query, {"time": _seconds(instants.start_ms)})
        else:
            last_ms = instants.start_ms + (instants.count - 1) * instants.step_ms
            span = {"start": _seconds(instants.start_ms), "end": _seconds(last_ms), "step": _seconds(instants.step_ms)}
            page = self._api.query_range(query, span)
        columns = self._columns(query, page, instants)
        shape = (len(page.labels), instants.count)
        values, present = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
        rows = np.repeat(np.arange(len(page.labels)), page.lengths)
        values[rows, columns], present[rows, columns] = page.values, True
        return _Table(query, page.labels, values, present, page.warnings)

    def _columns(self, query: str, page: Page, instants: _Instants) -> NDArray[np.int64]:
        """Which instant each sample belongs to. Raises Unavailable if the samples are of other times than asked for."""
        if instants.count == 1:
            return np.zeros(len(page.values), dtype=np.int64)
        position = (page.stamps_s * 1000 - instants.start_ms) / instants.step_ms
        columns = np.rint(position).astype(np.int64)
        off = (columns < 0) | (columns >= instants.count) | (np.abs(position - columns) * instants.step_ms > 1)
        if off.any():
            text = f"answered {query!r} for other times than asked; start at a multiple of the step, or ask it directly"
            raise Unavailable(self._api.component, text)
        return columns

    def _sample_times(self, tables: Sequence[_Table], instants: _Instants) -> dict[str, NDArray[np.float64]]:
        """By query, (n_series, n_instants) unix seconds of each sample; NaN where PromQL computed the value.

        The largest metric is asked for its times; those whose labels match need no question of their own. What is left
        over, such as XIDs with their own labels or another vendor's metrics, is asked for itself.
        """
        known: dict[_Identity, NDArray[np.float64]] = {}
        times: dict[str, NDArray[np.float64]] = {}
        last: tuple[Sequence[Labels], NDArray[np.float64]] = ((), np.empty((0, instants.count)))
        for table in sorted(tables, key=lambda table: -len(table.labels)):
            # Prometheus lists the series of two metrics of the same targets in the same order, nearly always.
            found = last[1] if table.labels == last[0] else _look_up(known, table)
            if (table.present & np.isnan(found)).any() and _SELECTOR.fullmatch(table.query):
                asked = self._table(f"timestamp({table.query})", instants)
                stamps = np.where(asked.present, asked.values, np.nan)
                for labels, row in zip(asked.labels, stamps, strict=True):
                    identity = frozenset(labels.items())
                    known[identity] = np.fmax(known.get(identity, row), row)
                found = _look_up(known, table)
                last = (table.labels, found)
            times[table.query] = found
        return times


def _look_up(known: Mapping[_Identity, NDArray[np.float64]], table: _Table) -> NDArray[np.float64]:
    unknown = np.full(table.values.shape[1], np.nan)
    rows = [known.get(frozenset(labels.items()), unknown) for labels in table.labels] if known else []
    return np.stack(rows) if rows else np.full(table.values.shape, np.nan)


def _column(table: _Table, times: NDArray[np.float64], k: int) -> Column:
    """What the table holds for instant `k`."""
    rows = np.flatnonzero(table.present[:, k])
    labels = table.labels if len(rows) == len(table.labels) else [table.labels[row] for row in rows.tolist()]
    return Column(table.query, labels, table.values[rows, k], times[rows, k])


def _in_parallel(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """The results in order. A failure cancels what has not begun: the rest would only wait for the same fault."""
    pool = ThreadPoolExecutor(_CONCURRENT)
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    finally:
        pool.shutdown(cancel_futures=True)


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
