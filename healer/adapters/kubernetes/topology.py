"""Where the nodes are and which jobs have their GPUs, from the Kubernetes API: node labels, pods and their owners.

Of a fleet with 50,000 pods only those are kept that run and have GPUs. Lists are read in pages, from the store; from
its memory the server would send everything at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.gpu_objects import (
    ApiGroup,
    ClaimStatus,
    Container,
    GpuNode,
    GpuNodeList,
    GpuPodList,
    GpuPodSpec,
    Owner,
    ResourceClaimList,
)
from healer.adapters.kubernetes.objects import NAME, Question
from healer.adapters.kubernetes.owners import Owned, Owners
from healer.adapters.topology.layers import Kept
from healer.domain.topology import NOWHERE, Claim, Place, PodName, Topology, held
from healer.errors import NotFound, Rejected, Unavailable
from healer.telemetry.places.kube import NodeLabels, is_above_jobs, is_gpu, job_name

RUNNING = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
CLAIMS_GROUP = "resource.k8s.io"
GPU_DRIVERS = frozenset({"gpu.nvidia.com", "gpu.amd.com", "gpu.intel.com"})  # of dynamic resource allocation


@dataclass(frozen=True, slots=True)
class _Running:
    """A pod that runs, or is about to. Without GPUs it has claims for something, which may be GPUs."""

    name: PodName
    uid: str
    node: str
    owner: Owner | None
    gpus: Counter[str]


class KubernetesTopology:
    """Implements `healer.ports.TopologySource`.

    Args:
        node_selector: a label selector; only these nodes have a place.
        every: what was read counts for this long.
    """

    def __init__(
        self,
        client: KubernetesClient,
        labels: NodeLabels | None = None,
        *,
        node_selector: str = "",
        every: timedelta = timedelta(minutes=1),
    ) -> None:
        self._client = client
        self._labels = labels or NodeLabels()
        self._node_selector = node_selector
        self._kept = Kept(every)
        self._owners = Owners(client)

    def close(self) -> None:
        self._client.close()

    def topology(self, at: datetime) -> Topology:
        """Raises Unavailable or Rejected: nothing is known then, and least of all that there are no jobs."""
        return self._kept.get(at, self._read)

    def _read(self) -> Topology:
        places: dict[str, Place] = {}
        capacity: dict[str, Counter[str]] = {}
        for node in self._nodes():
            capacity[node.metadata.name] = _gpus_in(node.status.allocatable)
            if (place := self._labels.place(node.metadata.labels)) != NOWHERE:
                places[node.metadata.name] = place
        pods, unclaimed = self._with_claims(tuple(self._gpu_pods()))
        jobs_by_pod, unread = self._jobs(pods)
        jobs, sharing = held((Claim(jobs_by_pod[pod.name], pod.node, pod.gpus) for pod in pods), capacity)
        return Topology(places=places, jobs=jobs, sharing=sharing, pods=jobs_by_pod, warnings=unclaimed + unread)

    def _nodes(self) -> Iterator[GpuNode]:
        query = {"labelSelector": self._node_selector} if self._node_selector else {}
        for page in self._client.pages(GpuNodeList, Question("list", "nodes"), query):
            yield from page.items or ()

    def _gpu_pods(self) -> Iterator[_Running]:
        for page in self._client.pages(GpuPodList, Question("list", "pods"), {"fieldSelector": RUNNING}):
            for pod in page.items or ():
                gpus = _requested(pod.spec)
                if gpus or pod.spec.resource_claims:
                    seen = pod.metadata
                    yield _Running((seen.namespace, seen.name), seen.uid, pod.spec.node_name, seen.owner, gpus)

    def _with_claims(self, pods: Sequence[_Running]) -> tuple[Sequence[_Running], tuple[str, ...]]:
        """Count the GPUs that pods have by dynamic resource allocation, and leave out those that have none at all."""
        if all(pod.gpus for pod in pods):
            return pods, ()
        try:
            claimed = self._claimed()
        except (Rejected, NotFound) as error:
            text = f"{error}; jobs that have their GPUs by resource claims are not known"
            return [pod for pod in pods if pod.gpus], (text,)
        counted = (replace(pod, gpus=pod.gpus + claimed.get(pod.uid, Counter())) for pod in pods)
        return [pod for pod in counted if pod.gpus], ()

    def _claimed(self) -> Mapping[str, Counter[str]]:
        """The GPUs of each pod, by its uid and by driver."""
        group = self._client.ask(ApiGroup, Question("get", "", group=CLAIMS_GROUP, version=""))
        question = Question("list", "resourceclaims", group=CLAIMS_GROUP, version=group.preferred_version.version)
        claimed: dict[str, Counter[str]] = {}
        for page in self._client.pages(ResourceClaimList, question, {}):
            for claim in page.items or ():
                for consumer in claim.status.reserved_for:
                    claimed.setdefault(consumer.uid, Counter()).update(_allocated(claim.status))
        return claimed

    def _jobs(self, pods: Sequence[_Running]) -> tuple[dict[PodName, str], tuple[str, ...]]:
        """The job of each pod. One that nothing owns, or only its node, is a job by itself."""
        owned = {pod.name: pod.owner for pod in pods if pod.owner is not None and not is_above_jobs(pod.owner.kind)}
        topmost, warnings = self._owners.topmost(Owned(name[0], owner) for name, owner in owned.items())
        jobs: dict[PodName, str] = {}
        for namespace, name in (pod.name for pod in pods):
            owner = owned.get((namespace, name))
            top = None if owner is None else topmost[owner.uid]
            jobs[namespace, name] = job_name(namespace, *(("Pod", name) if top is None else (top.kind, top.name)))
        return jobs, warnings


def _requested(spec: GpuPodSpec) -> Counter[str]:
    """What the scheduler counts: the containers together, or an init container that asks for more."""
    total = sum((_gpus_of(container) for container in spec.containers), start=Counter[str]())
    for container in spec.init_containers:
        total |= _gpus_of(container)
    return total


def _gpus_of(container: Container) -> Counter[str]:
    requests = container.resources.requests
    return _gpus_in(requests) if len(requests) > 0 else Counter()


def _gpus_in(resources: Mapping[str, str]) -> Counter[str]:
    """Only what is there. Raises Unavailable for an amount that is no number."""
    return Counter({name: amount for name, text in resources.items() if is_gpu(name) and (amount := _amount(text))})


def _allocated(status: ClaimStatus) -> Counter[str]:
    devices = status.allocation.devices.results if status.allocation else ()
    return Counter(device.driver for device in devices if device.driver in GPU_DRIVERS and not device.admin_access)


def _amount(text: str) -> int:
    """Whole devices; a thousand shares are written 1k."""
    digits = text.removesuffix("k")
    if not digits.isdecimal():
        raise Unavailable(NAME, f"tells {text!r} as a number of GPUs")
    return int(digits) * (1 if digits == text else 1000)
