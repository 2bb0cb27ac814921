"""Log files of jobs, read on from where they were, for what the NCCL watchdogs of their ranks say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from os import stat_result
from pathlib import Path
from stat import S_ISREG

from healer.adapters.nccl.files import matching
from healer.domain.testimony import Testimony
from healer.telemetry.nccl.file_names import FileNames, Named
from healer.telemetry.nccl.watchdog import Known, lines_say
from healer.telemetry.nccl.watchdog_line import WatchdogLine, read_line

_MOST_BYTES = 4 << 20  # of one file in one look; of a file that grows faster the middle is left out
_FIRST_BYTES = 1 << 20  # of a file that is there at the start
_LONGEST_REST = 1 << 16
_MOST_LINES = 20_000  # of one job
_MOST_JOBS = 1000
_COUNTS_FOR = timedelta(hours=1)
_ONE_INCIDENT = timedelta(minutes=30)  # lines after a longer silence are about another one
_SETTLED = timedelta(seconds=60)

_ENDS = re.compile(rb"[\r\n]")  # progress bars end their lines with the one only


@dataclass(slots=True, eq=False)
class _File:
    """Attributes:
    inode: which file it is, whatever it is called.
    rest: the line that has not ended.
    """

    named: Named
    inode: int
    offset: int
    rest: bytes = b""


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
        self._patterns = patterns
        self._names = names
        self._files: dict[str, _File] = {}
        self._jobs: dict[str, _Job] = {}
        self._trouble: dict[str, str] = {}
        self._is_first = True

    def look(self, now: datetime) -> tuple[Testimony, ...]:
        """What the lines of each job say, of those that were written lately."""
        self._trouble = {}
        paths = matching(self._patterns)
        self._files = {path: self._files[path] for path in paths if path in self._files}
        for path in paths:
            self._read_on(path)
        self._is_first = False
        self._jobs = {name: job for name, job in self._jobs.items() if now - job.at <= _COUNTS_FOR}
        logging: dict[str, list[Named]] = defaultdict(list)
        for file in self._files.values():
            logging[file.named.job].append(file.named)
        told = (_testimony(name, job, logging[name], now) for name, job in self._jobs.items())
        return tuple(testimony for testimony in told if testimony is not None)

    def warnings(self) -> tuple[str, ...]:
        return tuple(islice((f"{path}: {trouble}" for path, trouble in self._trouble.items()), 20))

    def _read_on(self, path: str) -> None:
        try:
            seen = Path(path).stat()
            if S_ISREG(seen.st_mode) and (file := self._file(path, seen)) is not None and seen.st_size > file.offset:
                lines = list(_lines(file, _new_bytes(path, file, seen.st_size)))
                if lines:
                    self._keep(path, file.named, lines, datetime.fromtimestamp(seen.st_mtime, UTC))
        except OSError as error:
            self._trouble[path] = f"cannot be read: {error.strerror}"

    def _file(self, path: str, seen: stat_result) -> _File | None:
        """The file as it was left; from its beginning if it is another one now, or was cut."""
        file = self._files.get(path)
        if file is None or file.inode != seen.st_ino or file.offset > seen.st_size:
            named = self._names.told_by(path) if file is None else file.named
            if named is None:
                return None
            # What is there at the start may be old; what comes later is news from its first byte.
            skipped = max(0, seen.st_size - _FIRST_BYTES) if self._is_first else 0
            file = self._files[path] = _File(named, seen.st_ino, skipped)
        return file

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


def _new_bytes(path: str, file: _File, size: int) -> bytes:
    if size - file.offset > _MOST_BYTES:
        file.offset, file.rest = size - _MOST_BYTES, b""
    with Path(path).open("rb") as opened:
        opened.seek(file.offset)
        data = opened.read(size - file.offset)
    file.offset += len(data)
    return data


def _lines(file: _File, data: bytes) -> Iterator[WatchdogLine]:
    *whole, file.rest = _ENDS.split(file.rest + data)
    file.rest = file.rest[-_LONGEST_REST:]
    for text in whole:
        line = read_line(text.decode("utf-8", "replace"))
        if line is not None:
            yield line
