"""Memory errors: those that cannot be corrected, storms of those that can, and rows that cannot be remapped yet.

Sources: NVIDIA's Xid catalogue (48, 94, 95, 63, 64) and its memory error management: a row that had an uncorrectable
error is remapped at the next reset; a contained error ends the application that met it and nothing else.
"""

from __future__ import annotations

import math

from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob, Ramp
from healer.sim.marks import Reload, Shown, Xid
from healer.sim.strikes.blow import Blow, Claim, Happening
from healer.sim.strikes.fates import Fate, dies, hangs_or_dies
from healer.sim.work import Hold
from healer.sim.world import Mark

_CONTAINED, _UNCONTAINED, _DOUBLE_BIT, _REMAPPED, _REMAP_FAILED = 94, 95, 48, 63, 64
_STALLS = (FailureMode.JOB_STALLED,)


def uncorrectable_ecc(blow: Blow) -> Happening:
    gpus, at_s, rng = blow.gpus, blow.at_s, blow.rng
    errors = float(rng.integers(1, 4)) if blow.scene.jobs_die else 1.0
    counted = Shown(at_s, gpus, by={"dbe_volatile": errors, "dbe_aggregate": errors})
    awaits_reset = Shown(at_s, gpus, to={"remap_pending": 1.0}, by={"remapped_uncorrectable": 1.0})
    symptoms = (FailureMode.GPU_ROW_REMAP_PENDING, *_STALLS)
    marks: tuple[Mark, ...]
    match blow.variant:
        case "double_bit":
            marks = (counted, awaits_reset, Xid(at_s, gpus, _DOUBLE_BIT))
            fate = dies(blow)
        case "uncontained":
            told = Shown(at_s, gpus, to={"recovery_action": 1.0})
            counts = (counted, awaits_reset) if rng.random() < 0.6 else ()
            marks = (*counts, told, Xid(at_s, gpus, _UNCONTAINED))
            fate = hangs_or_dies(blow, hangs_in=0.4, hold=Hold.KERNEL_NARROW)
        case "contained":
            marks = (counted, awaits_reset, Xid(at_s, gpus, _CONTAINED))
            fate = dies(blow)
        case "counter_only":
            pending = (awaits_reset,) if rng.random() < 0.5 else ()
            marks, fate = (counted, *pending), Fate()
        case "sram_threshold":
            later = [at_s + rng.uniform(0.0, blow.lasts_s) for _ in range(int(rng.integers(2, 7)))]
            repeats = (Shown(each, gpus, by={"dbe_volatile": 1.0, "dbe_aggregate": 1.0}) for each in sorted(later))
            marks = (counted, Shown(at_s, gpus, to={"sram_exceeded": 1.0}), *repeats)
            fate = Fate()
        case _:  # repeating
            times = [at_s + blow.lasts_s * share for share in sorted(rng.random(int(rng.integers(3, 12))))]
            again = (Shown(each, gpus, by={"dbe_volatile": 1.0, "dbe_aggregate": 1.0}) for each in times)
            marks = (counted, awaits_reset, Xid(at_s, gpus, _DOUBLE_BIT), *again)
            fate = dies(blow)
    claim = Claim(FailureMode.GPU_UNCORRECTABLE_ECC, blow.component, jobs=blow.jobs, symptoms=symptoms)
    return Happening(claim, fate.effects, (*marks, *_mended(blow)), interruptions=fate.interruptions)


def correctable_ecc_storm(blow: Blow) -> Happening:
    """From one error in some seconds to the thousands a second at which nothing but the count tells of it."""
    rate = blow.graded_log(0.3, 20_000.0)
    match blow.variant:
        case "bursts":
            episodes = blow.episodes(on_s=(20.0, 300.0), off_s=(60.0, 900.0))
            effects = tuple(Effect(Knob.SBE_RATE, blow.gpus, rate, on, off) for on, off in episodes)
        case "rising":
            ramp_s = blow.fault.ramp_s or blow.rng.uniform(0.2, 0.8) * blow.lasts_s
            effects = (Effect(Knob.SBE_RATE, blow.gpus, rate, blow.at_s, blow.end_s, ramp_s, Ramp.LINEAR),)
        case _:
            effects = (blow.turn(Knob.SBE_RATE, rate),)
    remaps = [blow.at_s + blow.rng.uniform(0.0, blow.lasts_s) for _ in range(int(blow.rng.integers(0, 3)))]
    marks = tuple(Shown(each, blow.gpus, by={"remapped_correctable": 1.0}) for each in remaps)
    full_s = max(effect.settles_at_s() for effect in effects) if blow.variant == "rising" else None
    claim = Claim(
        FailureMode.GPU_CORRECTABLE_ECC_STORM,
        blow.component,
        full_s=full_s,
        hard=False,
        jobs=blow.jobs,
        symptoms=(FailureMode.GPU_ROW_REMAP_PENDING,),
    )
    return Happening(claim, effects, (*marks, *_mended(blow)))


def row_remap_pending(blow: Blow) -> Happening:
    """A row waits for a reset, and no uncorrectable error was counted: it was found in time, or by another count."""
    cause = "remapped_correctable" if blow.variant == "correctable" else "remapped_uncorrectable"
    flagged = Shown(blow.at_s, blow.gpus, to={"remap_pending": 1.0}, by={cause: 1.0})
    told = () if blow.variant == "flag_only" else (Xid(blow.at_s, blow.gpus, _REMAPPED),)
    claim = Claim(FailureMode.GPU_ROW_REMAP_PENDING, blow.component, jobs=blow.jobs)
    return Happening(claim, (), (flagged, *told, *_mended(blow)))


def row_remap_failed(blow: Blow) -> Happening:
    gpus, at_s = blow.gpus, blow.at_s
    flagged = Shown(at_s, gpus, to={"remap_failed": 1.0})
    marks: tuple[Mark, ...] = (flagged,)
    if blow.variant == "exhausted":
        marks = (flagged, Shown(at_s, gpus, to={"banks_exhausted": 1.0}, by={"remapped_uncorrectable": 3.0}))
    if blow.variant != "flag_only":
        marks = (*marks, Xid(at_s, gpus, _REMAP_FAILED))
    fate = dies(blow) if blow.rng.random() < 0.4 else Fate()
    claim = Claim(
        FailureMode.GPU_ROW_REMAP_FAILED,
        blow.component,
        jobs=blow.jobs,
        symptoms=(FailureMode.GPU_ROW_REMAP_PENDING, FailureMode.GPU_XID, *_STALLS),
    )
    replaced = () if math.isinf(blow.end_s) else (Shown(blow.end_s, gpus, to={"remap_failed": 0.0}),)
    return Happening(claim, fate.effects, (*marks, *replaced, *_mended(blow)), interruptions=fate.interruptions)


def _mended(blow: Blow) -> tuple[Mark, ...]:
    """What ends such a fault is a reset."""
    if math.isinf(blow.end_s):
        return ()
    return (Shown(blow.end_s, blow.gpus, to={"sram_exceeded": 0.0}), Reload(blow.end_s, blow.gpus))
