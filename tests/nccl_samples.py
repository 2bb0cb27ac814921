"""What the ranks of a distributed job leave behind, as PyTorch and NCCL write it, made up for tests."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUCK_S = 600.0
DONE = "completed"
OPEN = "scheduled"  # as it is told where timing is not switched on, whether or not it has started
STARTED = "started"

Raw = dict[str, object]


def entry(
    group: tuple[str, str],
    number: int,
    state: str = OPEN,
    *,
    operation: str = "nccl:all_reduce",
    ago_s: float = STUCK_S,
    size: int = 4096,
    dtype: str = "BFloat16",
    p2p: bool = False,
) -> Raw:
    """One operation, enqueued `ago_s` before AT."""
    created_ns = int((AT.timestamp() - ago_s) * 1e9)
    return {
        "record_id": number,
        "pg_id": int(group[0]) if group[0].isdecimal() else 7,
        "process_group": group,
        "collective_seq_id": 0 if p2p else number,
        "p2p_seq_id": number if p2p else 0,
        "op_id": number,
        "profiling_name": operation,
        "time_created_ns": created_ns,
        "input_sizes": [[size, size]],
        "input_dtypes": [dtype],
        "output_sizes": [[size, size]],
        "output_dtypes": [dtype],
        "state": state,
        "time_discovered_started_ns": None if state == OPEN else created_ns + 1000,
        "time_discovered_completed_ns": created_ns + 2000 if state == DONE else None,
        "retired": state == DONE,
        "timeout_ms": 600_000,
        "is_p2p": p2p,
        "frames": [{"name": "step", "filename": "train.py", "line": 12}],
    }


@dataclass(slots=True)
class Recorded:
    """The Flight Recorders of a job, rank by rank.

    Attributes:
        groups: by name, what people call it and its ranks.
    """

    groups: Mapping[str, tuple[str, Sequence[int]]]
    entries: dict[int, list[Raw]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _, ranks in self.groups.values():
            for rank in ranks:
                self.entries.setdefault(rank, [])

    def ran(self, group: str, numbers: Iterable[int], **more: object) -> None:
        """All ranks of a group went through these collectives."""
        for number in numbers:
            for rank in self.groups[group][1]:
                self.add(rank, group, number, DONE, **more)

    def add(self, rank: int, group: str, number: int, state: str = OPEN, **more: object) -> None:
        self.entries[rank].append(entry((group, self.groups[group][0]), number, state, **more))  # type: ignore[arg-type]

    def wait(self, ranks: Iterable[int], group: str, number: int, state: str = OPEN, **more: object) -> None:
        for rank in ranks:
            self.add(rank, group, number, state, **more)

    def raw(self, rank: int) -> Raw:
        """The dump of a rank."""
        mine = {name: told for name, told in self.groups.items() if rank in told[1]}
        last = max((int(str(e["collective_seq_id"])) for e in self.entries[rank] if e["pg_id"] == 0), default=-1)
        return {
            "version": "2.10",
            "pg_config": {
                name: {"name": name, "desc": desc, "ranks": str(list(ranks))} for name, (desc, ranks) in mine.items()
            },
            "pg_status": {
                "0": {
                    "last_enqueued_collective": last,
                    "last_started_collective": -1,
                    "last_completed_collective": last,
                }
            },
            "nccl_version": "2.27.5",
            "entries": self.entries[rank],
        }

    def files(self, *, without: Iterable[int] = ()) -> dict[int, bytes]:
        return {rank: pickle.dumps(self.raw(rank), 2) for rank in self.entries if rank not in set(without)}


def as_json(raw: Raw) -> bytes:
    """The same dump in the other form: numbers of the status as text, no time as 0, no entries as none."""
    entries = [
        {key: 0 if value is None else value for key, value in one.items() if key != "frames"}
        for one in raw["entries"]  # type: ignore[attr-defined]
    ]
    status = {
        key: {name: str(number) for name, number in said.items()}
        for key, said in raw["pg_status"].items()  # type: ignore[attr-defined]
    }
    told = {**raw, "pg_status": status, "entries": entries}
    return json.dumps(told if entries else {k: v for k, v in told.items() if k != "entries"}).encode()


def world(size: int) -> Recorded:
    """A job with the one group of all ranks, which has gone through 77 collectives."""
    recorded = Recorded({"0": ("default_pg", range(size))})
    recorded.ran("0", range(70, 78), ago_s=STUCK_S + 60)
    return recorded


def ras_rank(rank: int, *, host: str, gpu: int, launched: int, error: int = 0, **more: int) -> Raw:
    return {
        "rank": rank,
        "host": host,
        "pid": 1000 + rank,
        "cuda_dev": gpu,
        "nvml_dev": gpu,
        "status": {
            "init_state": 0,
            "async_error": error,
            "finalize_called": False,
            "destroy_flag": False,
            "abort_flag": False,
        },
        "collective_counts": {"Broadcast": 3, "Reduce": 0, "AllGather": 0, "ReduceScatter": 0, "AllReduce": launched}
        | more,
    }


def ras_lost(rank: int, *, host: str, gpu: int, dead: bool = False, unresponsive: bool = True) -> Raw:
    return {
        "rank": rank,
        "host": host,
        "pid": 1000 + rank,
        "cuda_dev": gpu,
        "nvml_dev": gpu,
        "status": {"unresponsive": unresponsive, "considered_dead": dead},
    }


def ras_communicator(name: str, ranks: Sequence[Raw], lost: Sequence[Raw] = ()) -> Raw:
    return {
        "hash": f"0x{name}",
        "secondary_hash": "0x1:0x2",
        "size": len(ranks) + len(lost),
        "ranks_count": len(ranks),
        "missing_ranks_count": len(lost),
        "ranks": ranks,
        "missing_ranks": lost,
    }


def ras_json(*communicators: Raw) -> bytes:
    return json.dumps(
        {
            "nccl_version": "2.28.7",
            "cuda_runtime_version": 13000,
            "cuda_driver_version": 13000,
            "timestamp": "2026-03-01 12:00:00",
            "communicators_count": len(communicators),
            "communicators": communicators,
            "ras": {"collection_time_sec": 0.01, "timeouts_count": 0},
        }
    ).encode()


def ras_text(rows: str, errors: str = "", warnings: str = "", *, version: str = "2.26.2") -> bytes:
    return f"""NCCL version {version} compiled with CUDA 12.6
CUDA runtime version 12060, driver version 12060

Job summary
===========

  Nodes  Processes         GPUs  Processes     GPUs
(total)   per node  per process    (total)  (total)
      4          8            1         32       32

Communicators... (0.00s)
=============

Group     Comms     Nodes     Ranks     Ranks     Ranks    Status  Errors
    #  in group  per comm  per node  per comm  in group
{rows}
Errors
======

{errors}Warnings
========

{warnings}""".encode()
