"""An answer is the same in whatever pieces it arrives, and nonsense ends soon, small and as what it is."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.adapters.prometheus.answer import NotAnAnswer, OtherKind, Sample, SeriesReader
from healer.adapters.prometheus.series import SeriesBook
from healer.adapters.prometheus.tables import Instants, OneInstant, SeveralInstants, Table
from tests.fuzz.fuzz_json import one_input, seeds, understand

_INSTANTS = Instants(start_ms=10_000, step_ms=500, count=4)
_TEXT = st.text(max_size=12) | st.sampled_from(['"]},{"metric":{', ',{"metric":', '"result":[', "\\", '\\"', "]}]}"])
_LABELS = st.dictionaries(st.text(min_size=1, max_size=4), _TEXT.filter(bool), max_size=4)
_NUMBERS = st.floats(allow_nan=False).map(repr) | st.sampled_from(["NaN", "+Inf", "-Inf", "0", "-0", "1e3"])
_REMARKS = st.fixed_dictionaries(
    {},
    optional={
        "warnings": st.lists(_TEXT, max_size=2) | st.none(),
        "infos": st.lists(_TEXT, max_size=2),
        "isPartial": st.booleans(),
        "stats": st.dictionaries(_TEXT, _TEXT, max_size=2),
    },
)
_SPACING = st.sampled_from([(",", ":"), (", ", ": ")])


def _answer(kind: str, rows: list[dict[str, object]], remarks: Mapping[str, object], spacing: tuple[str, str]) -> bytes:
    before = {name: remarks[name] for name in ("isPartial",) if name in remarks}  # where VictoriaMetrics says it
    whole = {"status": "success", **before, "data": {"resultType": kind, "result": rows}, **remarks}
    return json.dumps(whole, separators=spacing).encode()


def _labels(book: SeriesBook, table: Table) -> list[dict[str, str]]:
    return [dict(book.label_sets[number]) for number in table.shape.series.tolist()]


@given(
    series=st.lists(st.tuples(_LABELS, _NUMBERS), max_size=12, unique_by=lambda one: repr(sorted(one[0].items()))),
    remarks=_REMARKS,
    spacing=_SPACING,
    size=st.integers(1, 200),
)
def test_an_instant_reads_the_same_in_whatever_pieces_it_comes(
    series: list[tuple[dict[str, str], str]], remarks: dict[str, object], spacing: tuple[str, str], size: int
) -> None:
    rows: list[dict[str, object]] = [{"metric": labels, "value": [1.5, text]} for labels, text in series]
    book = SeriesBook(None, ())
    taker = OneInstant(book.recognise("up"))
    said = understand(_answer("vector", rows, remarks, spacing), size, taker)
    assert said is not None
    table = taker.table("up", said)
    without_name = [{name: value for name, value in labels.items() if name != "__name__"} for labels, _ in series]
    assert _labels(book, table) == without_name
    np.testing.assert_array_equal(table.values[:, 0], [float(text) for _, text in series])


@given(
    series=st.lists(
        st.tuples(_LABELS, st.dictionaries(st.integers(0, 3), _NUMBERS, min_size=1)),
        max_size=6,
        unique_by=lambda one: repr(sorted(one[0].items())),
    ),
    spacing=_SPACING,
    size=st.integers(1, 200),
)
def test_a_range_reads_the_same_in_whatever_pieces_it_comes(
    series: list[tuple[dict[str, str], dict[int, str]]], spacing: tuple[str, str], size: int
) -> None:
    rows: list[dict[str, object]] = [
        {"metric": labels, "values": [[10 + k / 2, samples[k]] for k in sorted(samples)]} for labels, samples in series
    ]
    book = SeriesBook(None, ())
    taker = SeveralInstants(book.recognise("up"))
    assert understand(_answer("matrix", rows, {}, spacing), size, taker) == ()
    table = taker.table("up", _INSTANTS, ())
    assert table is not None
    assert table.present.tolist() == [[k in samples for k in range(4)] for _, samples in series]
    expected = [[float(samples.get(k, "nan")) for k in range(4)] for _, samples in series]
    np.testing.assert_array_equal(table.values, np.array(expected).reshape(len(series), 4))


@given(seed=st.sampled_from(seeds()), at=st.floats(0, 1), junk=st.binary(max_size=8), size=st.integers(0, 255))
def test_a_damaged_answer_is_an_answer_or_none_and_nothing_worse(
    seed: bytes, at: float, junk: bytes, size: int
) -> None:
    place = math.floor(at * len(seed))
    for damaged in (seed[1:place], seed[1:place] + junk + seed[place:], seed[1:place] + junk + seed[place + 4 :]):
        one_input(bytes([size]) + damaged)


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_an_answer_or_none_and_nothing_worse(data: bytes) -> None:
    one_input(data)


class _Counter:
    def __init__(self) -> None:
        self.series = 0

    def take(self, rows: list[Sample]) -> None:
        self.series += len(rows)

    def end(self) -> None:
        pass


def _endless(piece: bytes) -> Iterator[bytes]:
    yield b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}'
    repeated = piece * (100_000 // len(piece))
    while True:
        yield repeated


def _feed(reader: SeriesReader[Sample], chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        reader.feed(chunk)


@pytest.mark.parametrize(
    ("piece", "what"),
    [
        pytest.param(b"[", "more than 16 MiB that no series ends in", id="nested without end"),
        pytest.param(b'{"metric":', "more than 16 MiB that no series ends in", id="objects nested without end"),
        pytest.param(b"a long word ", "more than 16 MiB that no series ends in", id="no JSON"),
        pytest.param(b" ", "more than 16 MiB that no series ends in", id="space"),
        pytest.param(b',{"metric":', "no whole JSON", id="only beginnings"),
    ],
)
def test_an_answer_without_end_or_sense_is_given_up_in_little_memory(piece: bytes, what: str) -> None:
    reader = SeriesReader(Sample, _Counter())
    tracemalloc.start()
    try:
        with pytest.raises(NotAnAnswer, match=what):
            _feed(reader, _endless(piece))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_what_has_been_handed_on_is_not_kept() -> None:
    counter = _Counter()
    reader = SeriesReader(Sample, counter)
    chunks = _endless(b',{"metric":{"UUID":"GPU-1"},"value":[1,"1"]}')
    tracemalloc.start()
    try:
        for _ in range(300):  # thirty megabytes
            reader.feed(next(chunks))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert counter.series > 600_000


@pytest.mark.parametrize("kind", ["scalar", "string", "matrix"])
def test_another_kind_of_answer_says_which(kind: str) -> None:
    answer = {"status": "success", "data": {"resultType": kind, "result": [1, "1"]}}
    reader = SeriesReader(Sample, _Counter())
    reader.feed(json.dumps(answer).encode())
    with pytest.raises(OtherKind) as caught:
        reader.finish()
    assert caught.value.kind == kind


def test_an_error_that_comes_after_series_counts_more_than_they() -> None:
    row = '{"metric":{},"value":[1,"1"]}'
    text = f'{{"data":{{"resultType":"vector","result":[{row},{row}]}},"status":"error","error":"broke off"}}'
    reader = SeriesReader(Sample, counter := _Counter(), batch_bytes=1)
    reader.feed(text.encode())
    assert counter.series == 1
    said = reader.finish()
    assert (said.status, said.error) == ("error", "broke off")
