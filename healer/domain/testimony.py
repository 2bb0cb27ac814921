"""Testimony: what a distributed job says of itself, from inside, about a collective operation that does not end.

From outside all ranks of a stalled job look alike: they spin. Which rank the others wait for, only the job knows, and
it tells by three ways: NCCL's RAS service, PyTorch's Flight Recorder, and the log lines of PyTorch's watchdog.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from healer.domain.component import Component, ComponentKind


class Witness(StrEnum):
    """By which way the job told it."""

    RAS = "ras"
    FLIGHT_RECORDER = "flight_recorder"
    WATCHDOG = "watchdog"


class Progress(StrEnum):
    STUCK = "stuck"  # a collective waits, and longer than any should
    PROGRESSING = "progressing"
    FAILED = "failed"  # ranks report errors or are dead: nothing that they share can end any more
    UNKNOWN = "unknown"  # the witness answers, and what it says decides nothing


class Blame(StrEnum):
    """Why a rank is the one that the others wait for, what is surest first."""

    FAILED = "failed"  # it reports an error of its own
    DIFFERENT = "different"  # it entered another operation, or other sizes, than the others
    BEHIND = "behind"  # it has not enqueued, or not completed, what the others have
    NOT_STARTED = "not_started"  # it has enqueued it, and its GPU has not come to it
    SILENT = "silent"  # nothing is heard of it, where all the others are heard


@dataclass(frozen=True, slots=True)
class Culprit:
    """One rank that the others wait for. What the witness does not know is None.

    Attributes:
        rank: the global one.
        group: the process group, or NCCL's communicator, that waits for it.
        group_rank: its number in `group`.
        node: as the witness names it: a host name, or the address of NCCL's bootstrap network.
        gpu: the index on its node that NVML gives, as `Component.gpu` has it.
    """

    blame: Blame
    group: str
    rank: int | None = None
    group_rank: int | None = None
    node: str | None = None
    gpu: str | None = None

    @property
    def component(self) -> Component | None:
        """Its GPU, else its node; None where nobody knows where it runs."""
        if self.node is None:
            return None
        if self.gpu is None:
            return Component(ComponentKind.NODE, node=self.node)
        return Component(ComponentKind.GPU, node=self.node, gpu=self.gpu)

    def __str__(self) -> str:
        if self.rank is not None:
            return f"rank {self.rank}"
        return f"rank {self.group_rank} of group {self.group}"


@dataclass(frozen=True, slots=True)
class Collective:
    """Attributes:
    operation: as NCCL spells it, for example AllReduce.
    number: PyTorch's sequence number in the group, or RAS' count of this operation; None where it is not told.
    """

    operation: str
    group: str
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.operation}{'' if self.number is None else f' {self.number}'} of group {self.group}"


@dataclass(frozen=True, slots=True)
class Testimony:
    """Attributes:
    where: the address that answered, or the folder or file that was read.
    at: when the job said it, UTC; for files, when they were last written.
    job: as the telemetry names it; None where the witness does not say whose it is.
    culprits: whom the others wait for; none if it is nobody, or if this witness cannot tell.
    collective: the one that everything waits in.
    stuck_for: how long it has, as of `at`.
    says: one sentence, with the figures.
    """

    __test__: ClassVar[bool] = False  # whatever pytest makes of the name

    witness: Witness
    where: str
    at: datetime
    job: str | None
    progress: Progress
    says: str
    culprits: tuple[Culprit, ...] = ()
    collective: Collective | None = None
    stuck_for: timedelta | None = None
