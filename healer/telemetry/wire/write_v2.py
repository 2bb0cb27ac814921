"""Remote write 2.0: `io.prometheus.write.v2.Request`, in which labels are references into the request's own symbols.

References mean something else in every request, so a series is known by what they refer to: the sum, over its labels,
of a mix of the hashes of name and value. All references of a request are read, looked up and summed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from healer.domain.reading import Labels
from healer.telemetry.wire import protobuf
from healer.telemetry.wire.protobuf import (
    BYTES,
    VARINT,
    Bools,
    Field,
    Ints,
    Malformed,
    Octets,
    Repeated,
    TooMuch,
    Words,
    expect,
    varint,
)
from healer.telemetry.wire.write_request import (
    MOST_LABELS,
    MOST_SERIES,
    SAMPLE,
    TOO_MANY_LABELS,
    ZERO_SAMPLE,
    Gathered,
    InvalidSeries,
    Samples,
    checked,
    heads,
    seconds,
    values_at,
)

MESSAGE = "io.prometheus.write.v2.Request"

_SYMBOL = 0x22
_TIMESERIES = 0x2A
_REFS = 0x0A
_METADATA = 0x2A
_MOST_SYMBOLS = 1 << 21  # what three bytes can refer to
_LONGEST_REFERENCES = 10 * 2 * MOST_LABELS  # in bytes, of one series, however they are written
_MOST_REFERENCE_BYTES = 8_000_000  # each takes forty in memory while it is summed up
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class RequestV2:
    """See WriteRequest.

    Attributes:
        symbols: as they are written.
        names, values: (n_labels,) which symbols; the labels of all series, one series after the other.
        mixes: (n_labels,) what each label adds to its series' key.
        bounds: (n_series + 1,) where each series' labels start.
    """

    keys: Ints
    samples: Samples
    faults: Mapping[int, str]
    symbols: Sequence[bytes]
    names: Ints
    values: Ints
    mixes: Words
    bounds: Ints

    def outlines(self, series: Ints) -> list[tuple[str, int] | None]:
        """See WriteRequest."""
        found: list[tuple[str, int] | None] = [None] * len(series)
        if b"__name__" not in self.symbols:
            return found
        named = np.flatnonzero(self.names == self.symbols.index(b"__name__"))
        first, behind = np.searchsorted(named, self.bounds[series]), np.searchsorted(named, self.bounds[series + 1])
        once = np.flatnonzero(behind - first == 1)
        label = named[first[once]]
        rests = self.keys[series[once]] - self.mixes[label].view(np.int64)
        for place, value, rest in zip(once.tolist(), self.values[label].tolist(), rests.tolist(), strict=True):
            metric = self.symbols[value]
            if metric and metric.isascii():
                found[place] = metric.decode(), rest
        return found

    def labels(self, series: int) -> Labels:
        here = slice(int(self.bounds[series]), int(self.bounds[series + 1]))
        if here.stop - here.start > MOST_LABELS:
            raise InvalidSeries(TOO_MANY_LABELS)
        pairs = zip(self.names[here].tolist(), self.values[here].tolist(), strict=True)
        return checked([(self.symbols[name], self.symbols[value]) for name, value in pairs])


def decode(data: bytes, end: int) -> RequestV2:
    """The request in the first `end` bytes of `data`.

    Raises:
        Malformed: it is no such message, or it refers to symbols that it does not have.
        TooMuch: there is too much in it.
    """
    symbols, (starts, ends) = _parts(data, end)
    words = protobuf.words(data)
    refs, refs_end, one, full, last = _usual(words, starts, ends)
    values, times = values_at(words, refs_end, full), seconds(last)
    written = [data[start:stop] for start, stop in zip(refs.tolist(), refs_end.tolist(), strict=True)]
    faults: dict[int, str] = {}
    if one.all():
        taken = Samples(np.arange(len(ends)), values, times)
    else:
        rows, rest = np.flatnonzero(one), np.flatnonzero(~one)
        gathered = Gathered()
        for row, *span in zip(rest.tolist(), starts[rest].tolist(), ends[rest].tolist(), strict=True):
            written[row], fault = _read(row, data, span, gathered)
            if fault:
                faults[row] = fault
        refs_end[rest] = refs[rest] + [len(written[row]) for row in rest.tolist()]
        taken = gathered.after(rows, values[rows], times[rows])
    sizes = refs_end - refs
    if int(sizes.sum()) > _MOST_REFERENCE_BYTES:
        raise TooMuch(
            f"more than {_MOST_REFERENCE_BYTES} bytes of labels_refs in one request; send fewer series at once"
        )
    numbers, bounds = _references(b"".join(written), sizes, starts, len(symbols))
    names, labels_values = numbers[0::2], numbers[1::2]
    mixes = _mixes(symbols, names, labels_values)
    keys = _sums(mixes, bounds)
    return RequestV2(keys, taken, faults, symbols, names, labels_values, mixes, bounds)


def _parts(data: bytes, end: int) -> tuple[list[bytes], tuple[Ints, Ints]]:
    """The symbols, and (n,) where each TimeSeries starts and ends."""
    symbols = Repeated(_SYMBOL, "symbols", _MOST_SYMBOLS)
    series, at, others = Repeated(_TIMESERIES, "timeseries", MOST_SERIES), 0, 0
    while at < end:
        if data[at] == _TIMESERIES:
            at = series.read(data, at, end)
        elif data[at] == _SYMBOL:
            at = symbols.read(data, at, end)
        else:
            found = protobuf.field(data, at, end)
            if found.number in (4, 5):
                expect(found, BYTES, "symbols" if found.number == 4 else "timeseries")
            at, others = found.end, others + 1
            if others > MOST_SERIES:
                raise TooMuch(f"more than {MOST_SERIES} fields that are no series in one request")
    starts, ends = symbols.spans(data)
    texts = [data[start:stop] for start, stop in zip(starts.tolist(), ends.tolist(), strict=True)]
    return texts, series.spans(data)


def _usual(words: Words, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Bools, Bools, Words]:
    """What series look like that are references, one sample and at most some metadata behind it, (n,) each:

    where the references start and end, whether it is so, whether the sample has a value, the word with its time.
    """
    opening = words[starts]
    size = (opening >> np.uint64(8)) & np.uint64(0xFF)
    more = (opening >> np.uint64(16)) & np.uint64(0xFF)
    long = size >= 0x80
    size = np.where(long, size + (more << np.uint64(7)) - np.uint64(0x80), size).view(np.int64)
    one = ((opening & np.uint64(0xFF)) == _REFS) & (size > 0) & ~(long & (more >= 0x80))
    refs = starts + 2 + long
    refs_end = refs + size
    one &= refs_end + ZERO_SAMPLE <= ends
    refs_end[~one] = starts[~one]
    full, zero, last = heads(words, refs_end)
    after = refs_end + np.where(full, SAMPLE, ZERO_SAMPLE)
    one &= full | zero
    rest = words[after]
    metadata = (rest & np.uint64(0xFF)) == _METADATA
    size = ((rest >> np.uint64(8)) & np.uint64(0xFF)).view(np.int64)
    one &= (after == ends) | (metadata & (size < 0x80) & (after + 2 + size == ends))
    return refs, refs_end, one, full, last


def _read(row: int, data: bytes, span: Sequence[int], gathered: Gathered) -> tuple[bytes, str]:
    """One series field by field; returns its references, each as short as can be, and what is wrong with it."""
    references: list[int] = []
    samples = histograms = 0
    fault = ""
    for found in gathered.fields(data, span):
        if found.number == 1:
            if len(references) + found.end - found.start > _LONGEST_REFERENCES:
                fault, references = TOO_MANY_LABELS, []
            references += [] if fault else _listed(data, found)
        elif found.number == 2:
            gathered.add(row, data, found)
            samples += 1
        elif found.number == 3:
            histograms += 1
        elif found.number == 4:
            gathered.exemplars += 1
    gathered.histograms += histograms
    if len(references) % 2:
        raise Malformed(f"timeseries[{row}].labels_refs: a name without a value", span[0])
    if not samples and not histograms:
        fault = "a series has neither a sample nor a histogram"
    return b"".join(map(_written, references)), fault


def _listed(data: bytes, found: Field) -> list[int]:
    """Packed, or one by itself."""
    if found.wire == VARINT:
        return [found.value]
    expect(found, BYTES, "timeseries.labels_refs")
    references, at = [], found.start
    while at < found.end:
        value, at = varint(data, at, found.end)
        references.append(value)
    return references


def _written(reference: int) -> bytes:
    octets = bytearray()
    while reference >= 0x80:
        octets.append(reference & 0x7F | 0x80)
        reference >>= 7
    octets.append(reference)
    return bytes(octets)


def _references(written: bytes, sizes: Ints, starts: Ints, n_symbols: int) -> tuple[Ints, Ints]:
    """(2 n_labels,) the references of all series, and (n_series + 1,) where each series' labels start.

    Args:
        sizes: (n_series,) how many bytes of what is written are of each series.
        starts: (n_series,) where in the message each is, for errors.
    """
    octets: Octets = np.frombuffer(written, np.uint8)
    bounds = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=bounds[1:])
    goes_on = octets >= 0x80
    if goes_on.any():
        # A series' last byte must end a number, or its neighbour's first one would be taken for the rest of it.
        unended = (sizes > 0) & goes_on[bounds[1:] - 1]
        _refuse(np.flatnonzero(unended), starts, "a number does not end")
        last = np.flatnonzero(~goes_on)
        numbers = _joined(octets, goes_on, bounds, starts).take(last).astype(np.int64)
        bounds = np.searchsorted(last, bounds)
    else:
        numbers = octets.astype(np.int64)
    _refuse(np.flatnonzero((bounds[1:] - bounds[:-1]) & 1), starts, "a name without a value")
    if len(numbers) and int(numbers.max()) >= n_symbols:
        place = np.flatnonzero(numbers >= n_symbols)[:1]
        text = f"symbol {numbers[place[0]]} of {n_symbols}"
        _refuse(np.searchsorted(bounds, place, side="right") - 1, starts, text)
    return numbers, bounds // 2


def _refuse(series: Ints, starts: Ints, text: str) -> None:
    """Raises Malformed for the first of these series, if there is one."""
    if len(series):
        raise Malformed(f"timeseries[{series[0]}].labels_refs: {text}", int(starts[series[0]]))


def _joined(octets: Octets, goes_on: Bools, bounds: Ints, starts: Ints) -> NDArray[np.integer]:
    """(n,) at the last byte of each number, its value."""
    three = np.flatnonzero(goes_on[:-1] & goes_on[1:]) + 2
    if not len(three):
        numbers = octets.astype(np.uint16)
        # The byte behind one that goes on counts 128 times. A branch on random bytes would cost ten times more.
        added = numbers[1:] * np.uint16(127)
        added += octets[:-1] & 0x7F
        added *= goes_on[:-1].view(np.uint8)
        numbers[1:] += added
        return numbers
    longer = np.searchsorted(bounds, three[goes_on[three]], side="right") - 1
    _refuse(longer, starts, "a reference of more than three bytes")
    sevens = (octets & 0x7F).astype(np.int32)
    long_numbers = sevens.copy()
    long_numbers[1:] = np.where(goes_on[:-1], (sevens[1:] << 7) | sevens[:-1], sevens[1:])
    long_numbers[three] = (sevens[three] << 14) | (sevens[three - 1] << 7) | sevens[three - 2]
    return long_numbers


def _mixes(symbols: Sequence[bytes], names: Ints, values: Ints) -> Words:
    """(n_labels,) what each label adds to the key of its series."""
    hashes = np.fromiter(map(hash, symbols), np.int64, len(symbols)).view(np.uint64)
    # Not the same for a name and for a value: else x="y" would be y="x".
    mixed = (hashes | np.uint64(1))[names] * (hashes * _MIX + np.uint64(0x5851F42D4C957F2D))[values]
    mixed ^= mixed >> np.uint64(32)  # so that no sum of products makes up for another
    return mixed


def _sums(mixes: Words, bounds: Ints) -> Ints:
    keys = np.zeros(len(bounds) - 1, dtype=np.uint64)
    labelled = bounds[:-1] < bounds[1:]
    if labelled.any():
        keys[labelled] = np.add.reduceat(mixes, bounds[:-1][labelled])
    return keys.view(np.int64)
