"""Remote write requests, written as Prometheus writes them: one sample a series, labels sorted, zeros left out."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cramjam

V1_TYPE = "application/x-protobuf"
V2_TYPE = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

HEADERS: Mapping[int, Mapping[str, str]] = {
    1: {
        "Content-Type": V1_TYPE,
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
        "User-Agent": "Prometheus/2.42.0",
    },
    2: {
        "Content-Type": V2_TYPE,
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "2.0.0",
        "User-Agent": "Prometheus/3.5.3",
    },
}


@dataclass(frozen=True, slots=True)
class Series:
    """Attributes:
    labels: `__name__` among them, in the order in which they are written.
    samples: value and milliseconds.
    histograms, exemplars: how many, of arbitrary content.
    """

    labels: tuple[tuple[str, str], ...]
    samples: tuple[tuple[float, int], ...] = ()
    histograms: int = 0
    exemplars: int = 0


def series(metric: str, value: float, at_s: float, **labels: str) -> Series:
    """One sample of one series."""
    named = {"__name__": metric, **labels}
    return Series(tuple(sorted(named.items())), ((value, round(at_s * 1000)),))


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def sample(value: float, at_ms: int) -> bytes:
    packed = struct.pack("<d", value)
    written = b"" if value == 0 else b"\x09" + packed
    return written + (b"\x10" + varint(at_ms) if at_ms else b"")


def labels_v1(labels: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in labels)


def series_v1(one: Series, labels: bytes | None = None) -> bytes:
    return b"".join(
        (
            labels_v1(one.labels) if labels is None else labels,
            *(field(2, sample(*each)) for each in one.samples),
            *(field(3, field(1, b"") + b"\x11" + bytes(8)) for _ in range(one.exemplars)),
            *(field(4, b"\x08\x01") for _ in range(one.histograms)),
        )
    )


def message_v1(all_series: Iterable[Series]) -> bytes:
    return b"".join(field(1, series_v1(one)) for one in all_series)


def symbols_of(all_series: Iterable[Series]) -> dict[str, int]:
    """The symbols of a request in the order in which Prometheus numbers them."""
    symbols = {"": 0}
    for one in all_series:
        for label in one.labels:
            for text in label:
                symbols.setdefault(text, len(symbols))
    return symbols


def message_v2(all_series: Sequence[Series], *, metadata: bool = True) -> bytes:
    symbols = symbols_of(all_series)
    written = []
    for one in all_series:
        refs = b"".join(varint(symbols[text]) for label in one.labels for text in label)
        parts = [
            field(1, refs) if refs else b"",
            *(field(2, sample(*each)) for each in one.samples),
            *(field(3, b"\x08\x01") for _ in range(one.histograms)),
            *(field(4, b"\x11" + bytes(8)) for _ in range(one.exemplars)),
            field(5, b"") if metadata else b"",
        ]
        written.append(field(5, b"".join(parts)))
    return b"".join([*(field(4, symbol.encode()) for symbol in symbols), *written])


def message(version: int, all_series: Sequence[Series]) -> bytes:
    return message_v1(all_series) if version == 1 else message_v2(all_series)


def compressed(content: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(content))


def body(version: int, all_series: Sequence[Series]) -> bytes:
    return compressed(message(version, all_series))
