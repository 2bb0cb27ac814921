"""Series are recognised from the bytes of their labels: known ones cost nothing, new ones are looked at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import pytest

from healer.adapters.prometheus.answer import NotAnAnswer, Sample
from healer.adapters.prometheus.series import Known, SeriesBook

TEMPERATURE, POWER = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
_Labels = Mapping[str, str]


def _gpu(number: int, **more: str) -> dict[str, str]:
    return {"UUID": f"GPU-{number}", "Hostname": f"n{number // 8}", "job": "dcgm", **more}


def _answered(book: SeriesBook, query: str, series: Iterable[_Labels], *, name: str | None = None) -> Known:
    """What is known after an answer, whose labels are written in the order of their names, as the engines do."""
    recognition = book.recognise(query)
    named = [{**labels, **({"__name__": name} if name is not None else {})} for labels in series]
    texts = [json.dumps(dict(sorted(labels.items())), separators=(",", ":")).encode() for labels in named]
    for first in range(0, len(texts), 100):
        recognition.take([Sample(msgspec.Raw(text), (1.0, "1")) for text in texts[first : first + 100]])
    recognition.end()
    return recognition.known


def _labels_in_order(book: SeriesBook, known: Known) -> list[_Labels]:
    return [book.label_sets[number] for number in known.shape.series[known.places].tolist()]


def test_an_answer_with_the_series_of_the_one_before_has_the_very_same_arrays() -> None:
    book = SeriesBook(None, ())
    gpus = [_gpu(number) for number in range(1_300)]
    before = _answered(book, TEMPERATURE, gpus, name=TEMPERATURE)
    assert _labels_in_order(book, before) == gpus
    assert _answered(book, TEMPERATURE, gpus, name=TEMPERATURE) is before


def test_metrics_of_the_same_targets_share_their_arrays_in_whatever_order_they_come() -> None:
    book = SeriesBook(None, ())
    gpus = [_gpu(number) for number in range(1_300)]
    temperature = _answered(book, TEMPERATURE, gpus, name=TEMPERATURE)
    power = _answered(book, POWER, gpus[::-1], name=POWER)
    times = _answered(book, f"timestamp({POWER})", gpus)
    assert temperature.shape is power.shape is times.shape
    assert _labels_in_order(book, power) == gpus[::-1]
    assert len(book.label_sets) == len(gpus)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([0, 1, 2, 3], [0, 1, 3], id="one gone"),
        pytest.param([0, 1, 3], [0, 1, 2, 3], id="one new"),
        pytest.param([0, 1, 2, 3], [3, 1, 2, 0], id="another order"),
        pytest.param([0, 1], [2, 3], id="all others"),
        pytest.param(list(range(2_000)), [*range(700), *range(701, 2_000), 2_001], id="far into the answer"),
        pytest.param([0, 1], [], id="none"),
        pytest.param([], [0, 1], id="none before"),
    ],
)
def test_whatever_changes_every_series_keeps_its_own_labels(before: list[int], after: list[int]) -> None:
    book = SeriesBook(None, ())
    _answered(book, TEMPERATURE, [_gpu(number) for number in before], name=TEMPERATURE)
    known = _answered(book, TEMPERATURE, [_gpu(number) for number in after], name=TEMPERATURE)
    assert _labels_in_order(book, known) == [_gpu(number) for number in after]


def test_labels_that_nobody_reads_are_left_out_and_yet_tell_series_apart() -> None:
    book = SeriesBook(frozenset({"UUID"}), ())
    pair = [_gpu(0, replica="a"), _gpu(0, replica="b")]
    known = _answered(book, TEMPERATURE, pair, name=TEMPERATURE)
    assert _labels_in_order(book, known) == [{"UUID": "GPU-0"}] * 2
    assert len(set(known.shape.identities.tolist())) == 2
    times = _answered(book, f"timestamp({TEMPERATURE})", [*pair[::-1], _gpu(1)])
    rows = known.shape.rows_in(times.shape)
    assert times.shape.identities[rows].tolist() == known.shape.identities.tolist()
    assert times.shape.rows_in(known.shape)[times.places].tolist() == [1, 0, -1]


@pytest.mark.parametrize("labels", [{}, {"a": "1"}, {"z": "1"}, {"A": "1"}])
def test_the_name_of_the_metric_is_no_part_of_what_a_series_is(labels: dict[str, str]) -> None:
    book = SeriesBook(None, ())
    named = _answered(book, TEMPERATURE, [labels], name=TEMPERATURE)
    assert _labels_in_order(book, named) == [labels]
    assert _answered(book, f"timestamp({TEMPERATURE})", [labels]).shape is named.shape


def test_the_jobs_of_the_watched_metrics_are_known() -> None:
    book = SeriesBook(frozenset({"job"}), {TEMPERATURE})
    _answered(book, "up == 0", [{"job": "blackbox", "instance": "x"}], name="up")
    _answered(book, TEMPERATURE, [_gpu(0), _gpu(1, job="other"), {"UUID": "GPU-2"}], name=TEMPERATURE)
    assert book.jobs == {"dcgm", "other"}


def test_what_is_gone_is_forgotten_once_it_is_the_most_and_the_living_keep_their_labels() -> None:
    book = SeriesBook(None, ())
    first, sizes = book.label_sets, []
    for turn in range(30):
        gpus = [_gpu(number, pod=f"train-{turn}") for number in range(1_000)]
        for metric in (TEMPERATURE, POWER):
            known = _answered(book, metric, gpus, name=metric)
            assert _labels_in_order(book, known) == gpus
        book.sweep((TEMPERATURE, POWER))
        sizes.append(len(book.label_sets))
        held = _answered(book, TEMPERATURE, gpus, name=TEMPERATURE)
        assert _labels_in_order(book, held) == gpus
        assert held.shape is _answered(book, POWER, gpus, name=POWER).shape
    assert max(sizes) <= 13_000
    assert book.label_sets is not first
    assert first[0] == _gpu(0, pod="train-0")  # readings that were made of them still are


def test_when_the_labels_that_change_are_not_kept_their_texts_are_forgotten_all_the_same() -> None:
    book = SeriesBook(frozenset({"UUID"}), ())
    first = book.label_sets
    for turn in range(30):
        known = _answered(book, TEMPERATURE, [_gpu(number, pod=f"{turn}") for number in range(1_000)], name=TEMPERATURE)
        assert _labels_in_order(book, known) == [{"UUID": f"GPU-{number}"} for number in range(1_000)]
        book.sweep((TEMPERATURE,))
    assert book.label_sets is first
    assert len(first) == 1_000
    assert len(book._texts) < 13_000  # noqa: SLF001 - that memory does not grow has no other sign


def test_queries_that_are_not_asked_any_more_are_forgotten() -> None:
    book = SeriesBook(None, ())
    before = _answered(book, TEMPERATURE, [_gpu(0)], name=TEMPERATURE)
    book.sweep((POWER,))
    assert _answered(book, TEMPERATURE, [_gpu(0)], name=TEMPERATURE) is not before


def test_more_series_than_a_fleet_can_have_are_refused() -> None:
    book = SeriesBook(None, (), most_series=2_000)
    _answered(book, TEMPERATURE, [_gpu(number) for number in range(2_000)], name=TEMPERATURE)
    with pytest.raises(NotAnAnswer, match="more than 2000 series"):
        _answered(book, TEMPERATURE, [_gpu(number) for number in range(2_001)], name=TEMPERATURE)


def test_more_different_labels_than_can_be_held_are_refused() -> None:
    book = SeriesBook(None, (), most_series=1_000)
    for turn in range(3):
        _answered(book, f"m{turn}", [_gpu(number, turn=f"{turn}") for number in range(1_000)])
    with pytest.raises(NotAnAnswer, match="more different labels than can be held, beside 3000"):
        _answered(book, "m3", [_gpu(0, turn="3")])


def test_labels_as_long_as_a_book_are_refused() -> None:
    with pytest.raises(NotAnAnswer, match=r"20\d{3} bytes of labels"):
        _answered(SeriesBook(None, ()), TEMPERATURE, [_gpu(0, pod="x" * 20_000)])


def test_labels_that_are_no_texts_are_refused() -> None:
    recognition = SeriesBook(None, ()).recognise(TEMPERATURE)
    recognition.take([Sample(msgspec.Raw(b'{"a":1}'), (1.0, "1"))])
    with pytest.raises(NotAnAnswer, match="another shape"):
        recognition.end()


def test_series_share_one_number_where_their_labels_are_equal() -> None:
    book = SeriesBook(None, ())
    known = _answered(book, "m", [{"a": "1", "b": ""}, {"a": "1"}])
    np.testing.assert_array_equal(known.shape.series, [0, 0])
