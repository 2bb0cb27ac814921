"""Silence: a person's word that certain incidents are to be left alone for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from healer.domain.approval import Person
from healer.domain.matcher import Matcher


class SilenceState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Silence:
    """Attributes:
    matchers: an incident is covered if all of them match.
    ends_at: what was asked for; a person may expire it earlier.
    """

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    created_by: Person
    reason: str
    created_at: datetime
    expired_by: Person | None = None
    expired_at: datetime | None = None

    @property
    def until(self) -> datetime:
        return self.ends_at if self.expired_at is None else min(self.ends_at, self.expired_at)

    def state(self, now: datetime) -> SilenceState:
        """Active from the instant of its start on, and no more at that of its end."""
        if now >= self.until:
            return SilenceState.EXPIRED
        return SilenceState.PENDING if now < self.starts_at else SilenceState.ACTIVE


@dataclass(frozen=True, slots=True)
class Silenced:
    """Why an incident is left alone now.

    Attributes:
        source: the silence's id, or the maintenance window's name.
        by: whose word it is.
    """

    source: str
    by: str
    until: datetime
    reason: str

    def __str__(self) -> str:
        return f"silenced by {self.by} until {self.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}: {self.reason}"
