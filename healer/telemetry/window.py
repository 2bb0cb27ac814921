"""Window: readings in, frames out. Holds the history of every GPU that was seen, in rows that do not move."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from healer.domain.component import Component
from healer.domain.frame import Floats, Frame, GpuAxis, RackAxis
from healer.domain.reading import Column, Labels, Reading
from healer.domain.signal import Signal
from healer.telemetry.catalogue import SPELLINGS, convert
from healer.telemetry.identity import TopologyRules, gpu_of, model_of, rack_of

# Earlier spellings win over later ones when an exporter offers both.
_ORDER = {metric: position for position, metric in enumerate(SPELLINGS)}


class Window:
    """Attributes:
    span: how much history a frame carries.
    max_age: a sample older than this is unknown, not current.
    forget_after: a GPU that nothing has been heard of for so long loses its row.
    """

    def __init__(
        self,
        rules: TopologyRules,
        *,
        span: timedelta = timedelta(minutes=10),
        max_age: timedelta = timedelta(seconds=90),
        forget_after: timedelta = timedelta(hours=24),
    ) -> None:
        self._rules = rules
        self._span = span
        self._max_age = max_age
        self._forget_after = forget_after
        self._rows: dict[str, int] = {}
        self._components: list[Component] = []
        self._models: list[str] = []
        self._last_sample: Floats = np.empty(0)  # (n_gpus,) unix seconds, NaN where the source gave no time
        self._last_seen: Floats = np.empty(0)  # (n_gpus,) unix seconds of the reading that had the GPU
        self._renewed: set[int] = set()  # the rows that the reading at hand has named so far
        self._ticks: deque[tuple[datetime, dict[Signal, Floats], dict[str, float]]] = deque()

    def add(self, reading: Reading) -> Frame:
        """Take one reading in and return the frame as of its time."""
        now: dict[Signal, Floats] = {}
        homeless = 0
        self._renewed.clear()
        known = sorted((c for c in reading.columns if c.metric in SPELLINGS), key=lambda column: _ORDER[column.metric])
        for column in known:
            homeless += self._place(column, reading.at, now)
        n = len(self._components)
        now = {signal: _padded(values, n) for signal, values in now.items()}
        self._ticks.append((reading.at, now, self._rack_power(reading)))
        while self._ticks[0][0] < reading.at - self._span:
            self._ticks.popleft()
        self._forget(reading.at)
        warnings = reading.warnings + tuple(f"{name} did not answer" for name in reading.silent)
        if homeless:
            warnings += (f"{homeless} series name no GPU: neither a UUID nor an index with a host label",)
        return self._frame(reading.at, warnings)

    def _place(self, column: Column, at: datetime, now: dict[Signal, Floats]) -> int:
        """Write one column into its signal's row of values; returns how many series named no GPU."""
        spelling = SPELLINGS[column.metric]
        values = convert(spelling, column.values)
        stale = at.timestamp() - column.times > self._max_age.total_seconds()
        rows = np.array([self._row(labels) for labels in column.labels], dtype=np.int64)
        seen = rows >= 0
        target = _padded(now.get(spelling.signal, np.empty(0)), len(self._components))
        # Two series of one GPU (an HA pair, time slicing, an XID with a new label): the newest sample wins.
        newest = np.argsort(np.nan_to_num(column.times, nan=-np.inf), kind="stable")
        fresh = newest[(seen & ~stale & ~np.isnan(values))[newest]]
        spelled = np.full(len(target), np.nan)
        spelled[rows[fresh]] = values[fresh]
        now[spelling.signal] = np.where(np.isnan(target), spelled, target)
        self._last_seen[rows[seen]] = at.timestamp()
        np.fmax.at(self._last_sample, rows[seen], column.times[seen])
        return int(np.count_nonzero(~seen))

    def _row(self, labels: Labels) -> int:
        component = gpu_of(labels, self._rules)
        if component is None:
            return -1
        row = self._rows.get(component.key)
        if row is None:
            row = len(self._components)
            self._rows[component.key] = row
            self._components.append(component)
            self._models.append(model_of(labels))
            self._last_sample = np.append(self._last_sample, np.nan)
            self._last_seen = np.append(self._last_seen, np.nan)
        elif component != self._components[row]:
            before = self._components[row]
            # A job that has ended takes its label along; the other labels only ever move.
            kept = before if row in self._renewed else replace(before, job=None)
            self._components[row] = _merged(component, kept)
        self._renewed.add(row)
        return row

    def _rack_power(self, reading: Reading) -> dict[str, float]:
        power: dict[str, float] = {}
        for column in reading.columns:
            if column.metric != self._rules.rack_power:
                continue
            stale = reading.at.timestamp() - column.times > self._max_age.total_seconds()
            for i in np.argsort(np.nan_to_num(column.times, nan=-np.inf), kind="stable").tolist():
                rack = rack_of(column.labels[i], self._rules)
                if rack is not None and not stale[i] and np.isfinite(column.values[i]):
                    power[str(rack.rack)] = float(column.values[i])
        return power

    def _forget(self, at: datetime) -> None:
        gone = at.timestamp() - self._last_seen > self._forget_after.total_seconds()
        if not gone.any():
            return
        kept = np.flatnonzero(~gone)
        n = len(self._components)
        self._components = [self._components[i] for i in kept]
        self._models = [self._models[i] for i in kept]
        self._rows = {component.key: row for row, component in enumerate(self._components)}
        self._last_sample, self._last_seen = self._last_sample[kept], self._last_seen[kept]
        self._ticks = deque(
            (when, {signal: _padded(values, n)[kept] for signal, values in signals.items()}, racks)
            for when, signals, racks in self._ticks
        )

    def _frame(self, at: datetime, warnings: tuple[str, ...]) -> Frame:
        n = len(self._components)
        signals = {signal for _, values, _ in self._ticks for signal in values}
        unknown = np.full(n, np.nan)
        return Frame(
            at=at,
            gpus=GpuAxis(tuple(self._components), tuple(self._models), dict(self._rows)),
            racks=self._rack_axis(),
            times=np.array([(when - at).total_seconds() for when, _, _ in self._ticks]),
            values={
                signal: np.stack([_padded(values.get(signal, unknown), n) for _, values, _ in self._ticks])
                for signal in signals
            },
            age_s=at.timestamp() - self._last_sample,
            warnings=warnings,
        )

    def _rack_axis(self) -> RackAxis:
        measured = {rack for _, _, racks in self._ticks for rack in racks}
        named = {component.rack for component in self._components if component.rack is not None}
        names = sorted(measured | named)
        components = tuple(rack for name in names if (rack := rack_of({self._rules.rack_label: name}, self._rules)))
        budgets = self._rules.rack_budget_w
        default = budgets.get("default", np.nan)
        return RackAxis(
            components=components,
            rows={component.key: row for row, component in enumerate(components)},
            power_w=np.array([[racks.get(name, np.nan) for name in names] for _, _, racks in self._ticks]).reshape(
                len(self._ticks), len(names)
            ),
            budget_w=np.array([budgets.get(name, default) for name in names]),
        )


def _merged(new: Component, old: Component) -> Component:
    """Labels come and go between metrics of one GPU: what the newer series does not say is kept."""
    return replace(
        old,
        rack=new.rack or old.rack,
        node=new.node or old.node,
        gpu=new.gpu or old.gpu,
        job=new.job or old.job,
    )


def _padded(values: Floats, n: int) -> Floats:
    """The array as (n,), unknown where it was shorter: GPUs that came later were not there then."""
    return values if len(values) == n else np.concatenate([values, np.full(n - len(values), np.nan)])
