"""The labels of each series, as a site's style has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from healer.sim.exporters.style import Fabric, JobLabels, Style
from healer.sim.exporters.targets import Target
from healer.sim.layout import pci_bus_id
from healer.sim.world import World

_XID_TEXTS = {
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "Preemptive cleanup, due to previous errors",
    48: "Double Bit ECC Error",
    63: "ECC page retirement or row remapping recording event",
    64: "ECC page retirement or row remapper recording failure",
    74: "NVLINK Error",
    79: "GPU has fallen off the bus",
    94: "Contained ECC error",
    95: "Uncontained ECC error",
    119: "GSP RPC timeout",
    120: "GSP error",
}


def gpu_labels(
    world: World, style: Style, by_node: Sequence[Target], pods: Callable[[int], str]
) -> Callable[[int], Mapping[str, str]]:
    """Args:
    by_node: the GPU exporter of each node.
    pods: the name of the pod that has the GPU.
    """
    layout = world.layout
    per_node = layout.gpus_per_node

    def labels(gpu: int) -> Mapping[str, str]:
        node, index = divmod(gpu, per_node)
        own = {
            "gpu": str(index),
            "UUID": world.uuids[gpu],
            "pci_bus_id": pci_bus_id(index),
            "device": f"nvidia{index}",
            "modelName": layout.model,
            style.host_label: layout.nodes[node],
            "DCGM_FI_DRIVER_VERSION": world.drivers[node],
        }
        job = world.work.jobs[gpu]
        if job is not None:
            own |= _of_job(style, job, pods(gpu))
        return {**own, **by_node[node].labels}

    return labels


def xid_labels(code: int) -> Mapping[str, str]:
    return {"err_code": str(code), "err_msg": _XID_TEXTS.get(code, "Unknown Error")} if code else {}


def port_name(style: Style, port: int) -> str:
    """Of a fabric port of a node: eth0 is the management's."""
    return f"eth{port + 1}" if style.fabric is Fabric.ROCE else f"mlx5_{port}"


def port_labels(style: Style, by_node: Sequence[Target], ports: int) -> Callable[[int], Mapping[str, str]]:
    def labels(row: int) -> Mapping[str, str]:
        node, port = divmod(row, max(ports, 1))
        device = port_name(style, port)
        own = {"device": device} if style.fabric is Fabric.ROCE else {"device": device, "port": "1"}
        return {**own, **by_node[node].labels}

    return labels


def _of_job(style: Style, job: str, pod: str) -> Mapping[str, str]:
    prefix = "exported_" if style.exported else ""
    pods = {f"{prefix}pod": pod, f"{prefix}namespace": "training", f"{prefix}container": "main"}
    match style.job_labels:
        case JobLabels.HPC_JOB:
            return {"hpc_job": job}
        case JobLabels.HPC_JOB_AND_POD:
            return {"hpc_job": job, **pods}
        case JobLabels.POD:
            return {"job_name": job, **pods}
