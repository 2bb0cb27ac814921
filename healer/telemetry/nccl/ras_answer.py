"""What NCCL's RAS service answers: the communicators of one job, and how many operations its ranks have launched.

As JSON since 2.28.7: everything of every rank. As text before that (`ras_text`): where ranks differ, and of those only
the fewer by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import msgspec

from healer.decoding import decode
from healer.errors import Unavailable

_ERRORS = {
    1: "Unhandled CUDA error",
    2: "System error",
    3: "Internal error",
    4: "Invalid argument",
    5: "Invalid usage",
    6: "Remote process error",
}
_NO_ERROR = frozenset({0, 7})  # success, and in progress
REMOTE_ERROR = _ERRORS[6]

Device: TypeAlias = tuple[str, str] | tuple[int]


@dataclass(frozen=True, slots=True)
class Member:
    """One GPU of the job.

    Attributes:
        host: the address in NCCL's bootstrap network; None where even RAS does not know the process.
        gpu: the index that NVML gives it on its host.
    """

    rank: int
    host: str | None
    gpu: str | None
    pid: int | None

    @property
    def device(self) -> Device:
        """What is the same in all communicators."""
        return (self.rank,) if self.host is None or self.gpu is None else (self.host, self.gpu)


@dataclass(frozen=True, slots=True)
class Standing:
    """Ranks that have launched equally many operations of one kind.

    Attributes:
        count: of ranks.
        members: these ranks, or none where they are not named.
    """

    operation: str
    launched: int
    count: int
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Communicator:
    """Attributes:
    size: None where it is not told.
    standings: of every operation, or only of those in which ranks differ.
    errors: by member.
    lost: members that do not answer; True for those that count as dead.
    """

    name: str
    size: int | None
    standings: tuple[Standing, ...] = ()
    errors: Mapping[Member, str] = field(default_factory=dict)
    lost: Mapping[Member, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes:
    gpus: how many the job has; None where it is not told.
    is_whole: whether every rank is told of, and not only those that differ.
    """

    communicators: tuple[Communicator, ...]
    gpus: int | None
    is_whole: bool


_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # longer ones can be chosen to clash as keys


class _Status(msgspec.Struct, frozen=True):
    init_state: _Int = 0
    async_error: _Int = 0


class _Rank(msgspec.Struct, frozen=True):
    rank: _Int
    host: str
    pid: _Int
    nvml_dev: _Int
    collective_counts: dict[str, _Int]
    status: _Status = _Status()


class _LostStatus(msgspec.Struct, frozen=True):
    unresponsive: bool = False
    considered_dead: bool = False


class _Lost(msgspec.Struct, frozen=True):
    rank: _Int
    host: str
    pid: _Int
    nvml_dev: _Int
    status: _LostStatus = _LostStatus()


class _Communicator(msgspec.Struct, frozen=True):
    hash: str
    size: _Int
    ranks: tuple[_Rank, ...]
    secondary_hash: str = ""
    missing_ranks: tuple[_Lost, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    communicators: tuple[_Communicator, ...]


def read_json(data: bytes, *, name: str) -> Answer:
    """Raises Unavailable for what is no such answer."""
    try:
        told = decode(data, _Answer)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Unavailable(name, f"does not answer as NCCL RAS does ({error})") from error
    communicators = tuple(map(_communicator, told.communicators))
    answering = {(rank.host, rank.nvml_dev) for c in told.communicators for rank in c.ranks}
    missing = {(rank.host, rank.nvml_dev) for c in told.communicators for rank in c.missing_ranks}
    return Answer(communicators, len(answering | missing), is_whole=True)


def _communicator(told: _Communicator) -> Communicator:
    members = {rank.rank: _member(rank) for rank in told.ranks}
    groups: dict[tuple[str, int], list[Member]] = defaultdict(list)
    for rank in told.ranks:
        for operation, launched in rank.collective_counts.items():
            groups[operation, launched].append(members[rank.rank])
    states = ((rank.rank, code) for rank in told.ranks for code in (rank.status.init_state, rank.status.async_error))
    return Communicator(
        name=told.hash.removeprefix("0x"),
        size=told.size,
        standings=tuple(
            Standing(operation, launched, len(of_it), tuple(of_it))
            for (operation, launched), of_it in sorted(groups.items(), key=lambda item: item[0])
        ),
        errors={members[rank]: _ERRORS.get(code, f"error {code}") for rank, code in states if code not in _NO_ERROR},
        # Who answers and is no longer in it, is on the way out of it and not lost.
        lost={
            _member(lost): lost.status.considered_dead
            for lost in told.missing_ranks
            if lost.status.unresponsive or lost.status.considered_dead
        },
    )


def _member(told: _Rank | _Lost) -> Member:
    host = None if told.host == "unknown" else told.host
    return Member(told.rank, host, str(told.nvml_dev), None if told.pid < 0 else told.pid)
