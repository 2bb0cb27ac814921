"""A rack of a real cluster that belongs to one test: work that starts on one of its nodes, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubernetes.client import ApiClient, AppsV1Api, BatchV1Api, CoreV1Api

from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane, Write
from tests.controlplane.fleet import PodSeen, PodShape

GPUS = 8  # of each node, by its kubelet


class Rack:
    """Attributes:
    nodes: the first is the one that fails, unless a test says otherwise.
    """

    def __init__(
        self, control_plane: ControlPlane, admin: ApiClient, *, namespace: str, name: str, nodes: Sequence[str]
    ) -> None:
        self._control_plane = control_plane
        self._admin = admin
        self._core = CoreV1Api(admin)
        self._writes_before = len(control_plane.writes("healer"))
        self.namespace = namespace
        self.name = name
        self.nodes = tuple(nodes)

    @property
    def node(self) -> str:
        return self.nodes[0]

    def deploy(self, app: str, *, replicas: int, node: str | None = None) -> tuple[PodSeen, ...]:
        """A Deployment whose pods run on one node, and may run on any of the rack when they are made again."""
        first = node or self.node
        label = f"runs-{self.namespace}-{app}"
        self._label(first, label)
        shape = PodShape(gpus=1, node_selector={label: "yes"})
        fleet.create_deployment(self._admin, self.namespace, app, replicas=replicas, shape=shape)
        started = self._started(app, count=replicas)
        for other in self.nodes:
            self._label(other, label)
        return started

    def deploy_everywhere(self, app: str) -> None:
        """A DaemonSet on the nodes of this rack."""
        shape = PodShape(node_selector={"rack": self.name})
        fleet.create_daemon_set(self._admin, self.namespace, app, shape=shape)
        self._started(app, count=len(self.nodes))

    def train(self, job: str, *, pods: int) -> tuple[PodSeen, ...]:
        """A Job whose pods have a node of this rack each, with all of its GPUs."""
        shape = PodShape(gpus=GPUS, node_selector={"rack": self.name})
        fleet.create_job(self._admin, self.namespace, job, pods=pods, shape=shape)
        return self._started(job, count=pods)

    def is_suspended(self, job: str) -> bool:
        seen: Any = BatchV1Api(self._admin).read_namespaced_job(job, self.namespace)
        return bool(seen.spec.suspend)

    def remove(self, app: str) -> None:
        """The Deployment, and with it its pods."""
        AppsV1Api(self._admin).delete_namespaced_deployment(app, self.namespace)

    def set_budget(self, name: str, *, app: str, min_available: int) -> None:
        fleet.create_budget(self._control_plane, self.namespace, name, app=app, min_available=min_available)

    def pods(self, app: str) -> tuple[PodSeen, ...]:
        return fleet.running_pods(self._admin, self.namespace, app)

    def pods_on(self, node: str, app: str) -> tuple[PodSeen, ...]:
        return tuple(pod for pod in self.pods(app) if pod.node == node)

    def all_on(self, node: str, app: str) -> tuple[str, ...]:
        """Also the pods that are ending."""
        found: Any = self._core.list_namespaced_pod(
            self.namespace, label_selector=f"app={app}", field_selector=f"spec.nodeName={node}"
        )
        return tuple(pod.metadata.name for pod in found.items)

    def await_elsewhere(self, app: str, *, count: int, than: str | None = None) -> tuple[PodSeen, ...]:
        """Until that many pods run, and none of them on the node that failed."""
        left = than or self.node

        def moved() -> tuple[PodSeen, ...] | None:
            pods = self.pods(app)
            return pods if len(pods) == count and all(pod.node != left for pod in pods) else None

        return self._control_plane.eventually(moved, what=f"{count} pods of {app} run, none of them on {left}")

    def cordoned_by(self, node: str | None = None) -> str | None:
        """The run whose annotation the cordoned node carries; empty for a cordon of somebody else, None for none."""
        seen: Any = self._core.read_node(node or self.node)
        if not seen.spec.unschedulable:
            return None
        return str((seen.metadata.annotations or {}).get("healer.dev/cordoned-by", ""))

    def annotations(self, node: str | None = None) -> dict[str, str]:
        seen: Any = self._core.read_node(node or self.node)
        return dict(seen.metadata.annotations or {})

    def uncordon(self, node: str | None = None) -> None:
        self._core.patch_node(node or self.node, {"spec": {"unschedulable": None}})

    def changes(self) -> tuple[str, ...]:
        """What healer has asked the API server to change since this rack was handed out, one line for each."""
        return tuple(map(_line, self._writes()))

    def changes_here(self) -> tuple[str, ...]:
        """Those of its nodes and in its namespace alone, for when other daemons are at work."""
        here = (write for write in self._writes() if write.namespace == self.namespace or write.name in self.nodes)
        return tuple(map(_line, here))

    def evicted(self) -> tuple[str, ...]:
        """The pods whose eviction the API server has granted, as often as it has."""
        return tuple(
            write.name
            for write in self._writes()
            if write.subresource == "eviction" and write.code == 201 and not write.dry_run
        )

    def _writes(self) -> tuple[Write, ...]:
        return self._control_plane.writes("healer")[self._writes_before :]

    def _started(self, app: str, *, count: int) -> tuple[PodSeen, ...]:
        def running() -> tuple[PodSeen, ...] | None:
            pods = self.pods(app)
            return pods if len(pods) == count else None

        return self._control_plane.eventually(running, what=f"{count} pods of {app} run")

    def _label(self, node: str, label: str) -> None:
        self._core.patch_node(node, {"metadata": {"labels": {label: "yes"}}})


def _line(write: Write) -> str:
    return f"{write.code} {write.verb} {write.resource}{write.subresource and '/' + write.subresource} {write.name}"
