"""A frame: what is known at one instant of every GPU, and of what they are in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from healer.domain.axes import NOWHERE_ROW
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import Frame, PortAxis, Presence
from healer.domain.history import Past, Signals, Xids
from healer.domain.signal import PortSignal, Signal
from healer.domain.topology import Place
from tests.frames import frame_of
from tests.kernel_lines import kernel_line
from tests.unit.core_samples import START, gpu, node, rack


def _frame() -> Frame:
    history = np.array([[1.0, np.nan], [2.0, 20.0], [3.0, 30.0]])
    return frame_of(
        [gpu("A"), gpu("B")],
        times=[-60.0, -30.0, 0.0],
        values={Signal.POWER: history},
        rack_power_w=np.array([[100.0], [200.0], [300.0]]),
    )


def test_a_frame_gives_the_newest_values_and_the_history_within_a_span() -> None:
    assert _frame().latest(Signal.POWER).tolist() == [3.0, 30.0]
    assert _frame().window(Signal.POWER, timedelta(seconds=30)).tolist() == [[2.0, 20.0], [3.0, 30.0]]
    assert _frame().rack_window(timedelta(seconds=30)).tolist() == [[200.0], [300.0]]


def test_a_signal_that_nobody_exports_is_unknown_for_every_gpu() -> None:
    assert np.isnan(_frame().latest(Signal.XID)).tolist() == [True, True]
    assert np.isnan(_frame().window(Signal.XID, timedelta(minutes=1))).tolist() == [[True, True]]


def test_a_frame_is_as_long_as_it_has_gpus_and_racks() -> None:
    assert (len(_frame().gpus), len(_frame().racks)) == (2, 1)


@pytest.mark.parametrize(
    ("component", "row"),
    [(gpu("B"), 1), (gpu("C"), None), (rack("r1"), 0), (rack("r2"), None), (node("n1"), 0), (node("n2"), None)],
)
def test_a_component_is_found_on_the_axis_of_its_kind(component: Component, row: int | None) -> None:
    assert _frame().row_of(component) == row


@pytest.mark.parametrize(
    ("component", "age_s"),
    [
        (gpu("A"), 7.0),
        (gpu("B"), None),
        (gpu("Z"), None),
        (node("n1"), 7.0),
        (node("n2"), None),
        (Component(ComponentKind.JOB, job="j1"), 7.0),
        (rack("r1"), 0.0),
        (rack("r2"), None),
        (Component(ComponentKind.POWER_FEED, link="A"), None),
    ],
    ids=str,
)
def test_what_is_known_of_a_component_is_as_old_as_the_newest_sample_of_its_parts(
    component: Component, age_s: float | None
) -> None:
    seen = replace(_frame(), age_s=np.array([7.0, np.nan]))
    assert seen.age_of(component) == pytest.approx(np.nan if age_s is None else age_s, nan_ok=True)


def test_rack_power_that_is_unknown_now_has_no_age() -> None:
    bare = _frame()
    dark = replace(bare, racks=replace(bare.racks, power_w=np.array([[100.0], [200.0], [np.nan]])))
    assert np.isnan(dark.age_of(rack("r1")))


def test_the_gpus_of_a_rack_have_an_age_without_its_meter() -> None:
    bare = replace(_frame(), age_s=np.array([7.0, np.nan]))
    dark = replace(bare, racks=replace(bare.racks, power_w=np.array([[100.0], [200.0], [np.nan]])))
    assert dark.age_of_gpus(rack("r1")) == pytest.approx(7.0)
    assert np.isnan(dark.age_of_gpus(rack("r2")))


def job(name: str) -> Component:
    return Component(ComponentKind.JOB, job=name)


# Two racks of one node each; the third GPU has no job, the fourth belongs to nothing that is known.
MIXED = (
    gpu("A"),
    gpu("B", "n2", rack="r2", job="j2"),
    gpu("C", "n2", rack="r2", job=None),
    replace(gpu("D", None, rack=None), job=None),
)


@pytest.mark.parametrize(
    ("component", "gpus"),
    [
        (gpu("B"), [1]),
        (gpu("Z"), []),
        (node("n2"), [1, 2]),
        (node("n9"), []),
        (rack("r1"), [0]),
        (rack("r9"), []),
        (job("j2"), [1]),
        (job("j9"), []),
        (Component(ComponentKind.LINK, rack="r2", node="n2", link="mlx5_0/1"), [1, 2]),
        (Component(ComponentKind.LINK, link="leaf-1"), [0, 1, 2]),
        (Component(ComponentKind.LINK, link="leaf-9"), []),
        (Component(ComponentKind.POWER_FEED, rack="r2", link="A"), [1, 2]),
        (Component(ComponentKind.POWER_FEED, link="A"), [0]),
        (Component(ComponentKind.POWER_FEED, link="C"), []),
        (Component(ComponentKind.SOURCE, link="prometheus"), []),
    ],
    ids=lambda one: one.key if isinstance(one, Component) else "",
)
def test_a_component_is_made_of_its_gpus(component: Component, gpus: list[int]) -> None:
    places = {"n1": Place(feed="A", switch="leaf-1"), "n2": Place(feed="B", switch="leaf-1"), "n9": Place(feed="C")}
    assert frame_of(MIXED, places=places).parts_of(component).tolist() == gpus


def test_a_switch_has_no_parts_where_nobody_knows_which_nodes_hang_on_it() -> None:
    assert frame_of(MIXED).parts_of(Component(ComponentKind.LINK, link="leaf-1")).tolist() == []


@pytest.mark.parametrize(
    ("component", "row"),
    [(job("j2"), 1), (job("j9"), None), (Component(ComponentKind.LINK, node="n2", link="mlx5_0/1"), None)],
    ids=lambda one: one.key if isinstance(one, Component) else "",
)
def test_a_job_has_a_row_and_what_is_on_no_axis_has_none(component: Component, row: int | None) -> None:
    assert frame_of(MIXED).row_of(component) == row


def test_a_node_is_in_the_rack_that_its_gpus_are_in() -> None:
    homeless = Component(ComponentKind.GPU, node="n2", gpu="0", uuid="X")
    seen = frame_of([gpu("A"), homeless])
    assert [str(node.node) for node in seen.nodes.components] == [gpu("A").node, "n2"]
    assert seen.rack_of_nodes.tolist() == [seen.row_of(rack("r1")), NOWHERE_ROW]


def test_only_what_is_seen_as_it_is_now_is_current() -> None:
    ways = np.array(list(Presence), dtype=np.int8)
    seen = frame_of([gpu(f"U{way}") for way in ways], presence=ways)
    assert seen.current.tolist() == [way is Presence.CURRENT for way in Presence]


def test_axes_are_as_long_as_what_is_on_them() -> None:
    seen = frame_of(MIXED, racks=[rack("r1"), rack("r2"), rack("spare")])
    assert (len(seen.gpus), len(seen.nodes), len(seen.racks), len(seen.jobs), len(seen.ports)) == (4, 2, 3, 2, 0)
    assert [where.key for where in seen.nodes.components] == ["node/n1", "node/n2"]
    assert [where.key for where in seen.racks.components] == ["rack/r1", "rack/r2", "rack/spare"]
    assert seen.racks.rows == {"rack/r1": 0, "rack/r2": 1, "rack/spare": 2}
    times_s = seen.signals.times_s
    port = Component(ComponentKind.LINK, node="n1", link="mlx5_0/1")
    none: Past[PortSignal] = Past(np.empty(0), timedelta(minutes=5), 1)
    assert len(PortAxis((port,), np.array([0]), Signals(times_s, 1), none)) == 1


def test_ticks_are_told_relative_to_the_frame() -> None:
    assert _frame().times.tolist() == [-60, -30, 0]


def test_growth_is_that_of_the_span() -> None:
    errors = np.array([[5.0, 0.0], [7.0, 0.0], [8.0, 2.0]])
    seen = frame_of([gpu("A"), gpu("B")], times=[-60.0, -30.0, 0.0], values={Signal.ECC_DBE_VOLATILE: errors})
    assert seen.growth(Signal.ECC_DBE_VOLATILE, timedelta(minutes=1)).tolist() == [3, 2]
    assert seen.growth(Signal.ECC_DBE_VOLATILE, timedelta(seconds=30)).tolist() == [1, 2]


# XIDs

ECC, LOST, APP = 48, 79, 31


def _with_xids(*entries: tuple[int, int, float, int, bool], reset_s: tuple[float, ...] = (np.inf, np.inf)) -> Frame:
    """Two GPUs; of each entry its row, code, age in seconds, job, and whether it was there before anybody looked."""
    rows, codes, ages_s, jobs, standing = (np.array(column) for column in zip(*entries, strict=True))
    seen_s = START.timestamp() - ages_s
    told = ("gauge",) * len(entries)
    xids = Xids(rows, codes, seen_s, seen_s, np.ones(len(entries), dtype=np.int64), jobs, standing, told)
    return frame_of([gpu("A"), gpu("B")], xids=xids, reset_s=np.array(reset_s))


def test_an_xid_counts_until_its_gpu_starts_anew() -> None:
    seen = _with_xids((0, LOST, 60.0, 0, False), (1, LOST, 60.0, 0, False), reset_s=(30.0, 90.0))
    assert seen.xids_since_reset({LOST}).tolist() == [False, True]
    assert [seen.xid_codes(row, {LOST}) for row in (0, 1)] == [(), (LOST,)]


def test_an_xid_at_the_very_moment_of_a_reset_was_before_it() -> None:
    seen = _with_xids((0, LOST, 60.0, 0, False), reset_s=(60.0, np.inf))
    assert seen.xids_since_reset({LOST}).tolist() == [False, False]


def test_what_was_there_before_anybody_looked_is_told_apart() -> None:
    seen = _with_xids((0, LOST, 60.0, 0, True), (1, LOST, 60.0, 0, False))
    assert seen.xids_since_reset({LOST}).tolist() == [False, True]
    assert seen.xids_since_reset({LOST}, standing=True).tolist() == [True, False]
    assert seen.xid_codes(0, {LOST}) == ()


def test_what_the_kernel_log_tells_is_told_oldest_first_by_gpu_since_that_started_anew() -> None:
    seen = _with_xids(
        (1, LOST, 50.0, 0, False),
        (0, LOST, 90.0, 0, False),
        (0, APP, 80.0, 0, False),
        (0, LOST, 70.0, 1, False),
        reset_s=(85.0, np.inf),
    )
    said = tuple(kernel_line(code=code, why=why) for code, why in ((LOST, "b"), (LOST, "a"), (APP, "c")))
    seen = replace(seen, xids=replace(seen.xids, lines=(*said, None)))
    assert [(row, line.why) for row, line in seen.xid_lines({LOST, APP})] == [(0, "c"), (1, "b")]
    assert seen.xid_lines({ECC}) == ()


def test_without_kernel_logs_there_are_no_lines() -> None:
    assert _with_xids((0, LOST, 60.0, 0, False)).xid_lines({LOST}) == ()


def test_codes_of_a_gpu_are_told_once_each_and_the_newest_first() -> None:
    entries = (
        (0, ECC, 300.0, 0, False),
        (0, APP, 200.0, 0, False),
        (0, ECC, 100.0, 1, False),
        (1, LOST, 50.0, 0, False),
    )
    assert _with_xids(*entries).xid_codes(0, {ECC, APP, LOST}) == (ECC, APP)
    assert _with_xids(*entries).xid_codes(0, {APP}) == (APP,)


def test_jobs_are_counted_that_met_an_xid_on_a_gpu_whatever_was_reset_between() -> None:
    seen = _with_xids(
        (0, APP, 3000.0, 4, False),
        (0, APP, 2000.0, 5, False),
        (0, ECC, 1000.0, 5, False),
        (0, APP, 900.0, NOWHERE_ROW, False),
        (0, APP, 800.0, 6, True),
        (1, APP, 700.0, 4, False),
        reset_s=(10.0, np.inf),
    )
    assert seen.jobs_with_xid({APP, ECC}).tolist() == [2, 1]
    assert seen.jobs_with_xid({LOST}).tolist() == [0, 0]
