"""Views of silences and maintenance windows. Matchers are shown as they are written: `rack="r7"`."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from healer.domain.maintenance import MaintenanceWindow
from healer.domain.silence import Silence
from healer.runtime.web.record_views import PersonView, person_view


class SilenceView(msgspec.Struct, frozen=True):
    """Attributes:
    ends_at: as it was asked for; it ended earlier if it was expired.
    """

    id: str
    state: str
    matchers: list[str]
    starts_at: datetime
    ends_at: datetime
    created_by: PersonView
    created_at: datetime
    reason: str
    expired_by: PersonView | None
    expired_at: datetime | None


class MaintenanceView(msgspec.Struct, frozen=True):
    """Attributes:
    active_until: null while the window is not active.
    """

    name: str
    matchers: list[str]
    schedule: str
    reason: str
    active_until: datetime | None


class SilenceList(msgspec.Struct, frozen=True):
    """Attributes:
    maintenance: the windows of the configuration, active or not.
    """

    items: list[SilenceView]
    maintenance: list[MaintenanceView]


def silence_view(silence: Silence, now: datetime) -> SilenceView:
    return SilenceView(
        id=silence.id,
        state=str(silence.state(now)),
        matchers=[str(matcher) for matcher in silence.matchers],
        starts_at=silence.starts_at.astimezone(UTC),
        ends_at=silence.ends_at.astimezone(UTC),
        created_by=PersonView(silence.created_by.id, silence.created_by.name),
        created_at=silence.created_at.astimezone(UTC),
        reason=silence.reason,
        expired_by=person_view(silence.expired_by),
        expired_at=None if silence.expired_at is None else silence.expired_at.astimezone(UTC),
    )


def maintenance_view(window: MaintenanceWindow, now: datetime) -> MaintenanceView:
    period = window.active(now)
    return MaintenanceView(
        name=window.name,
        matchers=[str(matcher) for matcher in window.matchers],
        schedule=str(window.schedule),
        reason=window.reason,
        active_until=None if period is None else period.end,
    )
