"""Frame: every signal of the fleet at one instant, with the window of history behind it, as arrays.

Row i is the same GPU in every array of one frame. Unknown is NaN: absent, stale, frozen, or a vendor's "no value".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from healer.domain.axes import NOWHERE_ROW, Bools, Floats, GpuAxis, GroupAxis, Ints
from healer.domain.component import Component, ComponentKind
from healer.domain.history import Past, Signals, Xids
from healer.domain.kernel_line import KernelLine
from healer.domain.signal import NodeSignal, PortSignal, Signal
from healer.domain.testimony import Testimony
from healer.domain.topology import Place

__all__ = [
    "Bools",
    "Floats",
    "Frame",
    "GpuAxis",
    "GroupAxis",
    "Ints",
    "NodeAxis",
    "PortAxis",
    "Presence",
    "Presences",
    "RackAxis",
]

Presences = NDArray[np.int8]  # of Presence


class Presence(IntEnum):
    """How a GPU stands in the newest reading. Everything but CURRENT is unknown to a detector, for unlike reasons."""

    CURRENT = 0
    MISSING = 1  # its exporter answers and shows others, but not this one: the GPU is the suspect
    UNREACHABLE = 2  # its exporter does not answer: the telemetry is the suspect
    ABSENT = 3  # nothing is shown by its exporter, and nothing is said about it: taken out, or discovery is at fault
    STALE = 4  # its samples are older than permitted: whoever collects them has stopped
    FROZEN = 5  # its exporter repeats old values under fresh times
    REPLACED = 6  # another GPU came into its slot since: swapped, or the machine replaced under its name


@dataclass(frozen=True, slots=True, eq=False)
class RackAxis:
    """Racks with their measured power and their budget.

    Attributes:
        groups: the racks, and which GPU is in which.
        power_w: (n_ticks, n_racks) watts as measured at the rack, oldest first, NaN where unknown.
        budget_w: (n_racks,) watts, NaN where no budget is configured.
        feeds: the power feeds that are measured one by one: kind power_feed, with their rack.
        feed_w: (n_ticks, n_feeds) watts of each, oldest first, NaN where unknown.
        feed_usual: (n_feeds,) its usual share of what its rack draws, over hours; NaN while that is not known.
    """

    groups: GroupAxis
    power_w: Floats
    budget_w: Floats
    feeds: tuple[Component, ...] = ()
    feed_w: Floats = field(default_factory=lambda: np.empty((0, 0)))
    feed_usual: Floats = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def components(self) -> tuple[Component, ...]:
        return self.groups.components

    @property
    def rows(self) -> Mapping[str, int]:
        return self.groups.rows


@dataclass(frozen=True, slots=True, eq=False)
class NodeAxis:
    """Nodes with GPUs, and what others than the GPUs' exporter say of them.

    Attributes:
        groups: the nodes, and which GPU is in which.
        signals: of whole nodes: what the scheduler says, the temperature of the air that goes in.
        unanswered: (n_nodes,) whether another exporter of the node, on another port, does not answer either.
        inlet_past_c: (n_slots, n_nodes) the temperature of the air that went in, over the hours before, NaN where
            unknown.
    """

    groups: GroupAxis
    signals: Signals[NodeSignal]
    unanswered: Bools
    inlet_past_c: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def components(self) -> tuple[Component, ...]:
        return self.groups.components


@dataclass(frozen=True, slots=True, eq=False)
class PortAxis:
    """Fabric ports of the nodes: InfiniBand, RoCE.

    Attributes:
        components: kind link, with node and rack; `link` is the device and the port ("mlx5_0/1").
        of_node: (n_ports,) the row of the port's node.
        signals: of the ports.
        past: of the ports.
    """

    components: tuple[Component, ...]
    of_node: Ints
    signals: Signals[PortSignal]
    past: Past[PortSignal]

    def __len__(self) -> int:
        return len(self.components)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """All that is known at `at`. The arrays are read-only.

    Attributes:
        at: when the frame was taken, aware UTC.
        signals: of the GPUs over the window. A signal that no exporter offers has no entry.
        past: of the GPUs, in the hours before the window.
        age_s: (n_gpus,) seconds since the newest sample of the GPU, since its newest change if it is frozen, NaN where
            never seen.
        presence: (n_gpus,) int8 of Presence.
        held_s: (n_gpus,) for how many seconds the GPU's job, or that it has none, has been as it is.
        reset_s: (n_gpus,) seconds since the GPU, or its driver, was last seen to start anew; inf where it was not.
        offered: signal -> (n_gpus,) whether the GPU's exporter ever gave it a value.
        places: by node, the rack, feed, NVLink domain and switch that it belongs to.
        drivers: by node, the version of its driver, as far as its exporter tells it.
        testimonies: what jobs say of themselves.
        warnings: what the sources said beside the data; a warned answer may be partial.
        scores: model -> (n_gpus,) float64.
    """

    at: datetime
    gpus: GpuAxis
    nodes: NodeAxis
    racks: RackAxis
    jobs: GroupAxis
    ports: PortAxis
    signals: Signals[Signal]
    past: Past[Signal]
    xids: Xids
    age_s: Floats
    presence: Presences
    held_s: Floats
    reset_s: Floats
    offered: Mapping[Signal, Bools] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    drivers: Mapping[str, str] = field(default_factory=dict)
    testimonies: tuple[Testimony, ...] = ()
    warnings: tuple[str, ...] = ()
    scores: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def times(self) -> Floats:
        """(n_ticks,) seconds relative to `at`, oldest first, the last is 0."""
        return self.signals.times_s - self.at.timestamp()

    def latest(self, signal: Signal) -> Floats:
        """(n_gpus,) the newest values; all NaN if no exporter offers the signal."""
        return self.signals.latest(signal)

    def window(self, signal: Signal, span: timedelta) -> Floats:
        """(n_ticks_in_span, n_gpus) the values of the last `span`, oldest first."""
        return self.signals.window(signal, span)

    def growth(self, signal: Signal, span: timedelta) -> Floats:
        """(n_gpus,) by how much a counter has grown within the last `span`, resets and gaps accounted for."""
        return self.signals.growth(signal, span)

    def xids_since_reset(self, codes: Collection[int], *, standing: bool = False) -> Bools:
        """(n_gpus,) whether one of these XIDs was seen since the GPU last started anew.

        Args:
            standing: instead those that were there before anybody looked.
        """
        xids, hit = self.xids, np.zeros(len(self.gpus), dtype=np.bool_)
        hit[xids.rows[xids.among(codes) & (xids.standing == standing) & self._xids_count()]] = True
        return hit

    def jobs_with_xid(self, codes: Collection[int]) -> Ints:
        """(n_gpus,) in how many jobs one of these XIDs was seen on the GPU within a day, resets or not."""
        xids = self.xids
        picked = xids.among(codes) & ~xids.standing & (xids.jobs != NOWHERE_ROW)
        pairs = np.unique(np.stack([xids.rows[picked], xids.jobs[picked]]), axis=1)
        counts: Ints = np.bincount(pairs[0], minlength=len(self.gpus))
        return counts

    def xid_codes(self, row: int, codes: Collection[int]) -> tuple[int, ...]:
        """Which of these XIDs were seen on one GPU since it last started anew, the newest first."""
        xids = self.xids
        picked = np.flatnonzero((xids.rows == row) & xids.among(codes) & ~xids.standing & self._xids_count())
        newest_first = picked[np.argsort(-xids.last_s[picked], kind="stable")]
        return tuple(dict.fromkeys(xids.codes[newest_first].tolist()))

    def xid_lines(self, codes: Collection[int]) -> tuple[tuple[int, KernelLine], ...]:
        """By row, what the kernel's log says of these XIDs since the GPU last started anew, oldest first."""
        xids = self.xids
        if not xids.lines:
            return ()
        picked = np.flatnonzero(xids.among(codes) & ~xids.standing & self._xids_count())
        picked = picked[np.argsort(xids.last_s[picked], kind="stable")]
        lines = ((int(xids.rows[entry]), xids.lines[entry]) for entry in picked.tolist())
        return tuple((row, line) for row, line in lines if line is not None)

    def _xids_count(self) -> Bools:
        """(m,) which of the XIDs came after the GPU last started anew."""
        after: Bools = self.at.timestamp() - self.xids.last_s < self.reset_s[self.xids.rows]
        return after

    def rack_window(self, span: timedelta) -> Floats:
        """(n_ticks_in_span, n_racks) measured rack power in watts, oldest first."""
        return self.racks.power_w[self.signals.first_tick(span) :]

    @property
    def current(self) -> Bools:
        """(n_gpus,) whether the GPU is seen as it is now."""
        current: Bools = self.presence == Presence.CURRENT
        return current

    @property
    def rack_of_nodes(self) -> Ints:
        """(n_nodes,) the row of the rack that each node is in, NOWHERE_ROW for none."""
        nodes, racks = self.nodes.groups.of_gpu, self.racks.groups.of_gpu
        there = (nodes >= 0) & (racks >= 0)
        rack = np.full(len(self.nodes), NOWHERE_ROW, dtype=np.int64)
        rack[nodes[there]] = racks[there]
        return rack

    def row_of(self, component: Component) -> int | None:
        """The row of the component on the axis of its kind; None when the frame does not have it."""
        match component.kind:
            case ComponentKind.GPU:
                return self.gpus.rows.get(component.key)
            case ComponentKind.RACK:
                return self.racks.rows.get(component.key)
            case ComponentKind.NODE:
                return self.nodes.groups.rows.get(component.key)
            case ComponentKind.JOB:
                return self.jobs.rows.get(component.key)
            case _:
                return None

    def parts_of(self, component: Component) -> Ints:
        """The rows of the GPUs that are the component, or part of it; of a port those of its node, of a feed of a rack
        those of the rack, and of a switch or another feed those of the nodes that hang on it.
        """
        rows: Ints = np.empty(0, dtype=np.int64)
        match component.kind:
            case ComponentKind.GPU:
                if (row := self.gpus.rows.get(component.key)) is not None:
                    rows = np.array([row], dtype=np.int64)
            case ComponentKind.LINK if component.node is None:
                rows = self._of_nodes(lambda place: place.switch == component.link)
            case ComponentKind.POWER_FEED if component.rack is None:
                rows = self._of_nodes(lambda place: place.feed == component.link)
            case ComponentKind.NODE | ComponentKind.LINK:
                rows = _members(self.nodes.groups, Component(ComponentKind.NODE, node=component.node))
            case ComponentKind.RACK | ComponentKind.POWER_FEED:
                rows = _members(self.racks.groups, Component(ComponentKind.RACK, rack=component.rack))
            case ComponentKind.JOB:
                rows = _members(self.jobs, component)
            case ComponentKind.SOURCE:  # pragma: no branch
                pass
        return rows

    def _of_nodes(self, belongs: Callable[[Place], bool]) -> Ints:
        """(n,) the rows of the GPUs of all nodes whose place `belongs`."""
        theirs = [
            row
            for row, node in enumerate(self.nodes.components)
            if (place := self.places.get(str(node.node))) is not None and belongs(place)
        ]
        return np.flatnonzero(np.isin(self.nodes.groups.of_gpu, theirs))

    def age_of(self, component: Component) -> float:
        """Seconds since the newest sample of the component, of a rack that of its meter; NaN if there is none."""
        if component.kind is ComponentKind.RACK:
            row = self.row_of(component)
            return float("nan") if row is None or np.isnan(self.racks.power_w[-1, row]) else 0.0
        return self.age_of_gpus(component)

    def age_of_gpus(self, component: Component) -> float:
        """Seconds since the newest sample of any GPU that is the component, or part of it; NaN if there is none."""
        ages = self.age_s[self.parts_of(component)]
        return float(np.nanmin(ages, initial=np.inf)) if not np.isnan(ages).all() else float("nan")


def _members(groups: GroupAxis, component: Component) -> Ints:
    row = groups.rows.get(component.key)
    return np.empty(0, dtype=np.int64) if row is None else groups.members(row)
