"""The control plane decides as a real one does; what healer's tests rely on is shown here first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException, CoreV1Api, V1Eviction
from kubernetes.config import new_client_from_config

from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane, Write
from tests.controlplane.fleet import PodSeen, PodShape
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode

pytestmark = pytest.mark.kubernetes

EIGHT_GPUS = PodShape(gpus=8)


@pytest.fixture
def nodes(control_plane: ControlPlane) -> Iterator[tuple[str, str]]:
    """Two ready nodes with eight GPUs each, in two racks."""
    with KubeletPlayer(control_plane, [PlayedNode("gpu-1", rack="r1"), PlayedNode("gpu-2", rack="r2")]):
        yield "gpu-1", "gpu-2"


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[ApiClient]:
    with control_plane.client("admin") as api:
        yield api


@pytest.fixture
def healer(control_plane: ControlPlane) -> Iterator[CoreV1Api]:
    with control_plane.client("healer") as api:
        yield CoreV1Api(api)


def test_a_deployments_pods_run_on_the_node_of_the_rack_they_ask_for(
    control_plane: ControlPlane, namespace: str, nodes: tuple[str, str], admin: ApiClient
) -> None:
    fleet.create_deployment(admin, namespace, "train", replicas=3, shape=PodShape(node_selector={"rack": "r2"}))

    pods = _await_running(control_plane, namespace, "train", count=3)

    assert {pod.node for pod in pods} == {nodes[1]}


def test_a_cordoned_node_gets_no_new_pods_and_keeps_its_old_ones(
    control_plane: ControlPlane, namespace: str, nodes: tuple[str, str], admin: ApiClient, healer: CoreV1Api
) -> None:
    fleet.create_deployment(admin, namespace, "old", replicas=2, shape=PodShape(gpus=4, node_selector={"rack": "r1"}))
    old = _await_running(control_plane, namespace, "old", count=2)

    _cordon(healer, nodes[0])
    fleet.create_deployment(admin, namespace, "new", replicas=6)
    new = _await_running(control_plane, namespace, "new", count=6)

    assert {pod.node for pod in new} == {nodes[1]}
    assert fleet.running_pods(admin, namespace, "old") == old


def test_an_evicted_pod_goes_and_its_controller_makes_another_on_the_other_node(
    control_plane: ControlPlane, namespace: str, nodes: tuple[str, str], admin: ApiClient, healer: CoreV1Api
) -> None:
    fleet.create_deployment(admin, namespace, "train", replicas=1, shape=EIGHT_GPUS)
    (before,) = _await_running(control_plane, namespace, "train", count=1)
    _cordon(healer, before.node)

    _evict(healer, namespace, before)
    (after,) = control_plane.eventually(
        lambda: [pod for pod in fleet.running_pods(admin, namespace, "train") if pod.uid != before.uid],
        what=f"another pod in place of {before.name}",
    )

    assert {before.node, after.node} == set(nodes)
    control_plane.eventually(lambda: not _exists(healer, namespace, before), what=f"{before.name} is gone")


def test_a_lingering_pod_is_terminating_until_its_time_is_over(
    control_plane: ControlPlane, namespace: str, admin: ApiClient, healer: CoreV1Api
) -> None:
    with KubeletPlayer(control_plane, [PlayedNode("slow-1")], linger_s=1.0):
        fleet.create_bare_pod(admin, namespace, "alone")
        (pod,) = _await_running(control_plane, namespace, "alone", count=1)

        _evict(healer, namespace, pod)

        terminating: Any = healer.read_namespaced_pod(pod.name, namespace)
        assert terminating.metadata.deletion_timestamp is not None
        control_plane.eventually(lambda: not _exists(healer, namespace, pod), what=f"{pod.name} is gone")


def test_a_daemon_set_runs_on_every_node_cordoned_or_not(
    control_plane: ControlPlane, namespace: str, nodes: tuple[str, str], admin: ApiClient, healer: CoreV1Api
) -> None:
    _cordon(healer, nodes[0])
    fleet.create_daemon_set(admin, namespace, "exporter")

    pods = _await_running(control_plane, namespace, "exporter", count=2)

    assert {pod.node for pod in pods} == set(nodes)


@pytest.mark.usefixtures("nodes")
def test_a_spent_budget_blocks_the_eviction_with_429_and_its_name(
    control_plane: ControlPlane, namespace: str, admin: ApiClient, healer: CoreV1Api
) -> None:
    fleet.create_deployment(admin, namespace, "train", replicas=2)
    pod, _ = _await_running(control_plane, namespace, "train", count=2)
    fleet.create_budget(control_plane, namespace, "all-or-nothing", app="train", min_available=2)

    with pytest.raises(ApiException) as blocked:
        _evict(healer, namespace, pod)

    assert blocked.value.status == 429
    answer = str(blocked.value.body)
    assert "DisruptionBudget" in answer
    assert "all-or-nothing" in answer
    assert [write.code for write in _evictions(control_plane, namespace, pod)] == [429]


@pytest.mark.usefixtures("nodes")
def test_every_eviction_is_on_record_and_a_rehearsal_is_marked(
    control_plane: ControlPlane, namespace: str, admin: ApiClient, healer: CoreV1Api
) -> None:
    fleet.create_bare_pod(admin, namespace, "alone")
    (pod,) = _await_running(control_plane, namespace, "alone", count=1)

    _evict(healer, namespace, pod, dry_run=True)
    assert fleet.running_pods(admin, namespace, "alone") == (pod,)
    _evict(healer, namespace, pod)

    seen = [(write.verb, write.code, write.dry_run) for write in _evictions(control_plane, namespace, pod)]
    assert seen == [("create", 201, True), ("create", 201, False)]


@pytest.mark.usefixtures("nodes")
def test_reads_leave_no_writes_on_record_and_a_refused_write_does(control_plane: ControlPlane) -> None:
    before = control_plane.writes("reader")
    client = new_client_from_config(str(control_plane.kubeconfig("reader")))  # type: ignore[no-untyped-call]
    with client as api:
        core = CoreV1Api(api)
        nodes: list[Any] = core.list_node().items
        assert {node.metadata.name for node in nodes} == {"gpu-1", "gpu-2"}
        core.list_pod_for_all_namespaces()
        assert control_plane.writes("reader") == before

        with pytest.raises(ApiException) as refused:
            _cordon(core, "gpu-1")

    assert refused.value.status == 403
    (write,) = control_plane.writes("reader")[len(before) :]
    assert (write.verb, write.resource, write.name, write.code) == ("patch", "nodes", "gpu-1", 403)


@pytest.mark.usefixtures("nodes")
def test_healer_may_not_delete_nodes_or_pods(
    control_plane: ControlPlane, namespace: str, admin: ApiClient, healer: CoreV1Api
) -> None:
    fleet.create_bare_pod(admin, namespace, "alone")
    (pod,) = _await_running(control_plane, namespace, "alone", count=1)

    with pytest.raises(ApiException) as node_refused:
        healer.delete_node(pod.node)
    with pytest.raises(ApiException) as pod_refused:
        healer.delete_namespaced_pod(pod.name, namespace)

    assert (node_refused.value.status, pod_refused.value.status) == (403, 403)
    assert fleet.running_pods(admin, namespace, "alone") == (pod,)


def _await_running(control_plane: ControlPlane, namespace: str, app: str, *, count: int) -> tuple[PodSeen, ...]:
    with control_plane.client("reader") as api:
        return control_plane.eventually(
            lambda: pods if len(pods := fleet.running_pods(api, namespace, app)) == count else None,
            what=f"{count} running pods of {app}",
        )


def _cordon(core: CoreV1Api, node: str) -> None:
    core.patch_node(node, {"spec": {"unschedulable": True}})


def _evict(core: CoreV1Api, namespace: str, pod: PodSeen, *, dry_run: bool = False) -> None:
    options = {"preconditions": {"uid": pod.uid}} | ({"dryRun": ["All"]} if dry_run else {})
    body = {"metadata": {"name": pod.name, "namespace": namespace}, "deleteOptions": options}
    core.create_namespaced_pod_eviction(pod.name, namespace, V1Eviction.model_validate(body))


def _exists(core: CoreV1Api, namespace: str, pod: PodSeen) -> bool:
    pods: list[Any] = core.list_namespaced_pod(namespace).items
    return any(seen.metadata.uid == pod.uid for seen in pods)


def _evictions(control_plane: ControlPlane, namespace: str, pod: PodSeen) -> list[Write]:
    return [
        write
        for write in control_plane.writes("healer")
        if (write.subresource, write.namespace, write.name) == ("eviction", namespace, pod.name)
    ]
