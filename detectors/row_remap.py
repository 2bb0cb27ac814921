"""Memory rows that wait to be replaced by spare ones, or could not be.

Mechanism: since Ampere the GPU replaces a failing memory row by a spare one at its next reset; until then the bad row
is only marked ("pending"). A bank whose spares are used up cannot be repaired: the remap fails, and the GPU is to be
exchanged. Older parts retire pages of 4 KiB instead. Blackwell retires channels and other parts likewise.
Sources: DCGM fields 393 to 396 (remapped rows, failure, pending), 392 (pages pending), NVIDIA's memory error management
guide (512 remaps in all, or 8 in one bank), XIDs 63 and 64, on newer parts 156 and 160, 157 and 161. Every tool at hand
calls a failed remap a broken GPU; for a pending one most ask for a reset at the next chance.
Cost of a false positive: pending, a reset between two jobs; failed, a node drained and a board exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healer.sdk import ComponentKind, FailureMode, Findings, Frame, Health, Said, Signal, codes_of, evidence, findings

MODES = (FailureMode.GPU_ROW_REMAP_PENDING, FailureMode.GPU_ROW_REMAP_FAILED)
READS = (Signal.ROW_REMAP_PENDING, Signal.ROW_REMAP_FAILED, Signal.PAGES_PENDING, Signal.XID)

_MARKED = codes_of(FailureMode.GPU_ROW_REMAP_PENDING)
_NOT_DONE = codes_of(FailureMode.GPU_ROW_REMAP_FAILED)


@dataclass(frozen=True, slots=True)
class Settings:
    """There is nothing to set: the GPU says it, or does not."""


def detect(frame: Frame, settings: Settings) -> Findings:  # noqa: ARG001 - every detector has settings
    return _pending(frame) + _failed(frame)


def _pending(frame: Frame) -> Findings:
    rows, pages = frame.latest(Signal.ROW_REMAP_PENDING), frame.latest(Signal.PAGES_PENDING)
    flagged = (rows > 0) | (pages > 0)
    flag_known = ~np.isnan(rows) | ~np.isnan(pages)
    told = frame.xids_since_reset(_MARKED)

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[flag_known | (frame.latest(Signal.XID) == 0)] = Health.HEALTHY
    # The GPU's own flag is cleared by the reset that the XID's asks for: where it can be seen, it decides.
    health[flagged | (told & ~flag_known)] = Health.DEGRADED

    def describe(row: int) -> Said:
        codes = frame.xid_codes(row, _MARKED)
        parts = ["a memory row waits for the next reset to be replaced"] if flagged[row] else []
        parts += [f"XID {code}" for code in codes]
        return Said("; ".join(parts), evidence(frame, *READS, row=row))

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _failed(frame: Frame) -> Findings:
    flag = frame.latest(Signal.ROW_REMAP_FAILED)
    told = frame.xids_since_reset(_NOT_DONE)

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[~np.isnan(flag) | (frame.latest(Signal.XID) == 0)] = Health.HEALTHY
    health[(flag > 0) | told] = Health.FAILED

    def describe(row: int) -> Said:
        codes = frame.xid_codes(row, _NOT_DONE)
        parts = ["a memory row could not be replaced: the GPU has no spare left for it"] if flag[row] > 0 else []
        parts += [f"XID {code}" for code in codes]
        disputed: tuple[str, ...] = ()
        if codes and flag[row] == 0:
            disputed = (f"XID {codes[0]} says so; the GPU's own flag of failed remaps is 0",)
        return Said("; ".join(parts), evidence(frame, *READS, row=row), disputed=disputed)

    return findings(MODES[1], ComponentKind.GPU, health, frame.gpus.components, describe)
