"""Simulated days from end to end: readings, detectors and correlation as the daemon has them, against the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import pytest

from benchmarks.detection import live_through, where_of
from benchmarks.judging import Case, Found, Judged, Verdict, judge
from healer.domain.finding import FailureMode as Mode
from healer.domain.reading import Reading
from healer.runtime.backtest import backtest
from healer.sim.days.day import Day
from healer.sim.days.random_day import random_day
from healer.sim.days.seeming import HarmlessKind
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.style import Style
from healer.sim.faults import SHAPES, Fault, FaultKind
from tests.replay.fleet_at_work import config, config_of, content

STYLE = Style(fields=FieldSet.EVERYTHING, scrape_s=30, feeds=True)
STEP = timedelta(seconds=STYLE.scrape_s)
# By seed, all that is to be found on the day: one day of broken GPUs, and one of jobs that suffer.
DAYS = {
    5: {
        (Mode.GPU_ROW_REMAP_PENDING, True),
        (Mode.GPU_CORRECTABLE_ECC_STORM, False),
        (Mode.GPU_ROW_REMAP_FAILED, True),
        (Mode.GPU_POWER_BRAKE, True),
        (Mode.GPU_FELL_OFF_BUS, True),
    },
    11: {
        (Mode.FABRIC_LINK_FLAP, False),
        (Mode.NVLINK_DOWN, False),
        (Mode.JOB_STALLED, False),
        (Mode.GPU_UNCORRECTABLE_ECC, True),
    },
}
days = pytest.mark.parametrize("seed", DAYS)


@dataclass(frozen=True, slots=True)
class Lived:
    day: Day
    cases: Sequence[Case]
    incidents: Sequence[Judged]
    faults: Sequence[Found]


@cache
def lived(seed: int) -> Lived:
    day = random_day(seed, racks=2, nodes=8, duration=timedelta(hours=3), faults=5, harmless=3, style=STYLE)
    cases = live_through(day, config())
    incidents, faults = judge(cases, day.truths, day.look_alikes, where_of(day))
    return Lived(day, cases, incidents, faults)


@days
def test_a_day_has_the_faults_that_it_was_chosen_for(seed: int) -> None:
    assert {(truth.failure_mode, truth.hard) for truth in lived(seed).day.truths} == DAYS[seed]
    assert {look.kind for look in lived(seed).day.look_alikes} & set(HarmlessKind), "and something to be taken in by"


@days
def test_every_incident_of_a_day_is_of_a_fault_and_has_its_name(seed: int) -> None:
    wrong = [one for one in lived(seed).incidents if one.verdict is not Verdict.RIGHT]
    assert wrong == []


@days
def test_every_fault_is_found_once_and_where_it_is_the_hard_ones_within_two_scrapes(seed: int) -> None:
    for found in lived(seed).faults:
        assert found.latency is not None, found
        assert found.located, found
        assert found.incidents == 1, found
        if found.truth.hard:
            assert found.latency <= 2 * STEP, found


@days
def test_the_culprit_of_a_job_that_suffers_is_the_right_one(seed: int) -> None:
    culprits = {found.truth.failure_mode: found.culprit_right for found in lived(seed).faults}
    assert culprits.get(Mode.JOB_STALLED) is (True if seed == 11 else None)


class Kept:
    """Implements `healer.ports.TelemetryHistory`: what a Prometheus has kept of a day."""

    def __init__(self, day: Day) -> None:
        self._day = day

    def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
        return (reading for reading in self._day.readings(step) if start <= reading.at <= end)


@pytest.mark.parametrize("seed", [5])
def test_a_backtest_over_the_same_readings_reports_the_same_incidents(seed: int) -> None:
    day = lived(seed).day
    report = backtest(
        config_of(day), content(), Kept(day), start=day.start, end=day.end, step=STEP, progress=lambda _at: None
    )
    reported = {
        incident.id: (incident.failure_mode, incident.component.node, incident.component.gpu, incident.opened_at)
        for incident in report.incidents
    }
    looped = {
        case.id: (case.last.failure_mode, case.last.component.node, case.last.component.gpu, case.opened)
        for case in lived(seed).cases
    }
    assert reported == looped
    assert len(looped) == len(DAYS[seed])
    assert report.stats.gpus == day.layout.n_gpus


@pytest.mark.parametrize("variant", SHAPES[FaultKind.GPU_LOST].variants)
def test_a_gpu_that_is_lost_is_named_so_however_it_goes(variant: str) -> None:
    lost = Fault(FaultKind.GPU_LOST, 1200.0, node="gpu-003", gpu=1, variant=variant)
    day = random_day(12, racks=1, nodes=4, duration=timedelta(minutes=40), given=[lost], harmless=0, style=STYLE)
    incidents, faults = judge(live_through(day, config()), day.truths, day.look_alikes, where_of(day))
    assert [one.case.last.failure_mode for one in incidents] == [Mode.GPU_FELL_OFF_BUS]
    assert faults[0].located
    assert faults[0].latency is not None
    assert faults[0].latency <= 2 * STEP
