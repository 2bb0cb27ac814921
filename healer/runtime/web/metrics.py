"""The daemon's own metrics, computed at the scrape from the newest snapshot and the journal: nothing counts twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from healer import __version__
from healer.domain.approval import ApprovalState
from healer.domain.frame import Frame
from healer.domain.incident import IncidentState
from healer.domain.run import RunState
from healer.domain.silence import SilenceState
from healer.domain.verdict import Mode
from healer.errors import Unavailable
from healer.ports import Journal
from healer.runtime.snapshot import Snapshot
from healer.runtime.web.fleet_views import Condition, conditions, model_views, presence_counts


def exposition(journal: Journal, snapshot: Snapshot, now: datetime, alerts: Mapping[str, int] | None = None) -> bytes:
    """In Prometheus' text format.

    Args:
        alerts: how many alerts that were sent to us met which fate; None if none are taken.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_AtScrape(journal, snapshot, now, alerts))
    return generate_latest(registry)


class _AtScrape(Collector):
    def __init__(self, journal: Journal, snapshot: Snapshot, now: datetime, alerts: Mapping[str, int] | None) -> None:
        self._journal = journal
        self._snapshot = snapshot
        self._now = now
        self._alerts = alerts

    def collect(self) -> Iterable[Metric]:
        yield from _daemon(self._snapshot)
        if self._snapshot.frame is not None:
            yield from _fleet(self._snapshot, self._snapshot.frame)
        if self._alerts is not None:
            told = CounterMetricFamily("healer_alerts", "Alerts that were sent to us, by their fate", labels=["fate"])
            for fate, count in self._alerts.items():
                told.add_metric([fate], count)
            yield told
        yield from self._of_journal()

    def _of_journal(self) -> Iterable[Metric]:
        """What the journal could not say is left out: a zero would read as "none"."""
        try:
            known, up = _journal(self._journal, self._now), 1.0
        except Unavailable:
            known, up = [], 0.0
        return [_gauge("healer_journal_up", "Whether the journal answered at this scrape", up), *known]


def _daemon(snapshot: Snapshot) -> Iterable[Metric]:
    figures = snapshot.figures
    yield _labelled("healer_build_info", "Version of the daemon", "version", {__version__: 1.0})
    modes = {str(mode): float(mode is snapshot.mode) for mode in Mode}
    yield _labelled("healer_mode", "1 for the mode that the daemon is in", "mode", modes)
    yield _counter("healer_turns", "Turns of the loop", figures.turns)
    yield _counter("healer_turn_failures", "Turns that failed", figures.failed_turns)
    yield _counter("healer_samples", "Telemetry samples read", figures.samples)
    yield _gauge("healer_last_turn_seconds", "How long the newest turn took", figures.last_turn_s)
    if snapshot.at is not None:
        ended = snapshot.at.timestamp()
        yield _gauge("healer_last_turn_timestamp_seconds", "When the newest successful turn ended", ended)


def _fleet(snapshot: Snapshot, frame: Frame) -> Iterable[Metric]:
    counted = Counter(conditions(snapshot, frame).tolist())
    by_condition = {str(condition): float(counted[str(condition)]) for condition in Condition}
    yield _labelled("healer_gpus", "GPUs by what is shown of them", "condition", by_condition)
    shown = {name: float(count) for name, count in presence_counts(frame).items()}
    yield _labelled("healer_gpus_presence", "GPUs by how they stand in the telemetry", "presence", shown)
    whose = ["reader", "signal", "vendor"]
    lacking = GaugeMetricFamily("healer_signal_missing_gpus", "GPUs that never showed what is read", labels=whose)
    for gap in snapshot.gaps:
        lacking.add_metric([gap.reader, str(gap.signal), gap.vendor or ""], gap.lacking)
    yield lacking
    judged = GaugeMetricFamily(
        "healer_components", "Components by failure mode and judged health", labels=["failure_mode", "health"]
    )
    for (mode, health), count in sorted(snapshot.health.items()):
        judged.add_metric([str(mode), health.name.lower()], count)
    yield judged
    yield _gauge("healer_telemetry_warnings", "Warnings beside the newest telemetry", len(frame.warnings))
    yield from _racks(frame)
    yield from _models(snapshot)


def _racks(frame: Frame) -> Iterable[Metric]:
    names = [str(component.rack) for component in frame.racks.components]
    power = frame.racks.power_w[-1] if len(frame.racks.power_w) else np.full(len(names), np.nan)
    for name, text, values in (
        ("healer_rack_power_watts", "Measured power of the rack", power),
        ("healer_rack_budget_watts", "Budget of the rack", frame.racks.budget_w),
    ):
        known = {rack: watts for rack, watts in zip(names, values.tolist(), strict=True) if np.isfinite(watts)}
        yield _labelled(name, text, "rack", known)


def _models(snapshot: Snapshot) -> Iterable[Metric]:
    scores = GaugeMetricFamily("healer_model_score", "Newest scores over the GPUs", labels=["model", "quantile"])
    scored = GaugeMetricFamily("healer_model_gpus", "GPUs that the model could score", labels=["model", "scored"])
    for view in model_views(snapshot):
        for quantile, value in (("0.5", view.median), ("0.99", view.p99), ("1", view.highest)):
            if value is not None:
                scores.add_metric([view.name, quantile], value)
        scored.add_metric([view.name, "true"], view.scored)
        scored.add_metric([view.name, "false"], view.unknown)
    return [scores, scored]


def _journal(journal: Journal, now: datetime) -> list[Metric]:
    counts = journal.counts()
    pending = [
        approval
        for approval in journal.approvals(open_only=True)
        if approval.state is ApprovalState.PENDING and now < approval.expires_at
    ]
    unended = Counter(str(silence.state(now)) for silence in journal.silences(unended_at=now))
    silences = {str(state): float(unended[state]) for state in (SilenceState.PENDING, SilenceState.ACTIVE)}
    trips = journal.trips(limit=1)
    return [
        _gauge("healer_breaker_open", "Whether the storm breaker is open", float(bool(trips) and trips[0].open)),
        _labelled("healer_silences", "Silences that people made and that have not ended", "state", silences),
        _labelled("healer_incidents", "Incidents by state", "state", _by_state(counts.incidents, IncidentState)),
        _labelled("healer_runs", "Runs by state", "state", _by_state(counts.runs, RunState)),
        _gauge("healer_approvals_pending", "Questions that wait for a person", len(pending)),
    ]


def _by_state(counts: Mapping[str, int], states: type[StrEnum]) -> Mapping[str, float]:
    return {str(state): float(counts.get(str(state), 0)) for state in states}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
