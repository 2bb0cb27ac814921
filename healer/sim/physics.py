"""How a simulated GPU turns work into power and clocks: a power limit, heat and the power brake cut both.

Figures are those of H100 SXM boards, as measured on real nodes: 70 W idle, 120 W once a process has a context, 530 to
700 W in training, and the power-cap reason set all the time at the limit. Each GPU differs a little from its peers.
Everything is an array over all GPUs, so that a hundred thousand of them step in a fraction of a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Bools, Floats
from healer.sim.activity import Row
from healer.sim.knobs import Knob, Knobs
from healer.sim.state import GpuState

MIN_LIMIT_W = 200.0
MAX_LIMIT_W = 700.0
DEFAULT_LIMIT_W = 700.0
MEMORY_CLOCK_MHZ = 2619.0
MAX_CLOCK_MHZ = 1980.0
FRAMEBUFFER_MIB = 81079.0

REASON_IDLE = 0x1
REASON_APPLICATION_CLOCKS = 0x2
REASON_SW_POWER_CAP = 0x4
REASON_HW_SLOWDOWN = 0x8
REASON_SW_THERMAL = 0x20
REASON_HW_THERMAL = 0x40
REASON_POWER_BRAKE = 0x80

_IDLE_CLOCK_MHZ = 345.0
_CLOCK_STEP_MHZ = 15.0
_POWER_BY_CLOCK = 2.2  # dynamic power grows a little faster than the square of the clock
_BRAKE = 0.48
_HW_THERMAL = 0.5
_HARD_LIMIT_C = 90.5
_HARD_RELEASE_C = 86.0
_GIVES_WAY_PER_K_S = 0.008
_SLOWEST = 0.3
_ACTIVITY_TAU_S = 1.5
_JITTER_TAU_S = 4.0
_BUSY = 0.02
_NS = 1e9


@dataclass(frozen=True, slots=True)
class Boards:
    """What makes boards of one make differ, as standard deviations, and what they have in common."""

    idle_w: float = 70.0
    idle_spread_w: float = 2.5
    context_w: float = 49.0
    context_spread_w: float = 2.0
    full_w: float = 712.0
    full_spread: float = 0.02  # of the dynamic power: at equal work one board draws 3 to 20 W more than the next
    leak_w_per_k: float = 0.55

    def draw(self, n_gpus: int, rng: np.random.Generator) -> Traits:
        idle_w = rng.normal(self.idle_w, self.idle_spread_w, n_gpus)
        context_w = rng.normal(self.context_w, self.context_spread_w, n_gpus) if self.context_w else np.zeros(n_gpus)
        dynamic_w = self.full_w - self.idle_w - self.context_w
        return Traits(
            idle_w=idle_w,
            context_w=context_w,
            dynamic_w=dynamic_w * np.clip(rng.normal(1.0, self.full_spread, n_gpus), 0.94, 1.06),
            leak_w_per_k=self.leak_w_per_k * rng.uniform(0.7, 1.3, n_gpus),
        )


@dataclass(frozen=True, slots=True)
class Traits:
    """One GPU's own figures, fixed for its life. Arrays: (n_gpus,)."""

    idle_w: Floats
    context_w: Floats
    dynamic_w: Floats
    leak_w_per_k: Floats


@dataclass(frozen=True, slots=True)
class Asked:
    """What the work asks of the GPUs in one step.

    Attributes:
        activity: (n_rows, n_gpus) of `activity.Row`, at full clocks.
        context: (n_gpus,) whether a process holds the GPU.
        jitter: (n_gpus,) how much the load of each swings by itself, as a share.
        swing: (n_gpus,) by what share it is above or below its mean with its whole gang, this moment.
        memory_mib: (n_gpus,) of the framebuffer.
    """

    activity: Floats
    context: Bools
    jitter: Floats
    swing: Floats
    memory_mib: Floats


class Silicon:
    """Power, clocks and activity of all GPUs.

    Attributes:
        clock_share: (n_gpus,) of the highest clock, where the GPU works.
        factor: (n_gpus,) which heat leaves of the clock: 1 while it is cool enough.
    """

    def __init__(self, traits: Traits) -> None:
        n = len(traits.idle_w)
        self.traits = traits
        self.activity: Floats = np.zeros((len(Row), n))
        self.clock_share: Floats = np.ones(n)
        self.factor: Floats = np.ones(n)
        self._too_hot: Bools = np.zeros(n, dtype=np.bool_)
        self._jitter: Floats = np.zeros(n)

    def settle(self, asked: Asked) -> None:
        """Begin as if this had been asked for a while."""
        self.activity[:] = asked.activity

    def step(self, state: GpuState, asked: Asked, knobs: Knobs, *, dt_s: float, rng: np.random.Generator) -> None:
        n = len(self.factor)
        self.activity += (asked.activity - self.activity) * -math.expm1(-dt_s / _ACTIVITY_TAU_S)
        noise = rng.standard_normal((4, n))
        kept = math.exp(-dt_s / _JITTER_TAU_S)
        self._jitter = self._jitter * kept + noise[0] * asked.jitter * math.sqrt(1.0 - kept * kept)
        busy = self.activity[Row.UTIL] > _BUSY
        works = busy | asked.context
        self._give_way(state, dt_s=dt_s)
        self._power(state, asked, knobs, works, noise=noise[1])
        self._clocks(state, knobs, works, dt_s=dt_s)
        self._show(state, asked, busy, noise=noise[2:])
        state.energy_mj[:] += np.floor(state.power_w * dt_s * 1000.0)

    def _give_way(self, state: GpuState, *, dt_s: float) -> None:
        """Heat takes clocks away little by little, and gives them back."""
        if state.margin_c.min() < 12.0 or self.factor.min() < 1.0:
            self.factor = np.clip(self.factor + state.margin_c * (_GIVES_WAY_PER_K_S * dt_s), _SLOWEST, 1.0)
            self._too_hot = (state.core_c >= _HARD_LIMIT_C) | (self._too_hot & (state.core_c > _HARD_RELEASE_C))

    def _power(self, state: GpuState, asked: Asked, knobs: Knobs, works: Bools, *, noise: Floats) -> None:
        traits = self.traits
        held = np.minimum(self.factor, knobs[Knob.CLOCK_CAP] / MAX_CLOCK_MHZ)
        if knobs.is_turned(Knob.BRAKE):
            held = np.where(knobs[Knob.BRAKE] > 0, np.minimum(held, _BRAKE), held)
        if knobs.is_turned(Knob.HW_THERMAL) or self._too_hot.any():
            held = np.where((knobs[Knob.HW_THERMAL] > 0) | self._too_hot, np.minimum(held, _HW_THERMAL), held)
        load = np.clip(self.activity[Row.POWER] * (1.0 + asked.swing + self._jitter), 0.0, 1.1)
        static_w = traits.idle_w + asked.context * traits.context_w
        static_w += traits.leak_w_per_k * np.maximum(state.core_c - 40.0, 0.0) * works
        dynamic_w = load * traits.dynamic_w * held**_POWER_BY_CLOCK
        room_w = np.maximum(state.limit_w - static_w, 5.0)
        capped = dynamic_w > room_w
        share = np.where(capped, held * (room_w / np.maximum(dynamic_w, 1.0)) ** (1.0 / _POWER_BY_CLOCK), held)
        noise_w = noise * np.where(works, 0.4 + 2.2 * load, 0.12)
        demand_w = static_w + dynamic_w + noise_w
        state.power_w[:] = np.where(capped, state.limit_w - np.abs(noise_w), np.minimum(demand_w, state.limit_w))
        self.clock_share = share
        self._capped = capped

    def _clocks(self, state: GpuState, knobs: Knobs, works: Bools, *, dt_s: float) -> None:
        running = np.floor(MAX_CLOCK_MHZ * self.clock_share / _CLOCK_STEP_MHZ + 1e-9) * _CLOCK_STEP_MHZ
        state.sm_clock_mhz[:] = np.where(works, running, _IDLE_CLOCK_MHZ)
        state.memory_clock_mhz[:] = np.minimum(MEMORY_CLOCK_MHZ, knobs[Knob.MEMORY_CLOCK])
        hot = (self.factor < 0.995) & works
        hard = self._too_hot | (knobs[Knob.HW_THERMAL] > 0)
        brake = knobs[Knob.BRAKE] > 0
        capped = self._capped & works
        reasons = ~works * REASON_IDLE | capped * REASON_SW_POWER_CAP | hot * REASON_SW_THERMAL
        if hard.any() or brake.any():
            reasons |= hard * (REASON_HW_THERMAL | REASON_HW_SLOWDOWN)
            reasons |= brake * (REASON_POWER_BRAKE | REASON_HW_SLOWDOWN)
        if knobs.is_turned(Knob.CLOCK_REASON):
            reasons |= (knobs[Knob.CLOCK_REASON] * works).astype(np.int64)
        state.clock_reasons[:] = reasons
        step_ns = dt_s * _NS
        state.power_violation_ns[:] += capped * np.floor(step_ns * (1.0 - self.clock_share))
        state.thermal_violation_ns[:] += (hot | hard) * step_ns
        state.thermal_slowdown_ns[:] += hard * step_ns
        state.power_brake_ns[:] += brake * step_ns

    def _show(self, state: GpuState, asked: Asked, busy: Bools, *, noise: Floats) -> None:
        moving = 1.0 + 0.5 * asked.swing
        shown = self.activity[: Row.POWER] * moving
        shown[Row.SM] += 0.006 * noise[0] * busy
        shown[Row.TENSOR] += 0.005 * noise[1] * (shown[Row.TENSOR] > _BUSY)
        shown[Row.DRAM] *= self.clock_share  # what is computed more slowly is fetched more slowly
        shown[Row.DRAM] += 0.004 * noise[0] * (shown[Row.DRAM] > _BUSY)
        np.clip(shown, 0.0, 1.0, out=shown)
        state.util_percent[:] = 100.0 * shown[Row.UTIL] * busy
        state.graphics_active[:] = shown[Row.UTIL] * busy * 0.985
        state.sm_active[:] = shown[Row.SM] * busy
        state.tensor_active[:] = shown[Row.TENSOR] * busy
        state.dram_active[:] = shown[Row.DRAM] * busy
        state.memory_util_percent[:] = np.minimum(100.0, 130.0 * state.dram_active)
        state.fb_used_mib[:] = np.where(asked.context, asked.memory_mib, 4.0)
        state.fb_free_mib[:] = FRAMEBUFFER_MIB - state.fb_used_mib
