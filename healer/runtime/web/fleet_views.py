"""Views of the fleet: nodes, GPUs and models as the newest turn saw them, by pure functions of the snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from healer.domain.component import ComponentKind
from healer.domain.finding import Basis, Health
from healer.domain.frame import Floats, Frame, Presence
from healer.domain.signal import Signal
from healer.errors import Unavailable
from healer.runtime.snapshot import Snapshot
from healer.runtime.web.views import known


class Condition(StrEnum):
    """What is shown of a component. PARTIAL: healthy as far as it was judged, but something could not be judged."""

    HEALTHY = "healthy"
    PARTIAL = "partial"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class GpuView(msgspec.Struct, frozen=True):
    """Attributes: `presence`: how the GPU stands in the newest telemetry, see Presence."""

    gpu: str | None
    uuid: str | None
    model: str
    rack: str | None
    job: str | None
    condition: Condition
    presence: str
    unjudged: list[str]
    temperature_c: float | None
    power_w: float | None
    score: float | None
    age_s: float | None


class NodeView(msgspec.Struct, frozen=True):
    """Attributes: `ready`, `cordoned` are null when the scheduler was not asked or does not know the node."""

    name: str | None
    rack: str | None
    ready: bool | None
    cordoned: bool | None
    cordoned_by: str | None
    gpus: list[GpuView]


class GapView(msgspec.Struct, frozen=True):
    """A signal that a detector or model reads and that `lacking` of `of` GPUs never had a value for."""

    reader: str
    signal: str
    vendor: str | None
    lacking: int
    of: int
    metrics: list[str]


class TelemetryView(msgspec.Struct, frozen=True):
    """What the newest turn could see, and what it could not.

    Attributes:
        presence: how many GPUs stand how.
        samples: taken in since the daemon started.
    """

    as_of: datetime | None
    gpus: int
    samples: int
    presence: dict[str, int]
    gaps: list[GapView]
    warnings: list[str]


class ModelView(msgspec.Struct, frozen=True):
    """The newest scores of one model, over the GPUs that it could score."""

    name: str
    scored: int
    unknown: int
    median: float | None
    p99: float | None
    highest: float | None


def node_views(snapshot: Snapshot) -> tuple[NodeView, ...]:
    """Every node that the telemetry or the scheduler knows, by name; GPUs without a node come last under null.

    Raises Unavailable before the first frame: that nothing is known of the fleet is not an empty fleet.
    """
    frame = _frame(snapshot)
    by_node: dict[str | None, list[GpuView]] = {}
    for component, view in zip(frame.gpus.components, _gpu_views(snapshot, frame), strict=True):
        by_node.setdefault(component.node, []).append(view)
    scheduled = {} if snapshot.fleet is None else snapshot.fleet.nodes
    names = sorted({*by_node, *scheduled}, key=lambda name: (name is None, name or ""))
    views = []
    for name in names:
        node = None if name is None else scheduled.get(name)
        gpus = by_node.get(name, [])
        views.append(
            NodeView(
                name=name,
                rack=next((gpu.rack for gpu in gpus if gpu.rack), node.rack if node else None),
                ready=node.ready if node else None,
                cordoned=node.cordoned if node else None,
                cordoned_by=node.cordoned_by if node else None,
                gpus=gpus,
            )
        )
    return tuple(views)


def telemetry_view(snapshot: Snapshot) -> TelemetryView:
    """Raises Unavailable before the first frame."""
    frame = _frame(snapshot)
    gaps = [
        GapView(gap.reader, str(gap.signal), gap.vendor, gap.lacking, gap.of, list(gap.metrics))
        for gap in snapshot.gaps
    ]
    return TelemetryView(
        as_of=snapshot.at,
        gpus=len(frame.gpus),
        samples=snapshot.figures.samples,
        presence=presence_counts(frame),
        gaps=gaps,
        warnings=list(frame.warnings),
    )


def presence_counts(frame: Frame) -> dict[str, int]:
    counts = np.bincount(frame.presence, minlength=len(Presence)).tolist()
    return {presence.name.lower(): counts[presence] for presence in Presence}


def model_views(snapshot: Snapshot) -> tuple[ModelView, ...]:
    """Raises Unavailable before the first frame."""
    return tuple(_model_view(name, scores) for name, scores in sorted(_frame(snapshot).scores.items()))


def conditions(snapshot: Snapshot, frame: Frame) -> NDArray[np.str_]:
    """(n_gpus,) of Condition. Unknown never reads as healthy: not even when another detector said healthy.

    Only rules can say healthy. A model may add that something is wrong; that it cannot judge, as while the power is not
    steady, takes nothing away.
    """
    judged = [j for j in snapshot.findings.judgements if _covers_gpus(j.kind, j.health, frame)]
    unknown = np.full(len(frame.gpus), int(Health.UNKNOWN), dtype=np.int8)
    rules = np.stack([unknown, *(j.health for j in judged if j.basis is Basis.RULE)])
    learnt = np.stack([unknown, *(j.health for j in judged if j.basis is Basis.LEARNT)])
    worst = np.maximum(rules.max(axis=0), np.where(learnt.max(axis=0) > Health.HEALTHY, learnt.max(axis=0), unknown))
    for report in snapshot.findings.reports:
        row = frame.row_of(report.component) if report.component.kind is ComponentKind.GPU else None
        if row is not None and report.health > Health.HEALTHY:
            worst[row] = max(int(worst[row]), report.health)
    gaps = (rules[1:] == Health.UNKNOWN).any(axis=0)
    sound = worst == Health.HEALTHY
    shown = [worst == Health.FAILED, worst == Health.DEGRADED, sound & gaps, sound]
    names = [Condition.FAILED, Condition.DEGRADED, Condition.PARTIAL, Condition.HEALTHY]
    return np.select(shown, [str(name) for name in names], default=str(Condition.UNKNOWN))


def _gpu_views(snapshot: Snapshot, frame: Frame) -> Iterable[GpuView]:
    condition = conditions(snapshot, frame).tolist()
    temperature, power = frame.latest(Signal.GPU_TEMPERATURE).tolist(), frame.latest(Signal.POWER).tolist()
    score, age, presence = highest_scores(frame).tolist(), frame.age_s.tolist(), frame.presence.tolist()
    judgements = [j for j in snapshot.findings.judgements if _covers_gpus(j.kind, j.health, frame)]
    for row, component in enumerate(frame.gpus.components):
        yield GpuView(
            gpu=component.gpu,
            uuid=component.uuid,
            model=frame.gpus.models[row],
            rack=component.rack,
            job=component.job,
            condition=Condition(condition[row]),
            presence=Presence(presence[row]).name.lower(),
            unjudged=[str(j.failure_mode) for j in judgements if j.health[row] == Health.UNKNOWN],
            temperature_c=known(temperature[row]),
            power_w=known(power[row]),
            score=known(score[row]),
            age_s=known(age[row]),
        )


def highest_scores(frame: Frame) -> Floats:
    """(n_gpus,) the highest score of any model, NaN where none could score."""
    highest: Floats = np.fmax.reduce([*frame.scores.values(), np.full(len(frame.gpus), np.nan)])
    return highest


def _covers_gpus(kind: ComponentKind, health: NDArray[np.int8], frame: Frame) -> bool:
    return kind is ComponentKind.GPU and len(health) == len(frame.gpus)


def _model_view(name: str, scores: Floats) -> ModelView:
    scored = scores[~np.isnan(scores)]
    middle, high, top = np.quantile(scored, [0.5, 0.99, 1.0]).tolist() if len(scored) else (None, None, None)
    return ModelView(
        name=name, scored=len(scored), unknown=len(scores) - len(scored), median=middle, p99=high, highest=top
    )


def _frame(snapshot: Snapshot) -> Frame:
    if snapshot.frame is None:
        raise Unavailable("telemetry", snapshot.figures.last_error or "no turn has observed the fleet yet")
    return snapshot.frame
