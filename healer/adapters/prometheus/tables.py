"""The answer to one query as an array, and the true times of its samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from healer.adapters.prometheus.answer import NotAnAnswer, Sample, Series
from healer.adapters.prometheus.api import PrometheusApi
from healer.adapters.prometheus.series import Recognition, SeriesBook, Shape
from healer.errors import Unavailable

Floats = NDArray[np.float64]

_MOST_EARLIER_STEPS = 60
_SELECTOR = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?")


@dataclass(frozen=True, slots=True)
class Instants:
    """Evenly spaced instants in unix milliseconds, which is how exactly Prometheus tells time."""

    start_ms: int
    step_ms: int
    count: int

    def at(self, k: int) -> datetime:
        return datetime.fromtimestamp((self.start_ms + k * self.step_ms) / 1000, UTC)

    def sliced(self, size: int) -> Iterator[Instants]:
        for first in range(0, self.count, size):
            yield Instants(self.start_ms + first * self.step_ms, self.step_ms, min(size, self.count - first))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The answer to one query.

    Attributes:
        values: (n_series, n_instants) float64, NaN where there was no sample.
        present: (n_series, n_instants) whether there was a sample at all; its value may well be NaN.
    """

    query: str
    shape: Shape
    values: Floats
    present: NDArray[np.bool_]
    remarks: tuple[str, ...]


def ask(api: PrometheusApi, book: SeriesBook, query: str, instants: Instants) -> Table:
    """Raises Unavailable, Rejected."""
    if instants.count == 1:
        column = OneInstant(book.recognise(query))
        remarks = api.query(query, {"time": _seconds(instants.start_ms)}, column)
        return column.table(query, remarks)
    rows = SeveralInstants(book.recognise(query))
    last_ms = instants.start_ms + (instants.count - 1) * instants.step_ms
    span = {"start": _seconds(instants.start_ms), "end": _seconds(last_ms), "step": _seconds(instants.step_ms)}
    remarks = api.query_range(query, span, rows)
    table = rows.table(query, instants, remarks)
    if table is None:
        text = f"answered {query!r} for other times than asked; start at a multiple of the step, or ask it directly"
        raise Unavailable(api.component, text)
    return table


def times_of(query: str) -> str:
    return f"timestamp({query})"


def ask_times(api: PrometheusApi, book: SeriesBook, query: str, instants: Instants, *, lookback_ms: int) -> Table:
    """The times of the samples that `query` shows. Raises Unavailable, Rejected."""
    if instants.count == 1:
        return ask(api, book, times_of(query), instants)
    # Over a range VictoriaMetrics tells the time of a sample only about once, and not again while the sample lasts.
    earlier = min(-(-lookback_ms // instants.step_ms), _MOST_EARLIER_STEPS)
    first_ms = instants.start_ms - earlier * instants.step_ms
    table = ask(api, book, times_of(query), Instants(first_ms, instants.step_ms, earlier + instants.count))
    values = np.fmax.accumulate(table.values, axis=1)[:, earlier:]
    return replace(table, values=values, present=~np.isnan(values))


class OneInstant:
    """Takes the answer for one instant."""

    def __init__(self, recognition: Recognition) -> None:
        self._recognition = recognition
        self._values: list[Floats] = []

    def take(self, rows: list[Sample]) -> None:
        self._recognition.take(rows)
        self._values.append(_numbers(lambda: [float(row.value[1]) for row in rows]))

    def end(self) -> None:
        self._recognition.end()

    def table(self, query: str, remarks: tuple[str, ...]) -> Table:
        known = self._recognition.known
        values = np.empty((len(known.shape), 1))
        values[known.places, 0] = _joined(self._values)
        return Table(query, known.shape, values, np.ones(values.shape, dtype=np.bool_), remarks)


class SeveralInstants:
    """Takes the answer for several instants."""

    def __init__(self, recognition: Recognition) -> None:
        self._recognition = recognition
        self._lengths: list[int] = []
        self._stamps_s: list[Floats] = []
        self._values: list[Floats] = []

    def take(self, rows: list[Series]) -> None:
        self._recognition.take(rows)
        self._lengths.extend(len(row.values) for row in rows)
        self._stamps_s.append(np.array([stamp for row in rows for stamp, _ in row.values], dtype=np.float64))
        self._values.append(_numbers(lambda: [float(text) for row in rows for _, text in row.values]))

    def end(self) -> None:
        self._recognition.end()

    def table(self, query: str, instants: Instants, remarks: tuple[str, ...]) -> Table | None:
        """None if there are samples of other times."""
        columns = _columns(_joined(self._stamps_s), instants)
        if columns is None:
            return None
        known = self._recognition.known
        rows = np.repeat(known.places, self._lengths)
        values = np.full((len(known.shape), instants.count), np.nan)
        present = np.zeros(values.shape, dtype=np.bool_)
        values[rows, columns], present[rows, columns] = _joined(self._values), True
        return Table(query, known.shape, values, present, remarks)


def _columns(stamps_s: Floats, instants: Instants) -> NDArray[np.int64] | None:
    """Which instant each sample belongs to; None if some belong to none of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        position = (stamps_s * 1000 - instants.start_ms) / instants.step_ms
        nearest = np.rint(position)
        ours = (nearest >= 0) & (nearest < instants.count) & (np.abs(position - nearest) * instants.step_ms <= 1)
    return nearest.astype(np.int64) if ours.all() else None


class SampleTimes:
    """When each sample was taken.

    The largest metric is asked for its times; those whose labels match need no question of their own. What is left
    over, such as XIDs with their own labels or another vendor's metrics, is asked for itself. Who had to be asked is
    remembered, so that next time all questions go out together.

    Attributes:
        asked: the queries whose times have to be asked for.
    """

    def __init__(self) -> None:
        self.asked: tuple[str, ...] = ()

    def of(
        self, tables: Sequence[Table], stamps: dict[str, Table], ask_for: Callable[[str], Table]
    ) -> dict[str, Floats]:
        """By query, (n_series, n_instants) unix seconds of each sample; NaN where PromQL computed the value.

        Args:
            stamps: by query, the answers for those in `asked`; those for which there was another question are added.
        """
        by_shape: dict[int, Floats] = {}
        times: dict[str, Floats] = {}
        for table in sorted(tables, key=lambda table: -len(table.shape)):
            shape = id(table.shape)
            if shape not in by_shape:
                by_shape[shape] = _look_up(stamps.values(), table)
            unknown = (table.present & np.isnan(by_shape[shape])).any()
            if unknown and table.query not in stamps and _SELECTOR.fullmatch(table.query):
                stamps[table.query] = ask_for(table.query)
                self.asked += (table.query,)
                by_shape[shape] = _look_up(stamps.values(), table)
            times[table.query] = by_shape[shape]
        return times


def _look_up(stamps: Iterable[Table], table: Table) -> Floats:
    found = np.full(table.values.shape, np.nan)
    for stamp in stamps:
        if stamp.shape is table.shape:
            found = np.fmax(found, stamp.values)
        else:
            rows = table.shape.rows_in(stamp.shape)
            known = rows >= 0
            found[known] = np.fmax(found[known], stamp.values[rows[known]])
    return found


def _numbers(read: Callable[[], list[float]]) -> Floats:
    try:
        return np.array(read(), dtype=np.float64)
    except ValueError:
        raise NotAnAnswer("a value that is not a number") from None


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(0)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
