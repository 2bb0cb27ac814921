"""Lines of jobs: a process that crashed inside NCCL, and a watchdog that waits for the rest of its job.

The watchdog is PyTorch's (ProcessGroupNCCL). It tells that somebody is missing and not who: the rank that writes the
line is the one that waited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CRASH = re.compile(r"segfault at [^\n]{0,200} in libnccl\.so", re.IGNORECASE)
_CRASHED = re.compile(r"([^\s\[\]:]{1,64})\[([0-9]{1,10})\]: {0,4}$")
_WATCHDOG = re.compile(
    r"watchdog caught collective operation timeout|detected by watchdog at work|timeout at nccl work:|"
    r"some nccl operations have failed or timed out|heartbeat monitor timed out! process will be terminated|"
    r"dump signal due to a collective timeout|processgroupnccl's watchdog got stuck",
    re.IGNORECASE,
)
_RANK = re.compile(r"\brank ?([0-9]{1,7})\]", re.IGNORECASE)
_WORK = re.compile(r"WorkNCCL\(SeqNum=([0-9]{1,19}), OpType=(\w{1,40})", re.ASCII)
_RAN_MS = re.compile(r"ran for ([0-9]{1,12}) milliseconds")
_NUMBER = re.compile(r"(?:at NCCL work:|watchdog at work:|sequence id:) {0,2}([0-9]{1,19})")
_LAST = re.compile(r"last enqueued (?:NCCL )?work: ([0-9]{1,19}), last completed (?:NCCL )?work: ([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Crash:
    """Attributes:
    name, pid: of the process; None where the line does not name it.
    """

    name: str | None
    pid: int | None


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective operation that did not end. What the line does not say is None.

    Attributes:
        number: the operation's, counted by its process group.
        waited_s: how long the rank waited for the others.
    """

    rank: int | None
    number: int | None
    operation: str | None
    waited_s: float | None
    enqueued: int | None
    completed: int | None


def crash_in(line: str) -> Crash | None:
    found = _CRASH.search(line)
    if found is None:
        return None
    named = _CRASHED.search(line[max(found.start() - 100, 0) : found.start()])
    return Crash(named[1], int(named[2])) if named else Crash(None, None)


def collective_in(line: str) -> Collective | None:
    if _WATCHDOG.search(line) is None:
        return None
    rank, work, ran, number, last = (p.search(line) for p in (_RANK, _WORK, _RAN_MS, _NUMBER, _LAST))
    return Collective(
        rank=int(rank[1]) if rank else None,
        number=int(work[1]) if work else int(number[1]) if number else None,
        operation=work[2] if work else None,
        waited_s=int(ran[1]) / 1000 if ran else None,
        enqueued=int(last[1]) if last else None,
        completed=int(last[2]) if last else None,
    )
