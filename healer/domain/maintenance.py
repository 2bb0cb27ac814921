"""Maintenance window: a silence that stands in the configuration, once or every week."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from healer.domain.matcher import Matcher

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_A_DAY = 24 * 60  # minutes
_EVERY = re.compile(r"(\S+)\s+(\d\d):(\d\d)-(\d\d):(\d\d)\s+(\S+)")
_EXAMPLE = "write it like 'Sun 02:00-06:00 UTC' or 'Mon-Fri 22:00-02:00 Europe/Berlin'"


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` on, and no more at `end`."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True, slots=True)
class Once:
    period: Period

    def period_at(self, now: datetime) -> Period | None:
        return self.period if now in self.period else None

    def __str__(self) -> str:
        return " to ".join(f"{t.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for t in (self.period.start, self.period.end))


@dataclass(frozen=True, slots=True)
class Weekly:
    """On certain days between two times of the clock of a zone.

    Where that clock is set, the period is the longest of its readings: a time that comes twice begins it with the
    first and ends it with the second, and one that is skipped counts by the old clock and by the new one.

    Attributes:
        days: 0 is Monday, as of the period's start.
        start, end: minutes since the midnight before the start; `end` is after `start`, at most a day later.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo

    def period_at(self, now: datetime) -> Period | None:
        """The period that `now` is in; of two the one that ends last."""
        today = now.astimezone(self.zone).date()
        near = [today + timedelta(days=days) for days in (-1, 0, 1)]  # tomorrow's begins today if a midnight is skipped
        periods = [self._period(day) for day in near if day.weekday() in self.days]
        return max((period for period in periods if now in period), key=lambda period: period.end, default=None)

    def _period(self, day: date) -> Period:
        return Period(min(self._readings(day, self.start)), max(self._readings(day, self.end)))

    def _readings(self, day: date, minutes: int) -> tuple[datetime, datetime]:
        """When the zone's clock shows this; twice the same but around an instant at which it is set."""
        shown = datetime.combine(day, time()) + timedelta(minutes=minutes)
        first, second = (shown.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return first, second

    def __str__(self) -> str:
        runs = itertools.groupby(enumerate(sorted(self.days)), key=lambda pair: pair[1] - pair[0])
        days = ",".join(_run_of_days([day for _, day in run]) for _, run in runs)
        end = self.end if self.end <= _A_DAY else self.end - _A_DAY
        return f"{days} {_clock(self.start)}-{_clock(end)} {self.zone}"


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    name: str
    matchers: tuple[Matcher, ...]
    schedule: Once | Weekly
    reason: str

    def active(self, now: datetime) -> Period | None:
        return self.schedule.period_at(now)


def parse_weekly(text: str, zone_of: Callable[[str], tzinfo]) -> Weekly:
    """'Sat,Sun 22:00-02:00 Europe/Berlin': days, local times, zone. An end that is not after the start is the next day.

    Args:
        zone_of: the time zone of that name; raises ValueError if there is none.

    Raises:
        ValueError: with what is expected.
    """
    parts = _EVERY.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not days, times and a time zone; {_EXAMPLE}")
    start, end = _minutes(parts[2], parts[3]), _minutes(parts[4], parts[5])
    if start == _A_DAY:
        raise ValueError(f"{text!r} begins at 24:00; that is 00:00 of the next day")
    if start == end:
        raise ValueError(f"{text!r} ends when it begins; the whole day is 00:00-24:00")
    return Weekly(_days(parts[1]), start, end if end > start else end + _A_DAY, zone_of(parts[6]))


def _run_of_days(days: Sequence[int]) -> str:
    return _DAYS[days[0]] if len(days) == 1 else f"{_DAYS[days[0]]}-{_DAYS[days[-1]]}"


def _days(text: str) -> frozenset[int]:
    """'Sun', 'Mon,Wed', 'Mon-Fri', 'Fri-Mon'."""
    days: set[int] = set()
    for part in text.split(","):
        ends = part.title().split("-")
        if len(ends) > 2 or not set(ends) <= set(_DAYS):
            raise ValueError(f"{part!r} is not a day or a range of days out of {', '.join(_DAYS)}; {_EXAMPLE}")
        first, last = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        days |= {day % 7 for day in range(first, last + 1 if last >= first else last + 8)}
    return frozenset(days)


def _minutes(hours: str, minutes: str) -> int:
    total = 60 * int(hours) + int(minutes)
    if int(minutes) > 59 or total > _A_DAY:
        raise ValueError(f"{hours}:{minutes} is not a time of the day")
    return total


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
