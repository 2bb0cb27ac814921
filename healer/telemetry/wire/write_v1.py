"""Remote write 1.0: `prometheus.WriteRequest`, in which every series carries all its labels as text.

A series is known by the hash of the bytes in front of its sample. That those are labels and nothing else is looked at
when the hash is not known yet, and never again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from healer.domain.reading import Labels
from healer.telemetry.wire import protobuf
from healer.telemetry.wire.protobuf import BYTES, Field, Ints, Repeated, TooMuch, expect, fields
from healer.telemetry.wire.write_request import (
    MOST_LABEL_BYTES,
    MOST_SERIES,
    SAMPLE,
    STAMP,
    STAMP_TAG,
    TOO_MANY_LABELS,
    ZERO_SAMPLE,
    Gathered,
    InvalidSeries,
    NotPlain,
    Samples,
    checked,
    seconds,
    tails,
    values_at,
)

MESSAGE = "prometheus.WriteRequest"

_TIMESERIES = 0x0A
_LABEL = 0x0A
_VALUE = 0x12
_NAME = b"\n\x08__name__\x12"  # a label's inside, up to the length of its value


@dataclass(frozen=True, slots=True, eq=False)
class RequestV1:
    """See WriteRequest.

    Attributes:
        data: the whole message.
        starts, ends: (n_series,) where in it the labels of each series are.
        scattered: the labels of the series in which they are not in one place.
    """

    keys: Ints
    samples: Samples
    data: bytes
    starts: Ints
    ends: Ints
    scattered: Mapping[int, bytes] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)

    def outlines(self, series: Ints) -> list[tuple[str, int] | None]:
        """See WriteRequest."""
        return [_outline(self._described(number)) for number in series.tolist()]

    def labels(self, series: int) -> Labels:
        """See WriteRequest."""
        described = self._described(series)
        if len(described) > 2 * MOST_LABEL_BYTES:
            raise InvalidSeries(TOO_MANY_LABELS)
        return checked(_pairs(described))

    def _described(self, series: int) -> bytes:
        found = self.scattered.get(series)
        return self.data[int(self.starts[series]) : int(self.ends[series])] if found is None else found


def decode(data: bytes, end: int, *, plain: bool = True) -> RequestV1:
    """The request in the first `end` bytes of `data`.

    Args:
        plain: whether what looks like labels and then one sample may be taken for that.

    Raises:
        Malformed: it is no such message.
        TooMuch: there is too much in it.
    """
    starts, ends = _series(data, end)
    words = protobuf.words(data)
    full, zero, last = tails(words, ends)
    samples = ends - np.where(full, SAMPLE, ZERO_SAMPLE)
    one = (full | zero) & (samples > starts) & plain
    # What stands in front of the sample may be another one; labels hardly ever have the tag of a time in its place.
    doubtful = np.flatnonzero(one & (np.frombuffer(data, np.uint8)[samples - STAMP] == STAMP_TAG))
    if len(doubtful):
        before = tails(words, samples[doubtful])
        one[doubtful] = ~(before[0] | before[1])
    values, times = values_at(words, samples, full), seconds(last)
    if one.all():
        taken = Samples(np.arange(len(ends)), values, times)
        return RequestV1(_keys(data, starts, samples), taken, data, starts, samples)
    rows, rest = np.flatnonzero(one), np.flatnonzero(~one)
    gathered = Gathered()
    scattered = {
        row: _read(row, data, span, gathered)
        for row, *span in zip(rest.tolist(), starts[rest].tolist(), ends[rest].tolist(), strict=True)
    }
    keys = _keys(data, starts, samples)
    keys[rest] = [hash(labels) for labels in scattered.values()]
    taken = gathered.after(rows, values[rows], times[rows])
    return RequestV1(keys, taken, data, starts, samples, scattered)


def _keys(data: bytes, starts: Ints, ends: Ints) -> Ints:
    keys = [hash(data[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return np.fromiter(keys, np.int64, len(keys))


def _series(data: bytes, end: int) -> tuple[Ints, Ints]:
    """(n,) where each TimeSeries starts and ends."""
    series, at, others = Repeated(_TIMESERIES, "timeseries", MOST_SERIES), 0, 0
    while at < end:
        if data[at] == _TIMESERIES:
            at = series.read(data, at, end)
            continue
        found = protobuf.field(data, at, end)
        if found.number == 1:
            expect(found, BYTES, "timeseries")
        at, others = found.end, others + 1
        if others > MOST_SERIES:
            raise TooMuch(f"more than {MOST_SERIES} fields that are no series in one request")
    return series.spans(data)


def _read(row: int, data: bytes, span: Sequence[int], gathered: Gathered) -> bytes:
    """One series field by field; returns its labels as they are written."""
    start, end = span
    at = start
    while at < end and data[at] == _LABEL and at + 2 + data[at + 1] <= end and data[at + 1] < 0x80:
        at += 2 + data[at + 1]
    labels = [data[start:at]]
    for found in gathered.fields(data, (at, end)):
        if found.number == 1:
            expect(found, BYTES, "timeseries.labels")
            labels.append(data[found.tag : found.end])
        elif found.number == 2:
            gathered.add(row, data, found)
        elif found.number == 3:
            gathered.exemplars += 1
        elif found.number == 4:
            gathered.histograms += 1
    return b"".join(labels)


def _outline(described: bytes) -> tuple[str, int] | None:
    """Only where the name's label is shorter than 128 bytes, and nothing else looks like one."""
    at = described.find(_NAME)
    size = described[at + len(_NAME)] if 2 <= at < len(described) - len(_NAME) else 0
    if not 0 < size < 0x80 - len(_NAME) - 1:
        return None
    value = at + len(_NAME) + 1
    if described[at - 2] != _LABEL or described[at - 1] != value + size - at or described.find(_NAME, value) >= 0:
        return None
    try:
        metric = described[value : value + size].decode()
    except UnicodeDecodeError:
        return None
    return metric, hash((described[: at - 2], described[value + size :]))


def _pairs(described: bytes) -> list[tuple[bytes, bytes]]:
    """Raises NotPlain where there is something else than labels, Malformed where a label is none."""
    pairs, at, end = [], 0, len(described)
    data = protobuf.padded(described)
    while at < end:
        found = _short_label(data, at, end)
        if found is None:
            label = protobuf.field(data, at, end)
            if label.number != 1:
                raise NotPlain(f"there is a field {label.number} before the sample")
            found = (*_pair(data, expect(label, BYTES, "timeseries.labels")), label.end)
        pairs.append(found[:2])
        at = found[2]
    return pairs


def _short_label(data: bytes, at: int, end: int) -> tuple[bytes, bytes, int] | None:
    """Name, value and end of the label at `at`, if it is as everybody writes it and shorter than 128 bytes."""
    value = at + 4 + data[at + 3]
    after = at + 2 + data[at + 1]
    if not (after <= end and value + 2 <= after < at + 130 and data[at] == _LABEL and data[at + 2] == _NAME[0]):
        return None
    if data[value] != _VALUE or after != value + 2 + data[value + 1]:
        return None
    return data[at + 4 : value], data[value + 2 : after], after


def _pair(data: bytes, label: Field) -> tuple[bytes, bytes]:
    name = value = b""
    for part in fields(data, label.start, label.end):
        if part.number == 1:
            name = data[expect(part, BYTES, "labels.name").start : part.end]
        elif part.number == 2:
            value = data[expect(part, BYTES, "labels.value").start : part.end]
    return name, value
