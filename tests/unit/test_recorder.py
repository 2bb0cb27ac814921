"""What leaves the window goes into the past, in slots, unless it was found sick."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from healer.domain.axes import Floats
from healer.domain.signal import Signal
from healer.telemetry.frames.recorder import Recorder

SPAN = timedelta(minutes=10)
REMEMBERED = (Signal.POWER, Signal.PCIE_REPLAY)


def _recorder() -> Recorder[Signal]:
    return Recorder(span=SPAN, steps=lambda signal: signal is Signal.PCIE_REPLAY, remembered=REMEMBERED)


def _run(recorder: Recorder[Signal], minutes: range, power: float, *, sick: list[bool] | None = None) -> None:
    for minute in minutes:
        values: dict[Signal, Floats] = {
            Signal.POWER: np.array([power, power + 1]),
            Signal.PCIE_REPLAY: np.array([0.0, float(minute)]),
            Signal.GPU_TEMPERATURE: np.array([50.0, 50.0]),
        }
        recorder.append(60.0 * minute, values, 2, None if sick is None else np.array(sick))


def test_the_window_holds_its_span_and_what_was_before_is_the_past() -> None:
    recorder = _recorder()
    _run(recorder, range(31), 100.0)
    assert recorder.signals().times_s.tolist() == [60.0 * minute for minute in range(20, 31)]
    past = recorder.past()
    assert past.times_s.tolist() == [300.0, 600.0, 900.0], "the slot that is not over is no mean yet"
    np.testing.assert_array_equal(past.mean(Signal.POWER), [[100, 101]] * 3)


def test_counters_count_from_one_slot_to_the_next() -> None:
    recorder = _recorder()
    _run(recorder, range(31), 100.0)
    in_window = recorder.signals().growth(Signal.PCIE_REPLAY, SPAN)
    assert in_window.tolist() == [0, 10]
    # From minute 0 to minute 20, the last five of it in a slot that is not over.
    assert (recorder.past().growth(Signal.PCIE_REPLAY) + in_window).tolist() == [0, 29]
    assert recorder.past().most_grown(Signal.PCIE_REPLAY).tolist() == [0, 5]


def test_only_what_somebody_compares_with_is_remembered() -> None:
    recorder = _recorder()
    _run(recorder, range(31), 100.0)
    assert recorder.past().mean(Signal.GPU_TEMPERATURE).shape == (0, 2)


def test_what_was_found_sick_by_the_time_it_leaves_the_window_is_not_learnt() -> None:
    recorder = _recorder()
    _run(recorder, range(20), 100.0)
    _run(recorder, range(20, 22), 200.0)  # it begins, and is not found yet
    _run(recorder, range(22, 60), 200.0, sick=[False, True])
    power = recorder.past().mean(Signal.POWER)
    assert power[-1].tolist() == [200, pytest.approx(np.nan, nan_ok=True)]
    assert np.nanmax(power[:, 1]) == 101, "not even its first minutes"


def test_the_past_goes_back_some_hours_and_no_further() -> None:
    recorder = _recorder()
    _run(recorder, range(8 * 60), 100.0)
    past = recorder.past()
    assert past.times_s[-1] - past.times_s[0] == 6 * 3600
    assert len(past.grown[Signal.PCIE_REPLAY]) == len(past.times_s) + 1


# What was counted while nobody looked


def _count(recorder: Recorder[Signal], minutes: range, *counts: float) -> None:
    for minute in minutes:
        recorder.append(60.0 * minute, {Signal.PCIE_REPLAY: np.array(counts)}, len(counts))


DAYS = 2 * 24 * 60


# Six minutes, ten, eleven, six hours; and more than the past goes back.
UNSEEN = [
    (6, 300.0, 300.0),
    (10, 300.0, 300.0),
    (11, 300.0, 100.0),
    (360, 300.0, 300.0 / 72),
    (361, 0, 0),
    (DAYS, 0, 0),
]


@pytest.mark.parametrize(("unseen", "learnt", "at_once"), UNSEEN)
def test_what_was_counted_while_nobody_looked_for_longer_than_the_window_is_no_burst_and_of_days_none_of_hours(
    unseen: int, learnt: float, at_once: float
) -> None:
    recorder = _recorder()
    _count(recorder, range(30), 7)
    back = 29 + unseen
    _count(recorder, range(back, back + 3), 307)
    _count(recorder, range(back + 3, back + 40), 309)
    past = recorder.past()
    assert past.growth(Signal.PCIE_REPLAY).tolist() == pytest.approx([learnt + 2])
    assert past.most_grown(Signal.PCIE_REPLAY)[0] == pytest.approx(max(at_once, 2), abs=2)


@pytest.mark.parametrize(("unseen", "learnt", "at_once"), UNSEEN[:-1])
def test_nor_is_what_one_row_counted_while_it_alone_was_unseen(unseen: int, learnt: float, at_once: float) -> None:
    recorder = _recorder()
    _count(recorder, range(10), 0, 0, 7)
    recorder.keep(np.array([2, 1]))
    _count(recorder, range(10, 30), 7, 20)
    back = 29 + unseen
    _count(recorder, range(30, back), np.nan, 25)
    _count(recorder, range(back, back + 40), 307, 25)
    recorder.keep(np.array([1, 0]))
    assert recorder.past().growth(Signal.PCIE_REPLAY).tolist() == pytest.approx([25 if unseen < 60 else 0, learnt])
    assert recorder.past().most_grown(Signal.PCIE_REPLAY)[1] == pytest.approx(at_once)


def test_after_a_gap_of_days_what_was_hours_before_it_is_not_hours_ago() -> None:
    recorder = _recorder()
    _run(recorder, range(33), 100.0)
    _run(recorder, range(DAYS, DAYS + 1), 100.0)
    past = recorder.past()
    assert past.growth(Signal.PCIE_REPLAY).tolist() == [0, 0]
    assert past.mean(Signal.POWER).shape == (0, 2)


def test_after_a_gap_of_an_hour_it_is() -> None:
    recorder = _recorder()
    _run(recorder, range(33), 100.0)
    _run(recorder, range(93, 94), 100.0)
    past = recorder.past()
    assert past.growth(Signal.PCIE_REPLAY).tolist() == [0, 32]
    assert past.times_s.tolist() == [300.0 * slot for slot in range(1, 8)], "the slot before the gap is over"


def test_a_row_that_came_later_is_unknown_before() -> None:
    recorder = _recorder()
    _run(recorder, range(20), 100.0)
    for minute in range(20, 60):
        recorder.append(60.0 * minute, {Signal.POWER: np.array([100.0, 101.0, 300.0])}, 3)
    power = recorder.past().mean(Signal.POWER)
    assert np.isnan(power[0, 2])
    assert power[-1].tolist() == [100, 101, 300]


def test_only_the_kept_rows_remain() -> None:
    recorder = _recorder()
    _run(recorder, range(33), 100.0)
    recorder.keep(np.array([1]))
    assert recorder.past().mean(Signal.POWER).tolist() == [[101]] * 4
    assert recorder.past().growth(Signal.PCIE_REPLAY).tolist() == [21]
    assert recorder.signals().latest(Signal.PCIE_REPLAY).tolist() == [32]
    assert recorder.signals().growth(Signal.PCIE_REPLAY, SPAN).tolist() == [10]


def test_the_past_is_worked_out_once_for_each_slot() -> None:
    recorder: Recorder[Signal] = Recorder(span=SPAN, steps=lambda _signal: False, remembered=(Signal.POWER,))
    seen = []
    for minute in range(40):
        recorder.append(60.0 * minute, {Signal.POWER: np.array([1.0])}, 1)
        seen.append(recorder.past())
    assert len({id(past) for past in seen}) == len(seen[-1].times_s) + 1
