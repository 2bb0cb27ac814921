"""Exporters that run as pods, found through the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import msgspec

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.objects import ListMetadata, Question
from healer.adapters.scrape.discovery import EVERY, Found, TargetGroup

_RUNNING = "status.phase=Running"


class _Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Of a Kubernetes object, under its own field names. Unknown fields are skipped."""


class _Metadata(_Part, frozen=True):
    name: str
    namespace: str
    deletion_timestamp: str | None = None


class _Port(_Part, frozen=True):
    container_port: int
    name: str = ""


class _Container(_Part, frozen=True):
    ports: list[_Port] = []


class _Spec(_Part, frozen=True):
    node_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] = []  # those that go on running have ports, too


class _Status(_Part, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")


class _Pod(_Part, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def serves(self) -> bool:
        return self.status.phase == "Running" and self.metadata.deletion_timestamp is None and bool(self.status.pod_ip)

    def port(self, name: str) -> int | None:
        containers = (*self.spec.containers, *self.spec.init_containers)
        return next((port.container_port for one in containers for port in one.ports if port.name == name), None)


class _PodList(_Part, frozen=True):
    kind: Literal["PodList"]
    items: list[_Pod] | None
    metadata: ListMetadata = ListMetadata()


@dataclass(frozen=True, slots=True)
class KubernetesTargets:
    """The running pods that a selector picks, each with its node, namespace and name as labels.

    Attributes:
        client: closed with this.
        selector: a label selector, such as `app=dcgm-exporter`.
        port: where they listen: a number, or the name of a container's port.
        namespace: None for all of them.
    """

    client: KubernetesClient
    selector: str
    port: int | str
    namespace: str | None = None
    every: timedelta = EVERY

    @property
    def name(self) -> str:
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"kubernetes pods {self.selector} {where}"

    def find(self) -> Found:
        groups: list[TargetGroup] = []
        portless = 0
        for pod in self._pods():
            port = self.port if isinstance(self.port, int) else pod.port(self.port)
            if port is None:
                portless += 1
                continue
            address = pod.status.pod_ip
            host = f"[{address}]" if ":" in address else address
            labels = {"node": pod.spec.node_name, "namespace": pod.metadata.namespace, "pod": pod.metadata.name}
            groups.append(TargetGroup([f"{host}:{port}"], labels))
        warning = (
            f"{self.name}: {portless} of them have no port named {self.port}; check telemetry.scrape.kubernetes.port"
        )
        return Found(groups, (warning,) if portless else ())

    def close(self) -> None:
        self.client.close()

    def _pods(self) -> Iterator[_Pod]:
        """Sorted by name within their namespaces, as the server lists them."""
        question = Question("list", "pods", namespace=self.namespace or "")
        query = {"labelSelector": self.selector, "fieldSelector": _RUNNING}
        for page in self.client.pages(_PodList, question, query):
            yield from (pod for pod in page.items or () if pod.serves)
