"""The verdict on one event of the log: what it is, what it is about, what it asks for and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from healer.domain.finding import FailureMode
from healer.telemetry.xids.words import Action, Blame, Inquiry, Saying


class CodeKind(StrEnum):
    XID = "xid"
    SXID = "sxid"
    NONE = "none"


class SubjectKind(StrEnum):
    GPU = "gpu"
    NVSWITCH = "nvswitch"
    NODE = "node"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Subject:
    """What the line is about, as far as it names it.

    Attributes:
        pci: as `places` writes it.
        uuid: of a GPU, if an earlier line of the input told it.
        instance: of a divided GPU, "5" or "5:1".
        link: the NVLink of the GPU, or the port of the switch.
        unit: the processors of the GPU, as "GPC 1, TPC 3, SM 0".
        rank: of a process in its job.
    """

    kind: SubjectKind
    host: str | None = None
    pci: str | None = None
    uuid: str | None = None
    instance: str | None = None
    device: str | None = None
    link: int | None = None
    unit: str | None = None
    pid: int | None = None
    process: str | None = None
    rank: int | None = None

    def __str__(self) -> str:
        return ", ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        match self.kind:
            case SubjectKind.GPU:
                yield f"GPU {self.pci or 'that is not named'}"
            case SubjectKind.NVSWITCH:
                yield f"NVSwitch {self.pci or self.device or 'that is not named'}"
            case SubjectKind.NODE:
                yield f"node {self.host or 'that is not named'}"
            case SubjectKind.PROCESS:
                yield "process" if self.rank is None else f"rank {self.rank}"
        if self.instance is not None:
            yield f"instance {self.instance}"
        if self.link is not None:
            yield f"link {self.link}"
        if self.unit is not None:
            yield self.unit
        if self.process is not None or self.pid is not None:
            yield f"{self.process or 'process'} [{'?' if self.pid is None else self.pid}]"
        if self.host is not None and self.kind is not SubjectKind.NODE:
            yield f"host {self.host}"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The XID that an event is a consequence of.

    Attributes:
        pci: of the GPU that had it; None where only the line itself tells of it.
    """

    code: int
    pci: str | None

    def __str__(self) -> str:
        return f"XID {self.code}" + (f" of GPU {self.pci}" if self.pci else ", by its own words")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    name: the mnemonic, the SXID's name, the sub-code, or what we call a message without a code; "" for unknown codes.
    time: as `heading.Stamp` writes it; "" where the line has none.
    why: one sentence with the figures.
    said: who said what, if not all agree; the action is the verdict's, whoever disagrees.
    follows: the XID that this is a consequence of, if the input or the line itself tells of one.
    run: how many events of this code came in a row on this host, this one included: one kill is eight XID 45.
    line: the message, cut short.
    """

    kind: CodeKind
    code: int | None
    name: str
    subject: Subject
    failure_mode: FailureMode
    action: Action
    inquiry: Inquiry
    blame: Blame
    why: str
    time: str = ""
    said: tuple[Saying, ...] = ()
    follows: Earlier | None = None
    run: int = 1
    line: str = ""
