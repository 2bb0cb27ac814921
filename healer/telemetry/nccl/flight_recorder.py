"""Who holds up a job, from the dumps that its ranks have written with PyTorch's Flight Recorder.

In each process group the collectives have numbers, and all its ranks go through them in order. So in the first one
that some rank is in and has not come out of, the culprit is who has not entered it, who entered something else under
the same number, or whose GPU has not come to it; and if all are in, it is a GPU or the network, and the dumps cannot
tell whose. Who is missing in one group because it waits in another is not to blame (`blame`).

Point-to-point operations have no common numbers: a rank waits for its peer if the peer has nothing open with it. A
message that the sender got rid of and that never arrived looks the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from healer.domain.testimony import Blame, Collective, Culprit, Progress, Testimony, Witness
from healer.telemetry.nccl.blame import Judgement, Stall, few, judge
from healer.telemetry.nccl.dump import DEFAULT_GROUP, Dump, Entry, Group, Place
from healer.telemetry.nccl.operations import operation_named
from healer.telemetry.nccl.wording import stuck_sentence

PATIENCE = timedelta(minutes=1)  # no collective of a running job takes that long; a dump may also be asked for by hand

# Of these, ranks may give and get different amounts.
_UNEVEN = frozenset({"AllToAll", "Gather", "Scatter", "Send", "Recv"})
_ENDS = re.compile(r"(?<!\d)\d{1,7}(?!\d)")  # of "nccl:recv 1<-0": ranks of the group


def dumps_say(
    dumps: Mapping[int, Dump],
    *,
    job: str | None,
    where: str,
    at: datetime,
    nodes: Mapping[int, str] | None = None,
    all_spoke: bool = True,
    patience: timedelta = PATIENCE,
) -> Testimony:
    """What the dumps of one job say together.

    Dumps without entries do not tell since when: then it is unknown whether anything is stuck, and still told who is
    behind.

    Args:
        dumps: by global rank, at least one.
        at: when they were written.
        nodes: where ranks run, as far as that is known.
        all_spoke: whether every rank that would dump has done so, and could be read; else nobody is blamed for silence.
    """
    stalls = [stall for group, members in _groups(dumps) for stall in _stalls(group, members, dumps)]
    if not all_spoke:
        stalls = [_without_silent(stall) for stall in stalls]
    now_s, longest_s = at.timestamp(), patience.total_seconds()
    old = [stall for stall in stalls if now_s - stall.since_s >= longest_s]
    undated = [stall for stall in stalls if stall.since_s == math.inf]
    ended_s = max((dump.ended_s or 0.0 for dump in dumps.values()), default=0.0)
    moves = now_s - ended_s < longest_s or len(stalls) > len(undated)
    told = partial(Testimony, Witness.FLIGHT_RECORDER, where, at, job)
    if old or (undated and not moves):
        judgement = judge(old + undated)
        collective, since_s = judgement.stall.collective, judgement.stall.since_s
        stuck_for = None if since_s == math.inf else timedelta(seconds=now_s - since_s)
        culprits = tuple(_culprits(judgement, dumps, nodes or {}))
        says = stuck_sentence(culprits, judgement.stall, stuck_for)
        return told(Progress.STUCK if old else Progress.UNKNOWN, says, culprits, collective, stuck_for)
    if moves:
        says = f"none of {len(dumps)} ranks has waited in a collective for {longest_s:.0f} s"
        return told(Progress.PROGRESSING, says)
    return told(
        Progress.UNKNOWN, f"{len(dumps)} ranks wait in no collective: what holds them up, if anything, is not NCCL"
    )


def _culprits(judgement: Judgement[int], dumps: Mapping[int, Dump], nodes: Mapping[int, str]) -> Iterator[Culprit]:
    for rank, stall in judgement.culprits.items():
        group = stall.collective.group
        told = (g.ranks for dump in dumps.values() for g in dump.groups.values() if str(g) == group and rank in g.ranks)
        yield Culprit(
            blame=stall.blamed[rank],
            group=group,
            rank=rank,
            group_rank=next((ranks.index(rank) for ranks in told), None),
            node=nodes.get(rank),
        )


def _groups(dumps: Mapping[int, Dump]) -> Iterator[tuple[Group, tuple[int, ...]]]:
    """Every group with its members. A name is one group only where its members are the same."""
    mentioned: dict[Group, list[int]] = defaultdict(list)
    for rank, dump in sorted(dumps.items()):
        for group in dump.groups.values():
            mentioned[group].append(rank)
    complete = {group.name for group in mentioned if group.ranks}
    for group, ranks in mentioned.items():
        if not group.ranks and group.name in complete:
            continue  # somebody else tells who is in it
        all_of_it = group.name == DEFAULT_GROUP and max(dumps) < 2 * len(dumps)
        yield group, group.ranks or tuple(range(max(dumps) + 1) if all_of_it else ranks)


def _stalls(group: Group, members: Sequence[int], dumps: Mapping[int, Dump]) -> Iterator[Stall[int]]:
    places = {rank: dumps[rank].places.get(group.name, Place()) for rank in members if rank in dumps}
    number = min((place.open for place in places.values() if place.open is not None), default=None)
    if number is not None:
        yield _collective_stall(group, members, places, number)
    yield from _p2p_stalls(group, members, places)


def _collective_stall(group: Group, members: Sequence[int], places: Mapping[int, Place], number: int) -> Stall[int]:
    within = {rank: place.entry for rank, place in places.items() if place.open == number}
    entries = {rank: entry for rank, entry in within.items() if entry is not None}
    waiting = {rank for rank, entry in entries.items() if entry.started} or set(within)
    name = Counter(operation_named(entry.operation) for entry in entries.values()).most_common(1)
    return Stall(
        collective=Collective(name[0][0] if name else "an operation", str(group), number),
        waiting=frozenset(waiting),
        blamed=_blamed(members, places, entries, waiting=waiting, number=number),
        since_s=min((entry.since_s for rank, entry in entries.items() if rank in waiting), default=math.inf),
        size=len(members),
        entered=len(waiting),
    )


def _blamed(
    members: Sequence[int],
    places: Mapping[int, Place],
    entries: Mapping[int, Entry],
    *,
    waiting: Collection[int],
    number: int,
) -> Mapping[int, Blame]:
    """For whom the group waits, by the surest sign there is."""
    within = [rank for rank, place in places.items() if place.open == number]
    behind = [rank for rank, place in places.items() if place.enqueued < number]
    through = len(places) - len(within) - len(behind)
    if 2 * through > len(members):  # most are out of it again: it holds up those only who are still in it
        behind += within
    sure = dict.fromkeys(behind, Blame.BEHIND) | dict.fromkeys(_different(entries), Blame.DIFFERENT)
    if sure:
        return few(sure, len(members))
    idle = [rank for rank in entries if rank not in waiting]
    silent = [rank for rank in members if rank not in places]
    return few(dict.fromkeys(idle, Blame.NOT_STARTED), len(members)) or few(
        dict.fromkeys(silent, Blame.SILENT), len(members)
    )


def _without_silent(stall: Stall[int]) -> Stall[int]:
    return replace(stall, blamed={rank: b for rank, b in stall.blamed.items() if b is not Blame.SILENT})


def _different(entries: Mapping[int, Entry]) -> list[int]:
    """Who does something else than most do. Without a majority nobody can say who is wrong."""
    shapes = {rank: _shape(entry) for rank, entry in entries.items()}
    common, count = Counter(shapes.values()).most_common(1)[0] if shapes else ((), 0)
    return [rank for rank, shape in shapes.items() if shape != common] if 2 * count > len(shapes) else []


def _shape(entry: Entry) -> tuple[object, ...]:
    operation = operation_named(entry.operation)
    return (operation,) if operation in _UNEVEN else (operation, *entry.shape)


def _p2p_stalls(group: Group, members: Sequence[int], places: Mapping[int, Place]) -> Iterator[Stall[int]]:
    """One for the oldest open send or receive of each rank."""
    found = {rank: list(_open_with_peers(members, place, rank)) for rank, place in places.items()}
    pairs = {(rank, peer) for rank, opened in found.items() for peer, _ in opened}
    for rank, opened in found.items():
        for peer, entry in opened[:1]:
            meets = (peer, rank) in pairs
            yield Stall(
                collective=Collective(operation_named(entry.operation), str(group), entry.number),
                waiting=frozenset({rank, peer} if meets else {rank}),
                blamed={} if meets else {peer: Blame.BEHIND if peer in places else Blame.SILENT},
                since_s=entry.since_s,
                size=2,
                entered=2 if meets else 1,
            )


def _open_with_peers(members: Sequence[int], place: Place, rank: int) -> Iterator[tuple[int, Entry]]:
    for entry in place.peers:
        ends = [int(end) for end in _ENDS.findall(entry.operation)]
        peer = next((members[end] for end in ends if end < len(members) and members[end] != rank), None)
        if peer is not None:
            yield peer, entry
