"""From lines to verdicts, one at a time and in their order, with what the lines before have told.

What is remembered: which XIDs a GPU had last, its UUID and its recovery action, the driver of each host, and the first
line of a message of three. Hosts and GPUs are as many as the input names, so the oldest are forgotten above a number
that no fleet's log reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from healer.telemetry.xids import recovery
from healer.telemetry.xids.heading import Heading, Stamp, split_heading
from healer.telemetry.xids.jobs import Collective, Crash
from healer.telemetry.xids.line_verdicts import judge_loss, judge_message, judge_sxid, pci_of
from healer.telemetry.xids.lines import (
    DriverLoaded,
    GpuName,
    Loss,
    LossBegins,
    Noted,
    Said,
    SxidLine,
    XidLine,
    cause_in,
    pieces,
    said_in,
)
from healer.telemetry.xids.verdict import Earlier, Verdict
from healer.telemetry.xids.xid_verdicts import PREEMPTIVE_REMOVAL, RECOVERY_CHANGED, Context, judge_xid

FOLLOWS_WITHIN_S = 30.0
_LOSS_LINES = 3  # that may stand between its first line and its last
_MOST_REMEMBERED = 100_000
_LONGEST_LINE = 500
_CONSEQUENCES = frozenset({PREEMPTIVE_REMOVAL, RECOVERY_CHANGED})
_FELL_OFF_BUS = 79

_K = TypeVar("_K")
_T = TypeVar("_T")


def classify(lines: Iterable[str], *, driver: int | None = None) -> Iterator[Verdict]:
    """One verdict for each event, as soon as its last line was read.

    Args:
        lines: of a kernel log, with any heading or none; a line may hold several, joined by a newline.
        driver: the branch of the driver, such as 570; without it the log's own line of the driver's start counts.
    """
    log = Classifier(driver)
    for line in lines:
        yield from log.take(line)


@dataclass(frozen=True, slots=True)
class _Had:
    """An XID that a GPU had."""

    code: int
    pci: str
    stamp: Stamp | None


@dataclass(frozen=True, slots=True)
class _Host:
    """Attributes:
    cause: the newest XID that is no consequence of another, of any GPU.
    last: the newest XID.
    run: how many in a row were of its code.
    """

    cause: _Had | None = None
    last: _Had | None = None
    run: int = 0


_Gpu = tuple[str | None, str]  # host and PCI address
_NOTHING_BEGUN: tuple[str | None, str | None] = None, None


class Classifier:
    """Of the lines of one log, which come one by one. Args:
    driver: the branch of the driver, such as 570; without it the log's own line of the driver's start counts.
    """

    def __init__(self, driver: int | None = None) -> None:
        self._driver = driver
        self._drivers: dict[str | None, int] = {}
        self._hosts: dict[str | None, _Host] = {}
        self._causes: dict[_Gpu, _Had] = {}
        self._uuids: dict[_Gpu, str] = {}
        self._recoveries: dict[_Gpu, recovery.Recovery] = {}
        self._switches: dict[tuple[str | None, str | None], int] = {}
        self._begun = _NOTHING_BEGUN
        self._lines_left = 0

    def take(self, line: str) -> Iterator[Verdict]:
        """The verdicts on the events that end with this line, which may hold several, joined by a newline."""
        parts = pieces(line)
        heading = split_heading(parts[0])[0] if len(parts) > 1 else Heading()
        for piece in parts:
            said = said_in(piece)
            found, message = split_heading(piece) if said is not None else (heading, piece)
            # What continues a line has the heading of that line.
            heading = Heading(found.host or heading.host, found.stamp or heading.stamp)
            verdict = self._judge(said, heading)
            if verdict is not None:
                yield replace(
                    verdict, time=heading.stamp.text if heading.stamp else "", line=message[:_LONGEST_LINE].rstrip()
                )

    def _judge(self, said: Said | None, heading: Heading) -> Verdict | None:
        """The verdict on what one line says, if it is an event or ends one."""
        self._lines_left -= 1
        match said:
            case XidLine():
                return self._xid(said, heading)
            case SxidLine():
                return self._sxid(said, heading.host)
            case Loss():
                return self._loss(said, heading.host)
            case Noted() | Crash() | Collective():
                return judge_message(said, heading.host, uuid=self._uuid(heading.host, pci_of(said)))
            case LossBegins() | GpuName() | DriverLoaded():
                self._learn(said, heading.host)
            case None:
                pass
        return None

    def _learn(self, said: LossBegins | GpuName | DriverLoaded, host: str | None) -> None:
        match said:
            case LossBegins():
                self._begun, self._lines_left = (host, said.pci), _LOSS_LINES
            case GpuName():
                _remember(self._uuids, (host, said.pci), said.uuid)
            case DriverLoaded():
                _remember(self._drivers, host, said.branch)

    def _xid(self, event: XidLine, heading: Heading) -> Verdict:
        host, gpu = heading.host, (heading.host, event.pci)
        had = _Had(event.code, event.pci, heading.stamp)
        before = self._hosts.get(host, _Host())
        in_a_row = before.last is not None and before.last.code == event.code and _is_soon(had, before.last)
        run = before.run + 1 if in_a_row else 1
        context = Context(
            host=host,
            uuid=self._uuid(host, event.pci),
            driver=self._driver or self._drivers.get(host),
            recovery=self._recoveries.get(gpu, recovery.Recovery.UNKNOWN),
            earlier=self._cause(event, had, host),
            run=run,
        )
        if event.code in _CONSEQUENCES:
            _remember(self._hosts, host, replace(before, last=had, run=run))
        else:
            _remember(self._hosts, host, _Host(cause=had, last=had, run=run))
            _remember(self._causes, gpu, had)
        if event.code == RECOVERY_CHANGED and (change := recovery.change_in(event.message)) is not None:
            _remember(self._recoveries, gpu, change.after)
        return judge_xid(event, context)

    def _cause(self, event: XidLine, had: _Had, host: str | None) -> Earlier | None:
        """By its own words, of the same GPU, or, for what one kill does to all GPUs of a job, of another one."""
        if event.code not in _CONSEQUENCES:
            return None
        if (told := cause_in(event.message)) is not None:
            return Earlier(told, None)
        own = self._causes.get((host, event.pci))
        others = self._hosts.get(host, _Host()).cause if event.code == PREEMPTIVE_REMOVAL else None
        for earlier in (own, others):
            if earlier is not None and _is_soon(had, earlier):
                return Earlier(earlier.code, earlier.pci)
        return None

    def _sxid(self, event: SxidLine, host: str | None) -> Verdict | None:
        switch = host, event.pci
        if event.is_dump and self._switches.get(switch) == event.code:
            return None
        _remember(self._switches, switch, event.code)
        return judge_sxid(event, host)

    def _loss(self, event: Loss, host: str | None) -> Verdict | None:
        begun = self._begun if self._lines_left >= 0 and host in (None, self._begun[0]) else None
        self._begun, self._lines_left = _NOTHING_BEGUN, 0
        if event.pci is None and begun is not None:
            host, pci = begun
            if pci is None:
                return None
        else:
            pci = event.pci
        had = None if pci is None else self._causes.get((host, pci))
        earlier = Earlier(had.code, had.pci) if had and had.code == _FELL_OFF_BUS else None
        return judge_loss(pci, host, uuid=self._uuid(host, pci), earlier=earlier)

    def _uuid(self, host: str | None, pci: str | None) -> str | None:
        return None if pci is None else self._uuids.get((host, pci))


def _is_soon(had: _Had, earlier: _Had) -> bool:
    """Whether it came soon after the other; where the two stamps cannot be compared, the order has to do."""
    if had.stamp is None or earlier.stamp is None:
        return True
    seconds = had.stamp.seconds_since(earlier.stamp)
    return seconds is None or abs(seconds) <= FOLLOWS_WITHIN_S


def _remember(memory: dict[_K, _T], key: _K, value: _T) -> None:
    """As the newest; the oldest is forgotten where there are too many."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _MOST_REMEMBERED:
        del memory[next(iter(memory))]
