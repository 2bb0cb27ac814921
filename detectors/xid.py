"""Every other XID, with NVIDIA's action from its catalogue; the driver's own verdict wins over the table.

Mechanism: XIDs are the driver's error messages. Most of what they report is an application's doing (13, 31, 43, 45 and
others): such a code condemns no hardware, unless it comes back on one GPU in job after job while the other GPUs of
those jobs are spared. A killed job leaves XID 45 on all its GPUs. Codes that nobody knows come up as unknown, never as
nothing.
Sources: NVIDIA's Xid catalogue (through healer.telemetry.xids), DCGM field 230 (the last XID; it never clears, so only
its change is news), dcgm-exporter's counts by code, DCGM field 1523 (the driver's recovery action), lines of the
kernel's log, whose own words stand above the catalogue (the recovery action behind an XID 154). Seven tools
disagree on 59 of the 98 codes that NVIDIA gives an action for; XID 45 flagged 77 nodes in 11 racks in one of them.
Cost of a false positive: a node drained for nothing, or a person called for an application's crash.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from healer.sdk import (
    Action,
    Blame,
    ComponentKind,
    FailureMode,
    Findings,
    Frame,
    Health,
    Ints,
    KernelLine,
    Said,
    Signal,
    codes_blamed_on,
    codes_of,
    evidence,
    findings,
    xid,
)

MODES = (FailureMode.GPU_XID,)
READS = (Signal.XID, Signal.XID_RECENT, Signal.XID_ERRORS, Signal.RECOVERY_ACTION, Signal.GPU_HEALTH)

_OURS = frozenset(codes_of(FailureMode.GPU_XID))
_ELSEWHERE = frozenset(code for mode in FailureMode if mode is not FailureMode.GPU_XID for code in codes_of(mode))
_OF_APPLICATIONS = frozenset(codes_blamed_on(Blame.APPLICATION)) - _ELSEWHERE
_HARMLESS = frozenset(codes_blamed_on(Blame.INFORMATION))
_A_PERSON_LOOKS = frozenset(
    {Action.CONTACT_SUPPORT, Action.UPDATE_SWFW, Action.CHECK_UVM, Action.UNKNOWN, Action.XID_154}
)
# DCGM field 1523.
_RECOVERY = {
    1: "a reset",
    2: "a reboot of the node",
    3: "draining peer to peer",
    4: "a drain and a reset",
    5: "recovering IMEX",
    6: "a bus reset",
    7: "a reboot of the system",
}
_FAILED_CHECK = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    jobs: an application's code counts against the GPU when it came in so many jobs within a day, ...
    share: ... and in at most this share of those jobs another GPU had it, too.
    """

    jobs: int = 3
    share: float = 0.25


def detect(frame: Frame, settings: Settings) -> Findings:
    asks = frame.latest(Signal.RECOVERY_ACTION)
    check = frame.latest(Signal.GPU_HEALTH)
    last = frame.latest(Signal.XID)
    known = ~np.isnan(last) | ~np.isnan(asks) | ~np.isnan(check)
    codes = _by_gpu(frame)
    lines = {(row, line.code): line for row, line in frame.xid_lines(set().union(*codes.values()))}
    before = np.unique(frame.xids.codes[frame.xids.standing]).tolist()
    standing = frame.xids_since_reset([code for code in before if _counts(code)], standing=True)
    repeated = _repeated(frame, settings)

    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[known & ~standing] = Health.HEALTHY
    for row, found in codes.items():
        health[row] = max(_health_of(_action(code, lines.get((row, code)))) for code in found)
    for row in repeated:
        health[row] = max(health[row], Health.DEGRADED)
    # Where there are no XIDs (AMD), the vendor's own check is all there is.
    health[np.isnan(last) & (check >= _FAILED_CHECK)] = Health.DEGRADED
    health[asks > 0] = Health.FAILED

    def describe(row: int) -> Said:
        seen = codes.get(row, ())
        parts = [_told(code, lines.get((row, code))) for code in seen]
        if row in repeated:
            code, jobs = repeated[row]
            entry = xid(code)
            named = entry.meaning or entry.mnemonic
            parts.append(f"XID {code} ({named}) in {jobs} jobs within a day, on this GPU alone")
        wanted = _RECOVERY.get(int(asks[row])) if asks[row] > 0 else None
        if wanted:
            parts.append(f"the driver asks for {wanted}")
        if check[row] >= _FAILED_CHECK:
            parts.append("the vendor's own health check fails")
        own = tuple(lines[row, code] for code in seen if (row, code) in lines)
        disputed = _disputed(seen, own, asks[row], check[row])
        return Said("; ".join(parts), evidence(frame, *READS, row=row), disputed=disputed)

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _by_gpu(frame: Frame) -> dict[int, tuple[int, ...]]:
    """The codes that count by themselves, by GPU, since it last started anew."""
    ours = [code for code in np.unique(frame.xids.codes).tolist() if _counts(code)]
    rows = np.flatnonzero(frame.xids_since_reset(ours)).tolist() if ours else []
    return {row: frame.xid_codes(row, ours) for row in rows}


def _counts(code: int) -> bool:
    return code not in _ELSEWHERE | _OF_APPLICATIONS | _HARMLESS and _health_of(xid(code).action) > Health.HEALTHY


def _action(code: int, line: KernelLine | None) -> Action:
    """What the line itself asks for, else the catalogue."""
    return xid(code).action if line is None else Action(line.action)


def _health_of(action: Action) -> Health:
    if action is Action.IGNORE:
        return Health.HEALTHY
    return Health.DEGRADED if action in _A_PERSON_LOOKS else Health.FAILED


def _told(code: int, line: KernelLine | None) -> str:
    if line is not None:
        return f"XID {code}: {line.why}"
    entry = xid(code)
    if not entry.is_known:
        return f"XID {code} is in no catalogue: what it asks for is unknown"
    return f"XID {code} ({entry.meaning or entry.mnemonic}): NVIDIA asks for {entry.action}"


def _repeated(frame: Frame, settings: Settings) -> dict[int, tuple[int, int]]:
    """By GPU, the application's code that follows it from job to job, and in how many jobs."""
    found: dict[int, tuple[int, int]] = {}
    for code in np.unique(frame.xids.codes).tolist():
        if code not in _OF_APPLICATIONS:
            continue
        jobs = frame.jobs_with_xid((code,))
        for row in np.flatnonzero(jobs >= settings.jobs).tolist():
            if _share_of_others(frame, code, row) <= settings.share:
                found[row] = max(found.get(row, (0, 0)), (code, int(jobs[row])), key=lambda pair: pair[1])
    return found


def _share_of_others(frame: Frame, code: int, row: int) -> float:
    """In which share of the GPU's jobs with the code another GPU had it, too: 0 where it was always alone."""
    xids = frame.xids
    same = (xids.codes == code) & ~xids.standing
    jobs: Ints = np.unique(xids.jobs[same & (xids.rows == row)])
    by_job: dict[int, set[int]] = defaultdict(set)
    for job, gpu in zip(xids.jobs[same].tolist(), xids.rows[same].tolist(), strict=True):
        by_job[job].add(gpu)
    shared = sum(len(by_job[job]) > 1 for job in jobs.tolist())
    return shared / max(len(jobs), 1)


def _disputed(codes: tuple[int, ...], lines: tuple[KernelLine, ...], asks: float, check: float) -> tuple[str, ...]:
    said = [told for line in lines for told in line.said]
    if codes and asks == 0:
        of_newest = next((line for line in lines if line.code == codes[0]), None)
        who = "NVIDIA's catalogue" if of_newest is None else "the kernel log"
        wanted = _action(codes[0], of_newest)
        said.append(f"{who} asks for {wanted} after XID {codes[0]}; the driver asks for nothing")
    if codes and check == 0:
        said.append(f"XID {codes[0]} says that something is wrong; the vendor's health check passes")
    return tuple(said)
