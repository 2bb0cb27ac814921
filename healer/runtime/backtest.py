"""The backtest: stored telemetry through the very same turn, in observe mode.

The scheduler and the agents of the time are gone. In their place stand the nodes that the telemetry names, idle and in
service, and the power limits that it reports: enough to say what would have been planned, not what it would have moved.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from healer.adapters.journal.sql import SqlJournal
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.config import Config
from healer.content.own_verb import refused, rehearsed
from healer.domain.care import CareOrder, CareReport, GpuUse, NodeCondition
from healer.domain.component import Component
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.domain.ticket import Ticket
from healer.domain.verdict import Mode
from healer.errors import Rejected, Unavailable
from healer.ports import TelemetryHistory
from healer.runtime.knowledge import Outside
from healer.runtime.snapshot import Board, Snapshot
from healer.runtime.web.views import IncidentView, incident_view
from healer.runtime.wiring import Content, build_operator
from healer.schema import format_duration

_MANY = 1_000_000
_LEASE = timedelta(days=36500)


class WindowView(msgspec.Struct, frozen=True):
    start: datetime
    end: datetime
    step: str


class StatsView(msgspec.Struct, frozen=True):
    samples: int
    gpus: int
    ticks: int
    wall_s: float
    warnings: list[str]


class Report(msgspec.Struct, frozen=True):
    """What `healer backtest --json` prints."""

    window: WindowView
    incidents: list[IncidentView]
    stats: StatsView


def backtest(
    config: Config,
    content: Content,
    history: TelemetryHistory,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    progress: Callable[[datetime], None],
) -> Report:
    """Replay [start, end] and report. Raises Unavailable if the history cannot be had."""
    began = time.monotonic()
    observing = config.model_copy(update={"mode": Mode.OBSERVE})
    with tempfile.TemporaryDirectory(prefix="healer-backtest-") as folder:
        journal = SqlJournal(f"sqlite:///{Path(folder) / 'journal.db'}")
        try:
            # Today's answer of whatever a verb asks is no answer about then.
            replay = _Replay(observing, replace(content, verbs=rehearsed(content.verbs)), journal, start)
            for reading in history.replay(start, end, step):
                replay.take(reading)
                progress(reading.at)
            replay.warnings.update(
                f"{name} has no stand-in: what it would have planned is not known" for name in refused(replay.verbs)
            )
            incidents = [incident_view(incident) for incident in reversed(journal.incidents(limit=_MANY))]
        finally:
            journal.close()
    stats = StatsView(
        samples=replay.samples,
        gpus=replay.gpus,
        ticks=replay.ticks,
        wall_s=round(time.monotonic() - began, 3),
        warnings=sorted(replay.warnings),
    )
    return Report(WindowView(start, end, format_duration(step)), incidents, stats)


class _Replay:
    """The clock, and a stand-in for the telemetry source, the agents and tickets, at the time of the newest reading."""

    name = "replay"

    def __init__(self, config: Config, content: Content, journal: SqlJournal, start: datetime) -> None:
        self.samples = self.gpus = self.ticks = 0
        self.warnings: set[str] = set()
        self.verbs = content.verbs
        self._now = start
        self._frame: Frame | None = None
        self._rows: dict[str, list[int]] = {}  # of the frame's GPUs, by node
        self._cluster = SimulatedCluster({}, clock=self)
        journal.lead("backtest", start, _LEASE)
        care = None if config.agent.url is None else self
        outside = Outside(self, cluster=self._cluster, power=self, tickets=self, care=care, is_replay=True)
        self._operator = build_operator(
            config, content=content, outside=outside, journal=journal, board=Board(Snapshot(config.mode)), clock=self
        )

    def now(self) -> datetime:
        return self._now

    def read(self, at: datetime) -> Reading:
        raise Unavailable("replay", f"has nothing beyond its own readings, asked for {at}")

    def take(self, reading: Reading) -> None:
        self._now = reading.at
        self._operator.take(reading, reading.at, seen=self._meet_nodes)
        frame = self._seen()
        self.samples += reading.samples
        self.gpus = max(self.gpus, len(frame.gpus))
        self.ticks += 1
        self.warnings.update(frame.warnings)

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        frame, rows = self._seen(), self._rows.get(node, [])
        limit, power = frame.latest(Signal.POWER_LIMIT)[rows], frame.latest(Signal.POWER)[rows]
        if np.isnan(limit).any() or np.isnan(power).any():
            raise Unavailable("replay", f"the telemetry of {node} has no power limits")
        return tuple(
            GpuPower(
                node=node,
                gpu=index,
                uuid=str(frame.gpus.components[row].uuid),
                limit_w=float(limit[index]),
                default_w=float(limit[index]),
                min_w=0.0,
                max_w=float(limit[index]),
                power_w=float(power[index]),
            )
            for index, row in enumerate(rows)
        )

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:
        raise Rejected("replay", f"nothing acts in a backtest: {node} {limits_w} {ttl} {fallback_w}")

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        raise Rejected("replay", f"nothing acts in a backtest: {node} {gpus}")

    def open(self, ticket: Ticket) -> str:
        raise Rejected("replay", f"nothing acts in a backtest: {ticket.title}")

    def find(self, key: str) -> str | None:  # noqa: ARG002
        return None

    def condition(self, node: str) -> NodeCondition:
        frame = self._seen()
        shown = {
            frame.gpus.components[row].device: frame.gpus.components[row]
            for row in self._rows.get(node, [])
            if frame.current[row]
        }
        return NodeCondition("replay", tuple(GpuUse(_index(gpu), uuid, 0) for uuid, gpu in shown.items()))

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        raise Rejected("replay", f"nothing acts in a backtest: {node} {key} {order}")

    def report(self, node: str, key: str) -> CareReport | None:  # noqa: ARG002
        return None

    def _meet_nodes(self, frame: Frame) -> None:
        self._frame, self._rows = frame, {}
        for row, gpu in enumerate(frame.gpus.components):
            if gpu.node is not None:
                self._rows.setdefault(gpu.node, []).append(row)
                self._cluster.add_node(gpu.node, rack=gpu.rack)

    def _seen(self) -> Frame:
        if self._frame is None:
            raise Unavailable("replay", "nothing was replayed yet")
        return self._frame


def _index(gpu: Component) -> int:
    """On its node; 0 where its label is no number: nothing acts by it here."""
    index = (gpu.gpu or "").partition(":")[0]
    return int(index) if index.isdecimal() else 0
