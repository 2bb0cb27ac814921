"""Log files of jobs, read on from where they were, for what the NCCL watchdogs of their ranks say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from healer.adapters.followed_files import FollowedFiles
from healer.domain.testimony import Testimony
from healer.telemetry.nccl.file_names import FileNames, Named
from healer.telemetry.nccl.watchdog import Known, lines_say
from healer.telemetry.nccl.watchdog_line import WatchdogLine, read_line

_MOST_LINES = 20_000  # of one job
_MOST_JOBS = 1000
_COUNTS_FOR = timedelta(hours=1)
_ONE_INCIDENT = timedelta(minutes=30)  # lines after a longer silence are about another one
_SETTLED = timedelta(seconds=60)


@dataclass(slots=True, eq=False)
class _Job:
    where: str
    since: datetime
    at: datetime
    lines: list[WatchdogLine] = field(default_factory=list)


class LogFiles:
    """Args:
    patterns: of paths, as in a shell; `**` stands for any folders.
    """

    def __init__(self, patterns: Sequence[str], names: FileNames) -> None:
        self._files = FollowedFiles(patterns, names.told_by)
        self._jobs: dict[str, _Job] = {}

    def look(self, now: datetime) -> tuple[Testimony, ...]:
        """What the lines of each job say, of those that were written lately."""
        for piece in self._files.pieces():
            lines = [line for text in piece.lines if (line := read_line(text)) is not None]
            if lines:
                self._keep(piece.path, piece.name, lines, piece.written_at)
        self._jobs = {name: job for name, job in self._jobs.items() if now - job.at <= _COUNTS_FOR}
        logging: dict[str, list[Named]] = defaultdict(list)
        for named in self._files.names():
            logging[named.job].append(named)
        told = (_testimony(name, job, logging[name], now) for name, job in self._jobs.items())
        return tuple(testimony for testimony in told if testimony is not None)

    def warnings(self) -> tuple[str, ...]:
        return tuple(islice((f"{path}: {trouble}" for path, trouble in self._files.trouble.items()), 20))

    def _keep(self, path: str, named: Named, lines: Sequence[WatchdogLine], at: datetime) -> None:
        job = self._jobs.get(named.job)
        if job is None or at - job.at > _ONE_INCIDENT:
            if job is None and len(self._jobs) >= _MOST_JOBS:
                return
            job = self._jobs[named.job] = _Job(where=path, since=at, at=at)
        job.at = max(job.at, at)
        job.lines += (_placed(line, named) for line in lines)
        del job.lines[:-_MOST_LINES]


def _testimony(name: str, job: _Job, logging: Sequence[Named], now: datetime) -> Testimony | None:
    ranks = {named.rank: named.node for named in logging if named.rank is not None}
    nodes = {rank: node for rank, node in ranks.items() if node is not None}
    known = Known(ranks, nodes, all_spoke=now - job.since >= _SETTLED)
    return lines_say(job.lines, known, job=name, where=job.where, at=job.at)


def _placed(line: WatchdogLine, named: Named) -> WatchdogLine:
    """With what the file's name tells; a rank that the line tells may be only the one in its group."""
    rank = line.by.rank if named.rank is None else named.rank
    return replace(line, by=replace(line.by, rank=rank, host=line.by.host or named.node))
