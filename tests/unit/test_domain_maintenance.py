"""Maintenance windows: how they are written, and when they are, also in the nights in which the clock is set."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from healer.domain.maintenance import MaintenanceWindow, Once, Period, Weekly, parse_weekly
from healer.domain.matcher import parse_matcher
from tests.unit.core_samples import START, after

HOUR = timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


def weekly(text: str) -> Weekly:
    return parse_weekly(text, ZoneInfo)


# Once


def test_a_window_that_is_once_holds_from_its_start_to_its_end() -> None:
    period = Period(START, after(3600))
    window = MaintenanceWindow("r7", (parse_matcher("rack=r7"),), Once(period), "cooling")
    assert [window.active(after(s)) for s in (-1, 0, 3599, 3600)] == [None, period, period, None]
    assert str(window.schedule) == "2026-03-14T03:00:00Z to 2026-03-14T04:00:00Z"


# Writing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Sun 02:00-06:00 UTC", "Sun 02:00-06:00 UTC"),
        ("Sat,Sun 00:00-24:00 Europe/Berlin", "Sat-Sun 00:00-24:00 Europe/Berlin"),
        ("mon-fri  22:00-02:00   America/New_York", "Mon-Fri 22:00-02:00 America/New_York"),
        ("Sat-Mon 06:30-06:29 UTC", "Mon,Sat-Sun 06:30-06:29 UTC"),
        ("Mon-Mon,Wed 23:59-00:00 UTC", "Mon,Wed 23:59-24:00 UTC"),
    ],
)
def test_a_week_s_window_is_days_times_and_a_zone(text: str, shown: str) -> None:
    assert str(weekly(text)) == shown
    assert str(weekly(shown)) == shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not days, times and a time zone; write it like 'Sun 02:00-06:00 UTC'"),
        ("Sun 02:00-06:00", "is not days, times and a time zone"),
        ("Sun 2:00-6:00 UTC", "is not days, times and a time zone"),
        ("every Sun 02:00-06:00 UTC", "is not days, times and a time zone"),
        ("Son 02:00-06:00 UTC", "'Son' is not a day or a range of days out of Mon, Tue,"),
        ("Mon- 02:00-06:00 UTC", "'Mon-' is not a day or a range of days"),
        ("Mon-Wed-Fri 02:00-06:00 UTC", "is not a day or a range of days"),
        ("Mon,,Wed 02:00-06:00 UTC", "'' is not a day or a range of days"),
        ("Sun 02:60-06:00 UTC", "02:60 is not a time of the day"),
        ("Sun 02:00-24:01 UTC", "24:01 is not a time of the day"),
        ("Sun 24:00-06:00 UTC", "begins at 24:00; that is 00:00 of the next day"),
        ("Sun 02:00-02:00 UTC", "ends when it begins; the whole day is 00:00-24:00"),
        ("Sun 02:00-06:00 Europe/Berlin2", "there is no such zone"),
    ],
)
def test_what_is_no_week_s_window_is_refused_with_the_reason(text: str, says: str) -> None:
    def zone_of(name: str) -> tzinfo:
        if name == "UTC":
            return UTC
        raise ValueError("there is no such zone")

    with pytest.raises(ValueError, match=re.escape(says)):
        parse_weekly(text, zone_of)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_whatever_is_written_it_is_a_window_or_a_value_error(text: str) -> None:
    for written in (text, f"{text} 02:00-06:00 UTC", f"Sun {text} UTC"):
        with suppress(ValueError):
            parse_weekly(written, lambda _name: UTC)


# Every week


@pytest.mark.parametrize(
    ("text", "now", "until"),
    [
        ("Sun 02:00-06:00 UTC", "2026-03-15T01:59", None),
        ("Sun 02:00-06:00 UTC", "2026-03-15T02:00", "2026-03-15T06:00"),
        ("Sun 02:00-06:00 UTC", "2026-03-15T06:00", None),
        ("Sun 02:00-06:00 UTC", "2026-03-16T03:00", None),
        ("Sun 22:00-02:00 UTC", "2026-03-16T01:59", "2026-03-16T02:00"),
        ("Sun 22:00-02:00 UTC", "2026-03-15T01:59", None),
        ("Sun 02:00-06:00 America/New_York", "2026-03-15T06:00", "2026-03-15T10:00"),
        ("Sun 02:00-06:00 Asia/Kolkata", "2026-03-14T20:30", "2026-03-15T00:30"),
        ("Sat,Sun 00:00-24:00 UTC", "2026-03-14T23:59", "2026-03-15T00:00"),
        ("Sat,Sun 00:00-24:00 UTC", "2026-03-15T00:00", "2026-03-16T00:00"),
        ("Sat,Sun 12:00-11:00 UTC", "2026-03-15T10:00", "2026-03-15T11:00"),
        ("Mon-Sun 00:00-23:59 UTC", "2026-03-15T23:59", None),
    ],
)
def test_a_week_s_window_is_on_its_days_by_the_clock_of_its_zone(text: str, now: str, until: str | None) -> None:
    period = weekly(text).period_at(utc(now))
    assert (None if period is None else period.end) == (None if until is None else utc(until))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        # 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC. 25 October: 03:00 becomes 02:00 at 01:00 UTC.
        ("Sun 01:00-06:00 Europe/Berlin", "2026-03-29T00:00", "2026-03-29T04:00"),
        ("Sun 02:30-06:00 Europe/Berlin", "2026-03-29T00:30", "2026-03-29T04:00"),
        ("Sun 01:00-02:30 Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:30"),
        ("Sun 02:30-03:10 Europe/Berlin", "2026-03-29T00:30", "2026-03-29T01:10"),
        ("Sun 02:15-02:45 Europe/Berlin", "2026-03-29T00:15", "2026-03-29T01:45"),
        ("Sun 01:00-06:00 Europe/Berlin", "2026-10-24T23:00", "2026-10-25T05:00"),
        ("Sun 02:30-06:00 Europe/Berlin", "2026-10-25T00:30", "2026-10-25T05:00"),
        ("Sun 01:00-02:30 Europe/Berlin", "2026-10-24T23:00", "2026-10-25T01:30"),
        # In Santiago the clock goes from Saturday's 24:00 to Sunday's 01:00.
        ("Sun 00:00-04:00 America/Santiago", "2026-09-06T03:00", "2026-09-06T07:00"),
        ("Sat 20:00-24:00 America/Santiago", "2026-09-06T00:00", "2026-09-06T04:00"),
    ],
)
def test_when_the_clock_is_set_the_longer_reading_counts(text: str, start: str, end: str) -> None:
    period = Period(utc(start), utc(end))
    moments = [period.start, period.start + (period.end - period.start) / 2, period.end - timedelta(seconds=1)]
    assert [weekly(text).period_at(moment) for moment in moments] == [period] * 3
    assert period.end not in period
    assert weekly(text).period_at(period.end) is None
    assert weekly(text).period_at(period.start - timedelta(seconds=1)) is None


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"]
_moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
_minutes = st.integers(0, 24 * 60 - 1)


@given(st.sets(st.integers(0, 6), min_size=1), _minutes, st.integers(1, 24 * 60), st.sampled_from(ZONES), _moments)
@example({6}, 150, 40, "Europe/Berlin", utc("2026-03-29T01:05"))
@example({6}, 135, 30, "Europe/Berlin", utc("2026-03-29T00:50"))
@example({6}, 0, 30, "America/Santiago", utc("2026-09-06T03:59"))
@settings(max_examples=400, deadline=None)
def test_whenever_the_clock_on_the_wall_is_within_its_times_a_window_is_active(
    days: set[int], start: int, length: int, zone: str, now: datetime
) -> None:
    window = Weekly(frozenset(days), start, start + length, ZoneInfo(zone))
    period = window.period_at(now)
    if _on_the_wall(window, now):
        assert period is not None
    if period is not None:
        assert period.start <= now < period.end
        assert period.end - period.start <= timedelta(minutes=length) + HOUR
        # The clock is on its times now, or was, or will be, within the hour by which it is set at most.
        assert any(_on_the_wall(window, now + step * HOUR / 4) for step in range(-8, 9)) or length < 60


def _on_the_wall(window: Weekly, now: datetime) -> bool:
    """Whether somebody who reads the clock there would say that the window is now."""
    shown = now.astimezone(window.zone).replace(tzinfo=None)
    midnights = (shown.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=back) for back in (0, 1))
    return any(
        midnight.weekday() in window.days
        and timedelta(minutes=window.start) <= shown - midnight < timedelta(minutes=window.end)
        for midnight in midnights
    )
