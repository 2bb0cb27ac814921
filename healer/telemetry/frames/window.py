"""Window: readings in, frames out. Holds the history of every GPU that was seen, in rows that do not move."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

import numpy as np

from healer.domain.frame import Bools, Floats, Frame, GpuAxis, Ints, Presence, Presences, RackAxis
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.domain.topology import Topology, departed
from healer.telemetry.catalogue.signals import SPELLINGS
from healer.telemetry.frames.pulse import Pulse
from healer.telemetry.frames.roster import Roster
from healer.telemetry.frames.tick import Tick, oldest_first
from healer.telemetry.frames.tracks import Tracks
from healer.telemetry.identity import TopologyRules, rack_of

# Earlier spellings win over later ones when an exporter offers both.
_ORDER = {metric: position for position, metric in enumerate(SPELLINGS)}


class Window:
    """Attributes:
    span: how much history a frame carries.
    max_age: a sample older than this is unknown, not current; so is one that repeats itself for longer.
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
        self._max_age_s = max_age.total_seconds()
        self._forget_after_s = forget_after.total_seconds()
        self._roster = Roster(rules)
        self._tracks = Tracks()
        self._pulse = Pulse()
        self._offered: dict[Signal, Bools] = {}
        self._last_sample: Floats = np.empty(0)  # (n_gpus,) unix seconds, NaN where the source gave no time
        self._first_seen: Floats = np.empty(0)  # (n_gpus,) unix seconds of the first reading that had the GPU
        self._last_seen: Floats = np.empty(0)  # (n_gpus,) unix seconds of the newest
        self._rack_power: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, reading: Reading, topology: Topology | None = None) -> Frame:
        """Take one reading in and return the frame as of its time.

        Args:
            topology: what is configured to know better than labels do where a GPU is, and whose.
        """
        at_s = reading.at.timestamp()
        self._roster.meet(reading.label_sets)
        self._grow(len(self._roster))
        tick = Tick(at_s, self._max_age_s, self._roster)
        for column in sorted((c for c in reading.columns if c.metric in SPELLINGS), key=lambda c: _ORDER[c.metric]):
            tick.place(column)
        self._roster.update(tick.newest_of_set, topology or Topology())
        self._last_seen[tick.seen] = at_s
        self._first_seen = np.fmin(self._first_seen, self._last_seen)
        self._last_sample = np.fmax(self._last_sample, tick.newest_of_row)
        for signal, values in tick.values.items():
            known = ~np.isnan(values)
            self._offered[signal] = self._offered[signal] | known if signal in self._offered else known
        self._pulse.beat(tick.values, at_s, len(self._roster))
        presence = self._presence(reading, tick)
        frozen = presence == Presence.FROZEN
        if frozen.any():
            tick.values = {signal: np.where(frozen, np.nan, values) for signal, values in tick.values.items()}
        self._tracks.append(at_s, tick.values, len(self._roster))
        self._rack_power.append((at_s, self._racks(reading)))
        presence = self._forget(at_s, presence)
        return self._frame(reading, presence, tick.homeless)

    def _grow(self, n: int) -> None:
        new = n - len(self._last_seen)
        if new:
            self._last_sample = np.concatenate([self._last_sample, np.full(new, np.nan)])
            self._first_seen = np.concatenate([self._first_seen, np.full(new, np.nan)])
            self._last_seen = np.concatenate([self._last_seen, np.full(new, np.nan)])
            no = np.zeros(new, dtype=np.bool_)
            self._offered = {signal: np.concatenate([offered, no]) for signal, offered in self._offered.items()}

    def _presence(self, reading: Reading, tick: Tick) -> Presences:
        """(n_gpus,) of Presence."""
        axis = self._roster.axis()
        presence = np.full(len(axis), Presence.ABSENT, dtype=np.int8)
        # A GPU is missing where its exporter shows others; a MIG instance is not, where its GPU shows other instances.
        presence[_shared(axis.exporters, tick.fresh) & ~_shared(axis.devices, tick.fresh)] = Presence.MISSING
        silent = set(reading.silent)
        if silent:
            down = np.array([target in silent for target in axis.targets], dtype=np.bool_)
            presence[down] = Presence.UNREACHABLE
        presence[self._replaced(axis, presence == Presence.MISSING)] = Presence.ABSENT
        presence[tick.seen] = Presence.STALE
        presence[tick.fresh] = Presence.CURRENT
        presence[tick.fresh & self._pulse.frozen(tick.at_s, self._max_age_s)] = Presence.FROZEN
        return presence

    def _replaced(self, axis: GpuAxis, missing: Bools) -> list[int]:
        """The missing rows in whose slot another GPU came since: swapped, or the machine replaced under its name."""
        if not missing.any():
            return []
        rows = np.flatnonzero(_shared(axis.exporters, missing)).tolist()
        first_s, last_s = self._first_seen[rows].tolist(), self._last_seen[rows].tolist()
        gone = departed([axis.components[row] for row in rows], first_s, last_s)
        return [rows[position] for position in gone if missing[rows[position]]]

    def _racks(self, reading: Reading) -> dict[str, float]:
        """The power of each rack that is fresh; the newest of several."""
        power: dict[str, float] = {}
        for column in reading.columns:
            if column.metric != self._rules.rack_power:
                continue
            fresh = ~(reading.at.timestamp() - column.times > self._max_age_s) & np.isfinite(column.values)
            for i in oldest_first(column.times).tolist():
                rack = rack_of(reading.label_sets[int(column.series[i])], self._rules) if fresh[i] else None
                if rack is not None:
                    power[str(rack.rack)] = float(column.values[i])
        return power

    def _forget(self, at_s: float, presence: Presences) -> Presences:
        oldest = at_s - self._span.total_seconds()
        self._tracks.drop_before(oldest)
        while self._rack_power[0][0] < oldest:
            self._rack_power.popleft()
        gone = at_s - self._last_seen > self._forget_after_s
        if not gone.any():
            return presence
        kept = np.flatnonzero(~gone)
        self._roster.keep(kept)
        self._tracks.keep(kept)
        self._pulse.keep(kept)
        self._last_sample = self._last_sample[kept]
        self._first_seen, self._last_seen = self._first_seen[kept], self._last_seen[kept]
        self._offered = {signal: offered[kept] for signal, offered in self._offered.items()}
        return presence[kept]

    def _frame(self, reading: Reading, presence: Presences, homeless: int) -> Frame:
        at_s = reading.at.timestamp()
        axis = self._roster.axis()
        warnings = reading.warnings + tuple(f"{name} did not answer" for name in reading.silent)
        if homeless:
            warnings += (f"{homeless} series name no GPU: neither a UUID nor an index with a host label",)
        frozen = presence == Presence.FROZEN
        if frozen.any():
            still = sorted({axis.targets[row] for row in np.flatnonzero(frozen).tolist()})
            warnings += tuple(f"{name} repeats itself: nothing has moved for {self._max_age_s:g} s" for name in still)
        last = np.where(frozen, self._pulse.moved_at, self._last_sample)
        return Frame(
            at=reading.at,
            gpus=axis,
            racks=self._rack_axis(axis),
            times=self._tracks.times(at_s),
            values=self._tracks.views(),
            age_s=at_s - last,
            presence=presence,
            offered=dict(self._offered),
            places=self._roster.places(),
            warnings=warnings,
        )

    def _rack_axis(self, axis: GpuAxis) -> RackAxis:
        measured = {rack for _, racks in self._rack_power for rack in racks}
        named = {component.rack for component in axis.components if component.rack is not None}
        names = sorted(measured | named)
        components = tuple(rack for name in names if (rack := rack_of({self._rules.rack_label: name}, self._rules)))
        budgets = self._rules.rack_budget_w
        default = budgets.get("default", np.nan)
        return RackAxis(
            components=components,
            rows={component.key: row for row, component in enumerate(components)},
            power_w=np.array([[racks.get(name, np.nan) for name in names] for _, racks in self._rack_power]).reshape(
                len(self._rack_power), len(names)
            ),
            budget_w=np.array([budgets.get(name, default) for name in names]),
        )


def _shared(numbers: Ints, picked: Bools) -> Bools:
    """(n,) whether any picked row has the same number."""
    return np.bincount(numbers[picked], minlength=int(numbers.max(initial=0)) + 1)[numbers] > 0
