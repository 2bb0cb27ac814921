"""What stands before a message of the log: when it was written, and on which host.

Known are dmesg's stamps (seconds since boot, with --ctime, with --decode and --time-format iso), the caller that some
kernels add, records of /dev/kmsg, the lines of syslog and journalctl in their formats, and fabric manager's own log.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_MONTH = f"({'|'.join(_MONTHS)})"
_FACILITY = "kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7]"
_LEVEL = "emerg|alert|crit|err|warn|notice|info|debug"
_MOST_PIECES = 12

_ISO = re.compile(
    r"\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(?:(Z)|([+-]\d\d):?(\d\d))?\]?(?!\w)", re.ASCII
)
_CTIME = re.compile(
    rf"\[(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {{1,2}})?{_MONTH} {{1,2}}(\d\d?) "
    r"(?:(\d{4}) )?(\d\d:\d\d:\d\d)(?: (\d{4}))?\]",
    re.ASCII,
)
_SYSLOG = re.compile(rf"{_MONTH} {{1,2}}(\d\d?) (\d\d:\d\d:\d\d)(?:\.\d{{1,9}})?(?!\S)", re.ASCII)
_UPTIME = re.compile(r"\[ {0,12}(\d{1,10}\.\d{1,9})\]", re.ASCII)
_KMSG = re.compile(r"\d{1,10},\d{1,20},(\d{1,19}),[^;\s]{0,64};", re.ASCII)
_HOST = re.compile(r"([A-Za-z0-9][\w.-]{0,252}) {1,4}(?!NVRM\b)([\w./@-]{1,64})(?:\[\d{1,10}\])?:(?: |$)", re.ASCII)
_PLAIN = (
    re.compile(r"<\d{1,3}>"),
    re.compile(rf"(?:{_FACILITY}) {{0,4}}:(?:{_LEVEL}) {{0,8}}:"),
    re.compile(r"(?:kernel|nv-fabricmanager)(?:\[\d{1,10}\])?:", re.ASCII),
    re.compile(r"\[[^\[\]]{0,40}\]"),
)


class Clock(StrEnum):
    """Only stamps of one clock can be compared."""

    UPTIME = "uptime"
    UTC = "utc"
    LOCAL = "local"
    YEARLESS = "yearless"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Attributes:
    text: seconds since boot as "+171167.630899s", else ISO 8601 as far as the line goes: without a zone, and as it is
        written without a year, where the line has none.
    seconds: on its clock; None for a date that does not exist.
    """

    text: str
    clock: Clock
    seconds: float | None

    def seconds_since(self, earlier: Stamp) -> float | None:
        """None where the two cannot be compared."""
        if self.clock is not earlier.clock or self.seconds is None or earlier.seconds is None:
            return None
        return self.seconds - earlier.seconds


@dataclass(frozen=True, slots=True)
class Heading:
    host: str | None = None
    stamp: Stamp | None = None


def split_heading(line: str) -> tuple[Heading, str]:
    """The heading, and the message behind it. The first stamp counts: journals put theirs before the kernel's."""
    host: str | None = None
    stamp: Stamp | None = None
    rest = line.lstrip()
    for _ in range(_MOST_PIECES):
        found, width = _stamp_of(rest)
        named = None if width else _HOST.match(rest)
        if width:
            stamp = stamp or found
        elif named and host is None and (named[2] == "kernel" or (stamp and stamp.clock is not Clock.UPTIME)):
            host, width = named[1], named.end()
        else:
            width = next((piece.end() for piece in (p.match(rest) for p in _PLAIN) if piece), 0)
        if not width:
            break
        rest = rest[width:].lstrip()
    return Heading(host, stamp), rest


def _stamp_of(text: str) -> tuple[Stamp | None, int]:
    """The stamp that the text begins with, and its width; 0 if it begins with none."""
    if (found := _UPTIME.match(text)) is not None:
        return Stamp(f"+{found[1]}s", Clock.UPTIME, float(found[1])), found.end()
    if (found := _KMSG.match(text)) is not None:
        seconds = int(found[1]) / 1e6
        return Stamp(f"+{seconds:.6f}s", Clock.UPTIME, seconds), found.end()
    if (found := _ISO.match(text)) is not None:
        day, time, fraction, utc, hours, minutes = found.groups()
        zone = "+00:00" if utc else f"{hours}:{minutes}" if hours else ""
        shown = f"{day}T{time}{f'.{fraction}' if fraction else ''}{zone}"
        return _dated(shown, Clock.UTC if zone else Clock.LOCAL), found.end()
    if (found := _CTIME.match(text)) is not None and (found[3] or found[5]):
        month, day, before, time, behind = found.groups()
        return _dated(f"{before or behind}-{_MONTHS[month]:02}-{int(day):02}T{time}", Clock.LOCAL), found.end()
    if (found := _SYSLOG.match(text)) is not None:
        month, day, time = found.groups()
        leap = _dated(f"2000-{_MONTHS[month]:02}-{int(day):02}T{time}", Clock.YEARLESS)
        return Stamp(found[0], Clock.YEARLESS, leap.seconds), found.end()
    return None, 0


def _dated(text: str, clock: Clock) -> Stamp:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return Stamp(text, clock, None)
    return Stamp(text, clock, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
