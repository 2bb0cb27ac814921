"""Plays the kubelets of a few nodes, so that the control plane's decisions have their consequences.

The player registers the nodes and renews their leases, reports scheduled pods as running and ready, and lets
terminating pods go. It decides nothing: where pods run and which may be evicted stays with Kubernetes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from kubernetes.client import ApiException, CoordinationV1Api, CoreV1Api, V1DeleteOptions, V1Lease, V1Node

from tests.controlplane.controlplane import ControlPlane

USER = "kubelet-player"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S = 40
RENEW_INTERVAL_S = 5.0
TURN_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class PlayedNode:
    """A node as its kubelet reports it. `rack` becomes the label that healer's topology reads."""

    name: str
    rack: str = "rack-a"
    gpus: int = 8
    labels: Mapping[str, str] = field(default_factory=dict)


class KubeletPlayer:
    """Keeps nodes ready and their pods moving while it is entered; removes the nodes on exit.

    `linger_s` is how long a pod that was told to end takes to do so.
    """

    def __init__(self, control_plane: ControlPlane, nodes: Sequence[PlayedNode], *, linger_s: float = 0.0) -> None:
        self._control_plane = control_plane
        self._nodes = {node.name: node for node in nodes}
        self._linger_s = linger_s
        self._told_to_end_s: dict[str, float] = {}  # pod uid -> monotonic time
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, name=USER, daemon=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.callback(self._leave)
            with self._control_plane.client(USER) as client:
                core, leases = CoreV1Api(client), CoordinationV1Api(client)
                for node in self._nodes.values():
                    leases.create_namespaced_lease(LEASE_NAMESPACE, _lease(node.name))
                    core.create_node(_node(node))
                self._thread.start()
                self._control_plane.eventually(
                    lambda: all(_is_schedulable(core.read_node(name)) for name in self._nodes),
                    what=f"the node controller finds {', '.join(self._nodes)} ready",
                )
            starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._control_plane.client(USER) as client:
            core, leases = CoreV1Api(client), CoordinationV1Api(client)
            for name in self._nodes:
                with _may_be_gone():
                    core.delete_node(name)
                with _may_be_gone():
                    leases.delete_namespaced_lease(name, LEASE_NAMESPACE)

    def _play(self) -> None:
        with self._control_plane.client(USER) as client:
            core, leases = CoreV1Api(client), CoordinationV1Api(client)
            renewed_s = time.monotonic()
            while not self._stopped.wait(TURN_INTERVAL_S):
                if time.monotonic() - renewed_s >= RENEW_INTERVAL_S:
                    renewed_s = time.monotonic()
                    self._renew(leases)
                self._move_pods(core)

    def _renew(self, leases: CoordinationV1Api) -> None:
        for name in self._nodes:
            with _may_be_gone():
                leases.patch_namespaced_lease(name, LEASE_NAMESPACE, {"spec": {"renewTime": _micro_time()}})

    def _move_pods(self, core: CoreV1Api) -> None:
        pods: list[Any] = core.list_pod_for_all_namespaces().items
        for pod in pods:
            if pod.spec.node_name not in self._nodes:
                continue
            with _may_be_gone():
                if pod.metadata.deletion_timestamp is not None:
                    self._end(core, pod)
                elif pod.status.phase == "Pending":
                    _run(core, pod)

    def _end(self, core: CoreV1Api, pod: Any) -> None:
        told_s = self._told_to_end_s.setdefault(pod.metadata.uid, time.monotonic())
        if time.monotonic() - told_s >= self._linger_s:
            options = V1DeleteOptions.model_validate(
                {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}}
            )
            core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, body=options)


def _run(core: CoreV1Api, pod: Any) -> None:
    """Reports the pod as a kubelet does once its containers have started. The uid keeps a namesake out of it."""
    now = _micro_time()
    running = [
        {
            "name": container.name,
            "image": container.image,
            "imageID": f"played/{container.image}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for container in pod.spec.containers
    ]
    conditions = [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")]
    status = {"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": running}
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
    core.patch_namespaced_pod_status(pod.metadata.name, pod.metadata.namespace, patch)


def _node(node: PlayedNode) -> V1Node:
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "rack": node.rack, **node.labels}
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(node.gpus)}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _micro_time()}
    status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
    return V1Node.model_validate({"metadata": {"name": node.name, "labels": labels}, "status": status})


def _lease(name: str) -> V1Lease:
    spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": _micro_time()}
    return V1Lease.model_validate({"metadata": {"name": name, "namespace": LEASE_NAMESPACE}, "spec": spec})


def _is_schedulable(node: Any) -> bool:
    return not node.spec.taints


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextlib.contextmanager
def _may_be_gone() -> Iterator[None]:
    """Objects vanish and change between a look and an answer; the next turn looks again."""
    try:
        yield
    except ApiException as error:
        if error.status not in {404, 409}:
            raise
