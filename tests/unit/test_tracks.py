"""The history behind a frame: what was shown stays as it was, and what is kept does not grow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.axes import Floats
from healer.domain.signal import Signal
from healer.telemetry.frames.tracks import Tracks

SIGNALS = (Signal.POWER, Signal.GPU_TEMPERATURE, Signal.XID)

_ticks = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.sampled_from(SIGNALS)), st.integers(1, 5)), min_size=1, max_size=40
)


def _row(tick: int, position: int, n: int) -> Floats:
    return 1000.0 * tick + 100 * position + np.arange(n, dtype=np.float64)


@settings(deadline=None)
@given(ticks=_ticks, span=st.integers(1, 12))
def test_every_frame_shows_exactly_the_ticks_of_its_span_and_never_changes(
    ticks: list[tuple[int, set[Signal], int]], span: int
) -> None:
    at, n = 0, 0
    tracks: Tracks[Signal] = Tracks()
    said: list[tuple[int, int, Mapping[Signal, Floats]]] = []
    shown: list[tuple[Mapping[Signal, Floats], Mapping[Signal, Floats]]] = []
    for number, (new_rows, signals, step) in enumerate(ticks):
        at, n = at + step, n + new_rows
        values = {signal: _row(number, SIGNALS.index(signal), n) for signal in signals}
        tracks.append(float(at), values, n)
        tracks.drop_before(float(at - span))
        said.append((at, n, values))
        kept = [entry for entry in said if entry[0] >= at - span]
        views = tracks.views()
        assert tracks.times_s == [float(when) for when, _, _ in kept]
        assert set(views) == {signal for _, _, told in kept for signal in told}
        for signal, view in views.items():
            expected = np.full((len(kept), n), np.nan)
            for row, (_, known, told) in enumerate(kept):
                if signal in told:
                    expected[row, :known] = told[signal]
            np.testing.assert_array_equal(view, expected)
        shown.append((views, {signal: view.copy() for signal, view in views.items()}))
    for earlier, copies in shown:
        for signal, view in earlier.items():
            np.testing.assert_array_equal(view, copies[signal])


def test_only_the_kept_rows_remain_in_their_new_order() -> None:
    tracks: Tracks[Signal] = Tracks()
    tracks.append(0.0, {Signal.POWER: np.array([1.0, 2.0, 3.0])}, 3)
    tracks.append(1.0, {Signal.POWER: np.array([4.0, 5.0, 6.0])}, 3)
    tracks.keep(np.array([2, 0]))
    tracks.append(2.0, {Signal.POWER: np.array([7.0, 8.0, 9.0])}, 3)
    np.testing.assert_array_equal(tracks.views()[Signal.POWER], [[3, 1, np.nan], [6, 4, np.nan], [7, 8, 9]])


def test_a_frame_cannot_be_written_to() -> None:
    tracks: Tracks[Signal] = Tracks()
    tracks.append(0.0, {Signal.POWER: np.zeros(1)}, 1)
    assert not tracks.views()[Signal.POWER].flags.writeable
