"""Which job and which rank a file belongs to, by its path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

DUMP_NAMES = r"rank_?(?P<rank>\d+)(\.\w+)?$"  # nccl_trace_rank_7, as PyTorch names them
LOG_NAMES = r"slurm-(?P<job>\d+)|$"  # Slurm's own, else the folder says whose it is

_LARGEST_RANK = 9_999_999


@dataclass(frozen=True, slots=True)
class Named:
    """Attributes:
    job: what the pattern finds, else the name of the folder.
    """

    job: str
    rank: int | None
    node: str | None


@dataclass(frozen=True, slots=True)
class FileNames:
    """A regular expression, searched in the path, with the named groups `job`, `rank` and `node`, each of which may be
    missing.

    Raises:
        ValueError: for something that is no such expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from error
        unknown = groups.keys() - {"job", "rank", "node"}
        if unknown:
            raise ValueError(f"{self.pattern!r} has a group {min(unknown)!r}; known are job, rank and node")

    @property
    def tells_rank(self) -> bool:
        return "rank" in re.compile(self.pattern).groupindex

    def told_by(self, path: str) -> Named | None:
        """None for a file that does not match, or whose rank is no number."""
        match = re.search(self.pattern, path)
        if match is None:
            return None
        told = match.groupdict()
        rank = told.get("rank")
        if rank is not None and not (rank.isdecimal() and len(rank) < 8 and int(rank) <= _LARGEST_RANK):
            return None
        folder = PurePath(path).parent.name
        return Named(told.get("job") or folder, None if rank is None else int(rank), told.get("node") or None)
