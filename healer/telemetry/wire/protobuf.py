"""The wire format of protocol buffers, as far as remote write uses it: read by hand, for whole requests at once.

A request is thousands of small messages of the same shape. The loop here finds where each ends; what stands in them is
then read with array operations over all of them. `fields` walks a single message whose shape is not the usual one.

Functions take the data with PADDING zeros behind the message, so that eight bytes can be read at any place in it, and a
loop over it stops, without asking where it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from healer.errors import HealerError

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]
Octets = NDArray[np.uint8]

PADDING = 24

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_LONGEST_VARINT = 10
_UPPER = tuple((high << 7) - 0x80 + 3 for high in range(0x80))  # what the second byte of a length adds, and the tag


class Malformed(HealerError):
    """The bytes are no such message; says what is wrong at which offset."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} (at byte {offset})")


class TooMuch(HealerError):
    """More in one request than is taken."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        tag: where the field starts, its tag included.
        start, end: its content; of a varint, its bytes.
        value: of a varint.
    """

    number: int
    wire: int
    tag: int
    start: int
    end: int
    value: int = 0


def padded(message: bytes) -> bytes:
    return message + bytes(PADDING)


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned 64-bit number at `at`, and where it ends."""
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for position in range(at, min(end, at + _LONGEST_VARINT)):
        byte = data[position]
        value |= (byte & 0x7F) << (7 * (position - at))
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
    raise Malformed("a number does not end", at)


def signed(value: int) -> int:
    """An int64 as it is written: in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def field(data: bytes, at: int, end: int) -> Field:
    """The field that starts at `at`."""
    tag, start = varint(data, at, end)
    number, wire = tag >> 3, tag & 7
    if not 0 < number < 1 << 29:
        raise Malformed(f"there is no field {number}", at)
    if data[start - 1] == 0:
        raise Malformed(f"the tag of field {number} is longer than it has to be", at)
    value = 0
    if wire == BYTES:
        length, start = varint(data, start, end)
        stop = start + length
    elif wire == VARINT:
        value, stop = varint(data, start, end)
    elif wire == FIXED64:
        stop = start + 8
    elif wire == FIXED32:
        stop = start + 4
    else:
        raise Malformed(f"field {number} has wire type {wire}, which is not in use", at)
    if stop > end:
        raise Malformed(f"field {number} ends {stop - end} bytes behind its message", at)
    return Field(number, wire, at, start, stop, value)


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message between `start` and `end`."""
    while start < end:
        found = field(data, start, end)
        yield found
        start = found.end


def expect(found: Field, wire: int, name: str) -> Field:
    if found.wire != wire:
        raise Malformed(f"{name} has wire type {found.wire}, not {wire}", found.tag)
    return found


class Repeated:
    """Where the elements of one repeated field of messages, or of strings, stand.

    Attributes:
        tag: the byte that starts each element.
        most: elements, of which more are refused.
    """

    def __init__(self, tag: int, name: str, most: int) -> None:
        self.tag = tag
        self._name = name
        self._most = most
        self._ends: list[int] = []
        self._jumps: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, data: bytes, at: int, end: int) -> int:
        """Take in the elements that follow each other from `at`; returns where they end."""
        self._jumps.append((len(self._ends), at))
        ends: list[int] = []
        add, tag, begin = ends.append, self.tag, at
        try:
            for _ in repeat(None, self._most + 1 - len(self)):
                if data[at] != tag:
                    break
                size = data[at + 1]
                if size < 0x80:
                    at += size + 2
                elif (high := data[at + 2]) < 0x80:
                    at += size + _UPPER[high]
                else:
                    size, at = varint(data, at + 1, end)
                    at += size
                add(at)
        except IndexError:  # the last one goes far beyond the end
            at = ends[-1]
        if at > end:
            begin = ends[-2] if len(ends) > 1 else begin
            which = f"{self._name}[{len(self) + len(ends) - 1}]"
            raise Malformed(f"{which} ends {at - end} bytes behind its message", begin)
        self._ends += ends
        if len(self) > self._most:
            raise TooMuch(f"more than {self._most} {self._name} in one request; let the sender put fewer into one")
        return at

    def spans(self, data: bytes) -> tuple[Ints, Ints]:
        """(n,) where each element's content starts, and where it ends."""
        ends = np.fromiter(self._ends, np.int64, len(self))
        tags = np.empty(len(ends), dtype=np.int64)
        tags[1:] = ends[:-1]
        for element, tag in self._jumps:
            if element < len(tags):
                tags[element] = tag
        octets = np.frombuffer(data, np.uint8)
        long = octets[tags + 1] >= 0x80
        starts = tags + 2 + long
        longer = np.flatnonzero(long & (octets[tags + 2] >= 0x80))
        for element in longer.tolist():
            starts[element] = varint(data, int(tags[element]) + 1, len(data))[1]
        return starts, ends


def words(data: bytes) -> Words:
    """(len - 7,) the eight bytes from each place on, the first one lowest."""
    return np.ndarray(len(data) - 7, dtype="<u8", buffer=data, strides=(1,))


def six_byte_varints(values: Words) -> Ints:
    """The numbers below 2^42 whose six bytes are the upper ones of each word."""
    sevens = (values >> np.uint64(16)) & np.uint64(0x7F7F7F7F7F7F)
    # Neighbours join: sevens to fourteens, these to the whole.
    fourteens = (sevens & np.uint64(0x007F007F007F)) | ((sevens & np.uint64(0x7F007F007F00)) >> np.uint64(1))
    whole = (
        (fourteens & np.uint64(0x3FFF))
        | ((fourteens >> np.uint64(2)) & np.uint64(0x3FFF << 14))
        | ((fourteens >> np.uint64(4)) & np.uint64(0x3FFF << 28))
    )
    numbers: Ints = whole.view(np.int64)
    return numbers
