"""Jobs that stop or drag, although every GPU under them is sound: hangs and stragglers, with the rank to blame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from healer.domain.component import Component, ComponentKind
from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob
from healer.sim.strikes.blow import Blow, Claim, Gang, Happening
from healer.sim.strikes.fates import Fate, stalls
from healer.sim.work import Hold

_HOLDS = {
    "process_dead": Hold.DEAD,
    "processor": Hold.PROCESSOR,
    "kernel_spin": Hold.KERNEL_SPIN,
    "kernel_memory": Hold.KERNEL_MEMORY,
    "kernel_narrow": Hold.KERNEL_NARROW,
    "storage": Hold.PROCESSOR,
    "network": Hold.COLLECTIVE,
}


def job_stalled(blow: Blow) -> Happening:
    """One rank, or all of a node whose storage hangs, does not arrive; or all wait and no rank is to blame."""
    gang = blow.gang
    fate = Fate() if gang is None else stalls(blow, gang, blow.gpus, _HOLDS[blow.variant])
    culprit = None if blow.variant == "network" else blow.component
    claim = Claim(
        FailureMode.JOB_STALLED,
        _job(blow, gang),
        culprit,
        full_s=blow.at_s + 30.0,
        hard=False,
        jobs=() if gang is None else (gang.job,),
    )
    return Happening(claim, fate.effects, interruptions=fate.interruptions)


_THROTTLED = 0.15  # slower than its peers by so much, a GPU has a name of its own, and the gang suffers from it


def job_straggler(blow: Blow) -> Happening:
    """Throughput falls by 5 to 50 %: that of the slowest rank is that of all."""
    gang = blow.gang
    slower = blow.graded(0.05, 0.5)
    match blow.variant:
        case "slow_memory":
            effects = [blow.turn(Knob.SPEED, 1.0 - slower)]
            if blow.rng.random() < 0.3:
                effects.append(blow.turn(Knob.MEMORY_CLOCK, 1593.0))
        case "slow_clocks":
            cap_mhz = 15.0 * np.floor(1980.0 * (1.0 - slower) / 15.0)
            effects = [blow.turn(Knob.CLOCK_CAP, float(cap_mhz))]
        case _:
            effects = _late_data(blow, slower)
    claim = Claim(
        FailureMode.JOB_STRAGGLER,
        _job(blow, gang),
        blow.component,
        full_s=blow.at_s + (blow.fault.ramp_s or 0.0),
        hard=False,
        jobs=() if gang is None else (gang.job,),
        symptoms=(FailureMode.GPU_THROTTLED,) if blow.variant == "slow_clocks" else (),
    )
    if blow.variant == "slow_clocks" and slower >= _THROTTLED:
        claim = replace(
            claim,
            mode=FailureMode.GPU_THROTTLED,
            component=blow.component,
            culprit=None,
            symptoms=(FailureMode.JOB_STRAGGLER,),
        )
    return Happening(claim, tuple(effects))


def _late_data(blow: Blow, slower: float) -> list[Effect]:
    """A step lasts 1/(1-slower) of what it did, and the rest of it the GPU has nothing to do."""
    return [blow.turn(Knob.DATA_STALL, slower / (1.0 - slower))]


def _job(blow: Blow, gang: Gang | None) -> Component:
    return blow.component if gang is None else Component(ComponentKind.JOB, job=gang.job)
