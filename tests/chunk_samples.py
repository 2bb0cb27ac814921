"""Chunks and frames of samples as Prometheus makes them, and a decoder that is slow and plain, to compare with."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import google_crc32c
import numpy as np

from healer.telemetry.history import Stretch

# unix ms, and the bits of the value
Sample: TypeAlias = tuple[int, int]

XOR, HISTOGRAM, FLOAT_HISTOGRAM = 1, 2, 3

_MASK = (1 << 64) - 1


def bits_of(value: float) -> int:
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits)


class BadBits(Exception):
    """What the plain decoder says of bytes that are no chunk."""


class _Writer:
    def __init__(self) -> None:
        self.text = ""

    def add(self, number: int, length: int) -> None:
        if length:
            self.text += f"{number & ((1 << length) - 1):0{length}b}"

    def octets(self) -> bytes:
        padded = self.text + "0" * (-len(self.text) % 8)
        return bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def encoded(samples: Sequence[Sample]) -> bytes:
    """One chunk."""
    out = _Writer()
    window: tuple[int, int] | None = None  # leading and trailing zeros that the last value was written with
    at, step, bits = 0, 0, 0
    for k, (stamp, value) in enumerate(samples):
        if k == 0:
            for octet in varint((stamp << 1 ^ stamp >> 63) & _MASK):
                out.add(octet, 8)
            out.add(value, 64)
        else:
            change = signed(stamp - at - step)
            if k == 1:
                for octet in varint((stamp - at) & _MASK):
                    out.add(octet, 8)
            else:
                _add_change(out, change)
            step = signed(stamp - at)
            window = _add_value(out, value ^ bits, window)
        at, bits = stamp, value
    return struct.pack(">H", len(samples)) + out.octets()


def _add_change(out: _Writer, change: int) -> None:
    if change == 0:
        out.add(0, 1)
        return
    for prefix, prefix_length, length in ((0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)):
        if -(1 << length - 1) + 1 <= change <= 1 << length - 1:
            out.add(prefix, prefix_length)
            out.add(change, length)
            return
    out.add(0b1111, 4)
    out.add(change, 64)


def _add_value(out: _Writer, changed: int, window: tuple[int, int] | None) -> tuple[int, int] | None:
    if changed == 0:
        out.add(0, 1)
        return window
    leading = min(64 - changed.bit_length(), 31)
    trailing = (changed & -changed).bit_length() - 1
    out.add(1, 1)
    if window is not None and leading >= window[0] and trailing >= window[1]:
        out.add(0, 1)
        leading, trailing = window
    else:
        out.add(1, 1)
        out.add(leading, 5)
        out.add(64 - leading - trailing, 6)  # of 64, the lower six bits are 0
    out.add(changed >> trailing, 64 - leading - trailing)
    return leading, trailing


class _Bits:
    """Attributes:
    bits: of the value, as it was last.
    """

    def __init__(self, octets: bytes) -> None:
        self._text = "".join(f"{octet:08b}" for octet in octets)
        self._position = 0
        self._leading = self._trailing = 0
        self.bits = 0

    def take(self, length: int) -> int:
        first = self._position
        self._position += length
        if self._position > len(self._text):
            raise BadBits("too short")
        return int(self._text[first : self._position], 2) if length else 0

    def varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            octet = self.take(8)
            number |= (octet & 127) << shift
            if octet < 128:
                return number & _MASK
        raise BadBits("a varint without end")

    def change(self) -> int:
        ones = 0
        while ones < 4 and self.take(1):
            ones += 1
        length = (0, 14, 17, 20, 64)[ones]
        number = self.take(length)
        return number - (1 << length) if length and number > 1 << length - 1 else number

    def value(self) -> int:
        if self.take(1):
            if self.take(1):
                self._leading = self.take(5)
                self._trailing = 64 - self._leading - (self.take(6) or 64)
                if self._trailing < 0:
                    raise BadBits("a value of more than 64 bits")
            self.bits ^= self.take(64 - self._leading - self._trailing) << self._trailing
        return self.bits


def plainly_decoded(chunk: bytes) -> list[Sample]:
    """Bit after bit."""
    if len(chunk) < 2:
        raise BadBits("no header")
    stream = _Bits(chunk[2:])
    samples: list[Sample] = []
    at = step = 0
    for k in range(int.from_bytes(chunk[:2], "big")):
        if k == 0:
            zigzag = stream.varint()
            at, stream.bits = signed(zigzag >> 1 ^ -(zigzag & 1)), stream.take(64)
            samples.append((at, stream.bits))
            continue
        step = signed(stream.varint() if k == 1 else step + stream.change())
        at = signed(at + step)
        samples.append((at, stream.value()))
    return samples


def signed(number: int) -> int:
    number &= _MASK
    return number - (1 << 64) if number >> 63 else number


def varint(number: int) -> bytes:
    octets = b""
    while number > 127:
        octets += bytes([number & 127 | 128])
        number >>= 7
    return octets + bytes([number])


def delimited(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def chunk_message(data: bytes, *, kind: int = XOR, times: tuple[int, int] = (1, 2)) -> bytes:
    low, high = (varint(time & _MASK) for time in times)
    return b"\x08" + low + b"\x10" + high + b"\x18" + varint(kind) + delimited(4, data)


def series_message(labels: Mapping[str, str], chunks: Sequence[bytes]) -> bytes:
    """A ChunkedSeries of messages of chunks."""
    pairs = (delimited(1, name.encode()) + delimited(2, value.encode()) for name, value in labels.items())
    return b"".join(delimited(1, pair) for pair in pairs) + b"".join(delimited(2, chunk) for chunk in chunks)


def frame(*series: bytes, more: bytes = b"") -> bytes:
    """A ChunkedReadResponse, as it is streamed; `more` is further fields."""
    return framed(b"".join(delimited(1, one) for one in series) + b"\x10\x00" + more)


def framed(message: bytes) -> bytes:
    checksum: int = google_crc32c.value(message)
    return varint(len(message)) + checksum.to_bytes(4, "big") + message


def written(labels: Mapping[str, str], *chunks: Sequence[Sample]) -> bytes:
    """A frame of one series with chunks of these samples."""
    return frame(series_message(labels, [chunk_message(encoded(samples)) for samples in chunks]))


def samples_of(stretch: Stretch) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    """By the labels in their order, what a stretch holds."""
    ends = np.cumsum(stretch.lengths).tolist()
    bits = stretch.values.view(np.uint64)
    return {
        tuple(sorted(labels.items())): list(
            zip(stretch.stamps_ms[end - length : end].tolist(), bits[end - length : end].tolist(), strict=True)
        )
        for labels, length, end in zip(stretch.labels, stretch.lengths.tolist(), ends, strict=True)
    }
