"""What the driver reports, and GPUs that leave it.

Sources: NVIDIA's Xid catalogue; a GPU off the bus takes its series along, with XID 79 before it or without a word.
"""

from __future__ import annotations

import math

from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Reload, Shown, Xid
from healer.sim.strikes.blow import Blow, Claim, Happening, Hidden
from healer.sim.strikes.fates import Fate, dies, hangs, hangs_or_dies
from healer.sim.work import Hold
from healer.sim.world import Mark

_OFF_THE_BUS = 79
_CODES = {
    "gsp": (119, 120),  # the GPU's own processor does not answer
    "engine": (46, 62, 109, 110, 143, 158),  # an engine timed out, faulted, or did not start
    "quiet": (46, 109, 143),  # the same, and the work goes on
    "unknown": (211, 257, 311, 500),  # newer than every catalogue
}
_SENSORS = frozenset({"core_c", "memory_c", "power_w", "sm_clock_mhz", "util_percent", "memory_util_percent"})
_BLANK = float(0x7FFFFFFFFFFFFFF0)


def gpu_lost(blow: Blow) -> Happening:
    at_s, gpus, rng = blow.at_s, blow.gpus, blow.rng
    gone_s = at_s
    marks: tuple[Mark, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    if blow.variant != "silent":
        gone_s = at_s + rng.uniform(15.0, 180.0)  # not every scrape is in time for what it says
        marks = (Xid(at_s, gpus, _OFF_THE_BUS), Shown(at_s, gpus, to={"recovery_action": 2.0}))
    if blow.variant == "blank_first":
        hidden = (Hidden(_SENSORS, frozenset(gpus.tolist()), at_s, gone_s, _BLANK),)
    lost = Effect(Knob.LOST, gpus, 1.0, gone_s, blow.end_s)
    fate = hangs_or_dies(blow, hangs_in=0.6, hold=Hold.DEAD, without_node=True)
    claim = Claim(
        FailureMode.GPU_FELL_OFF_BUS,
        blow.component,
        full_s=gone_s,
        jobs=blow.jobs,
        symptoms=(FailureMode.JOB_STALLED, FailureMode.TELEMETRY_LOST, FailureMode.GPU_XID),
    )
    back = () if math.isinf(blow.end_s) else (Reload(blow.end_s, gpus),)
    return Happening(claim, (lost, *fate.effects), (*marks, *back), hidden, fate.interruptions)


def gpu_xid(blow: Blow) -> Happening:
    at_s, gpus, rng = blow.at_s, blow.gpus, blow.rng
    code = int(rng.choice(_CODES[blow.variant]))
    marks: list[Mark] = [Xid(at_s, gpus, code)]
    hidden: tuple[Hidden, ...] = ()
    match blow.variant:
        case "gsp":
            marks.append(Shown(at_s, gpus, to={"recovery_action": 1.0}))
            fate = hangs(blow, hold=Hold.KERNEL_NARROW, without_node=rng.random() < 0.5)
            if rng.random() < 0.4:  # whoever asks the GPU gets no answer either
                hidden = (Hidden(_SENSORS, frozenset(gpus.tolist()), at_s + 10.0, blow.end_s, _BLANK),)
        case "engine":
            fate = hangs_or_dies(blow, hangs_in=0.4, hold=Hold.KERNEL_NARROW)
        case "quiet":
            fate = Fate()
        case _:
            fate = dies(blow) if rng.random() < 0.5 else Fate()
    marks += [Xid(at_s + rng.uniform(30.0, 3600.0), gpus, code) for _ in range(int(rng.integers(0, 3)))]
    marks = [mark for mark in marks if mark.at_s < blow.end_s]
    if math.isfinite(blow.end_s):
        marks.append(Reload(blow.end_s, gpus))
    symptoms = (FailureMode.JOB_STALLED, FailureMode.TELEMETRY_LOST)
    claim = Claim(FailureMode.GPU_XID, blow.component, jobs=blow.jobs, symptoms=symptoms)
    return Happening(claim, fate.effects, tuple(marks), hidden, fate.interruptions)
