"""Site: the nodes and fabric ports around the GPUs, as other exporters and the scheduler tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Generic, TypeVar

import numpy as np

from healer.domain.axes import Bools, Floats, GroupAxis, Ints
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Fleet
from healer.domain.frame import NodeAxis, PortAxis
from healer.domain.history import Past, Signals
from healer.domain.reading import Column, Labels, Reading
from healer.domain.signal import NodeSignal, PortSignal
from healer.domain.topology import matched
from healer.telemetry.catalogue.site import (
    DEVICE_LABEL,
    MOVING_PORT_SIGNALS,
    PORT_LABEL,
    SITE_COLUMNS,
    SiteSpelling,
)
from healer.telemetry.frames.recorder import Recorder
from healer.telemetry.frames.tick import oldest_first
from healer.telemetry.identity import TopologyRules, host_of

_UNSEEN = -2
_OTHER = -1
_TALLIED_OF_PORTS = frozenset({PortSignal.LINK_DOWNED, PortSignal.CARRIER_CHANGES})
_REMEMBERED_OF_PORTS = frozenset(PortSignal) - MOVING_PORT_SIGNALS - {PortSignal.ACTIVE}

K = TypeVar("K")
S = TypeVar("S", bound=StrEnum)

_PortKey = tuple[str, str]  # the node as its exporter names it, device/port


class Site:
    def __init__(self, rules: TopologyRules, *, span: timedelta, max_age_s: float) -> None:
        self._rules = rules
        self._max_age_s = max_age_s
        self._nodes: _Rows[str] = _Rows()
        self._ports: _Rows[_PortKey] = _Rows()
        self._node_record: Recorder[NodeSignal] = Recorder(
            span=span, steps=lambda _signal: False, remembered={NodeSignal.INLET_TEMPERATURE}
        )
        self._port_record: Recorder[PortSignal] = Recorder(
            span=span,
            steps=lambda signal: signal not in MOVING_PORT_SIGNALS,
            remembered=_REMEMBERED_OF_PORTS,
            tallied=_TALLIED_OF_PORTS,
        )
        self._unanswered: frozenset[str] = frozenset()
        self._node_names = _Names()
        self._port_names = _Names()

    def add(self, reading: Reading, fleet: Fleet | None, sick_ports: Bools | None = None) -> None:
        """Take one reading in, and what the scheduler says of its nodes, if it can be asked.

        Args:
            sick_ports: (n_ports of the last `ports`,) what is not learnt as normal; None for none.
        """
        at_s = reading.at.timestamp()
        of_nodes: dict[NodeSignal, list[tuple[Ints, Floats]]] = {}
        of_ports: dict[PortSignal, list[tuple[Ints, Floats]]] = {}
        for column in reading.columns:
            spelling = SITE_COLUMNS.get(column.metric)
            if spelling is None:
                continue
            if isinstance(spelling.signal, NodeSignal):
                rows = self._nodes.of(column.series, reading.label_sets, self._node_key, spelling)
                of_nodes.setdefault(spelling.signal, []).append(self._newest(column, rows, spelling, at_s))
            else:
                rows = self._ports.of(column.series, reading.label_sets, self._port_key, spelling)
                of_ports.setdefault(spelling.signal, []).append(self._newest(column, rows, spelling, at_s))
        if fleet is not None and fleet.problem is None:
            rows = np.array([self._nodes.number(name) for name in fleet.nodes], dtype=np.int64)
            for signal, told in (
                (NodeSignal.READY, [float(node.ready) for node in fleet.nodes.values()]),
                (NodeSignal.CORDONED, [float(node.cordoned) for node in fleet.nodes.values()]),
            ):
                of_nodes.setdefault(signal, []).append((rows, np.array(told)))
        self._node_record.append(at_s, _dense(of_nodes, len(self._nodes)), len(self._nodes))
        self._port_record.append(at_s, _dense(of_ports, len(self._ports)), len(self._ports), sick_ports)
        self._unanswered = frozenset(name for labels in reading.down if (name := self._node_key(labels)) is not None)

    def nodes(self, groups: GroupAxis) -> NodeAxis:
        """Of the nodes that have GPUs."""
        rows = self._node_names.rows_of(groups, self._nodes.keys)
        told = self._node_record.signals()
        gauges = {signal: _picked(cells, rows) for signal, cells in told.gauges.items()}
        lost = {name.lower().partition(".")[0] for name in self._unanswered}
        unanswered = np.zeros(len(groups), dtype=np.bool_)
        if lost:
            short = [str(component.node).lower().partition(".")[0] for component in groups.components]
            unanswered[:] = [name in lost for name in short]
        inlet = self._node_record.past().mean(NodeSignal.INLET_TEMPERATURE).astype(np.float64)
        return NodeAxis(groups, Signals(told.times_s, len(groups), gauges), unanswered, _picked(inlet, rows))

    def ports(self, groups: GroupAxis) -> PortAxis:
        hosts = list(dict.fromkeys(node for node, _ in self._ports.keys))
        by_host = {host: row for row, host in enumerate(hosts)}
        to_host = self._port_names.rows_of(groups, hosts)  # node row -> host row
        of_host = np.full(len(hosts), -1, dtype=np.int64)
        there = to_host >= 0
        of_host[to_host[there]] = np.flatnonzero(there)
        of_node = np.array([of_host[by_host[node]] for node, _ in self._ports.keys], dtype=np.int64)
        components = tuple(
            Component(
                ComponentKind.LINK,
                rack=groups.components[row].rack if row >= 0 else None,
                node=groups.components[row].node if row >= 0 else node,
                link=link,
            )
            for (node, link), row in zip(self._ports.keys, of_node.tolist(), strict=True)
        )
        past: Past[PortSignal] = self._port_record.past()
        return PortAxis(components, of_node, self._port_record.signals(), past)

    def _newest(self, column: Column, rows: Ints, spelling: SiteSpelling, at_s: float) -> tuple[Ints, Floats]:
        """The rows that the column has fresh samples of, and their values; the newest comes last."""
        wanted = (rows >= 0) & ~(at_s - column.times > self._max_age_s) & np.isfinite(column.values)
        order = np.flatnonzero(wanted)
        order = order[oldest_first(column.times[order])]
        values = column.values[order]
        return rows[order], values if spelling.active_at is None else (values == spelling.active_at).astype(np.float64)

    def _node_key(self, labels: Labels) -> str | None:
        return host_of(labels, self._rules)

    def _port_key(self, labels: Labels) -> _PortKey | None:
        node, device, port = host_of(labels, self._rules), labels.get(DEVICE_LABEL), labels.get(PORT_LABEL)
        return None if node is None or not device else (node, f"{device}/{port}" if port else device)


class _Rows(Generic[K]):
    """Rows by what their labels name, in the order in which they were met; they never move.

    Attributes:
        keys: by row.
    """

    def __init__(self) -> None:
        self.keys: list[K] = []
        self._numbers: dict[K, int] = {}
        self._sets: Sequence[Labels] = ()
        self._row_of: Ints = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def number(self, key: K) -> int:
        row = self._numbers.setdefault(key, len(self.keys))
        if row == len(self.keys):
            self.keys.append(key)
        return row

    def of(
        self, series: Ints, sets: Sequence[Labels], key_of: Callable[[Labels], K | None], spelling: SiteSpelling
    ) -> Ints:
        """(n_series,) the row of each series, negative where it names none."""
        if sets is not self._sets:
            self._sets, self._row_of = sets, np.empty(0, dtype=np.int64)
        if len(self._row_of) < len(sets):
            self._row_of = np.concatenate([self._row_of, np.full(len(sets) - len(self._row_of), _UNSEEN)])
        for number in np.unique(series[self._row_of[series] == _UNSEEN]).tolist():
            key = key_of(sets[number]) if spelling.is_about(sets[number]) else None
            self._row_of[number] = _OTHER if key is None else self.number(key)
        return self._row_of[series]


class _Names:
    """Which of the names that exporters use is which of our nodes; looked up again when either change."""

    def __init__(self) -> None:
        self._ours: tuple[Component, ...] = ()
        self._theirs: tuple[str, ...] = ()
        self._rows: Ints = np.empty(0, dtype=np.int64)

    def rows_of(self, groups: GroupAxis, theirs: Sequence[str]) -> Ints:
        """(n_groups,) where each node stands in `theirs`; -1 for one that is not there."""
        theirs = (*theirs,)
        if groups.components is not self._ours or theirs != self._theirs:
            ours = [str(component.node) for component in groups.components]
            found, _ = matched(ours, theirs)
            places = {name: place for place, name in enumerate(theirs)}
            self._rows = np.array([places.get(found.get(name, ""), -1) for name in ours], dtype=np.int64)
            self._ours, self._theirs = groups.components, theirs
        return self._rows


def _dense(told: Mapping[S, Iterable[tuple[Ints, Floats]]], n: int) -> dict[S, Floats]:
    dense: dict[S, Floats] = {}
    for signal, parts in told.items():
        dense[signal] = np.full(n, np.nan)
        for rows, values in parts:
            dense[signal][rows] = values
    return dense


def _picked(cells: Floats, rows: Ints) -> Floats:
    """(n_ticks, len(rows)) the columns of these rows; NaN for a row that is not there."""
    if not cells.shape[1]:
        return np.full((len(cells), len(rows)), np.nan)
    picked: Floats = np.where(rows >= 0, cells[:, np.maximum(rows, 0)], np.nan)
    return picked
