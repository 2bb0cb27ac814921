"""How an XID is judged.

The order of authority: the driver's own recovery action (XID 154) before any table; the sub-code of an NVLink 5 error
before the catalogue's entry, which only refers to it; then the catalogue. Where readings of one rank differ, the worst
counts. Whoever is overruled is named in `said`.
"""

from __future__ import annotations

from dataclasses import dataclass

from healer.domain.finding import FailureMode
from healer.telemetry.xids import nvlink5, recovery
from healer.telemetry.xids.catalogue import Xid, xid
from healer.telemetry.xids.lines import XidLine, link_in, unit_in
from healer.telemetry.xids.verdict import CodeKind, Earlier, Subject, SubjectKind, Verdict
from healer.telemetry.xids.words import Action, Blame, Inquiry, Saying, Teller, worst

PREEMPTIVE_REMOVAL = 45
RECOVERY_CHANGED = 154
_WITH_RESET_FLAGS = (94, 95)
_NOTHING_SAID: tuple[Saying, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What the input told before this event.

    Attributes:
        driver: the branch of the driver; None where it is not known.
        recovery: the newest recovery action of this GPU; UNKNOWN where none was told.
        earlier: the XID that this may be a consequence of.
        run: how many events of this code came in a row on this host, this one included.
    """

    host: str | None = None
    uuid: str | None = None
    driver: int | None = None
    recovery: recovery.Recovery = recovery.Recovery.UNKNOWN
    earlier: Earlier | None = None
    run: int = 1


def judge_xid(event: XidLine, context: Context) -> Verdict:
    """The verdict; `time` and `line` are for the caller to fill."""
    if event.code == RECOVERY_CHANGED and (change := recovery.change_in(event.message)) is not None:
        return _judge_recovery(event, change, context)
    if event.code in nvlink5.CODES:
        return _judge_link_error(event, context)
    if event.code == PREEMPTIVE_REMOVAL:
        return _judge_removal(event, context)
    entry = xid(event.code)
    action, said = entry.action, _NOTHING_SAID
    if event.code in _WITH_RESET_FLAGS:
        action, said = _with_reset_flag(event.message, entry.action)
    return _xid_verdict(event, context, action=action, why=_happened(entry, event) + _asks(entry), said=said)


def _judge_recovery(event: XidLine, change: recovery.Change, context: Context) -> Verdict:
    """Its number wins over all; who is overruled: its own words, and the catalogue's entry of the XID it follows."""
    said: list[Saying] = []
    if change.worded is not recovery.Recovery.UNKNOWN and change.worded is not change.after:
        said.append(Saying(Teller.RECOVERY_WORDS, change.worded.action))
    action = worst((change.after.action, change.worded.action))
    cause = context.earlier
    catalogued = xid(cause.code).action if cause else Action.UNKNOWN
    if cause and not catalogued.is_open and catalogued is not action and change.after is not recovery.Recovery.NONE:
        said.append(Saying(Teller.CATALOGUE, f"{catalogued} for XID {cause.code}"))
    if said:
        said.insert(0, Saying(Teller.RECOVERY, change.after.action))
    words = f" ({change.words})" if change.words else ""
    why = f"the driver's recovery action went from {_worded(change.before)} to {_worded(change.after)}{words}"
    if cause is not None:
        why += f", after {cause}"
    return _xid_verdict(
        event,
        context,
        action=action,
        why=why,
        said=tuple(said),
        follows=cause,
        blame=None if cause is None else xid(cause.code).blame,
    )


def _worded(state: recovery.Recovery) -> str:
    return state.name.lower().replace("_", " ")


def _judge_link_error(event: XidLine, context: Context) -> Verdict:
    entry, error = xid(event.code), nvlink5.link_error(event.message)
    decoded = nvlink5.decode(event.code, error, driver=context.driver)
    action = decoded.action
    if action is Action.UNKNOWN:
        action = entry.action
    elif action is Action.IGNORE and error.severity and error.severity.is_fatal and not _is_fatal(decoded):
        # The line calls fatal what the table would have ignored.
        action = worst((action, entry.action))
    elif action is Action.XID_154 and context.recovery is not recovery.Recovery.UNKNOWN:
        action = worst((action, context.recovery.action))
    name = decoded.name or error.name
    severity = f", {error.severity}" if error.severity else ""
    row = "NVIDIA's table has no row for it"
    if decoded.severity is not None:
        row = f"NVIDIA asks for {_in_turn(decoded.action, decoded.inquiry)}"
    if decoded.action is Action.XID_154 and action is not Action.XID_154:
        row += f"; the last one says {action}"
    registers = "" if error.intr_info is None else f" 0x{error.intr_info:08x} 0x{error.error_status or 0:08x}"
    return _xid_verdict(
        event,
        context,
        action=action,
        why=f"NVLink 5 sub-code {name or 'without a name'}{severity}{registers}; {row}",
        said=decoded.said,
        name=name or entry.mnemonic,
        mode=FailureMode.NVLINK_DOWN if decoded.is_link_down else entry.mode,
        inquiry=decoded.inquiry or entry.inquiry,
    )


def _is_fatal(decoded: nvlink5.Decoded) -> bool:
    return decoded.severity is not None and decoded.severity.is_fatal


def _judge_removal(event: XidLine, context: Context) -> Verdict:
    """XID 45: a consequence of another XID, which is to be followed instead, or alone: mostly, a job was killed."""
    cause, entry = context.earlier, xid(event.code)
    many = f", number {context.run} in a row on this host" if context.run > 1 else ""
    if cause is not None:
        return _xid_verdict(
            event,
            context,
            action=Action.IGNORE,
            why=f"{entry.meaning}{many}: it follows {cause}, which is the one to act on",
            follows=cause,
            blame=xid(cause.code).blame,
        )
    return _xid_verdict(
        event,
        context,
        action=entry.action,
        why=f"{entry.meaning}{many}; no other XID came shortly before it: mostly, a job was "
        "killed. NVIDIA asks for a restart of the fabric manager if no other one follows",
    )


def _with_reset_flag(message: str, catalogued: Action) -> tuple[Action, tuple[Saying, ...]]:
    """Since Ampere 94 and 95 end with "RST: No, D-RST: No": whether a reset, or a drain and a reset, is needed."""
    if "RST: Yes" not in message:
        return catalogued, ()
    wanted = Action.DRAIN_AND_RESET if "D-RST: Yes" in message else Action.RESET_GPU
    if wanted is catalogued:
        return catalogued, ()
    return worst((wanted, catalogued)), (Saying(Teller.LINE, wanted), Saying(Teller.CATALOGUE, catalogued))


def _happened(entry: Xid, event: XidLine) -> str:
    if not entry.is_known:
        return f"XID {event.code} is in no catalogue: unknown, and not harmless for that"
    unit, link = unit_in(event.message), link_in(event.message)
    figures = f" ({unit})" if unit else f" (link {link})" if link is not None else ""
    return (entry.meaning or entry.mnemonic) + figures


def _asks(entry: Xid) -> str:
    if not entry.is_known:
        return ""
    if entry.nvidia is Action.UNKNOWN:
        return f"; NVIDIA names no action, we say {entry.action}: {entry.because}"
    return f"; NVIDIA asks for {_in_turn(entry.nvidia, entry.inquiry)}"


def _in_turn(action: Action, inquiry: Inquiry) -> str:
    waits = " (the driver's recovery action decides)" if action is Action.XID_154 else ""
    return f"{action}{waits}" + (f", then {inquiry}" if inquiry and inquiry.value != action.value else "")


def _xid_verdict(
    event: XidLine,
    context: Context,
    *,
    action: Action,
    why: str,
    said: tuple[Saying, ...] = (),
    follows: Earlier | None = None,
    name: str | None = None,
    mode: FailureMode | None = None,
    inquiry: Inquiry | None = None,
    blame: Blame | None = None,
) -> Verdict:
    entry = xid(event.code)
    return Verdict(
        kind=CodeKind.XID,
        code=event.code,
        name=entry.mnemonic if name is None else name,
        subject=Subject(
            SubjectKind.GPU,
            host=context.host,
            pci=event.pci,
            uuid=context.uuid,
            instance=event.instance,
            link=link_in(event.message),
            unit=unit_in(event.message),
            pid=event.process.pid,
            process=event.process.name,
        ),
        failure_mode=mode or entry.mode,
        action=action,
        inquiry=entry.inquiry if inquiry is None else inquiry,
        blame=blame or entry.blame,
        why=why,
        said=said,
        follows=follows,
        run=context.run,
    )
