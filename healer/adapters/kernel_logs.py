"""Kernel logs of the nodes, as a log host collects them in files: rsyslog's, or a journal that is written as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from healer.adapters.background import InBackground
from healer.adapters.followed_files import FollowedFiles
from healer.domain.kernel_line import KernelLine
from healer.telemetry.xids.of_gpus import LogNames, LogOfNodes

_MOST_LINES = 20_000  # that differ, of one look
_MOST_WARNINGS = 20
_HOLDS_A_TURN = timedelta(seconds=1)

_Seen = tuple[tuple[KernelLine, ...], tuple[str, ...]]


class KernelLogFiles:
    """Implements `healer.ports.KernelLog`. A turn waits a moment for the files, which may lie on a system that hangs.

    Args:
        patterns: of paths, as in a shell; `**` stands for any folders.
        at_most: how long a turn waits.
    """

    def __init__(self, patterns: Sequence[str], names: LogNames, *, at_most: timedelta = _HOLDS_A_TURN) -> None:
        self._files = FollowedFiles(patterns, lambda path: LogOfNodes(path, names.node_of(path)))
        self._looking = InBackground(self._look, name="kernel-logs", at_most=at_most)
        self._warnings: tuple[str, ...] = ()

    def close(self) -> None:
        self._looking.close()

    def lines(self, now: datetime) -> tuple[KernelLine, ...]:
        """What was written since the last call, each line once, oldest first for each file."""
        seen = self._looking.ask(now)
        if seen is None:
            return ()
        lines, self._warnings = seen
        return lines

    def warnings(self, now: datetime) -> tuple[str, ...]:  # noqa: ARG002  what was wrong at the last look
        return self._warnings

    def _look(self, now: datetime) -> _Seen:
        told: list[KernelLine] = []
        warnings: list[str] = []
        for piece in self._files.pieces():
            told += piece.name.take(piece.lines, now, was_there=piece.was_there)
            if piece.left_out:
                warnings.append(f"{piece.path}: grows too fast; {piece.left_out} bytes were not read")
        if len(told) > _MOST_LINES:
            warnings.append(f"the kernel logs have {len(told)} lines about GPUs at once; {_MOST_LINES} count")
        warnings += (f"{path}: {trouble}" for path, trouble in self._files.trouble.items())
        return tuple(told[-_MOST_LINES:]), tuple(islice(warnings, _MOST_WARNINGS))
