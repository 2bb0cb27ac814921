"""Topology from a Kubernetes API that is large, forbids, throttles or talks nonsense. A real one is in the contract."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.topology import KubernetesTopology
from healer.domain.topology import Place
from healer.errors import Rejected, Unavailable
from healer.telemetry.places.kube import NodeLabels
from tests.canned_http import Asked, Canned, canned_server

AT = datetime(2026, 1, 1, tzinfo=UTC)
JOBS, DEPLOYMENTS, JOB_SETS = "/apis/batch/v1", "/apis/apps/v1", "/apis/jobset.x-k8s.io/v1alpha2"
KINDS = {
    JOBS: {"Job": "jobs"},
    DEPLOYMENTS: {"Deployment": "deployments", "ReplicaSet": "replicasets", "StatefulSet": "statefulsets"},
    JOB_SETS: {"JobSet": "jobsets"},
    "/api/v1": {"Pod": "pods"},
}
Json = dict[str, Any]


def node(name: str, *, gpus: str = "8", **labels: str) -> Json:
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": gpus}},
    }


def owner(kind: str, name: str, api_version: str = "batch/v1", *, controller: bool = True) -> Json:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"{kind}/{name}", "controller": controller}


def pod(name: str, node: str, *owners: Json, gpus: int = 8, **spec: object) -> Json:
    requests = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {"name": "main", "resources": {"requests": {"cpu": "1", **requests}}}
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": f"Pod/{name}", "ownerReferences": list(owners)},
        "spec": {"nodeName": node, "containers": [container], **spec},
    }


def claim(driver: str, *consumers: str, count: int = 1, admin: bool = False) -> Json:
    device = {"driver": driver, "pool": "gpu-1", "device": "gpu-0", **({"adminAccess": True} if admin else {})}
    allocation = {"devices": {"results": [device] * count}}
    return {
        "status": {"allocation": allocation, "reservedFor": [{"resource": "pods", "uid": uid} for uid in consumers]}
    }


@dataclass(slots=True)
class Api:
    """A Kubernetes API of a few collections, served a page at a time.

    Attributes:
        lists: by path.
        answers: status and body by path, before anything else.
    """

    lists: dict[str, list[Json]] = field(default_factory=dict)
    answers: dict[str, tuple[int, Json]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def respond(self, asked: Asked) -> Canned:
        self.asked.append(asked)
        if asked.path in self.answers:
            status, body = self.answers[asked.path]
            return Canned(json.dumps(body).encode(), status)
        if asked.path in KINDS:
            named = [{"name": plural, "kind": kind, "namespaced": True} for kind, plural in KINDS[asked.path].items()]
            return _json({"resources": [*named, *({**one, "name": f"{one['name']}/status"} for one in named)]})
        if asked.path in self.lists:
            return self._page(asked)
        folder, _, name = asked.path.rpartition("/")
        everywhere = folder.replace("/namespaces/ml", "")
        found = [one for one in self.lists.get(everywhere, ()) if one["metadata"]["name"] == name]
        return _json(found[0]) if found else Canned(json.dumps(_status(404, "not found")).encode(), 404)

    def owns(self, path: str, kind: str, name: str, *owners: Json, uid: str | None = None) -> None:
        metadata = {"name": name, "namespace": "ml", "uid": uid or f"{kind}/{name}", "ownerReferences": list(owners)}
        self.lists.setdefault(f"{path}/{KINDS[path][kind]}", []).append({"metadata": metadata})

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def _page(self, asked: Asked) -> Canned:
        items, start = self.lists[asked.path], int(asked.query.get("continue", "0"))
        end = start + int(asked.query["limit"])
        return _json(
            {"metadata": {"continue": str(end) if end < len(items) else ""}, "items": items[start:end] or None}
        )


def _json(body: Json) -> Canned:
    return Canned(json.dumps(body).encode())


def _status(code: int, message: str) -> Json:
    return {"kind": "Status", "status": "Failure", "message": message, "code": code}


FORBIDDEN = 403, _status(403, 'jobs.batch is forbidden: User "healer" cannot list resource "jobs"')


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    served = Api({"/api/v1/nodes": [node("gpu-1"), node("gpu-2")], "/api/v1/pods": []})
    with canned_server(served.respond) as server:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document), encoding="utf-8")
        yield served


@pytest.fixture
def source(api: Api, tmp_path: Path) -> Iterator[KubernetesTopology]:  # noqa: ARG001  it is what answers
    client = KubernetesClient(kubeconfig=tmp_path / "kubeconfig", timeout_s=5)
    labels = NodeLabels(rack=("rack",))
    with contextlib.closing(KubernetesTopology(client, labels, every=timedelta(seconds=30))) as opened:
        yield opened


def test_only_pods_that_run_are_asked_for_and_only_those_with_gpus_are_kept(
    api: Api, source: KubernetesTopology
) -> None:
    api.lists["/api/v1/nodes"] = [node("gpu-1", rack="r1"), node("cpu-1", gpus="0")]
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1"), *(pod(f"cpu-{i}", "cpu-1", gpus=0) for i in range(1200))]

    topology = source.topology(AT)

    assert topology.places == {"gpu-1": Place(rack="r1")}
    assert topology.jobs == {"gpu-1": "ml/Pod/a"}
    assert topology.pods == {("ml", "a"): "ml/Pod/a"}
    pages = [asked.query for asked in api.asked if asked.path == "/api/v1/pods"]
    assert [page["limit"] for page in pages] == ["500", "500", "500"]
    assert {page["fieldSelector"] for page in pages} == {"spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}


def test_the_node_selector_is_sent(api: Api, tmp_path: Path) -> None:
    client = KubernetesClient(kubeconfig=tmp_path / "kubeconfig", timeout_s=5)
    with contextlib.closing(KubernetesTopology(client, node_selector="nvidia.com/gpu.present=true")) as source:
        source.topology(AT)

    assert api.asked[0].query["labelSelector"] == "nvidia.com/gpu.present=true"


def test_the_very_same_topology_is_told_while_nothing_has_changed(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1")]

    first = source.topology(AT)
    asked = len(api.asked)

    assert source.topology(AT + timedelta(seconds=29)) is first
    assert len(api.asked) == asked
    assert source.topology(AT + timedelta(seconds=30)) is first
    assert len(api.asked) > asked


def test_an_init_container_that_asks_for_more_counts(api: Api, source: KubernetesTopology) -> None:
    check = {"name": "check", "resources": {"requests": {"nvidia.com/gpu": "8"}}}
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", gpus=2, initContainers=[check]), pod("b", "gpu-2", gpus=2)]

    topology = source.topology(AT)

    assert topology.jobs == {"gpu-1": "ml/Pod/a"}
    assert topology.sharing == {"gpu-2": ("ml/Pod/b",)}


def test_a_thousand_shares_are_a_thousand(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/nodes"] = [node("gpu-1", gpus="1k")]
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", gpus=999)]

    assert source.topology(AT).sharing == {"gpu-1": ("ml/Pod/a",)}


def test_an_amount_that_is_no_number_of_gpus_is_unavailable(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/nodes"] = [node("gpu-1", gpus="-8")]

    with pytest.raises(Unavailable, match="'-8' as a number of GPUs"):
        source.topology(AT)


# Owners


def test_a_job_is_its_topmost_owner(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [
        pod("set-0", "gpu-1", owner("Job", "set-workers"), gpus=1),
        pod("web-1", "gpu-1", owner("ReplicaSet", "web-5d9", "apps/v1"), gpus=1),
        pod("nightly-1", "gpu-1", owner("Job", "nightly-123"), gpus=1),
        pod("static", "gpu-1", owner("Node", "gpu-1", "v1"), gpus=1),
        pod("alone", "gpu-1", gpus=1),
    ]
    api.owns(JOBS, "Job", "set-workers", owner("JobSet", "set", "jobset.x-k8s.io/v1alpha2"))
    api.owns(JOB_SETS, "JobSet", "set")
    api.owns(DEPLOYMENTS, "ReplicaSet", "web-5d9", owner("Deployment", "web", "apps/v1"))
    api.owns(DEPLOYMENTS, "Deployment", "web")
    api.owns(JOBS, "Job", "nightly-123", owner("CronJob", "nightly"))

    topology = source.topology(AT)

    assert topology.pods == {
        ("ml", "set-0"): "ml/JobSet/set",
        ("ml", "web-1"): "ml/Deployment/web",
        ("ml", "nightly-1"): "ml/Job/nightly-123",
        ("ml", "static"): "ml/Pod/static",
        ("ml", "alone"): "ml/Pod/alone",
    }
    assert topology.warnings == ()
    wanted = {asked.headers["accept"].partition(";g=")[0] for asked in api.asked if asked.path.startswith(f"{JOBS}/")}
    assert wanted == {"application/json;as=PartialObjectMetadata"}


def test_a_leader_pod_that_owns_its_workers_is_climbed_over(api: Api, source: KubernetesTopology) -> None:
    """As a LeaderWorkerSet has it: workers belong to a set that belongs to the leader that belongs to a set."""
    leader = pod("lws-0", "gpu-1", owner("StatefulSet", "lws", "apps/v1"))
    worker = pod("lws-0-1", "gpu-2", owner("StatefulSet", "lws-0", "apps/v1"))
    api.lists["/api/v1/pods"] = [leader, worker]
    api.owns(DEPLOYMENTS, "StatefulSet", "lws-0", owner("Pod", "lws-0", "v1"))
    api.owns(DEPLOYMENTS, "StatefulSet", "lws")

    assert set(source.topology(AT).pods.values()) == {"ml/StatefulSet/lws"}


def test_the_controller_of_several_owners_counts_and_else_the_first(api: Api, source: KubernetesTopology) -> None:
    bystander = owner("Other", "o", "example.com/v1", controller=False)
    api.lists["/api/v1/pods"] = [
        pod("a", "gpu-1", bystander, owner("Job", "a")),
        pod("b", "gpu-2", owner("Job", "b", controller=False), bystander),
    ]
    api.owns(JOBS, "Job", "a")
    api.owns(JOBS, "Job", "b")

    assert source.topology(AT).jobs == {"gpu-1": "ml/Job/a", "gpu-2": "ml/Job/b"}


def test_each_owner_is_read_once(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a-0", "gpu-1", owner("Job", "a")), pod("a-1", "gpu-2", owner("Job", "a"))]
    api.owns(JOBS, "Job", "a")

    source.topology(AT)
    source.topology(AT + timedelta(minutes=1))

    assert api.paths().count(f"{JOBS}/namespaces/ml/jobs/a") == 1
    assert api.paths().count(JOBS) == 1


def test_an_owner_that_nobody_has_any_more_is_forgotten(api: Api, source: KubernetesTopology) -> None:
    api.owns(JOBS, "Job", "a")
    for minute, pods in enumerate(([pod("a", "gpu-1", owner("Job", "a"))], [], [pod("a", "gpu-1", owner("Job", "a"))])):
        api.lists["/api/v1/pods"] = pods
        source.topology(AT + timedelta(minutes=minute))

    assert api.paths().count(f"{JOBS}/namespaces/ml/jobs/a") == 2


def test_many_owners_of_one_kind_are_listed_and_not_asked_for_each(api: Api, source: KubernetesTopology) -> None:
    names = [f"j{i}" for i in range(600)]
    api.lists["/api/v1/pods"] = [pod(name, "gpu-1", owner("Job", name), gpus=1) for name in names]
    for name in [*names[:-1], "somebody-elses"]:
        api.owns(JOBS, "Job", name, owner("JobSet", f"set-{name}", "jobset.x-k8s.io/v1alpha2"))
    api.lists[f"{JOB_SETS}/jobsets"] = []

    jobs = source.topology(AT).pods

    assert jobs["ml", "j0"] == "ml/JobSet/set-j0"
    assert jobs["ml", "j599"] == "ml/Job/j599"  # it is not in the list: it has just gone
    assert [path for path in api.paths() if path.startswith(f"{JOBS}/")] == [f"{JOBS}/jobs"] * 2


@pytest.mark.parametrize("count", [1, 30], ids=["asked for one", "listed"])
def test_what_may_not_be_read_is_the_job_and_the_missing_rule_is_named(
    api: Api, source: KubernetesTopology, count: int
) -> None:
    api.lists["/api/v1/pods"] = [pod(f"j{i}", "gpu-1", owner("Job", f"j{i}"), gpus=1) for i in range(count)]
    verb = "list" if count > 1 else "get"
    refused = f'jobs.batch is forbidden: User "healer" cannot {verb} resource "jobs"'
    api.answers[f"{JOBS}/jobs" if count > 1 else f"{JOBS}/namespaces/ml/jobs/j0"] = 403, _status(403, refused)

    topology = source.topology(AT)

    assert topology.pods["ml", "j0"] == "ml/Job/j0"
    (warning,) = topology.warnings
    assert f'add {{apiGroups: ["batch"], resources: ["jobs"], verbs: ["{verb}"]}} to its ClusterRole' in warning
    assert "jobs are named for their Job" in warning


def test_what_may_be_read_later_is_read_later(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", owner("Job", "a"))]
    api.owns(JOBS, "Job", "a", owner("JobSet", "set", "jobset.x-k8s.io/v1alpha2"))
    api.answers[f"{JOBS}/namespaces/ml/jobs/a"] = FORBIDDEN
    assert source.topology(AT).jobs == {"gpu-1": "ml/Job/a"}

    del api.answers[f"{JOBS}/namespaces/ml/jobs/a"]
    later = source.topology(AT + timedelta(minutes=1))

    assert later.jobs == {"gpu-1": "ml/JobSet/set"}
    assert later.warnings == ()


def test_an_owner_of_a_kind_that_is_not_served_is_the_job(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [
        pod("a", "gpu-1", owner("Gang", "a")),
        pod("b", "gpu-2", owner("Gang", "b", "gone.example.com/v1")),
    ]

    topology = source.topology(AT)

    assert topology.jobs == {"gpu-1": "ml/Gang/a", "gpu-2": "ml/Gang/b"}
    assert "serves no Gang of batch/v1" in " ".join(topology.warnings)
    assert "get the API gone.example.com v1" in " ".join(topology.warnings)


@pytest.mark.parametrize("uid", [None, "of a namesake"], ids=["gone", "replaced by a namesake"])
def test_an_owner_that_is_no_longer_there_is_the_job(api: Api, source: KubernetesTopology, uid: str | None) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", owner("Job", "a"))]
    if uid is not None:
        api.owns(JOBS, "Job", "a", owner("JobSet", "set", "jobset.x-k8s.io/v1alpha2"), uid=uid)

    topology = source.topology(AT)

    assert topology.jobs == {"gpu-1": "ml/Job/a"}
    assert topology.warnings == ()


def test_owners_that_own_each_other_end(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", owner("Job", "a"))]
    api.owns(JOBS, "Job", "a", owner("Job", "b"))
    api.owns(JOBS, "Job", "b", owner("Job", "a"))

    assert source.topology(AT).jobs["gpu-1"] in {"ml/Job/a", "ml/Job/b"}


def test_a_chain_of_owners_is_climbed_so_far_and_no_farther(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", owner("Job", "j0"))]
    for i in range(20):
        api.owns(JOBS, "Job", f"j{i}", owner("Job", f"j{i + 1}"))

    assert source.topology(AT).jobs == {"gpu-1": "ml/Job/j8"}


# Dynamic resource allocation

CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"
GROUP = 200, {"preferredVersion": {"groupVersion": "resource.k8s.io/v1", "version": "v1"}}


def test_gpus_by_resource_claims_are_counted(api: Api, source: KubernetesTopology) -> None:
    wants = [{"name": "gpus"}]
    api.lists["/api/v1/pods"] = [
        pod("a", "gpu-1", gpus=0, resourceClaims=wants),
        pod("nic", "gpu-2", gpus=0, resourceClaims=wants),
        pod("b", "gpu-2", gpus=4),
    ]
    api.answers["/apis/resource.k8s.io"] = GROUP
    api.lists[CLAIMS] = [
        claim("gpu.nvidia.com", "Pod/a", count=8),
        claim("gpu.nvidia.com", "Pod/nic", admin=True),
        claim("dra.net", "Pod/nic"),
        {"status": {"reservedFor": [{"uid": "Pod/b"}]}},
        {},
    ]

    assert source.topology(AT).pods == {("ml", "a"): "ml/Pod/a", ("ml", "b"): "ml/Pod/b"}


def test_claims_are_not_asked_for_where_nobody_has_any(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1")]

    source.topology(AT)

    assert not [path for path in api.paths() if "resource.k8s.io" in path]


def test_claims_that_may_not_be_read_are_said(api: Api, source: KubernetesTopology) -> None:
    api.lists["/api/v1/pods"] = [pod("a", "gpu-1", gpus=0, resourceClaims=[{"name": "x"}]), pod("b", "gpu-2")]
    api.answers["/apis/resource.k8s.io"] = GROUP
    api.answers[CLAIMS] = FORBIDDEN

    topology = source.topology(AT)

    assert topology.jobs == {"gpu-2": "ml/Pod/b"}
    assert "jobs that have their GPUs by resource claims are not known" in topology.warnings[0]


# What goes wrong


@pytest.mark.parametrize("path", ["/api/v1/nodes", "/api/v1/pods", f"{JOBS}/namespaces/ml/jobs/a", CLAIMS])
@pytest.mark.parametrize(
    "answer",
    [
        (429, _status(429, "too many requests")),
        (503, _status(503, "etcdserver: leader changed")),
        (410, _status(410, "The provided continue parameter is too old")),
        (200, {"kind": "Status", "status": "Success"}),
        (200, {"metadata": {}, "items": [7]}),
    ],
    ids=["throttled", "failing", "expired", "not what was asked for", "of the wrong type"],
)
def test_an_answer_that_is_none_leaves_jobs_unknown_and_never_none(
    api: Api, source: KubernetesTopology, path: str, answer: tuple[int, Json]
) -> None:
    api.lists["/api/v1/pods"] = [
        pod("a", "gpu-1", owner("Job", "a")),
        pod("b", "gpu-2", gpus=0, resourceClaims=[{"name": "x"}]),
    ]
    api.answers["/apis/resource.k8s.io"] = GROUP
    api.lists[CLAIMS] = []
    api.owns(JOBS, "Job", "a")
    api.answers[path] = answer

    with pytest.raises(Unavailable):
        source.topology(AT)


@pytest.mark.parametrize("path", ["/api/v1/nodes", "/api/v1/pods"])
def test_nodes_or_pods_that_may_not_be_listed_are_a_refusal(api: Api, source: KubernetesTopology, path: str) -> None:
    api.answers[path] = FORBIDDEN

    with pytest.raises(Rejected, match="ClusterRole"):
        source.topology(AT)
