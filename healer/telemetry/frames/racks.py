"""Racks: their measured power, as a whole and feed by feed."""

from __future__ import annotations

from collections import deque

import numpy as np

from healer.domain.axes import NOWHERE_ROW, GroupAxis
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import RackAxis
from healer.domain.reading import Reading
from healer.telemetry.frames.tick import oldest_first
from healer.telemetry.identity import TopologyRules, feed_of, rack_of

_Meter = tuple[str, str]  # rack, feed; "" is the whole rack


class Racks:
    def __init__(self, rules: TopologyRules, *, span_s: float, max_age_s: float) -> None:
        self._rules = rules
        self._span_s = span_s
        self._max_age_s = max_age_s
        self._watts: deque[tuple[float, dict[_Meter, float]]] = deque()
        # Every feed of these racks that was ever measured, in the order in which they were met.
        self._feeds: dict[_Meter, None] = {}

    def add(self, reading: Reading) -> None:
        at_s = reading.at.timestamp()
        self._watts.append((at_s, self._measured(reading, at_s)))
        while self._watts[0][0] < at_s - self._span_s:
            self._watts.popleft()

    def axis(self, groups: GroupAxis) -> RackAxis:
        """A rack that nobody names any more takes its feeds along.

        Args:
            groups: the racks that GPUs are in; those that are only measured come to them.
        """
        seen = {rack for _, meters in self._watts for rack, _ in meters}
        named = {str(component.rack): component for component in groups.components}
        names = sorted(seen | named.keys())
        column = {name: place for place, name in enumerate(names)}
        components = [named.get(name, Component(ComponentKind.RACK, rack=name)) for name in names]
        places = np.array([column[str(component.rack)] for component in groups.components], dtype=np.int64)
        there = groups.of_gpu >= 0
        of_gpu = np.full(len(groups.of_gpu), NOWHERE_ROW, dtype=np.int64)
        of_gpu[there] = places[groups.of_gpu[there]]
        budgets = self._rules.rack_budget_w
        default = budgets.get("default", np.nan)
        power_w = np.full((len(self._watts), len(names)), np.nan)
        self._feeds = {meter: None for meter in self._feeds if meter[0] in column}
        feeds = list(self._feeds)
        feed_w = np.full((len(self._watts), len(feeds)), np.nan)
        for tick, (_, meters) in enumerate(self._watts):
            for name, watts in _totals(meters).items():
                power_w[tick, column[name]] = watts
            for number, meter in enumerate(feeds):
                feed_w[tick, number] = meters.get(meter, np.nan)
        return RackAxis(
            groups=GroupAxis.of(components, of_gpu),
            power_w=power_w,
            budget_w=np.array([budgets.get(name, default) for name in names]),
            feeds=tuple(Component(ComponentKind.POWER_FEED, rack=rack, link=f"{rack}/{feed}") for rack, feed in feeds),
            feed_w=feed_w,
        )

    def _measured(self, reading: Reading, at_s: float) -> dict[_Meter, float]:
        """The power that is fresh, by rack and feed; the newest of several."""
        power: dict[_Meter, float] = {}
        for column in reading.columns:
            if column.metric != self._rules.rack_power:
                continue
            fresh = ~(at_s - column.times > self._max_age_s) & np.isfinite(column.values)
            for i in oldest_first(column.times).tolist():
                labels = reading.label_sets[int(column.series[i])]
                rack = rack_of(labels, self._rules) if fresh[i] else None
                if rack is not None:
                    power[str(rack.rack), feed_of(labels, self._rules) or ""] = float(column.values[i])
        self._feeds |= dict.fromkeys(meter for meter in power if meter[1])
        return power


def _totals(meters: dict[_Meter, float]) -> dict[str, float]:
    """By rack: what its own meter says, else the sum of its feeds."""
    totals: dict[str, float] = {}
    for (rack, feed), watts in meters.items():
        if feed and (rack, "") not in meters:
            totals[rack] = totals.get(rack, 0.0) + watts
    return totals | {rack: watts for (rack, feed), watts in meters.items() if not feed}
