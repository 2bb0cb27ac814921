"""Where the power of a simulated rack goes and comes from: nodes beside their GPUs, other things, two feeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.sim.knobs import Knob, Knobs


@dataclass(frozen=True, slots=True)
class Supply:
    """Attributes:
    chassis_w_per_gpu: CPUs, switches, and fans at rest: about 1.2 kW for eight GPUs.
    loss: of the power supplies, as a share of what the GPUs draw.
    fans_w: of a node at full speed, more than at rest.
    noise: of each node's draw beside its GPUs, as a share.
    imbalance: how far the share of feed A is from half of a rack's power, as a standard deviation.
    """

    chassis_w_per_gpu: float = 150.0
    loss: float = 0.0
    fans_w: float = 0.0
    noise: float = 0.01
    imbalance: float = 0.02


class Power:
    """Attributes:
    node_w: (n_nodes,)
    rack_w: (n_racks,)
    feed_w: (n_racks, 2) what comes in by feed A and by feed B.
    """

    def __init__(self, supply: Supply, rack_of_node: Ints, gpus_per_node: int, rng: np.random.Generator) -> None:
        racks = int(rack_of_node.max()) + 1
        self._supply = supply
        self._rack_of_node = rack_of_node
        self._chassis_w = supply.chassis_w_per_gpu * gpus_per_node
        self._share_a = np.clip(rng.normal(0.5, supply.imbalance, racks), 0.4, 0.6)
        self.node_w: Floats = np.zeros(len(rack_of_node))
        self.rack_w: Floats = np.zeros(racks)
        self.feed_w: Floats = np.zeros((racks, 2))

    def step(self, gpu_w: Floats, fan: Floats, knobs: Knobs, rng: np.random.Generator) -> None:
        """Args:
        gpu_w: (n_gpus,)
        fan: (n_nodes,) speed as a share of the highest.
        """
        supply, nodes = self._supply, len(self._rack_of_node)
        beside_w = self._chassis_w * (1.0 + supply.noise * rng.standard_normal(nodes)) + supply.fans_w * fan**3
        self.node_w = gpu_w.reshape(nodes, -1).sum(axis=1) * (1.0 + supply.loss) + beside_w
        racks = len(self.rack_w)
        self.rack_w = np.bincount(self._rack_of_node, weights=self.node_w, minlength=racks) + knobs[Knob.RACK_LOAD]
        self.feed_w[:, 0] = self.rack_w * self._share_a * knobs[Knob.FEED_A]
        self.feed_w[:, 1] = self.rack_w - self.feed_w[:, 0]
