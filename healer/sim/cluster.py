"""The work that runs on a simulated fleet: what the simulated cluster has on its nodes, and what that means for the
GPUs.
"""

from __future__ import annotations

from datetime import timedelta

from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.fleet import Disposition
from healer.ports import Clock
from healer.sim.fleet import SimulatedFleet
from healer.sim.layout import Layout

_TERMINATION = timedelta(seconds=3)
_GPUS_PER_WORKLOAD = 4


def populated_cluster(layout: Layout, clock: Clock) -> SimulatedCluster:
    """A cluster of the fleet's nodes: two workloads of a training on each, an inference service, system pods.

    The last node of the first rack is left free, so that what a drain moves has somewhere to go.
    """
    racks = {node: layout.rack_of(node) for node in layout.nodes}
    cluster = SimulatedCluster(racks, clock=clock, termination=_TERMINATION, gpus_per_node=layout.gpus_per_node)
    cluster.add_workload("DaemonSet/dcgm-exporter", namespace="gpu-operator")
    spare = layout.nodes_of(layout.racks[0])[-1]
    for number, node in enumerate(layout.nodes, start=1):
        if node != spare:
            for _ in range(2):
                cluster.add_workload(f"Job/train-{number}", node=node, namespace="training", gpus=_GPUS_PER_WORKLOAD)
            cluster.add_workload("Deployment/prefetch", node=node, namespace="training")
    return cluster


def follow_cluster(fleet: SimulatedFleet, cluster: SimulatedCluster) -> None:
    """Let the GPUs of nodes that have no training on them idle."""
    for node in fleet.layout.nodes:
        works = any(
            workload.disposition is Disposition.EVICT and workload.owner.startswith("Job/")
            for workload in cluster.workloads(node)
        )
        fleet.set_idle(node, not works)
