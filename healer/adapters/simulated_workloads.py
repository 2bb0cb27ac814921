"""What there is in a simulated cluster, and what healer did to it: values, which nothing here changes by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from healer.domain.fleet import Disposition, Gang, GangPod, Workload

DISPOSITIONS = {
    "DaemonSet": (Disposition.STAYS, "its DaemonSet would start it here again"),
    "Pod": (Disposition.REFUSES, "no controller would make it again"),
}
WHY_NOT_WHOLE = {
    "DaemonSet": "a DaemonSet cannot be suspended",
    "Deployment": "a Deployment cannot be suspended",
    "Pod": "no controller would make it again",
}


class Verb(StrEnum):
    """What healer can change in a cluster."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    EVICT = "evict"
    SUSPEND = "suspend"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Effect:
    """One change that healer made. Answers that changed nothing leave none.

    Attributes:
        node: empty for a job.
        by, reason: of a cordon or a suspension; empty for an eviction.
        workload: as namespace/name; of an eviction.
        of: the workload or the job by the name that does not churn, as plans have it.
    """

    at: datetime
    verb: Verb
    node: str
    by: str = ""
    reason: str = ""
    workload: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """At least `min_available` workloads of one owner stay."""

    namespace: str
    name: str
    owner: str
    min_available: int


@dataclass(frozen=True, slots=True)
class Placed:
    workload: Workload
    gpus: int
    ends_at: datetime | None = None  # when it is gone, once it is leaving
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Suspension:
    """Attributes:
    by: the run; None for a person.
    kept: what is made again when the job is resumed.
    """

    by: str | None
    kept: list[Placed] = field(default_factory=list)


def budget_names(budgets: Iterable[Budget]) -> str:
    return ", ".join(f"{budget.namespace}/{budget.name}" for budget in budgets)


def leaving(workload: Workload) -> Workload:
    """What leaves anyway is waited for, whoever made it; only what stays does not count."""
    if workload.disposition is Disposition.STAYS:
        return replace(workload, leaving=True)
    return replace(workload, leaving=True, disposition=Disposition.EVICT, why="")


def gang_of(name: tuple[str, str, str], pods: Collection[Placed], suspension: Suspension | None) -> Gang:
    """Args:
    name: namespace, kind and name.
    pods: those of it that have not ended, on a node or not.
    """
    return Gang(
        *name,
        suspended=suspension is not None,
        suspended_by=None if suspension is None else suspension.by,
        pods=tuple(_gang_pod(pod.workload) for pod in pods),
        why_not=WHY_NOT_WHOLE.get(name[1], ""),
        priority=max((pod.priority for pod in pods), default=0),
    )


def _gang_pod(pod: Workload) -> GangPod:
    return GangPod(pod.name, pod.node, running=bool(pod.node) and not pod.leaving)
