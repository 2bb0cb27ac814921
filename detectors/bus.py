"""A GPU that is gone from its bus: the driver cannot reach it any more.

Mechanism: the PCIe link, the board's power or its firmware gives out. The driver logs XID 79, or a few lines without a
number; the exporter goes on and shows the other GPUs only, for a GPU that dies takes its series with it.
Sources: XID 79 (NVIDIA: restart the machine), the driver's lines without a number, where kernel logs are read;
dcgm-exporter issue 348 (metrics vanish when a GPU is lost); the table of troubles in docs/telemetry.md: one GPU missing
from a page that has the others is that GPU's trouble, a page without any is the exporter's.
Cost of a false positive: a node drained and restarted, with all its jobs. Safety rule 12 asks for another witness
before that: the telemetry path is the first suspect, which is why behind a silent exporter nothing is ever missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healer.sdk import (
    ComponentKind,
    FailureMode,
    Findings,
    Frame,
    Health,
    Presence,
    Said,
    Signal,
    codes_of,
    evidence,
    findings,
)

MODES = (FailureMode.GPU_FELL_OFF_BUS,)
READS = (Signal.XID,)

_CODES = codes_of(FailureMode.GPU_FELL_OFF_BUS)


@dataclass(frozen=True, slots=True)
class Settings:
    """There is nothing to set: it is there, or it is not."""


def detect(frame: Frame, settings: Settings) -> Findings:  # noqa: ARG001 - every detector has settings
    missing = frame.presence == Presence.MISSING
    told = frame.xids_since_reset(_CODES)
    lines = dict(frame.xid_lines(_CODES))

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[frame.current & ~frame.xids_since_reset(_CODES, standing=True)] = Health.HEALTHY
    health[missing | told] = Health.FAILED
    others = frame.nodes.groups.count(frame.current)

    def describe(row: int) -> Said:
        parts = []
        # The driver says it without a number, too.
        teller = "XID 79" if row not in lines or lines[row].has_code else "the kernel log"
        if told[row]:
            parts.append(f"{teller}: the driver cannot reach the GPU any more")
        if missing[row]:
            node = frame.nodes.groups.of_gpu[row]
            beside = f", which shows the node's other {others[node]}" if node >= 0 and others[node] else ""
            parts.append(f"not shown for {frame.age_s[row]:.0f} s by its exporter{beside}")
        disputed: tuple[str, ...] = ()
        if told[row] and frame.current[row]:
            disputed = (f"{teller} says that it is gone; its exporter still shows fresh values of it",)
        shown = evidence(frame, Signal.XID, Signal.POWER, Signal.GPU_TEMPERATURE, row=row)
        return Said("; ".join(parts), shown, disputed=disputed, vanished=not told[row])

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)
