"""Memory errors: those that could not be corrected, and storms of those that could.

Mechanism: two or more bits of one ECC word flip; SECDED sees it and cannot repair it. The word's row is remapped at
the next reset; until then the driver kills the applications that used it, and an uncontained error takes the GPU
down. Single bits are corrected, and a few in months are normal; when one row gives out they come by the thousand, and
cost bandwidth, retries and at last the row.
Sources: DCGM fields 310 to 313 (single- and double-bit errors since the driver was loaded, and over the GPU's life),
NVIDIA's Xid catalogue (48 double-bit error, 95 uncontained, 140 unrecovered, 171 and 172 the same on newer parts; 94
was contained: the application ends, the GPU's count grows; 92 too many corrected ones), the SRAM threshold flag. DCGM's
own health check fails a GPU on any volatile double-bit error. For corrected errors, thresholds in use range from never
to 50 million; one GB200 had 17,700 a second while DCGM called it healthy.
Cost of a false positive: for the first, a node of eight GPUs drained and its work restarted, which is why the drain
asks first; for the second, a diagnostic run.
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
    codes_of,
    evidence,
    findings,
)

MODES = (FailureMode.GPU_UNCORRECTABLE_ECC, FailureMode.GPU_CORRECTABLE_ECC_STORM)
READS = (
    Signal.ECC_DBE_VOLATILE,
    Signal.ECC_DBE_AGGREGATE,
    Signal.ECC_SBE_VOLATILE,
    Signal.ECC_SBE_AGGREGATE,
    Signal.SRAM_THRESHOLD_EXCEEDED,
    Signal.MEMORY_UNREPAIRABLE,
    Signal.ROW_REMAP_CORRECTABLE,
    Signal.XID,
)
REMEMBERS = (
    Signal.ECC_DBE_AGGREGATE,
    Signal.ECC_SBE_VOLATILE,
    Signal.ECC_SBE_AGGREGATE,
    Signal.ROW_REMAP_CORRECTABLE,
)

_CONTAINED = 94
_TOO_MANY_CORRECTED = 92
_UNCORRECTABLE = tuple(code for code in codes_of(FailureMode.GPU_UNCORRECTABLE_ECC) if code != _CONTAINED)


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    contained_jobs: so many jobs that met a contained error on one GPU are no accident.
    storm_window_s: corrected errors are counted over this long.
    storm_least: so many of them within the window, at several looks, are a storm, ...
    storm_at_once: ... and so many even at a single look,
    storm_ratio: if they are so many times what the GPU's own past, and three quarters of the fleet now, have.
    remapped_least: so many rows remapped for corrected errors within hours are a row that gives out.
    """

    contained_jobs: int = 2
    storm_window_s: float = 300.0
    storm_least: float = 20.0
    storm_at_once: float = 1000.0
    storm_ratio: float = 10.0
    remapped_least: float = 3.0


def detect(frame: Frame, settings: Settings) -> Findings:
    return _uncorrectable(frame, settings) + _storms(frame, settings)


def _uncorrectable(frame: Frame, settings: Settings) -> Findings:
    volatile, lifetime = frame.latest(Signal.ECC_DBE_VOLATILE), frame.latest(Signal.ECC_DBE_AGGREGATE)
    xid = frame.latest(Signal.XID)
    # As far back as anybody remembers, or to the last reset.
    growth = frame.growth(Signal.ECC_DBE_AGGREGATE, timedelta(hours=1))
    growth = growth + np.where(np.isinf(frame.reset_s), frame.past.growth(Signal.ECC_DBE_AGGREGATE), 0.0)
    flagged = (frame.latest(Signal.SRAM_THRESHOLD_EXCEEDED) > 0) | (frame.latest(Signal.MEMORY_UNREPAIRABLE) > 0)
    seen, standing = frame.xids_since_reset(_UNCORRECTABLE), frame.xids_since_reset(_UNCORRECTABLE, standing=True)
    contained = frame.xids_since_reset((_CONTAINED,)) | (xid == _CONTAINED)
    counted = (volatile > 0) | (growth > 0)

    # Without a counter only an XID of 0 says that there was no error: any other one stands where an earlier one stood.
    unknown = np.isnan(volatile) & np.isnan(lifetime) & (xid != 0)
    health = np.full(len(frame.gpus), Health.HEALTHY, dtype=np.int8)
    health[unknown | standing] = Health.UNKNOWN
    health[frame.jobs_with_xid((_CONTAINED,)) >= settings.contained_jobs] = Health.DEGRADED
    health[counted & contained] = Health.DEGRADED
    health[(counted & ~contained) | flagged | seen] = Health.FAILED

    def describe(row: int) -> Said:
        codes = frame.xid_codes(row, (*_UNCORRECTABLE, _CONTAINED))
        reason = _reason(float(volatile[row]), float(growth[row]), codes, flagged=bool(flagged[row]))
        told = evidence(frame, Signal.ECC_DBE_VOLATILE, Signal.ECC_DBE_AGGREGATE, Signal.XID, row=row)
        disputed: tuple[str, ...] = ()
        if seen[row] and volatile[row] == 0:
            disputed = (f"XID {codes[0]} says so; the count of double-bit errors since the driver was loaded is 0",)
        return Said(reason, told, disputed=disputed)

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _reason(volatile: float, growth: float, codes: tuple[int, ...], *, flagged: bool) -> str:
    parts = []
    if volatile > 0:
        parts.append(f"{_counted(volatile, 'uncorrectable memory error')} since the driver was loaded")
    elif growth > 0:
        parts.append(f"{_counted(growth, 'new uncorrectable memory error')} over the GPU's life")
    if flagged:
        parts.append("the GPU reports more than it tolerates, or memory that cannot be repaired")
    if codes:
        named = ", ".join(str(code) + (" (contained)" if code == _CONTAINED else "") for code in codes)
        parts.append(f"XID {named}")
    return "; ".join(parts)


def _counted(count: float, what: str) -> str:
    return f"{count:.0f} {what}" + ("" if count == 1 else "s")


_CROWD = 8
_SEVERAL = 3  # looks; a single row that is read again and again makes one burst


def _storms(frame: Frame, settings: Settings) -> Findings:
    span = timedelta(seconds=settings.storm_window_s)
    counters = (Signal.ECC_SBE_VOLATILE, Signal.ECC_SBE_AGGREGATE)
    known = np.logical_or.reduce([~np.isnan(frame.latest(counter)) for counter in counters])
    grown = np.maximum.reduce([frame.growth(counter, span) for counter in counters])
    looks = np.maximum.reduce([frame.signals.growing_ticks(counter, span) for counter in counters])
    usual = np.maximum.reduce([frame.past.most_grown(counter) for counter in counters])
    storming = ((grown >= settings.storm_least) & (looks >= _SEVERAL)) | (grown >= settings.storm_at_once)
    storming &= grown >= settings.storm_ratio * np.maximum(usual, _usual_of_peers(grown, known & frame.current))
    remapped = frame.growth(Signal.ROW_REMAP_CORRECTABLE, span) + frame.past.growth(Signal.ROW_REMAP_CORRECTABLE)
    giving_out = remapped >= settings.remapped_least
    told = frame.xids_since_reset((_TOO_MANY_CORRECTED,))

    health = np.full(len(frame.gpus), Health.HEALTHY, dtype=np.int8)
    health[~known] = Health.UNKNOWN
    health[storming | giving_out | told] = Health.DEGRADED

    def describe(row: int) -> Said:
        parts = []
        if storming[row]:
            span_min = settings.storm_window_s / 60
            counted = f"{grown[row]:.0f} corrected memory errors in {span_min:g} minutes"
            parts.append(f"{counted}, at most {usual[row]:.0f} in as many before")
        if giving_out[row]:
            parts.append(f"{remapped[row]:.0f} rows remapped for corrected errors within hours")
        if told[row]:
            parts.append(f"XID {_TOO_MANY_CORRECTED}: the driver counts too many of them")
        signals = (Signal.ECC_SBE_VOLATILE, Signal.ECC_SBE_AGGREGATE, Signal.ROW_REMAP_CORRECTABLE)
        return Said("; ".join(parts), evidence(frame, *signals, row=row))

    return findings(MODES[1], ComponentKind.GPU, health, frame.gpus.components, describe)


def _usual_of_peers(grown: Floats, known: Bools) -> float:
    """What three quarters of the fleet stay below: where everybody counts fast, that is how they count."""
    return float(np.quantile(grown[known], 0.75)) if np.count_nonzero(known) >= _CROWD else 0.0
