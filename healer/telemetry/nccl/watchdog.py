"""Who holds up a job, from the lines that the NCCL watchdogs of its ranks have logged.

Ranks that wait in a collective time out in it and say so. The culprit does not time out, for it never asked for that
collective: it is the one whose last one has a lower number, or the one that says nothing. How far a rank has come that
has not timed out itself, its "received a dump signal" tells, but only in the group of all ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from healer.domain.testimony import Blame, Collective, Culprit, Progress, Testimony, Witness
from healer.telemetry.nccl.blame import Stall, few, judge
from healer.telemetry.nccl.dump import DEFAULT_GROUP
from healer.telemetry.nccl.operations import operation_named
from healer.telemetry.nccl.watchdog_line import Kind, WatchdogLine
from healer.telemetry.nccl.wording import listed, stuck_sentence


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the lines.

    Attributes:
        ranks: those that log, whether or not they have said anything.
        nodes: where ranks run.
        all_spoke: whether all who would say something have had the time to; else nobody is blamed for silence.
    """

    ranks: Collection[int] = ()
    nodes: Mapping[int, str] | None = None
    all_spoke: bool = True


def lines_say(
    lines: Sequence[WatchdogLine], known: Known, *, job: str | None, where: str, at: datetime
) -> Testimony | None:
    """What the lines of one job say together, in the order in which they came; None where there are none.

    Args:
        at: when the last of them was written.
    """
    if not lines:
        return None
    told = partial(Testimony, Witness.WATCHDOG, where, at, job)
    reports = list(_reports(lines))
    timeouts = [line for line in lines if line.kind is Kind.TIMEOUT]
    if not timeouts:
        return told(*_without_timeout(lines))
    ran_for_s = max((line.ran_for_s for line in timeouts if line.ran_for_s is not None), default=None)
    stuck_for = None if ran_for_s is None else timedelta(seconds=ran_for_s)
    stalls = list(_stalls(reports, known))
    if not stalls:
        return told(Progress.STUCK, f"{len(timeouts)} collectives have timed out; of which ranks is not told")
    judgement = judge(stalls)
    nodes = {report.rank: report.host for report in reports if report.host} | dict(known.nodes or {})
    culprits = tuple(
        Culprit(stall.blamed[rank], stall.collective.group, rank, _group_rank(rank, stall, reports), nodes.get(rank))
        for rank, stall in judgement.culprits.items()
    )
    says = stuck_sentence(culprits, judgement.stall, stuck_for)
    return told(Progress.STUCK, says, culprits, judgement.stall.collective, stuck_for)


def _without_timeout(lines: Sequence[WatchdogLine]) -> tuple[Progress, str]:
    failed = sorted({line.by.rank for line in lines if line.number is not None and line.by.rank is not None})
    if failed or any(line.kind is Kind.GAVE_UP for line in lines):
        return Progress.FAILED, f"NCCL operations have failed, and none has timed out; on ranks {listed(failed)}"
    if any(line.kind is Kind.HEARTBEAT for line in lines):
        return Progress.UNKNOWN, "the watchdog itself hangs, which does not say what or whom it waits for"
    return Progress.UNKNOWN, "ranks were asked to dump; why, no line says"


@dataclass(frozen=True, slots=True)
class _Report:
    """What one rank says of one group.

    Attributes:
        number: of the collective that it waits in; None if it waits in none there.
        enqueued: the last one's number; None if it is not told.
    """

    rank: int
    group: str
    desc: str
    group_rank: int | None
    host: str | None
    number: int | None
    enqueued: int | None
    operation: str | None


def _reports(lines: Sequence[WatchdogLine]) -> Iterator[_Report]:
    """One for each rank and group: the line that tells how far it is, and the one of the collective that timed out."""
    timeouts = {(line.by.rank, line.number): line for line in reversed(lines) if line.kind is Kind.TIMEOUT}
    statuses: dict[tuple[int, str], WatchdogLine] = {}
    for line in lines:
        if line.kind is Kind.STATUS and line.by.rank is not None:
            key = line.by.rank, line.by.group or DEFAULT_GROUP
            if key not in statuses or statuses[key].number is None:
                statuses[key] = line
    for (rank, group), line in statuses.items():
        timeout = timeouts.pop((rank, line.number), None)
        yield _report(rank, group, line, None if timeout is None else timeout.operation)
    for line in timeouts.values():
        if line.by.rank is not None:
            yield _report(line.by.rank, line.by.group or "unknown", line, line.operation)


def _report(rank: int, group: str, line: WatchdogLine, operation: str | None) -> _Report:
    by = line.by
    return _Report(rank, group, by.desc, by.group_rank, by.host, line.number, line.enqueued, operation)


def _stalls(reports: Sequence[_Report], known: Known) -> Iterator[Stall[int]]:
    """One for each group in which somebody waits, in the order in which they were told."""
    everybody = range(1 + max([*known.ranks, *(report.rank for report in reports)], default=-1))
    by_group: dict[str, list[_Report]] = {}
    for report in reports:
        by_group.setdefault(report.group, []).append(report)
    for order, (group, of_it) in enumerate(by_group.items()):
        numbers = Counter(report.number for report in of_it if report.number is not None)
        if numbers:
            number = min(numbers, key=lambda n: (-numbers[n], n))
            members = everybody if group == DEFAULT_GROUP else _members(of_it)
            spoke = {report.rank for report in of_it}
            mute = known.all_spoke and len(members) <= 2 * len(spoke)
            silent = [rank for rank in members if rank not in spoke] if mute else []
            yield _stall(of_it, number, silent, size=max(len(members), len(spoke)), order=order)


def _stall(of_it: Sequence[_Report], number: int, silent: Collection[int], *, size: int, order: int) -> Stall[int]:
    behind = {
        report.rank: Blame.BEHIND
        for report in of_it
        if any(reached is not None and reached < number for reached in (report.number, report.enqueued))
    }
    waiting = {report.rank for report in of_it if report.number is not None} - behind.keys()
    names = Counter(report.operation for report in of_it if report.number == number and report.operation)
    first = of_it[0]
    group = f"{first.group} ({first.desc})" if first.desc not in {"", "undefined"} else first.group
    return Stall(
        collective=Collective(operation_named(names.most_common(1)[0][0] if names else ""), group, number),
        waiting=frozenset(waiting),
        blamed={} if _is_several(of_it) else few(behind or dict.fromkeys(silent, Blame.SILENT), size),
        since_s=float(order),
        size=size,
        entered=len(waiting),
    )


def _members(of_it: Sequence[_Report]) -> range:
    """The ranks of a group, whose numbers in it are told of some: in practice they are equally far apart.

    Empty where they are not, and where too few tell. The last ones are missing if they say nothing.
    """
    told = {report.group_rank: report.rank for report in of_it if report.group_rank is not None}
    (low, first), (high, last) = min(told.items(), default=(0, 0)), max(told.items(), default=(0, 0))
    step = (last - first) // (high - low) if high > low else 0
    if step < 1 or any(rank != first + step * (number - low) for number, rank in told.items()):
        return range(0)
    start = first - step * low
    return range(start, last + 1, step) if start >= 0 else range(0)


def _is_several(of_it: Sequence[_Report]) -> bool:
    """Whether several groups go by this name: then two of the ranks have the same number in it."""
    numbers = [report.group_rank for report in of_it if report.group_rank is not None]
    return len(numbers) > len(set(numbers))


def _group_rank(rank: int, stall: Stall[int], reports: Sequence[_Report]) -> int | None:
    group = stall.collective.group.partition(" ")[0]
    return next((report.group_rank for report in reports if report.rank == rank and report.group == group), None)
