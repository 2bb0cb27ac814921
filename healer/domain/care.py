"""Care: what a node's agent does to its node when it is told to, how far that is, and how the node stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from healer.domain.component import Component


class Operation(StrEnum):
    RESET_GPU = "reset_gpu"
    REBOOT = "reboot"
    BURN_IN = "burn_in"  # the device test, under load
    COLLECT = "collect"  # logs and the state of the devices are put aside


@dataclass(frozen=True, slots=True)
class CareOrder:
    """One operation, with what it needs to be told.

    Attributes:
        gpu, uuid: of a reset, by index and by UUID; the agent refuses if these are not the same device.
        duration: of a burn-in.
    """

    operation: Operation
    gpu: int | None = None
    uuid: str | None = None
    duration: timedelta | None = None


class CareState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CareReport:
    """How far one operation is.

    Attributes:
        detail: for people: where the evidence is, which test failed on which GPU.
        ended_at: None while it is running.
    """

    state: CareState
    detail: str
    started_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU that the node's driver lists.

    Attributes:
        processes: how many have it open.
    """

    gpu: int
    uuid: str
    processes: int


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """Attributes:
    boot_id: another one after each boot.
    gpus: those that the driver lists; one that fell off the bus is not among them.
    """

    boot_id: str
    gpus: tuple[GpuUse, ...]

    def use_of(self, gpu: Component) -> GpuUse | None:
        """The GPU by its UUID, or by its index where the telemetry names no UUID; None if it is not listed."""
        index = (gpu.gpu or "").partition(":")[0]
        for use in self.gpus:
            if use.uuid == gpu.uuid if gpu.uuid else str(use.gpu) == index:
                return use
        return None
