"""One rank's dump of PyTorch's Flight Recorder, version 2.x, pickled or as JSON, as far as it tells who waits for whom.

Two things are not as they look. `pg_status` is keyed by numbers that each process gives its groups by itself, of which
only 0, the group of all ranks, means the same everywhere; so it counts where there are no entries. And the operations
of a coalesced group have no events of their own, so they stay "scheduled" for ever; the entry that closes the group has
its state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from healer.decoding import convert, decode
from healer.errors import Unavailable
from healer.telemetry.nccl.plain_pickle import LIMIT_BYTES, read_plain

_MOST_RANKS = 1_000_000
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # longer ones can be chosen to clash as keys
_Rank = Annotated[int, msgspec.Meta(ge=0, lt=10_000_000)]
DEFAULT_GROUP = "0"


class _GroupConfig(msgspec.Struct, frozen=True):
    desc: str = ""
    ranks: str = "[]"


class _GroupStatus(msgspec.Struct, frozen=True):
    last_enqueued_collective: _Int = -1
    last_completed_collective: _Int = -1


class _Entry(msgspec.Struct, frozen=True):
    process_group: tuple[str, str]
    collective_seq_id: _Int
    profiling_name: str
    state: str
    time_created_ns: _Int
    p2p_seq_id: _Int = 0
    is_p2p: bool = False
    retired: bool = False
    time_discovered_started_ns: _Int | None = None
    time_discovered_completed_ns: _Int | None = None
    input_sizes: tuple[tuple[int, ...], ...] = ()
    output_sizes: tuple[tuple[int, ...], ...] = ()
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()


class _Dump(msgspec.Struct, frozen=True):
    version: str
    pg_config: dict[str, _GroupConfig] = {}
    pg_status: dict[str, _GroupStatus] = {}
    entries: tuple[_Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Attributes:
    ranks: the global ranks, in the order of their numbers in the group; empty where the dump does not tell.
    """

    name: str
    desc: str
    ranks: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.desc})" if self.desc not in {"", "undefined"} else self.name


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation of one rank that has not ended.

    Attributes:
        number: the sequence number in its group, of collectives or of point-to-point operations.
        operation: with its peers, as PyTorch spells it: "nccl:all_reduce", "nccl:recv 1<-0".
        shape: sizes and types of inputs and outputs.
        since_s: when it began to wait, in unix seconds.
        started: whether its GPU has come to it; never, where timing is not switched on.
    """

    number: int
    operation: str
    shape: tuple[object, ...]
    since_s: float
    started: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank is in one group.

    Attributes:
        enqueued: the number of the last collective that it has asked for; -1 is none.
        open: the number of the first one that has not ended; None if all have.
        entry: the first one that has not ended and is still recorded.
        peers: the oldest open send and receive with each peer.
    """

    enqueued: int = -1
    open: int | None = None
    entry: Entry | None = None
    peers: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Dump:
    """Attributes:
    groups, places: by the group's name.
    ended_s: when the last operation that has ended did so, in unix seconds; None if none is known to have.
    """

    groups: Mapping[str, Group]
    places: Mapping[str, Place]
    ended_s: float | None


def read_dump(data: bytes, *, name: str) -> Dump:
    """Raises Unavailable for anything that is no dump of a known version, or is refused as a pickle."""
    try:
        if data.startswith(b"\x80"):
            told = convert(read_plain(data, name=name), _Dump, strict=False)
        elif len(data) > LIMIT_BYTES:
            raise Unavailable(name, f"has {len(data)} bytes; more than {LIMIT_BYTES} are not read")
        else:
            told = decode(data, _Dump, strict=False)
        return _understood(told)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Unavailable(name, f"is no dump of the Flight Recorder ({error})") from error


def _understood(told: _Dump) -> Dump:
    if not told.version.startswith("2."):
        raise ValueError(f"version {told.version[:20]}; 2.x is understood")
    by_group: dict[str, list[_Entry]] = defaultdict(list)
    for entry in told.entries:
        by_group[entry.process_group[0]].append(entry)
    status = {} if "0" not in told.pg_status else {DEFAULT_GROUP: told.pg_status["0"]}
    groups = {name: Group(*entries[0].process_group) for name, entries in by_group.items()}
    groups |= {name: Group(name, said.desc, _ranks(said.ranks)) for name, said in told.pg_config.items() if name}
    ended_ns = max((entry.time_discovered_completed_ns or 0 for entry in told.entries), default=0)
    return Dump(
        groups=groups,
        places={
            name: _place(by_group.get(name, []), status.get(name, _GroupStatus()))
            for name in (by_group.keys() | status.keys())
        },
        ended_s=ended_ns / 1e9 or None,
    )


def _place(entries: list[_Entry], status: _GroupStatus) -> Place:
    collectives = [entry for entry in entries if not entry.is_p2p]
    if entries:
        status = _GroupStatus()  # for it mixes in the numbers of point-to-point operations, which are others
    enqueued = max((status.last_enqueued_collective, *(entry.collective_seq_id for entry in collectives)))
    ended = max((status.last_completed_collective, *(e.collective_seq_id for e in collectives if _is_over(e))))
    opened = [entry for entry in collectives if entry.collective_seq_id > ended]
    number = min((entry.collective_seq_id for entry in opened), default=ended + 1)
    parts = [entry for entry in opened if entry.collective_seq_id == number]
    return Place(
        enqueued=enqueued,
        open=number if enqueued > ended else None,
        entry=_entry(number, parts[0], parts[-1]) if parts else None,
        peers=tuple(_with_peers([entry for entry in entries if entry.is_p2p])),
    )


def _with_peers(entries: list[_Entry]) -> Iterator[Entry]:
    last = {entry.p2p_seq_id: entry for entry in entries}
    seen: set[str] = set()
    for entry in entries:
        closing = last[entry.p2p_seq_id]
        if not _is_over(closing) and entry.profiling_name not in seen:
            seen.add(entry.profiling_name)
            yield _entry(entry.p2p_seq_id, entry, closing)


def _entry(number: int, first: _Entry, last: _Entry) -> Entry:
    return Entry(
        number=number,
        operation=first.profiling_name,
        shape=(first.input_sizes, first.input_dtypes, first.output_sizes, first.output_dtypes),
        since_s=(last.time_discovered_started_ns or first.time_created_ns) / 1e9,
        started=bool(last.time_discovered_started_ns),
    )


def _is_over(entry: _Entry) -> bool:
    """Gloo, which has no events to ask, only retires what has ended; what NCCL retires before its end has timed out."""
    return entry.state == "completed" or (entry.retired and entry.profiling_name.startswith("gloo:"))


def _ranks(text: str) -> tuple[int, ...]:
    ranks = decode(text[: 16 * _MOST_RANKS], tuple[_Rank, ...])
    if len(ranks) > _MOST_RANKS:
        raise ValueError(f"a group of {len(ranks)} ranks")
    return ranks
