"""History is fetched by the way that the server offers, each sample once; the ways by JSON are exact to the bit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.adapters.prometheus.history import PrometheusHistory
from healer.errors import Rejected, Unavailable
from healer.telemetry.history import PLAIN_NAN_BITS, Progress, Stretch, stretch_of
from healer.telemetry.wire.series import STALE_BITS
from tests.canned_stream import Asked, Streamed, StreamServer, stream_server
from tests.chunk_samples import Sample, bits_of, samples_of

START = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
START_MS = round(START.timestamp() * 1000)
HOUR = timedelta(hours=1)
JSON, LINES = "application/json", "application/stream+json; charset=utf-8"
READ, EXPORT, QUERY = "/api/v1/read", "/api/v1/export", "/api/v1/query"
NOT_FOUND = Streamed([b"404 page not found\n"], status=404, content_type="text/plain")


@pytest.fixture
def web() -> Iterator[StreamServer]:
    with stream_server(lambda _: NOT_FOUND) as server:
        yield server


@pytest.fixture
def history(web: StreamServer) -> Iterator[PrometheusHistory]:
    with closing(PrometheusHistory(web.url, query={"dedup": "true"}, timeout_s=2.0)) as made:
        yield made


def _serve(web: StreamServer, answers: Mapping[str, Streamed]) -> None:
    web.respond = lambda asked: answers.get(asked.path, NOT_FOUND)


def _matrix(series: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, str]]]], **more: object) -> Streamed:
    result = [{"metric": {"__name__": "m"} | dict(labels), "values": values} for labels, values in series]
    data = {"resultType": "matrix", "result": result}
    return Streamed([json.dumps({"status": "success", "data": data, **more}).encode()], content_type=JSON)


def _export(*lines: object) -> Streamed:
    return Streamed([json.dumps(line).encode() + b"\n" for line in lines] + [b"\n"], content_type=LINES)


def _only(stretches: Sequence[Stretch]) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
    (stretch,) = stretches
    return samples_of(stretch)


def _fetched(history: PrometheusHistory, hours: float = 0.5, *metrics: str) -> list[Stretch]:
    return list(history.fetch(metrics or ("m",), START, START + hours * HOUR))


def test_remote_read_is_taken_where_it_is_offered(web: StreamServer, history: PrometheusHistory) -> None:
    _serve(web, {READ: Streamed()})
    assert _fetched(history) == []
    assert [asked.path for asked in web.asked] == [READ, READ]


@pytest.mark.parametrize(
    "answer",
    [
        NOT_FOUND,
        Streamed([b'unsupported path requested: "/api/v1/read"'], status=400, content_type="text/plain"),
        Streamed([b"\x00"], content_type="application/x-protobuf"),  # an old one, which sends samples instead of chunks
        Streamed([b"<html>"], content_type="text/html"),
    ],
)
def test_without_it_an_export_is_taken_and_that_is_asked_once(
    web: StreamServer, history: PrometheusHistory, answer: Streamed
) -> None:
    _serve(web, {READ: answer, EXPORT: _export()})
    for _ in range(2):
        assert _fetched(history) == []
    assert [asked.path for asked in web.asked] == [READ, EXPORT, EXPORT, EXPORT]


def test_without_either_queries_are_taken(web: StreamServer, history: PrometheusHistory) -> None:
    _serve(web, {EXPORT: Streamed([b"<html>"], content_type="text/html"), QUERY: _matrix([])})
    assert _fetched(history) == []
    assert [asked.path for asked in web.asked] == [READ, EXPORT, QUERY, QUERY]


def test_a_server_without_any_way_says_what_each_was_answered(history: PrometheusHistory) -> None:
    with pytest.raises(Rejected, match="remote read says 404; export says 404; queries says 404"):
        _fetched(history)


def test_a_server_that_is_down_does_not_make_another_way_the_choice(
    web: StreamServer, history: PrometheusHistory
) -> None:
    _serve(web, {READ: Streamed(status=503), QUERY: _matrix([])})
    with pytest.raises(Unavailable, match="503"):
        _fetched(history)
    _serve(web, {READ: Streamed(status=401), QUERY: _matrix([])})
    with pytest.raises(Rejected, match="refused the credentials"):
        _fetched(history)
    _serve(web, {READ: Streamed()})
    assert _fetched(history) == []


def _span(asked: Asked) -> tuple[str, int, int]:
    """Of a query: its metric, and its first and last millisecond after START in a Prometheus 3."""
    found = re.fullmatch(r'\{__name__="(.+)"\}\[(\d+)ms\]', asked.query["query"])
    assert found is not None
    last = round(float(asked.query["time"]) * 1000) - START_MS
    return found[1], last - int(found[2]) + 1, last


def test_slices_touch_and_end_where_blocks_end(web: StreamServer, history: PrometheusHistory) -> None:
    _serve(web, {QUERY: _matrix([])})
    seen: list[Progress] = []
    end = START + 3 * HOUR + timedelta(microseconds=1)
    assert list(history.fetch(["a", "b"], START, end, slice_length=2 * HOUR, progress=seen.append)) == []
    minute = 60_000
    spans = [(0, 30 * minute - 1), (30 * minute, 150 * minute - 1), (150 * minute, 180 * minute)]
    assert [_span(asked) for asked in web.asked[3:]] == [(metric, *span) for span in spans for metric in "ab"]
    assert [progress.share for progress in seen] == sorted(progress.share for progress in seen)
    assert (len(seen), seen[-1]) == (6, Progress(1.0, 0))


def test_an_empty_span_asks_for_nothing_and_a_span_without_sense_is_refused(
    web: StreamServer, history: PrometheusHistory
) -> None:
    _serve(web, {READ: Streamed()})
    assert list(history.fetch(["m"], START, START)) == []
    assert [asked.path for asked in web.asked] == [READ]
    for end, length in ((START - HOUR, HOUR), (START + HOUR, timedelta(0))):
        with pytest.raises(ValueError, match="cannot fetch"):
            list(history.fetch(["m"], START, end, slice_length=length))


def test_a_query_s_matrix_is_read_to_the_bit_and_cut_to_the_span(web: StreamServer, history: PrometheusHistory) -> None:
    at = START_MS / 1000
    texts = ["61", "-0", "5e-324", "1.7976931348623157e+308", "+Inf", "-Inf", "NaN", "0.30000000000000004"]
    points = [(at - 0.001, "0"), *((at + k + 0.137, text) for k, text in enumerate(texts))]
    odd = "Größe \n\\ 😀"
    answer = _matrix([({"UUID": "GPU-1", "pod": odd}, points), ({"UUID": "GPU-2"}, points[:1])], warnings=["slow"])
    _serve(web, {QUERY: answer})
    (stretch,) = _fetched(history)
    floats = [61, -0.0, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), 0.30000000000000004]
    bits = [bits_of(value) for value in floats]
    bits.insert(6, PLAIN_NAN_BITS)
    expected = [(START_MS + k * 1000 + 137, value) for k, value in enumerate(bits)]
    assert samples_of(stretch) == {(("UUID", "GPU-1"), ("pod", odd)): expected}
    assert stretch.warnings == ("prometheus: slow",)


def test_a_partial_answer_is_said_even_if_it_is_empty(web: StreamServer, history: PrometheusHistory) -> None:
    _serve(web, {QUERY: _matrix([], isPartial=True)})
    (stretch,) = _fetched(history)
    assert (len(stretch.labels), stretch.warnings) == (0, ("prometheus: the answer is partial",))


def test_native_histograms_in_a_matrix_are_left_out_and_that_is_said(
    web: StreamServer, history: PrometheusHistory
) -> None:
    series = {"metric": {"__name__": "m"}, "histograms": [[1.5, {"count": "2"}]]}
    body = {"status": "success", "data": {"resultType": "matrix", "result": [series]}}
    _serve(web, {QUERY: Streamed([json.dumps(body).encode()], content_type=JSON)})
    (stretch,) = _fetched(history)
    assert stretch.warnings == ("m: the native histograms of 1 series were left out",)


def test_labels_and_configured_parameters_are_asked_for(web: StreamServer) -> None:
    for path, name in ((QUERY, "query"), (EXPORT, "match[]")):
        _serve(web, {path: _matrix([]) if path == QUERY else _export()})
        with closing(PrometheusHistory(web.url, query={"dedup": "true"}, tenant="gpus")) as fresh:
            assert list(fresh.fetch(["m"], START, START + HOUR / 2, labels={"rack": 'a"\\b\n'})) == []
        asked = web.asked[-1]
        assert asked.query[name].startswith('{__name__="m",rack="a\\"\\\\b\\n"}')
        assert (asked.query["dedup"], asked.headers["x-scope-orgid"]) == ("true", "gpus")


def test_what_is_too_much_for_one_answer_is_asked_for_in_halves(web: StreamServer, history: PrometheusHistory) -> None:
    """The server takes ten minutes at most, and has a sample a minute."""

    def respond(asked: Asked) -> Streamed:
        if asked.path != QUERY:
            return NOT_FOUND
        if "healer_probe" in asked.query["query"]:
            return _matrix([])
        _, first, last = _span(asked)
        if last - first >= 600_000:
            return Streamed([b'{"status":"error","error":"too many samples"}'], status=422, content_type=JSON)
        minutes = [minute for minute in range(120) if first <= minute * 60_000 <= last]
        return _matrix([({"UUID": "GPU-1"}, [((START_MS + 60_000 * k) / 1000, str(k)) for k in minutes])])

    web.respond = respond
    stretches = _fetched(history, 2.0)
    samples = [sample for stretch in stretches for sample in _only([stretch])[("UUID", "GPU-1"),]]
    assert samples == [(START_MS + 60_000 * k, bits_of(float(k))) for k in range(120)]
    assert [one.start_ms for one in stretches[1:]] == [one.end_ms for one in stretches[:-1]]
    assert len(web.asked) < 3 + 3 + 20


def test_a_minute_that_is_too_much_is_an_error_with_the_server_s_reason(
    web: StreamServer, history: PrometheusHistory
) -> None:
    def respond(asked: Asked) -> Streamed:
        if asked.path != QUERY or "healer_probe" in asked.query["query"]:
            return _matrix([]) if asked.path == QUERY else NOT_FOUND
        return Streamed([b'{"status":"error","error":"too many samples"}'], status=422, content_type=JSON)

    web.respond = respond
    with pytest.raises(Unavailable, match=r"one minute of m in one answer \(too many samples\)"):
        _fetched(history)


def test_an_export_is_read_to_the_bit_and_without_stale_markers(web: StreamServer, history: PrometheusHistory) -> None:
    values = [412.137, "Infinity", None, "-Infinity", 0, 5e-324]
    stamps = [START_MS + k for k in range(len(values))]
    lines = [
        {"metric": {"__name__": "m", "UUID": "GPU-1"}, "values": values, "timestamps": stamps},
        {"metric": {"__name__": "m", "UUID": "GPU-2"}, "values": [7], "timestamps": [START_MS - 1]},
        {"metric": {"__name__": "m", "UUID": "GPU-3"}, "values": [2, 1], "timestamps": [START_MS + 9, START_MS + 8]},
    ]
    _serve(web, {EXPORT: _export(*lines)})
    floats = [412.137, float("inf"), float("-inf"), 0.0, 5e-324]
    kept = [stamps[k] for k in (0, 1, 3, 4, 5)]
    assert _only(_fetched(history)) == {
        (("UUID", "GPU-1"),): [(at, bits_of(value)) for at, value in zip(kept, floats, strict=True)],
        (("UUID", "GPU-3"),): [(START_MS + 8, bits_of(1.0)), (START_MS + 9, bits_of(2.0))],
    }
    asked = web.asked[-1].query
    assert (float(asked["start"]), float(asked["end"])) == (START_MS / 1000, START_MS / 1000 + 1799.999)


def test_a_big_export_comes_as_several_stretches(web: StreamServer, history: PrometheusHistory) -> None:
    values, stamps = [1] * 200_000, list(range(START_MS, START_MS + 200_000))
    lines = [{"metric": {"UUID": f"GPU-{k}"}, "values": values, "timestamps": stamps} for k in range(8)]
    _serve(web, {EXPORT: _export(*lines)})
    stretches = _fetched(history)
    assert len(stretches) == 2
    assert sorted(labels["UUID"] for stretch in stretches for labels in stretch.labels) == [
        f"GPU-{k}" for k in range(8)
    ]


_GOOD = {"metric": {"UUID": "GPU-1"}, "values": [1], "timestamps": [START_MS]}
_NONSENSE = {
    "an export that is cut off": (EXPORT, [json.dumps(_GOOD).encode() + b"\n" + json.dumps(_GOOD).encode()[:-9]]),
    "an export with fewer times": (EXPORT, [json.dumps({**_GOOD, "timestamps": []}).encode()]),
    "an export with a word": (EXPORT, [json.dumps({**_GOOD, "values": ["word"]}).encode()]),
    "an export with an endless time": (EXPORT, [json.dumps({**_GOOD, "timestamps": [1 << 70]}).encode()]),
    "an error in the middle of an export": (EXPORT, [json.dumps(_GOOD).encode() + b"\ncannot read part 7: EOF"]),
    "a matrix that is cut off": (QUERY, [b'{"status":"success","data":{"resultType":"matrix","result":[']),
    "a vector": (QUERY, [b'{"status":"success","data":{"resultType":"vector","result":[]}}']),
    "a matrix with a word": (QUERY, [_matrix([({}, [(1.5, "word")])]).pieces[0]]),
    "a matrix with a time that is none": (QUERY, [_matrix([({}, [(1e300, "1")])]).pieces[0]]),
    "an error with status 200": (QUERY, [b'{"status":"error","error":"no store"}']),
    "a web page": (QUERY, [b"<html>"]),
    "nothing": (QUERY, []),
    "JSON without an end of depth": (QUERY, [b'{"status":"success","data":' + b"[" * 100_000]),
}


@pytest.mark.parametrize(("path", "pieces"), _NONSENSE.values(), ids=_NONSENSE)
def test_nonsense_is_one_clear_error_and_nothing_is_delivered(
    web: StreamServer, history: PrometheusHistory, path: str, pieces: list[bytes]
) -> None:
    good = {QUERY: _matrix([]), EXPORT: _export()}[path]
    _serve(web, {path: good})
    assert _fetched(history) == []
    _serve(web, {path: Streamed(pieces, content_type=good.content_type)})
    delivered: list[Stretch] = []
    with pytest.raises(Unavailable) as caught:
        delivered.extend(_fetched(history))
    assert delivered == []
    assert caught.value.component == f"prometheus {web.url}"
    assert str(caught.value).isprintable()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-3, 12), st.sampled_from([STALE_BITS, PLAIN_NAN_BITS, 0, 1, 2])), max_size=12),
        max_size=5,
    )
)
def test_a_stretch_has_each_series_whole_in_order_and_each_time_once(written: list[list[tuple[int, int]]]) -> None:
    lengths = np.array([len(samples) for samples in written], dtype=np.int64)
    flat = [sample for samples in written for sample in samples]
    stamps = np.array([at for at, _ in flat], dtype=np.int64)
    values = np.array([bits for _, bits in flat], dtype=np.int64).view(np.float64)
    labels = [{"UUID": f"{number}"} for number in range(len(written))]
    stretch = stretch_of("m", (0, 10), labels, (lengths, stamps, values))
    expected = {}
    for number, samples in enumerate(written):
        kept: dict[int, int] = {}
        for at, bits in samples:
            if 0 <= at < 10 and bits != STALE_BITS:
                kept.setdefault(at, bits)
        if kept:
            expected[("UUID", f"{number}"),] = sorted(kept.items())
    assert samples_of(stretch) == expected
