"""What stands in for the outside while history is replayed: the telemetry as it was, and agents and tickets in memory.

Nothing here reaches anything real, and nothing that is done changes what comes: the history goes on as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from healer.domain.care import CareOrder, CareReport, CareState, GpuUse, NodeCondition, Operation
from healer.domain.component import Component
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.reading import Reading
from healer.domain.signal import Signal
from healer.domain.ticket import Ticket
from healer.errors import Unavailable


class Past:
    """The history as far as it has come. Implements `healer.ports.Clock` and `TelemetrySource`.

    Attributes:
        racks: every node that the telemetry has named so far, with its rack.
    """

    name = "replay"

    def __init__(self, start: datetime) -> None:
        self.racks: dict[str, str | None] = {}
        self._now = start
        self._frame: Frame | None = None
        self._rows: dict[str, list[int]] = {}  # of the frame's GPUs, by node

    def now(self) -> datetime:
        return self._now

    def read(self, at: datetime) -> Reading:
        raise Unavailable(self.name, f"has nothing beyond its own readings, asked for {at}")

    def goes_on(self, at: datetime) -> None:
        self._now = at

    def shows(self, frame: Frame) -> None:
        self._frame, self._rows = frame, {}
        for row, gpu in enumerate(frame.gpus.components):
            if gpu.node is not None:
                self._rows.setdefault(gpu.node, []).append(row)
                self.racks.setdefault(gpu.node, gpu.rack)

    @property
    def frame(self) -> Frame:
        if self._frame is None:
            raise Unavailable(self.name, "nothing was replayed yet")
        return self._frame

    def rows_of(self, node: str) -> Sequence[int]:
        """The GPUs of the node in the frame."""
        return self._rows.get(node, ())


class PastAgents:
    """Implements `healer.ports.PowerControl`: the limits that the telemetry names, until others are set."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._set: dict[tuple[str, int], float] = {}

    def limits(self, node: str) -> tuple[GpuPower, ...]:
        frame, rows = self._past.frame, list(self._past.rows_of(node))
        limit, power = frame.latest(Signal.POWER_LIMIT)[rows], frame.latest(Signal.POWER)[rows]
        if np.isnan(limit).any() or np.isnan(power).any():
            raise Unavailable("replay", f"the telemetry of {node} has no power limits")
        return tuple(
            GpuPower(
                node=node,
                gpu=index,
                uuid=str(frame.gpus.components[row].uuid),
                limit_w=self._set.get((node, index), float(limit[index])),
                default_w=float(limit[index]),
                min_w=0.0,
                max_w=float(limit[index]),
                power_w=float(power[index]),
            )
            for index, row in enumerate(rows)
        )

    def set_limits(self, node: str, limits_w: Mapping[int, float], *, ttl: timedelta, fallback_w: float) -> None:  # noqa: ARG002
        self._set.update({(node, gpu): watts for gpu, watts in limits_w.items()})

    def restore(self, node: str, gpus: Sequence[int]) -> None:
        for gpu in gpus:
            self._set.pop((node, gpu), None)


class PastCare:
    """Implements `healer.ports.NodeCare`: whatever is ordered is done at once, and as well as it can be."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._reports: dict[tuple[str, str], CareReport] = {}
        self._boots: Counter[str] = Counter()

    def condition(self, node: str) -> NodeCondition:
        frame = self._past.frame
        seen = [frame.gpus.components[row] for row in self._past.rows_of(node) if frame.current[row]]
        gpus = {gpu.device: GpuUse(_index(gpu), gpu.device, 0) for gpu in seen}
        return NodeCondition(f"boot-{self._boots[node]}", tuple(gpus.values()))

    def start(self, node: str, key: str, order: CareOrder) -> CareReport:
        if (node, key) not in self._reports:
            now = self._past.now()
            self._reports[node, key] = CareReport(CareState.DONE, "as the replay assumes", now, now)
            self._boots[node] += order.operation is Operation.REBOOT
        return self._reports[node, key]

    def report(self, node: str, key: str) -> CareReport | None:
        return self._reports.get((node, key))


def _index(gpu: Component) -> int:
    """On its node; 0 where its label is no number: nothing real is done by it."""
    index = (gpu.gpu or "").partition(":")[0]
    return int(index) if index.isdecimal() else 0


class PastTickets:
    """Implements `healer.ports.Tickets`."""

    def __init__(self) -> None:
        self._opened: set[str] = set()

    def open(self, ticket: Ticket) -> str:
        self._opened.add(ticket.key)
        return f"ticket {ticket.key}"

    def find(self, key: str) -> str | None:
        return f"ticket {key}" if key in self._opened else None
