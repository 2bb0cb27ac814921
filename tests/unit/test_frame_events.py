"""XIDs, restarts and exporters that leave a GPU out: what the window notices beside the values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from healer.domain.frame import Frame, Presence
from healer.telemetry.frames.window import Window
from healer.telemetry.frames.xid_log import XidLog
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.kernel_lines import kernel_line
from tests.readings import Series, reading_of

START = datetime(2026, 3, 1, tzinfo=UTC)
XID, RECENT, TOTAL = "DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT", "DCGM_EXP_XID_ERRORS_TOTAL"
ENERGY, TEMPERATURE, DBE = (
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
)


def labels(gpu: int = 0, *, job: str | None = "j1", **more: str) -> dict[str, str]:
    named = {"UUID": f"GPU-{gpu}", "gpu": str(gpu), "node": "n1", "instance": "n1:9400", **more}
    return named if job is None else named | {"hpc_job": job}


class Watch:
    def __init__(self) -> None:
        self.window = Window(TopologyRules())
        self.sets = LabelSets()

    def see(self, seconds: float, columns: Mapping[str, list[tuple[dict[str, str], float]]], **ages_s: float) -> Frame:
        at = START + timedelta(seconds=seconds)
        told: dict[str, list[Series]] = {
            metric: [(who, value, at.timestamp() - ages_s.get(f"gpu{who['gpu']}", 0.0)) for who, value in series]
            for metric, series in columns.items()
        }
        return self.window.add(reading_of(at, told, label_sets=self.sets))


def seen(frame: Frame) -> list[tuple[int, int, str, bool]]:
    xids = frame.xids
    return [
        (row, code, told, standing)
        for row, code, told, standing in zip(
            xids.rows.tolist(), xids.codes.tolist(), xids.told, xids.standing.tolist(), strict=True
        )
    ]


def test_only_the_change_of_the_last_xid_is_news() -> None:
    watch = Watch()
    assert seen(watch.see(0, {XID: [(labels(), 79.0)]})) == [(0, 79, "gauge", True)]
    assert seen(watch.see(30, {XID: [(labels(), 79.0)]})) == [(0, 79, "gauge", True)]
    assert seen(watch.see(60, {XID: [(labels(), 31.0)]})) == [(0, 79, "gauge", True), (0, 31, "gauge", False)]


def test_the_same_xid_after_a_gap_is_not_another_one() -> None:
    watch = Watch()
    watch.see(0, {XID: [(labels(), 0.0)]})
    watch.see(30, {XID: [(labels(), 31.0)]})
    watch.see(60, {TEMPERATURE: [(labels(), 50.0)]})
    frame = watch.see(90, {XID: [(labels(), 31.0)]})
    assert frame.xids.counts.tolist() == [1]


def test_counts_by_code_tell_of_the_same_one_again_and_again() -> None:
    watch = Watch()
    counts = (1.0, 1.0, 3.0, 2.0, 3.0)  # it falls as its window moves on
    frames = [watch.see(30 * turn, {RECENT: [(labels(xid="13"), count)]}) for turn, count in enumerate(counts)]
    frame = frames[-1]
    assert seen(frame) == [(0, 13, "recent", False)]
    assert frame.xids.counts.tolist() == [4]


def test_a_total_that_was_there_from_the_beginning_is_old_and_one_that_appears_is_new() -> None:
    watch = Watch()
    frame = watch.see(0, {TOTAL: [(labels(xid="119"), 2.0)]})
    assert seen(frame) == [(0, 119, "total", True)]
    frame = watch.see(30, {TOTAL: [(labels(xid="119"), 2.0), (labels(xid="62"), 1.0)]})
    assert seen(frame) == [(0, 119, "total", True), (0, 62, "total", False)]


def test_xids_are_told_apart_by_the_job_that_met_them() -> None:
    watch = Watch()
    watch.see(0, {XID: [(labels(job="a"), 0.0)]})
    watch.see(30, {XID: [(labels(job="a"), 31.0)]})
    watch.see(60, {XID: [(labels(job="b"), 13.0)]})
    frame = watch.see(90, {XID: [(labels(job="b"), 31.0)]})
    assert frame.jobs_with_xid((31,)).tolist() == [2]
    assert frame.jobs_with_xid((13,)).tolist() == [1]
    assert frame.xid_codes(0, (13, 31)) == (31, 13)


def test_a_day_later_an_xid_is_forgotten() -> None:
    watch = Watch()
    watch.see(0, {XID: [(labels(), 0.0)]})
    watch.see(30, {XID: [(labels(), 31.0)]})
    assert seen(watch.see(24 * 3600 + 31, {XID: [(labels(), 31.0)]})) == []


def test_however_many_there_are_the_memory_of_xids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.telemetry.frames.xid_log._MOST_ENTRIES", 3)
    log = XidLog()
    for number in range(10):
        log.note(0, kernel_line(code=number, at=datetime.fromtimestamp(number, UTC)), 0)
    log.forget(10.0)
    assert sorted(log.shown().codes.tolist()) == [7, 8, 9]


@pytest.mark.parametrize(
    ("metric", "before", "after"),
    [(ENERGY, 9e9, 5e3), (DBE, 2.0, 0.0), (XID, 48.0, 0.0)],
    ids=["the energy of the driver's life", "errors since the driver was loaded", "the last XID is gone"],
)
def test_a_gpu_that_starts_anew_is_noticed(metric: str, before: float, after: float) -> None:
    watch = Watch()
    watch.see(0, {metric: [(labels(), before)]})
    assert np.isinf(watch.see(30, {metric: [(labels(), before)]}).reset_s).tolist() == [True]
    assert watch.see(60, {metric: [(labels(), after)]}).reset_s.tolist() == [0]
    assert watch.see(90, {metric: [(labels(), after)]}).reset_s.tolist() == [30]


def test_what_was_seen_before_a_reset_does_not_count_any_more() -> None:
    watch = Watch()
    watch.see(0, {XID: [(labels(), 0.0)], ENERGY: [(labels(), 9e9)]})
    frame = watch.see(30, {XID: [(labels(), 119.0)], ENERGY: [(labels(), 9e9)]})
    assert frame.xids_since_reset((119,)).tolist() == [True]
    frame = watch.see(60, {XID: [(labels(), 119.0)], ENERGY: [(labels(), 1e3)]})
    assert frame.xids_since_reset((119,)).tolist() == [False]
    assert frame.xid_codes(0, (119,)) == ()


# Where nobody marks the end of a series, its last sample is shown until it is too old.


@pytest.mark.parametrize(
    ("newest_ago_s", "behind_s", "presence"),
    [
        (2.0, 0.0, Presence.CURRENT),
        (2.0, 15.0, Presence.CURRENT),
        (2.0, 15.5, Presence.MISSING),
        (1.5, 15.5, Presence.CURRENT),
        (1.5, 60.0, Presence.CURRENT),
        (20.0, 30.0, Presence.MISSING),
    ],
    ids=[
        "on the newest page",
        "half a scrape behind",
        "more than half a scrape behind",
        "the newest page may not be complete yet",
        "nor has it to be, however far it is behind",
        "one scrape behind, long after",
    ],
)
def test_a_gpu_that_is_not_on_a_page_which_shows_its_neighbours_is_missing(
    newest_ago_s: float, behind_s: float, presence: Presence
) -> None:
    watch = Watch()
    both = {TEMPERATURE: [(labels(0), 50.0), (labels(1), 50.0)]}
    for seconds in (0, 30):
        watch.see(seconds, both, gpu0=newest_ago_s, gpu1=newest_ago_s)
    frame = watch.see(60, both, gpu0=newest_ago_s, gpu1=newest_ago_s + behind_s)
    assert frame.presence.tolist() == [Presence.CURRENT, presence]
    frame = watch.see(90, both, gpu0=newest_ago_s, gpu1=newest_ago_s)
    assert frame.presence.tolist() == [Presence.CURRENT, Presence.CURRENT], "it is back with its next sample"


def test_half_of_a_scrape_is_measured_at_the_exporter_itself() -> None:
    watch = Watch()
    both = {TEMPERATURE: [(labels(0), 50.0), (labels(1), 50.0)]}
    for seconds in (0, 60):
        watch.see(seconds, both, gpu0=5.0, gpu1=5.0)
    frame = watch.see(120, both, gpu0=5.0, gpu1=30.0)
    assert frame.presence.tolist() == [Presence.CURRENT, Presence.CURRENT]


def test_neighbours_that_are_all_late_are_missing_nothing() -> None:
    watch = Watch()
    both = {TEMPERATURE: [(labels(0), 50.0), (labels(1), 50.0)]}
    frames = [watch.see(30 * turn, both, gpu0=age, gpu1=age) for turn, age in enumerate((0.0, 0.0, 30.0, 60.0))]
    assert frames[-1].presence.tolist() == [Presence.CURRENT, Presence.CURRENT]


def test_a_job_is_held_from_the_reading_that_first_shows_it() -> None:
    watch = Watch()
    watch.see(0, {TEMPERATURE: [(labels(job="a"), 50.0)]})
    assert watch.see(60, {TEMPERATURE: [(labels(job="a"), 50.0)]}).held_s.tolist() == [60]
    assert watch.see(90, {TEMPERATURE: [(labels(job="b"), 50.0)]}).held_s.tolist() == [0]
    assert watch.see(120, {TEMPERATURE: [(labels(job="b"), 50.0)]}).held_s.tolist() == [30]
    assert watch.see(150, {TEMPERATURE: [(labels(job=None), 50.0)]}).held_s.tolist() == [0]


def test_a_clock_that_is_set_back_begins_a_new_history() -> None:
    watch = Watch()
    for seconds in (3600, 3630, 3660):
        watch.see(seconds, {TEMPERATURE: [(labels(), 50.0)]})
    frame = watch.see(0, {TEMPERATURE: [(labels(), 51.0)]})
    assert frame.times.tolist() == [0]
    frame = watch.see(30, {TEMPERATURE: [(labels(), 52.0)]})
    assert frame.times.tolist() == [-30, 0]
    assert frame.current.tolist() == [True]
