"""Window: readings in, frames out. Holds the history of every GPU that was seen, in rows that do not move."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

import numpy as np

from healer.domain.axes import Bools, Floats, GpuAxis, Ints
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame, Presence, Presences
from healer.domain.kernel_line import KernelLine
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.domain.testimony import Testimony
from healer.domain.topology import Topology, departed
from healer.telemetry.catalogue.signals import SPELLINGS, is_step
from healer.telemetry.frames.anew import Anew
from healer.telemetry.frames.kernel_log import KernelLog
from healer.telemetry.frames.pulse import Pulse
from healer.telemetry.frames.punctual import Punctual
from healer.telemetry.frames.racks import Racks
from healer.telemetry.frames.recorder import Recorder
from healer.telemetry.frames.roster import Roster
from healer.telemetry.frames.site import Site
from healer.telemetry.frames.tick import Tick
from healer.telemetry.frames.xid_log import XidLog
from healer.telemetry.identity import TopologyRules

# Earlier spellings win over later ones when an exporter offers both.
_ORDER = {metric: position for position, metric in enumerate(SPELLINGS)}
_NOT_SHOWN = (Presence.MISSING, Presence.REPLACED)
_COUNTED_XIDS = {Signal.XID_RECENT: "recent", Signal.XID_ERRORS: "total"}


class Window:
    """Attributes:
    span: how much history a frame carries.
    max_age: a sample older than this is unknown, not current; so is one that repeats itself for longer.
    forget_after: a GPU that nothing has been heard of for so long loses its row.
    remembered: the signals that somebody compares with their past, which goes back hours beyond the span.
    """

    def __init__(
        self,
        rules: TopologyRules,
        *,
        span: timedelta = timedelta(minutes=10),
        max_age: timedelta = timedelta(seconds=90),
        forget_after: timedelta = timedelta(hours=24),
        remembered: Collection[Signal] = (),
    ) -> None:
        self._span = span
        self._rules = rules
        self._remembered = remembered
        self._max_age_s = max_age.total_seconds()
        self._forget_after_s = forget_after.total_seconds()
        self._roster = Roster(rules)
        self._pulse = Pulse()
        self._punctual = Punctual()
        self._anew = Anew()
        self._xids = XidLog()
        self._kernel_log = KernelLog()
        self._offered: dict[Signal, Bools] = {}
        self._last_sample: Floats = np.empty(0)  # (n_gpus,) unix seconds, NaN where the source gave no time
        # (n_gpus,) unix seconds of the sample that it was met with; -inf if it was there before anybody looked
        self._first_sample: Floats = np.empty(0)
        self._last_seen: Floats = np.empty(0)  # (n_gpus,) unix seconds of the newest reading that had the GPU
        self._jobs: Ints = np.empty(0, dtype=np.int64)
        self._job_since: Floats = np.empty(0)  # (n_gpus,) unix seconds
        self._at_s = -np.inf
        self._restart()

    def add(
        self,
        reading: Reading,
        topology: Topology | None = None,
        *,
        fleet: Fleet | None = None,
        testimonies: tuple[Testimony, ...] = (),
        kernel_lines: Sequence[KernelLine] | None = None,
        sick: Bools | None = None,
        sick_ports: Bools | None = None,
    ) -> Frame:
        """Take one reading in and return the frame as of its time.

        Args:
            topology: what is configured to know better than labels do where a GPU is, and whose.
            fleet: what the scheduler says of the nodes; None where nobody can be asked.
            kernel_lines: what kernel logs said since the reading before; None where nobody reads them.
            sick, sick_ports: (n_gpus, n_ports of the frame before,) what was found sick in it: that is not learnt as
                normal.
        """
        at_s = reading.at.timestamp()
        if at_s < self._at_s:
            self._restart()  # the clock was set back: what lies ahead of it is no history
            sick_ports = None
        self._at_s = at_s
        self._roster.meet(reading.label_sets)
        self._grow(len(self._roster))
        tick = Tick(at_s, self._max_age_s, self._roster)
        for column in sorted((c for c in reading.columns if c.metric in SPELLINGS), key=lambda c: _ORDER[c.metric]):
            tick.place(column)
        self._roster.update(tick.newest_of_set, topology or Topology())
        known_before = ~np.isnan(self._last_seen)
        self._last_seen[tick.seen] = at_s
        self._last_sample = np.fmax(self._last_sample, tick.newest_of_row)
        met = tick.seen & ~known_before
        self._first_sample[met] = self._last_heard()[met] if known_before.any() else -np.inf
        for signal, values in tick.values.items():
            known = ~np.isnan(values)
            self._offered[signal] = self._offered[signal] | known if signal in self._offered else known
        self._pulse.beat(tick.values, at_s, len(self._roster))
        self._follow_jobs(at_s)
        presence = self._presence(reading, tick)
        doubtful = (presence == Presence.FROZEN) | (tick.fresh & (presence == Presence.MISSING))
        if doubtful.any():
            tick.values = {signal: np.where(doubtful, np.nan, values) for signal, values in tick.values.items()}
        self._note_xids(reading, tick, known_before)
        if kernel_lines is not None:
            self._note_lines(reading, kernel_lines)
        self._xids.forget(at_s)
        self._anew.note(tick.values, at_s, len(self._roster))
        self._record.append(at_s, tick.values, len(self._roster), sick)
        self._site.add(reading, fleet, sick_ports)
        self._racks.add(reading)
        presence = self._forget(at_s, presence)
        return self._frame(reading, presence, tick.homeless, testimonies)

    def _restart(self) -> None:
        self._record: Recorder[Signal] = Recorder(span=self._span, steps=is_step, remembered=self._remembered)
        self._site = Site(self._rules, span=self._span, max_age_s=self._max_age_s)
        self._racks = Racks(self._rules, span_s=self._span.total_seconds(), max_age_s=self._max_age_s)

    def _grow(self, n: int) -> None:
        new = n - len(self._last_seen)
        if new:
            unknown = np.full(new, np.nan)
            self._last_sample = np.concatenate([self._last_sample, unknown])
            self._first_sample = np.concatenate([self._first_sample, unknown])
            self._last_seen = np.concatenate([self._last_seen, unknown])
            no = np.zeros(new, dtype=np.bool_)
            self._offered = {signal: np.concatenate([offered, no]) for signal, offered in self._offered.items()}

    def _follow_jobs(self, at_s: float) -> None:
        jobs = self._roster.jobs
        since = np.full(len(jobs), at_s)
        known = len(self._jobs)
        same = jobs[:known] == self._jobs
        since[:known][same] = self._job_since[same]
        self._jobs, self._job_since = jobs, since

    def _note_xids(self, reading: Reading, tick: Tick, known_before: Bools) -> None:
        if Signal.XID in tick.values:
            cleared = self._xids.note_gauge(tick.values[Signal.XID], tick.at_s, self._jobs)
            self._anew.started(cleared, tick.at_s)
        for column in reading.columns:
            spelling = SPELLINGS.get(column.metric)
            if spelling is None or spelling.signal not in _COUNTED_XIDS:
                continue
            rows = self._roster.row_of[column.series]
            fresh = np.flatnonzero((rows >= 0) & ~(tick.at_s - column.times > self._max_age_s))
            self._xids.note_counts(
                _COUNTED_XIDS[spelling.signal],
                rows[fresh],
                self._roster.codes(spelling.part)[column.series[fresh]],
                column.values[fresh],
                at_s=tick.at_s,
                jobs=self._jobs,
                known_before=known_before,
            )

    def _note_lines(self, reading: Reading, lines: Sequence[KernelLine]) -> None:
        axis = self._roster.axis()
        self._kernel_log.meet(reading.label_sets, self._roster.row_of, axis)
        for row, line in self._kernel_log.located(lines, reading.at.timestamp(), axis, self._last_heard()):
            self._xids.note(row, line, int(self._jobs[row]))

    def _presence(self, reading: Reading, tick: Tick) -> Presences:
        """(n_gpus,) of Presence."""
        axis = self._roster.axis()
        fresh = tick.fresh & ~self._punctual.behind(tick.at_s, axis.exporters, tick.newest_of_row, self._last_sample)
        presence = np.full(len(axis), Presence.ABSENT, dtype=np.int8)
        # A GPU is missing where its exporter shows others; a MIG instance is not, where its GPU shows other instances.
        presence[_shared(axis.exporters, fresh) & ~_shared(axis.devices, fresh)] = Presence.MISSING
        silent = set(reading.silent)
        if silent:
            down = np.array([target in silent for target in axis.targets], dtype=np.bool_)
            presence[down] = Presence.UNREACHABLE
        presence[self._replaced(axis, presence == Presence.MISSING)] = Presence.REPLACED
        presence[tick.seen & ~tick.fresh & ~np.isin(presence, _NOT_SHOWN)] = Presence.STALE
        presence[fresh] = Presence.CURRENT
        presence[fresh & self._pulse.frozen(tick.at_s, self._max_age_s)] = Presence.FROZEN
        return presence

    def _replaced(self, axis: GpuAxis, missing: Bools) -> list[int]:
        """The missing rows in whose slot another GPU came since: swapped, or the machine replaced under its name."""
        if not missing.any():
            return []
        rows = np.flatnonzero(_shared(axis.exporters, missing)).tolist()
        # By samples: a store that does not say that series end shows the old one beside the new one for minutes.
        first_s, last_s = self._first_sample[rows].tolist(), self._last_heard()[rows].tolist()
        gone = departed([axis.components[row] for row in rows], first_s, last_s)
        return [rows[position] for position in gone if missing[rows[position]]]

    def _last_heard(self) -> Floats:
        """(n_gpus,) unix seconds of the newest sample, or of the reading that had it, where it gave no time."""
        return np.where(np.isnan(self._last_sample), self._last_seen, self._last_sample)

    def _forget(self, at_s: float, presence: Presences) -> Presences:
        gone = at_s - self._last_seen > self._forget_after_s
        if not gone.any():
            return presence
        kept = np.flatnonzero(~gone)
        for part in (self._roster, self._record, self._pulse, self._anew, self._xids):
            part.keep(kept)
        self._last_sample = self._last_sample[kept]
        self._first_sample, self._last_seen = self._first_sample[kept], self._last_seen[kept]
        self._jobs, self._job_since = self._jobs[kept], self._job_since[kept]
        self._offered = {signal: offered[kept] for signal, offered in self._offered.items()}
        return presence[kept]

    def _frame(self, reading: Reading, presence: Presences, homeless: int, testimonies: tuple[Testimony, ...]) -> Frame:
        at_s = reading.at.timestamp()
        axis, groups = self._roster.axis(), self._roster.groups()
        warnings = reading.warnings + tuple(f"{name} did not answer" for name in reading.silent)
        if homeless:
            warnings += (f"{homeless} series name no GPU: neither a UUID nor an index with a host label",)
        warnings += self._kernel_log.warnings()
        frozen = presence == Presence.FROZEN
        if frozen.any():
            still = sorted({axis.targets[row] for row in np.flatnonzero(frozen).tolist()})
            warnings += tuple(f"{name} repeats itself: nothing has moved for {self._max_age_s:g} s" for name in still)
        last = np.where(frozen, self._pulse.moved_at, self._last_sample)
        return Frame(
            at=reading.at,
            gpus=axis,
            nodes=self._site.nodes(groups.nodes),
            racks=self._racks.axis(groups.racks),
            jobs=groups.jobs,
            ports=self._site.ports(groups.nodes),
            signals=self._record.signals(),
            past=self._record.past(),
            xids=self._xids.shown(),
            age_s=at_s - last,
            presence=presence,
            held_s=at_s - self._job_since,
            reset_s=self._anew.ago_s(at_s),
            offered=dict(self._offered),
            places=self._roster.places(),
            drivers=self._roster.drivers(),
            testimonies=testimonies,
            warnings=warnings,
        )


def _shared(numbers: Ints, picked: Bools) -> Bools:
    """(n,) whether any picked row has the same number."""
    return np.bincount(numbers[picked], minlength=int(numbers.max(initial=0)) + 1)[numbers] > 0
