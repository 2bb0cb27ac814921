"""Telemetry from Prometheus, and from what speaks its query API: Thanos, Mimir, VictoriaMetrics.

A read is a replay of one instant: both ask for whole metrics, over one instant or over a slice of sixty, and both find
the true times of the samples the same way. A query answers with the time of its evaluation, so a Prometheus that has
stopped scraping looks healthy; only `timestamp()` shows the age. One such query serves every metric that carries the
same labels, because the samples of one scrape share its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import numpy as np

from healer.adapters.prometheus.api import PrometheusApi
from healer.adapters.prometheus.series import SeriesBook
from healer.adapters.prometheus.tables import Floats, Instants, SampleTimes, Table, ask, ask_times, times_of
from healer.domain.reading import Column, Labels, Reading
from healer.errors import Unavailable
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.catalogue.site import SITE_SPELLINGS

_CONCURRENT = 4
_NAMES_HOLD_FOR = timedelta(minutes=5)
_NAMES_WINDOW = timedelta(minutes=10)
_SLICE_STEPS = 60
_DOWN = "up == 0"
_TELL_TARGETS = frozenset({"job", "instance"})

_T = TypeVar("_T")


class PrometheusSource:
    """Attributes:
    query: further parameters of every request, such as Thanos' `dedup` or VictoriaMetrics' `deny_partial_response`.
    rack_power: the metric, or the PromQL, that gives watts by rack.
    lookback: how old the newest sample of a series may be and still count, whatever the server's own setting.
    kept_labels: the labels that anybody reads; None keeps them all.
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
        kept_labels: frozenset[str] | None = None,
    ) -> None:
        fixed = {**_for_every_engine(lookback), **(query or {})}
        self._api = PrometheusApi(url, headers=headers or {}, tenant=tenant, query=fixed, timeout_s=timeout_s)
        self._rack_power = rack_power
        self._lookback = lookback
        self._kept = None if kept_labels is None else kept_labels | _TELL_TARGETS
        self._names: tuple[str, ...] = ()
        self._names_from: datetime | None = None
        self._reader = self._new_reader()

    def close(self) -> None:
        self._api.close()

    def read(self, at: datetime) -> Reading:
        """Every series of the fleet as of `at`. Raises Unavailable, also when there is not one GPU in the answer."""
        instants = Instants(_milliseconds(at), 1, 1)
        remarks: tuple[str, ...] = ()
        reading: Reading | None = None
        if self._names_from is not None and abs(at - self._names_from) < _NAMES_HOLD_FOR:
            reading = next(self._reader.readings(self._names, instants))
        if reading is None or not self._has_gpus(reading):
            names, remarks = self._discover(at - _NAMES_WINDOW, at)
            # While a first scrape is being taken in, only some of its names are there: what has just changed is not
            # relied on, else the rest would be missing for as long as the names hold.
            self._names_from = at if names == self._names else None
            self._names = names
            reading = next(self._reader.readings(names, instants))
        if not self._has_gpus(reading):
            silent = f", and these targets do not answer it: {', '.join(reading.silent[:5])}" if reading.silent else ""
            raise self._no_gpus(f"at {at:%Y-%m-%dT%H:%M:%SZ}{silent}")
        warnings = tuple(dict.fromkeys(remarks + reading.warnings))
        return replace(reading, at=at, warnings=warnings)

    def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
        """One reading per step from `start` to `end`, both included. Raises Unavailable if there was never a GPU."""
        step_ms = round(step.total_seconds() * 1000)
        if step_ms <= 0 or end < start:
            raise ValueError(f"cannot replay from {start} to {end} in steps of {step}")
        count = (_milliseconds(end) - _milliseconds(start)) // step_ms + 1
        names, remarks = self._discover(start - self._lookback, end)
        reader = self._new_reader()
        found = False
        for instants in Instants(_milliseconds(start), step_ms, count).sliced(_SLICE_STEPS):
            for reading in reader.readings(names, instants):
                found = found or self._has_gpus(reading)
                warnings = tuple(dict.fromkeys(remarks + reading.warnings))
                yield replace(reading, warnings=warnings)
        if not found:
            raise self._no_gpus(f"between {start:%Y-%m-%dT%H:%M:%SZ} and {end:%Y-%m-%dT%H:%M:%SZ}")

    def _new_reader(self) -> _Reader:
        return _Reader(
            self._api, SeriesBook(self._kept, SPELLINGS), rack_power=self._rack_power, lookback=self._lookback
        )

    def _discover(self, start: datetime, end: datetime) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What to ask for, of all that we know: what exists; and what the server remarks."""
        window = {"start": f"{start.timestamp():.3f}", "end": f"{end.timestamp():.3f}"}
        names, remarks = self._api.metric_names(window)
        site = (spelling.query for metric, spelling in SITE_SPELLINGS.items() if metric in names)
        return (*(name for name in SPELLINGS if name in names), *site), remarks

    def _has_gpus(self, reading: Reading) -> bool:
        return any(len(column.values) for column in reading.columns if column.metric in SPELLINGS)

    def _no_gpus(self, when: str) -> Unavailable:
        text = f"has no GPU metric {when}; check that it scrapes the exporters, and the tenant, if it has tenants"
        return Unavailable(self._api.component, text)


class _Reader:
    """One reading after the other, of the same series."""

    def __init__(self, api: PrometheusApi, book: SeriesBook, *, rack_power: str, lookback: timedelta) -> None:
        self._api = api
        self._book = book
        self._rack_power = rack_power
        self._lookback_ms = round(lookback.total_seconds() * 1000)
        self._times = SampleTimes()
        self._names: tuple[str, ...] = ()

    def readings(self, names: Sequence[str], instants: Instants) -> Iterator[Reading]:
        """The readings of all instants, oldest first."""
        queries = tuple(dict.fromkeys((*names, self._rack_power, _DOWN)))
        if queries != self._names:
            self._names, self._times = queries, SampleTimes()
        stamped = self._times.asked
        self._book.sweep((*queries, *map(times_of, stamped)))
        calls = [partial(ask, self._api, self._book, query, instants) for query in queries]
        calls += [partial(self._ask_times, query, instants) for query in stamped]
        tables = _in_parallel(calls)
        *shown, down = tables[: len(queries)]
        stamps = dict(zip(stamped, tables[len(queries) :], strict=True))
        times = self._times.of(shown, stamps, lambda query: self._ask_times(query, instants))
        remarks = tuple(dict.fromkeys(text for table in (*shown, down, *stamps.values()) for text in table.remarks))
        for k in range(instants.count):
            silent, others = self._silent(down, k)
            yield Reading(
                at=instants.at(k),
                columns=tuple(_column(table, times[table.query], k) for table in shown if table.present[:, k].any()),
                label_sets=self._book.label_sets,
                silent=silent,
                warnings=remarks,
                down=others,
            )

    def _ask_times(self, query: str, instants: Instants) -> Table:
        return ask_times(self._api, self._book, query, instants, lookback_ms=self._lookback_ms)

    def _silent(self, down: Table, k: int) -> tuple[tuple[str, ...], tuple[Labels, ...]]:
        """The targets that do not answer: of the scrape jobs that ever brought a GPU, and of all others."""
        numbers = down.shape.series[down.present[:, k]].tolist()
        targets = [self._book.label_sets[number] for number in numbers]
        ours = {
            labels["instance"] for labels in targets if labels.get("job") in self._book.jobs and "instance" in labels
        }
        return tuple(sorted(ours)), tuple(labels for labels in targets if labels.get("job") not in self._book.jobs)


def _for_every_engine(lookback: timedelta) -> dict[str, str]:
    """Parameters that make the engines answer alike. Each ignores what it does not know."""
    window = f"{round(lookback.total_seconds() * 1000)}ms"
    return {
        "lookback_delta": window,
        "max_lookback": window,  # VictoriaMetrics' word for it
        "latency_offset": "1ms",  # VictoriaMetrics hides the newest 30 s else; 0 it refuses
        "partial_response": "true",  # Thanos: what a store that is down leaves out is told in a warning
        "max_source_resolution": "0s",  # Thanos: as it was scraped, not downsampled
    }


def _column(table: Table, times: Floats, k: int) -> Column:
    """What the table holds for instant `k`."""
    present = table.present[:, k]
    if present.all():
        return Column(table.query, table.shape.series, table.values[:, k], times[:, k])
    rows = np.flatnonzero(present)
    return Column(table.query, table.shape.series[rows], table.values[rows, k], times[rows, k])


def _in_parallel(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """The results in order. A failure cancels what has not begun: the rest would only wait for the same fault."""
    pool = ThreadPoolExecutor(_CONCURRENT)
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    finally:
        pool.shutdown(cancel_futures=True)


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
