"""A simulated fleet at work, watched by everything that the reference deployment has: what tests interfere with.

Its trainings have run for hours when the watch begins, and do nothing that looks odd but what a test asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from healer.config import Config, load_config
from healer.domain.axes import Ints
from healer.domain.component import ComponentKind
from healer.domain.finding import FailureMode, Findings, Health
from healer.domain.frame import Frame
from healer.domain.incident import Incident
from healer.domain.reading import Labels, Reading
from healer.policy.correlation import correlate
from healer.runtime.knowledge import Outside
from healer.runtime.wiring import Content, build_observer, load_content
from healer.sim.days.day import Day
from healer.sim.days.site import Site
from healer.sim.exporters.fields import FieldSet
from healer.sim.exporters.style import Style
from healer.sim.jobs.profile import JobKind, Profile, Writing, drawn_profile
from healer.sim.jobs.run import Phase, PhaseKind, Run
from healer.sim.jobs.schedule import Mix
from healer.sim.knobs import Effect
from healer.sim.layout import build_layout
from healer.sim.links import Background
from healer.sim.world import Hall, Mark
from healer.telemetry.wire.label_sets import LabelSets

START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(seconds=30)
STYLE = Style(fields=FieldSet.EVERYTHING, scrape_s=30, feeds=True)
GPUS = 8
BUDGET_W = 15_000.0  # of a rack, for each of its nodes: somewhat more than it can draw

Said: TypeAlias = tuple[FailureMode, str]
"""What is wrong, and of which component."""


@cache
def config() -> Config:
    return load_config(Path(__file__).parents[2] / "config.yaml")


@cache
def content() -> Content:
    return load_content(config())


def config_of(day: Day) -> Config:
    """The reference deployment's settings, with the budgets of the day's racks."""
    rules = config().topology.model_copy(update={"rack_budget_watts": dict(day.rack_budget_w)})
    return config().model_copy(update={"topology": rules})


# The fleet


def training(
    name: str,
    nodes: Iterable[int],
    *,
    start_s: float = -7200.0,
    end_s: float = 1e9,
    saves: Sequence[tuple[float, float]] = (),
) -> Run:
    """A gang on whole nodes, by their numbers from 0 on.

    Args:
        saves: when each checkpoint begins and ends, in which one rank writes and all others spin.
    """
    gpus = gpus_of(nodes)
    phases = [Phase(PhaseKind.STEADY, start_s)]
    for begins_s, ends_s in saves:
        phases += [Phase(PhaseKind.CHECKPOINT, begins_s), Phase(PhaseKind.STEADY, ends_s)]
    even = np.ones(len(gpus))
    return Run(name, _profile(), gpus, start_s, end_s, tuple(phases), rank_work=even, tilt=even)


@cache
def _profile() -> Profile:
    drawn = drawn_profile(JobKind.DENSE, np.random.default_rng(7))
    return replace(drawn, checkpoint=None, evaluates=None, writing=Writing.BARRIER, swing=0.02)


def gpus_of(nodes: Iterable[int]) -> Ints:
    return (np.array([*nodes])[:, None] * GPUS + np.arange(GPUS)).ravel()


def fleet(
    *,
    racks: int,
    nodes: int,
    jobs: Sequence[Run],
    lasts: timedelta,
    effects: Sequence[Effect] = (),
    marks: Sequence[Mark] = (),
) -> Day:
    layout = build_layout(racks=racks, nodes=nodes, gpus=GPUS, seed=5)
    hall = Hall(ports=2, background=Background(sbe=0.0, pcie_replay=0.0))
    budgets = {rack: BUDGET_W * len(layout.nodes_of(rack)) for rack in layout.racks} | {"default": BUDGET_W}
    site = Site(layout, hall, STYLE, Mix(), budgets, peak_s=0.0)
    return Day(
        seed=5,
        start=START,
        duration=lasts,
        site=site,
        truths=(),
        look_alikes=(),
        runs=tuple(sorted(jobs, key=lambda run: run.start_s)),
        effects=tuple(effects),
        marks=tuple(marks),
        hidden=(),
    )


# The watch


class Watch:
    """The incidents of a day, as the daemon's turns make them of its readings.

    Attributes:
        seen_as: what the telemetry makes of each reading.
        known: every incident that there ever was, by id.
        frame, findings: of the newest look.
    """

    frame: Frame
    findings: Findings

    def __init__(self, day: Day, *, markers: bool = True) -> None:
        self.seen_as: Callable[[Reading], Reading] = lambda reading: reading
        self.known: dict[str, Incident] = {}
        self.day = day
        self._observer = build_observer(config_of(day), content(), Outside(source=None, is_replay=True))  # type: ignore[arg-type]
        self._readings = day.readings(STEP, stale_markers=markers)
        self._at_s = 0.0

    def look_until(self, seconds: float) -> None:
        """At every reading that there is up to this time after the start."""
        for _ in self.looks_until(seconds):
            pass

    def looks_until(self, seconds: float) -> Iterator[float]:
        """The same look by look: the seconds after the start, once each is done."""
        for reading in self.readings_until(seconds):
            self.look(reading)
            yield self._at_s

    def sleep_until(self, seconds: float) -> None:
        """The world goes on, and nobody looks."""
        for _ in self.readings_until(seconds):
            pass

    def look(self, reading: Reading) -> None:
        live = [each for each in self.known.values() if not each.state.ended or each.persists]
        self.frame, self.findings = self._observer.look(self.seen_as(reading), live)
        defects = [warning for warning in self.frame.warnings if "failed unexpectedly" in warning]
        assert not defects, defects
        changed = correlate(live, self.findings, self.frame, clear_after=config().detectors.clear_after)
        self.known |= {incident.id: incident for incident in changed}

    def readings_until(self, seconds: float) -> Iterator[Reading]:
        while self._at_s < seconds:
            reading = next(self._readings)
            self._at_s = (reading.at - self.day.start).total_seconds()
            yield reading
        assert self._at_s == seconds

    @property
    def open(self) -> set[Said]:
        return _distinct(incident for incident in self.known.values() if not incident.state.ended)

    @property
    def ever(self) -> set[Said]:
        return _distinct(self.known.values())

    def the(self, what: Said) -> Incident:
        (incident,) = (each for each in self.known.values() if said(each) == what)
        return incident

    def judged(self, mode: FailureMode) -> set[Health]:
        """What the newest look says of all jobs."""
        rows = range(len(self.frame.jobs))
        return {self.findings.health_of(mode, ComponentKind.JOB, row) for row in rows}


def _distinct(incidents: Iterable[Incident]) -> set[Said]:
    listed = [said(incident) for incident in incidents]
    assert len(set(listed)) == len(listed), f"twice: {listed}"
    return set(listed)


def said(incident: Incident) -> Said:
    return incident.failure_mode, str(incident.component)


# What telemetry may make of a reading


def later_by(by: timedelta) -> Callable[[Reading], Reading]:
    """The clock of everybody is set; nothing else happened."""

    def seen(reading: Reading) -> Reading:
        columns = tuple(replace(column, times=column.times + by.total_seconds()) for column in reading.columns)
        return replace(reading, at=reading.at + by, columns=columns)

    return seen


def looked_at_later_by(by: timedelta) -> Callable[[Reading], Reading]:
    """The clock of the one who looks is set; those who scrape have kept theirs."""
    return lambda reading: replace(reading, at=reading.at + by)


class Relabelled:
    """From one time on, what is scraped has other values of a label."""

    def __init__(self, label: str, names: Mapping[str, str], from_at: datetime) -> None:
        self._label = label
        self._names = names
        self._from_s = from_at.timestamp()
        self._book = LabelSets()
        self._numbers: Ints = np.empty((0, 2), dtype=np.int64)  # by series: before, and after

    def __call__(self, reading: Reading) -> Reading:
        met = [self._both(labels) for labels in reading.label_sets[len(self._numbers) :]]
        self._numbers = np.concatenate([self._numbers, np.array(met, dtype=np.int64).reshape(-1, 2)])
        columns = tuple(
            replace(column, series=self._numbers[column.series, (column.times >= self._from_s).astype(np.int64)])
            for column in reading.columns
        )
        return replace(reading, columns=columns, label_sets=self._book)

    def _both(self, labels: Labels) -> tuple[int, int]:
        name = labels.get(self._label, "")
        other = {self._label: self._names[name]} if name in self._names else {}
        return self._book.add(labels), self._book.add({**labels, **other})
