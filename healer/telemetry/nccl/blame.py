"""Who is to blame when several groups of ranks stand still, and most of them only because others do.

A rank that waits in one group cannot come to the others, so they wait for it without its fault. The culprit is the one
who is waited for and waits nowhere itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from healer.domain.testimony import Blame, Collective

Member = TypeVar("Member", bound=Hashable)

_SURE = frozenset({Blame.FAILED, Blame.DIFFERENT, Blame.BEHIND})
_LESS_SURE = (_SURE, frozenset({Blame.NOT_STARTED}), frozenset({Blame.SILENT}))


@dataclass(frozen=True, slots=True)
class Stall(Generic[Member]):
    """One group of ranks that stands still in one collective.

    Attributes:
        waiting: those who are in it and have not come out, as far as they are named.
        blamed: for whom they wait, as far as this group alone shows.
        since_s: when the first of them began to wait, by whatever clock is the same for all.
        size: of the group.
        entered: how many wait in it, named or not.
    """

    collective: Collective
    waiting: frozenset[Member]
    blamed: Mapping[Member, Blame]
    since_s: float
    size: int
    entered: int


@dataclass(frozen=True, slots=True)
class Judgement(Generic[Member]):
    """Attributes:
    stall: the one that explains the others.
    culprits: each with the stall that shows it, the earliest first.
    """

    stall: Stall[Member]
    culprits: Mapping[Member, Stall[Member]]


def few(blamed: Mapping[Member, Blame], size: int) -> Mapping[Member, Blame]:
    """The blamed, if they are no more than half of the group; else nobody: then it is the others who are elsewhere."""
    return blamed if 2 * len(blamed) <= size else {}


def judge(stalls: Sequence[Stall[Member]]) -> Judgement[Member]:
    """Which of the stalls, of which there is at least one, explains the others, and for whom they all wait.

    What is said of a rank counts more than its silence. Where everybody who is waited for waits elsewhere, the stall
    that began first explains the others.
    """
    by_time = sorted(stalls, key=lambda stall: stall.since_s)
    held_up = {member for stall in stalls for member in stall.waiting - stall.blamed.keys()}
    for blames in _LESS_SURE:
        culprits: dict[Member, Stall[Member]] = {}
        for stall in by_time:
            for member, blame in stall.blamed.items():
                if blame in blames and member not in held_up:
                    culprits.setdefault(member, stall)
        if culprits:
            return Judgement(next(iter(culprits.values())), culprits)
    # Best where all are in, and what carries the data between them is broken.
    first = min(by_time, key=lambda stall: (bool(stall.blamed), stall.entered < stall.size))
    return Judgement(first, dict.fromkeys(first.blamed, first))
