"""How a simulated GPU behaves: load makes power, power makes heat, a power limit cuts both and slows the clocks.

Figures are those of an H100 SXM board in an air-cooled chassis, rounded; each GPU differs a little from its peers, as
real ones do. Everything is an array over all GPUs, so that a hundred thousand of them step in a fraction of a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_LIMIT_W = 200.0
MAX_LIMIT_W = 700.0
DEFAULT_LIMIT_W = 700.0
MEMORY_CLOCK_MHZ = 2619
FRAMEBUFFER_MIB = 81079

REASON_IDLE = 0x1
REASON_SW_POWER_CAP = 0x4
REASON_SW_THERMAL = 0x20

_IDLE_W = 70.0
_MAX_CLOCK_MHZ = 1980.0
_IDLE_CLOCK_MHZ = 345.0
_SLOWDOWN_C = 87.0
_RESISTANCE_K_PER_W = 0.058
_IDLE_LOAD = 0.02
_LOAD_TAU_S = 4.0
_CORE_TAU_S = 20.0
_MEMORY_TAU_S = 35.0
_SBE_PER_S = 2e-7
_PCIE_REPLAY_PER_S = 1e-5


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes one GPU differ from the next; fixed for its life. Arrays: (n_gpus,)."""

    idle_w: Floats
    full_w: Floats
    resistance_k_per_w: Floats
    job_memory_mib: Floats


@dataclass(frozen=True, slots=True)
class Drive:
    """What the world asks of the GPUs during one step. Arrays: (n_gpus,)."""

    load: Floats  # wanted, 0..1
    inlet_c: Floats
    resistance_factor: Floats  # 1 with sound cooling, more when it fails


@dataclass(slots=True)
class GpuState:
    """Everything that an exporter can read from the GPUs. Arrays: (n_gpus,); counters never fall."""

    load: Floats
    power_w: Floats
    core_c: Floats
    memory_c: Floats
    sm_clock_mhz: Floats
    sm_active: Floats
    tensor_active: Floats
    dram_active: Floats
    fb_used_mib: Floats
    energy_mj: Floats
    limit_w: Floats
    clock_reasons: Ints
    xid: Ints
    sbe_volatile: Ints
    dbe_volatile: Ints
    sbe_aggregate: Ints
    dbe_aggregate: Ints
    remapped_correctable: Ints
    remapped_uncorrectable: Ints
    remap_pending: Ints
    remap_failed: Ints
    pcie_replays: Ints

    def pick(self, index: NDArray[np.intp]) -> GpuState:
        """A copy of some GPUs, so that a reader is not disturbed by the next step."""
        return GpuState(*(getattr(self, field.name)[index] for field in fields(self)))


def draw_traits(n_gpus: int, rng: np.random.Generator) -> Traits:
    return Traits(
        idle_w=rng.normal(_IDLE_W, 2.0, n_gpus),
        full_w=np.clip(rng.normal(703.0, 5.0, n_gpus), 690.0, 720.0),
        resistance_k_per_w=_RESISTANCE_K_PER_W * np.clip(rng.normal(1.0, 0.04, n_gpus), 0.88, 1.12),
        job_memory_mib=rng.uniform(0.86, 0.93, n_gpus) * FRAMEBUFFER_MIB,
    )


def settled(traits: Traits, drive: Drive, rng: np.random.Generator) -> GpuState:
    """The state of GPUs that have run like this for a while, so that nobody has to wait for a warm-up."""
    n = len(traits.idle_w)
    power_w = np.minimum(traits.idle_w + drive.load * (traits.full_w - traits.idle_w), DEFAULT_LIMIT_W)
    core_c = drive.inlet_c + traits.resistance_k_per_w * drive.resistance_factor * power_w
    none = np.zeros(n, np.int64)
    state = GpuState(
        load=drive.load.copy(),
        power_w=power_w,
        core_c=core_c,
        memory_c=core_c + 12.0,
        sm_clock_mhz=np.full(n, _MAX_CLOCK_MHZ),
        sm_active=np.zeros(n),
        tensor_active=np.zeros(n),
        dram_active=np.zeros(n),
        fb_used_mib=np.zeros(n),
        energy_mj=np.floor(rng.uniform(1e11, 9e12, n)),
        limit_w=np.full(n, DEFAULT_LIMIT_W),
        clock_reasons=none.copy(),
        xid=none.copy(),
        sbe_volatile=none.copy(),
        dbe_volatile=none.copy(),
        sbe_aggregate=rng.poisson(0.4, n),  # boards have a past: a few corrected errors are healthy
        dbe_aggregate=none.copy(),
        remapped_correctable=none.copy(),
        remapped_uncorrectable=none.copy(),
        remap_pending=none.copy(),
        remap_failed=none.copy(),
        pcie_replays=none.copy(),
    )
    _activity(state, traits, rng)
    return state


def step(state: GpuState, traits: Traits, drive: Drive, *, dt_s: float, rng: np.random.Generator) -> None:
    """Moves every GPU on by `dt_s`, in place."""
    n = len(state.load)
    busy = drive.load > _IDLE_LOAD
    jitter = rng.normal(0.0, 0.015 * math.sqrt(dt_s), n) * busy
    state.load += (drive.load - state.load) * -math.expm1(-dt_s / _LOAD_TAU_S) + jitter
    np.clip(state.load, 0.0, 1.0, out=state.load)
    demand_w = _demand(state, traits)
    capped = demand_w > state.limit_w
    noise_w = rng.normal(0.0, 1.0, n) * (0.4 + 2.5 * state.load)
    state.power_w = np.where(capped, state.limit_w - np.abs(noise_w), np.minimum(demand_w + noise_w, state.limit_w))
    _heat(state, traits, drive, dt_s=dt_s, rng=rng)
    _clocks(state, traits, demand_w=demand_w, capped=capped)
    _activity(state, traits, rng)
    state.energy_mj += np.floor(state.power_w * dt_s * 1000.0)
    _wear(state, dt_s=dt_s, rng=rng)


def _demand(state: GpuState, traits: Traits) -> Floats:
    wanted = traits.idle_w + state.load * (traits.full_w - traits.idle_w)
    return np.where(state.core_c >= _SLOWDOWN_C, 0.75 * wanted, wanted)


def _heat(state: GpuState, traits: Traits, drive: Drive, *, dt_s: float, rng: np.random.Generator) -> None:
    n = len(state.load)
    goal_c = drive.inlet_c + traits.resistance_k_per_w * drive.resistance_factor * state.power_w
    flutter = rng.normal(0.0, 0.1 * math.sqrt(dt_s), n)
    state.core_c += (goal_c - state.core_c) * -math.expm1(-dt_s / _CORE_TAU_S) + flutter
    memory_goal_c = state.core_c + 5.0 + 14.0 * state.dram_active
    state.memory_c += (memory_goal_c - state.memory_c) * -math.expm1(-dt_s / _MEMORY_TAU_S)


def _clocks(state: GpuState, traits: Traits, *, demand_w: Floats, capped: NDArray[np.bool_]) -> None:
    """Dynamic power grows a little faster than the square of the clock, so a cap costs less speed than power."""
    share = np.clip((state.limit_w - traits.idle_w) / np.maximum(demand_w - traits.idle_w, 1.0), 0.05, 1.0)
    idle = state.load < _IDLE_LOAD
    hot = state.core_c >= _SLOWDOWN_C
    running = _MAX_CLOCK_MHZ * np.where(capped, share, 1.0) ** 0.45 * np.where(hot, 0.85, 1.0)
    state.sm_clock_mhz = np.where(idle, _IDLE_CLOCK_MHZ, np.floor(running / 15.0) * 15.0)
    state.clock_reasons = idle * REASON_IDLE | capped * REASON_SW_POWER_CAP | hot * REASON_SW_THERMAL


def _activity(state: GpuState, traits: Traits, rng: np.random.Generator) -> None:
    busy = state.load > _IDLE_LOAD
    noise = rng.normal(0.0, 0.012, (3, len(state.load)))
    for name, gain, row in (("sm_active", 0.95, 0), ("tensor_active", 0.62, 1), ("dram_active", 0.55, 2)):
        setattr(state, name, np.clip(gain * state.load + noise[row], 0.0, 1.0) * busy)
    state.fb_used_mib = np.where(busy, np.floor(traits.job_memory_mib + 20.0 * noise[0]), 4.0)


def _wear(state: GpuState, *, dt_s: float, rng: np.random.Generator) -> None:
    """The background of harmless errors. Rare, so drawn for the fleet and dealt out, not drawn for each GPU."""
    n = len(state.load)
    flipped = rng.integers(0, n, rng.poisson(_SBE_PER_S * n * dt_s))
    np.add.at(state.sbe_volatile, flipped, 1)
    np.add.at(state.sbe_aggregate, flipped, 1)
    np.add.at(state.pcie_replays, rng.integers(0, n, rng.poisson(_PCIE_REPLAY_PER_S * n * dt_s)), 1)
