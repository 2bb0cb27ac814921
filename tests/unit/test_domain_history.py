"""What is kept of the history says the same as the whole history would."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.axes import Floats
from healer.domain.history import Past, Signals, Steps, Xids, growth_of
from healer.domain.signal import Signal
from healer.telemetry.frames.changes import Changes

_cell = st.sampled_from([0.0, 1.0, 2.0, 7.0, float("nan")])


@st.composite
def _histories(draw: st.DrawFn) -> list[list[float]]:
    """By tick, the values of the rows that are known by then; rows only come to them."""
    sizes = sorted(draw(st.lists(st.integers(1, 4), min_size=1, max_size=9)))
    return [draw(st.lists(_cell, min_size=size, max_size=size)) for size in sizes]


def _dense(history: list[list[float]]) -> Floats:
    n = len(history[-1])
    return np.array([row + [np.nan] * (n - len(row)) for row in history])


def _steps(history: list[list[float]], *, dropped: int = 0) -> Steps:
    changes: Changes[Signal] = Changes()
    for tick, row in enumerate(history):
        changes.append(float(tick), {Signal.XID: np.array(row)}, len(row))
    for _ in range(dropped):
        changes.drop_first()
    return changes.steps()[Signal.XID]


@settings(deadline=None)
@given(history=_histories(), data=st.data())
def test_the_changes_tell_every_value_of_the_window(history: list[list[float]], data: st.DataObject) -> None:
    dense = _dense(history)
    dropped = data.draw(st.integers(0, len(history) - 1))
    kept = dense[dropped:]
    times_s = np.arange(len(history), dtype=np.float64)[dropped:]
    first = data.draw(st.integers(0, len(kept) - 1))
    steps = _steps(history, dropped=dropped)
    np.testing.assert_array_equal(steps.window(first, times_s), kept[first:])
    for row in range(dense.shape[1]):
        np.testing.assert_array_equal(steps.of_row(row, times_s), kept[:, row])


@settings(deadline=None)
@given(history=_histories(), data=st.data())
def test_growth_is_summed_over_resets_and_gaps_as_over_all_values(
    history: list[list[float]], data: st.DataObject
) -> None:
    dense = _dense(history)
    first = data.draw(st.integers(0, len(history) - 1))
    # A counter that was unknown at the first tick is compared with what it was before, which the values do not tell.
    before = dense[: first + 1]
    last = np.array([next((v for v in before[::-1, row] if not np.isnan(v)), np.nan) for row in range(dense.shape[1])])
    expected = growth_of(np.vstack([last, dense[first + 1 :]]))
    steps = _steps(history)
    np.testing.assert_array_equal(steps.growth(first), expected)
    grew = [growth_of(np.vstack([_filled(dense[: t + 1]), dense[t + 1]])) > 0 for t in range(first, len(dense) - 1)]
    np.testing.assert_array_equal(steps.growing_ticks(first), np.sum(grew, axis=0) if grew else np.zeros(len(last)))


def _filled(before: Floats) -> Floats:
    return np.array([next((v for v in column[::-1] if not np.isnan(v)), np.nan) for column in before.T])


def _signals() -> Signals[Signal]:
    gauge = np.array([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0]])
    steps = _steps([[0.0, 0.0], [0.0, 5.0], [2.0, 5.0]])
    return Signals(np.array([0.0, 30.0, 60.0]), 2, {Signal.POWER: gauge}, {Signal.XID_ERRORS: steps})


def test_gauges_and_counters_are_asked_alike() -> None:
    signals = _signals()
    assert signals.latest(Signal.POWER).tolist() == [3, 30]
    assert signals.latest(Signal.XID_ERRORS).tolist() == [2, 5]
    assert signals.window(Signal.POWER, timedelta(seconds=30)).shape == (2, 2)
    assert signals.growth(Signal.POWER, timedelta(minutes=1)).tolist() == [2, 20]
    assert signals.growth(Signal.XID_ERRORS, timedelta(minutes=1)).tolist() == [2, 5]
    assert signals.growth(Signal.XID_ERRORS, timedelta(seconds=30)).tolist() == [2, 0]
    assert signals.growing_ticks(Signal.XID_ERRORS, timedelta(minutes=1)).tolist() == [1, 1]
    assert signals.of_row(Signal.POWER, 0).tolist() == [1, 2, 3]
    assert Signal.POWER in signals
    assert Signal.XID_ERRORS in signals


def test_what_nobody_offers_is_unknown_and_has_not_grown() -> None:
    signals = _signals()
    assert np.isnan(signals.latest(Signal.ENERGY)).all()
    assert np.isnan(signals.window(Signal.ENERGY, timedelta(minutes=1))).all()
    assert np.isnan(signals.of_row(Signal.ENERGY, 1)).tolist() == [True, True, True]
    assert signals.growth(Signal.ENERGY, timedelta(minutes=1)).tolist() == [0, 0]
    assert signals.growing_ticks(Signal.POWER, timedelta(minutes=1)).tolist() == [0, 0]
    assert Signal.ENERGY not in signals


def test_before_the_first_tick_there_is_none() -> None:
    none: Signals[Signal] = Signals(np.empty(0), 0)
    assert none.first_tick(timedelta(minutes=1)) == 0


def _past() -> Past[Signal]:
    means = {
        Signal.POWER: np.array([[100, 100], [200, np.nan], [300, 300]], dtype=np.float32),
        Signal.GPU_TEMPERATURE: np.array([[30, 40], [np.nan, 50], [50, 60]], dtype=np.float32),
    }
    grown = {Signal.XID_ERRORS: [(np.array([1]), np.array([4.0])), (np.array([0, 1]), np.array([1.0, 3.0]))]}
    return Past(np.array([300.0, 600.0, 900.0]), timedelta(minutes=5), 2, means, grown)


def test_the_past_knows_means_growth_and_lines() -> None:
    past = _past()
    assert past.mean(Signal.POWER).shape == (3, 2)
    assert past.mean(Signal.ENERGY).shape == (0, 2)
    assert past.growth(Signal.XID_ERRORS).tolist() == [1, 7]
    assert past.most_grown(Signal.XID_ERRORS).tolist() == [1, 4]
    assert past.growth(Signal.ENERGY).tolist() == [0, 0]
    assert past.once("sum", lambda: [1]) is past.once("sum", lambda: [2])


@pytest.mark.parametrize(("codes", "hits"), [((79,), [True, False]), ((48, 31), [False, True]), ((), [False, False])])
def test_xids_are_looked_up_by_their_codes(codes: tuple[int, ...], hits: list[bool]) -> None:
    xids = Xids(
        rows=np.array([0, 1]),
        codes=np.array([79, 31]),
        first_s=np.zeros(2),
        last_s=np.zeros(2),
        counts=np.ones(2, dtype=np.int64),
        jobs=np.zeros(2, dtype=np.int64),
        standing=np.zeros(2, dtype=np.bool_),
        told=("gauge", "recent"),
    )
    assert len(xids) == 2
    assert xids.among(codes).tolist() == hits
