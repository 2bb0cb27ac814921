"""Dumps of the Flight Recorder as files that jobs write to a file system which healer sees, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from stat import S_ISREG

from healer.adapters.followed_files import matching
from healer.domain.testimony import Testimony
from healer.errors import Unavailable
from healer.telemetry.nccl.dump import Dump, read_dump
from healer.telemetry.nccl.file_names import FileNames, Named
from healer.telemetry.nccl.flight_recorder import dumps_say
from healer.telemetry.nccl.plain_pickle import LIMIT_BYTES

_MOST_WARNINGS = 20
_COUNTS_FOR = timedelta(hours=1)
_ONE_INCIDENT = timedelta(minutes=10)  # a dump that is older than the newest of its job by more is of another one
_SETTLED = timedelta(seconds=60)  # how long PyTorch gives its ranks to dump

_Version = tuple[int, int, int]  # when it was changed, which file it is, its size


@dataclass(frozen=True, slots=True)
class _File:
    """Attributes:
    dump: what it says; the reason why not, if it cannot be read.
    """

    named: Named
    version: _Version
    dump: Dump | str

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.version[0] / 1e9, UTC)


class DumpFiles:
    """Args:
    patterns: of paths, as in a shell; `**` stands for any folders.
    """

    def __init__(self, patterns: Sequence[str], names: FileNames) -> None:
        self._patterns = patterns
        self._names = names
        self._files: Mapping[str, _File] = {}

    def look(self, now: datetime) -> tuple[Testimony, ...]:
        """What the dumps of each job say, of those that were written lately."""
        self._files = dict(self._read(now))
        jobs: dict[str, list[tuple[str, _File]]] = {}
        for path, file in self._files.items():
            jobs.setdefault(file.named.job, []).append((path, file))
        return tuple(told for job, files in jobs.items() if (told := _testimony(job, files, now)) is not None)

    def warnings(self) -> tuple[str, ...]:
        said = (file.dump for file in self._files.values() if isinstance(file.dump, str))
        return tuple(islice(said, _MOST_WARNINGS))

    def _read(self, now: datetime) -> Iterator[tuple[str, _File]]:
        """Every file that counts, read only if it is new or has changed."""
        for path in matching(self._patterns):
            named, version = self._names.told_by(path), _version(path)
            if named is None or named.rank is None or version is None:
                continue
            if now - datetime.fromtimestamp(version[0] / 1e9, UTC) > _COUNTS_FOR:
                continue
            known = self._files.get(path)
            unchanged = known is not None and known.version == version
            yield path, known if known is not None and unchanged else _File(named, version, _dump(path, version))


def _testimony(job: str, files: Sequence[tuple[str, _File]], now: datetime) -> Testimony | None:
    newest_path, newest = max(files, key=lambda item: item[1].at)
    counting = {f.named.rank: f for _, f in files if newest.at - f.at <= _ONE_INCIDENT and f.named.rank is not None}
    dumps = {rank: file.dump for rank, file in counting.items() if isinstance(file.dump, Dump)}
    if not dumps:
        return None
    return dumps_say(
        dumps,
        job=job,
        where=str(Path(newest_path).parent),
        at=newest.at,
        nodes={rank: file.named.node for rank, file in counting.items() if file.named.node is not None},
        all_spoke=now - newest.at >= _SETTLED and len(dumps) == len(counting),
    )


def _version(path: str) -> _Version | None:
    """None for what has gone, and for what is no file: a rank has a pipe to be asked by, and to open one waits."""
    try:
        seen = Path(path).stat()
    except OSError:
        return None
    return (seen.st_mtime_ns, seen.st_ino, seen.st_size) if S_ISREG(seen.st_mode) else None


def _dump(path: str, version: _Version) -> Dump | str:
    if version[2] > LIMIT_BYTES:
        return f"{path}: has {version[2]} bytes; more than {LIMIT_BYTES} are not read"
    try:
        with Path(path).open("rb") as file:
            return read_dump(file.read(LIMIT_BYTES), name=path)
    except Unavailable as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
