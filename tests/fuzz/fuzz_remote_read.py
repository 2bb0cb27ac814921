"""Fuzzes what a remote read's answer goes through: frames, messages, chunks.

    python tests/fuzz/fuzz_remote_read.py -max_total_time=60 -rss_limit_mb=1024

Checksums are made right, else nothing would get past them. Chunks are compared with the plain decoder.
"""

from __future__ import annotations

import sys
import tracemalloc

import atheris

with atheris.instrument_imports(include=["healer.telemetry.wire.chunk_frames", "healer.telemetry.wire.protobuf"]):
    import numpy as np

    from healer.adapters.prometheus.remote_read import stretches_of
    from healer.telemetry.wire.chunk_frames import FrameReader
    from healer.telemetry.wire.protobuf import Malformed
    from healer.telemetry.wire.xor_chunks import MalformedChunk, decode

from tests.chunk_samples import BadBits, encoded, framed, plainly_decoded, written

_SPAN_MS = (0, 1 << 62)
_ALLOWED_PER_BYTE, _ALLOWED_BASE = 1000, 4 << 20
_SHORT = 300  # bytes that the plain decoder takes


def stream(data: bytes) -> None:
    """What a server may send, in one batch and in two."""
    reader = FrameReader()
    try:
        first = reader.read(data[: len(data) // 2], last=False)
        for part, last in ((data[: len(data) // 2], False), (data[first.consumed :], True)):
            frames = reader.read(part, last=last)
            for stretch in stretches_of("m", _SPAN_MS, part, frames):
                assert int(stretch.lengths.sum()) == len(stretch.values)
    except (Malformed, MalformedChunk):
        pass


def chunk(data: bytes) -> None:
    try:
        _, stamps, values = decode(data, np.array([0]), np.array([len(data)]))
    except MalformedChunk:
        found = None
    else:
        found = list(zip(stamps.tolist(), values.view(np.uint64).tolist(), strict=True))
    if len(data) <= _SHORT:
        try:
            assert plainly_decoded(data) == found
        except BadBits:
            assert found is None


def one_input(data: bytes) -> None:
    """The first byte says what the rest is."""
    kind, rest = data[:1], data[1:]
    tracemalloc.start()
    if kind == b"\x00":
        stream(rest)
    elif kind == b"\x01":
        chunk(rest)
    else:
        stream(framed(rest))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _ALLOWED_BASE + _ALLOWED_PER_BYTE * len(data), f"{peak} bytes for {len(data)}"


def seeds() -> list[bytes]:
    samples = [(1_772_323_200_000 + 30_000 * k + k % 3, 0x4079000000000000 + 977 * k) for k in range(20)]
    frame = written({"__name__": "m", "UUID": "GPU-1"}, samples, samples[3:])
    return [b"\x00" + frame, b"\x01" + encoded(samples), b"\x02" + frame[6:]]


if __name__ == "__main__":
    for seed in seeds():
        one_input(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
