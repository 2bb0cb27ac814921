"""What a remote write request brings, in either version of its message, and how one sample stands on the wire.

Almost every series comes with one sample of 16 bytes or, where the value is zero and therefore not written, of 7. These
are read for the whole request at once, and the series is known by a hash of the bytes that describe it. Whatever else a
message may hold is read field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from healer.domain.reading import Labels
from healer.errors import HealerError
from healer.telemetry.wire.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    Bools,
    Field,
    Ints,
    TooMuch,
    Words,
    expect,
    fields,
    signed,
    six_byte_varints,
)

Floats = NDArray[np.float64]

MOST_SERIES = MOST_SAMPLES = 200_000  # in one request
MOST_LABELS, MOST_LABEL_BYTES = 1_000, 16_384  # of one series

_MOST_FIELDS = 4 * MOST_SAMPLES  # that are read one by one

TOO_MANY_LABELS = f"a series has more than {MOST_LABELS} labels or {MOST_LABEL_BYTES} bytes of them"

SAMPLE = 18  # the bytes of a sample with its tag and length
ZERO_SAMPLE = 9
STAMP = 7  # the bytes of its time, with the tag
STAMP_TAG = 0x10

# As the first three bytes of a sample are in the lowest of a word.
_SAMPLE_OPENS = np.uint64(0x09_10_12)
_ZERO_OPENS = np.uint64(0x10_07_12)
_OPENING = np.uint64(0xFF_FF_FF)
# The last eight bytes of a sample: any, the tag of the time, five bytes that go on and one that ends.
_TIMED = np.uint64(0x80_80_80_80_80_80_FF_00)
_TIMED_IS = np.uint64(0x00_80_80_80_80_80_10_00)


class InvalidSeries(HealerError):
    """The message is sound, but what it says of one series is not allowed."""


class NotPlain(HealerError):
    """What was taken for labels holds something else: the request has to be read field by field."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Attributes:
    series: (n,) int64, which of the request's series each sample is of.
    values: (n,) float64, bit for bit.
    times: (n,) float64 unix seconds.
    histograms, exemplars: how many there are of what nobody here reads.
    """

    series: Ints
    values: Floats
    times: Floats
    histograms: int = 0
    exemplars: int = 0


class WriteRequest(Protocol):
    """Attributes:
    keys: (n_series,) int64, the same for the same series in every request of this process.
    faults: by series, why its samples cannot be taken.
    """

    @property
    def keys(self) -> Ints: ...

    @property
    def samples(self) -> Samples: ...

    @property
    def faults(self) -> Mapping[int, str]: ...

    def outlines(self, series: Ints) -> Sequence[tuple[str, int] | None]:
        """The metric of each of these series and a hash of its other labels; None where that needs `labels`."""
        ...

    def labels(self, series: int) -> Labels:
        """All labels, checked. Raises InvalidSeries; Malformed or NotPlain for the whole request."""
        ...


def tails(words: Words, ends: Ints) -> tuple[Bools, Bools, Words]:
    """Which messages end in one sample, and in one of zero: (n,) each; and the (n,) words that hold their times."""
    last = words[ends - 8]
    timed = (last & _TIMED) == _TIMED_IS
    full = timed & ((words[np.maximum(ends - SAMPLE, 0)] & _OPENING) == _SAMPLE_OPENS)
    zero = timed & ~full
    zero[zero] = (words[np.maximum(ends[zero] - ZERO_SAMPLE, 0)] & _OPENING) == _ZERO_OPENS
    return full, zero, last


def heads(words: Words, starts: Ints) -> tuple[Bools, Bools, Words]:
    """The same, of what starts at `starts`."""
    opening = words[starts] & _OPENING
    full = opening == _SAMPLE_OPENS
    last = words[starts + np.where(full, SAMPLE - 8, ZERO_SAMPLE - 8)]
    timed = (last & _TIMED) == _TIMED_IS
    return full & timed, (opening == _ZERO_OPENS) & timed, last


def values_at(words: Words, samples: Ints, full: Bools) -> Floats:
    """The values of samples that start at `samples`: zero where it is not written."""
    found = words[samples + 3]
    found[~full] = 0
    return found.view(np.float64)


def seconds(last: Words) -> Floats:
    return six_byte_varints(last) / 1000.0


class Gathered:
    """Samples that are read one by one. Values stay bytes: a number that is moved may lose the bits of a NaN."""

    def __init__(self) -> None:
        self._series: list[int] = []
        self._values: list[bytes] = []
        self._times: list[float] = []
        self._fields = 0
        self.histograms = self.exemplars = 0

    def fields(self, data: bytes, span: Sequence[int]) -> Iterator[Field]:
        """The fields of a series, as long as there are not too many in all of them."""
        for found in fields(data, *span):
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise TooMuch(f"more than {_MOST_FIELDS} fields in unusual places in one request")
            yield found

    def add(self, series: int, data: bytes, found: Field) -> None:
        """The sample in this field."""
        expect(found, BYTES, "samples")
        value, stamp = bytes(8), 0
        for part in self.fields(data, (found.start, found.end)):
            if part.number == 1:
                value = data[expect(part, FIXED64, "samples.value").start : part.end]
            elif part.number == 2:
                stamp = signed(expect(part, VARINT, "samples.timestamp").value)
        if len(self._series) == MOST_SAMPLES:
            raise TooMuch(f"more than {MOST_SAMPLES} samples in one request; let the sender put fewer into one")
        self._series.append(series)
        self._values.append(value)
        self._times.append(stamp / 1000.0)

    def after(self, series: Ints, values: Floats, times: Floats) -> Samples:
        """Those that were read together, then these."""
        if self._series:
            series = np.concatenate([series, np.array(self._series, dtype=np.int64)])
            values = np.concatenate([values, np.frombuffer(b"".join(self._values), "<f8")])
            times = np.concatenate([times, np.array(self._times)])
        return Samples(series, values, times, self.histograms, self.exemplars)


def checked(pairs: Sequence[tuple[bytes, bytes]]) -> Labels:
    """Labels as text. Raises InvalidSeries."""
    if len(pairs) > MOST_LABELS or sum(len(name) + len(value) for name, value in pairs) > MOST_LABEL_BYTES:
        raise InvalidSeries(f"{TOO_MANY_LABELS}: {_shown(pairs)}")
    try:
        labels = {name.decode(): value.decode() for name, value in pairs}
    except UnicodeDecodeError:
        raise InvalidSeries(f"a label is not UTF-8: {_shown(pairs)}") from None
    if len(labels) < len(pairs):
        raise InvalidSeries(f"a label stands twice: {_shown(pairs)}")
    if "" in labels:
        raise InvalidSeries(f"a label has no name: {_shown(pairs)}")
    if not labels.get("__name__"):
        raise InvalidSeries(f"a series has no metric name: {_shown(pairs)}")
    return labels


def _shown(pairs: Sequence[tuple[bytes, bytes]]) -> str:
    text = ", ".join(f"{name.decode(errors='replace')}={value.decode(errors='replace')!r}" for name, value in pairs[:8])
    return f"{{{text[:200]}}}"
