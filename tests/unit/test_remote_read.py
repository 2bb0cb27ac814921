"""What a remote read's answer is taken to mean: whole series to the bit, or one clear error."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.adapters.http.stream import StreamingServer
from healer.adapters.prometheus.remote_read import RemoteRead, stretches_of
from healer.errors import Rejected, Unavailable
from healer.telemetry.history import Stretch
from healer.telemetry.wire.chunk_frames import FrameReader
from healer.telemetry.wire.protobuf import Malformed, fields
from healer.telemetry.wire.xor_chunks import MalformedChunk
from tests.canned_stream import Streamed, StreamServer, stream_server
from tests.chunk_samples import (
    FLOAT_HISTOGRAM,
    HISTOGRAM,
    Sample,
    bits_of,
    chunk_message,
    delimited,
    encoded,
    frame,
    framed,
    samples_of,
    series_message,
    written,
)

START, END = 1_772_323_200_000, 1_772_326_800_000
POWER = "DCGM_FI_DEV_POWER_USAGE"
STALE, PLAIN_NAN, ODD_NAN = 0x7FF0000000000002, 0x7FF8000000000001, 0xFFF8000000000123


def gpu(number: int, **more: str) -> dict[str, str]:
    return {"__name__": POWER, "UUID": f"GPU-{number}", **more}


def key(number: int, **more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"UUID": f"GPU-{number}", **more}.items()))


def run(first: int, count: int, *, value: float = 1.0) -> list[Sample]:
    """Every 30 seconds, beginning with sample number `first` after START."""
    return [(START + 30_000 * k, bits_of(value + k)) for k in range(first, first + count)]


@pytest.fixture
def web() -> Iterator[StreamServer]:
    with stream_server(lambda _: Streamed()) as server:
        yield server


@pytest.fixture
def remote(web: StreamServer) -> Iterator[RemoteRead]:
    server = StreamingServer(web.url, headers={"X-Extra": "1"}, tenant="gpus", query={"q": "2"}, timeout_s=1.0)
    with closing(server):
        yield RemoteRead(server)


def _answer(web: StreamServer, *pieces: bytes, breaks: bool = False, stalls: bool = False) -> None:
    web.respond = lambda _: Streamed(pieces, breaks=breaks, stalls=stalls)


def _all(remote: RemoteRead, *, start: int = START, end: int = END) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    """Everything, and no series in two stretches."""
    found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for stretch in remote.stretches(POWER, {}, start, end):
        assert (stretch.metric, stretch.start_ms, stretch.end_ms) == (POWER, start, end)
        samples = samples_of(stretch)
        assert not found.keys() & samples.keys()
        found.update(samples)
    return found


def test_the_request_asks_for_streamed_chunks_of_the_span_without_its_end(
    web: StreamServer, remote: RemoteRead
) -> None:
    assert list(remote.stretches(POWER, {"rack": 'a"b'}, START, END)) == []
    (asked,) = web.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/api/v1/read", {"q": "2"})
    assert {name: asked.headers.get(name) for name in ("x-extra", "x-scope-orgid", "content-encoding")} == {
        "x-extra": "1",
        "x-scope-orgid": "gpus",
        "content-encoding": "snappy",
    }
    body = bytes(cramjam.snappy.decompress_raw(asked.body))
    query, types = fields(body, 0, len(body))
    assert body[types.start : types.end] == b"\1"
    start, end, *matchers = fields(body, query.start, query.end)
    assert (start.value, end.value) == (START, END - 1)
    texts = [[body[part.start : part.end] for part in fields(body, one.start, one.end)] for one in matchers]
    assert texts == [[b"__name__", POWER.encode()], [b"rack", b'a"b']]


def test_series_come_with_their_labels_and_without_the_name_of_the_metric(
    web: StreamServer, remote: RemoteRead
) -> None:
    odd = "Größe \n\\ 😀"
    _answer(web, written(gpu(1), run(0, 120)), written(gpu(2, rack=odd, empty=""), run(0, 5)))
    assert _all(remote) == {key(1): run(0, 120), key(2, rack=odd, empty=""): run(0, 5)}


def test_chunks_are_cut_to_the_span(web: StreamServer, remote: RemoteRead) -> None:
    _answer(web, written(gpu(1), run(-5, 10), run(5, 200)), written(gpu(2), run(-5, 5)), written(gpu(3), run(120, 1)))
    assert _all(remote) == {key(1): run(0, 120)}


def test_two_spans_that_touch_bring_each_sample_once(web: StreamServer, remote: RemoteRead) -> None:
    _answer(web, written(gpu(1), run(0, 120)))
    middle = START + 30_000 * 50
    parts = [_all(remote, end=middle)[key(1)], _all(remote, start=middle)[key(1)]]
    assert parts == [run(0, 50), run(50, 70)]


def test_a_series_that_goes_on_in_further_frames_and_pieces_is_one(web: StreamServer, remote: RemoteRead) -> None:
    body = b"".join(written(gpu(1), run(k, 10)) for k in range(0, 100, 10)) + written(gpu(2), run(0, 3))
    for size in (1, 7, 1000):
        _answer(web, *(body[at : at + size] for at in range(0, len(body), size)))
        assert _all(remote) == {key(1): run(0, 100), key(2): run(0, 3)}


def _heavy(number: int, samples: Sequence[Sample]) -> bytes:
    """A frame of a megabyte: most of it is a field that nobody knows."""
    return frame(series_message(gpu(number), [chunk_message(encoded(samples))]), more=delimited(15, bytes(1 << 20)))


def test_series_are_whole_however_many_megabytes_come(web: StreamServer, remote: RemoteRead) -> None:
    frames = [_heavy(number, run(10 * k, 10)) for number in range(6) for k in range(4)]
    frames += [_heavy(6, run(10 * k, 10)) for k in range(12)]
    _answer(web, *frames)
    assert _all(remote) == {**{key(number): run(0, 40) for number in range(6)}, key(6): run(0, 120)}


def test_a_big_answer_comes_as_several_stretches_of_bounded_size(web: StreamServer, remote: RemoteRead) -> None:
    flat = [(START + k, bits_of(1.0)) for k in range(5_000)]
    chunk = chunk_message(encoded(flat))
    _answer(web, *(frame(series_message(gpu(number), [chunk])) for number in range(400)))
    stretches = list(remote.stretches(POWER, {}, START, END))
    assert sum(len(stretch.values) for stretch in stretches) == 400 * len(flat)
    assert max(len(stretch.values) for stretch in stretches) <= 1 << 20


def test_several_series_in_one_frame_are_told_apart(web: StreamServer, remote: RemoteRead) -> None:
    def part(number: int, first: int) -> bytes:
        return series_message(gpu(number), [chunk_message(encoded(run(first, 10)))])

    _answer(web, frame(part(1, 0), part(2, 0)), frame(part(2, 10), part(3, 0)), frame(part(3, 10)))
    assert _all(remote) == {key(1): run(0, 10), key(2): run(0, 20), key(3): run(0, 20)}


def test_chunks_that_overlap_are_put_in_order_and_the_first_sample_of_a_time_stays(
    web: StreamServer, remote: RemoteRead
) -> None:
    _answer(web, written(gpu(1), run(5, 10), run(0, 10, value=7.0), run(20, 2)), written(gpu(2), run(3, 2), run(0, 3)))
    assert _all(remote) == {
        key(1): run(0, 5, value=7.0) + run(5, 10) + run(20, 2),
        key(2): run(0, 5),
    }


def test_stale_markers_are_left_out_and_every_other_nan_keeps_its_bits(web: StreamServer, remote: RemoteRead) -> None:
    bits = [PLAIN_NAN, STALE, ODD_NAN, bits_of(-0.0), STALE, bits_of(5e-324), bits_of(float("-inf"))]
    samples = [(START + k, value) for k, value in enumerate(bits)]
    _answer(web, written(gpu(1), samples), written(gpu(2), [(START, STALE)]))
    assert _all(remote) == {key(1): [sample for sample in samples if sample[1] != STALE]}


def test_of_a_stale_marker_and_a_sample_at_one_time_the_sample_stays(web: StreamServer, remote: RemoteRead) -> None:
    _answer(web, written(gpu(1), [(START, STALE), (START + 1, 5)], [(START, 4)]))
    assert _all(remote) == {key(1): [(START, 4), (START + 1, 5)]}


@pytest.mark.parametrize("kind", [HISTOGRAM, FLOAT_HISTOGRAM])
def test_native_histograms_are_left_out_and_that_is_said(web: StreamServer, remote: RemoteRead, kind: int) -> None:
    chunks = [chunk_message(b"\0\1whatever", kind=kind), chunk_message(encoded(run(0, 3)))]
    _answer(web, frame(series_message(gpu(1), chunks)), frame(series_message(gpu(2), chunks[:1])))
    (stretch,) = remote.stretches(POWER, {}, START, END)
    assert samples_of(stretch) == {key(1): run(0, 3)}
    assert stretch.warnings == (f"{POWER}: 2 chunks of native histograms were left out",)


def test_histograms_alone_are_an_empty_stretch_with_a_warning(web: StreamServer, remote: RemoteRead) -> None:
    _answer(web, frame(series_message(gpu(1), [chunk_message(b"\0\1", kind=HISTOGRAM)])))
    (stretch,) = remote.stretches(POWER, {}, START, END)
    assert (len(stretch.labels), len(stretch.values), len(stretch.warnings)) == (0, 0, 1)


def test_fields_in_another_order_and_unknown_ones_change_nothing(web: StreamServer, remote: RemoteRead) -> None:
    unknown = delimited(9, b"new") + b"\x50\x05" + b"\x59" + bytes(8) + b"\x65" + bytes(4)
    chunk = delimited(4, encoded(run(0, 3))) + b"\x18\x01" + unknown
    series = series_message(gpu(1), [chunk]) + unknown
    _answer(web, frame(series, more=unknown))
    assert _all(remote) == {key(1): run(0, 3)}


GOOD = written(gpu(1), run(0, 5))
_BAD_CHUNK = frame(series_message(gpu(2), [chunk_message(b"\xff\xff" + bytes(20))]))

_NONSENSE = {
    "a wrong checksum": ([GOOD, written(gpu(2), run(0, 5))[:-1] + b"\x07"], "checksum"),
    "a frame that is cut off": ([GOOD, GOOD[:-3]], "ends within a frame"),
    "a frame's size that is cut off": ([GOOD, b"\xff"], "ends within a frame"),
    "a frame of gigabytes": ([GOOD, b"\xff\xff\xff\xff\x7f" + bytes(100)], "a frame of 32767 MiB"),
    "a size without an end": ([GOOD, b"\xff" * 20], "does not end"),
    "the server's own error in the middle": (
        [GOOD, b"query processing would load too many samples"],
        "it says: 'query",
    ),
    "a web page": ([b"<html><body>Please sign in to continue, then come back</body></html>" * 9], "it says: '<html>"),
    "a chunk that lies": ([GOOD, _BAD_CHUNK], "more samples than its bytes"),
    "a chunk without data": ([frame(series_message(gpu(1), [b"\x18\x01"]))], "no data"),
    "a chunk of a kind that is not known": (
        [GOOD, frame(series_message(gpu(2), [chunk_message(encoded(run(0, 1)), kind=4)]))],
        "unknown kind 4",
    ),
    "a series without a name": ([written({"UUID": "GPU-1"}, run(0, 1))], "no name"),
    "a label that is no text": ([frame(delimited(1, delimited(1, b"\xff")))], "not UTF-8"),
    "labels after chunks": (
        [frame(delimited(2, chunk_message(encoded(run(0, 1)))) + delimited(1, delimited(1, b"a")))],
        "no name|labels after its chunks",
    ),
    "a message that is no protobuf": ([framed(b"\x0f\x01")], "wire type 7"),
    "a field that is longer than its message": ([framed(b"\x0a\x7f")], "behind its message"),
}


@pytest.mark.parametrize(("pieces", "says"), _NONSENSE.values(), ids=_NONSENSE)
def test_nonsense_is_one_clear_error_and_nothing_is_delivered(
    web: StreamServer, remote: RemoteRead, pieces: list[bytes], says: str
) -> None:
    _answer(web, *pieces)
    delivered: list[Stretch] = []
    with pytest.raises(Unavailable, match=says) as caught:
        delivered.extend(remote.stretches(POWER, {}, START, END))
    assert delivered == []
    assert caught.value.component == f"prometheus {web.url}"
    assert POWER in caught.value.detail


def test_what_was_delivered_before_the_stream_broke_is_whole(web: StreamServer, remote: RemoteRead) -> None:
    frames = [_heavy(number, run(10 * k, 10)) for number in range(8) for k in range(2)]
    _answer(web, *frames[:-1], breaks=True)
    delivered: list[Stretch] = []
    with pytest.raises(Unavailable, match=r"broke off|closed the connection"):
        delivered.extend(remote.stretches(POWER, {}, START, END))
    found = {series: samples for stretch in delivered for series, samples in samples_of(stretch).items()}
    assert found
    assert found == {key(number): run(0, 20) for number in range(len(found))}


def test_a_server_that_falls_silent_is_given_up(web: StreamServer, remote: RemoteRead) -> None:
    _answer(web, GOOD, stalls=True)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="within 1 s"):
        list(remote.stretches(POWER, {}, START, END))
    assert time.monotonic() - began < 5


def test_a_server_that_drips_is_given_up(web: StreamServer, remote: RemoteRead) -> None:
    web.respond = lambda _: Streamed([b"\0"] * 1000, pause_s=0.05)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="within 1 s"):
        list(remote.stretches(POWER, {}, START, END))
    assert time.monotonic() - began < 5


def test_a_consumer_that_takes_longer_than_the_timeout_is_not_the_server_s_fault(web: StreamServer) -> None:
    _answer(web, *(_heavy(number, run(0, 3)) for number in range(12)))
    found = 0
    with closing(StreamingServer(web.url, headers={}, tenant=None, query={}, timeout_s=0.2)) as server:
        for stretch in RemoteRead(server).stretches(POWER, {}, START, END):
            web.closing.wait(0.3)
            found += len(stretch.labels)
    assert found == 12


_Refusal = tuple[int, type[Unavailable] | type[Rejected], str]
_REFUSALS: list[_Refusal] = [
    (400, Rejected, "refused remote read of .* \\(400: no such tenant\\)"),
    (401, Rejected, "refused the credentials \\(401\\)"),
    (429, Unavailable, "could not answer .* \\(429: no such tenant\\)"),
    (500, Unavailable, "could not answer .* \\(500: no such tenant\\)"),
    (302, Unavailable, "redirects to http://elsewhere/x; configure"),
]


@pytest.mark.parametrize(("status", "error", "says"), _REFUSALS)
def test_a_refusal_says_whose_turn_it_is(
    web: StreamServer, remote: RemoteRead, status: int, error: type[Exception], says: str
) -> None:
    headers = {"Location": "http://user:secret@elsewhere/x?token=1"}
    web.respond = lambda _: Streamed([b"no such\n  tenant"], status=status, content_type="text/plain", headers=headers)
    with pytest.raises(error, match=says):
        list(remote.stretches(POWER, {}, START, END))


def test_an_answer_of_another_type_is_not_read(web: StreamServer, remote: RemoteRead) -> None:
    web.respond = lambda _: Streamed([GOOD], content_type="text/html")
    with pytest.raises(Unavailable, match="of type 'text/html'"):
        list(remote.stretches(POWER, {}, START, END))


def test_nobody_at_the_address_is_said_as_everywhere() -> None:
    server = StreamingServer("http://u:p@127.0.0.1:1", headers={}, tenant=None, query={}, timeout_s=1.0)
    with closing(server), pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1: .*Connection refused"):
        list(RemoteRead(server).stretches(POWER, {}, START, END))


def _mutations(draw: st.DrawFn, message: bytes) -> bytes:
    damaged = bytearray(message)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(damaged) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert", "any"])):
            case "flip":
                damaged[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del damaged[at : at + draw(st.integers(1, 9))]
            case "insert":
                damaged[at:at] = draw(st.binary(max_size=9))
            case _:
                damaged[at] = draw(st.integers(0, 255))
        damaged = damaged or bytearray(1)
    return bytes(damaged)


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    """Frames whose checksums are right and whose messages are not."""
    good = [
        series_message(gpu(number), [chunk_message(encoded(run(0, 9))), chunk_message(encoded(run(9, 3)))])
        for number in range(draw(st.integers(1, 3)))
    ]
    return b"".join(framed(_mutations(draw, delimited(1, one) + b"\x10\x00")) for one in good)


@given(st.one_of(damaged_messages(), st.binary(max_size=200)), st.booleans())
def test_damaged_messages_are_read_or_refused_and_nothing_else(data: bytes, last: bool) -> None:  # noqa: FBT001
    try:
        frames = FrameReader().read(data, last=last)
        assert 0 <= frames.consumed <= len(data)
        for stretch in stretches_of(POWER, (START, END), data, frames):
            assert len(stretch.labels) == len(stretch.lengths)
            assert int(stretch.lengths.sum()) == len(stretch.values) == len(stretch.stamps_ms)
            assert (stretch.lengths > 0).all()
            assert ((stretch.stamps_ms >= START) & (stretch.stamps_ms < END)).all()
            ends = np.cumsum(stretch.lengths)[:-1]
            assert all((np.diff(stamps) > 0).all() for stamps in np.split(stretch.stamps_ms, ends))
    except (Malformed, MalformedChunk):
        pass


@given(st.data())
def test_it_does_not_matter_where_a_stream_is_divided(data: st.DataObject) -> None:
    body = b"".join(
        written(gpu(number), *(run(10 * k + j, 2) for j in (0, 2))) for number in range(4) for k in range(3)
    )
    reader, found, rest = FrameReader(), [], b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        rest += body[begin:end]
        frames = reader.read(rest, last=end == len(body) and begin == ([0, *cuts])[-1])
        found += [(labels["UUID"], count) for labels, count in zip(frames.labels, frames.chunks.tolist(), strict=True)]
        rest = rest[frames.consumed :]
    assert rest == b""
    assert found == [(f"GPU-{number}", 6) for number in range(4)]
