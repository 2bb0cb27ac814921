"""What two looks at a job through NCCL's RAS say: whether it moves, and if not, whose operation is missing.

RAS counts what a rank has *launched*. While a job runs, ranks differ all the time and the counts move; when it is
stuck they stand still, and who has launched fewer is the one that the others wait for. Where all have launched equally
many and none moves, RAS cannot tell a GPU that is stuck from a job that computes: launching runs far ahead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from healer.domain.testimony import Blame, Collective, Culprit, Progress, Testimony, Witness
from healer.telemetry.nccl.blame import Stall, few, judge
from healer.telemetry.nccl.operations import operation_named
from healer.telemetry.nccl.ras_answer import REMOTE_ERROR, Answer, Communicator, Device, Member, Standing
from healer.telemetry.nccl.wording import listed, stuck_sentence

PATIENCE = timedelta(seconds=45)  # how long counts have to stand still


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes:
    since: from when on every look has shown the same counts as this one.
    moved: whether the one before it showed others.
    """

    at: datetime
    since: datetime
    answer: Answer
    moved: bool = False

    @classmethod
    def first(cls, answer: Answer, at: datetime) -> Look:
        return cls(at, at, answer)

    def then(self, answer: Answer, at: datetime) -> Look:
        """The look that follows this one."""
        moved = _counts(answer) != _counts(self.answer)
        return Look(at, at if moved else self.since, answer, moved)


def look_says(
    look: Look,
    *,
    job: str | None,
    where: str,
    nodes: Mapping[str, str] | None = None,
    patience: timedelta = PATIENCE,
) -> Testimony:
    """What the newest look says in the light of those before it.

    Args:
        nodes: names of nodes by their addresses, as far as they are known.
    """
    told = partial(Testimony, Witness.RAS, where, look.at, job)
    named = partial(_culprit, world=_world(look.answer), nodes=nodes or {})
    still_for = look.at - look.since
    failures = list({(failure.member.device, failure.what): failure for failure in _failures(look.answer)}.values())
    if failures:
        culprits = tuple(named(f.member, f.blame, f.group) for f in failures if f.blame is not None)
        words = Counter(failure.what for failure in failures)
        says = "; ".join(f"{count} ranks {what}" for what, count in words.items())
        return told(Progress.FAILED, says + (f": {listed(culprits)}" if culprits else ""), culprits)
    stalls = list(_stalls(look)) if still_for >= patience else []
    if not stalls:
        return told(*_undecided(look, still_for))
    judgement = judge(stalls if look.answer.is_whole else list(_most_often_blamed(stalls)))
    members = {member.device: member for member in _members(look.answer)}
    culprits = tuple(
        named(members[device], stall.blamed[device], stall.collective.group)
        for device, stall in judgement.culprits.items()
    )
    says = stuck_sentence(culprits, judgement.stall, still_for)
    return told(Progress.STUCK, says, culprits, judgement.stall.collective, still_for)


def places(answer: Answer, nodes: Mapping[str, str]) -> Mapping[int, tuple[str, str]]:
    """Node and GPU of each global rank, as far as the answer tells."""
    everybody = _world(answer)
    members = {everybody[member.device]: member for member in _members(answer) if member.device in everybody}
    return {
        rank: (nodes.get(member.host, member.host), member.gpu)
        for rank, member in members.items()
        if member.host is not None and member.gpu is not None
    }


def _undecided(look: Look, still_for: timedelta) -> tuple[Progress, str]:
    total = f"{len(look.answer.communicators)} communicators of {look.answer.gpus or 'an unknown number of'} GPUs"
    if look.moved:
        return Progress.PROGRESSING, f"{total}: ranks have launched operations since the look before"
    if not still_for:
        return Progress.UNKNOWN, f"{total}: whether they move, the next look shows"
    if not any(communicator.standings for communicator in look.answer.communicators):
        return Progress.UNKNOWN, f"{total}: all ranks have launched equally many operations; how many is not told"
    return Progress.UNKNOWN, f"{total}: no rank has launched an operation for {still_for.total_seconds():.0f} s"


@dataclass(frozen=True, slots=True)
class _Failure:
    """Attributes:
    blame: None for who only suffers from the failure of another.
    """

    member: Member
    group: str
    what: str
    blame: Blame | None


def _failures(answer: Answer) -> Iterator[_Failure]:
    for communicator in answer.communicators:
        for member, error in communicator.errors.items():
            blame = None if error == REMOTE_ERROR else Blame.FAILED
            yield _Failure(member, communicator.name, f"report {error!r}", blame)
        for member, is_dead in communicator.lost.items():
            if is_dead:
                yield _Failure(member, communicator.name, "do not answer and count as dead", Blame.SILENT)


def _stalls(look: Look) -> Iterator[Stall[Device]]:
    """Every communicator in which ranks differ, for each operation; and those of which some do not answer."""
    for communicator in look.answer.communicators:
        by_operation: dict[str, list[Standing]] = defaultdict(list)
        for standing in communicator.standings:
            by_operation[standing.operation].append(standing)
        differing = {name: s for name, s in by_operation.items() if len(s) > 1} or (
            {"": list(communicator.standings)} if communicator.lost else {}
        )
        for operation, standings in differing.items():
            yield _stall(communicator, operation, standings, since_s=look.since.timestamp())


def _stall(communicator: Communicator, operation: str, standings: list[Standing], *, since_s: float) -> Stall[Device]:
    most = max((standing.launched for standing in standings), default=0) if operation else None
    ahead = [standing for standing in standings if most is None or standing.launched == most]
    behind = [standing for standing in standings if standing not in ahead]
    size = communicator.size or sum(standing.count for standing in standings) + len(communicator.lost)
    missing = {member.device: Blame.BEHIND for standing in behind for member in standing.members}
    too_many = 2 * sum(standing.count for standing in behind) > size
    lost = {member.device: Blame.SILENT for member in communicator.lost}
    return Stall(
        collective=Collective(operation_named(operation), communicator.name, most),
        waiting=frozenset(member.device for standing in ahead for member in standing.members),
        blamed={} if too_many else few({**lost, **missing}, size),
        since_s=since_s,
        size=size,
        entered=sum(standing.count for standing in ahead) if operation else size - len(communicator.lost),
    )


def _most_often_blamed(stalls: list[Stall[Device]]) -> Iterator[Stall[Device]]:
    """Where it is not told who waits in which communicator: who is missing in most of them is not held up itself."""
    often = Counter(device for stall in stalls for device in stall.blamed)
    most = max(often.values(), default=0)
    for stall in stalls:
        blamed = {device: blame for device, blame in stall.blamed.items() if often[device] == most}
        yield replace(stall, blamed=blamed)


def _members(answer: Answer) -> Iterator[Member]:
    for communicator in answer.communicators:
        for standing in communicator.standings:
            yield from standing.members
        yield from communicator.lost
        yield from communicator.errors


def _world(answer: Answer) -> Mapping[Device, int]:
    """The global ranks: the numbers in the communicator that has all GPUs of the job, if there is one."""
    everybody = [c for c in answer.communicators if c.size is not None and c.size == answer.gpus]
    return {member.device: member.rank for member in _members(Answer(tuple(everybody[:1]), None, is_whole=False))}


def _culprit(
    member: Member, blame: Blame, group: str, *, world: Mapping[Device, int], nodes: Mapping[str, str]
) -> Culprit:
    return Culprit(
        blame=blame,
        group=group,
        rank=world.get(member.device),
        group_rank=member.rank,
        node=None if member.host is None else nodes.get(member.host, member.host),
        gpu=member.gpu,
    )


def _counts(answer: Answer) -> frozenset[object]:
    return frozenset(
        (communicator.name, standing.operation, standing.launched, standing.count, standing.members)
        for communicator in answer.communicators
        for standing in communicator.standings
    )
