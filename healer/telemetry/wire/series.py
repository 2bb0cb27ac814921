"""Who sent which sample: the newest sample of every series that was brought.

For sources to which samples come one by one (pushed, or scraped), out of order, twice, late, or with an end mark. The
cost of a known series is a few array operations per batch; only a series that was never seen is looked at by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from healer.domain.reading import Column, Labels, Reading
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.wire.label_sets import LabelSets
from healer.telemetry.wire.numbers import UNKNOWN, Numbers

__all__ = ["NOT_WANTED", "NO_ROOM", "STALE_BITS", "UNKNOWN", "UP", "Floats", "Head", "Ints", "LabelSets"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UP = "up"
NOT_WANTED = -1  # the number of every series that is known and of no use
NO_ROOM = -2  # the number of a series that was refused
STALE_BITS = 0x7FF0000000000002  # how Prometheus says that a series has ended

_FUTURE_S = 30.0  # a sample may be this far ahead of our clock before it is refused
_TARGET_KEPT_S = 86_400.0  # a target that came to no end is not forgotten with its series: it is silent
_FIRST_CAPACITY = 1024
_LEAST_GARBAGE = 10_000
_MOST_IGNORED = 4_000_000  # series that nobody reads, before they are all looked at anew
_MOST_LABEL_BYTES = 1 << 30
_MOST_JOBS = 10_000


class Head:
    """The newest sample of every series. Whoever calls holds `lock` from finding a series' number until `put`.

    Attributes:
        numbers: series key -> its number, NOT_WANTED for a metric that nobody reads. A key is a 64-bit hash, under a
            secret of this process, of whatever bytes the sender describes the series with.
        most_series: further ones are refused.
        forget_after: a series without a sample for this long loses its number.
    """

    def __init__(
        self,
        wanted: Collection[str],
        *,
        kept: frozenset[str] | None = None,
        most_series: int = 6_000_000,
        forget_after: timedelta = timedelta(minutes=10),
    ) -> None:
        self.lock = threading.RLock()
        self.numbers = Numbers()
        self.label_sets = LabelSets(kept)
        self.taken = self.refused = self.late = self.early = 0  # samples, since the process started
        self.forget_after = forget_after
        self._wanted = {name: code for code, name in enumerate((*dict.fromkeys((*wanted, UP)),))}
        self._names = tuple(self._wanted)
        self._most_series = most_series
        self._ignored = 0
        self._count = 0
        self._free: list[int] = []
        self._metrics = np.full(_FIRST_CAPACITY, -1, dtype=np.int16)
        self._sets = np.zeros(_FIRST_CAPACITY, dtype=np.int32)
        self._values = np.full(_FIRST_CAPACITY, np.nan)
        self._times = np.full(_FIRST_CAPACITY, -np.inf)
        self._live = np.zeros(_FIRST_CAPACITY, dtype=np.bool_)
        self._mark = np.zeros(_FIRST_CAPACITY, dtype=np.int32)
        self._by_metric: dict[str, Ints] | None = {}
        self._jobs: set[str] = set()  # the scrape jobs that ever brought a GPU
        self._reported = (0, 0)

    def __len__(self) -> int:
        """How many series there are."""
        return self._count - len(self._free)

    def register(self, key: int, labels: Labels) -> int:
        """The number of a series whose key is not in `numbers`. Its labels include `__name__`."""
        metric = labels.get("__name__", "")
        if metric not in self._wanted:
            return self._ignore(key)
        return NO_ROOM if self._is_full() else self._enter(key, metric, self.label_sets.add(labels))

    def register_in(self, key: int, metric: str, label_set: int) -> int:
        """The same for a series whose other labels are those of a set that is there."""
        if metric not in self._wanted:
            return self._ignore(key)
        return NO_ROOM if self._is_full() else self._enter(key, metric, label_set)

    def label_set_of(self, number: int) -> int:
        return int(self._sets[number])

    def refuses(self, metric: str) -> bool:
        """Whether there is no room for another series of the metric."""
        return metric in self._wanted and self._is_full()

    def has(self, metric: str) -> bool:
        with self.lock:
            return metric in self._indexed()

    def put(self, series: Ints, values: Floats, times: Floats, now: datetime) -> None:
        """Take samples in: (n,) numbers, values as exported, unix seconds. The newest of a series stays.

        A stale mark ends its series until a newer sample comes. What is further ahead of `now` than a clock may be off
        is left out, and said in the next reading: it would hide everything that comes after it.
        """
        known = series >= 0
        early = times > now.timestamp() + _FUTURE_S
        if early.any():
            self.early += int(np.count_nonzero(early & known))
            known &= ~early
        if not known.all():
            self.refused += int(np.count_nonzero(series == NO_ROOM))
            series, values, times = series[known], values[known], times[known]
        if not self._unique(series):
            order = np.argsort(times, kind="stable")  # where a number stands twice, the last one is kept
            series, values, times = series[order], values[order], times[order]
        newer = times >= self._times[series]
        self.taken += len(series)
        if not newer.all():
            self.late += int(np.count_nonzero(~newer))
            series, values, times = series[newer], values[newer], times[newer]
        self._values[series] = values
        self._times[series] = times
        self._live[series] = values.view(np.int64) != STALE_BITS

    def end(self, series: Ints, at: datetime) -> None:
        """These series are no longer exported, as of `at`: the same as a stale mark for each."""
        gone = series[series >= 0]
        self._times[gone] = np.maximum(self._times[gone], at.timestamp())
        self._live[gone] = False

    def reading(self, at: datetime, lookback: timedelta) -> Reading:
        """The newest samples that are not older than `lookback`, and which targets are down, from `up`."""
        with self.lock:
            self._sweep(at)
            at_s = at.timestamp()
            oldest = at_s - lookback.total_seconds()
            columns = []
            for metric, held in self._indexed().items():
                times = self._times[held]
                shown = self._live[held] & (times >= oldest)
                series, times = (held, times) if shown.all() else (held[shown], times[shown])
                if len(series) and metric != UP:
                    # A sender's clock may be a little ahead of ours.
                    np.minimum(times, at_s, out=times)
                    columns.append(Column(metric, self._sets[series].astype(np.int64), self._values[series], times))
            silent, others = self._silent(at_s, oldest)
            return Reading(at, tuple(columns), self.label_sets, silent, self._complaints(), others)

    def _is_full(self) -> bool:
        return len(self) >= self._most_series or self.label_sets.size_bytes >= _MOST_LABEL_BYTES

    def _ignore(self, key: int) -> int:
        if self._ignored >= _MOST_IGNORED:
            self.numbers.keep(lambda numbers: numbers >= 0)
            self._ignored = 0
        self._ignored += 1
        self.numbers.set(key, NOT_WANTED)
        return NOT_WANTED

    def _enter(self, key: int, metric: str, label_set: int) -> int:
        number = self._free.pop() if self._free else self._new_number()
        self.numbers.set(key, number)
        self._metrics[number], self._sets[number] = self._wanted[metric], label_set
        self._times[number], self._live[number] = -np.inf, False
        self._by_metric = None
        if metric in SPELLINGS and len(self._jobs) < _MOST_JOBS:
            job = self.label_sets[label_set].get("job")
            if job:
                self._jobs.add(job)
        return number

    def _new_number(self) -> int:
        if self._count == len(self._metrics):
            size = self._count + max(self._count // 4, _FIRST_CAPACITY)
            for name in ("_metrics", "_sets", "_values", "_times", "_live", "_mark"):
                old = getattr(self, name)
                grown = np.zeros(size, dtype=old.dtype)
                grown[: self._count] = old[: self._count]
                setattr(self, name, grown)
        self._count += 1
        return self._count - 1

    def _unique(self, series: Ints) -> bool:
        if (series[1:] > series[:-1]).all():
            return True
        order = np.arange(len(series), dtype=np.int32)
        self._mark[series] = order
        return bool((self._mark[series] == order).all())

    def _indexed(self) -> dict[str, Ints]:
        """The series of each metric."""
        if self._by_metric is None:
            codes = self._metrics[: self._count]
            order = np.argsort(codes, kind="stable")
            bounds = np.searchsorted(codes[order], np.arange(len(self._names) + 1))
            self._by_metric = {
                name: order[bounds[code] : bounds[code + 1]]
                for code, name in enumerate(self._names)
                if bounds[code] < bounds[code + 1]
            }
        return self._by_metric

    def _silent(self, at_s: float, oldest: float) -> tuple[tuple[str, ...], tuple[Labels, ...]]:
        """The targets that could not be scraped: of the jobs that ever brought a GPU, and the labels of all others.

        One whose `up` came to no end and yet is old counts with them: its Prometheus is gone, and it is not. One that
        another Prometheus reaches does not.
        """
        series = self._indexed().get(UP)
        if series is None:
            return (), ()
        series = series[self._live[series] & (self._times[series] >= at_s - _TARGET_KEPT_S)]
        answers = (self._times[series] >= oldest) & (self._values[series] != 0)
        if answers.all():
            return (), ()
        down, reached = self._targets(series[~answers]), self._targets(series[answers])
        lost = {target: labels for target, labels in down.items() if target not in reached}
        ours = sorted({instance for job, instance in lost if job in self._jobs})
        return tuple(ours), tuple(labels for (job, _), labels in lost.items() if job not in self._jobs)

    def _targets(self, series: Ints) -> dict[tuple[str, str], Labels]:
        found = [self.label_sets[number] for number in np.unique(self._sets[series]).tolist()]
        return {
            (labels.get("job", ""), instance): labels for labels in found if (instance := labels.get("instance", ""))
        }

    def _complaints(self) -> tuple[str, ...]:
        early, refused = self.early - self._reported[0], self.refused - self._reported[1]
        self._reported = (self.early, self.refused)
        said = []
        if early:
            said.append(f"{early} samples from more than {_FUTURE_S:g} s ahead were left out; check the clocks")
        if refused:
            said.append(f"{refused} samples of new series were left out: there are {len(self)} series already")
        return tuple(said)

    def _sweep(self, at: datetime) -> None:
        """Forget what nobody has sent for long, once that is worth the work."""
        times = self._times[: self._count]
        old = times < at.timestamp() - self.forget_after.total_seconds()
        least = self._count // 100 if self._is_full() else max(_LEAST_GARBAGE, self._count // 16)
        if np.count_nonzero(old) <= least:
            return
        targets = (self._metrics[: self._count] == self._wanted[UP]) & self._live[: self._count]
        old &= ~targets | (times < at.timestamp() - _TARGET_KEPT_S)
        dead = np.flatnonzero(old)
        if len(dead) <= least:
            return
        self.numbers.keep(lambda numbers: (numbers < 0) | ~old[numbers])
        self._metrics[dead], self._times[dead] = -1, np.inf
        self._free += dead.tolist()
        self._by_metric = None
        self._drop_label_sets()

    def _drop_label_sets(self) -> None:
        used = np.flatnonzero(self._metrics[: self._count] >= 0)
        numbers = np.unique(self._sets[used])
        if 2 * len(numbers) > len(self.label_sets) and self.label_sets.size_bytes < _MOST_LABEL_BYTES:
            return
        fresh = LabelSets(self.label_sets.kept)
        renumbered = np.zeros(len(self.label_sets), dtype=np.int32)
        renumbered[numbers] = _added(fresh, (self.label_sets[number] for number in numbers.tolist()))
        self._sets[used] = renumbered[self._sets[used]]
        self.label_sets = fresh


def _added(into: LabelSets, sets: Iterable[Labels]) -> list[int]:
    return [into.add(labels) for labels in sets]
