"""How what is no XID is judged: a switch's error, a lost GPU, messages without a code, and lines of jobs."""

from __future__ import annotations

from healer.domain.finding import FailureMode
from healer.telemetry.xids import sxids
from healer.telemetry.xids.catalogue import xid
from healer.telemetry.xids.jobs import Collective, Crash
from healer.telemetry.xids.lines import Noted, SxidLine
from healer.telemetry.xids.troubles import Speaker
from healer.telemetry.xids.verdict import CodeKind, Earlier, Subject, SubjectKind, Verdict
from healer.telemetry.xids.words import Action, Blame, Inquiry

_FELL_OFF_BUS = 79


def judge_sxid(event: SxidLine, host: str | None) -> Verdict:
    judged, entry = sxids.judge(event.code, event.severity), sxids.sxid(event.code)
    what = entry.name or f"SXID {event.code} is in no table: unknown, and not harmless for that"
    fatal = f"the table says {entry.fatal} fatal" if entry.fatal else ""
    line = f"the line says {event.severity}" if event.severity else "the line names no severity"
    return Verdict(
        kind=CodeKind.SXID,
        code=event.code,
        name=entry.name,
        subject=Subject(SubjectKind.NVSWITCH, host=host, pci=event.pci, device=event.device, link=event.link),
        failure_mode=judged.mode,
        action=judged.action,
        inquiry=Inquiry.NONE,
        blame=entry.blame,
        why="; ".join(filter(None, (what, line, fatal))),
        said=judged.said,
    )


def judge_loss(pci: str | None, host: str | None, *, uuid: str | None, earlier: Earlier | None) -> Verdict:
    """A GPU that is off the bus without an XID asks for what XID 79 asks for."""
    entry = xid(_FELL_OFF_BUS)
    told = f", as XID {earlier.code} said before" if earlier else ""
    which = "" if pci else "; which GPU it is, this line does not say"
    return Verdict(
        kind=CodeKind.NONE,
        code=None,
        name="FALLEN_OFF_THE_BUS",
        subject=Subject(SubjectKind.GPU, host=host, pci=pci, uuid=uuid),
        failure_mode=FailureMode.GPU_FELL_OFF_BUS,
        action=entry.action,
        inquiry=entry.inquiry,
        blame=entry.blame,
        why=f"{entry.meaning}{told}{which}; for XID {entry.code} NVIDIA asks for {entry.nvidia}",
        follows=earlier,
    )


Message = Noted | Crash | Collective


def pci_of(event: Message) -> str | None:
    return event.pci if isinstance(event, Noted) else None


def judge_message(event: Message, host: str | None, *, uuid: str | None) -> Verdict:
    """Of a line that carries no code."""
    match event:
        case Noted():
            return _judge_noted(event, host, uuid)
        case Crash():
            return _judge_crash(event, host)
        case Collective():
            return _judge_collective(event, host)


def _judge_noted(event: Noted, host: str | None, uuid: str | None) -> Verdict:
    trouble = event.trouble
    by_message = "" if trouble.action is not Action.UNKNOWN else "; NVIDIA publishes no action for this message"
    kind = SubjectKind.GPU if event.pci and trouble.speaker is Speaker.DRIVER else SubjectKind.NODE
    return Verdict(
        kind=CodeKind.NONE,
        code=None,
        name=trouble.name,
        subject=Subject(kind, host=host, pci=event.pci, uuid=uuid if kind is SubjectKind.GPU else None),
        failure_mode=trouble.mode,
        action=trouble.action,
        inquiry=Inquiry.NONE,
        blame=trouble.blame,
        why=trouble.meaning + by_message,
    )


def _judge_crash(event: Crash, host: str | None) -> Verdict:
    return Verdict(
        kind=CodeKind.NONE,
        code=None,
        name="NCCL_SEGFAULT",
        subject=Subject(SubjectKind.PROCESS, host=host, pid=event.pid, process=event.name),
        failure_mode=FailureMode.JOB_STALLED,
        action=Action.RESTART_APP,
        inquiry=Inquiry.CHECK_APP,
        blame=Blame.APPLICATION,
        why="a process crashed inside NCCL's library: the other ranks of its job wait for it from now on",
    )


def _judge_collective(event: Collective, host: str | None) -> Verdict:
    return Verdict(
        kind=CodeKind.NONE,
        code=None,
        name="NCCL_WATCHDOG",
        subject=Subject(SubjectKind.PROCESS, host=host, rank=event.rank),
        failure_mode=FailureMode.JOB_STALLED,
        action=Action.RESTART_APP,
        inquiry=Inquiry.NONE,
        blame=Blame.UNKNOWN,
        why="; ".join(_collective(event)),
    )


def _collective(event: Collective) -> list[str]:
    what = " ".join(filter(None, (event.operation, "" if event.number is None else f"number {event.number}")))
    waited = "" if event.waited_s is None else f" for {event.waited_s:.0f} s"
    said = [f"the watchdog waited{waited} for {what or 'a collective operation'}, and does not know for whom"]
    if event.enqueued is not None and event.completed is not None:
        said.append(f"the rank had completed {event.completed} of {event.enqueued} that it had enqueued")
    return said
