"""Power that is short, or too much: the brake, a rack's budget, a rack's feeds; and clocks that stay low without it.

Sources: DCGM's clock event reasons (0x80 the system pulls the power brake, 0x8 hardware slowdown, 0x10 sync boost).
"""

from __future__ import annotations

import math

import numpy as np

from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Shown
from healer.sim.physics import MAX_LIMIT_W
from healer.sim.strikes.blow import Blow, Claim, Happening
from healer.sim.world import Mark

OTHER_LOAD_W = (300.0, 4000.0)  # for each node of the rack, by severity
_HW_SLOWDOWN, _SYNC_BOOST = 0x8, 0x10
_SLOWS = (FailureMode.JOB_STRAGGLER, FailureMode.GPU_THROTTLED)


def power_brake(blow: Blow) -> Happening:
    if blow.variant == "intermittent":
        episodes = blow.episodes(on_s=(30.0, 300.0), off_s=(20.0, 400.0))
    else:
        episodes = [(blow.at_s, blow.end_s)]
    effects = tuple(Effect(Knob.BRAKE, blow.gpus, 1.0, on, off) for on, off in episodes)
    hard = blow.scene.shown("clock_reasons") or blow.scene.shown("power_brake_ns")
    claim = Claim(FailureMode.GPU_POWER_BRAKE, blow.component, hard=hard, jobs=blow.jobs, symptoms=_SLOWS)
    return Happening(claim, effects)


def load_surge(blow: Blow) -> Happening:
    """A rack draws more than it did: its work wants all that there is, its caps are gone, or something else does."""
    effects: tuple[Effect, ...]
    marks: tuple[Mark, ...] = ()
    match blow.variant:
        case "other_load":
            nodes = len(blow.nodes)
            more_w = nodes * blow.graded(*OTHER_LOAD_W)
            effects = (Effect(Knob.RACK_LOAD, _rack(blow), more_w, blow.at_s, blow.end_s),)
        case "caps_lost":
            effects = (blow.turn(Knob.SURGE, 1.0),)
            back = () if math.isinf(blow.end_s) else (_limited(blow, blow.end_s, blow.scene.limit_w),)
            marks = (_limited(blow, blow.at_s, MAX_LIMIT_W), *back)
        case _:
            effects = (blow.turn(Knob.SURGE, 1.0),)
    claim = Claim(FailureMode.RACK_POWER_OVER_BUDGET, blow.component, full_s=blow.at_s + 60.0, jobs=blow.jobs)
    return Happening(claim, effects, marks)


def power_feed_lost(blow: Blow) -> Happening:
    """The other feed carries what it can. Some power supplies then pull the brake."""
    rack, rng = _rack(blow), blow.rng
    left = rng.uniform(0.08, 0.3) if blow.variant == "weak" else 0.0
    effects = [Effect(Knob.FEED_A, rack, left, blow.at_s, blow.end_s)]
    if blow.variant == "silent":
        effects.append(Effect(Knob.FEED_A_SILENT, rack, 1.0, blow.at_s, blow.end_s))
    if blow.variant == "dead_and_braked":
        braked = blow.gpus if rng.random() < 0.5 else blow.gpus[: max(1, len(blow.gpus) // 2)]
        until_s = min(blow.end_s, blow.at_s + rng.uniform(120.0, 3600.0))
        effects.append(Effect(Knob.BRAKE, braked, 1.0, blow.at_s + rng.uniform(0.0, 10.0), until_s))
    claim = Claim(
        FailureMode.RACK_POWER_FEED_LOST,
        blow.component,
        hard=blow.variant != "silent",
        jobs=blow.jobs,
        symptoms=(FailureMode.GPU_POWER_BRAKE, FailureMode.TELEMETRY_LOST, *_SLOWS),
    )
    return Happening(claim, tuple(effects))


def clocks_stuck(blow: Blow) -> Happening:
    """Low at load, and neither power nor heat says why."""
    cap_mhz = 15.0 * round(blow.graded(1590.0, 345.0) / 15.0)
    effects = [blow.turn(Knob.CLOCK_CAP, cap_mhz)]
    reason = {"hw_slowdown": _HW_SLOWDOWN, "sync_boost": _SYNC_BOOST}.get(blow.variant)
    if reason is not None:
        effects.append(blow.turn(Knob.CLOCK_REASON, reason))
    claim = Claim(
        FailureMode.GPU_THROTTLED,
        blow.component,
        hard=blow.variant == "hw_slowdown" and blow.scene.shown("clock_reasons"),
        jobs=blow.jobs,
        symptoms=(FailureMode.JOB_STRAGGLER,),
    )
    return Happening(claim, tuple(effects))


def _limited(blow: Blow, at_s: float, limit_w: float) -> Shown:
    return Shown(at_s, blow.gpus, to={"limit_w": limit_w})


def _rack(blow: Blow) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([blow.scene.layout.rack_index(str(blow.fault.rack))])
