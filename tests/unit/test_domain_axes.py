"""Groups of GPUs: what is worked out over all of them at once is what each by itself would give."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from healer.domain.axes import GroupAxis, grouped_medians, numbered
from healer.domain.component import Component, ComponentKind

_values = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")))


def _axis(of_gpu: list[int], n: int = 3) -> GroupAxis:
    return GroupAxis.of(
        [Component(ComponentKind.NODE, node=f"n{i}") for i in range(n)], np.array(of_gpu, dtype=np.int64)
    )


@given(pairs=st.lists(st.tuples(st.integers(-1, 2), _values), max_size=30))
def test_the_median_of_each_group_is_that_of_its_known_values(pairs: list[tuple[int, float]]) -> None:
    groups = np.array([group for group, _ in pairs], dtype=np.int64)
    values = np.array([value for _, value in pairs], dtype=np.float64)
    found = grouped_medians(groups, values, 3)
    for group in range(3):
        own = [value for mine, value in pairs if mine == group and not np.isnan(value)]
        if own:
            assert found[group] == np.median(own)
        else:
            assert np.isnan(found[group])


def test_groups_count_sum_and_spread() -> None:
    axis = _axis([0, 0, 1, -1])
    values = np.array([1.0, np.nan, 5.0, 9.0])
    assert axis.sizes.tolist() == [2, 1, 0]
    assert axis.members(0).tolist() == [0, 1]
    assert axis.count(np.array([True, True, False, True])).tolist() == [2, 0, 0]
    assert axis.sums(values).tolist() == [1, 5, 0]
    np.testing.assert_array_equal(axis.means(values), [1, 5, np.nan])
    np.testing.assert_array_equal(axis.medians(values), [1, 5, np.nan])
    np.testing.assert_array_equal(axis.spread(np.array([7.0, 8.0, 9.0])), [7, 7, 8, np.nan])


def test_without_any_group_nothing_is_spread() -> None:
    assert np.isnan(_axis([-1, -1], 0).spread(np.empty(0))).tolist() == [True, True]


def test_equal_names_have_equal_numbers() -> None:
    assert numbered(["a", "b", "a"]).tolist() == [0, 1, 0]
