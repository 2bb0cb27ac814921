"""Targets: what a Prometheus scrapes of a simulated fleet, when, and by what labels discovery knows it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Ints
from healer.sim.exporters.style import Style
from healer.sim.layout import Layout

GPU_JOB, HOST_JOB, IPMI_JOB, METER_JOB, SCHEDULER_JOB = "dcgm", "node", "ipmi", "rack", "kube-state-metrics"
_PORTS = {GPU_JOB: 9400, HOST_JOB: 9100, IPMI_JOB: 9290, METER_JOB: 9116, SCHEDULER_JOB: 8080}


@dataclass(frozen=True, slots=True)
class Target:
    """Attributes:
    place: the number of its node, or of its rack.
    offset_ms: after each multiple of the interval it is scraped; never a multiple of a second.
    """

    job: str
    instance: str
    place: int
    labels: Mapping[str, str]
    offset_ms: int


def targets(layout: Layout, style: Style) -> tuple[Target, ...]:
    found = []
    for number, node in enumerate(layout.nodes):
        jobs = (GPU_JOB, HOST_JOB, IPMI_JOB) if style.ipmi else (GPU_JOB, HOST_JOB)
        for job in jobs:
            labels = {"rack": layout.rack_of(node)}
            # Who discovers by address alone has no other name for a node than what its exporters say.
            if style.node_label or job == IPMI_JOB:
                labels["node"] = node + style.domain
            host = node + style.domain if job != GPU_JOB else node
            found.append(_target(job, host, number, labels, style))
    found += [_target(METER_JOB, f"pdu-{rack}", number, {}, style) for number, rack in enumerate(layout.racks)]
    found.append(_target(SCHEDULER_JOB, "kube-state-metrics", 0, {}, style))
    return tuple(found)


def offsets_ms(found: tuple[Target, ...]) -> Ints:
    return np.array([target.offset_ms for target in found], dtype=np.int64)


def _target(job: str, host: str, place: int, labels: Mapping[str, str], style: Style) -> Target:
    instance = f"{host}:{_PORTS[job]}"
    spread = zlib.crc32(f"{job}/{instance}".encode())
    offset_ms = spread % (style.scrape_s * 1000)
    offset_ms += 137 if offset_ms % 1000 == 0 else 0
    return Target(
        job, instance, place, {"job": job, "instance": instance, **labels}, offset_ms % (style.scrape_s * 1000)
    )
