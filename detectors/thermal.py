"""A GPU at its own temperature limit: the device slows itself down, or says that it should.

Mechanism: above its slowdown temperature the GPU cuts its clocks, at its shutdown temperature it goes off. The core, or
the memory stacks beside it, reach it when a heat sink comes loose, a fan or a pump stops, or the room is too warm.
Sources: DCGM fields 150, 140 (temperatures), 158 (slowdown limit), 153 (margin to it, as NVSentinel reads it), 112
(clock event reasons: 0x20 software thermal, 0x40 hardware thermal), 241 (thermal violation), AMD's junction
temperature and throttle residencies. Where a device does not export its limits those of its data sheet stand in.
Cost of a false positive: a GPU called sick that is only busy in a warm room: jobs moved for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Bools,
    ComponentKind,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Said,
    Signal,
    evidence,
    findings,
    lasting,
)

MODES = (FailureMode.GPU_THERMAL_LIMIT,)
READS = (
    Signal.GPU_TEMPERATURE,
    Signal.MEMORY_TEMPERATURE,
    Signal.SLOWDOWN_TEMPERATURE,
    Signal.HIGHEST_OPERATING_MEMORY_TEMPERATURE,
    Signal.TEMPERATURE_MARGIN,
    Signal.CLOCK_REASONS,
    Signal.THERMAL_VIOLATION,
    Signal.THERMAL_SLOWDOWN,
    Signal.THERMAL_THROTTLE,
    Signal.MEMORY_THERMAL_THROTTLE,
)

_HARDWARE_SLOWDOWN, _SOFTWARE, _HARDWARE = 0x8, 0x20, 0x40
# Slowdown of the core and highest of the memory, in Celsius, where the exporter does not tell; by a word of the model.
_LIMITS_C = {
    "H100": (87.0, 95.0),
    "H200": (87.0, 95.0),
    "GH200": (87.0, 95.0),
    "A100": (89.0, 95.0),
    "V100": (87.0, 85.0),
    "T4": (93.0, np.nan),
    "MI300": (105.0, 105.0),
    "MI250": (105.0, 105.0),
}
_UNKNOWN_LIMIT_C = (90.0, 105.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    near_c: a slowdown without a stated reason is heat if the core is this near its limit.
    violation_share: held back by heat for more than this share of the last minutes is at the limit.
    """

    near_c: float = 5.0
    violation_share: float = 0.2


_SPAN = timedelta(minutes=2)
_TICKS = 2  # one look may meet a spike


def detect(frame: Frame, settings: Settings) -> Findings:
    core_limit, memory_limit = _limits(frame)
    core, memory = frame.latest(Signal.GPU_TEMPERATURE), frame.latest(Signal.MEMORY_TEMPERATURE)
    margin = frame.latest(Signal.TEMPERATURE_MARGIN)
    reasons = frame.window(Signal.CLOCK_REASONS, _SPAN)
    hardware = _set(reasons, _HARDWARE) | (_set(reasons, _HARDWARE_SLOWDOWN) & (core >= core_limit - settings.near_c))
    at_limit = (
        lasting(frame.window(Signal.GPU_TEMPERATURE, _SPAN) >= core_limit, _TICKS)
        | lasting(frame.window(Signal.MEMORY_TEMPERATURE, _SPAN) >= memory_limit, _TICKS)
        | (core >= core_limit + 1.0)
    )
    slowed = lasting(hardware, _TICKS) | (hardware[-1] & (core >= core_limit - settings.near_c))
    soft = lasting(_set(reasons, _SOFTWARE), _TICKS)
    held = _held_back(frame)

    health = np.full(len(frame.gpus), Health.HEALTHY, dtype=np.int8)
    health[np.isnan(core) & np.isnan(memory) & np.isnan(reasons[-1])] = Health.UNKNOWN
    health[soft | (held > settings.violation_share) | (margin <= 0.0)] = Health.DEGRADED
    health[at_limit | slowed] = Health.FAILED

    def describe(row: int) -> Said:
        parts = []
        if core[row] >= core_limit[row] - settings.near_c:
            parts.append(f"{core[row]:.0f} C, where the GPU slows itself down at {core_limit[row]:.0f} C")
        elif not np.isnan(core[row]):
            parts.append(f"{core[row]:.0f} C")
        if memory[row] >= memory_limit[row]:
            parts.append(f"memory at {memory[row]:.0f} C, its limit is {memory_limit[row]:.0f} C")
        if slowed[row]:
            parts.append("the hardware has slowed it down for heat")
        elif soft[row]:
            parts.append("the driver has slowed it down for heat")
        if held[row] > settings.violation_share:
            parts.append(f"held back by heat for {min(held[row], 1.0):.0%} of the last {_SPAN.seconds // 60} minutes")
        if margin[row] <= 0.0:
            parts.append(f"{margin[row]:.0f} C of margin left")
        signals = (
            Signal.GPU_TEMPERATURE,
            Signal.MEMORY_TEMPERATURE,
            Signal.POWER,
            Signal.CLOCK_REASONS,
            Signal.SM_CLOCK,
        )
        return Said("; ".join(parts), evidence(frame, *signals, row=row))

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _limits(frame: Frame) -> tuple[Floats, Floats]:
    """(n_gpus,) slowdown temperature of the core and highest one of the memory: the device's own, else by its model."""
    by_model = {model: _of_model(model) for model in set(frame.gpus.models)}
    known = np.array([by_model[model] for model in frame.gpus.models], dtype=np.float64).reshape(-1, 2)
    core, memory = frame.latest(Signal.SLOWDOWN_TEMPERATURE), frame.latest(Signal.HIGHEST_OPERATING_MEMORY_TEMPERATURE)
    # A limit of 0 or so is a device that has none to tell.
    return np.where(core > _LEAST_LIMIT_C, core, known[:, 0]), np.where(memory > _LEAST_LIMIT_C, memory, known[:, 1])


_LEAST_LIMIT_C = 50.0


def _of_model(model: str) -> tuple[float, float]:
    return next((limits for word, limits in _LIMITS_C.items() if word in model), _UNKNOWN_LIMIT_C)


def _set(reasons: Floats, bit: int) -> Bools:
    """Which of the clock event reasons (any shape) have the bit; not where they are unknown."""
    there: Bools = (np.nan_to_num(reasons).astype(np.int64) & bit) != 0
    return there


def _held_back(frame: Frame) -> Floats:
    """(n_gpus,) the share of the last minutes in which heat held the GPU back; 0 where nobody counts."""
    times = frame.signals.times_s[frame.signals.first_tick(_SPAN) :]
    span_s = times[-1] - times[0]
    if span_s <= 0.0:
        return np.zeros(len(frame.gpus))
    counted = np.maximum(frame.growth(Signal.THERMAL_VIOLATION, _SPAN), frame.growth(Signal.THERMAL_SLOWDOWN, _SPAN))
    told = np.fmax(frame.latest(Signal.THERMAL_THROTTLE), frame.latest(Signal.MEMORY_THERMAL_THROTTLE))
    held: Floats = np.fmax(counted / span_s, np.nan_to_num(told))
    return held
