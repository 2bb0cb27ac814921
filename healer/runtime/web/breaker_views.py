"""Views of the breaker: whether it is open, what opens it, and when it did."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from healer.domain.breaker import Trip
from healer.runtime.web.record_views import PersonView, person_view


class TripView(msgspec.Struct, frozen=True):
    """Attributes:
    nodes: those that would have been taken out.
    """

    id: str
    at: datetime
    reason: str
    nodes: list[str]
    reset_at: datetime | None
    reset_by: PersonView | None
    reset_reason: str


class BreakerView(msgspec.Struct, frozen=True):
    """Attributes:
    open: nothing takes a node out of service.
    trips: newest first.
    """

    open: bool
    trips: list[TripView]


def breaker_view(trips: tuple[Trip, ...]) -> BreakerView:
    return BreakerView(bool(trips) and trips[0].open, [trip_view(trip) for trip in trips])


def trip_view(trip: Trip) -> TripView:
    return TripView(
        id=trip.id,
        at=trip.at.astimezone(UTC),
        reason=trip.reason,
        nodes=list(trip.nodes),
        reset_at=None if trip.reset_at is None else trip.reset_at.astimezone(UTC),
        reset_by=person_view(trip.reset_by),
        reset_reason=trip.reset_reason,
    )
