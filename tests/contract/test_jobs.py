"""What healer relies on where a job moves as a whole. One suite: the simulated cluster and a real Kubernetes, whose own
controller deletes and makes the pods, must both pass it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from kubernetes.client import BatchV1Api, CoreV1Api, CustomObjectsApi

from healer.actions.job import RestartJob
from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.adapters.simulated_cluster import SimulatedCluster
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Gang, GangEnd
from healer.domain.run import Done, Outcome, RetryAfter
from healer.errors import Conflict, NotFound, Rejected, Unavailable
from healer.ports import Cluster
from healer.verb import Unresolved, World
from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode
from tests.controlplane.lab import RealClusterLab
from tests.journal_samples import NOW, Notes, plan_of, run_of

NODES = ("gang-1", "gang-2")
LINGER = timedelta(seconds=1)
LOOKS = 400
TRAIN = 3
CRITICAL_CLASS, CRITICAL = "system-cluster-critical", 2_000_000_000  # every Kubernetes has it
LOST = Unavailable("the network", "the answer was lost")

Seen = TypeVar("Seen")


class JobLab(Protocol):
    """The cluster under test, and a person beside healer who works in it; what they start is running on return.

    Attributes:
        namespace: in which everything is.
    """

    cluster: Cluster
    namespace: str

    def train(self, name: str, *, pods: int, critical: bool = False) -> None: ...

    def start_unmanaged(self, app: str) -> None: ...

    def deploy(self, app: str) -> None: ...

    def suspend(self, name: str) -> None: ...

    def resume(self, name: str) -> None: ...

    def lose_next_answer(self) -> None:
        """Healer's next change happens, and it does not hear of it."""
        ...

    def unplugged(self) -> Cluster:
        """The same cluster for somebody whose network is down."""
        ...

    def advance(self) -> None:
        """Let a moment pass."""
        ...


class SimulatedLab:
    namespace = "default"

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._simulated = SimulatedCluster(dict.fromkeys(NODES), clock=self, termination=LINGER)
        self.cluster: Cluster = self._simulated

    def now(self) -> datetime:
        return self._now

    def train(self, name: str, *, pods: int, critical: bool = False) -> None:
        for _ in range(pods):
            self._simulated.add_workload(f"Job/{name}", gpus=4, priority=CRITICAL if critical else 0)

    def start_unmanaged(self, app: str) -> None:
        self._simulated.add_workload(f"Pod/{app}", node=NODES[0])

    def deploy(self, app: str) -> None:
        self._simulated.add_workload(f"Deployment/{app}")

    def suspend(self, name: str) -> None:
        self._simulated.suspend_by_person(f"{self.namespace}/Job/{name}")

    def resume(self, name: str) -> None:
        self._simulated.resume_by_person(f"{self.namespace}/Job/{name}")

    def lose_next_answer(self) -> None:
        self._simulated.lose_next_answer(LOST)

    def unplugged(self) -> Cluster:
        other = SimulatedCluster(dict.fromkeys(NODES), clock=self)
        other.fail_next(Unavailable("simulated cluster", "unplugged"), times=100)
        return other

    def advance(self) -> None:
        self._now += timedelta(seconds=0.3)


class _Lossy(KubernetesCluster):
    """Attributes:
    loses: how many answers are lost.
    """

    loses = 0

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        super().suspend(job, by=by, reason=reason)
        self._answer()

    def resume(self, job: str, *, by: str) -> None:
        super().resume(job, by=by)
        self._answer()

    def _answer(self) -> None:
        if self.loses:
            self.loses -= 1
            raise LOST


class KubernetesLab(RealClusterLab[_Lossy]):
    def adapter(self, kubeconfig: Path) -> _Lossy:
        return _Lossy(kubeconfig=kubeconfig)

    def train(self, name: str, *, pods: int, critical: bool = False) -> None:
        shape = fleet.PodShape(gpus=4, spec={"priorityClassName": CRITICAL_CLASS} if critical else {})
        fleet.create_job(self.admin, self.namespace, name, pods=pods, shape=shape)
        self.await_started(name, count=pods)

    def start_unmanaged(self, app: str) -> None:
        fleet.create_bare_pod(self.admin, self.namespace, app)
        self.await_started(app, count=1)

    def deploy(self, app: str) -> None:
        fleet.create_deployment(self.admin, self.namespace, app, replicas=1)
        self.await_started(app, count=1)

    def suspend(self, name: str) -> None:
        self._set(name, suspend=True)

    def resume(self, name: str) -> None:
        self._set(name, suspend=False)

    def lose_next_answer(self) -> None:
        self.healer.loses += 1

    def _set(self, name: str, *, suspend: bool) -> None:
        BatchV1Api(self.admin).patch_namespaced_job(name, self.namespace, {"spec": {"suspend": suspend}})


@pytest.fixture(scope="module")
def kubelets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    with KubeletPlayer(control_plane, [PlayedNode(name) for name in NODES], linger_s=LINGER.total_seconds()):
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
def lab(request: pytest.FixtureRequest) -> JobLab:
    if request.param == "simulated":
        return SimulatedLab()
    real: JobLab = request.getfixturevalue("kubernetes_lab")
    return real


def test_a_job_is_told_with_all_its_pods_and_where_they_are(lab: JobLab) -> None:
    lab.train("train", pods=TRAIN)
    lab.train("other", pods=1)

    gang = _job(lab)

    assert (gang.stable_name, gang.kind) == (f"{lab.namespace}/Job/train", "Job")
    assert (gang.suspended, gang.suspended_by, gang.why_not, gang.end) == (False, None, "", None)
    assert (len(gang.pods), gang.running) == (TRAIN, TRAIN)
    assert set(gang.nodes) == set(NODES)
    assert all(pod.name.startswith("train-") for pod in gang.pods)


def test_the_priority_of_a_job_is_that_which_the_scheduler_goes_by(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.train("other", pods=1, critical=True)

    assert (_job(lab).priority, _job(lab, "other").priority) == (0, CRITICAL)


def test_suspended_it_loses_every_pod_and_resumed_it_has_as_many_others(lab: JobLab) -> None:
    lab.train("train", pods=TRAIN)
    lab.train("other", pods=1)
    before = {pod.name for pod in _job(lab).pods}

    lab.cluster.suspend(_name(lab), by="run-1", reason="it stands still")
    assert (_job(lab).suspended, _job(lab).suspended_by) == (True, "run-1")
    _eventually(lab, lambda: not _job(lab).pods, what="all its pods have gone")
    lab.cluster.resume(_name(lab), by="run-1")
    _eventually(lab, lambda: _job(lab).running == TRAIN, what="as many run again")

    assert (_job(lab).suspended, _job(lab).suspended_by) == (False, None)
    assert before.isdisjoint(pod.name for pod in _job(lab).pods)
    assert _job(lab, "other").running == 1


def test_its_pods_are_there_and_do_not_run_while_they_end(lab: JobLab) -> None:
    lab.train("train", pods=TRAIN)

    lab.cluster.suspend(_name(lab), by="run-1", reason="")
    ending = _eventually(lab, lambda: None if (seen := _job(lab)).running else seen, what="all were told to end")

    assert len(ending.pods) == TRAIN


def test_a_suspended_job_stays_without_pods(lab: JobLab) -> None:
    lab.train("train", pods=TRAIN)
    lab.cluster.suspend(_name(lab), by="run-1", reason="")
    _eventually(lab, lambda: not _job(lab).pods, what="all its pods have gone")

    for _ in range(10):
        lab.advance()

    assert (_job(lab).pods, _job(lab).suspended) == ((), True)


def test_the_owner_of_a_suspension_may_ask_for_it_again(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.cluster.suspend(_name(lab), by="run-1", reason="first")
    lab.cluster.suspend(_name(lab), by="run-1", reason="again, after a crash")

    assert _job(lab).suspended_by == "run-1"


def test_a_suspension_of_another_run_is_a_conflict_and_stays_its_own(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.cluster.suspend(_name(lab), by="run-1", reason="first")

    with pytest.raises(Conflict, match="run-1"):
        lab.cluster.suspend(_name(lab), by="run-2", reason="second")
    with pytest.raises(Conflict, match="run-1"):
        lab.cluster.resume(_name(lab), by="run-2")

    assert _job(lab).suspended_by == "run-1"


def test_a_job_that_a_person_suspended_is_a_conflict_and_stays_suspended(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.suspend("train")

    with pytest.raises(Conflict, match="a person"):
        lab.cluster.suspend(_name(lab), by="run-1", reason="it stands still")
    with pytest.raises(Conflict, match="a person"):
        lab.cluster.resume(_name(lab), by="run-1")

    assert (_job(lab).suspended, _job(lab).suspended_by) == (True, None)


def test_a_suspension_that_a_person_lifted_is_not_lifted_again(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.cluster.suspend(_name(lab), by="run-1", reason="it stands still")
    lab.resume("train")

    assert (_job(lab).suspended, _job(lab).suspended_by) == (False, None)
    with pytest.raises(Conflict, match="resumed"):
        lab.cluster.resume(_name(lab), by="run-1")


def test_a_suspension_that_a_person_set_after_lifting_ours_is_theirs(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.cluster.suspend(_name(lab), by="run-1", reason="it stands still")
    lab.resume("train")
    lab.suspend("train")

    assert (_job(lab).suspended, _job(lab).suspended_by) == (True, None)
    with pytest.raises(Conflict, match="a person"):
        lab.cluster.resume(_name(lab), by="run-1")
    assert _job(lab).suspended


def test_a_job_whose_suspension_a_person_lifted_may_be_suspended_by_a_later_run(lab: JobLab) -> None:
    lab.train("train", pods=1)
    lab.cluster.suspend(_name(lab), by="run-1", reason="it stands still")
    lab.resume("train")

    lab.cluster.suspend(_name(lab), by="run-2", reason="it stands still again")

    assert _job(lab).suspended_by == "run-2"


def test_a_pod_that_nobody_would_make_again_says_so_and_is_left_alone(lab: JobLab) -> None:
    lab.start_unmanaged("notebook")
    name = f"{lab.namespace}/Pod/notebook"

    assert lab.cluster.job(name).why_not == "no controller would make it again"
    with pytest.raises(Rejected, match="no controller would make it again"):
        lab.cluster.suspend(name, by="run-1", reason="")


def test_what_cannot_be_suspended_says_so_and_is_left_alone(lab: JobLab) -> None:
    lab.deploy("web")
    name = f"{lab.namespace}/Deployment/web"

    assert "a Deployment cannot be suspended" in lab.cluster.job(name).why_not
    with pytest.raises(Rejected, match="a Deployment cannot be suspended"):
        lab.cluster.suspend(name, by="run-1", reason="")


@pytest.mark.parametrize(
    "name", ["default/Job/nobody", "4711", "", "default/Job/", "a/b/Job/c", "default/Job/not a name"], ids=repr
)
def test_a_job_that_does_not_exist_is_not_found_rather_than_empty(lab: JobLab, name: str) -> None:
    with pytest.raises(NotFound):
        lab.cluster.job(name)
    with pytest.raises(NotFound):
        lab.cluster.suspend(name, by="run-1", reason="")
    with pytest.raises(NotFound):
        lab.cluster.resume(name, by="run-1")


def test_a_cluster_that_does_not_answer_is_unavailable_and_never_empty(lab: JobLab) -> None:
    cluster = lab.unplugged()
    questions: dict[str, Callable[[], object]] = {
        "job": lambda: cluster.job(_name(lab)),
        "suspend": lambda: cluster.suspend(_name(lab), by="run-1", reason=""),
        "resume": lambda: cluster.resume(_name(lab), by="run-1"),
    }

    assert {name: _is_unavailable(question) for name, question in questions.items()} == dict.fromkeys(questions, True)


def test_the_verb_restarts_a_job_once_although_every_answer_is_lost(lab: JobLab) -> None:
    lab.train("train", pods=TRAIN)
    before = {pod.name for pod in _job(lab).pods}
    verb, target, notes = RestartJob(), Component(ComponentKind.JOB, job=_name(lab)), Notes(run_of(plan_of()))

    def look() -> Outcome:
        world = World(NOW, None, lab.cluster, None, 300.0)
        return verb.run(RestartJob.Arguments(), target, notes.ledger(world))

    lab.lose_next_answer()
    with pytest.raises(Unresolved):
        look()
    assert isinstance(look(), RetryAfter)
    _eventually(lab, lambda: not _job(lab).pods, what="all its pods have gone")
    lab.lose_next_answer()
    with pytest.raises(Unresolved):
        look()
    done = _eventually(lab, lambda: seen if isinstance(seen := look(), Done) else None, what="it runs again")

    assert done == Done(f"3 pods of {_name(lab)} run again")
    assert before.isdisjoint(pod.name for pod in _job(lab).pods)
    assert [record.detail for record in notes.records] == ["observed after an interruption"] * 2


@pytest.mark.kubernetes
def test_a_user_without_rights_is_rejected_with_the_rule_that_is_missing(kubernetes_lab: KubernetesLab) -> None:
    kubernetes_lab.train("train", pods=1)
    reader = kubernetes_lab.opened_as("reader")

    with pytest.raises(Rejected, match=r'apiGroups: \["batch"\], resources: \["jobs"\], verbs: \["patch"\]'):
        reader.suspend(_name(kubernetes_lab), by="run-1", reason="")

    assert (_job(kubernetes_lab).suspended, _job(kubernetes_lab).running) == (False, 1)


@pytest.mark.kubernetes
def test_a_job_in_kueue_s_queue_is_kueue_s_to_suspend(kubernetes_lab: KubernetesLab) -> None:
    labels = {"kueue.x-k8s.io/queue-name": "research"}
    fleet.create_job(kubernetes_lab.admin, kubernetes_lab.namespace, "train", pods=1, labels=labels)

    assert _job(kubernetes_lab).why_not == "it is in Kueue's queue research, and Kueue decides whether it runs"
    with pytest.raises(Rejected, match="Kueue"):
        kubernetes_lab.cluster.suspend(_name(kubernetes_lab), by="run-1", reason="")
    assert not _job(kubernetes_lab).suspended


@pytest.mark.kubernetes
def test_a_job_that_is_a_part_of_another_is_that_one_s_to_suspend(kubernetes_lab: KubernetesLab) -> None:
    kubernetes_lab.train("owner", pods=1)
    owner = BatchV1Api(kubernetes_lab.admin).read_namespaced_job("owner", kubernetes_lab.namespace)
    assert owner.metadata is not None
    reference = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "owner",
        "uid": owner.metadata.uid,
        "controller": True,
    }
    fleet.create_job(kubernetes_lab.admin, kubernetes_lab.namespace, "train", pods=1, owner=reference)

    assert _job(kubernetes_lab).why_not == "it is a part of Job/owner, which decides whether it runs"


@pytest.mark.kubernetes
def test_the_reason_is_on_the_job_for_whoever_looks_and_goes_with_the_suspension(
    kubernetes_lab: KubernetesLab,
) -> None:
    kubernetes_lab.train("train", pods=1)
    batch = BatchV1Api(kubernetes_lab.admin)

    kubernetes_lab.cluster.suspend(_name(kubernetes_lab), by="run-1", reason="it stands still")
    seen = batch.read_namespaced_job("train", kubernetes_lab.namespace).metadata
    assert seen is not None
    assert seen.annotations is not None
    assert seen.annotations["healer.dev/suspended-by"] == "run-1"
    assert seen.annotations["healer.dev/suspend-reason"] == "it stands still"

    kubernetes_lab.cluster.resume(_name(kubernetes_lab), by="run-1")
    seen = batch.read_namespaced_job("train", kubernetes_lab.namespace).metadata
    assert seen is not None
    assert not [key for key in seen.annotations or {} if key.startswith("healer.dev/")]


@pytest.mark.kubernetes
def test_a_job_that_has_ended_says_how(kubernetes_lab: KubernetesLab) -> None:
    kubernetes_lab.train("train", pods=1)
    (pod,) = _job(kubernetes_lab).pods
    finished = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}

    CoreV1Api(kubernetes_lab.admin).patch_namespaced_pod_status(
        pod.name, kubernetes_lab.namespace, {"status": finished}
    )

    ended = _eventually(kubernetes_lab, lambda: seen if (seen := _job(kubernetes_lab)).end else None, what="it ended")
    assert (ended.end, ended.pods) == (GangEnd.COMPLETE, ())


@pytest.mark.kubernetes
def test_a_kind_that_an_operator_brings_is_suspended_by_its_own_field(
    kubernetes_lab: KubernetesLab, kubelets: ControlPlane
) -> None:
    """Kubeflow's PyTorchJob as the API server keeps it; its operator is not there, so its pod is played, too."""
    admin, namespace = kubernetes_lab.admin, kubernetes_lab.namespace
    name = f"{namespace}/PyTorchJob/train"
    with fleet.custom_kind(kubelets, "PyTorchJob", "pytorchjobs", group="kubeflow.org", version="v1"):
        custom = CustomObjectsApi(admin)
        ours: dict[str, Any] = {
            "group": "kubeflow.org",
            "version": "v1",
            "namespace": namespace,
            "plural": "pytorchjobs",
        }
        body = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "train"},
            "spec": {"runPolicy": {"suspend": False, "cleanPodPolicy": "None"}, "pytorchReplicaSpecs": {}},
        }
        custom.create_namespaced_custom_object(**ours, body=body)
        labels = {"training.kubeflow.org/job-name": "train"}
        fleet.create_bare_pod(admin, namespace, "train-worker-0", labels=labels)
        running = _eventually(
            kubernetes_lab,
            lambda: seen if (seen := kubernetes_lab.cluster.job(name)).running else None,
            what="its pod runs",
        )
        kubernetes_lab.cluster.suspend(name, by="run-1", reason="it stands still")
        suspended = kubernetes_lab.cluster.job(name)
        kept: Any = custom.get_namespaced_custom_object(**ours, name="train")
        person = {"spec": {"runPolicy": {"suspend": False}}}
        custom.patch_namespaced_custom_object(**ours, name="train", body=person)
        resumed = kubernetes_lab.cluster.job(name)
        person["spec"]["runPolicy"]["suspend"] = True
        custom.patch_namespaced_custom_object(**ours, name="train", body=person)
        theirs = kubernetes_lab.cluster.job(name)

    assert ([pod.name for pod in running.pods], running.suspended) == (["train-worker-0"], False)
    assert (suspended.suspended, suspended.suspended_by) == (True, "run-1")
    assert kept["spec"]["runPolicy"] == {"suspend": True, "cleanPodPolicy": "None"}
    assert (resumed.suspended, resumed.suspended_by) == (False, None)
    assert (theirs.suspended, theirs.suspended_by) == (True, None)


def _name(lab: JobLab, job: str = "train") -> str:
    return f"{lab.namespace}/Job/{job}"


def _job(lab: JobLab, job: str = "train") -> Gang:
    return lab.cluster.job(_name(lab, job))


def _eventually(lab: JobLab, look: Callable[[], Seen | None], *, what: str) -> Seen:
    for _ in range(LOOKS):
        if seen := look():
            return seen
        lab.advance()
    raise AssertionError(f"not within {LOOKS} looks: {what}")


def _is_unavailable(question: Callable[[], object]) -> bool:
    try:
        question()
    except Unavailable:
        return True
    return False
