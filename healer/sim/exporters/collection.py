"""Collection: a Prometheus beside a simulated world. It scrapes every target in its turn and keeps the newest samples.

A sample has the time of its scrape and shows the world as it was at the step before. What does not answer is `up` 0.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.domain.reading import Column, Reading
from healer.sim.exporters.fields import Names
from healer.sim.exporters.pages import GpuPages, Page, other_pages, up_sheet
from healer.sim.exporters.sheet import Sheet
from healer.sim.exporters.style import Style
from healer.sim.exporters.targets import GPU_JOB, HOST_JOB, IPMI_JOB, METER_JOB, Target, offsets_ms, targets
from healer.sim.knobs import Knob
from healer.sim.strikes.blow import Hidden
from healer.sim.world import World
from healer.telemetry.wire.label_sets import LabelSets


@dataclass(frozen=True, slots=True, eq=False)
class Scraped:
    """What one step brought to one sheet."""

    sheet: Sheet
    rows: Ints


class Collection:
    """Args:
    start_s: unix seconds at which the world begins, a multiple of the scrape interval.
    step_s: of the world; divides the interval.
    upgraded: whether there are exporters that change their names on the way.
    """

    def __init__(
        self,
        world: World,
        style: Style,
        *,
        start_s: float,
        step_s: float,
        hidden: Sequence[Hidden] = (),
        pods: Callable[[int], str],
        upgrades: bool = False,
        rng: np.random.Generator,
    ) -> None:
        self.book = LabelSets()
        self._world = world
        self._start_s = start_s
        self._interval_ms = style.scrape_s * 1000
        self._step_ms = round(step_s * 1000)
        self._hidden = hidden
        self._rng = rng
        self._targets = targets(world.layout, style)
        self._offset_ms = offsets_ms(self._targets)
        self._of_job = {job: _places(self._targets, job) for job in {target.job for target in self._targets}}
        self._gpus = GpuPages(world, style, [self._targets[n] for n in self._of_job[GPU_JOB]], pods)
        self._gpu_pages = self._gpus.pages(style, 0, self.book)
        if upgrades:
            later = replace(style, names=Names.DCGM_47, host_label="hostname")
            self._gpu_pages += self._gpus.pages(later, 1, self.book)
        self._pages = [*self._gpu_pages, *other_pages(world, style, self._targets, self.book)]
        self._up = up_sheet(self._targets, self.book)
        self._looks_every = max(1, style.collect_s * 1000 // self._step_ms)
        self._look_phase = rng.integers(0, self._looks_every, len(world.layout.nodes))
        self._count = 0

    def scrape(self) -> list[Scraped]:
        """Every target whose turn comes before the world's next step."""
        world = self._world
        self._look()
        self._relabel()
        if world.knobs[Knob.SOURCE_DOWN][0] > 0:
            return []
        now_ms = round(world.now_s * 1000)
        due_ms = now_ms + (self._offset_ms - now_ms) % self._interval_ms
        due = due_ms < now_ms + self._step_ms
        there, answers = self._standing()
        times_s = self._start_s + due_ms / 1000.0
        found: list[Scraped] = []
        for page in self._pages:
            found += self._scrape_page(page, due, there & answers, times_s)
        asked = np.flatnonzero(due & there)
        self._up.scrape(asked, times_s[asked], answers[None, :].astype(np.float64))
        self._up.drop(np.flatnonzero(due & ~there))
        return [*found, Scraped(self._up, asked)]

    def reading(self, at: datetime, *, lookback_s: float, markers: bool, wanted: Container[str]) -> Reading:
        at_s = at.timestamp()
        columns: list[Column] = []
        for page in self._pages:
            columns += page.sheet.columns(at_s, lookback_s=lookback_s, markers=markers, wanted=wanted)
        silent, down = [], []
        up = self._up.columns(at_s, lookback_s=lookback_s, markers=markers, wanted=("up",))
        if "up" in wanted:
            columns += up
        for column in up:
            for number in column.series[column.values == 0].tolist():
                labels = self.book[number]
                if labels["job"] == GPU_JOB:
                    silent.append(labels["instance"])
                else:
                    down.append(labels)
        return Reading(at, _joined(columns), self.book, tuple(sorted(silent)), (), tuple(down))

    def _look(self) -> None:
        frozen = self._world.knobs[Knob.EXPORTER_FROZEN] > 0
        now = (self._count - self._look_phase) % self._looks_every == 0
        self._gpus.version[:] = self._world.knobs[Knob.EXPORTER_VERSION]
        self._gpus.look(np.flatnonzero(now & ~frozen))
        self._count += 1

    def _relabel(self) -> None:
        changed = sorted(self._world.relabelled | self._world.work.reseated)
        for page in self._gpu_pages if changed else ():
            slots = page.rows.size // self._world.layout.n_gpus
            page.sheet.relabel((np.array(changed)[:, None] * slots + np.arange(slots)).ravel())
        self._world.relabelled.clear()
        self._world.work.reseated.clear()
        other_xid = self._gpus.relabelled()
        for page in self._gpu_pages if len(other_xid) else ():
            if page.sheet.metrics[0].row == "xid":
                page.sheet.relabel(other_xid)

    def _standing(self) -> tuple[Bools, Bools]:
        """(n_targets,) each: which targets discovery knows, and which of them answer."""
        knobs = self._world.knobs
        there = np.ones(len(self._targets), dtype=np.bool_)
        answers = there.copy()
        slow = self._rng.random(len(self._world.layout.nodes)) < knobs[Knob.EXPORTER_SLOW]
        for job, numbers in self._of_job.items():
            if job in {GPU_JOB, HOST_JOB, IPMI_JOB}:
                there[numbers] = knobs[Knob.GONE] <= 0
            if job == GPU_JOB:
                answers[numbers] = (knobs[Knob.EXPORTER_DOWN] <= 0) & ~slow
            elif job == HOST_JOB:
                answers[numbers] = knobs[Knob.HOST_EXPORTER_DOWN] <= 0
            elif job == METER_JOB:
                answers[numbers] = knobs[Knob.METER_DOWN] <= 0
        return there, answers

    def _scrape_page(self, page: Page, due: Bools, answers: Bools, times_s: Floats) -> Iterable[Scraped]:
        numbers = self._of_job[page.job]
        which = np.flatnonzero(due[numbers])
        if not len(which) or not page.rows.size:
            return ()
        rows = page.rows[which].ravel()
        of_target = np.repeat(numbers[which], page.rows.shape[1])
        there = page.shown()[rows] & answers[of_target]
        page.sheet.drop(rows[~there])
        rows, of_target = rows[there], of_target[there]
        shown, blanks = self._hiding(page, rows)
        page.sheet.scrape(rows, times_s[of_target], page.read(), shown)
        for metrics, blank, value in blanks:
            page.sheet.overwrite(metrics, blank, value)
        return (Scraped(page.sheet, rows),)

    def _hiding(self, page: Page, rows: Ints) -> tuple[Bools | None, list[tuple[list[int], Ints, float]]]:
        """Which metrics these rows show, None for all; and what they show instead of a value."""
        now_s = self._world.now_s
        shown: Bools | None = None
        blanks: list[tuple[list[int], Ints, float]] = []
        if page.job != GPU_JOB or page.rows.size != self._world.layout.n_gpus:
            return shown, blanks
        for one in self._hidden:
            if not one.start_s <= now_s < one.end_s:
                continue
            places = np.flatnonzero(np.isin(rows, list(one.gpus)))
            metrics = page.sheet.formats.index_of(one.rows)
            if not len(places) or not metrics:
                continue
            if one.value is not None:
                blanks.append((metrics, rows[places], one.value))
                continue
            if shown is None:
                shown = np.ones((len(page.sheet.metrics), len(rows)), dtype=np.bool_)
            shown[np.ix_(np.array(metrics), places)] = False
        return shown, blanks


def _places(found: Sequence[Target], job: str) -> Ints:
    """Which of all targets have this job, in the order of their places."""
    return np.array([number for number, target in enumerate(found) if target.job == job], dtype=np.int64)


def _joined(columns: list[Column]) -> tuple[Column, ...]:
    """A metric that several pages show is one column."""
    by_name: dict[str, Column] = {}
    for column in columns:
        other = by_name.get(column.metric)
        by_name[column.metric] = column if other is None else _both(other, column)
    return tuple(by_name.values())


def _both(one: Column, other: Column) -> Column:
    """Of a series that is in both, as for a while after an upgrade, the newest sample."""
    series = np.concatenate([one.series, other.series])
    values, times = np.concatenate([one.values, other.values]), np.concatenate([one.times, other.times])
    order = np.lexsort((times, series))
    newest = np.append(np.diff(series[order]) != 0, True)
    kept = np.sort(order[newest])
    return Column(one.metric, series[kept], values[kept], times[kept])
