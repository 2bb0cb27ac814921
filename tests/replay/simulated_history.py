"""A history to replay that no Prometheus has to keep: a simulated fleet that lives again for every replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from healer.domain.reading import Reading
from healer.rehearsal.virtual import FleetTelemetry
from healer.sim.faults import Fault
from healer.sim.fleet import SimulatedFleet


class SimulatedHistory:
    """Implements `healer.ports.TelemetryHistory`: two racks of two nodes of two GPUs."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = faults

    def replay(self, start: datetime, end: datetime, step: timedelta) -> Iterator[Reading]:
        fleet = SimulatedFleet(racks=2, nodes=4, gpus=2, seed=3, faults=self._faults)
        telemetry = FleetTelemetry(fleet)
        at = start
        while at <= end:
            yield replace(telemetry.read(at), warnings=("a store was not asked",) if at == start else ())
            fleet.advance(step.total_seconds())
            at += step
        limits = fleet.read("gpu-004").state.limit_w.tolist()
        assert limits == [700.0, 700.0]  # whoever replayed it has not acted on it
