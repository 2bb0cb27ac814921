"""Snapshot: what the newest turn saw, for the HTTP API, the console and healer's own metrics. Never decided upon."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from healer.domain.finding import FailureMode, Findings, Health
from healer.domain.fleet import Fleet
from healer.domain.frame import Frame
from healer.domain.verdict import Mode
from healer.telemetry.coverage import Gap


@dataclass(frozen=True, slots=True)
class TurnFigures:
    """What the daemon did since it started; counters only grow."""

    turns: int = 0
    failed_turns: int = 0
    samples: int = 0
    last_turn_s: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Attributes:
    at: when the newest turn ended; None before the first.
    findings: of the newest turn that could observe.
    gaps: signals that somebody reads and no exporter gives.
    """

    mode: Mode
    at: datetime | None = None
    frame: Frame | None = None
    fleet: Fleet | None = None
    findings: Findings = field(default_factory=Findings)
    figures: TurnFigures = TurnFigures()
    gaps: tuple[Gap, ...] = ()

    @property
    def health(self) -> Mapping[tuple[FailureMode, Health], int]:
        return self.findings.counts()


class Board:
    """Where the loop pins its newest snapshot and everybody else reads it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._lock = threading.Lock()
        self._snapshot = snapshot

    def pin(self, snapshot: Snapshot) -> None:
        with self._lock:
            self._snapshot = snapshot

    def look(self) -> Snapshot:
        with self._lock:
            return self._snapshot
