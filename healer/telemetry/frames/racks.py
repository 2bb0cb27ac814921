"""Racks: their measured power, as a whole and feed by feed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import NOWHERE_ROW, GroupAxis
from healer.domain.component import Component, ComponentKind
from healer.domain.frame import RackAxis
from healer.domain.reading import Reading
from healer.telemetry.frames.tick import oldest_first
from healer.telemetry.identity import TopologyRules, feed_of, rack_of

_Meter = tuple[str, str]  # rack, feed; "" is the whole rack

_BEHIND = 1.5  # scrapes: of a sum, a part that is so much older than the newest is what was, not what is
_KNOWN_AFTER_S = 600.0
_LIKE_ALWAYS = 0.1
_LEARNS_IN_S, _LEARNS_ELSE_IN_S = 3600.0, 24 * 3600.0


@dataclass(slots=True, eq=False)
class _Feed:
    """What is remembered of a feed.

    Attributes:
        sample_s, apart_s: when its newest sample is from, unix seconds, and the least time between two.
        share: its usual share of its rack.
        known_s: for how long that has been seen.
    """

    sample_s: float = np.nan
    apart_s: float = np.inf
    share: float = 0.0
    known_s: float = 0.0

    def sampled(self, at_s: float) -> None:
        if at_s > self.sample_s:
            self.apart_s = min(self.apart_s, at_s - self.sample_s)
        self.sample_s = at_s

    def is_behind(self, newest_s: float) -> bool:
        return newest_s - self.sample_s > _BEHIND * self.apart_s

    def carried(self, share: float, for_s: float) -> None:
        """What is off is hardly learnt, so that a feed that failed stays a feed that failed."""
        is_off = self.known_s >= _KNOWN_AFTER_S and abs(share - self.share) > _LIKE_ALWAYS
        self.known_s += for_s
        learns_in_s = _LEARNS_ELSE_IN_S if is_off else min(self.known_s, _LEARNS_IN_S)
        self.share += for_s / learns_in_s * (share - self.share) if for_s > 0 else 0.0


class Racks:
    def __init__(self, rules: TopologyRules, *, span_s: float, max_age_s: float) -> None:
        self._rules = rules
        self._span_s = span_s
        self._max_age_s = max_age_s
        self._watts: deque[tuple[float, dict[_Meter, float]]] = deque()
        # Every feed of these racks that was ever measured, in the order in which they were met.
        self._feeds: dict[_Meter, _Feed] = {}

    def add(self, reading: Reading) -> None:
        at_s = reading.at.timestamp()
        meters = self._measured(reading, at_s)
        if self._watts:
            self._learn(meters, at_s - self._watts[-1][0])
        self._watts.append((at_s, meters))
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
        self._feeds = {meter: feed for meter, feed in self._feeds.items() if meter[0] in column}
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
            feed_usual=np.array(
                [feed.share if feed.known_s >= _KNOWN_AFTER_S else np.nan for feed in self._feeds.values()]
            ),
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
                if rack is None:
                    continue
                meter = (str(rack.rack), feed_of(labels, self._rules) or "")
                power[meter] = float(column.values[i])
                if meter[1]:
                    self._feeds.setdefault(meter, _Feed()).sampled(float(column.times[i]))
        return self._at_one_time(power)

    def _at_one_time(self, power: Mapping[_Meter, float]) -> dict[_Meter, float]:
        """Without the feeds whose racks' other feeds tell of a later time: added to them, watts would count twice."""
        newest_s: dict[str, float] = {}
        for rack, feed in power:
            if feed:
                newest_s[rack] = max(newest_s.get(rack, -np.inf), self._feeds[rack, feed].sample_s)
        return {
            (rack, feed): watts
            for (rack, feed), watts in power.items()
            if not feed or not self._feeds[rack, feed].is_behind(newest_s[rack])
        }

    def _learn(self, meters: Mapping[_Meter, float], for_s: float) -> None:
        racks: dict[str, dict[_Meter, float]] = {}
        for meter in self._feeds:
            racks.setdefault(meter[0], {})[meter] = meters.get(meter, np.nan)
        for parts in racks.values():
            total = sum(parts.values())
            for meter, watts in parts.items() if total > 0 else ():
                self._feeds[meter].carried(watts / total, min(for_s, _KNOWN_AFTER_S / 2))


def _totals(meters: dict[_Meter, float]) -> dict[str, float]:
    """By rack: what its own meter says, else the sum of its feeds."""
    totals: dict[str, float] = {}
    for (rack, feed), watts in meters.items():
        if feed and (rack, "") not in meters:
            totals[rack] = totals.get(rack, 0.0) + watts
    return totals | {rack: watts for (rack, feed), watts in meters.items() if not feed}
