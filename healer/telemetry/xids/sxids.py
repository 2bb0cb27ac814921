"""The SXIDs of NVSwitches: whether one is fatal, by the line and by the table, and what that asks for.

The table says of each SXID whether it is fatal always, perhaps or never, and the line says it of this one. A fatal one
takes the traffic of the switch with it, and NVIDIA's guide asks to reset its GPUs and switches together: RESET_FABRIC.
One that is not fatal was repaired or affects nothing. Where line and table exclude each other, fatal counts.
20034 is a link that went down; all others are errors of the fabric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from healer.domain.finding import FailureMode
from healer.telemetry.xids.sxid_table import SXIDS as _TABLE
from healer.telemetry.xids.words import Action, Blame, Saying, Severity, Teller


class Fatal(StrEnum):
    ALWAYS = "always"
    PERHAPS = "perhaps"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Sxid:
    """Attributes:
    name: "" for a code that is not in the table.
    fatal: None for such a one.
    """

    code: int
    name: str
    fatal: Fatal | None
    blame: Blame


@dataclass(frozen=True, slots=True)
class Judged:
    """Attributes:
    severity: None where the line does not say it, and the table leaves it open.
    said: who says what, if line and table exclude each other.
    """

    mode: FailureMode
    severity: Severity | None
    action: Action
    said: tuple[Saying, ...]


_LINK_DOWN = 20034
_OF_THE_CHIP = re.compile("ECC|DBE|parity|thermal", re.IGNORECASE)


def _read(row: str) -> Sxid:
    number, fatal, name = row.split(" ", 2)
    return Sxid(int(number), name, Fatal(fatal), Blame.HARDWARE if _OF_THE_CHIP.search(name) else Blame.LINK)


CATALOGUE = {entry.code: entry for entry in map(_read, _TABLE.splitlines())}


def sxid(code: int) -> Sxid:
    """What the table says of an SXID. Of one that it does not have, nothing is known."""
    return CATALOGUE.get(code) or Sxid(code, "", None, Blame.UNKNOWN)


def judge(code: int, line: Severity | None) -> Judged:
    """Args:
    line: the severity that the line names; None where it names none.
    """
    fatal = sxid(code).fatal
    table = {Fatal.ALWAYS: Severity.FATAL, Fatal.NEVER: Severity.NON_FATAL}.get(fatal) if fatal else None
    severity = line or table
    said: tuple[Saying, ...] = ()
    if line is not None and table is not None and line is not table:
        severity = Severity.FATAL
        said = (Saying(Teller.LINE, line), Saying(Teller.CATALOGUE, f"{fatal} fatal"))
    down = code == _LINK_DOWN and severity is Severity.FATAL
    return Judged(
        mode=FailureMode.NVLINK_DOWN if down else FailureMode.NVLINK_ERRORS,
        severity=severity,
        action=_action(severity) if fatal else Action.UNKNOWN,
        said=said,
    )


def _action(severity: Severity | None) -> Action:
    if severity is None:
        return Action.UNKNOWN
    return Action.RESET_FABRIC if severity.is_fatal else Action.IGNORE
