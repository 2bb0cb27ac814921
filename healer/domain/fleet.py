"""Fleet: what the scheduler says of the nodes. The second witness beside the telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Node:
    """Attributes:
    cordoned_by: the run that cordoned it, if we did; None for a person's cordon as well as for none.
    lost_gpus: how many of its GPUs the scheduler cannot give to work, because their driver does not vouch for them.
    pool: of the nodes that do the same work, if it is in one.
    """

    name: str
    ready: bool
    cordoned: bool
    cordoned_by: str | None = None
    rack: str | None = None
    lost_gpus: int = 0
    pool: str | None = None

    @property
    def available(self) -> bool:
        return self.ready and not self.cordoned


@dataclass(frozen=True, slots=True)
class Fleet:
    """Attributes:
    problem: why the scheduler could not be asked; then `nodes` is empty and means nothing.
    """

    as_of: datetime
    nodes: Mapping[str, Node] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """Through what healer can act at this site: each is whether it is configured, not whether it answers."""

    agent: bool = False
    power: bool = False
    scheduler: bool = False


class Disposition(StrEnum):
    """What draining a node does with a workload, by kubectl's rules."""

    EVICT = "evict"
    STAYS = "stays"  # DaemonSet, mirror or finished: not moved, does not count
    REFUSES = "refuses"  # moving it would lose it: no controller would make it again


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod, a Slurm job, a Ray actor: what runs on a node.

    Attributes:
        owner: what would make it again, as "Kind/name" in its namespace; stable while the workload itself churns.
        leaving: it was asked to go and has not gone yet.
        why: the reason for a disposition other than EVICT, and for EVICT what is lost.
        blocked_by: the disruption budget that would refuse now, by name.
    """

    namespace: str
    name: str
    uid: str
    node: str
    owner: str
    disposition: Disposition
    leaving: bool = False
    why: str = ""
    blocked_by: str | None = None

    @property
    def stable_name(self) -> str:
        return f"{self.namespace}/{self.owner}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class GangEnd(StrEnum):
    """How a job has ended."""

    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GangPod:
    """A pod of a job that has not ended.

    Attributes:
        node: empty while it is on none.
        running: it runs, and nobody has asked it to go.
    """

    name: str
    node: str
    running: bool


@dataclass(frozen=True, slots=True)
class Gang:
    """A job whose pods start, work and end together.

    Attributes:
        suspended_by: the run that suspended it, if we did; None for a person's suspension as well as for none.
        pods: all that have not ended, those that are leaving included.
        why_not: why it cannot be restarted whole; empty if it can be.
        end: None while it has not ended.
        priority: the scheduler's, the highest of its pods; 0 where none was given.
    """

    namespace: str
    kind: str
    name: str
    suspended: bool = False
    suspended_by: str | None = None
    pods: tuple[GangPod, ...] = ()
    why_not: str = ""
    end: GangEnd | None = None
    priority: int = 0

    @property
    def stable_name(self) -> str:
        """As topology names the job, and as `Workload.stable_name` does."""
        return f"{self.namespace}/{self.kind}/{self.name}"

    @property
    def running(self) -> int:
        return sum(pod.running for pod in self.pods)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({pod.node for pod in self.pods if pod.node}))

    def __str__(self) -> str:
        return self.stable_name


def parse_gang_name(name: str) -> tuple[str, str, str] | None:
    """Namespace, kind and name of a job named "namespace/Kind/name"; None if it is named otherwise."""
    parts = tuple(name.split("/"))
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None


@dataclass(frozen=True, slots=True)
class GpuPower:
    """The power limit of one GPU as its node's agent reports it, in watts."""

    node: str
    gpu: int
    uuid: str
    limit_w: float
    default_w: float
    min_w: float
    max_w: float
    power_w: float
