"""The air that enters the nodes of a simulated machine room: by rack, over the day, with the weather and the load."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Floats, Ints

_DAY_S = 86_400.0
_FRONT_TAU_S = 4.0 * 3600.0
_RECIRCULATION_TAU_S = 600.0


@dataclass(frozen=True, slots=True)
class Climate:
    """Attributes:
    mean_c, rack_spread_c: of the supply air, and how far racks are from each other.
    swing_c, period_s: half the difference between the warmest and the coolest time of the day, or of another period.
    warmest_at_s: seconds after the start of the simulation.
    front_c: how far the weather moves the mean, as a standard deviation.
    recirculation_c: how much warmer the air is in front of a rack under full load.
    height_c: how much warmer it is at the top of a rack than at its bottom.
    """

    mean_c: float = 24.0
    rack_spread_c: float = 0.8
    swing_c: float = 0.4
    period_s: float = _DAY_S
    warmest_at_s: float = 0.25 * _DAY_S
    front_c: float = 0.0
    recirculation_c: float = 0.0
    height_c: float = 0.0


CALM = Climate(period_s=1800.0, warmest_at_s=450.0)  # what the demo's machine room is like


class Air:
    """Attributes:
    inlet_c: (n_nodes,)
    """

    def __init__(self, climate: Climate, rack_of_node: Ints, rng: np.random.Generator) -> None:
        racks = int(rack_of_node.max()) + 1
        self._climate = climate
        self._rack_of_node = rack_of_node
        self._rack_c: Floats = rng.normal(climate.mean_c, climate.rack_spread_c, racks)
        self._front_c: Floats = rng.normal(0.0, climate.front_c, racks) if climate.front_c else np.zeros(racks)
        self._warmed_c: Floats = np.zeros(racks)
        self._height_c: Floats = climate.height_c * _height(rack_of_node)
        self.inlet_c: Floats = self._rack_c[rack_of_node]

    def step(self, now_s: float, rack_load: Floats, *, dt_s: float, rng: np.random.Generator) -> None:
        """Args:
        rack_load: (n_racks,) 0 to 1.
        """
        climate = self._climate
        air_c = self._rack_c
        if climate.front_c:
            kept = math.exp(-dt_s / _FRONT_TAU_S)
            # One weather for the room, and a little of its own for each rack.
            gust = rng.standard_normal() + 0.3 * rng.standard_normal(len(self._front_c))
            self._front_c = self._front_c * kept + climate.front_c * math.sqrt(1.0 - kept * kept) * gust
            air_c = air_c + self._front_c
        if climate.recirculation_c:
            goal_c = climate.recirculation_c * rack_load
            self._warmed_c += (goal_c - self._warmed_c) * -math.expm1(-dt_s / _RECIRCULATION_TAU_S)
            air_c = air_c + self._warmed_c
        swing_c = climate.swing_c * math.cos(2 * math.pi * (now_s - climate.warmest_at_s) / climate.period_s)
        self.inlet_c = air_c[self._rack_of_node] + self._height_c + swing_c


def _height(rack_of_node: Ints) -> Floats:
    """(n_nodes,) where in its rack each node is, -0.5 at the bottom to 0.5 at the top."""
    sizes = np.bincount(rack_of_node)
    first = np.cumsum(sizes) - sizes
    place = np.arange(len(rack_of_node)) - first[rack_of_node]
    return np.asarray((place + 0.5) / sizes[rack_of_node] - 0.5)
