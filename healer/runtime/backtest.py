"""The backtest: stored telemetry through the very same turn, in observe mode; and what a change of playbooks changes.

The scheduler and the agents of the time are gone. In their place stand the nodes that the telemetry names, idle and in
service, and the power limits that it reports: enough to say what would have been planned, not what it would have moved.
For a change two more operators take every turn on the same findings, one with the deployed playbooks and one with the
changed ones, and do in memory what they say.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from healer.config import Config
from healer.content.own_verb import refused
from healer.domain.finding import Findings
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.verdict import Mode
from healer.ports import TelemetryHistory
from healer.runtime.comparison import Change, ComparisonView, DifferenceView, compared, differences
from healer.runtime.knowledge import EVERY
from healer.runtime.past import Past
from healer.runtime.side import ActingSide, Side
from healer.runtime.web.views import IncidentView, incident_view
from healer.runtime.wiring import Content
from healer.schema import format_duration


class WindowView(msgspec.Struct, frozen=True):
    start: datetime
    end: datetime
    step: str


class StatsView(msgspec.Struct, frozen=True):
    """Attributes:
    comparison: null if no playbooks were given to compare with.
    """

    samples: int
    gpus: int
    ticks: int
    wall_s: float
    warnings: list[str]
    comparison: ComparisonView | None


class Report(msgspec.Struct, frozen=True):
    """What `healer backtest --json` prints.

    Attributes:
        differences: of the changed playbooks from the deployed ones, incident by incident.
    """

    window: WindowView
    incidents: list[IncidentView]
    stats: StatsView
    differences: list[DifferenceView]


def backtest(
    config: Config,
    content: Content,
    history: TelemetryHistory,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    progress: Callable[[datetime], None],
    change: Change | None = None,
) -> Report:
    """Replay [start, end] and report. Raises Unavailable if the history cannot be had.

    Args:
        change: what the deployed playbooks are compared with; None to compare nothing.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="healer-backtest-") as folder, ExitStack() as stack:
        past, observes = Past(start), config.model_copy(update={"mode": Mode.OBSERVE})
        observing = stack.enter_context(closing(Side(observes, content, past, Path(folder) / "observing")))
        sides = () if change is None else _acting(config, content, past, Path(folder), change)
        replay = _Replay(past, observing, [stack.enter_context(closing(side)) for side in sides])
        for reading in history.replay(start, end, step):
            replay.take(reading)
            progress(reading.at)
        incidents = [incident_view(each) for each in reversed(observing.journal.incidents(limit=EVERY))]
        accounts = [side.account() for side in replay.acting]
        replay.warnings |= {
            f"{name} has no stand-in: what it would have planned is not known"
            for side in (observing, *replay.acting)
            for name in refused(side.verbs)
        }
    stats = StatsView(
        samples=replay.samples,
        gpus=replay.gpus,
        ticks=replay.ticks,
        wall_s=round(time.monotonic() - began, 3),
        warnings=sorted(replay.warnings),
        comparison=None if change is None else compared(change, content.playbooks, *accounts),
    )
    window = WindowView(start, end, format_duration(step))
    return Report(window, incidents, stats, differences(*accounts) if accounts else [])


def _acting(config: Config, content: Content, past: Past, folder: Path, change: Change) -> Iterator[ActingSide]:
    """The deployed playbooks, then the changed ones."""
    acts = config.model_copy(update={"mode": change.mode})
    for name, playbooks in (("deployed", content.playbooks), ("changed", change.playbooks)):
        those = replace(content, playbooks=playbooks)
        yield ActingSide(acts, those, past, folder / name, answer_after=change.answer_after)


class _Replay:
    """Attributes:
    observing: whose looks all sides share.
    acting: with the deployed playbooks, and with the changed ones; none without a change.
    """

    def __init__(self, past: Past, observing: Side, acting: Sequence[ActingSide]) -> None:
        self.samples = self.gpus = self.ticks = 0
        self.warnings: set[str] = set()
        self.observing = observing
        self.acting = acting
        self._past = past

    def take(self, reading: Reading) -> None:
        self._past.goes_on(reading.at)
        seen: list[tuple[Frame, Findings]] = []

        def show(frame: Frame, findings: Findings) -> None:
            self._past.shows(frame)
            self.observing.meet_nodes()
            seen.append((frame, findings))

        self.observing.operator.take(reading, reading.at, seen=show)
        ((frame, findings),) = seen
        for side in self.acting:
            side.go_on(frame, findings)
        self.samples += reading.samples
        self.gpus = max(self.gpus, len(frame.gpus))
        self.ticks += 1
        self.warnings.update(frame.warnings)
