"""One log line of PyTorch's NCCL watchdog, whoever has put what in front of it.

    [rank5]:[E810 03:04:11.06 ProcessGroupNCCL.cpp:2241] [PG ID 4 PG GUID 9(tp) Rank 1]  failure detected by ...

`[rank5]:` is the global rank. The ranks in `[PG ... Rank 1]` and in `[Rank 1]` are those in the process group. What
else stands in front comes from launchers and runtimes: torchrun, Ray, srun, Kubernetes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_LONGEST_LINE = 4096
_N = r"(-?\d{1,18})\b"

_HINTS = ("atchdog", "NCCL work", "NCCL operations", "eartbeat monitor")
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m")
_RANK = re.compile(r"\[rank(\d{1,7})\]")
_TASK = re.compile(r"\s{0,8}(\d{1,7}): ")  # srun --label, by the number of the task
_HOST = re.compile(r"\bip=([0-9A-Za-z.:-]{1,60})\)")  # Ray, for a worker on another node
_GROUP = re.compile(r"\[PG (?:ID \d{1,9} PG GUID )?([^\s()\]]{1,100})(?:\(([^()\]]{0,100})\))? Rank (\d{1,7})\]")
_IN_GROUP = re.compile(r"\[Rank (\d{1,7})\]")

_TIMEOUT = re.compile(rf"Watchdog caught collective operation timeout: WorkNCCL\((?:SeqNum={_N}, )?OpType=(\w{{1,60}})")
_RAN = re.compile(r"\) ran for (\d{1,15}) milliseconds")
_DETECTED = re.compile(rf"(?:detected by watchdog at work(?: sequence id)?|Timeout at NCCL work): {_N}")
_ENQUEUED = re.compile(rf"[Ll]ast enqueued (?:NCCL )?work: {_N}")
_GAVE_UP = re.compile(r"Some NCCL operations have failed or timed out|watchdog thread terminated with exception")
_HEARTBEAT = re.compile(r"Heartbeat monitor timed out|watchdog got stuck for \d{1,9} seconds")


class Kind(StrEnum):
    TIMEOUT = "timeout"  # a collective has waited for its whole timeout
    STATUS = "status"  # how far this rank has come in one group
    GAVE_UP = "gave_up"  # the process goes down; why, another line says
    HEARTBEAT = "heartbeat"  # the watchdog itself hangs: a symptom, and no word about whose fault it is


@dataclass(frozen=True, slots=True)
class Speaker:
    """Attributes:
    rank: the global one.
    group: the process group's name; `desc` is what people call it.
    host: where the rank runs.
    """

    rank: int | None
    group: str | None = None
    desc: str = ""
    group_rank: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class WatchdogLine:
    """Attributes:
    number: of the collective that timed out or failed.
    ran_for_s: how long it had waited then.
    enqueued: the number of the last one that the rank has asked for in the group; -1 is none.
    """

    kind: Kind
    by: Speaker
    number: int | None = None
    operation: str | None = None
    ran_for_s: float | None = None
    enqueued: int | None = None


def read_line(text: str) -> WatchdogLine | None:
    """None for every line that is not the watchdog's."""
    text = text[:_LONGEST_LINE]
    if not any(hint in text for hint in _HINTS):
        return None
    text = _COLOUR.sub("", text)
    if timeout := _TIMEOUT.search(text):
        ran = _RAN.search(text)
        ran_for_s = None if ran is None else int(ran[1]) / 1000
        return WatchdogLine(Kind.TIMEOUT, _speaker(text), _number(timeout), timeout[2], ran_for_s)
    if enqueued := _ENQUEUED.search(text):
        return WatchdogLine(Kind.STATUS, _speaker(text), _number(_DETECTED.search(text)), enqueued=int(enqueued[1]))
    if _GAVE_UP.search(text):
        return WatchdogLine(Kind.GAVE_UP, _speaker(text))
    if _HEARTBEAT.search(text):
        return WatchdogLine(Kind.HEARTBEAT, _speaker(text))
    return None


def _speaker(text: str) -> Speaker:
    group, in_group, host = _GROUP.search(text), _IN_GROUP.search(text), _HOST.search(text)
    # Before PyTorch 2.2 only the rank in the group is told, which for the group of all ranks is the global one.
    rank = _RANK.search(text) or _TASK.match(text) or in_group
    return Speaker(
        rank=_number(rank),
        group=None if group is None else group[1],
        desc="" if group is None else group[2] or "",
        group_rank=_number(in_group) if group is None else int(group[3]),
        host=None if host is None else host[1],
    )


def _number(match: re.Match[str] | None) -> int | None:
    return None if match is None or match[1] is None else int(match[1])
