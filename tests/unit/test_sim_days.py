"""Random days: one seed is one day, and the truth about it is one that a judge can stand by."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import pytest

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.sim.days.day import Day
from healer.sim.days.openmetrics import write_openmetrics
from healer.sim.days.random_day import random_day
from healer.sim.days.record import record
from healer.sim.days.seeming import HarmlessKind
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.style import Style
from healer.sim.faults import SHAPES, Fault, FaultKind
from healer.sim.jobs.run import Run
from healer.sim.truth import Truth

MODES = {
    FaultKind.UNCORRECTABLE_ECC: FailureMode.GPU_UNCORRECTABLE_ECC,
    FaultKind.CORRECTABLE_ECC_STORM: FailureMode.GPU_CORRECTABLE_ECC_STORM,
    FaultKind.ROW_REMAP_PENDING: FailureMode.GPU_ROW_REMAP_PENDING,
    FaultKind.ROW_REMAP_FAILED: FailureMode.GPU_ROW_REMAP_FAILED,
    FaultKind.GPU_LOST: FailureMode.GPU_FELL_OFF_BUS,
    FaultKind.GPU_XID: FailureMode.GPU_XID,
    FaultKind.THERMAL_LIMIT: FailureMode.GPU_THERMAL_LIMIT,
    FaultKind.COOLING_LOSS: FailureMode.GPU_COOLING_DEGRADED,
    FaultKind.FAN_FAILURE: FailureMode.GPU_COOLING_DEGRADED,
    FaultKind.RACK_COOLING_LOSS: FailureMode.RACK_COOLING_DEGRADED,
    FaultKind.POWER_BRAKE: FailureMode.GPU_POWER_BRAKE,
    FaultKind.LOAD_SURGE: FailureMode.RACK_POWER_OVER_BUDGET,
    FaultKind.POWER_FEED_LOST: FailureMode.RACK_POWER_FEED_LOST,
    FaultKind.CLOCKS_STUCK: FailureMode.GPU_THROTTLED,
    FaultKind.NVLINK_ERRORS: FailureMode.NVLINK_ERRORS,
    FaultKind.NVLINK_DOWN: FailureMode.NVLINK_DOWN,
    FaultKind.PCIE_DEGRADED: FailureMode.PCIE_DEGRADED,
    FaultKind.FABRIC_LINK_FLAP: FailureMode.FABRIC_LINK_FLAP,
    FaultKind.JOB_STALLED: FailureMode.JOB_STALLED,
    FaultKind.JOB_STRAGGLER: FailureMode.JOB_STRAGGLER,
    FaultKind.EXPORTER_DOWN: FailureMode.TELEMETRY_LOST,
    FaultKind.EXPORTER_FROZEN: FailureMode.TELEMETRY_LOST,
    FaultKind.EXPORTER_SLOW: FailureMode.TELEMETRY_LOST,
    FaultKind.FIELDS_MISSING: FailureMode.TELEMETRY_LOST,
    FaultKind.SENTINELS: FailureMode.TELEMETRY_LOST,
    FaultKind.NODE_UNREACHABLE: FailureMode.NODE_UNREACHABLE,
    FaultKind.SOURCE_GAP: FailureMode.TELEMETRY_LOST,
}
FULL = Style(fields=FieldSet.EVERYTHING, feeds=True)


def small(seed: int, **changes: object) -> Day:
    shape: dict[str, object] = {"racks": 2, "nodes": 4, "duration": timedelta(minutes=20), "faults": 2, "harmless": 3}
    return random_day(seed, **{**shape, **changes})  # type: ignore[arg-type]


def written(day: Day) -> str:
    out = io.StringIO()
    write_openmetrics(day, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def days() -> Sequence[Day]:
    return [random_day(seed, racks=4, nodes=24, faults=8, harmless=10) for seed in range(24)]


@pytest.fixture(scope="module")
def truths(days: Sequence[Day]) -> Sequence[tuple[Day, Truth]]:
    return [(day, truth) for day in days for truth in day.truths]


def test_a_seed_is_one_day_to_the_last_byte() -> None:
    assert written(small(4)) == written(small(4))
    assert json.dumps(record(small(4))) == json.dumps(record(small(4)))
    assert written(small(4)) != written(small(5))


def test_a_day_can_be_read_twice_and_is_the_same() -> None:
    day = small(4)
    for one, other in zip(day.readings(timedelta(minutes=1)), day.readings(timedelta(minutes=1)), strict=True):
        assert (one.at, one.silent, len(one.columns)) == (other.at, other.silent, len(other.columns))
        for left, right in zip(one.columns, other.columns, strict=True):
            assert left.metric == right.metric
            np.testing.assert_array_equal(left.values, right.values)
            np.testing.assert_array_equal(left.times, right.times)


def test_what_is_read_less_often_is_the_same_at_the_same_times() -> None:
    day = small(6)
    often = {reading.at: reading for reading in day.readings(timedelta(seconds=30))}
    for reading in day.readings(timedelta(minutes=2)):
        for left, right in zip(reading.columns, often[reading.at].columns, strict=True):
            np.testing.assert_array_equal(left.values, right.values)


@pytest.mark.parametrize("step_s", [0.5, 7.0, 0.0])
def test_a_step_that_is_no_multiple_of_five_seconds_is_refused(step_s: float) -> None:
    with pytest.raises(ValueError, match="not a multiple of 5 seconds"):
        next(small(4).readings(timedelta(seconds=step_s)))


@pytest.mark.parametrize("kind", list(FaultKind))
def test_every_kind_of_fault_comes_about_on_some_day_and_has_its_failure_mode(kind: FaultKind) -> None:
    for seed in range(30):
        day = random_day(seed, racks=4, nodes=24, faults=2, harmless=0, kinds=[kind], style=FULL)
        found = [truth for truth in day.truths if truth.kind == kind]
        if found:
            assert {truth.failure_mode for truth in found} == {MODES[kind]}
            assert all(truth.variant in (SHAPES[kind].variants or ("",)) for truth in found)
            return
    pytest.fail(f"{kind} never came about")


def test_all_failure_modes_of_a_fleet_are_covered() -> None:
    learnt = {FailureMode.GPU_ANOMALY, getattr(FailureMode, "GPU_FAILURE_PREDICTED", None)}
    assert set(MODES.values()) == set(FailureMode) - learnt


def is_of(day: Day, component: Component) -> bool:
    layout = day.layout
    match component.kind:
        case ComponentKind.GPU:
            assert component.node is not None
            assert component.gpu is not None
            row = layout.gpu_index(component.node, int(component.gpu))
            return component.uuid == layout.uuids[row] and component.rack == layout.rack_of(component.node)
        case ComponentKind.NODE:
            return component.node in layout.nodes and component.rack == layout.rack_of(str(component.node))
        case ComponentKind.RACK:
            return component.rack in layout.racks
        case ComponentKind.JOB:
            return any(run.job == component.job for run in day.runs)
        case _:
            return component.kind is ComponentKind.SOURCE


def test_the_truth_names_what_there_is_while_it_is_there(truths: Sequence[tuple[Day, Truth]]) -> None:
    assert len(truths) > 120
    for day, truth in truths:
        assert is_of(day, truth.component)
        assert truth.culprit is None or is_of(day, truth.culprit)
        assert day.start < truth.onset <= truth.full < day.end
        assert truth.end is None or truth.full <= truth.end <= day.end
        assert 0 < truth.severity <= 1


def test_the_culprit_is_one_of_the_gang_and_not_all_of_it(truths: Sequence[tuple[Day, Truth]]) -> None:
    modes = (FailureMode.JOB_STALLED, FailureMode.JOB_STRAGGLER)
    found = [(day, truth) for day, truth in truths if truth.failure_mode in modes]
    assert len(found) > 10
    for day, truth in found:
        assert truth.blast == (truth.component.job,)
        onset_s = (truth.onset - day.start).total_seconds()
        run = next(run for run in day.runs if run.job == truth.component.job and run.start_s <= onset_s < run.end_s)
        nodes = {day.layout.nodes[gpu // 8] for gpu in run.gpus.tolist()}
        if truth.variant == "network":
            assert truth.culprit is None
            continue
        assert truth.culprit is not None
        assert truth.culprit.node in nodes
        assert truth.culprit.kind is ComponentKind.GPU or len(nodes) > 1


def test_nothing_else_goes_on_where_a_fault_is(truths: Sequence[tuple[Day, Truth]]) -> None:
    """Of two faults on one node, the second begins after the first has ended; an ECC storm that gets worse is one."""
    by_node: dict[tuple[int, str], list[Truth]] = {}
    for day, truth in truths:
        where = truth.culprit or truth.component
        if where.node is not None:
            by_node.setdefault((day.seed, where.node), []).append(truth)
    for found in by_node.values():
        for one, other in itertools.pairwise(sorted(found, key=lambda truth: truth.onset)):
            if one.kind != FaultKind.CORRECTABLE_ECC_STORM or one.component != other.component:
                assert one.end is not None
                assert other.onset >= one.end + timedelta(minutes=19)


def test_look_alikes_of_every_kind_have_a_place_and_a_time(days: Sequence[Day]) -> None:
    looks = [(day, look) for day in days for look in day.look_alikes]
    seen = {look.kind for _, look in looks}
    assert len(seen & set(HarmlessKind)) >= len(HarmlessKind) - 4, sorted(set(HarmlessKind) - seen)
    assert {"checkpoints", "checkpoints_in_a_barrier", "evaluation_on_one_node", "pinned_job", "hot_slot"} <= seen
    for day, look in looks:
        assert look.components
        assert look.start <= look.end <= day.end


@pytest.mark.parametrize("kind", list(HarmlessKind))
def test_every_harmless_thing_comes_about_on_some_day(kind: HarmlessKind) -> None:
    for seed in range(60):
        day = random_day(seed, racks=2, nodes=12, faults=0, harmless=12)
        assert day.truths == ()
        if any(look.kind == kind for look in day.look_alikes):
            return
    pytest.fail(f"{kind} never came about")


def given(kind: FaultKind, *, hours: float = 2.0, seed: int = 12, **how: object) -> Day:
    """A day on which nothing but this happens, in its first hour."""
    fault = Fault(kind, 2400.0, **how)  # type: ignore[arg-type]
    return random_day(seed, racks=2, nodes=8, duration=timedelta(hours=hours), given=[fault], harmless=0, style=FULL)


Gauge: TypeAlias = dict[datetime, dict[tuple[str, str], float]]  # by time, then by node and GPU


def gauges(day: Day, *metrics: str) -> list[Gauge]:
    found: dict[str, Gauge] = {metric: {} for metric in metrics}
    for reading in day.readings(timedelta(seconds=30), stale_markers=True, metrics=metrics):
        for column in reading.columns:
            pairs = zip(reading.labels(column), column.values.tolist(), strict=True)
            found[column.metric][reading.at] = {
                (labels.get("hostname", labels.get("node", "")), labels.get("gpu", "")): value
                for labels, value in pairs
            }
    return list(found.values())


def test_given_faults_are_just_those() -> None:
    day = given(FaultKind.GPU_LOST, node="gpu-003", gpu=1, variant="xid_first", duration_s=1200.0)
    (truth,) = day.truths
    assert (truth.failure_mode, truth.component.node, truth.component.gpu) == (
        FailureMode.GPU_FELL_OFF_BUS,
        "gpu-003",
        "1",
    )
    assert (truth.onset, truth.end) == (day.start + timedelta(seconds=2400), day.start + timedelta(seconds=3600))
    (temperatures,) = gauges(day, "DCGM_FI_DEV_GPU_TEMP")
    counts = {(at - day.start).total_seconds(): len(shown) for at, shown in temperatures.items()}
    assert (counts[2100.0], counts[3000.0], counts[4200.0]) == (64, 63, 64)


def wide_gangs(seed: int) -> list[Run]:
    """Those of several nodes that are under way for all of the two hours."""
    day = random_day(seed, racks=2, nodes=8, duration=timedelta(hours=2), given=[], harmless=0, style=FULL)
    gangs = [run for run in day.runs if run.start_s < 1800 and run.end_s > 7200 and run.profile.synced]
    return [run for run in gangs if len(run.gpus) > 8]


def test_a_job_dies_with_its_gpu_and_comes_back_without_the_node() -> None:
    seed, run = next((seed, run) for seed in range(30) for run in wide_gangs(seed))
    node, gpu = divmod(int(run.gpus[3]), 8)
    day = given(FaultKind.GPU_LOST, seed=seed, node=f"gpu-{node + 1:03d}", gpu=gpu)
    attempts = [each for each in day.runs if each.job == run.job]
    assert attempts[0].end_s < run.end_s
    assert all(node not in each.gpus // 8 for each in attempts[1:])
    assert day.truths[0].blast == (run.job,)


def test_no_rack_is_over_its_budget_but_for_a_fault() -> None:
    over = seen = 0
    for seed in range(5):
        day = random_day(seed, racks=2, nodes=8, duration=timedelta(hours=5), faults=3, kinds=[FaultKind.LOAD_SURGE])
        budget_w = np.array([day.rack_budget_w[rack] for rack in day.layout.racks])
        world = day.world()
        while world.now_s < day.duration.total_seconds():
            world.step(5.0)
            at = day.start + timedelta(seconds=world.now_s)
            for rack in np.array(day.layout.racks)[world.power.rack_w > budget_w]:
                over += 1
                assert any(
                    t.component.rack == rack and t.onset <= at <= (t.end or day.end) + timedelta(seconds=10)
                    for t in day.truths
                ), (seed, rack, at)
        seen += len(day.truths)
    assert seen > 0
    assert over > 60


def test_a_repaired_gpu_s_node_is_cordoned_rebooted_and_back() -> None:
    kinds, span = [FaultKind.ROW_REMAP_PENDING], timedelta(hours=6)
    drawn = (
        random_day(seed, racks=1, nodes=4, duration=span, faults=1, harmless=0, kinds=kinds, style=FULL)
        for seed in range(20)
    )
    day = next(day for day in drawn if day.truths and day.truths[0].end is not None)
    truth = day.truths[0]
    assert truth.end is not None
    (reboot,) = [look for look in day.look_alikes if look.kind == HarmlessKind.PLANNED_REBOOT]
    assert truth.onset < reboot.start < truth.end < reboot.end
    cordoned, flags = gauges(day, "kube_node_spec_unschedulable", "DCGM_FI_DEV_ROW_REMAP_PENDING")
    node = (str(truth.component.node), "")
    gpu = (str(truth.component.node), str(truth.component.gpu))

    def near(moment: datetime) -> datetime:
        return min(cordoned, key=lambda at: abs(at - moment))

    assert cordoned[near(truth.onset + timedelta(seconds=45))][node] == 0
    assert cordoned[near(truth.end)][node] == 1
    assert flags[near(truth.end - timedelta(minutes=1))][gpu] == 1
    assert gpu not in flags[near(truth.end + timedelta(minutes=2))]
    assert flags[near(reboot.end + timedelta(minutes=2))][gpu] == 0
    assert cordoned[near(reboot.end + timedelta(minutes=2))][node] == 0


def test_the_history_has_every_metric_in_one_piece_with_the_times_of_its_scrapes() -> None:
    day = small(8, harmless=0, faults=0, style=FULL)
    lines = written(day).splitlines()
    assert lines[-1] == "# EOF"
    heads = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(heads)) == len(heads)
    assert {"up", "rack_power_watts", "DCGM_FI_DEV_GPU_TEMP", "node_infiniband_state_id"} <= set(heads)
    samples = [line for line in lines if not line.startswith("#")]
    assert [name for name, _ in itertools.groupby(line.partition("{")[0] for line in samples)] == heads
    of_one = [line for line in samples if line.startswith("DCGM_FI_DEV_GPU_TEMP{") and day.layout.uuids[5] in line]
    mine = [float(line.rpartition(" ")[2]) for line in of_one]
    assert np.all(np.abs(np.diff(mine) - day.style.scrape_s) < 0.001)
    assert len(mine) == 20 * 60 // day.style.scrape_s


def test_progress_is_told_and_samples_are_counted() -> None:
    told: list[float] = []
    out = io.StringIO()
    count = write_openmetrics(small(8), out, progress=told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert count == sum(not line.startswith("#") for line in out.getvalue().splitlines())


def test_the_record_is_plain_json_with_all_that_a_judge_needs() -> None:
    day = given(FaultKind.JOB_STALLED, node="gpu-003", gpu=1, variant="kernel_spin", duration_s=1200.0)
    told = json.loads(json.dumps(record(day)))
    (truth,) = told["truths"]
    assert truth["failure_mode"] == "JobStalled"
    assert truth["component"]["kind"] in {"job", "gpu"}
    assert set(truth["culprit"]) == {"kind", "rack", "node", "gpu", "uuid", "job", "link"}
    assert datetime.fromisoformat(truth["onset"]) == day.truths[0].onset
    assert told["rack_budget_watts"] == dict(day.rack_budget_w)
    assert {"job", "kind", "nodes", "start", "end"} <= set(told["jobs"][0])
    assert day.start.tzinfo is UTC


def test_an_hour_of_512_gpus_is_lived_through_in_seconds() -> None:
    day = random_day(1, racks=8, nodes=64, duration=timedelta(hours=1), style=FULL)
    begun = time.process_time()
    assert sum(1 for _ in day.readings(timedelta(seconds=30))) == 120
    assert time.process_time() - begun < 10.0, "1.3 s on an idle core of 2026"
