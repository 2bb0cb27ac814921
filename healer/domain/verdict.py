"""Verdict: one reason not to act, as data. No verdict means that nothing speaks against it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Guard(StrEnum):
    MODE = "mode"
    PAUSE = "pause"
    SILENCE = "silence"
    BREAKER = "breaker"
    BASIS = "basis"
    WITNESS = "witness"
    FRESHNESS = "freshness"
    TARGET = "target"
    MOMENT = "moment"
    LEASE = "lease"
    LIMIT = "limit"
    BUDGET = "budget"


class Mode(StrEnum):
    """In the order in which a team comes to trust the daemon."""

    OBSERVE = "observe"
    RECOMMEND = "recommend"
    ACT = "act"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    message: the figures that decided.
    lifts: what would change the answer.
    """

    guard: Guard
    message: str
    lifts: str

    def __str__(self) -> str:
        return f"{self.guard}: {self.message} (lifts when {self.lifts})"
