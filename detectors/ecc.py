"""Uncorrectable memory errors: the GPU has handed out, or could have handed out, wrong data.

Mechanism: two or more bits of one ECC word flip; SECDED sees it and cannot repair it. The word's row is remapped at
the next reset; until then the driver kills the applications that used it, and an uncontained error takes the GPU
down.
Sources: DCGM fields 311 and 313 (double-bit errors since the driver was loaded, and over the GPU's life), DCGM
field 230 and NVIDIA's Xid catalogue (48 double-bit error, 95 uncontained, 140 unrecovered, 171 and 172 the same on
newer parts; 94 was contained: the application ends, the GPU's count grows). DCGM's own health check fails a GPU on
any volatile double-bit error.
Cost of a false positive: a node of eight GPUs drained and its work restarted, which is
why the drain asks first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import ComponentKind, Evidence, FailureMode, Findings, Frame, Health, Signal, counter_growth, findings

MODES = (FailureMode.GPU_UNCORRECTABLE_ECC,)
READS = (Signal.ECC_DBE_VOLATILE, Signal.ECC_DBE_AGGREGATE, Signal.XID)

_UNCORRECTABLE_XIDS = (48, 95, 140, 171, 172)
_CONTAINED_XID = 94


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    growth_window_s: a lifetime count that grew within this long is a new error, whatever the volatile count says.
    """

    growth_window_s: float = 600.0


def detect(frame: Frame, settings: Settings) -> Findings:
    volatile = frame.latest(Signal.ECC_DBE_VOLATILE)
    lifetime = frame.latest(Signal.ECC_DBE_AGGREGATE)
    xid = frame.latest(Signal.XID)
    growth = counter_growth(frame.window(Signal.ECC_DBE_AGGREGATE, timedelta(seconds=settings.growth_window_s)))

    # Without a counter only an XID of 0 says that there was no error: any other one stands where an earlier one stood.
    unknown = np.isnan(volatile) & np.isnan(lifetime) & (xid != 0)
    counted = (volatile > 0) | (growth > 0)
    named = np.isin(xid, _UNCORRECTABLE_XIDS)
    contained = counted & (xid == _CONTAINED_XID)

    health = np.full(len(frame.gpus), Health.HEALTHY, dtype=np.int8)
    health[unknown] = Health.UNKNOWN
    health[counted | named] = Health.FAILED
    health[contained] = Health.DEGRADED

    def describe(row: int) -> tuple[float, str, tuple[Evidence, ...]]:
        evidence = tuple(
            Evidence(str(signal), float(value), "", frame.at)
            for signal, value in (
                (Signal.ECC_DBE_VOLATILE, volatile[row]),
                (Signal.ECC_DBE_AGGREGATE, lifetime[row]),
                (Signal.XID, xid[row]),
            )
            if not np.isnan(value)
        )
        return 1.0, _reason(volatile[row], growth[row], xid[row]), evidence

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _reason(volatile: float, growth: float, xid: float) -> str:
    parts = []
    if volatile > 0:
        parts.append(f"{_counted(volatile, 'uncorrectable memory error')} since the driver was loaded")
    elif growth > 0:
        parts.append(f"{_counted(growth, 'new uncorrectable memory error')} over the GPU's life")
    if xid in (*_UNCORRECTABLE_XIDS, _CONTAINED_XID):
        parts.append(f"the last XID is {xid:.0f}" + (", contained" if xid == _CONTAINED_XID else ""))
    return "; ".join(parts)


def _counted(count: float, what: str) -> str:
    return f"{count:.0f} {what}" + ("" if count == 1 else "s")
