"""Heat that finds its way out badly: from one GPU, from a node whose fans fail, from a rack."""

from __future__ import annotations

from healer.domain.finding import FailureMode
from healer.sim.heat import MEMORY_LIMIT_C, SLOWDOWN_C
from healer.sim.knobs import Effect, Knob, Ramp
from healer.sim.strikes.blow import Blow, Claim, Happening

_ROOM_C, _MODEST_W = 26.0, 410.0  # at which a heat sink that is off brings its GPU to the limit
_MODEST_CHIP_C, _MODEST_MEMORY_ABOVE_C = 46.0, 7.0  # the same for the memory: how warm the chip is, how much it more
_DEFAULT_COOLING_SEVERITY = 0.5
_SLOWS = (FailureMode.JOB_STRAGGLER, FailureMode.GPU_THROTTLED)
_HOT = (FailureMode.GPU_COOLING_DEGRADED, FailureMode.GPU_THERMAL_LIMIT, *_SLOWS)


def thermal_limit(blow: Blow) -> Happening:
    """A GPU comes to its own limit, and gives way. The regulators of a board have a limit too, and a cool core."""
    ramp_s = blow.fault.ramp_s or blow.rng.uniform(5.0, 240.0)
    effects: tuple[Effect, ...]
    match blow.variant:
        case "memory":
            factor = (MEMORY_LIMIT_C + blow.graded(2.0, 25.0) - _MODEST_CHIP_C) / _MODEST_MEMORY_ABOVE_C
            effects = (Effect(Knob.MEMORY_RESISTANCE, blow.gpus, factor, blow.at_s, blow.end_s, ramp_s),)
        case "regulator":
            ramp_s = 0.0
            episodes = blow.episodes(on_s=(20.0, 400.0), off_s=(5.0, 120.0))
            effects = tuple(Effect(Knob.HW_THERMAL, blow.gpus, 1.0, on, off) for on, off in episodes)
        case _:
            factor = (SLOWDOWN_C + blow.graded(3.0, 60.0) - _ROOM_C) / (_MODEST_W * blow.scene.kelvin_per_w)
            effects = (Effect(Knob.RESISTANCE, blow.gpus, factor, blow.at_s, blow.end_s, ramp_s),)
    claim = Claim(
        FailureMode.GPU_THERMAL_LIMIT,
        blow.component,
        full_s=blow.at_s + ramp_s + (0.0 if blow.variant == "regulator" else 60.0),
        hard=blow.variant == "regulator" and blow.scene.shown("clock_reasons"),
        jobs=blow.jobs,
        symptoms=(FailureMode.GPU_COOLING_DEGRADED, *_SLOWS),
    )
    return Happening(claim, effects)


def cooling_loss(blow: Blow) -> Happening:
    """Dried paste, a bent fin, dust: more kelvins at the same power."""
    severity = _DEFAULT_COOLING_SEVERITY if blow.fault.severity is None else blow.fault.severity
    ramp_s = blow.fault.ramp_s or 0.0
    if blow.variant == "creeping" and not ramp_s:
        ramp_s = min(blow.rng.uniform(600.0, 10_800.0), 0.6 * blow.lasts_s)
    ramp = Ramp.CREEPING if blow.rng.random() < 0.3 else Ramp.LINEAR
    effect = Effect(Knob.RESISTANCE, blow.gpus, 1.0 + severity, blow.at_s, blow.end_s, ramp_s, ramp)
    claim = Claim(
        FailureMode.GPU_COOLING_DEGRADED if blow.fault.rack is None else FailureMode.RACK_COOLING_DEGRADED,
        blow.component,
        full_s=blow.at_s + ramp_s,
        hard=False,
        jobs=blow.jobs,
        symptoms=_HOT,
    )
    return Happening(claim, (effect,))


def fan_failure(blow: Blow) -> Happening:
    """All GPUs of a node get less air; those at the back, which have the least, most of all."""
    left = blow.graded(0.82, 0.62) if blow.variant == "one" else blow.graded(0.62, 0.38)
    claim = Claim(
        FailureMode.GPU_COOLING_DEGRADED,
        blow.component,
        full_s=blow.at_s + (blow.fault.ramp_s or 0.0) + 120.0,
        hard=False,
        jobs=blow.jobs,
        symptoms=_HOT,
    )
    return Happening(claim, (blow.turn(Knob.AIRFLOW, left),))


def rack_cooling_loss(blow: Blow) -> Happening:
    ramp_s = blow.fault.ramp_s or min(blow.rng.uniform(180.0, 1800.0), 0.5 * blow.lasts_s)
    effects = []
    if blow.variant in {"inlet", "both"}:
        effects.append(Effect(Knob.INLET, blow.gpus, blow.graded(4.0, 15.0), blow.at_s, blow.end_s, ramp_s))
    if blow.variant in {"airflow", "both"}:
        effects.append(Effect(Knob.AIRFLOW, blow.gpus, blow.graded(0.75, 0.4), blow.at_s, blow.end_s, ramp_s))
    claim = Claim(
        FailureMode.RACK_COOLING_DEGRADED,
        blow.component,
        full_s=blow.at_s + ramp_s,
        hard=False,
        jobs=blow.jobs,
        symptoms=_HOT,
    )
    return Happening(claim, tuple(effects))
