"""Which series an answer is about, recognised from the bytes of its labels.

From one turn to the next the series of a metric are nearly always the same, in the same order. So the labels of an
answer are not parsed: each is a fingerprint, a 64-bit hash under a secret of this process, and an answer with the
fingerprints of the one before it has the very same series. Only labels that were never seen are looked at.

Two numbers come out of it. The identity is all labels but the metric's name, and says which series of two metrics
belong together. The label set is what is left of them when those that nobody reads are dropped; several may share it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from healer.adapters.prometheus.answer import NotAnAnswer, Sample, Series, decoded
from healer.telemetry.wire.label_sets import LabelSets

Ints = NDArray[np.int64]
Places = NDArray[np.int32]

_MOST_SERIES = 500_000  # of one query: a hundred thousand GPUs, each under five names
_LONGEST_LABELS_BYTES = 16 << 10
_MOST_LABELS_BYTES = 1 << 30
_LEAST_GARBAGE = 10_000
_BLOCK = 512
_METRIC = re.compile(r"(?:timestamp\()?([a-zA-Z_:][a-zA-Z0-9_:]*)")
_NONE: Ints = np.empty(0, dtype=np.int64)

_Row = TypeVar("_Row", Sample, Series)


@dataclass(frozen=True, eq=False)
class Shape:
    """Which series there are. All answers that have just these share one, in whatever order they came.

    Attributes:
        identities: (n_series,) equal where all labels but `__name__` are equal.
        series: (n_series,) the numbers of the label sets.
    """

    identities: Ints
    series: Ints
    _found: WeakKeyDictionary[Shape, Ints] = field(default_factory=WeakKeyDictionary, repr=False)

    def __len__(self) -> int:
        return len(self.series)

    def rows_in(self, other: Shape) -> Ints:
        """Where the other one has the same series, -1 where it has not."""
        rows = self._found.get(other)
        if rows is None:
            rows = self._found[other] = other.find(self.identities)
        return rows

    def find(self, identities: Ints) -> Ints:
        """Which of our series have these identities, -1 where none has."""
        return _find(self.identities, self._order, identities)

    def places(self, identities: Ints) -> Places | None:
        """Our places for these series, if they are all of ours and no others."""
        if len(identities) != len(self):
            return None
        order = np.argsort(identities)
        if not np.array_equal(identities[order], self.identities[self._order]):
            return None
        places = np.empty(len(self), dtype=np.int32)
        places[order] = self._order
        return places

    @cached_property
    def _order(self) -> Ints:
        return np.argsort(self.identities)


@dataclass(frozen=True, eq=False)
class Known:
    """The newest answer to one query.

    Attributes:
        blocks: the fingerprints of so many series at a time, which are compared first.
        fingerprints: (n_series,) in the order of the answer.
        places: (n_series,) for each of them its place in the shape.
    """

    blocks: tuple[int, ...]
    fingerprints: Ints
    places: Places
    shape: Shape

    def find(self, fingerprints: Ints) -> Ints:
        """The places of these, -1 where they are new."""
        rows = _find(self.fingerprints, self._order, fingerprints)
        return np.where(rows < 0, rows, self.places[rows]) if len(self.places) else rows

    @cached_property
    def _order(self) -> Ints:
        return np.argsort(self.fingerprints)


_NOTHING = Known((), _NONE, np.empty(0, dtype=np.int32), Shape(_NONE, _NONE))


class SeriesBook:
    """Attributes:
    label_sets: a new object when the old one has come to hold mostly what is gone.
    jobs: the scrape jobs that ever brought one of the metrics in `watched`.
    most_series: an answer with more is a fault of its server, or belongs to a fleet that one process cannot watch.
    """

    def __init__(
        self, kept: frozenset[str] | None, watched: Collection[str], *, most_series: int = _MOST_SERIES
    ) -> None:
        self.label_sets = LabelSets(kept)
        self.jobs: set[str] = set()
        self.most_series = most_series
        self._watched = watched
        self._answers: dict[str, Known] = {}
        self._texts: dict[int, tuple[int, int]] = {}  # fingerprint of the text without name -> identity, label set
        self._lock = threading.Lock()

    def recognise(self, query: str) -> Recognition:
        """For one answer to `query`. Those of several queries may go on at the same time."""
        return Recognition(self, query, self._answers.get(query, _NOTHING))

    def number(self, query: str, metrics: Sequence[bytes]) -> tuple[Ints, Ints]:
        """The identities and the label sets of series that this query did not bring before. Raises NotAnAnswer."""
        texts = [hash(text) for text in _without_name(metrics, query)]
        with self._lock:
            known = len(self.label_sets)
            pairs = [self._pair(text, metric) for text, metric in zip(texts, metrics, strict=True)]
            if query in self._watched:
                self.jobs.update(job for labels in self.label_sets[known:] if (job := labels.get("job")))
        identities, series = ([pair[which] for pair in pairs] for which in (0, 1))
        return np.array(identities, dtype=np.int64), np.array(series, dtype=np.int64)

    def remember(
        self, query: str, *, blocks: tuple[int, ...], fingerprints: Ints, identities: Ints, series: Ints
    ) -> Known:
        """The answer with these series, in its order."""
        with self._lock:
            for shape in self._shapes():
                places = shape.places(identities)
                if places is not None:
                    break
            else:
                shape, places = Shape(identities, series), np.arange(len(series), dtype=np.int32)
            known = self._answers[query] = Known(blocks, fingerprints, places, shape)
        return known

    def sweep(self, asked: Collection[str]) -> None:
        """Forget the queries that are not asked any more, and the labels of what is gone once they are the most."""
        self._answers = {query: known for query, known in self._answers.items() if query in asked}
        shapes = self._shapes()
        if len(self._texts) <= 2 * max(map(len, shapes), default=0) + _LEAST_GARBAGE:
            return
        identities = set(_joined(shape.identities for shape in shapes).tolist())
        if len(self._texts) <= 2 * len(identities) + _LEAST_GARBAGE:
            return
        self._texts = {text: pair for text, pair in self._texts.items() if pair[0] in identities}
        self._renumber()

    def _shapes(self) -> list[Shape]:
        return list({id(known.shape): known.shape for known in self._answers.values()}.values())

    def _pair(self, text: int, metric: bytes) -> tuple[int, int]:
        pair = self._texts.get(text)
        if pair is None:
            if len(metric) > _LONGEST_LABELS_BYTES:
                raise NotAnAnswer(f"a series with {len(metric)} bytes of labels")
            if len(self._texts) >= 3 * self.most_series or self.label_sets.size_bytes > _MOST_LABELS_BYTES:
                raise NotAnAnswer(f"more different labels than can be held, beside {len(self._texts)} that are known")
            labels = decoded(metric, dict[str, str])
            labels.pop("__name__", None)
            identity = hash(tuple(sorted(labels.items())))
            pair = self._texts[text] = (identity, self.label_sets.add(labels))
        return pair

    def _renumber(self) -> None:
        """New label sets that hold only what is in use, if most of the old ones are not."""
        live = sorted({number for _, number in self._texts.values()})
        if 2 * len(live) > len(self.label_sets):
            return
        fresh = LabelSets(self.label_sets.kept)
        numbers = np.zeros(len(self.label_sets), dtype=np.int64)
        numbers[live] = [fresh.add(self.label_sets[number]) for number in live]
        self._texts = {text: (identity, int(numbers[number])) for text, (identity, number) in self._texts.items()}
        renewed = {id(shape): Shape(shape.identities, numbers[shape.series]) for shape in self._shapes()}
        self._answers = {
            query: Known(known.blocks, known.fingerprints, known.places, renewed[id(known.shape)])
            for query, known in self._answers.items()
        }
        self.label_sets = fresh


class Recognition:
    """Finds the series of one answer, as they arrive.

    Attributes:
        known: at the end the whole answer, before that the one before it.
    """

    def __init__(self, book: SeriesBook, query: str, before: Known) -> None:
        self._book = book
        self._query = query
        self.known = before
        self._waiting: list[msgspec.Raw] = []  # for the block to be full
        self._blocks: list[int] = []
        self._fingerprints: list[Ints] = []
        self._places: list[Places | Ints] = []  # in the shape of the answer before; -1 for what was not in it
        self._new: list[tuple[Ints, Ints]] = []  # identities and label sets of what was not in it

    def take(self, rows: Sequence[_Row]) -> None:
        """Raises NotAnAnswer."""
        self._waiting += [row.metric for row in rows]
        while len(self._waiting) >= _BLOCK:
            self._recognise(self._waiting[:_BLOCK])
            del self._waiting[:_BLOCK]

    def end(self) -> None:
        """Raises NotAnAnswer."""
        if self._waiting:
            self._recognise(self._waiting)
        before, blocks = self.known, tuple(self._blocks)
        if blocks == before.blocks:
            return
        places = _joined(self._places)
        new = places < 0
        identities, series = np.empty(len(places), dtype=np.int64), np.empty(len(places), dtype=np.int64)
        identities[~new], series[~new] = before.shape.identities[places[~new]], before.shape.series[places[~new]]
        identities[new] = _joined(identities for identities, _ in self._new)
        series[new] = _joined(series for _, series in self._new)
        self.known = self._book.remember(
            self._query, blocks=blocks, fingerprints=_joined(self._fingerprints), identities=identities, series=series
        )

    def _recognise(self, metrics: Sequence[msgspec.Raw]) -> None:
        block = hash(b"".join(metrics))
        first, number = len(self._blocks) * _BLOCK, len(self._blocks)
        self._blocks.append(block)
        if first + len(metrics) > self._book.most_series:
            raise NotAnAnswer(f"more than {self._book.most_series} series")
        if self.known.blocks[number : number + 1] == (block,):
            self._fingerprints.append(self.known.fingerprints[first : first + _BLOCK])
            self._places.append(self.known.places[first : first + _BLOCK])
            return
        texts = [bytes(metric) for metric in metrics]
        fingerprints = np.array([hash(text) for text in texts], dtype=np.int64)
        places = self.known.find(fingerprints)
        self._fingerprints.append(fingerprints)
        self._places.append(places)
        self._new.append(self._book.number(self._query, [texts[row] for row in np.flatnonzero(places < 0).tolist()]))


def _without_name(metrics: Sequence[bytes], query: str) -> list[bytes]:
    """The labels but for the name of the metric, so that those of two metrics are the same text."""
    found = _METRIC.match(query)
    name = b'"__name__":"%b"' % (found[1].encode() if found else b"")
    text = b"\0".join(metrics)  # which has no place in JSON
    for member in (name + b",", b"," + name, name):
        length = len(text)
        text = text.replace(member, b"")
        if length - len(text) == len(member) * len(metrics):
            break
    texts = text.split(b"\0") if metrics else []
    if len(texts) != len(metrics):
        raise NotAnAnswer("labels with characters that JSON does not have")
    return texts


def _find(keys: Ints, order: Ints, wanted: Ints) -> Ints:
    if not len(keys):
        return np.full(len(wanted), -1)
    rows: Ints = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[rows] == wanted, rows, -1)


def _joined(parts: Iterable[NDArray[np.integer]]) -> Ints:
    several = list(parts)
    return np.concatenate(several, dtype=np.int64) if several else _NONE
