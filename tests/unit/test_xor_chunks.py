"""Chunks are decoded to the bit, whatever is in them; what is no chunk is refused, whatever it is."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from healer.telemetry.wire.xor_chunks import MalformedChunk, decode, sample_counts
from tests.chunk_samples import BadBits, Sample, bits_of, encoded, plainly_decoded

START = 1_772_323_200_000

SPECIAL = (
    0x7FF0000000000002,
    0x7FF8000000000001,
    0x7FF8000000000000,
    0xFFF8000000000123,
    bits_of(-0.0),
    bits_of(5e-324),
)
values = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(allow_nan=False).map(bits_of),
    st.integers(0, 300).map(float).map(bits_of),
    st.integers(0, (1 << 64) - 1),
)
# How far the next sample is from the one before: even, with jitter, after a gap, backwards, beyond every short code.
steps = st.one_of(
    st.just(30_000),
    st.integers(29_990, 30_010),
    st.sampled_from([8191, 8192, 8193, 65_536, 65_537, 524_288, 524_289, -8191, -8192, -65_536, -524_288, -524_289]),
    st.integers(-(1 << 40), 1 << 40),
)


@st.composite
def chunks(draw: st.DrawFn) -> list[Sample]:
    at = draw(st.one_of(st.just(START), st.integers(-(1 << 50), 1 << 50)))
    samples = []
    for step, value in draw(st.lists(st.tuples(steps, values), max_size=40)):
        at += step
        samples.append((at, value))
    return samples


def _decoded(pieces: Sequence[bytes], *, gap: bytes = b"") -> list[list[Sample]]:
    data = b"".join(piece + gap for piece in pieces)
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    ends = np.cumsum(sizes + len(gap)) - len(gap)
    counts, stamps, found = decode(data, ends - sizes, ends)
    samples = list(zip(stamps.tolist(), found.view(np.uint64).tolist(), strict=True))
    after = np.cumsum(counts).tolist()
    return [samples[end - count : end] for end, count in zip(after, counts.tolist(), strict=True)]


@given(st.lists(chunks(), max_size=12), st.binary(max_size=9))
def test_what_was_written_comes_back_to_the_bit(written: list[list[Sample]], gap: bytes) -> None:
    assert _decoded([encoded(samples) for samples in written], gap=gap) == written


@given(chunks())
def test_the_plain_decoder_agrees_with_what_was_written(samples: list[Sample]) -> None:
    assert plainly_decoded(encoded(samples)) == samples


def test_a_day_of_a_rack_with_chunks_of_all_lengths_comes_back() -> None:
    rng = random.Random(7)
    written = []
    for _ in range(600):
        at, level = START, rng.choice([60.0, 412.137, 1e12])
        samples = []
        for _ in range(rng.choice([120, 120, 119, 121, 1, 2, 3, 240])):
            at += 30_000 + rng.choice([0, 0, 0, 1, -1, 7000])
            level += rng.choice([0, 0, 1, rng.gauss(0, 5)])
            samples.append((at, bits_of(level)))
        written.append(samples)
    assert _decoded([encoded(samples) for samples in written]) == written


def test_the_longest_chunk_there_can_be_comes_back() -> None:
    samples = [(START + k * 1000, bits_of(float(k // 7))) for k in range(65_535)]
    assert _decoded([encoded(samples)]) == [samples]


def test_no_chunks_have_no_samples() -> None:
    assert _decoded([]) == []
    assert _decoded([encoded([]), encoded([])]) == [[], []]


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        pytest.param(b"", "shorter than its own header", id="nothing"),
        pytest.param(b"\0", "shorter than its own header", id="half a header"),
        pytest.param(b"\0\1", "more samples than its bytes", id="a count and nothing else"),
        pytest.param(b"\xff\xff" + bytes(9), "more samples than its bytes", id="a count that the bytes cannot hold"),
        pytest.param(b"\0\1" + b"\xff" * 18, "more than ten bytes", id="a time without an end"),
        pytest.param(b"\0\2" + bytes(9) + b"\0\xff\xff\xff", "more than 64 bits", id="a value wider than a number"),
        pytest.param(b"\0\2" + bytes(9) + b"\0\xc0\x01", "end before its last sample", id="a value that is cut off"),
    ],
)
def test_what_is_no_chunk_is_refused(chunk: bytes, says: str) -> None:
    good = encoded([(START, 1), (START + 1, 2)])
    for pieces in ([chunk], [good, chunk], [chunk, good]):
        with pytest.raises(MalformedChunk, match=says):
            _decoded(pieces)


def test_a_chunk_outside_of_the_data_is_refused() -> None:
    for start, end in ((0, 12), (-1, 5), (5, 3)):
        with pytest.raises(MalformedChunk):
            sample_counts(bytes(11), np.array([start]), np.array([end]))


def _outcome(chunk: bytes) -> list[Sample] | None:
    try:
        return plainly_decoded(chunk)
    except BadBits:
        return None


@given(chunks(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), max_size=4), st.integers(0, 12))
@example([], [], 3)
def test_of_damaged_bytes_both_decoders_say_the_same(
    samples: list[Sample], flips: list[tuple[int, int]], lost: int
) -> None:
    damaged = bytearray(encoded(samples))
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    chunk = bytes(damaged[: max(len(damaged) - lost, 0)])
    expected = _outcome(chunk)
    if expected is None:
        with pytest.raises(MalformedChunk):
            _decoded([chunk])
    else:
        assert _decoded([chunk]) == [expected]


@given(st.binary(max_size=60))
def test_of_any_bytes_both_decoders_say_the_same(chunk: bytes) -> None:
    expected = _outcome(chunk)
    if expected is None:
        with pytest.raises(MalformedChunk):
            _decoded([chunk])
    else:
        assert _decoded([chunk]) == [expected]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"\x0f\xff" + bytes(1_030)] * 8, id="as many samples as bytes can hold"),
        pytest.param([b"\x0f\xff" + bytes(1_030)] + [b"\0\1" + bytes(9)] * 10_000, id="one long among short ones"),
        pytest.param([b"\0\0"] * 50_000 + [encoded([(1, 1)] * 120)], id="empty ones"),
        pytest.param([b"\xff\xff" + bytes(64)] * 1000, id="counts that are lies"),
    ],
)
def test_what_is_allocated_is_bounded_by_the_bytes(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - np.array([len(piece) for piece in pieces])
    tracemalloc.start()
    try:
        decode(data, starts, ends)
    except MalformedChunk:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200 * len(data)
