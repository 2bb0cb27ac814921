"""How the rows of one GPU's parts make one number, and which of two equal labels is the exporter's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.telemetry.catalogue.spelling import Combine, combined, label_of

_Row = tuple[int, int, float, float]  # GPU, part, time, value

_ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 4),
        st.one_of(st.integers(0, 5).map(float), st.just(float("nan"))),
        st.one_of(st.integers(-9, 9).map(float), st.just(float("nan"))),
    ),
    max_size=25,
)


def _combined(combine: Combine, rows: list[_Row], n: int = 4) -> list[float]:
    gpus, parts, times, values = (np.array(column) for column in (zip(*rows, strict=True) if rows else [()] * 4))
    together = combined(
        combine,
        gpus.astype(np.int64),
        parts.astype(np.int64),
        times=times.astype(np.float64),
        values=values.astype(np.float64),
        n=n,
    )
    return [float(value) for value in together]


def test_the_links_of_a_gpu_add_up() -> None:
    assert _combined(Combine.SUM, [(0, 0, 1, 3), (0, 1, 1, 4), (1, 0, 1, 5)], 2) == [7, 5]


def test_the_worst_health_check_is_the_gpus() -> None:
    assert _combined(Combine.MAX, [(0, 0, 1, 0), (0, 1, 1, 20), (0, 2, 1, 10)], 1) == [20]


def test_the_lowest_state_of_a_link_is_the_gpus() -> None:
    assert _combined(Combine.MIN, [(0, 0, 1, 1), (0, 1, 1, 0), (0, 2, 1, 1)], 1) == [0]


@pytest.mark.parametrize("combine", [Combine.SUM, Combine.MAX, Combine.MIN])
def test_a_part_that_is_told_twice_counts_once_with_its_newest_value(combine: Combine) -> None:
    pair = [(0, 0, 5.0, 3.0), (0, 0, 9.0, 4.0)]
    assert _combined(combine, pair, 1) == [4]
    assert _combined(combine, pair[::-1], 1) == [4]


def test_a_value_whose_time_is_not_told_gives_way_to_one_whose_is() -> None:
    assert _combined(Combine.SUM, [(0, 0, 9, 3), (0, 0, float("nan"), 4)], 1) == [3]


def test_a_part_without_a_value_does_not_count() -> None:
    assert _combined(Combine.SUM, [(0, 0, 1, 3), (0, 1, 1, float("nan"))], 1) == [3]


def test_a_gpu_without_any_part_is_unknown() -> None:
    assert _combined(Combine.SUM, [], 2) == pytest.approx([np.nan, np.nan], nan_ok=True)
    assert _combined(Combine.MAX, [(1, 0, 1, 3)], 2) == pytest.approx([np.nan, 3], nan_ok=True)


@pytest.mark.parametrize(("combine", "fold"), [(Combine.SUM, sum), (Combine.MAX, max), (Combine.MIN, min)])
@given(rows=_ROWS)
def test_many_rows_at_once_are_the_same_as_one_after_the_other(
    combine: Combine, fold: Callable[[list[float]], float], rows: list[_Row]
) -> None:
    newest: dict[tuple[int, int], tuple[float, float]] = {}
    for gpu, part, time, value in rows:
        when = -np.inf if np.isnan(time) else time
        if not np.isnan(value) and when >= newest.get((gpu, part), (-np.inf, 0.0))[0]:
            newest[gpu, part] = (when, value)
    parts = defaultdict(list)
    for (gpu, _), (_, value) in newest.items():
        parts[gpu].append(value)
    expected = [fold(parts[gpu]) if gpu in parts else np.nan for gpu in range(4)]
    assert _combined(combine, rows) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, None),
        ({"pod": ""}, None),
        ({"pod": "a"}, "a"),
        ({"pod": "exporter-1", "exported_pod": "train-0"}, "train-0"),
        ({"pod": "exporter-1", "exported_pod": ""}, "exporter-1"),
    ],
)
def test_the_exporters_own_label_comes_before_the_scrapers(labels: dict[str, str], expected: str | None) -> None:
    assert label_of(labels, "pod") == expected
