"""The sub-code of an XID 144 to 150: which unit of NVLink 5 reported what, and what that asks for.

Such a line names its sub-code, says Fatal or Nonfatal, and carries registers, the first two of which are IntrInfo and
ErrorStatus: "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x00000001 ...)". The sub-code's number stands in bits
9:0 of IntrInfo before R575 and in bits 6:0 since. Where the driver is not known both are read, and in any case
the name as well. Where the readings ask for different things, the worst counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from healer.telemetry.xids.nvlink5_table import SUBCODES
from healer.telemetry.xids.words import Action, Inquiry, Saying, Severity, Teller, worst

FIRST_OF_NEW = 575  # the driver branch that moved the sub-code's number

_LEAD = re.compile(r"([A-Z][\w/ ]{1,60}?) {1,8}(?:Link )?(Non-?fatal|Fatal)\b", re.IGNORECASE | re.ASCII)
_REGISTERS = re.compile(r"\(0x([0-9a-f]{1,8}) {1,4}0x([0-9a-f]{1,8})\b", re.IGNORECASE)
_SEVERITIES = {"fatal": Severity.FATAL, "nonfatal": Severity.NON_FATAL}


@dataclass(frozen=True, slots=True)
class LinkError:
    """What a line says. Attributes:
    name: of the sub-code, "" where the line has none.
    intr_info, error_status: None where the line has no registers.
    """

    name: str
    severity: Severity | None
    intr_info: int | None
    error_status: int | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Attributes:
    name: of the sub-code, as NVIDIA's table has it; "" if neither number nor name is one.
    action: UNKNOWN where the table has no row for the event.
    severity: the table's; None where it has no row.
    said: what each reading asks for, if they disagree, and each severity, if the line's is another than the table's.
    """

    name: str
    action: Action
    inquiry: Inquiry
    severity: Severity | None
    said: tuple[Saying, ...]

    @property
    def is_link_down(self) -> bool:
        return "NETIR_LINK_DOWN" in self.name


@dataclass(frozen=True, slots=True)
class _Row:
    names: tuple[str, ...]
    before: int
    since: int
    reasons: frozenset[int]
    statuses: frozenset[int] | None  # None: any
    action: Action
    flagged: Action | None  # the action where the bit above the number is set
    inquiry: Inquiry
    severity: Severity


@dataclass(frozen=True, slots=True)
class _Layout:
    teller: Teller
    bits: int
    flag: int

    def number(self, row: _Row) -> int:
        return row.before if self.teller is Teller.SUBCODE_BEFORE_R575 else row.since


@dataclass(frozen=True, slots=True)
class _Reading:
    teller: Teller
    name: str
    flagged: bool
    asked: tuple[tuple[Action, _Row], ...]

    @property
    def action(self) -> Action:
        return worst(action for action, _ in self.asked)


_BEFORE = _Layout(Teller.SUBCODE_BEFORE_R575, bits=0x3FF, flag=1 << 10)
_SINCE = _Layout(Teller.SUBCODE_SINCE_R575, bits=0x7F, flag=1 << 7)


def _rows() -> Iterator[tuple[int, _Row]]:
    for line in SUBCODES.splitlines():
        code, names, before, since, reasons, statuses, actions, inquiry, severity = line.split(" ")
        action, _, flagged = actions.partition(">")
        yield (
            int(code),
            _Row(
                names=tuple(names.split("/")),
                before=int(before, 16),
                since=int(since, 16),
                reasons=frozenset(int(value, 16) for value in reasons.split(",")),
                statuses=None if statuses == "-" else frozenset(int(value, 16) for value in statuses.split(",")),
                action=Action(action),
                flagged=Action(flagged) if flagged else None,
                inquiry=Inquiry(inquiry),
                severity=Severity[severity],
            ),
        )


_ROWS: dict[int, list[_Row]] = {}
for _code, _row in _rows():
    _ROWS.setdefault(_code, []).append(_row)

CODES = frozenset(_ROWS)


def link_error(message: str) -> LinkError:
    """What stands behind the code, and behind the process where one is named."""
    lead, registers = _LEAD.match(message), _REGISTERS.search(message)
    return LinkError(
        name=lead[1].replace(" ", "_").upper() if lead else "",
        severity=_SEVERITIES[lead[2].lower().replace("-", "")] if lead else None,
        intr_info=int(registers[1], 16) if registers else None,
        error_status=int(registers[2], 16) if registers else None,
    )


def decode(code: int, error: LinkError, *, driver: int | None = None) -> Decoded:
    """Args:
    code: 144 to 150.
    driver: its branch, such as 570; None where it is not known.
    """
    readings = [*_numbered(code, error, driver)]
    spoken = _named(code, error, readings)
    readings += [] if spoken is None else [spoken]
    asked = [pair for reading in readings for pair in reading.asked]
    action = worst(action for action, _ in asked)
    deciding = next((row for wanted, row in asked if wanted is action), None)
    severity = deciding.severity if deciding else None
    return Decoded(
        name=readings[-1].name if readings else "",
        action=action,
        inquiry=deciding.inquiry if deciding else Inquiry.NONE,
        severity=severity,
        said=(*_different_actions(readings), *_different_severities(error.severity, severity)),
    )


def _numbered(code: int, error: LinkError, driver: int | None) -> Iterator[_Reading]:
    if error.intr_info is None:
        return
    for layout in _layouts(driver):
        number, flagged = error.intr_info & layout.bits, bool(error.intr_info & layout.flag)
        fitting = [row for row in _ROWS[code] if layout.number(row) == number]
        if fitting:
            yield _reading(layout.teller, fitting, error, flagged=flagged)


def _named(code: int, error: LinkError, numbered: list[_Reading]) -> _Reading | None:
    """A name does not tell which bit is its flag: the number does, and without one the flag counts as set."""
    spoken = set(error.name.split("/"))
    shared = {row.names: len(spoken.intersection(row.names)) for row in _ROWS[code]}
    rows = [row for row in _ROWS[code] if shared[row.names] == max(shared.values()) > 0]
    flagged = any(reading.flagged for reading in numbered) if numbered else True
    return _reading(Teller.SUBCODE_NAME, rows, error, flagged=flagged) if rows else None


def _layouts(driver: int | None) -> tuple[_Layout, ...]:
    if driver is None:
        return _BEFORE, _SINCE
    return (_BEFORE,) if driver < FIRST_OF_NEW else (_SINCE,)


def _reading(teller: Teller, rows: list[_Row], error: LinkError, *, flagged: bool) -> _Reading:
    asked = [
        ((row.flagged if flagged and row.flagged else row.action), row)
        for row in rows
        if _reason(error) in row.reasons and _has_status(row, error.error_status)
    ]
    return _Reading(teller, "/".join(rows[0].names), flagged, tuple(asked))


def _reason(error: LinkError) -> int:
    return 0 if error.intr_info is None else error.intr_info >> 20 & 0x3F


def _has_status(row: _Row, status: int | None) -> bool:
    """Whether ErrorStatus is one of the row's, or has one of its bits beside others."""
    if row.statuses is None:
        return True
    if status is None:
        return False
    if status in row.statuses:
        return True
    return any(value & status for value in row.statuses) and row.names[0] not in _ENUMERATED


# Their ErrorStatus is a number and not a set of bits.
_ENUMERATED = frozenset({"NETIR_BER_EVENT", "NETIR_MFDE_EVENT", "MSE_DEGRADED", "MSE_WATCHDOG"})


def _different_actions(readings: list[_Reading]) -> Iterator[Saying]:
    """What each reading asks for, if they differ; one for which the table has no row asks for UNKNOWN."""
    if len({reading.action for reading in readings}) > 1:
        for reading in readings:
            yield Saying(reading.teller, f"{reading.name} {reading.action}")


def _different_severities(line: Severity | None, table: Severity | None) -> Iterator[Saying]:
    if line is not None and table is not None and line.is_fatal is not table.is_fatal:
        yield Saying(Teller.LINE, line)
        yield Saying(Teller.CATALOGUE, table)
