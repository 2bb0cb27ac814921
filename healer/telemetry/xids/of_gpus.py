"""Which lines of a node's kernel log say something of a GPU that counts, and of which one, as a frame takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from healer.domain.finding import FailureMode
from healer.domain.kernel_line import KernelLine
from healer.telemetry.xids.catalogue import xid
from healer.telemetry.xids.heading import split_heading
from healer.telemetry.xids.lines import starts_driver
from healer.telemetry.xids.stream import Classifier
from healer.telemetry.xids.verdict import CodeKind, Verdict
from healer.telemetry.xids.words import Action

NODE_FOLDERS = "remote/(?P<node>[^/]+)/"  # /var/log/remote/NODE/kern.log

_FELL_OFF_BUS = 79
_COUNTS_FOR = timedelta(days=1)
_YOUNG = timedelta(minutes=10)
_LONGEST_NAME = 256

_Kind = tuple[str | None, str | None, str | None, int, str]  # node, PCI address, instance, code, action


@dataclass(frozen=True, slots=True)
class LogNames:
    """A regular expression, searched in the path of a log, with the group `node`. Where it finds nothing, the host in
    the line's own heading counts.

    Raises:
        ValueError: for something that is no such expression.
    """

    pattern: str = NODE_FOLDERS

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from error
        unknown = groups.keys() - {"node"}
        if unknown:
            raise ValueError(f"{self.pattern!r} has a group {min(unknown)!r}; known is node")

    def node_of(self, path: str) -> str | None:
        found = re.search(self.pattern, path)
        return (found.groupdict().get("node") if found else None) or None


class LogOfNodes:
    """The lines of one log, in the order in which they are written."""

    def __init__(self, where: str, node: str | None) -> None:
        self._where = where
        self._node = node
        self._classifier = Classifier()

    def take(self, lines: Iterable[str], now: datetime, *, was_there: bool) -> tuple[KernelLine, ...]:
        """What the lines say of GPUs, oldest first; lines alike are one, with their count.

        Args:
            was_there: whether the lines stood there before anybody looked.
        """
        told: dict[_Kind, KernelLine] = {}
        for line in lines:
            if starts_driver(line):
                # What was before is over: the driver was loaded anew.
                node = self._node or split_heading(line)[0].host
                told = {kind: earlier for kind, earlier in told.items() if earlier.node != node}
            for verdict in self._classifier.take(line):
                found = self._of_gpu(verdict, now, was_there=was_there)
                if found is not None:
                    kind = found.node, found.pci, found.instance, found.code, found.action
                    count = told.pop(kind).count if kind in told else 0
                    told[kind] = replace(found, count=count + 1)
        return tuple(told.values())

    def _of_gpu(self, verdict: Verdict, now: datetime, *, was_there: bool) -> KernelLine | None:
        is_xid = verdict.kind is CodeKind.XID
        is_loss = verdict.kind is CodeKind.NONE and verdict.failure_mode is FailureMode.GPU_FELL_OFF_BUS
        # A loss that an XID 79 told before is the same one.
        if not is_xid and not (is_loss and verdict.follows is None):
            return None
        written = _moment_of(verdict.time)
        if written is not None and now - written > _COUNTS_FOR:
            return None
        subject = verdict.subject
        node = self._node or subject.host
        return KernelLine(
            node=None if node is None else node[:_LONGEST_NAME],
            pci=subject.pci,
            uuid=subject.uuid,
            instance=subject.instance,
            code=_FELL_OFF_BUS if verdict.code is None else verdict.code,
            has_code=is_xid,
            mode=verdict.failure_mode,
            action=verdict.action,
            why=verdict.why,
            counts=verdict.action is not Action.IGNORE or xid(verdict.code or _FELL_OFF_BUS).action is Action.IGNORE,
            said=tuple(f"{saying.who} says {saying.says}" for saying in verdict.said),
            at=now if written is None else min(written, now),
            is_old=was_there and (written is None or now - written > _YOUNG),
            where=self._where,
        )


def _moment_of(stamp: str) -> datetime | None:
    """The moment that a stamp names in full, with its time zone; None for any other."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
