"""Files that others write, read on from where they were: what is appended, and what follows a rotation."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import iglob
from itertools import islice
from os import stat_result
from pathlib import Path
from stat import S_ISREG
from typing import Generic, TypeVar

_MOST_FILES = 20_000
_MOST_BYTES = 4 << 20  # of one file in one look; of a file that grows faster the middle is left out
_FIRST_BYTES = 1 << 20  # of a file that is there at the start
_LONGEST_REST = 1 << 16
_LOOKS_AFTER_ROTATION = 3  # the writer goes on in the file that was moved away until it is told

_ENDS = re.compile(rb"[\r\n]")  # progress bars end their lines with the one only
_ROTATED = re.compile(r"\.\d{1,3}$")

_T = TypeVar("_T")


def matching(patterns: Iterable[str]) -> list[str]:
    """The paths that match any of the patterns, each once; none for what cannot be listed."""
    paths = (path for pattern in patterns for path in iglob(pattern, recursive=True))  # noqa: PTH207  absolute ones
    return [*dict.fromkeys(islice(paths, _MOST_FILES))]


@dataclass(frozen=True, slots=True)
class Piece(Generic[_T]):
    """What was appended to a file since the last look.

    Attributes:
        name: what its path says.
        lines: those that have ended.
        written_at: when the file was last written.
        was_there: it was there before anybody looked: nobody knows since when.
        left_out: how many bytes were too many to be read.
    """

    path: str
    name: _T
    lines: Iterator[str]
    written_at: datetime
    was_there: bool
    left_out: int


@dataclass(slots=True, eq=False)
class _File(Generic[_T]):
    """Attributes:
    inode: which file it is, whatever it is called.
    rest: the line that has not ended.
    looks_left: of a file that was moved away, how often it is still looked at.
    """

    path: str
    name: _T
    inode: int
    offset: int
    rest: bytes = b""
    looks_left: int = _LOOKS_AFTER_ROTATION


class FollowedFiles(Generic[_T]):
    """Attributes:
    trouble: by path, what was wrong at the last look.

    Args:
        patterns: of paths, as in a shell; `**` stands for any folders.
        named: what a path says; None for one that is not to be read.
    """

    def __init__(self, patterns: Sequence[str], named: Callable[[str], _T | None]) -> None:
        self.trouble: dict[str, str] = {}
        self._patterns = patterns
        self._named = named
        self._files: dict[str, _File[_T]] = {}
        self._moved: dict[int, _File[_T]] = {}  # by inode, those whose path is another file's now, or nobody's
        self._is_first = True

    def names(self) -> list[_T]:
        """What the paths of all files say that are there."""
        return [file.name for file in self._files.values()]

    def pieces(self) -> Iterator[Piece[_T]]:
        """What is new, file by file; to be taken to its end. What cannot be read is in `trouble`."""
        self.trouble = {}
        before = self._files
        known = {file.inode: file for file in (*self._moved.values(), *before.values())}
        self._files = {}
        for path in matching(self._patterns):
            if path in before:
                self._files[path] = before[path]
            piece = self._read_on(path, known)
            if piece is not None:
                yield piece
        there = {file.inode for file in self._files.values()}
        left = (file for path, file in before.items() if self._files.get(path) is not file)
        self._moved |= {file.inode: file for file in left}
        self._moved = {inode: file for inode, file in self._moved.items() if inode not in there}
        yield from self._read_moved()
        self._is_first = False

    def _read_on(self, path: str, known: dict[int, _File[_T]]) -> Piece[_T] | None:
        try:
            seen = Path(path).stat()
            file = self._file(path, seen, known) if S_ISREG(seen.st_mode) else None
            return None if file is None else _appended(path, file, seen, was_there=self._is_first)
        except OSError as error:
            self.trouble[path] = f"cannot be read: {error.strerror}"
            return None

    def _file(self, path: str, seen: stat_result, known: dict[int, _File[_T]]) -> _File[_T] | None:
        """The file as it was left; from its beginning if it is another one now, or was cut."""
        file = self._files.get(path)
        if file is None or file.inode != seen.st_ino:
            moved = known.get(seen.st_ino)
            file = moved if moved is not None and _is_rotation_of(moved.path, path) else None
        if file is None or file.offset > seen.st_size:
            name = self._named(path)
            if name is None:
                return None
            # What is there at the start may be old; what comes later is news from its first byte.
            skipped = max(0, seen.st_size - _FIRST_BYTES) if self._is_first else 0
            file = _File(path, name, seen.st_ino, skipped)
        self._files[path] = file
        return file

    def _read_moved(self) -> Iterator[Piece[_T]]:
        """The last lines of what was moved away, under the name that it has now."""
        folders: dict[Path, dict[int, str]] = {}
        for inode, file in [*self._moved.items()]:
            folder = Path(file.path).parent
            if folder not in folders:
                folders[folder] = _inodes(folder)
            path = folders[folder].get(inode)
            file.looks_left -= 1
            if path is None or not _is_rotation_of(file.path, path) or file.looks_left < 0:
                del self._moved[inode]
                continue
            try:
                piece = _appended(path, file, Path(path).stat(), was_there=False)
            except OSError as error:
                self.trouble[path] = f"cannot be read: {error.strerror}"
                continue
            if piece is not None:
                yield piece


def _appended(path: str, file: _File[_T], seen: stat_result, *, was_there: bool) -> Piece[_T] | None:
    if seen.st_size <= file.offset:
        return None
    left_out = max(0, seen.st_size - file.offset - _MOST_BYTES)
    if left_out:
        file.offset, file.rest = file.offset + left_out, b""
    with Path(path).open("rb") as opened:
        opened.seek(file.offset)
        data = opened.read(seen.st_size - file.offset)
    file.offset += len(data)
    *whole, rest = _ENDS.split(file.rest + data)
    file.rest = rest[-_LONGEST_REST:]
    lines = (line.decode("utf-8", "replace") for line in whole)
    return Piece(path, file.name, lines, datetime.fromtimestamp(seen.st_mtime, UTC), was_there, left_out)


def _is_rotation_of(path: str, other: str) -> bool:
    """Whether a file of the one name may have been moved to the other, as logrotate does: kern.log, kern.log.1, ..."""
    one, new = Path(path), Path(other)
    return one.parent == new.parent and new.name.startswith(_ROTATED.sub("", one.name))


def _inodes(folder: Path) -> dict[int, str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.inode(): entry.path for entry in entries}
    except OSError:
        return {}
