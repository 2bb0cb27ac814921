"""Finding: what a detector concludes about one component, and what it could say about all the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component, ComponentKind


class FailureMode(StrEnum):
    """The stable key that selects a playbook."""

    GPU_UNCORRECTABLE_ECC = "GpuUncorrectableEcc"
    GPU_CORRECTABLE_ECC_STORM = "GpuCorrectableEccStorm"
    GPU_ROW_REMAP_PENDING = "GpuRowRemapPending"
    GPU_ROW_REMAP_FAILED = "GpuRowRemapFailed"
    GPU_FELL_OFF_BUS = "GpuFellOffBus"
    GPU_XID = "GpuXid"
    GPU_THERMAL_LIMIT = "GpuThermalLimit"
    GPU_COOLING_DEGRADED = "GpuCoolingDegraded"
    RACK_COOLING_DEGRADED = "RackCoolingDegraded"
    GPU_POWER_BRAKE = "GpuPowerBrake"
    RACK_POWER_OVER_BUDGET = "RackPowerOverBudget"
    RACK_POWER_FEED_LOST = "RackPowerFeedLost"
    GPU_THROTTLED = "GpuThrottled"
    NVLINK_ERRORS = "NvlinkErrors"
    NVLINK_DOWN = "NvlinkDown"
    PCIE_DEGRADED = "PcieDegraded"
    FABRIC_LINK_FLAP = "FabricLinkFlap"
    JOB_STALLED = "JobStalled"
    JOB_STRAGGLER = "JobStraggler"
    TELEMETRY_LOST = "TelemetryLost"
    NODE_UNREACHABLE = "NodeUnreachable"
    GPU_FAILURE_PREDICTED = "GpuFailurePredicted"
    GPU_ANOMALY = "GpuAnomaly"


_MOST = 0.75


class Health(IntEnum):
    """Ordered by how bad it is, so that the worse of two is their maximum; UNKNOWN is outside of the order.

    An integer because detectors hold one per component in an int8 array.
    """

    UNKNOWN = -1
    HEALTHY = 0
    DEGRADED = 1
    FAILED = 2


class Basis(StrEnum):
    """What a finding rests on. A plan that rests on a learnt score alone may not drain (design, safety rule 11)."""

    RULE = "rule"
    LEARNT = "learnt"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One series that convinced the detector. A value that is not a finite number is unknown: None.

    Attributes:
        points: the series itself, as far as it was looked at: (time, value), oldest first.
    """

    signal: str
    value: float | None
    unit: str
    at: datetime
    note: str = ""
    points: tuple[tuple[datetime, float], ...] = ()

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


@dataclass(frozen=True, slots=True)
class Finding:
    """Attributes:
    score: 0 to 1, how sure the detector is; 1 for a rule that the data meets outright.
    reason: one sentence for the person who has to decide, with the figures.
    culprit: of a job or a rack, the part that is to blame; None where nobody can tell.
    disputed: who said what, one sentence each, where sources disagree.
    members: of what is no component with GPUs of its own (a source, a switch), what it is about.
    vanished: concluded only from what is not shown any more: the telemetry's own path is the first suspect.
    lags: for so long after its end it may still be told of.
    """

    failure_mode: FailureMode
    component: Component
    health: Health
    score: float
    reason: str
    basis: Basis = Basis.RULE
    evidence: tuple[Evidence, ...] = ()
    culprit: Component | None = None
    disputed: tuple[str, ...] = ()
    members: tuple[Component, ...] = ()
    vanished: bool = False
    lags: timedelta = timedelta(0)

    @property
    def key(self) -> str:
        return f"{self.failure_mode}@{self.component.key}"


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What one detector could say of every component of one kind, on one failure mode.

    Attributes:
        health: (n_components,) int8 of Health, in the row order of the frame's axis of that kind.
    """

    failure_mode: FailureMode
    kind: ComponentKind
    health: NDArray[np.int8]
    basis: Basis = Basis.RULE


@dataclass(frozen=True, slots=True)
class Report:
    """What another system says of one component, which need not be on any axis of the frame.

    Attributes:
        health: UNKNOWN when what it said last is too old to count; of what it never spoke of there is no report.
    """

    failure_mode: FailureMode
    component: Component
    health: Health

    @property
    def key(self) -> str:
        return f"{self.failure_mode}@{self.component.key}"


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """One detector's, or all detectors', conclusions on one frame.

    Without its judgement, or its report, a missing finding would be ambiguous: observed healthy, or not observed at
    all.
    """

    found: tuple[Finding, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    reports: tuple[Report, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.found + other.found, self.judgements + other.judgements, self.reports + other.reports)

    def doubting(self, kind: ComponentKind, doubtful: NDArray[np.bool_]) -> Findings:
        """The same, but nothing of what is `doubtful` (n_components,) is healthy: it was not observed."""
        judgements = tuple(
            replace(j, health=np.where(doubtful & (j.health == Health.HEALTHY), np.int8(Health.UNKNOWN), j.health))
            if j.kind is kind
            else j
            for j in self.judgements
        )
        return replace(self, judgements=judgements)

    def health_of(self, mode: FailureMode, kind: ComponentKind, row: int | None) -> Health:
        """The health that was observed for the component at `row` of its kind's axis; UNKNOWN if nobody judged it."""
        if row is None:
            return Health.UNKNOWN
        verdicts = [int(j.health[row]) for j in self.judgements if j.failure_mode is mode and j.kind is kind]
        return Health(max(verdicts, default=-1))

    def health_of_all(self, mode: FailureMode, kind: ComponentKind, rows: NDArray[np.int64]) -> Health:
        """The worst health that was observed at these rows; UNKNOWN while more than a quarter of them were not."""
        verdicts = [j.health[rows] for j in self.judgements if j.failure_mode is mode and j.kind is kind]
        if not verdicts or not len(rows):
            return Health.UNKNOWN
        worst = np.maximum.reduce(verdicts)
        known = np.count_nonzero(worst > Health.UNKNOWN) >= _MOST * len(rows)
        return Health(int(worst.max())) if known or worst.max() > Health.HEALTHY else Health.UNKNOWN

    def counts(self) -> Mapping[tuple[FailureMode, Health], int]:
        """How many components each mode judged how: for metrics and the console."""
        worst: dict[tuple[FailureMode, ComponentKind], NDArray[np.int8]] = {}
        for judged in self.judgements:
            key = (judged.failure_mode, judged.kind)
            worst[key] = np.maximum(worst[key], judged.health) if key in worst else judged.health
        return {
            (mode, health): int(np.count_nonzero(healths == health))
            for (mode, _), healths in worst.items()
            for health in Health
        }
