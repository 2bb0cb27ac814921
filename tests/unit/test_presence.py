"""How a GPU stands: shown, missing, behind a silent exporter, gone without a word, old, or repeated by a hung one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from healer.domain.frame import Frame, Presence
from healer.domain.reading import Labels
from healer.domain.signal import Signal
from healer.telemetry.frames.window import Window
from healer.telemetry.identity import TopologyRules
from healer.telemetry.wire.series import LabelSets
from tests.readings import reading_of

START = datetime(2026, 3, 1, tzinfo=UTC)
TEMPERATURE, POWER = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
ENERGY, XID, UTILIZATION = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_GPU_UTIL"
MAX_AGE = timedelta(seconds=90)


def labels(gpu: int, *, node: str = "n1", **more: str) -> Labels:
    return {"UUID": f"GPU-{node}-{gpu}", "gpu": str(gpu), "Hostname": node, "instance": f"{node}:9400", **more}


class Watch:
    """A window that is told every 30 seconds what each GPU's metrics are."""

    def __init__(self) -> None:
        self.window = Window(TopologyRules(), max_age=MAX_AGE)
        self.sets = LabelSets()
        self.at = START

    def see(
        self,
        metrics: Mapping[str, Sequence[tuple[Labels, float]]],
        *,
        age_s: float = 0.0,
        silent: tuple[str, ...] = (),
        later_s: float = 30.0,
    ) -> Frame:
        self.at += timedelta(seconds=later_s)
        time = self.at.timestamp() - age_s
        columns = {metric: [(who, value, time) for who, value in series] for metric, series in metrics.items()}
        return self.window.add(reading_of(self.at, columns, label_sets=self.sets, silent=silent))

    def shows(self, *gpus: Labels, silent: tuple[str, ...] = (), age_s: float = 0.0) -> Frame:
        return self.see({TEMPERATURE: [(gpu, 50.0) for gpu in gpus]}, silent=silent, age_s=age_s)


def presence_of(frame: Frame, uuid: str = "GPU-n1-1") -> Presence:
    (row,) = [row for row, gpu in enumerate(frame.gpus.components) if gpu.uuid == uuid]
    return Presence(int(frame.presence[row]))


@pytest.fixture
def watch() -> Watch:
    watch = Watch()
    watch.shows(*(labels(gpu) for gpu in range(4)), *(labels(gpu, node="n2") for gpu in range(4)))
    return watch


def test_all_that_is_shown_is_current(watch: Watch) -> None:
    frame = watch.shows(*(labels(gpu) for gpu in range(4)))
    assert [presence_of(frame, f"GPU-n1-{gpu}") for gpu in range(4)] == [Presence.CURRENT] * 4


def test_a_gpu_that_its_exporter_no_longer_shows_beside_others_is_missing(watch: Watch) -> None:
    frame = watch.shows(*(labels(gpu) for gpu in (0, 2, 3)))
    assert presence_of(frame) is Presence.MISSING
    assert np.isnan(frame.latest(Signal.GPU_TEMPERATURE)[frame.gpus.rows["gpu/GPU-n1-1"]])


def test_behind_an_exporter_that_does_not_answer_a_gpu_is_unreachable_and_not_missing(watch: Watch) -> None:
    frame = watch.shows(labels(0, node="n2"), silent=("n1:9400",))
    assert presence_of(frame) is Presence.UNREACHABLE
    assert presence_of(frame, "GPU-n2-1") is Presence.MISSING


def test_without_its_whole_exporter_and_without_a_word_about_it_a_gpu_is_absent(watch: Watch) -> None:
    assert presence_of(watch.shows(labels(0, node="n2"))) is Presence.ABSENT


def test_samples_that_are_too_old_are_stale(watch: Watch) -> None:
    frame = watch.see({TEMPERATURE: [(labels(1), 50.0)]}, age_s=MAX_AGE.total_seconds() + 1, later_s=200)
    assert presence_of(frame) is Presence.STALE
    assert frame.age_s[frame.gpus.rows["gpu/GPU-n1-1"]] == 91


def test_a_gpu_that_comes_back_is_current_again(watch: Watch) -> None:
    watch.shows(labels(0))
    assert presence_of(watch.shows(labels(0), labels(1))) is Presence.CURRENT


def test_another_exporter_in_the_place_of_the_first_still_shows_the_same_gpus(watch: Watch) -> None:
    frame = watch.shows(*(labels(gpu, instance="10.0.0.7:9400") for gpu in range(4)))
    assert presence_of(frame) is Presence.CURRENT
    assert frame.gpus.targets[frame.gpus.rows["gpu/GPU-n1-1"]] == "10.0.0.7:9400"


def test_a_mig_instance_that_is_gone_while_its_gpu_shows_others_is_absent_and_not_missing() -> None:
    watch = Watch()
    watch.shows(labels(0), labels(1, GPU_I_ID="3"), labels(1, GPU_I_ID="4"))
    frame = watch.shows(labels(0), labels(1, GPU_I_ID="4"))
    assert frame.presence[frame.gpus.rows["gpu/GPU-n1-1:3"]] == Presence.ABSENT
    frame = watch.shows(labels(0))
    assert frame.presence[frame.gpus.rows["gpu/GPU-n1-1:4"]] == Presence.MISSING


def test_a_gpu_that_was_split_into_instances_is_not_missing() -> None:
    watch = Watch()
    watch.shows(labels(0), labels(1))
    frame = watch.shows(labels(0), labels(1, GPU_I_ID="3"))
    assert frame.presence[frame.gpus.rows["gpu/GPU-n1-1"]] == Presence.ABSENT


def test_a_gpu_in_whose_slot_another_one_came_was_taken_out(watch: Watch) -> None:
    new = {**labels(1), "UUID": "GPU-new"}
    frame = watch.shows(labels(0), new, labels(2), labels(3))
    assert presence_of(frame) is Presence.REPLACED
    assert presence_of(frame, "GPU-new") is Presence.CURRENT


def swapped(watch: Watch, gone: Sequence[Labels], there: Sequence[Labels]) -> list[Frame]:
    """What is gone shows its last sample for minutes, as in a store that does not say that series end."""
    last_s = watch.at.timestamp()
    frames = []
    for _ in range(6):
        watch.at += timedelta(seconds=30)
        told = [(gpu, 50.0, last_s) for gpu in gone] + [(gpu, 50.0, watch.at.timestamp() - 3.0) for gpu in there]
        frames.append(watch.window.add(reading_of(watch.at, {TEMPERATURE: told}, label_sets=watch.sets)))
    return frames


def test_gpus_that_were_swapped_were_taken_out_also_while_a_store_still_shows_their_last_samples(watch: Watch) -> None:
    new = [{**labels(gpu), "UUID": f"GPU-new-{gpu}"} for gpu in range(4)]
    frames = swapped(watch, [labels(gpu) for gpu in range(4)], new)
    for gpu in range(4):
        assert {presence_of(frame, f"GPU-n1-{gpu}") for frame in frames} == {Presence.REPLACED}
        assert {presence_of(frame, f"GPU-new-{gpu}") for frame in frames} == {Presence.CURRENT}


@pytest.mark.parametrize("looked", [True, False], ids=["before", "only afterwards"])
def test_a_gpu_that_fell_off_is_missing_whether_or_not_anybody_looked_before_its_neighbours_moved_up(
    watch: Watch,
    looked: bool,  # noqa: FBT001 - a row of the table
) -> None:
    moved_up = [labels(0), {**labels(2), "gpu": "1"}, {**labels(3), "gpu": "2"}]
    if not looked:
        watch.window = Window(TopologyRules(), max_age=MAX_AGE)
    frames = swapped(watch, [labels(1)], moved_up)
    assert Presence.REPLACED not in {presence_of(frame) for frame in frames}
    assert presence_of(frames[-1]) is Presence.MISSING


def test_without_the_times_of_samples_those_of_readings_tell_who_came_later() -> None:
    watch = Watch()
    watch.see({TEMPERATURE: [(labels(gpu), 50.0) for gpu in range(2)]}, age_s=np.nan)
    frame = watch.see({TEMPERATURE: [(labels(0), 50.0), ({**labels(1), "UUID": "GPU-new"}, 50.0)]}, age_s=np.nan)
    assert presence_of(frame) is Presence.REPLACED


def test_a_gpu_whose_index_its_neighbour_took_is_missing_for_the_neighbour_was_there_before(watch: Watch) -> None:
    moved_up = {**labels(2), "gpu": "1"}
    assert presence_of(watch.shows(labels(0), moved_up, {**labels(3), "gpu": "2"})) is Presence.MISSING


# Frozen


def _minutes(watch: Watch, metrics: Sequence[Mapping[str, Sequence[tuple[Labels, float]]]]) -> list[Frame]:
    return [watch.see(one) for one in metrics]


def test_an_exporter_that_repeats_itself_is_frozen_and_what_it_says_is_unknown() -> None:
    watch = Watch()
    same = {ENERGY: [(labels(0), 5e9)], TEMPERATURE: [(labels(0), 40.0)], POWER: [(labels(0), 71.25)]}
    frames = _minutes(watch, [same] * 6)
    assert [presence_of(frame, "GPU-n1-0") for frame in frames] == [Presence.CURRENT] * 4 + [Presence.FROZEN] * 2
    assert np.isnan(frames[-1].latest(Signal.GPU_TEMPERATURE)).all()
    assert frames[-1].age_s.tolist() == [150]
    assert frames[-1].warnings == ("n1:9400 repeats itself: nothing has moved for 90 s",)


def test_a_truly_idle_gpu_is_not_frozen_because_its_energy_goes_on() -> None:
    watch = Watch()
    idle = [{ENERGY: [(labels(0), 5e9 + 2e6 * k)], TEMPERATURE: [(labels(0), 40.0)]} for k in range(8)]
    assert presence_of(_minutes(watch, idle)[-1], "GPU-n1-0") is Presence.CURRENT


def test_the_flicker_of_milliwatts_shows_life_where_no_energy_is_exported() -> None:
    watch = Watch()
    idle = [{POWER: [(labels(0), 71.0 + 0.001 * (k % 2))], UTILIZATION: [(labels(0), 0.0)]} for k in range(8)]
    assert presence_of(_minutes(watch, idle)[-1], "GPU-n1-0") is Presence.CURRENT


def test_whole_watts_and_degrees_that_stand_still_prove_nothing() -> None:
    watch = Watch()
    coarse = [{POWER: [(labels(0), 140.0)], TEMPERATURE: [(labels(0), 35.0)]}] * 20
    assert presence_of(_minutes(watch, coarse)[-1], "GPU-n1-0") is Presence.CURRENT


def test_counters_of_errors_that_stand_still_do_not_freeze_and_their_movement_does_not_thaw() -> None:
    watch = Watch()
    frames = [watch.see({ENERGY: [(labels(0), 5e9)], XID: [(labels(0), float(k))]}) for k in range(6)]
    assert presence_of(frames[-1], "GPU-n1-0") is Presence.FROZEN


def test_an_exporter_that_moves_again_is_believed_at_once() -> None:
    watch = Watch()
    frozen = {ENERGY: [(labels(0), 5e9)], TEMPERATURE: [(labels(0), 40.0)]}
    _minutes(watch, [frozen] * 6)
    frame = watch.see({ENERGY: [(labels(0), 6e9)], TEMPERATURE: [(labels(0), 40.0)]})
    assert presence_of(frame, "GPU-n1-0") is Presence.CURRENT
    assert frame.latest(Signal.GPU_TEMPERATURE).tolist() == [40]


def test_an_exporter_that_collects_every_other_scrape_is_not_frozen() -> None:
    watch = Watch()
    slow = [{ENERGY: [(labels(0), 5e9 + 1e6 * (k // 3))]} for k in range(12)]
    assert all(presence_of(frame, "GPU-n1-0") is Presence.CURRENT for frame in _minutes(watch, slow))


def test_after_a_gap_the_same_value_is_not_called_frozen_before_it_was_looked_at_often_enough() -> None:
    watch = Watch()
    same = {ENERGY: [(labels(0), 5e9)]}
    watch.see(same)
    frames = [watch.see(same, later_s=600), watch.see(same), watch.see(same)]
    assert [presence_of(frame, "GPU-n1-0") for frame in frames] == [
        Presence.CURRENT,
        Presence.CURRENT,
        Presence.FROZEN,
    ]


def test_what_was_known_of_a_frozen_gpu_before_stays_in_the_history() -> None:
    watch = Watch()
    frozen = {ENERGY: [(labels(0), 5e9)], TEMPERATURE: [(labels(0), 40.0)]}
    frame = _minutes(watch, [frozen] * 6)[-1]
    np.testing.assert_array_equal(frame.signals.gauges[Signal.GPU_TEMPERATURE][:, 0], [40, 40, 40, 40, np.nan, np.nan])
