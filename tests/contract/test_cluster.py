"""What healer relies on in a cluster. One suite: the simulated cluster and a real Kubernetes must both pass it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from kubernetes.client import CoreV1Api, V1Namespace, V1Node

from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.fleet import Disposition, Node, Workload
from healer.errors import Conflict, NotFound, Rejected, Unavailable
from healer.ports import Cluster, Eviction, EvictionAnswer
from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode
from tests.controlplane.lab import RealClusterLab

RACKS = {"gpu-1": "r1", "gpu-2": "r2"}
FIRST, SECOND = RACKS
LINGER = timedelta(seconds=1)
LOOKS = 400

Seen = TypeVar("Seen")


class ClusterLab(Protocol):
    """The cluster under test, and a person beside healer who works in it; what they start is running on return."""

    cluster: Cluster

    def cordon(self, node: str) -> None: ...

    def uncordon(self, node: str) -> None: ...

    def deploy(self, app: str, *, replicas: int) -> None:
        """Workloads that their controller makes again, as far as possible on the first node."""
        ...

    def deploy_everywhere(self, app: str) -> None: ...

    def start_unmanaged(self, app: str) -> None: ...

    def set_budget(self, name: str, *, app: str, min_available: int) -> None: ...

    def unplugged(self) -> Cluster:
        """The same cluster for somebody whose network is down."""
        ...

    def advance(self) -> None:
        """Let a moment pass."""
        ...


class SimulatedLab:
    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._simulated = SimulatedCluster(RACKS, clock=self, termination=LINGER)
        self.cluster: Cluster = self._simulated

    def now(self) -> datetime:
        return self._now

    def cordon(self, node: str) -> None:
        self._simulated.cordon_by_person(node)

    def uncordon(self, node: str) -> None:
        self._simulated.uncordon_by_person(node)

    def deploy(self, app: str, *, replicas: int) -> None:
        for _ in range(replicas):
            self._simulated.add_workload(f"Deployment/{app}", node=FIRST, gpus=1)

    def deploy_everywhere(self, app: str) -> None:
        self._simulated.add_workload(f"DaemonSet/{app}")

    def start_unmanaged(self, app: str) -> None:
        self._simulated.add_workload(f"Pod/{app}", node=FIRST)

    def set_budget(self, name: str, *, app: str, min_available: int) -> None:
        self._simulated.set_budget(name, owner=f"Deployment/{app}", min_available=min_available)

    def unplugged(self) -> Cluster:
        other = SimulatedCluster(RACKS, clock=self)
        other.fail_next(Unavailable("simulated cluster", "unplugged"), times=100)
        return other

    def advance(self) -> None:
        self._now += timedelta(seconds=0.3)


class KubernetesLab(RealClusterLab[KubernetesCluster]):
    def adapter(self, kubeconfig: Path) -> KubernetesCluster:
        return KubernetesCluster(kubeconfig=kubeconfig, node_selector="lab=cluster", rack_label="rack")

    def cordon(self, node: str) -> None:
        CoreV1Api(self.admin).patch_node(node, {"spec": {"unschedulable": True}})

    def uncordon(self, node: str) -> None:
        """Returns once the scheduler may use the node: the taint goes a moment after the cordon."""
        core = CoreV1Api(self.admin)
        core.patch_node(node, {"spec": {"unschedulable": None}})
        self.control_plane.eventually(lambda: not _taints(core.read_node(node)), what=f"{node} has no taint any more")

    def deploy(self, app: str, *, replicas: int) -> None:
        rack = {"key": "rack", "operator": "In", "values": [RACKS[FIRST]]}
        prefers = {"weight": 100, "preference": {"matchExpressions": [rack]}}
        affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [prefers]}}
        shape = fleet.PodShape(gpus=1, spec={"affinity": affinity})
        fleet.create_deployment(self.admin, self.namespace, app, replicas=replicas, shape=shape)
        self.await_started(app, count=replicas)

    def deploy_everywhere(self, app: str) -> None:
        fleet.create_daemon_set(self.admin, self.namespace, app)
        self.await_started(app, count=len(RACKS))

    def start_unmanaged(self, app: str) -> None:
        shape = fleet.PodShape(node_selector={"rack": RACKS[FIRST]})
        fleet.create_bare_pod(self.admin, self.namespace, app, shape=shape)
        self.await_started(app, count=1)

    def set_budget(self, name: str, *, app: str, min_available: int) -> None:
        fleet.create_budget(self.control_plane, self.namespace, name, app=app, min_available=min_available)

    def close(self) -> None:
        for node in RACKS:
            self.uncordon(node)
        super().close()


@pytest.fixture(scope="module")
def kubelets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    nodes = [PlayedNode(name, rack=rack, labels={"lab": "cluster"}) for name, rack in RACKS.items()]
    with KubeletPlayer(control_plane, nodes, linger_s=LINGER.total_seconds()):
        yield control_plane


@pytest.fixture
def kubernetes_lab(kubelets: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[KubernetesLab]:
    with kubelets.client("admin") as admin:
        lab = KubernetesLab(kubelets, admin, namespace, tmp_path)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture(params=["simulated", pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
def lab(request: pytest.FixtureRequest) -> ClusterLab:
    if request.param == "simulated":
        return SimulatedLab()
    real: ClusterLab = request.getfixturevalue("kubernetes_lab")
    return real


def test_nodes_are_told_with_their_racks_and_whether_they_take_work(lab: ClusterLab) -> None:
    lab.cordon(SECOND)

    assert set(lab.cluster.nodes()) == {
        Node(FIRST, ready=True, cordoned=False, rack="r1"),
        Node(SECOND, ready=True, cordoned=True, rack="r2"),
    }


def test_a_cordon_is_read_back_with_its_owner(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="XID 79 on GPU 3")

    assert lab.cluster.node(FIRST) == Node(FIRST, ready=True, cordoned=True, cordoned_by="run-1", rack="r1")


def test_the_owner_of_a_cordon_may_ask_for_it_again(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="first")
    lab.cluster.cordon(FIRST, by="run-1", reason="again, after a crash")

    assert lab.cluster.node(FIRST).cordoned_by == "run-1"


def test_a_cordon_of_another_run_is_a_conflict_and_stays_its_own(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="first")

    with pytest.raises(Conflict, match="run-1"):
        lab.cluster.cordon(FIRST, by="run-2", reason="second")
    with pytest.raises(Conflict, match="run-1"):
        lab.cluster.uncordon(FIRST, by="run-2")

    assert lab.cluster.node(FIRST).cordoned_by == "run-1"


def test_a_node_that_a_person_cordoned_is_a_conflict_and_stays_cordoned(lab: ClusterLab) -> None:
    lab.cordon(FIRST)

    with pytest.raises(Conflict, match="a person"):
        lab.cluster.cordon(FIRST, by="run-1", reason="XID 79")
    with pytest.raises(Conflict, match="a person"):
        lab.cluster.uncordon(FIRST, by="run-1")

    assert lab.cluster.node(FIRST) == Node(FIRST, ready=True, cordoned=True, rack="r1")


def test_undoing_a_cordon_leaves_the_node_as_it_was(lab: ClusterLab) -> None:
    before = lab.cluster.node(FIRST)

    lab.cluster.cordon(FIRST, by="run-1", reason="XID 79")
    lab.cluster.uncordon(FIRST, by="run-1")

    assert lab.cluster.node(FIRST) == before


def test_undoing_a_cordon_that_a_person_already_lifted_is_a_conflict(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="XID 79")
    lab.uncordon(FIRST)

    assert lab.cluster.node(FIRST) == Node(FIRST, ready=True, cordoned=False, rack="r1")
    with pytest.raises(Conflict, match="lifted"):
        lab.cluster.uncordon(FIRST, by="run-1")


def test_a_cordon_that_a_person_set_after_lifting_ours_is_theirs(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="XID 79")
    lab.uncordon(FIRST)
    lab.cordon(FIRST)

    assert lab.cluster.node(FIRST).cordoned_by is None
    with pytest.raises(Conflict, match="a person"):
        lab.cluster.uncordon(FIRST, by="run-1")
    assert lab.cluster.node(FIRST).cordoned


def test_a_node_whose_cordon_a_person_lifted_may_be_cordoned_by_a_later_run(lab: ClusterLab) -> None:
    lab.cluster.cordon(FIRST, by="run-1", reason="XID 79")
    lab.uncordon(FIRST)

    lab.cluster.cordon(FIRST, by="run-2", reason="XID 79 again")

    assert lab.cluster.node(FIRST).cordoned_by == "run-2"


@pytest.mark.parametrize("name", ["gpu-99", "Not a Name", "", "a,metadata.namespace=b"])
def test_a_node_that_does_not_exist_is_not_found_rather_than_empty(lab: ClusterLab, name: str) -> None:
    with pytest.raises(NotFound):
        lab.cluster.node(name)
    with pytest.raises(NotFound):
        lab.cluster.workloads(name)
    with pytest.raises(NotFound):
        lab.cluster.cordon(name, by="run-1", reason="")


def test_an_evicted_workload_leaves_and_its_controller_makes_another_elsewhere(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=1)
    (before,) = _running(lab, "train")
    lab.cluster.cordon(before.node, by="run-1", reason="drain")

    assert lab.cluster.evict(before, grace=None).answer is EvictionAnswer.ACCEPTED
    (leaving,) = [seen for seen in lab.cluster.workloads(before.node) if seen.uid == before.uid]
    (after,) = _eventually(lab, lambda: _others(lab, "train", before), what="another workload")

    assert leaving.leaving
    assert {before.node, after.node} == set(RACKS)
    assert (after.owner, after.leaving) == (before.owner, False)
    _eventually(lab, lambda: not _has(lab, before), what=f"{before} is gone")
    assert lab.cluster.evict(before, grace=None) == Eviction(EvictionAnswer.GONE)


def test_a_workload_is_named_for_the_controller_that_outlives_it(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=1)
    (workload,) = _running(lab, "train")

    assert workload.owner == "Deployment/train"
    assert workload.disposition is Disposition.EVICT
    assert workload.name.startswith("train-")


def test_an_eviction_with_a_stale_uid_answers_gone_and_evicts_nothing(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=1)
    (running,) = _running(lab, "train")
    stale = Workload(
        running.namespace, running.name, "11111111-2222-3333-4444-555555555555", FIRST, running.owner, Disposition.EVICT
    )

    assert lab.cluster.evict(stale, grace=None).answer is EvictionAnswer.GONE
    assert _running(lab, "train") == (running,)


def test_a_workload_that_is_leaving_already_may_be_asked_again(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=1)
    (running,) = _running(lab, "train")

    assert lab.cluster.evict(running, grace=None).answer is EvictionAnswer.ACCEPTED
    assert lab.cluster.evict(running, grace=timedelta(seconds=20)).answer is EvictionAnswer.ACCEPTED


def test_a_spent_budget_blocks_and_names_itself_before_and_when_it_is_asked(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=2)
    lab.set_budget("all-of-them", app="train", min_available=2)

    blocked, _ = _eventually(
        lab, lambda: [seen for seen in _running(lab, "train") if seen.blocked_by], what="both are blocked"
    )
    answer = lab.cluster.evict(blocked, grace=None)

    assert blocked.blocked_by == f"{blocked.namespace}/all-of-them (0 disruptions allowed)"
    assert answer.answer is EvictionAnswer.BLOCKED
    assert "all-of-them" in answer.detail
    assert answer.retry_after > timedelta(0)
    assert len(_running(lab, "train")) == 2


def test_a_budget_lets_one_go_at_a_time(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=2)
    first, second = _running(lab, "train")
    lab.set_budget("all-but-one", app="train", min_available=1)
    _eventually(lab, lambda: not _running(lab, "train")[0].blocked_by, what="the budget has counted both")
    for node in RACKS:
        lab.cordon(node)  # so that there is no room for another yet

    assert lab.cluster.evict(first, grace=None).answer is EvictionAnswer.ACCEPTED
    assert lab.cluster.evict(second, grace=None).answer is EvictionAnswer.BLOCKED

    lab.uncordon(SECOND)
    _eventually(lab, lambda: _is_accepted(lab, second), what="the budget has recovered and lets the second go")


def test_two_budgets_over_one_workload_are_a_refusal_that_trying_again_does_not_help(lab: ClusterLab) -> None:
    lab.deploy("train", replicas=2)
    for name in ("one-budget", "too-many"):
        lab.set_budget(name, app="train", min_available=0)
    workload = _running(lab, "train")[0]

    assert workload.blocked_by is not None
    assert {"one-budget", "too-many"} <= set(workload.blocked_by.replace("/", " ").replace(",", " ").split())
    with pytest.raises(Rejected, match="more than one"):
        lab.cluster.evict(workload, grace=None)


def test_the_workload_of_a_daemon_set_stays(lab: ClusterLab) -> None:
    lab.cordon(FIRST)
    lab.deploy_everywhere("exporter")

    workloads = _running(lab, "exporter")

    assert {seen.node for seen in workloads} == {FIRST, SECOND}
    assert {(seen.disposition, seen.owner) for seen in workloads} == {(Disposition.STAYS, "DaemonSet/exporter")}
    assert all(seen.why for seen in workloads)


def test_an_unmanaged_workload_refuses_until_it_is_leaving(lab: ClusterLab) -> None:
    lab.start_unmanaged("notebook")
    (workload,) = _running(lab, "notebook")
    assert workload.disposition is Disposition.REFUSES
    assert "no controller" in workload.why

    lab.cluster.evict(workload, grace=None)

    (leaving,) = [seen for seen in lab.cluster.workloads(FIRST) if seen.uid == workload.uid]
    assert (leaving.leaving, leaving.disposition) == (True, Disposition.EVICT)
    _eventually(lab, lambda: not _has(lab, workload), what="it is gone")
    assert _running(lab, "notebook") == ()


def test_a_cluster_that_does_not_answer_is_unavailable_and_never_empty(lab: ClusterLab) -> None:
    cluster = lab.unplugged()
    workload = Workload("default", "train-1", "uid", FIRST, "Deployment/train", Disposition.EVICT)
    questions: dict[str, Callable[[], object]] = {
        "nodes": cluster.nodes,
        "node": lambda: cluster.node(FIRST),
        "workloads": lambda: cluster.workloads(FIRST),
        "cordon": lambda: cluster.cordon(FIRST, by="run-1", reason=""),
        "uncordon": lambda: cluster.uncordon(FIRST, by="run-1"),
        "evict": lambda: cluster.evict(workload, grace=None),
    }

    assert {name: _is_unavailable(question) for name, question in questions.items()} == dict.fromkeys(questions, True)


@pytest.mark.kubernetes
def test_a_user_without_rights_is_rejected_with_the_rule_that_is_missing(kubernetes_lab: KubernetesLab) -> None:
    reader = kubernetes_lab.opened_as("reader")
    kubernetes_lab.deploy("train", replicas=1)
    (workload,) = _running(kubernetes_lab, "train")

    with pytest.raises(Rejected, match=r'resources: \["nodes"\], verbs: \["patch"\]'):
        reader.cordon(FIRST, by="run-1", reason="")
    with pytest.raises(Rejected, match=r'resources: \["pods/eviction"\], verbs: \["create"\]'):
        reader.evict(workload, grace=None)

    assert not kubernetes_lab.cluster.node(FIRST).cordoned
    assert _running(kubernetes_lab, "train") == (workload,)


@pytest.mark.kubernetes
def test_a_refused_token_is_rejected_and_a_renewed_one_is_taken_up(
    kubernetes_lab: KubernetesLab, kubelets: ControlPlane, tmp_path: Path
) -> None:
    good = kubelets.kubeconfig("healer").read_text(encoding="utf-8")
    expired = tmp_path / "healer.kubeconfig"
    secret = f"expired-{secrets.token_hex(8)}"
    expired.write_text(good.replace(kubelets.token("healer"), secret), encoding="utf-8")

    with contextlib.closing(KubernetesCluster(kubeconfig=expired, node_selector="lab=cluster")) as cluster:
        with pytest.raises(Rejected, match="credentials") as refused:
            cluster.nodes()
        expired.write_text(good, encoding="utf-8")
        assert len(cluster.nodes()) == 2

    assert secret not in str(refused.value)
    assert len(kubernetes_lab.cluster.nodes()) == 2


@pytest.mark.kubernetes
def test_a_workload_of_a_namespace_that_is_being_deleted_is_leaving_with_it(
    kubernetes_lab: KubernetesLab, kubelets: ControlPlane
) -> None:
    with kubelets.client("admin") as admin:
        core = CoreV1Api(admin)
        doomed = f"doomed-{secrets.token_hex(4)}"
        core.create_namespace(V1Namespace.model_validate({"metadata": {"name": doomed}}))
        try:
            shape = fleet.PodShape(node_selector={"rack": RACKS[FIRST]})
            fleet.create_bare_pod(admin, doomed, "doomed", shape=shape)
            (workload,) = _eventually(
                kubernetes_lab, lambda: _running(kubernetes_lab, "doomed"), what="it is on the node"
            )
        finally:
            core.delete_namespace(doomed)
        answer = kubernetes_lab.cluster.evict(workload, grace=None)

    assert answer.answer is EvictionAnswer.ACCEPTED
    _eventually(kubernetes_lab, lambda: not _has(kubernetes_lab, workload), what="the namespace took it along")


@pytest.mark.kubernetes
def test_a_list_of_several_pages_is_read_to_its_end(
    kubernetes_lab: KubernetesLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes_lab.deploy("train", replicas=3)
    running = _running(kubernetes_lab, "train")

    monkeypatch.setattr("healer.adapters.kubernetes.cluster.PAGE", 1)

    assert _running(kubernetes_lab, "train") == running
    assert {node.name for node in kubernetes_lab.cluster.nodes()} == set(RACKS)


@pytest.mark.kubernetes
def test_a_node_that_lost_its_heartbeat_is_not_ready(kubernetes_lab: KubernetesLab, kubelets: ControlPlane) -> None:
    with kubelets.client("admin") as admin:
        core = CoreV1Api(admin)
        status = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        core.create_node(V1Node.model_validate({"metadata": {"name": "lost-1"}, "status": status}))
        try:
            assert not kubernetes_lab.cluster.node("lost-1").ready
        finally:
            core.delete_node("lost-1")


def _running(lab: ClusterLab, app: str) -> tuple[Workload, ...]:
    """The workloads of an app that nobody has asked to go, by name."""
    seen = [workload for node in RACKS for workload in lab.cluster.workloads(node)]
    mine = [workload for workload in seen if workload.owner.partition("/")[2] == app and not workload.leaving]
    return tuple(sorted(mine, key=lambda workload: workload.name))


def _eventually(lab: ClusterLab, look: Callable[[], Seen | None], *, what: str) -> Seen:
    for _ in range(LOOKS):
        if seen := look():
            return seen
        lab.advance()
    raise AssertionError(f"not within {LOOKS} looks: {what}")


def _others(lab: ClusterLab, app: str, than: Workload) -> tuple[Workload, ...]:
    return tuple(workload for workload in _running(lab, app) if workload.uid != than.uid)


def _has(lab: ClusterLab, workload: Workload) -> bool:
    return any(seen.uid == workload.uid for seen in lab.cluster.workloads(workload.node))


def _taints(node: Any) -> object:
    return node.spec.taints


def _is_accepted(lab: ClusterLab, workload: Workload) -> bool:
    return lab.cluster.evict(workload, grace=None).answer is EvictionAnswer.ACCEPTED


def _is_unavailable(question: Callable[[], object]) -> bool:
    try:
        question()
    except Unavailable:
        return True
    return False
