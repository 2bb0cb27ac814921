"""The frames in which a server streams stored chunks: remote read's STREAMED_XOR_CHUNKS.

A frame is a varint with the size of its message, a CRC32C of the message (4 bytes, big endian), and the message:

    ChunkedReadResponse {1: ChunkedSeries {1: Label {1: name, 2: value}..., 2: Chunk {1: min_time_ms, 2: max_time_ms,
                         3: type, 4: data}...}..., 2: query_index}

A series with many chunks goes on in further frames, with the same labels each time. The messages are walked by hand:
there are as many chunks as hours of every series, and only where their data lies is of interest.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from dataclasses import field as later

import google_crc32c
import numpy as np

from healer.domain.reading import Labels
from healer.telemetry.history import Ints
from healer.telemetry.wire.protobuf import BYTES, Field, Malformed, field, fields, varint

MOST_FRAME_BYTES = 16 << 20  # Prometheus makes them of 1 MiB

_CRC_BYTES = 4
_LONGEST_SIZE = 5
_MOST_PAIRS = 100_000
_XOR = 1
_HISTOGRAMS = frozenset({2, 3})
_TEXT = re.compile(rb"[\x20-\x7e\s]{8,}")
# A chunk as Prometheus writes it: its size, its times, XOR, and the size of the data that fills the rest.
_USUAL_CHUNK = re.compile(
    rb"\x12([\x80-\xff]{0,3}[\x00-\x7f])(?:\x08[\x80-\xff]{0,9}[\x00-\x7f])?(?:\x10[\x80-\xff]{0,9}[\x00-\x7f])?"
    rb"\x18\x01\x22([\x80-\xff]{0,3}[\x00-\x7f])"
)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The whole series at the start of some bytes.

    Attributes:
        labels: by series, without `__name__`.
        chunks: (n_series,) how many of the chunks belong to each series, in order; may be 0.
        starts, ends: (n_chunks,) where the data of each chunk lies in the bytes.
        histograms: how many chunks of native histograms were left out.
        consumed: how many bytes are done with; what follows them belongs to the next batch.
    """

    labels: list[Labels]
    chunks: Ints
    starts: Ints
    ends: Ints
    histograms: int
    consumed: int


@dataclass(slots=True)
class _Series:
    """Attributes:
    key: the bytes of the labels.
    first_frame, last_frame: where the first and the last frame that it is in begin.
    """

    key: bytes
    labels: Labels
    first_frame: int
    last_frame: int
    starts: list[int] = later(default_factory=list)
    ends: list[int] = later(default_factory=list)
    histograms: int = 0


class FrameReader:
    """Keeps the labels that it has met, because nearly all of them come again with the next series."""

    def __init__(self) -> None:
        self._pairs = _Pairs()
        self._sizes = _Sizes()

    def read(self, data: bytes, *, last: bool) -> Frames:
        """The series of `data`; unless it is the `last`, without the one at its end, which may go on.

        Raises Malformed, also when the last bytes end within a frame.
        """
        series: list[_Series] = []
        position = 0
        while (found := _frame_at(data, position)) is not None:
            start, end = found
            for part in fields(data, start, end):
                if part.number == 1 and part.wire == BYTES:
                    self._add_series(series, data, part.start, part.end, frame=position)
            position = end
        if last and position < len(data):
            raise Malformed(f"it ends within a frame{_said(data, position)}", position)
        return _whole(series, position, last=last)

    def _add_series(self, series: list[_Series], data: bytes, start: int, end: int, *, frame: int) -> None:
        position, pairs = start, []
        while position < end and data[position] == 0x0A:
            first, position = _delimited(data, position + 1, end)
            pairs.append(self._pairs[data[first:position]])
        key = data[start:position]
        if not series or series[-1].key != key:
            labels = dict(pairs)
            if labels.pop("__name__", None) is None:
                raise Malformed("a series has no name", start)
            series.append(_Series(key, labels, frame, frame))
        series[-1].last_frame = frame
        self._add_chunks(series[-1], data, position, end)

    def _add_chunks(self, series: _Series, data: bytes, position: int, end: int) -> None:
        sizes, match, starts, ends = self._sizes, _USUAL_CHUNK.match, series.starts, series.ends
        while position < end:
            usual = match(data, position, end)
            if usual is not None:
                first = usual.end()
                after = first + sizes[usual[2]]
                if after == usual.end(1) + sizes[usual[1]] and after <= end:
                    starts.append(first)
                    ends.append(after)
                    position = after
                    continue
            position = _add_field(series, data, position, end)


class _Pairs(dict[bytes, tuple[str, str]]):
    """The bytes of a label -> its name and value."""

    def __missing__(self, data: bytes) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for found in fields(data, 0, len(data)):
            if found.wire == BYTES and found.number in texts:
                texts[found.number] = _text(data, found)
        pair = (texts[1], texts[2])
        if len(self) >= _MOST_PAIRS:
            self.clear()
        self[data] = pair
        return pair


class _Sizes(dict[bytes, int]):
    """The bytes of a varint -> its number. There are not many sizes of chunks."""

    def __missing__(self, data: bytes) -> int:
        number = varint(data, 0, len(data))[0]
        if len(self) >= _MOST_PAIRS:
            self.clear()
        self[data] = number
        return number


def _frame_at(data: bytes, position: int) -> tuple[int, int] | None:
    """Where the message of the frame is; None if the bytes end before it does."""
    window = data[position : position + _LONGEST_SIZE]
    if len(window) < _LONGEST_SIZE and min(window, default=128) > 127:
        return None
    size, after = varint(data, position, min(position + _LONGEST_SIZE, len(data)))
    if size > MOST_FRAME_BYTES:
        raise Malformed(f"it has a frame of {size >> 20} MiB{_said(data, position)}", position)
    start = after + _CRC_BYTES
    end = start + size
    if end > len(data):
        return None
    if google_crc32c.value(data[start:end]) != int.from_bytes(data[after:start], "big"):
        raise Malformed(f"a frame's checksum is wrong{_said(data, position)}", position)
    return start, end


def _add_field(series: _Series, data: bytes, position: int, end: int) -> int:
    """Take in one field of a ChunkedSeries, in whatever form; return where the next one is."""
    whole = field(data, position, end)
    if whole.number == 1:
        raise Malformed("a series has labels after its chunks", position)
    if whole.number == 2 and whole.wire == BYTES:
        parts = {part.number: part for part in fields(data, whole.start, whole.end)}
        encoding = parts[3].value if 3 in parts else 0
        content = parts.get(4)
        if encoding in _HISTOGRAMS:
            series.histograms += 1
        elif encoding == _XOR and content is not None and content.wire == BYTES:
            series.starts.append(content.start)
            series.ends.append(content.end)
        else:
            raise Malformed(f"a chunk is of the unknown kind {encoding}, or has no data", position)
    return whole.end


def _whole(series: list[_Series], consumed: int, *, last: bool) -> Frames:
    if series and not last:
        # The series at the end may go on, so its frames come again; and with them, whatever else is in those.
        consumed = series[-1].first_frame
        while series and series[-1].last_frame >= consumed:
            consumed = series.pop().first_frame
    return Frames(
        labels=[one.labels for one in series],
        chunks=np.array([len(one.starts) for one in series], dtype=np.int64),
        starts=np.array([start for one in series for start in one.starts], dtype=np.int64),
        ends=np.array([end for one in series for end in one.ends], dtype=np.int64),
        histograms=sum(one.histograms for one in series),
        consumed=consumed,
    )


def _delimited(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Where the content begins and ends that the size at `position` announces."""
    size, start = varint(data, position, end)
    if start + size > end:
        raise Malformed("a field ends behind its message", position)
    return start, start + size


def _text(data: bytes, found: Field) -> str:
    try:
        return sys.intern(data[found.start : found.end].decode())
    except UnicodeDecodeError:
        raise Malformed("a label is not UTF-8", found.start) from None


def _said(data: bytes, position: int) -> str:
    """A server that fails while it streams writes its reason where the next frame would be."""
    text = _TEXT.match(data[position : position + 300])
    return f", it says: {text[0].decode().strip()!r}" if text else ""
