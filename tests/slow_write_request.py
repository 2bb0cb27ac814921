"""What a remote write request says, read the slow and plain way, to compare the fast one with.

Written from the specification of protocol buffers and from the two `.proto` files alone; shares nothing with healer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


class Unreadable(Exception):
    pass


@dataclass
class SlowSeries:
    """Attributes:
    labels: as they are written, in that order.
    samples: the bits of the value, and milliseconds.
    """

    labels: list[tuple[bytes, bytes]] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)
    histograms: int = 0
    exemplars: int = 0


def read(version: int, message: bytes) -> list[SlowSeries]:
    """Raises Unreadable."""
    return [_series_v1(content) for content in _all(message, 1)] if version == 1 else _request_v2(message)


def _request_v2(message: bytes) -> list[SlowSeries]:
    symbols = _all(message, 4)
    found = []
    for content in _all(message, 5):
        one = SlowSeries()
        refs = []
        for number, wire, value in _fields(content):
            if number == 1:
                refs += [value] if isinstance(value, int) and wire == 0 else _packed(value)
            else:
                _common(one, number, value, histograms=3, exemplars=4)
        if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
            raise Unreadable
        one.labels = [(symbols[name], symbols[text]) for name, text in zip(refs[::2], refs[1::2], strict=True)]
        found.append(one)
    return found


def _series_v1(content: bytes) -> SlowSeries:
    one = SlowSeries()
    for number, _, value in _fields(content):
        if number == 1:
            label = dict.fromkeys((1, 2), b"") | {key: text for key, _, text in _fields(_bytes(value))}
            one.labels.append((_bytes(label[1]), _bytes(label[2])))
        else:
            _common(one, number, value, histograms=4, exemplars=3)
    return one


def _common(one: SlowSeries, number: int, value: int | bytes, *, histograms: int, exemplars: int) -> None:
    if number == 2:
        bits = stamp = 0
        for key, wire, part in _fields(_bytes(value)):
            if key == 1:
                if wire != 1:
                    raise Unreadable
                bits = int.from_bytes(_bytes(part), "little")
            elif key == 2:
                if not isinstance(part, int):
                    raise Unreadable
                stamp = part - (1 << 64) if part >> 63 else part
        one.samples.append((bits, stamp))
    one.histograms += number == histograms
    one.exemplars += number == exemplars


def _all(message: bytes, wanted: int) -> list[bytes]:
    return [_bytes(value) for number, _, value in _fields(message) if number == wanted]


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Unreadable
    return value


def _packed(value: int | bytes) -> list[int]:
    numbers, rest = [], _bytes(value)
    while rest:
        number, rest = _varint(rest)
        numbers.append(number)
    return numbers


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    rest = message
    while rest:
        before = len(rest)
        tag, rest = _varint(rest)
        if not 0 < tag >> 3 < 1 << 29 or before - len(rest) > max(1, (tag.bit_length() + 6) // 7):
            raise Unreadable
        wire = tag & 7
        value: int | bytes
        if wire == 0:
            value, rest = _varint(rest)
        elif wire in (1, 2, 5):
            size = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                size, rest = _varint(rest)
            if size > len(rest):
                raise Unreadable
            value, rest = rest[:size], rest[size:]
        else:
            raise Unreadable
        yield tag >> 3, wire, value


def _varint(rest: bytes) -> tuple[int, bytes]:
    value = 0
    for place, octet in enumerate(rest[:10]):
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value & (1 << 64) - 1, rest[place + 1 :]
    raise Unreadable
