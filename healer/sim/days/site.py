"""Site: what a fleet is like before anything happens: its machines, its room, its habits, its budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from healer.sim.air import Climate
from healer.sim.exporters.style import Style, drawn_style
from healer.sim.heat import Chassis
from healer.sim.jobs.schedule import Mix, drawn_mix
from healer.sim.layout import Layout
from healer.sim.links import Background
from healer.sim.physics import Boards
from healer.sim.supply import Supply
from healer.sim.world import Hall

_DAY_S = 86_400.0
# By slot, K/W: boards behind others get their warm air, and makers arrange them differently.
_PREHEAT = (
    (0.0148, 0.0, 0.003, 0.0115, 0.0125, 0.0004, 0.0118, 0.0012),
    (0.0, 0.0006, 0.0, 0.0004, 0.013, 0.0142, 0.0125, 0.0138),
    (0.002, 0.0075, 0.001, 0.008, 0.0015, 0.0078, 0.0, 0.009),
    (0.004, 0.003, 0.002, 0.001, 0.004, 0.003, 0.002, 0.001),
)
_NEAR = 1.05


@dataclass(frozen=True, slots=True)
class Site:
    """Attributes:
    rack_budget_w: above everything that the rack can draw with the power limits it was given, by 3 to 25 %.
    warm: whether the day is a warm one.
    """

    layout: Layout
    hall: Hall
    style: Style
    mix: Mix
    rack_budget_w: Mapping[str, float]
    peak_s: float

    @property
    def warm(self) -> bool:
        return self.hall.climate.swing_c > 1.7

    def most_w(self, rack: str, limit_w: float | None = None) -> float:
        """What a rack draws when all its GPUs are at the limit."""
        supply, nodes = self.hall.supply, len(self.layout.nodes_of(rack))
        gpus = nodes * self.layout.gpus_per_node
        gpu_w = (limit_w or self.hall.limit_w) * (1.0 + supply.loss)
        return gpus * (gpu_w + supply.chassis_w_per_gpu) + nodes * supply.fans_w

    def is_near_budget(self, rack: str) -> bool:
        return self.rack_budget_w[rack] < _NEAR * self.most_w(rack)


def drawn_site(layout: Layout, rng: np.random.Generator, *, largest_gang: int, style: Style | None) -> Site:
    hall = _hall(rng)
    site = Site(
        layout=layout,
        hall=hall,
        style=style or drawn_style(rng),
        mix=drawn_mix(rng, largest_gang=largest_gang),
        rack_budget_w={},
        peak_s=rng.uniform(0.0, _DAY_S),
    )
    margins = {rack: float(rng.choice([1.03, rng.uniform(1.06, 1.25)])) for rack in layout.racks}
    budgets = {rack: round(margin * site.most_w(rack), -2) + 100.0 for rack, margin in margins.items()}
    return Site(layout, hall, site.style, site.mix, budgets, site.peak_s)


def _hall(rng: np.random.Generator) -> Hall:
    chassis = Chassis(
        preheat_k_per_w=_PREHEAT[int(rng.integers(len(_PREHEAT)))],
        fan_gain=rng.uniform(0.25, 0.7),
        spread=rng.uniform(0.03, 0.06),
        memory_above_c=rng.uniform(2.0, 8.0),
    )
    if rng.random() < 0.2:  # cold plates: no fans, little difference between the slots
        chassis = Chassis(
            sink_k_per_w=rng.uniform(0.018, 0.026),
            preheat_k_per_w=(0.001, 0.002, 0.003, 0.004),
            fan_gain=0.0,
            spread=rng.uniform(0.04, 0.07),
            memory_above_c=rng.uniform(6.0, 12.0),
        )
    climate = Climate(
        mean_c=rng.uniform(19.0, 26.5),
        rack_spread_c=rng.uniform(0.3, 1.4),
        swing_c=rng.uniform(0.2, 2.6),
        warmest_at_s=rng.uniform(0.0, _DAY_S),
        front_c=rng.uniform(0.1, 0.8),
        recirculation_c=rng.uniform(0.3, 3.5),
        height_c=rng.uniform(0.0, 2.0),
    )
    supply = Supply(
        chassis_w_per_gpu=rng.uniform(130.0, 240.0),
        loss=rng.uniform(0.02, 0.06),
        fans_w=rng.uniform(200.0, 900.0) if chassis.fan_gain else 0.0,
        noise=rng.uniform(0.005, 0.02),
    )
    return Hall(
        boards=Boards(full_spread=rng.uniform(0.008, 0.025), leak_w_per_k=rng.uniform(0.3, 0.8)),
        chassis=chassis,
        climate=climate,
        supply=supply,
        background=Background(sbe=2e-7 * float(np.exp(rng.normal(0.0, 0.7))), pcie_replay=1e-5 * rng.uniform(0.1, 2.0)),
        ports=int(rng.choice([8, 8, 4, 2])),
        unused=float(rng.choice([0.0, 0.0, 0.12])),
        sleepy=float(rng.choice([0.0, 0.0, 1.0, 0.3])),
        limit_w=float(rng.choice([700.0, 700.0, 700.0, 650.0, 600.0, 550.0])),
        uneven=1.0,
        worn=rng.uniform(0.02, 0.15),
    )
