"""Chunks of samples as Prometheus compresses them, decoded many at a time.

A chunk is a bit stream in which every sample depends on the one before it: the change of the change of the time, and
the value's bits XORed with the last value's, after Facebook's Gorilla paper (VLDB 2015). One chunk cannot be decoded in
parallel, but a day of one metric of a thousand GPUs is 24,000 of them: all take their k-th step at once, each with a
cursor of its own, as array operations.

Layout: the number of samples (16 bits, big endian); the first time (zig-zag varint) and value (64 bits); the first
difference of times (varint) and an XORed value; then pairs of a second difference of times and an XORed value.

* Second difference: 0 | 10 and 14 bits | 110 and 17 bits | 1110 and 20 bits | 1111 and 64 bits. Of the codes of n bits,
  those above 2**(n-1) are negative.
* XORed value: 0 (no change) | 10 and as many bits as last time, at the same place | 11, 5 bits: how many zeros lead,
  6 bits: how many bits follow (0 means 64), and those bits.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
_Words: TypeAlias = NDArray[np.uint64]

HEADER_BYTES = 2

_STEPS_AT_ONCE = 40
_TOP = np.uint64(1 << 63)
_TOP_TWO = np.uint64(3 << 62)
_WIDEST_IN_WINDOW = 60
_LONGEST_VARINT = 10
# By the first four bits of a second difference: how many of them say how long it is, and how long it is.
_PREFIX = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] * 2, dtype=np.uint64)
_LENGTH = np.array([0] * 8 + [14] * 4 + [17] * 2 + [20, 64], dtype=np.uint64)


class MalformedChunk(ValueError):
    """The bytes are not a chunk. Nothing of the batch is to be believed."""


def sample_counts(data: bytes, starts: Ints, ends: Ints) -> Ints:
    """How many samples each chunk says that it has, checked against its size: (n_chunks,).

    A sample after the second takes two bits at least, so what the counts add up to is never more than four per byte.
    """
    sizes = ends - starts
    octets = np.frombuffer(data, dtype=np.uint8)
    if len(sizes) == 0:
        return np.zeros(0, dtype=np.int64)
    if starts.min() < 0 or ends.max() > len(octets) or sizes.min() < HEADER_BYTES:
        raise MalformedChunk("a chunk is shorter than its own header")
    counts = octets[starts].astype(np.int64) << 8 | octets[starts + 1]
    # The first sample takes 9 bytes, the second 1 byte and 1 bit.
    least_bits = np.select([counts > 1, counts == 1], [80 + 1 + 2 * (counts - 2), 72], default=0)
    if (8 * (sizes - HEADER_BYTES) < least_bits).any():
        raise MalformedChunk("a chunk says that it has more samples than its bytes can hold")
    return counts


def decode(data: bytes, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Floats]:
    """The samples of the chunks that lie at `data[starts[i]:ends[i]]`, one chunk after the other.

    Returns:
        (n_chunks,) how many samples each has; (n_samples,) their times in unix ms; (n_samples,) their values, bit for
        bit. What it allocates is less than 200 bytes for each byte of the chunks, and 3 for each byte of `data`.

    Raises MalformedChunk.
    """
    counts = sample_counts(data, starts, ends)
    stamps = np.empty(int(counts.sum()), dtype=np.int64)
    values = np.empty(len(stamps), dtype=np.uint64)
    if len(stamps):
        # With the longest ones first, those that still have a k-th sample are a slice.
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        first = (np.cumsum(counts) - counts)[order]
        _LockStep(data, starts[order], ends[order], counts[order]).run(stamps, values, first)
    return counts, stamps, values.view(np.float64)


class _LockStep:
    """Where each chunk stands. All arrays are (n_chunks,), in the order of falling counts."""

    def __init__(self, data: bytes, starts: Ints, ends: Ints, counts: Ints) -> None:
        padded = data + bytes(16 + -len(data) % 8)
        self._octets = np.frombuffer(padded, dtype=np.uint8)
        self._words: _Words = np.frombuffer(padded, dtype=">u8").astype(np.uint64)
        self._ends = ends.astype(np.uint64) << np.uint64(3)
        self._counts = counts
        self._cursors = (starts.astype(np.uint64) + np.uint64(HEADER_BYTES)) << np.uint64(3)  # in bits
        self._stamps = np.zeros(len(counts), dtype=np.int64)
        self._steps = np.zeros(len(counts), dtype=np.int64)
        self._values = np.zeros(len(counts), dtype=np.uint64)
        self._trailing = np.zeros(len(counts), dtype=np.uint64)
        self._widths = np.full(len(counts), 63, dtype=np.uint64)  # one less than the number of bits

    def run(self, stamps: Ints, values: _Words, first: Ints) -> None:
        """Write the k-th sample of each chunk to the place `first + k`."""
        rising = self._counts[::-1]
        live = (len(rising) - np.searchsorted(rising, np.arange(int(rising[-1])), side="right")).tolist()
        # Samples of one time of all chunks lie far apart in the result: they are put there some steps at once.
        rows = min(_STEPS_AT_ONCE, len(live))
        recent_stamps = np.empty((rows, len(first)), dtype=np.int64)
        recent_values = np.empty((rows, len(first)), dtype=np.uint64)
        for start in range(0, len(live), _STEPS_AT_ONCE):
            lives = live[start : start + _STEPS_AT_ONCE]
            for row, m in enumerate(lives):
                self._step(start + row, m)
                recent_stamps[row, :m] = self._stamps[:m]
                recent_values[row, :m] = self._values[:m]
            whole, steps = lives[-1], len(lives)
            places = first[:whole] + start
            sliding_window_view(stamps, steps, writeable=True)[places] = recent_stamps[:steps, :whole].T
            sliding_window_view(values, steps, writeable=True)[places] = recent_values[:steps, :whole].T
            for row, m in enumerate(lives):
                if m > whole:
                    ending = first[whole:m] + (start + row)
                    stamps[ending] = recent_stamps[row, whole:m]
                    values[ending] = recent_values[row, whole:m]
        if (self._cursors > self._ends).any():
            raise MalformedChunk("a chunk's bytes end before its last sample")

    def _step(self, k: int, m: int) -> None:
        """Decode the k-th sample of the first `m` chunks."""
        if k == 0:
            self._first(m)
        elif k == 1:
            self._second(m)
        else:
            self._next(m)

    def _window(self, cursors: _Words) -> _Words:
        """The 64 bits from each cursor on."""
        index = (cursors >> np.uint64(6)).view(np.int64)
        shift = cursors & np.uint64(63)
        head = self._words.take(index, mode="clip") << shift
        index += 1
        tail = self._words.take(index, mode="clip") >> np.uint64(1)
        tail >>= shift ^ np.uint64(63)
        head |= tail
        return head

    def _varints(self, m: int) -> _Words:
        """A varint of each of the first `m`, at the start of a byte."""
        at = (self._cursors[:m] >> np.uint64(3)).view(np.int64)
        result = np.zeros(m, dtype=np.uint64)
        unfinished = np.ones(m, dtype=np.bool_)
        for k in range(_LONGEST_VARINT):
            octets = self._octets.take(at, mode="clip").astype(np.uint64)
            result |= np.where(unfinished, (octets & np.uint64(127)) << np.uint64(7 * k), np.uint64(0))
            at += unfinished
            unfinished &= octets > 127
            if not unfinished.any():
                break
        else:
            raise MalformedChunk("a chunk begins with a number of more than ten bytes")
        self._cursors[:m] = at.view(np.uint64) << np.uint64(3)
        return result

    def _first(self, m: int) -> None:
        zigzag = self._varints(m)
        self._stamps[:m] = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
        self._values[:m] = self._window(self._cursors[:m])
        self._cursors[:m] += np.uint64(64)

    def _second(self, m: int) -> None:
        self._steps[:m] = self._varints(m).view(np.int64)
        self._stamps[:m] += self._steps[:m]
        self._value(m, self._window(self._cursors[:m]))

    def _next(self, m: int) -> None:
        cursors, steps = self._cursors[:m], self._steps[:m]
        window = self._window(cursors)
        uneven = np.flatnonzero(window >= _TOP) if window.max() >= _TOP else None
        if uneven is not None:
            change, bits = self._second_differences(cursors[uneven], window[uneven])
            steps[uneven] += change
            cursors[uneven] += bits - np.uint64(1)
        cursors += np.uint64(1)
        window <<= np.uint64(1)
        if uneven is not None:
            window[uneven] = self._window(cursors[uneven])
        self._stamps[:m] += steps
        self._value(m, window)

    def _second_differences(self, cursors: _Words, window: _Words) -> tuple[Ints, _Words]:
        """Of those that are not zero: what they are, and how many bits they take."""
        code = (window >> np.uint64(60)).view(np.int64)
        prefix, length = _PREFIX.take(code), _LENGTH.take(code)
        unused = np.uint64(64) - length
        # One less than the code, and one more than the signed number, makes it a two's complement.
        number = ((((window << prefix) >> unused) - np.uint64(1)) << unused).view(np.int64) >> unused.view(np.int64)
        number += 1
        long = np.flatnonzero(length == 64)
        if len(long):
            number[long] = self._window(cursors[long] + np.uint64(4)).view(np.int64)
        return number, prefix + length

    def _value(self, m: int, window: _Words) -> None:
        """The values, from windows at whose start they are and of which at least 63 bits are good."""
        self._cursors[:m] += np.uint64(1)
        if window.max() < _TOP:
            return
        rows: slice | Ints = slice(m)
        if window.min() < _TOP:
            rows = np.flatnonzero(window >= _TOP)
            window = window[rows]
        cursors = self._cursors[rows] + np.uint64(1)
        bits = window << np.uint64(2)
        fresh = np.flatnonzero(window >= _TOP_TWO)
        if len(fresh):
            self._place(fresh if isinstance(rows, slice) else rows[fresh], window[fresh])
            cursors[fresh] += np.uint64(11)
            bits[fresh] = self._window(cursors[fresh])
        widths = self._widths[rows]
        if widths.max() > _WIDEST_IN_WINDOW:
            wide = np.flatnonzero(widths > _WIDEST_IN_WINDOW)
            bits[wide] = self._window(cursors[wide])
        bits >>= widths ^ np.uint64(63)
        bits <<= self._trailing[rows]
        self._values[rows] ^= bits
        cursors += widths
        cursors += np.uint64(1)
        self._cursors[rows] = cursors

    def _place(self, rows: Ints, window: _Words) -> None:
        """Take in where the bits of the values are from now on."""
        widths = ((window >> np.uint64(51)) - np.uint64(1)) & np.uint64(63)
        trailing = np.uint64(63) - widths - ((window >> np.uint64(57)) & np.uint64(31))
        if trailing.max() > 63:
            raise MalformedChunk("a chunk has a value of more than 64 bits")
        self._widths[rows], self._trailing[rows] = widths, trailing
