"""Blindness: telemetry that is lost, and nodes that nobody can reach.

Mechanism: an exporter dies, hangs and repeats itself, or is no longer scraped; a field vanishes with an update; a node
loses its power or its network. What cannot be seen is not healthy: thirteen monitors were frozen for 7 to 24 days
(NVSentinel 1477), and a lost connection to DCGM got a healthy node replaced (aws containers-roadmap 2555). So blindness
is a finding of its own, and what it would fake (GPUs that are gone, jobs that stand still) is not found behind it.
A node is unreachable only if a second witness says so: the scheduler, or another of its exporters.
Sources: `up`, ages of samples, repeated values (see docs/telemetry.md), the scheduler's word on the node.
Cost of a false positive: a person looks at an exporter that was only being restarted; nothing is ever drained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Bools,
    Component,
    ComponentKind,
    FailureMode,
    Finding,
    Findings,
    Floats,
    Frame,
    Health,
    Ints,
    NodeSignal,
    Presence,
    Report,
    Said,
    Signal,
    Signals,
    evidence,
    findings,
)

MODES = (FailureMode.TELEMETRY_LOST, FailureMode.NODE_UNREACHABLE)
# What every exporter gives of every GPU, so that a GPU without it is not seen.
_ALWAYS = (
    Signal.GPU_TEMPERATURE,
    Signal.POWER,
    Signal.UTILIZATION,
    Signal.SM_CLOCK,
    Signal.MEMORY_USED,
)
# What tells of faults: if it vanishes, they pass unseen.
_TELLING = (
    Signal.XID,
    Signal.ECC_DBE_VOLATILE,
    Signal.ECC_SBE_VOLATILE,
    Signal.ROW_REMAP_FAILED,
    Signal.ROW_REMAP_PENDING,
    Signal.CLOCK_REASONS,
    Signal.PCIE_REPLAY,
    Signal.TENSOR_ACTIVE,
    Signal.DRAM_ACTIVE,
)
READS = (*_ALWAYS, *_TELLING)
_TWO_LOOKS = timedelta(seconds=90)
_BACK_WITHIN = timedelta(minutes=3)
SOURCE = Component(ComponentKind.SOURCE, link="telemetry")


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    lost_after_s: a node of which nothing fresh was seen for so long is lost; restarts of exporters are shorter.
    all_lost_after_s: the same where most of the fleet is silent at once: the source pauses, or its server restarts.
    unreachable_after_s: with a second witness it needs no more than this.
    fields_lost_after_s: a field that a GPU, or all GPUs of a node, lack for so long is lost.
    most: this share of the nodes in service silent at once is the source's trouble, not theirs; just this share is a
        rack's, where they are all of it.
    """

    lost_after_s: float = 180.0
    all_lost_after_s: float = 300.0
    unreachable_after_s: float = 60.0
    fields_lost_after_s: float = 180.0
    most: float = 0.5


_FEWEST_NODES = 4  # fewer are no fleet: each speaks for itself


def detect(frame: Frame, settings: Settings) -> Findings:
    nodes, fields = _Nodes(frame, settings), _lost_fields(frame, settings)
    return (
        _unreachable(frame, nodes)
        + _lost_nodes(frame, settings, nodes, fields.of_nodes)
        + _lost_gpus(frame, settings, nodes, fields.of_gpus)
        + _lost_source(frame, settings, nodes)
    )


class _Nodes:
    """How each node stands in the telemetry. Arrays: (n_nodes,).

    Attributes:
        seen: whether something fresh is seen of any of its GPUs.
        silent_s: for how many seconds nothing fresh was seen of any of its GPUs; 0 while one is seen.
        silent: whether that is more than a missed scrape.
        frozen: whether it is because its exporter repeats itself.
        unreachable: silent, and a second witness says that it is gone.
        on_purpose: out of service because somebody wants it so, or no longer known to the scheduler.
        rack: which rack it is in, -1 for none.
        whole_rack: silent, and so is its rack.
        in_service: (scalar) how many nodes are not out of service.
        everywhere: (scalar) whether most of these are silent.
        lately: (scalar) whether most of these were, minutes ago: who is still silent is only the last to answer.
    """

    def __init__(self, frame: Frame, settings: Settings) -> None:
        groups, told = frame.nodes.groups, frame.nodes.signals
        n = len(groups)
        youngest = np.full(n, np.inf)
        there = groups.of_gpu >= 0
        np.minimum.at(
            youngest, groups.of_gpu[there], np.where(np.isnan(frame.age_s[there]), np.inf, frame.age_s[there])
        )
        self.seen: Bools = groups.count(frame.current) > 0
        self.silent_s: Floats = np.where(self.seen | (groups.sizes == 0), 0.0, youngest)
        self.silent_s[np.isinf(self.silent_s)] = 0.0  # ages that are not told say nothing
        self.frozen: Bools = groups.count(frame.presence == Presence.FROZEN) > 0
        self.silent: Bools = self.silent_s >= settings.unreachable_after_s
        ready, cordoned = told.latest(NodeSignal.READY), told.latest(NodeSignal.CORDONED)
        lately = told.window(NodeSignal.CORDONED, _BACK_WITHIN)  # who is let in again may answer a little later
        cordoned = np.fmax.reduce(lately, axis=0) if len(lately) else cordoned
        self.on_purpose: Bools = (cordoned == 1) | (self.silent & _forgotten(told))
        self.unreachable: Bools = self.silent & ((ready == 0) | frame.nodes.unanswered) & ~self.on_purpose
        self.rack = frame.rack_of_nodes
        self.whole_rack = _of_silent_racks(self.rack, self.silent)
        self.in_service = n - int(np.count_nonzero(self.on_purpose))
        self.everywhere = self.in_service >= _FEWEST_NODES and self._most(settings.most)
        self.lately = self.in_service >= _FEWEST_NODES and _most_silent_lately(frame) > settings.most

    def _most(self, share: float) -> bool:
        lost = self.silent & ~self.on_purpose
        count, most = np.count_nonzero(lost), share * self.in_service
        return bool(count > most or (count == most and not self.whole_rack[lost].all()))


def _most_silent_lately(frame: Frame) -> float:
    """The largest share of the nodes of which nothing was seen at a look of the last minutes."""
    nodes = frame.nodes.groups
    offered = [signal for signal in _ALWAYS if signal in frame.signals]
    if not offered or not len(nodes):
        return 0.0
    windows = [frame.window(signal, _TWO_LOOKS) for signal in offered]
    ticks = min(len(window) for window in windows)
    seen = np.logical_or.reduce([~np.isnan(window[len(window) - ticks :]) for window in windows])
    known = nodes.count(seen.any(axis=0) | ~np.isnan(frame.age_s)) > 0
    return max(float((nodes.count(tick) == 0)[known].mean()) if known.any() else 0.0 for tick in seen)


def _forgotten(told: Signals[NodeSignal]) -> Bools:
    """(n_nodes,) of which the scheduler does not tell any more, while it tells of others: else it is itself unheard."""
    known = np.isfinite(told.latest(NodeSignal.READY))
    before = np.isfinite(told.window(NodeSignal.READY, timedelta(hours=1))).any(axis=0)
    forgotten: Bools = ~known & ((before & known.any()) | (np.count_nonzero(known) > 0.5 * len(known)))
    return forgotten


def _of_silent_racks(rack: Ints, silent: Bools) -> Bools:
    """(n_nodes,) which are silent as nearly all of their rack is."""
    known = rack >= 0
    n_racks = int(rack.max(initial=-1)) + 1
    all_of = np.bincount(rack[known], minlength=n_racks)
    silent_of = np.bincount(rack[known & silent], minlength=n_racks)
    whole = np.zeros(len(rack), dtype=np.bool_)
    whole[known] = (silent_of >= np.maximum(0.75 * all_of, 2))[rack[known]]
    return whole & silent


def _unreachable(frame: Frame, nodes: _Nodes) -> Findings:
    health = np.full(len(frame.nodes), Health.UNKNOWN, dtype=np.int8)
    health[nodes.seen] = Health.HEALTHY
    health[nodes.unreachable] = Health.FAILED
    ready = frame.nodes.signals.latest(NodeSignal.READY)

    def describe(row: int) -> Said:
        witnesses = ["the scheduler calls it not ready"] if ready[row] == 0 else []
        if frame.nodes.unanswered[row]:
            witnesses.append("none of its exporters answers")
        return Said(f"no telemetry for {nodes.silent_s[row]:.0f} s, and {' and '.join(witnesses)}")

    return findings(MODES[1], ComponentKind.NODE, health, frame.nodes.components, describe)


def _lost_nodes(frame: Frame, settings: Settings, nodes: _Nodes, fields: Mapping[int, Sequence[Signal]]) -> Findings:
    lost = (_together(nodes) >= settings.lost_after_s) & ~nodes.unreachable & ~nodes.on_purpose
    health = np.full(len(frame.nodes), Health.UNKNOWN, dtype=np.int8)
    health[nodes.seen] = Health.HEALTHY  # who was never seen, since healer started, is not
    for row in fields:
        health[row] = Health.DEGRADED
    if not nodes.everywhere and not nodes.lately:
        health[lost] = Health.DEGRADED

    def describe(row: int) -> Said:
        if row in fields and not lost[row]:
            return Said(_no_longer_given(fields[row]))
        if nodes.frozen[row]:
            return Said(f"its exporter repeats itself: nothing has moved for {nodes.silent_s[row]:.0f} s")
        return Said(f"nothing fresh from its exporter for {nodes.silent_s[row]:.0f} s")

    return findings(MODES[0], ComponentKind.NODE, health, frame.nodes.components, describe)


def _together(nodes: _Nodes) -> Floats:
    """(n_nodes,) for how long each is silent; of a rack that falls silent together, as long as its last node is."""
    whole = nodes.whole_rack
    latest = np.full(int(nodes.rack.max(initial=-1)) + 1, np.inf)
    np.minimum.at(latest, nodes.rack[whole], nodes.silent_s[whole])
    together = nodes.silent_s.copy()
    together[whole] = latest[nodes.rack[whole]]
    return together


def _no_longer_given(fields: Sequence[Signal]) -> str:
    named = ", ".join(str(signal) for signal in fields[:4])
    return f"its exporter no longer gives {named}: what they tell passes unseen"


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields that were there once and are lacking, though the GPUs are seen.

    Attributes:
        of_nodes, of_gpus: by row.
    """

    of_nodes: dict[int, list[Signal]]
    of_gpus: dict[int, list[Signal]]


def _lost_fields(frame: Frame, settings: Settings) -> _Fields:
    span = timedelta(seconds=settings.fields_lost_after_s)
    lost = _Fields({}, {})
    groups = frame.nodes.groups
    seen = groups.count(frame.current)
    for signal in (*_ALWAYS, *_TELLING):
        if signal not in frame.offered:
            continue
        gone = frame.offered[signal] & frame.current & np.isnan(frame.latest(signal))
        count = groups.count(gone)
        for node in np.flatnonzero(count > 0).tolist():
            rows = groups.members(node)
            rows = rows[gone[rows]].tolist()
            if count[node] < 0.75 * seen[node]:
                for row in rows:
                    if _unknown_for(frame, signal, [row], span):
                        lost.of_gpus.setdefault(row, []).append(signal)
            elif _unknown_for(frame, signal, rows, span):
                lost.of_nodes.setdefault(node, []).append(signal)
    return lost


def _unknown_for(frame: Frame, signal: Signal, rows: list[int], span: timedelta) -> bool:
    """Whether the signal was unknown for these GPUs throughout the last `span`, which the window has to cover."""
    if not rows or frame.times[0] > -span.total_seconds():
        return False
    first = frame.signals.first_tick(span)
    return all(np.isnan(frame.signals.of_row(signal, row)[first:]).all() for row in rows)


def _lost_gpus(frame: Frame, settings: Settings, nodes: _Nodes, fields: Mapping[int, Sequence[Signal]]) -> Findings:
    """GPUs that are on the page beside others and yet not seen: without values, without some that the others have, or
    with values that never move.
    """
    n = len(frame.gpus)
    offered, unknown = np.zeros(n), np.zeros(n)
    for signal in _ALWAYS:
        had = frame.offered.get(signal, np.zeros(n, dtype=np.bool_))
        offered += had
        looks = frame.window(signal, _TWO_LOOKS)[-2:]
        unknown += had & np.isnan(looks).all(axis=0) & (len(looks) == 2)
    blank = frame.current & (offered >= 2) & (unknown > 0.5 * offered)
    frozen = (frame.presence == Presence.FROZEN) & (frame.age_s >= settings.lost_after_s)
    of_node = frame.nodes.groups.of_gpu
    whole = np.zeros(n, dtype=np.bool_)
    if len(nodes.silent):
        whole = (of_node >= 0) & (nodes.silent_s[of_node] > 0)

    health = np.full(n, Health.UNKNOWN, dtype=np.int8)
    health[frame.current & ~blank] = Health.HEALTHY
    health[[row for row in fields if frame.current[row]]] = Health.DEGRADED
    health[(blank | frozen) & ~whole] = Health.DEGRADED

    def describe(row: int) -> Said:
        if frozen[row]:
            return Said(f"its values have not moved for {frame.age_s[row]:.0f} s", evidence(frame, *_ALWAYS, row=row))
        if not blank[row]:
            return Said(_no_longer_given(fields[row]), evidence(frame, *fields[row], row=row))
        return Said(
            f"{unknown[row]:.0f} of {offered[row]:.0f} of its basic values are blank",
            evidence(frame, *_ALWAYS, row=row),
        )

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _lost_source(frame: Frame, settings: Settings, nodes: _Nodes) -> Findings:
    """Most of the fleet at once: one finding of the source, not one of each node."""
    silent = nodes.silent & ~nodes.on_purpose
    count, of = int(np.count_nonzero(silent)), nodes.in_service
    if not nodes.everywhere:
        told = np.count_nonzero(nodes.seen) > (1.0 - settings.most) * of
        return Findings(reports=(Report(MODES[0], SOURCE, Health.HEALTHY),)) if told else Findings()
    for_s = float(np.median(nodes.silent_s[silent]))
    if for_s < settings.all_lost_after_s:
        return Findings()
    members = tuple(frame.nodes.components[row] for row in np.flatnonzero(silent).tolist())
    reason = f"nothing fresh from {count} of {of} nodes for {for_s:.0f} s: their source is the suspect, or the clock"
    found = Finding(MODES[0], SOURCE, Health.DEGRADED, 1.0, reason, members=members)
    return Findings((found,), reports=(Report(MODES[0], SOURCE, Health.DEGRADED),))
