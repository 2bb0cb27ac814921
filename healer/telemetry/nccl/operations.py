"""One spelling for each operation: RAS says AllReduce, the watchdog ALLREDUCE, the Flight Recorder nccl:all_reduce."""

from __future__ import annotations

import re

_KNOWN = (  # a longer name before the one that it begins with
    "AllReduce",
    "AllGather",
    "AllToAll",
    "ReduceScatter",
    "Reduce",
    "Broadcast",
    "Gather",
    "Scatter",
    "Send",
    "Recv",
    "Barrier",
)
_LONGEST = 60


def operation_named(text: str) -> str:
    """As NCCL spells it, whatever variant it is (`_ALLGATHER_BASE`); an unknown one as it is told."""
    bare = text.rpartition(":")[2].strip().partition(" ")[0][:_LONGEST]
    letters = re.sub(r"[^a-z]", "", bare.lower())
    known = next((name for name in _KNOWN if letters.startswith(name.lower())), None)
    return known or "".join(c for c in bare if c.isprintable()) or "an operation"
