"""Which lines of a log tell of a GPU, an NVSwitch, the driver's fabric or a job, and what they name.

Every pattern is bounded, so a line is read in time linear in its length, whatever is in it. What a line says is looked
for anywhere in it, not only behind a heading that is known: an event must not be missed for the way it was shipped.
Sources of the forms: the prints of NVIDIA's open kernel modules (kernel_rc.c, osinit.c, the NVSwitch driver's
error_nvswitch.c), lines in public reports, and the cases in tests/content/kernel_log_cases.tsv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from healer.telemetry.xids.jobs import Collective, Crash, collective_in, crash_in
from healer.telemetry.xids.places import pci_address, pci_address_within
from healer.telemetry.xids.troubles import TROUBLES, Trouble
from healer.telemetry.xids.words import Severity


@dataclass(frozen=True, slots=True)
class Process:
    """Attributes:
    pid: None where the driver writes '<unknown>'.
    name: the same. At most 15 characters reach the kernel.
    """

    pid: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class XidLine:
    """Attributes:
    instance: of a divided GPU, as "5", or "5:1" with the compute instance.
    message: what stands behind code and process.
    """

    code: int
    pci: str
    instance: str | None
    process: Process
    message: str


@dataclass(frozen=True, slots=True)
class SxidLine:
    """Attributes:
    device: the switch's name, as "nvidia-nvswitch3".
    is_dump: it shows the registers of an error that the line before it told of.
    """

    code: int
    pci: str | None
    device: str | None
    severity: Severity | None
    link: int | None
    is_dump: bool = False


@dataclass(frozen=True, slots=True)
class LossBegins:
    """The first of the three lines with which the driver says that a GPU is off the bus.

    Attributes:
        pci: None if there is no address where the driver prints one: then the driver did not print it.
    """

    pci: str | None


@dataclass(frozen=True, slots=True)
class Loss:
    """Attributes:
    pci: None where the line does not name the GPU: an earlier one may.
    """

    pci: str | None


@dataclass(frozen=True, slots=True)
class Noted:
    """Something of the driver's. Attributes:
    pci: None where the line names no GPU.
    """

    trouble: Trouble
    pci: str | None


@dataclass(frozen=True, slots=True)
class GpuName:
    """No event: the driver says once which GPU has which UUID."""

    pci: str
    uuid: str


@dataclass(frozen=True, slots=True)
class DriverLoaded:
    """No event: which branch of the driver writes from here on."""

    branch: int


Said = XidLine | SxidLine | LossBegins | Loss | Noted | Crash | Collective | GpuName | DriverLoaded

# In lower case: a line with none of these is nothing to us, which most lines are.
_HINTS = (
    "xid",
    "off the bus",
    "nvidia gpu",
    "nvidia unix",
    "gpu at ",
    "nvswitch",
    "libnccl",
    "watchdog",
    "heartbeat monitor",
    "dump signal",
    "nccl work",
    "nccl operations",
    *dict.fromkeys(trouble.words[0] for trouble in TROUBLES),
)
_XID = re.compile(r"(?<![a-z0-9])(s?)xid {0,4}\(([^()]{1,80})\): {0,4}([0-9]{1,10})(?![\w.])", re.IGNORECASE)
_INSTANCE = re.compile(r"(\S{1,40})(?: GPU-I:([0-9]{1,3}))?(?: GPU-CI:([0-9]{1,3}))?(?: [^()]{0,40})?", re.IGNORECASE)
_PROCESS = re.compile(
    r",? *pid='?([0-9]{1,10}|<unknown>)'?(?: *\([^()]{0,40}\))?(?:, *name=([^,]{0,100}))?(?:,|$) *", re.IGNORECASE
)
_SWITCH = re.compile(r"(?:nvidia-)?nvswitch[0-9]{1,3}", re.IGNORECASE)
_SEVERITY = re.compile(r"(non-?fatal|fatal)\b", re.IGNORECASE)
_LINK = re.compile(r"\blink {1,4}(-?[0-9]{1,3})(?![0-9])", re.IGNORECASE)
_CAUSE = re.compile(r"caused by previous Xid ([0-9]{1,10})(?![\w.])", re.IGNORECASE)
_UNIT = re.compile(r"\(GPC ([0-9]{1,3}), TPC ([0-9]{1,3})(?:, SM ([0-9]{1,3}))?\)", re.IGNORECASE)
_FABRIC_SXID = re.compile(r"detected NVSwitch (non-)?fatal error ([0-9]{1,10})(?![\w.])", re.IGNORECASE)
_PORT = re.compile(r"\bport ([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_LOSS = re.compile("fallen off the bus", re.IGNORECASE)
_LOSS_BEGINS = re.compile(r"NVRM: {1,4}The NVIDIA GPU (\S{1,40})", re.IGNORECASE)
_OF_A_GPU = re.compile(r"NVRM:|NVIDIA|(?<![\w.-])GPU(?![\w.-])", re.IGNORECASE)  # and not a host's name
_NAME = re.compile(r"GPU at (\S{1,40}): (GPU-[0-9a-f-]{36})(?![\w-])", re.IGNORECASE)
_DRIVER = re.compile(r"loading NVIDIA UNIX .{0,80}? ([0-9]{3})\.[0-9]", re.IGNORECASE)
_ESCAPES = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_BREAKS = re.compile(r"\r\n?|\n|\\n|\\x0a|#012(?= {0,40}NVRM)")
_UNNAMED = "<unknown>"


def pieces(text: str) -> list[str]:
    """The lines that one line holds: a message of several lines reaches us joined by a newline, plain or escaped."""
    return [_clean(piece) for piece in _BREAKS.split(text)]


def said_in(line: str) -> Said | None:
    """What a single line says; None if it is none of ours. Never raises."""
    lowered = line.lower()
    if not any(hint in lowered for hint in _HINTS):
        return None
    coded = _XID.search(line)
    if coded is not None:
        return _sxid(line, coded) if coded[1] else _xid(line, coded)
    fabric = _FABRIC_SXID.search(line)
    if fabric is not None:
        return _fabric_sxid(line, fabric)
    return _lost_gpu(line) or _known(line) or _trouble(line, lowered) or crash_in(line) or collective_in(line)


def starts_driver(line: str) -> bool:
    """Whether the driver says that it was loaded: what its GPUs had before is over."""
    return "NVIDIA UNIX" in line and _DRIVER.search(line) is not None


def link_in(message: str) -> int | None:
    """The link that a message names; -1, which the driver writes where it is none, is none."""
    found = _LINK.search(message)
    return int(found[1]) if found and int(found[1]) >= 0 else None


def cause_in(message: str) -> int | None:
    """The XID that this one is a consequence of, which the driver writes behind an XID 45 since R570."""
    found = _CAUSE.search(message)
    return int(found[1]) if found else None


def unit_in(message: str) -> str | None:
    """The processors that an exception was met on, as "GPC 1, TPC 3, SM 0"."""
    found = _UNIT.search(message)
    if found is None:
        return None
    return f"GPC {found[1]}, TPC {found[2]}" + (f", SM {found[3]}" if found[3] else "")


def _xid(line: str, coded: re.Match[str]) -> XidLine | None:
    place = _INSTANCE.fullmatch(coded[2])
    pci = pci_address(place[1]) if place else None
    if place is None or pci is None:
        return None
    behind = line[coded.end() :]
    named = _PROCESS.match(behind)
    return XidLine(
        code=int(coded[3]),
        pci=pci,
        instance=":".join(str(int(part)) for part in place.groups()[1:] if part) or None,
        process=Process(_pid(named[1]), _name(named[2])) if named else Process(),
        message=(behind[named.end() :] if named else behind.removeprefix(",")).strip(),
    )


def _pid(text: str) -> int | None:
    return None if text == _UNNAMED else int(text)


def _name(text: str | None) -> str | None:
    name = (text or "").strip().strip("'")
    return None if name in ("", _UNNAMED) else name


def _sxid(line: str, coded: re.Match[str]) -> SxidLine | None:
    pci = pci_address(coded[2])
    if pci is None:
        return None
    message = line[coded.end() :].removeprefix(",").lstrip()
    device = _SWITCH.search(line, 0, coded.start())
    return SxidLine(
        code=int(coded[3]),
        pci=pci,
        device=device[0] if device else None,
        severity=_severity(message),
        link=link_in(message),
        is_dump=message.startswith(("Severity ", "Data {")),
    )


def _severity(message: str) -> Severity | None:
    found = _SEVERITY.match(message)
    if found is None:
        return None
    return Severity.FATAL if found[1].lower() == "fatal" else Severity.NON_FATAL


def _fabric_sxid(line: str, fabric: re.Match[str]) -> SxidLine:
    behind = line[fabric.end() :]
    port = _PORT.search(behind)
    return SxidLine(
        code=int(fabric[2]),
        pci=pci_address_within(behind),
        device=None,
        severity=Severity.NON_FATAL if fabric[1] else Severity.FATAL,
        link=int(port[1]) if port else None,
    )


def _lost_gpu(line: str) -> LossBegins | Loss | None:
    begins = _LOSS_BEGINS.search(line)
    if begins is None:
        return Loss(pci_address_within(line)) if _LOSS.search(line) and _OF_A_GPU.search(line) else None
    pci = pci_address(begins[1].rstrip(":,"))
    return Loss(pci) if pci and _LOSS.search(line, begins.end()) else LossBegins(pci)


def _known(line: str) -> GpuName | DriverLoaded | None:
    named, loaded = _NAME.search(line), _DRIVER.search(line)
    pci = pci_address(named[1]) if named else None
    if named and pci:
        return GpuName(pci, named[2])
    return DriverLoaded(int(loaded[1])) if loaded else None


def _trouble(line: str, lowered: str) -> Noted | None:
    for trouble in TROUBLES:
        if trouble.is_in(lowered):
            return Noted(trouble, pci_address_within(line))
    return None


def _clean(line: str) -> str:
    """Without colours, and with a space for whatever else cannot be printed: none of it may reach a terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else " " for c in _ESCAPES.sub("", line))
