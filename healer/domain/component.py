"""Component: the thing that a finding names and a plan acts on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ComponentKind(StrEnum):
    GPU = "gpu"
    NODE = "node"
    RACK = "rack"
    POWER_FEED = "power_feed"
    JOB = "job"
    LINK = "link"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Component:
    """One component by the names that the telemetry carries. Keys that do not apply, or are not known, are None."""

    kind: ComponentKind
    rack: str | None = None
    node: str | None = None
    gpu: str | None = None  # the index on its node, as a label: "0", or "0:3" for MIG instance 3
    uuid: str | None = None
    job: str | None = None
    link: str | None = None

    @classmethod
    def finest(
        cls, *, rack: str | None = None, node: str | None = None, gpu: str | None = None, job: str | None = None
    ) -> Component | None:
        """What the names are about, the finest of them: a GPU rather than its node; None if there is no name."""
        kinds = (
            (ComponentKind.GPU, gpu),
            (ComponentKind.NODE, node),
            (ComponentKind.RACK, rack),
            (ComponentKind.JOB, job),
        )
        kind = next((kind for kind, name in kinds if name is not None), None)
        return None if kind is None else cls(kind, rack=rack, node=node, gpu=gpu, job=job)

    @property
    def key(self) -> str:
        """What makes two findings speak of the same component. A GPU is its UUID: indices and labels churn."""
        return f"{self.kind}/{self._name}"

    @property
    def device(self) -> str:
        """The physical GPU, which all its MIG instances share."""
        return self.uuid or f"{self.node}/{(self.gpu or '').partition(':')[0]}"

    @property
    def _name(self) -> str:
        match self.kind:
            case ComponentKind.GPU:
                instance = (self.gpu or "").partition(":")[2]
                return f"{self.uuid or f'{self.node}/{self.gpu}'}" + (f":{instance}" if self.uuid and instance else "")
            case ComponentKind.NODE:
                return str(self.node)
            case ComponentKind.RACK:
                return str(self.rack)
            case ComponentKind.JOB:
                return str(self.job)
            case ComponentKind.LINK | ComponentKind.POWER_FEED | ComponentKind.SOURCE:  # pragma: no branch
                return str(self.link)

    def __str__(self) -> str:
        match self.kind:
            case ComponentKind.GPU:
                return f"GPU {self.gpu or self.uuid} of {self.node or 'an unknown node'}"
            case ComponentKind.NODE:
                return f"node {self.node}"
            case ComponentKind.RACK:
                return f"rack {self.rack}"
            case ComponentKind.JOB:
                return f"job {self.job}"
            case ComponentKind.LINK | ComponentKind.POWER_FEED | ComponentKind.SOURCE:  # pragma: no branch
                return f"{self.kind} {self.link}"
