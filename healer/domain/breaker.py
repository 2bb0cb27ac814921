"""Breaker: it opens when too many nodes would be taken out of service at once, and only a person closes it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from healer.domain.approval import Person


@dataclass(frozen=True, slots=True)
class Trip:
    """One opening of the breaker. While it is not reset, nothing takes a node out of service.

    Attributes:
        reason: the figures that opened it.
        nodes: those that would have been taken out.
        announced: the approval channel was told.
    """

    id: str
    at: datetime
    reason: str
    nodes: tuple[str, ...]
    announced: bool = False
    reset_at: datetime | None = None
    reset_by: Person | None = None
    reset_reason: str = ""

    @property
    def open(self) -> bool:
        return self.reset_at is None
