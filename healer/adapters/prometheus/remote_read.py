"""Remote read: the stored chunks of a Prometheus or a Mimir as they are, to be decoded here.

It costs the server nearly nothing, because nothing is evaluated and nothing is written as text, and it is the only way
that keeps the bits of a NaN. Series come one after the other; as many as fit into a few megabytes become one stretch,
so that the memory needed does not depend on how many series there are. A Prometheus adds its `external_labels` here,
as it does wherever it sends series away, and does not in the answers to queries.
"""

from __future__ import annotations

from collections.abc import Iterator

import cramjam
import numpy as np

from healer.adapters.http.stream import StreamedAnswer, StreamingServer
from healer.domain.reading import Labels
from healer.errors import Unavailable
from healer.telemetry.history import Floats, Ints, Stretch, stretch_of
from healer.telemetry.wire.chunk_frames import FrameReader, Frames
from healer.telemetry.wire.protobuf import Malformed
from healer.telemetry.wire.xor_chunks import MalformedChunk, decode, sample_counts

NOT_OFFERED = frozenset({400, 404, 405, 406, 410, 415, 501})  # what servers say of a path or a method that they lack

_STREAMED = "application/x-streamed-protobuf"
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Read-Version": "0.1.0",
}
_BATCH_BYTES = 4 << 20
_MOST_SERIES_BYTES = 256 << 20
# As many chunks as are decoded fastest at once: fewer leave the arrays short, more of them leave the processor's cache.
_MOST_CHUNKS = 8192
_MOST_SAMPLES = 1 << 20
_NOWHERE = "healer_probe"  # no metric has this name


class RemoteRead:
    name = "remote read"

    def __init__(self, server: StreamingServer) -> None:
        self._server = server
        self._reader = FrameReader()

    def missing(self) -> str:
        """Why this server does not offer it, "" if it does. Raises Unavailable or Rejected where neither is known."""
        with self._ask(_NOWHERE, {}, (0, 1)) as answer:
            if answer.status == 200:
                return "" if answer.content_type == _STREAMED else f"answers {answer.content_type or 'of no type'}"
            if answer.status in NOT_OFFERED:
                return f"says {answer.status}"
            raise self._server.refusal(answer.status, answer.text(), self.name)

    def stretches(self, metric: str, labels: Labels, start_ms: int, end_ms: int) -> Iterator[Stretch]:
        """All samples of the metric's series that have these labels, with `start_ms` <= time < `end_ms`."""
        with self._ask(metric, labels, (start_ms, end_ms)) as answer:
            if answer.status != 200:
                raise self._server.refusal(answer.status, answer.text(), f"remote read of {metric}")
            if answer.content_type != _STREAMED:
                raise self._nonsense(metric, f"it is of type {answer.content_type!r}")
            try:
                for data, frames in self._batches(answer):
                    yield from stretches_of(metric, (start_ms, end_ms), data, frames)
            except (Malformed, MalformedChunk) as error:
                raise self._nonsense(metric, str(error)) from None

    def _nonsense(self, metric: str, what: str) -> Unavailable:
        text = f"gave no good answer to remote read of {metric}: {what}; check it, and what stands before it"
        return Unavailable(self._server.component, text)

    def _ask(self, metric: str, labels: Labels, span_ms: tuple[int, int]) -> StreamedAnswer:
        body = bytes(cramjam.snappy.compress_raw(read_request(metric, labels, span_ms)))
        return self._server.post("/api/v1/read", body, _HEADERS)

    def _batches(self, answer: StreamedAnswer) -> Iterator[tuple[bytes, Frames]]:
        """Whole series, some megabytes at a time."""
        kept: list[bytes] = []
        size, enough = 0, _BATCH_BYTES
        for piece in answer.pieces():
            kept.append(piece)
            size += len(piece)
            if size >= enough:
                data = b"".join(kept)
                frames = self._reader.read(data, last=False)
                rest = data[frames.consumed :]
                if len(rest) > _MOST_SERIES_BYTES:
                    raise Malformed(f"one series has more than {_MOST_SERIES_BYTES >> 20} MiB", 0)
                kept, size = [rest], len(rest)
                enough = max(_BATCH_BYTES, 2 * size)
                yield data, frames
        data = b"".join(kept)
        yield data, self._reader.read(data, last=True)


def read_request(metric: str, labels: Labels, span_ms: tuple[int, int]) -> bytes:
    """A ReadRequest for one metric's chunks; the protocol includes the end of the span, we do not."""
    start_ms, end_ms = span_ms
    matchers = b"".join(
        _field(3, _field(2, name.encode()) + _field(3, value.encode()))  # the type is left out: 0 is equality
        for name, value in (("__name__", metric), *labels.items())
    )
    query = _number(1, start_ms) + _number(2, end_ms - 1) + matchers
    return _field(1, query) + _field(2, b"\x01")  # the one accepted type is STREAMED_XOR_CHUNKS


def stretches_of(metric: str, span_ms: tuple[int, int], data: bytes, frames: Frames) -> Iterator[Stretch]:
    """The series of a batch, as many at a time as are decoded best together."""
    left_out = frames.histograms
    warnings = (f"{metric}: {left_out} chunks of native histograms were left out",) if left_out else ()
    chunk_after = np.cumsum(frames.chunks)
    sample_after = _running(sample_counts(data, frames.starts, frames.ends))[chunk_after]
    begin = 0
    for end in _groups(chunk_after, sample_after):
        chunks = slice(int(chunk_after[begin] - frames.chunks[begin]), int(chunk_after[end - 1]))
        samples = _samples(data, frames.starts[chunks], frames.ends[chunks], frames.chunks[begin:end])
        stretch = stretch_of(metric, span_ms, frames.labels[begin:end], samples, warnings=warnings)
        begin, warnings = end, ()
        if stretch.labels or stretch.warnings:
            yield stretch


def _groups(chunk_after: Ints, sample_after: Ints) -> Iterator[int]:
    """Where each group of series ends: within both limits, but one series at least."""
    begin, chunks, samples = 0, 0, 0
    while begin < len(chunk_after):
        within = min(
            int(np.searchsorted(chunk_after, chunks + _MOST_CHUNKS, side="right")),
            int(np.searchsorted(sample_after, samples + _MOST_SAMPLES, side="right")),
        )
        begin = max(begin + 1, within)
        chunks, samples = int(chunk_after[begin - 1]), int(sample_after[begin - 1])
        yield begin


def _samples(data: bytes, starts: Ints, ends: Ints, chunks: Ints) -> tuple[Ints, Ints, Floats]:
    """Of some series: how many samples each has, and all their times and values."""
    if len(starts) == 0:
        return np.zeros(len(chunks), dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    first = int(starts[0])
    counts, stamps, values = decode(data[first : int(ends[-1])], starts - first, ends - first)
    after = _running(counts)[np.cumsum(chunks)]
    return np.diff(after, prepend=0), stamps, values


def _running(counts: Ints) -> Ints:
    """How many there are before each, and after the last."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value & ((1 << 64) - 1))


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)
