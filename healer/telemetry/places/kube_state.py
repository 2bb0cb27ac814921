"""Topology from kube-state-metrics: what the Kubernetes API would say, for those who see only the metrics.

Its limits: node labels are exported only if allowed (`--metric-labels-allowlist=nodes=[...]`), and of the owners of
owners only those of Jobs and ReplicaSets are exported, so that a job is named for the Job and not for what made it of
a kind that the metrics do not know.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from healer.domain.reading import Labels, Reading
from healer.domain.topology import NOWHERE, Claim, Place, PodName, Topology, held
from healer.errors import Unavailable
from healer.telemetry.places.kube import NodeLabels, is_above_jobs, is_gpu, job_name

NAME = "kube-state-metrics"
NODE_LABELS = "kube_node_labels"
ALLOCATABLE = "kube_node_status_allocatable"
POD_INFO = "kube_pod_info"
POD_OWNER = "kube_pod_owner"
POD_PHASE = "kube_pod_status_phase"
POD_REQUESTS = "kube_pod_container_resource_requests"
JOB_OWNER = "kube_job_owner"
REPLICA_SET_OWNER = "kube_replicaset_owner"
METRICS = (NODE_LABELS, ALLOCATABLE, POD_INFO, POD_OWNER, POD_PHASE, POD_REQUESTS, JOB_OWNER, REPLICA_SET_OWNER)

# Without these, no GPU of any pod would read as no pod that has a GPU.
_NEEDED = (POD_INFO, POD_PHASE, POD_OWNER)
_LEVELS = 8
_FINISHED = frozenset({"Succeeded", "Failed"})
_NO_OWNER = frozenset({"", "<none>"})

_Owner = tuple[str, str]  # kind, name


def topology_of(reading: Reading, labels: NodeLabels) -> Topology:
    """Raises Unavailable when a metric is missing without which jobs would be missed."""
    shown = _Shown(reading)
    absent = [metric for metric in _NEEDED if not shown.has(metric)]
    if absent:
        raise Unavailable(NAME, f"shows no {', '.join(absent)}; which jobs there are is unknown")
    nodes = {_pod(own): node for own in shown.positive(POD_INFO) if (node := _label(own, "node"))}
    finished = {_pod(own) for own in shown.positive(POD_PHASE) if _label(own, "phase") in _FINISHED}
    gpus = _gpus_by_pod(shown, running=nodes.keys() - finished)
    owners = _owners(shown)
    pods = {pod: _job_of(pod, owners) for pod in gpus}
    claims = (Claim(job, nodes[pod], gpus[pod]) for pod, job in pods.items())
    jobs, sharing = held(claims, _capacity(shown))
    places = _places(shown, labels)
    return Topology(places=places, jobs=jobs, sharing=sharing, pods=pods, warnings=_warnings(places, labels))


class _Shown:
    """The series of a reading by metric."""

    def __init__(self, reading: Reading) -> None:
        self._label_sets = reading.label_sets
        self._columns = {column.metric: column for column in reading.columns if column.metric in METRICS}

    def has(self, metric: str) -> bool:
        return metric in self._columns and len(self._columns[metric].values) > 0

    def positive(self, metric: str) -> Iterator[Labels]:
        """Of the series that are not zero: where a state has a series for each value, the one that holds."""
        return (own for own, _ in self.amounts(metric))

    def amounts(self, metric: str) -> Iterator[tuple[Labels, int]]:
        if metric in self._columns:
            column = self._columns[metric]
            there = column.values > 0
            for number, value in zip(column.series[there].tolist(), column.values[there].tolist(), strict=True):
                yield self._label_sets[number], int(value)


def _gpus_by_pod(shown: _Shown, *, running: Collection[PodName]) -> dict[PodName, Counter[str]]:
    gpus: dict[PodName, Counter[str]] = {}
    for own, amount in shown.amounts(POD_REQUESTS):
        resource = _label(own, "resource")
        if is_gpu(resource) and (pod := _pod(own)) in running:
            gpus.setdefault(pod, Counter())[resource] += amount
    return gpus


def _capacity(shown: _Shown) -> dict[str, dict[str, int]]:
    capacity: dict[str, dict[str, int]] = defaultdict(dict)
    for own, amount in shown.amounts(ALLOCATABLE):
        if is_gpu(resource := _label(own, "resource")):
            capacity[_label(own, "node")][resource] = amount
    return capacity


def _owners(shown: _Shown) -> dict[tuple[str, _Owner], _Owner]:
    """What owns the object, by its namespace, kind and name."""
    owners: dict[tuple[str, _Owner], _Owner] = {}
    kinds = ((POD_OWNER, "Pod", "pod"), (JOB_OWNER, "Job", "job_name"), (REPLICA_SET_OWNER, "ReplicaSet", "replicaset"))
    for metric, kind, name in kinds:
        for own in shown.positive(metric):
            owned = _label(own, "namespace"), (kind, _label(own, name))
            owner = _label(own, "owner_kind"), _label(own, "owner_name")
            if owner[0] not in _NO_OWNER and (owned not in owners or _label(own, "owner_is_controller") == "true"):
                owners[owned] = owner
    return owners


def _job_of(pod: PodName, owners: Mapping[tuple[str, _Owner], _Owner]) -> str:
    namespace, name = pod
    top = ("Pod", name)
    for _ in range(_LEVELS):
        above = owners.get((namespace, top))
        if above is None or is_above_jobs(above[0]):
            break
        top = above
    return job_name(namespace, *top)


def _places(shown: _Shown, labels: NodeLabels) -> dict[str, Place]:
    exported = labels.as_exported()
    return {_label(own, "node"): exported.place(own) for own in shown.positive(NODE_LABELS)}


def _warnings(places: Mapping[str, Place], labels: NodeLabels) -> tuple[str, ...]:
    if any(place != NOWHERE for place in places.values()):
        return ()
    allowed = ",".join(labels.names)
    return (f"{NAME}: shows none of the node labels; start it with --metric-labels-allowlist=nodes=[{allowed}]",)


def _pod(own: Labels) -> PodName:
    return _label(own, "namespace"), _label(own, "pod")


def _label(own: Labels, name: str) -> str:
    """Unless labels are honoured, the scraper's own label of that name has pushed the exporter's aside."""
    return own.get(f"exported_{name}") or own.get(name) or ""
