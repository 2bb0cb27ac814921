"""What names in Kubernetes mean for topology, whether they come from its API or from kube-state-metrics.

Sources of the labels: NVIDIA's GPU feature discovery and Topograph, and the node labels of EKS, GKE and OKE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from healer.domain.topology import Place

_GPU_RESOURCE = re.compile(r"(nvidia_com_(gpu|mig_)|amd_com_(gpu|spx|dpx|qpx|cpx)|gpu_intel_com_)")
_NO_CLUSTER = re.compile(r"[0-]+\.\d+")  # a clique of no NVLink cluster: the GPU reaches no further than its node


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """Which node labels say where a node is; of each list, the first that the node has.

    Nothing standardises the rack and the feed. Fabric labels are listed from the most to the least specific.
    """

    rack: tuple[str, ...] = ("topology.kubernetes.io/rack", "oci.oraclecloud.com/host.rack_id")
    feed: tuple[str, ...] = ()
    nvlink_domain: tuple[str, ...] = (
        "nvidia.com/gpu.clique",
        "accelerator.topograph.run/domain",
        "network.topology.nvidia.com/accelerator",
        "topology.k8s.aws/ultraserver-id",
    )
    switch: tuple[str, ...] = (
        "fabric.topograph.run/tier-0",
        "network.topology.nvidia.com/tier-0",
        "network.topology.nvidia.com/leaf",
        "network.topology.nvidia.com/block",  # the leaf, as Topograph called it at first
        "topology.k8s.aws/network-node-layer-4",  # the layer with the highest number is next to the instance
        "topology.k8s.aws/network-node-layer-3",
        "cloud.google.com/gce-topology-subblock",
    )

    def place(self, labels: Mapping[str, str]) -> Place:
        return Place(
            rack=_first(labels, self.rack),
            feed=_first(labels, self.feed),
            nvlink_domain=_first(labels, self.nvlink_domain),
            switch=_first(labels, self.switch),
        )

    def as_exported(self) -> NodeLabels:
        """The same labels as kube-state-metrics spells them."""
        return NodeLabels(*(tuple(map(_exported_label, getattr(self, part.name))) for part in fields(self)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for part in fields(self) for name in getattr(self, part.name))


def is_gpu(resource: str) -> bool:
    """Whether an extended resource is GPUs, or parts of one. Both spellings are understood."""
    return _GPU_RESOURCE.match(re.sub(r"\W", "_", resource)) is not None


def is_above_jobs(kind: str) -> bool:
    """Whether an owner of this kind is more than the job: what starts jobs by the clock, or a static pod's node."""
    return kind == "Node" or "Cron" in kind or kind.startswith("Scheduled")


def job_name(namespace: str, kind: str, name: str) -> str:
    """The same as `Workload.stable_name`."""
    return f"{namespace}/{kind}/{name}"


def _first(labels: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    found = (labels[name] for name in names if labels.get(name))
    return next((value for value in found if not _NO_CLUSTER.fullmatch(value)), None)


def _exported_label(name: str) -> str:
    """kube-state-metrics keeps letters, digits and underscores, and sets an underscore before a capital."""
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return "label_" + re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", plain).lower()
