"""A simulated day that is read straight from memory, and the same day out of a Prometheus that was filled with it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from healer.adapters.prometheus.source import PrometheusSource
from healer.domain.reading import Reading
from healer.sim.days.day import LOOKBACK, Day
from healer.sim.days.openmetrics import write_openmetrics
from healer.sim.days.random_day import random_day
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.style import JobLabels, Style
from healer.sim.faults import Fault, FaultKind
from tests.realparts.prometheus import RunningPrometheus, require

STEP = timedelta(seconds=30)
STYLE = Style(fields=FieldSet.EVERYTHING, feeds=True, xid_labels=True, job_labels=JobLabels.HPC_JOB_AND_POD)
# No missing fields: the source takes one metric's times for all that have its labels, so that in a history without
# stale markers a field that has gone seems to stay for the server's own lookback.
FAULTS = (
    Fault(FaultKind.GPU_LOST, 400.0, node="gpu-002", gpu=3, variant="xid_first"),
    Fault(FaultKind.EXPORTER_DOWN, 900.0, node="gpu-001", duration_s=300.0),
    Fault(FaultKind.NODE_UNREACHABLE, 1200.0, node="gpu-003", duration_s=600.0),
    Fault(FaultKind.SENTINELS, 1500.0, node="gpu-004", gpu=1, duration_s=300.0),
    Fault(FaultKind.POWER_FEED_LOST, 300.0, rack="rack-1", variant="silent", duration_s=900.0),
    Fault(FaultKind.SOURCE_GAP, 2400.0, duration_s=300.0),
)

Rows: TypeAlias = Mapping[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]]


@pytest.fixture(scope="module")
def day() -> Day:
    return random_day(7, racks=2, nodes=4, duration=timedelta(minutes=50), given=FAULTS, harmless=4, style=STYLE)


@pytest.fixture(scope="module")
def prometheus(day: Day, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPrometheus]:
    programs, folder = require("prometheus"), tmp_path_factory.mktemp("history")
    document, blocks = folder / "day.om", folder / "blocks"
    with document.open("w", encoding="utf-8") as out:
        write_openmetrics(day, out)
    command: list[str | Path] = [programs.promtool, "tsdb", "create-blocks-from", "openmetrics", document, blocks]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with RunningPrometheus(programs, blocks=blocks) as running:
        yield running


def rows(reading: Reading) -> Rows:
    """Every sample that is not older than the lookback: not every release of Prometheus lets a query say what it is."""
    oldest_s = (reading.at - LOOKBACK).timestamp()
    found: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}
    for column in reading.columns:
        name = column.metric.partition("{")[0]
        for labels, value, time_s in zip(
            reading.labels(column), column.values.tolist(), column.times.tolist(), strict=True
        ):
            key = (name, tuple(sorted(labels.items())))
            if time_s > oldest_s:
                assert key not in found
                found[key] = (value, round(time_s, 3))
    return found


@pytest.mark.prometheus
@pytest.mark.timeout(300)
def test_both_ways_give_the_same_samples_at_the_same_times(day: Day, prometheus: RunningPrometheus) -> None:
    mine = {reading.at: reading for reading in day.readings(STEP)}
    with closing(PrometheusSource(prometheus.url)) as source:
        theirs = {reading.at: reading for reading in source.replay(min(mine), max(mine), STEP)}
    assert mine.keys() == theirs.keys()
    differ: list[datetime] = [at for at in mine if rows(mine[at]) != rows(theirs[at])]
    assert differ == []


@pytest.mark.prometheus
@pytest.mark.timeout(300)
def test_both_ways_tell_which_targets_do_not_answer(day: Day, prometheus: RunningPrometheus) -> None:
    quiet = {reading.at: reading for reading in day.readings(STEP)}
    gap = next(truth for truth in day.truths if truth.kind == FaultKind.SOURCE_GAP)
    silent: set[str] = set()
    with closing(PrometheusSource(prometheus.url)) as source:
        for reading in source.replay(min(quiet), max(quiet), STEP):
            if gap.onset < reading.at < gap.onset + timedelta(minutes=11):
                continue  # `up` is a sample like any other: it lasts for the server's lookback
            ours = quiet[reading.at]
            assert ours.silent == reading.silent
            assert {labels["instance"] for labels in ours.down} == {labels["instance"] for labels in reading.down}
            silent.update(reading.silent)
    assert silent >= {"gpu-001:9400", "gpu-003:9400"}
