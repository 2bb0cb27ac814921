"""How a simulated GPU gets warm, and the air around it.

Two masses follow the power: the chip within seconds, its heat sink within some twenty. The air that reaches a GPU is
the room's, warmed by the GPUs in front of it, which takes minutes. Fans react to the hottest GPU of their node. So two
GPUs of one node differ by ten degrees at equal power, and a step in power overshoots until the fans have followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Floats, Ints
from healer.sim.knobs import Knob, Knobs
from healer.sim.state import GpuState

SLOWDOWN_C = 87.0
MEMORY_LIMIT_C = 95.0

_CHIP_TAU_S = 3.0
_CHASSIS_TAU_S = 80.0
_FAN_TAU_S = 150.0
_MEMORY_TAU_S = 35.0
_FLUTTER_TAU_S = 20.0
_CALM_FAN, _FASTEST_FAN = 0.42, 1.0
_FANS_FROM_C, _FAN_PER_K = 63.0, 0.08


@dataclass(frozen=True, slots=True)
class Chassis:
    """How a make of node is cooled.

    Attributes:
        preheat_k_per_w: by slot, how much warmer the air is there for each watt that the node's GPUs draw on average.
        fan_gain: how strongly speed moves heat; 0 for fans that always run alike.
        spread: of the heat sinks, as a standard deviation.
        hot_slots: the share of GPUs that are built a good deal worse than the rest, and run warm all their life.
    memory_above_c: how much warmer than its chip the memory is while it rests.
    """

    sink_k_per_w: float = 0.040
    chip_k_per_w: float = 0.010
    preheat_k_per_w: tuple[float, ...] = (0.0,)
    fan_gain: float = 0.5
    spread: float = 0.045
    hot_slots: float = 0.015
    memory_above_c: float = 5.0
    memory_spread_c: float = 0.6

    def draw(self, n_gpus: int, gpus_per_node: int, rng: np.random.Generator) -> Warmth:
        slot = np.arange(n_gpus) % gpus_per_node
        preheat = np.array(self.preheat_k_per_w)[slot % len(self.preheat_k_per_w)]
        worse = np.where(rng.random(n_gpus) < self.hot_slots, rng.uniform(1.12, 1.22, n_gpus), 1.0)
        return Warmth(
            sink_k_per_w=self.sink_k_per_w * worse * np.clip(rng.normal(1.0, self.spread, n_gpus), 0.85, 1.15),
            chip_k_per_w=self.chip_k_per_w * np.clip(rng.normal(1.0, self.spread, n_gpus), 0.85, 1.15),
            preheat_k_per_w=preheat * np.clip(rng.normal(1.0, 0.08, n_gpus), 0.75, 1.25),
            sink_tau_s=rng.uniform(17.0, 27.0, n_gpus),
            memory_above_c=rng.normal(self.memory_above_c, self.memory_spread_c, n_gpus),
            fan_gain=self.fan_gain,
        )


@dataclass(frozen=True, slots=True)
class Warmth:
    """One GPU's own figures. Arrays: (n_gpus,)."""

    sink_k_per_w: Floats
    chip_k_per_w: Floats
    preheat_k_per_w: Floats
    sink_tau_s: Floats
    memory_above_c: Floats
    fan_gain: float


class Heat:
    """The temperatures of all GPUs and the fans of their nodes.

    Attributes:
        fan: (n_nodes,) speed as a share of the highest.
    """

    def __init__(self, warmth: Warmth, node_of_gpu: Ints, n_nodes: int) -> None:
        n = len(node_of_gpu)
        self.warmth = warmth
        self.fan: Floats = np.full(n_nodes, _CALM_FAN)
        self._node_of_gpu = node_of_gpu
        self._n_nodes = n_nodes
        self._sink_c: Floats = np.zeros(n)
        self._chip_c: Floats = np.zeros(n)
        self._chassis_w: Floats = np.zeros(n_nodes)
        self._flutter_c: Floats = np.zeros(n)

    def settle(self, state: GpuState, inlet_c: Floats) -> None:
        """Begin with the temperatures that the power of the moment comes to in the end."""
        warmth = self.warmth
        self._chassis_w = self._by_node(state.power_w).mean(axis=1)
        self._sink_c = warmth.sink_k_per_w * state.power_w
        self._chip_c = warmth.chip_k_per_w * state.power_w
        air_c = inlet_c + warmth.preheat_k_per_w * self._chassis_w[self._node_of_gpu]
        state.core_c[:] = air_c + self._sink_c + self._chip_c
        state.memory_c[:] = state.core_c + warmth.memory_above_c + 14.0 * state.dram_active
        self._margin(state)

    def step(self, state: GpuState, knobs: Knobs, inlet_c: Floats, *, dt_s: float, rng: np.random.Generator) -> None:
        """Args:
        inlet_c: (n_gpus,) of the air that enters the GPU's node.
        """
        warmth = self.warmth
        self._chassis_w += (self._by_node(state.power_w).mean(axis=1) - self._chassis_w) * _step(dt_s, _CHASSIS_TAU_S)
        resistance = warmth.sink_k_per_w * knobs[Knob.RESISTANCE] * self._stale_air(state, knobs, dt_s=dt_s)
        self._sink_c += (resistance * state.power_w - self._sink_c) * -np.expm1(-dt_s / warmth.sink_tau_s)
        chip_k_per_w = warmth.chip_k_per_w * knobs[Knob.RESISTANCE]
        self._chip_c += (chip_k_per_w * state.power_w - self._chip_c) * _step(dt_s, _CHIP_TAU_S)
        kept = math.exp(-dt_s / _FLUTTER_TAU_S)
        flutter = rng.standard_normal(len(self._flutter_c))
        self._flutter_c = self._flutter_c * kept + 0.3 * math.sqrt(1.0 - kept * kept) * flutter
        air_c = inlet_c + knobs[Knob.INLET] + warmth.preheat_k_per_w * self._chassis_w[self._node_of_gpu]
        state.core_c[:] = air_c + self._sink_c + self._chip_c + self._flutter_c
        above_c = (warmth.memory_above_c + 14.0 * state.dram_active) * knobs[Knob.MEMORY_RESISTANCE]
        state.memory_c[:] += (state.core_c + above_c - state.memory_c) * _step(dt_s, _MEMORY_TAU_S)
        self._margin(state)

    def _stale_air(self, state: GpuState, knobs: Knobs, *, dt_s: float) -> Floats:
        """(n_gpus,) by what factor less air, or slower fans, hold the heat back."""
        gain = self.warmth.fan_gain
        if gain:
            hottest_c = self._by_node(state.core_c).max(axis=1)
            wanted = np.clip(_CALM_FAN + _FAN_PER_K * (hottest_c - _FANS_FROM_C), _CALM_FAN, _FASTEST_FAN)
            self.fan += (wanted - self.fan) * _step(dt_s, _FAN_TAU_S)
            stale: Floats = ((_CALM_FAN / self.fan) ** gain)[self._node_of_gpu]
        else:
            stale = np.ones(len(self._node_of_gpu))
        if knobs.is_turned(Knob.AIRFLOW):
            stale = stale * knobs[Knob.AIRFLOW] ** -0.6
        return stale

    def _by_node(self, values: Floats) -> Floats:
        return values.reshape(self._n_nodes, -1)

    def _margin(self, state: GpuState) -> None:
        state.margin_c[:] = np.minimum(SLOWDOWN_C - state.core_c, MEMORY_LIMIT_C - state.memory_c)


def _step(dt_s: float, tau_s: float) -> float:
    """How much of the way is gone within `dt_s`."""
    return -math.expm1(-dt_s / tau_s)
