"""From readings to frames: rows that stay put, unknown where nothing is known, the newest sample where two are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.domain.component import Component, ComponentKind
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from tests.readings import reading_of

START = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"
POWER = "DCGM_FI_DEV_POWER_USAGE"

_Series = tuple[Mapping[str, str], float, float]  # labels, value, age in seconds; an age of NaN is a time not told


def _after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _gpu(uuid: str, **labels: str) -> dict[str, str]:
    return {"UUID": uuid, "gpu": "0", "node": "n1", **labels}


def _reading(
    seconds: float,
    columns: Mapping[str, Sequence[_Series]],
    *,
    silent: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Reading:
    at = _after(seconds)
    told = {
        metric: [(labels, value, at.timestamp() - age) for labels, value, age in series]
        for metric, series in columns.items()
    }
    return reading_of(at, told, silent=silent, warnings=warnings)


def _latest(window: Window, reading: Reading, signal: Signal = Signal.GPU_TEMPERATURE) -> list[float]:
    values: list[float] = window.add(reading).latest(signal).tolist()
    return values


def test_a_sample_that_is_too_old_is_unknown_and_its_age_is_told() -> None:
    window = Window(TopologyRules(), max_age=timedelta(seconds=90))
    frame = window.add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, 91), (_gpu("B"), 41, 90)]}))
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == pytest.approx([np.nan, 41], nan_ok=True)
    assert frame.age_s.tolist() == pytest.approx([91, 90])


def test_the_age_grows_while_a_gpu_is_silent() -> None:
    window = Window(TopologyRules())
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, 5), (_gpu("B"), 40, 5)]}))
    frame = window.add(_reading(30, {TEMPERATURE: [(_gpu("B"), 40, 5)]}))
    assert frame.age_s.tolist() == pytest.approx([35, 5])
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == pytest.approx([np.nan, 40], nan_ok=True)


def test_a_value_without_a_time_counts_and_leaves_the_age_unknown() -> None:
    frame = Window(TopologyRules()).add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, np.nan)]}))
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == [40]
    assert np.isnan(frame.age_s).all()


def test_a_gpu_that_came_late_is_unknown_before() -> None:
    window = Window(TopologyRules())
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, 0)]}))
    frame = window.add(_reading(30, {TEMPERATURE: [(_gpu("B"), 50, 0), (_gpu("A"), 41, 0)]}))
    expected = [[40, np.nan], [41, 50]]
    np.testing.assert_array_equal(frame.signals.gauges[Signal.GPU_TEMPERATURE], expected)
    assert frame.times.tolist() == [-30, 0]


def test_of_an_ha_pair_the_newest_sample_wins_in_either_order() -> None:
    old, new = (_gpu("A", replica="a"), 40.0, 20.0), (_gpu("A", replica="b"), 44.0, 3.0)
    assert _latest(Window(TopologyRules()), _reading(0, {TEMPERATURE: [old, new]})) == [44]
    assert _latest(Window(TopologyRules()), _reading(0, {TEMPERATURE: [new, old]})) == [44]


def test_a_newer_sample_that_is_a_blank_does_not_hide_a_value() -> None:
    blank = (_gpu("A", replica="b"), 9223372036854775794.0, 0.0)
    assert _latest(Window(TopologyRules()), _reading(0, {TEMPERATURE: [blank, (_gpu("A"), 40, 10)]})) == [40]


def test_the_junction_wins_over_the_edge_in_either_order() -> None:
    edge = {"gpu_edge_temperature": [(_gpu("A"), 50.0, 0.0)]}
    junction = {"gpu_junction_temperature": [(_gpu("A"), 70.0, 0.0)]}
    assert _latest(Window(TopologyRules()), _reading(0, edge | junction)) == [70]
    assert _latest(Window(TopologyRules()), _reading(0, junction | edge)) == [70]


def test_a_pod_an_instance_and_a_node_that_change_keep_the_row() -> None:
    window = Window(TopologyRules())
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A", pod="p1", instance="i1"), 40, 0)]}))
    frame = window.add(_reading(30, {TEMPERATURE: [(_gpu("A", pod="p2", instance="i2", node="n2"), 41, 0)]}))
    np.testing.assert_array_equal(frame.signals.gauges[Signal.GPU_TEMPERATURE], [[40], [41]])
    assert [component.node for component in frame.gpus.components] == ["n2"]


def test_labels_that_only_some_metrics_carry_are_put_together() -> None:
    bare = {"UUID": "A"}
    frame = Window(TopologyRules()).add(
        _reading(0, {TEMPERATURE: [(bare, 40, 0)], POWER: [(_gpu("A", rack="r1", hpc_job="j1"), 300, 0)]})
    )
    (component,) = frame.gpus.components
    assert component == Component(ComponentKind.GPU, rack="r1", node="n1", gpu="0", uuid="A", job="j1")


def test_a_job_that_ended_is_forgotten_with_the_next_reading() -> None:
    window = Window(TopologyRules())
    job = _gpu("A", hpc_job="j1")
    window.add(_reading(0, {TEMPERATURE: [(job, 40, 0)], POWER: [(job, 300, 0)]}))
    frame = window.add(_reading(30, {TEMPERATURE: [(_gpu("A"), 40, 0)], POWER: [(_gpu("A"), 70, 0)]}))
    assert [component.job for component in frame.gpus.components] == [None]


def test_a_gpu_that_falls_silent_keeps_the_job_it_had() -> None:
    window = Window(TopologyRules())
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A", hpc_job="j1"), 40, 0), (_gpu("B"), 40, 0)]}))
    frame = window.add(_reading(30, {TEMPERATURE: [(_gpu("B"), 40, 0)]}))
    assert [component.job for component in frame.gpus.components] == ["j1", None]


def test_a_gpu_that_was_long_gone_is_forgotten_and_the_others_keep_their_history() -> None:
    window = Window(TopologyRules(), span=timedelta(hours=3), forget_after=timedelta(hours=1))
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, 0), (_gpu("B"), 50, 0)]}))
    window.add(_reading(3600, {TEMPERATURE: [(_gpu("B"), 51, 0)]}))
    frame = window.add(_reading(3601, {TEMPERATURE: [(_gpu("C"), 60, 0), (_gpu("B"), 52, 0)]}))
    assert [component.uuid for component in frame.gpus.components] == ["B", "C"]
    assert {key: frame.gpus.components[row].key for key, row in frame.gpus.rows.items()} == {
        key: key for key in frame.gpus.rows
    }
    expected = [[50, np.nan], [51, np.nan], [52, 60]]
    np.testing.assert_array_equal(frame.signals.gauges[Signal.GPU_TEMPERATURE], expected)


def test_a_reading_without_columns_keeps_the_fleet_and_shows_it_as_unknown() -> None:
    window = Window(TopologyRules())
    window.add(_reading(0, {TEMPERATURE: [(_gpu("A"), 40, 0)]}))
    frame = window.add(_reading(30, {}))
    assert len(frame.gpus) == 1
    assert np.isnan(frame.latest(Signal.GPU_TEMPERATURE)).all()


def test_history_beyond_the_span_is_dropped() -> None:
    window = Window(TopologyRules(), span=timedelta(seconds=60))
    frames = [window.add(_reading(t, {TEMPERATURE: [(_gpu("A"), t, 0)]})) for t in range(0, 121, 30)]
    np.testing.assert_array_equal(frames[-1].signals.gauges[Signal.GPU_TEMPERATURE], [[60], [90], [120]])


def test_series_that_name_no_gpu_are_counted_in_a_warning() -> None:
    frame = Window(TopologyRules()).add(_reading(0, {TEMPERATURE: [({"job": "x"}, 40, 0), (_gpu("A"), 41, 0)]}))
    assert len(frame.gpus) == 1
    assert frame.warnings == ("1 series name no GPU: neither a UUID nor an index with a host label",)


def test_silent_targets_and_the_warnings_of_a_source_reach_the_frame() -> None:
    frame = Window(TopologyRules()).add(_reading(0, {}, silent=("n1:9400",), warnings=("partial",)))
    assert frame.warnings == ("partial", "n1:9400 did not answer")


def test_measured_rack_power_stands_beside_its_budget() -> None:
    rules = TopologyRules(rack_power="pdu_watts", rack_budget_w={"r2": 30000, "default": 40000})
    window = Window(rules)
    window.add(_reading(0, {"pdu_watts": [({"rack": "r1"}, 100, 0), ({"rack": "r2"}, 200, 0)]}))
    columns = {"pdu_watts": [({"rack": "r2"}, 201.0, 0.0)], TEMPERATURE: [(_gpu("A", rack="r3"), 40.0, 0.0)]}
    frame = window.add(_reading(30, columns))
    assert [component.rack for component in frame.racks.components] == ["r1", "r2", "r3"]
    np.testing.assert_array_equal(frame.racks.power_w, [[100, 200, np.nan], [np.nan, 201, np.nan]])
    assert frame.racks.budget_w.tolist() == [40000, 30000, 40000]


def test_rack_power_that_is_too_old_is_unknown() -> None:
    columns = {"rack_power_watts": [({"rack": "r1"}, 100.0, 91.0)], TEMPERATURE: [(_gpu("A", rack="r1"), 40.0, 0.0)]}
    frame = Window(TopologyRules()).add(_reading(0, columns))
    assert np.isnan(frame.racks.power_w).all()


def test_of_two_measurements_of_a_rack_the_newest_wins() -> None:
    new, old = ({"rack": "r1", "replica": "a"}, 100.0, 1.0), ({"rack": "r1", "replica": "b"}, 90.0, 30.0)
    frame = Window(TopologyRules()).add(_reading(0, {"rack_power_watts": [new, old]}))
    assert frame.racks.power_w.tolist() == [[100]]


_presence = st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=12)


@settings(deadline=None)  # how long a busy machine takes says nothing
@given(ticks=_presence)
def test_whoever_comes_and_goes_a_row_is_always_the_same_gpu(ticks: list[set[int]]) -> None:
    window = Window(TopologyRules(), span=timedelta(hours=1), forget_after=timedelta(seconds=90))
    frames = []
    for tick, present in enumerate(ticks):
        series = [(_gpu(f"U{i}"), float(1000 * tick + i), 0.0) for i in sorted(present, reverse=tick % 2 == 1)]
        frames.append(window.add(_reading(30 * tick, {TEMPERATURE: series})))
        assert len(frames[-1].gpus) == len(frames[-1].age_s)
        history = frames[-1].signals.gauges.get(Signal.GPU_TEMPERATURE)
        for row, component in enumerate(frames[-1].gpus.components):
            assert frames[-1].gpus.rows[component.key] == row
            index = int(str(component.uuid)[1:])
            expected = [1000 * t + index if index in ticks[t] else np.nan for t in range(tick + 1)]
            assert history is not None
            # What was before a GPU was forgotten is gone with its row; what came after is kept.
            known = ~np.isnan(history[:, row])
            np.testing.assert_array_equal(history[known, row], np.array(expected)[known])
            assert (history[-1, row] == expected[-1]) or np.isnan(expected[-1])
    for before, after in pairwise(frames):
        both = set(before.gpus.rows) & set(after.gpus.rows)
        order = [sorted(both, key=frame.gpus.rows.__getitem__) for frame in (before, after)]
        assert order[0] == order[1]
