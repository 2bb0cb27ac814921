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
    """

    name: str
    ready: bool
    cordoned: bool
    cordoned_by: str | None = None
    rack: str | None = None

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
