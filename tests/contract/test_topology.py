"""What healer relies on from who tells it where nodes are and whose their GPUs are.

One suite for the file, Kubernetes, kube-state-metrics and Slurm: the same small fleet, described to each in its own
way, is the same topology. Below it, what only a real Kubernetes and a real Slurm can show.
"""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from kubernetes.client import (
    ApiClient,
    ApiextensionsV1Api,
    BatchV1Api,
    CoreV1Api,
    CustomObjectsApi,
    V1CustomResourceDefinition,
    V1Job,
    V1Pod,
)

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.kubernetes.topology import KubernetesTopology
from healer.adapters.slurm.programs import SlurmPrograms
from healer.adapters.slurm.topology import SlurmTopology
from healer.adapters.topology.file import TopologyFile
from healer.domain.topology import Place, Topology
from healer.errors import Unavailable
from healer.ports import TopologySource
from healer.telemetry.places.kube import NodeLabels
from healer.telemetry.places.kube_state import (
    ALLOCATABLE,
    METRICS,
    NODE_LABELS,
    POD_INFO,
    POD_OWNER,
    POD_PHASE,
    POD_REQUESTS,
    topology_of,
)
from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane
from tests.controlplane.kubelet import KubeletPlayer, PlayedNode
from tests.controlplane.lab import REFUSING_PORT, RealLab
from tests.readings import Series, reading_of
from tests.realparts import slurm

GPUS = 8  # of each node
LEAF = "network.topology.nvidia.com/leaf"
PLACES = {
    "gpu-1": Place(rack="r1", switch="leaf-1"),
    "gpu-2": Place(rack="r1", switch="leaf-1"),
    "gpu-3": Place(rack="r2", switch="leaf-2"),
    "gpu-4": Place(rack="r2", switch="leaf-2"),
}
KUBERNETES_LABELS = NodeLabels(rack=("rack",))
START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(seconds=30)


class PlacesLab(Protocol):
    """A fleet of PLACES, and its source, which is asked once a minute."""

    source: TopologySource

    def move(self, node: str, *, rack: str) -> None: ...


class JobsLab(PlacesLab, Protocol):
    """One whose source knows jobs, too."""

    def run(self, *nodes: str, gpus: int = GPUS) -> str:
        """A job with so many GPUs of each node, running on return. Returns what it is called in the topology."""
        ...

    def end(self, job: str) -> None:
        """It has ended; whoever lists it may list it still."""
        ...

    def unplugged(self) -> TopologySource:
        """The same for somebody whom the other side does not answer."""
        ...


class FileLab:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "topology.yaml"
        self._racks = {node: str(place.rack) for node, place in PLACES.items()}
        self._write()
        self.source: TopologySource = TopologyFile(self._file)

    def move(self, node: str, *, rack: str) -> None:
        self._racks[node] = rack
        self._write()

    def _write(self) -> None:
        wiring = [
            {"names": "gpu-[1-2]", "switch": "leaf-1"},
            {"names": ["gpu-3", "gpu-4"], "switch": "leaf-2"},
        ]
        racks = [{"names": node, "rack": rack} for node, rack in self._racks.items()]
        self._file.write_text(yaml.safe_dump({"nodes": [*racks, *wiring]}), encoding="utf-8")


class KubeStateLab:
    """What kube-state-metrics would show, as a reading of the telemetry."""

    def __init__(self) -> None:
        self.source: TopologySource = self
        self._racks = {node: str(place.rack) for node, place in PLACES.items()}
        self._pods: dict[str, list[tuple[str, int]]] = {}  # job -> node and GPUs of each of its pods
        self._ended: set[str] = set()

    def move(self, node: str, *, rack: str) -> None:
        self._racks[node] = rack

    def run(self, *nodes: str, gpus: int = GPUS) -> str:
        job = f"ml/Job/train-{len(self._pods)}"
        self._pods[job] = [(node, gpus) for node in nodes]
        return job

    def end(self, job: str) -> None:
        self._ended.add(job)

    def unplugged(self) -> TopologySource:
        return _Silent()

    def topology(self, at: datetime) -> Topology:
        shown: dict[str, list[Series]] = {metric: [] for metric in METRICS}
        for node, rack in self._racks.items():
            labels = {"label_rack": rack, "label_network_topology_nvidia_com_leaf": str(PLACES[node].switch)}
            shown[NODE_LABELS].append(_series(at, {"node": node, **labels}))
            shown[ALLOCATABLE].append(_series(at, {"node": node, "resource": "nvidia_com_gpu"}, float(GPUS)))
        # kube-state-metrics is itself a pod, so that there is always one.
        self._show(shown, at, "monitoring/ReplicaSet/ksm", ("cpu-1", 0))
        for job, pods in self._pods.items():
            for pod in pods:
                self._show(shown, at, job, pod)
        return topology_of(reading_of(at, shown), KUBERNETES_LABELS)

    def _show(self, shown: dict[str, list[Series]], at: datetime, job: str, pod: tuple[str, int]) -> None:
        (node, gpus), (namespace, kind, name) = pod, job.split("/")
        own = {"namespace": namespace, "pod": f"{name}-on-{node}"}
        phase = "Succeeded" if job in self._ended else "Running"
        shown[POD_INFO].append(_series(at, {**own, "node": node}))
        shown[POD_OWNER].append(_series(at, {**own, "owner_kind": kind, "owner_name": name}))
        shown[POD_PHASE].append(_series(at, {**own, "phase": phase}))
        shown[POD_REQUESTS].append(_series(at, {**own, "node": node, "resource": "nvidia_com_gpu"}, float(gpus)))


class _Silent:
    def topology(self, at: datetime) -> Topology:
        return topology_of(reading_of(at, {}), KUBERNETES_LABELS)


def _series(at: datetime, labels: Mapping[str, str], value: float = 1.0) -> Series:
    return labels, value, at.timestamp()


class KubernetesLab(RealLab[KubernetesTopology]):
    def __init__(self, control_plane: ControlPlane, admin: ApiClient, namespace: str, folder: Path) -> None:
        super().__init__(control_plane, admin, namespace, folder)
        self.source: TopologySource = self.healer

    def adapter(self, kubeconfig: Path) -> KubernetesTopology:
        client = KubernetesClient(kubeconfig=kubeconfig)
        return KubernetesTopology(client, KUBERNETES_LABELS, node_selector="lab=topology", every=EVERY)

    def move(self, node: str, *, rack: str) -> None:
        CoreV1Api(self.admin).patch_node(node, {"metadata": {"labels": {"rack": rack}}})

    def run(self, *nodes: str, gpus: int = GPUS) -> str:
        name = f"train-{secrets.token_hex(3)}"
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
        required = {"nodeSelectorTerms": [{"matchExpressions": [here]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        shape = fleet.PodShape(gpus=gpus, spec={"affinity": affinity, "restartPolicy": "Never"})
        template = {"metadata": {"labels": {"app": name}}, "spec": shape.pod_spec()}
        spec = {"parallelism": len(nodes), "completions": len(nodes), "template": template}
        body = V1Job.model_validate({"metadata": {"name": name}, "spec": spec})
        BatchV1Api(self.admin).create_namespaced_job(self.namespace, body)
        self.await_started(name, count=len(nodes))
        return f"{self.namespace}/Job/{name}"

    def end(self, job: str) -> None:
        """Its pods have finished and stay where they are, as they do until somebody removes them."""
        core, name = CoreV1Api(self.admin), job.rpartition("/")[2]
        for pod in fleet.running_pods(self.admin, self.namespace, name):
            core.patch_namespaced_pod_status(pod.name, self.namespace, {"status": {"phase": "Succeeded"}})

    def close(self) -> None:
        for node, place in PLACES.items():
            self.move(node, rack=str(place.rack))
        super().close()


class SlurmLab:
    def __init__(self, running: slurm.RunningSlurm, folder: Path) -> None:
        self.running = running
        self._folder = folder
        self.source: TopologySource = SlurmTopology(SlurmPrograms(config=running.config), every=EVERY)

    def move(self, node: str, *, rack: str) -> None:
        features = f"h100,rack-{rack}"
        self.running.run(
            "scontrol", "update", f"NodeName={node}", f"AvailableFeatures={features}", f"ActiveFeatures={features}"
        )

    def run(self, *nodes: str, gpus: int = GPUS) -> str:
        return str(self.running.allocate(f"-N{len(nodes)}", f"-w{','.join(nodes)}", f"--gres=gpu:{gpus}"))

    def end(self, job: str) -> None:
        self.running.run("scancel", job)
        self.running.eventually(
            lambda: not self.running.run("squeue", "-h", f"-j{job}", "-tR,CG"), f"job {job} has ended"
        )

    def unplugged(self) -> TopologySource:
        config = self._folder / "slurm.conf"
        lines = self.running.config.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith("SlurmctldPort=")]
        config.write_text("\n".join([*kept, f"SlurmctldPort={REFUSING_PORT}"]) + "\n", encoding="utf-8")
        return SlurmTopology(SlurmPrograms(config=config), every=EVERY)


LAB = slurm.Lab(
    nodes=[slurm.LabNode(node, gpus=GPUS, features=("h100", f"rack-{place.rack}")) for node, place in PLACES.items()],
    switches={"leaf-1": "gpu-[1-2]", "leaf-2": "gpu-[3-4]"},
)


@pytest.fixture(scope="module")
def kubelets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    nodes = [
        PlayedNode(name, rack=str(place.rack), gpus=GPUS, labels={"lab": "topology", LEAF: str(place.switch)})
        for name, place in PLACES.items()
    ]
    with KubeletPlayer(control_plane, nodes):
        yield control_plane


@pytest.fixture
def kubernetes_lab(kubelets: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[KubernetesLab]:
    with kubelets.client("admin") as admin:
        # The source looks at the whole cluster: what an earlier test has left must have gone.
        kubelets.eventually(lambda: not _pods_anywhere(admin), what="the pods of earlier tests are gone")
        lab = KubernetesLab(kubelets, admin, namespace, tmp_path)
        try:
            yield lab
        finally:
            lab.close()


def _pods_anywhere(admin: ApiClient) -> bool:
    found: Any = CoreV1Api(admin).list_pod_for_all_namespaces(limit=1)
    return bool(found.items)


@pytest.fixture
def slurm_lab(tmp_path: Path) -> Iterator[SlurmLab]:
    with slurm.RunningSlurm(slurm.require(), LAB) as running:
        yield SlurmLab(running, tmp_path)


SCHEDULERS = [
    "kube_state",
    pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    pytest.param("slurm", marks=pytest.mark.slurm),
]


def _lab(name: str, request: pytest.FixtureRequest) -> Any:
    return KubeStateLab() if name == "kube_state" else request.getfixturevalue(f"{name}_lab")


@pytest.fixture(params=["file", *SCHEDULERS])
def places_lab(request: pytest.FixtureRequest, tmp_path: Path) -> PlacesLab:
    lab: PlacesLab = FileLab(tmp_path) if request.param == "file" else _lab(request.param, request)
    return lab


@pytest.fixture(params=SCHEDULERS)
def jobs_lab(request: pytest.FixtureRequest) -> JobsLab:
    lab: JobsLab = _lab(request.param, request)
    return lab


@dataclass(slots=True)
class Looks:
    """One look a minute."""

    source: TopologySource
    minutes: Iterator[int]

    def next(self) -> Topology:
        return self.source.topology(START + timedelta(minutes=next(self.minutes)))


def looks(lab: PlacesLab) -> Looks:
    return Looks(lab.source, itertools.count())


def test_every_source_places_the_same_fleet_alike(places_lab: PlacesLab) -> None:
    assert looks(places_lab).next().places == PLACES


def test_a_node_that_was_moved_is_elsewhere_at_the_next_look(places_lab: PlacesLab) -> None:
    look = looks(places_lab)
    look.next()

    places_lab.move("gpu-1", rack="r9")

    assert look.next().places == {**PLACES, "gpu-1": Place(rack="r9", switch="leaf-1")}


def test_a_job_with_all_gpus_of_its_nodes_has_them_whole(jobs_lab: JobsLab) -> None:
    job = jobs_lab.run("gpu-1", "gpu-2")

    topology = looks(jobs_lab).next()

    assert topology.jobs == {"gpu-1": job, "gpu-2": job}
    assert topology.sharing == {}


def test_jobs_that_share_a_node_are_all_told(jobs_lab: JobsLab) -> None:
    first, second = jobs_lab.run("gpu-3", gpus=3), jobs_lab.run("gpu-3", gpus=2)
    alone = jobs_lab.run("gpu-4", gpus=4)

    topology = looks(jobs_lab).next()

    assert topology.jobs == {}
    assert set(topology.jobs_on("gpu-3")) == {first, second}
    assert topology.jobs_on("gpu-4") == (alone,)
    assert topology.jobs_on("gpu-1") == ()


def test_a_job_that_has_ended_has_nothing_though_it_is_listed(jobs_lab: JobsLab) -> None:
    look = looks(jobs_lab)
    ended, goes_on = jobs_lab.run("gpu-1"), jobs_lab.run("gpu-2")
    assert look.next().jobs == {"gpu-1": ended, "gpu-2": goes_on}

    jobs_lab.end(ended)

    assert look.next().jobs == {"gpu-2": goes_on}


def test_a_source_that_is_not_answered_says_so_and_never_that_there_are_no_jobs(jobs_lab: JobsLab) -> None:
    jobs_lab.run("gpu-1")

    with pytest.raises(Unavailable):
        jobs_lab.unplugged().topology(START)


# What only a real Kubernetes shows

GROUP = "healer.test"


@pytest.fixture
def custom_kinds(kubernetes_lab: KubernetesLab) -> Iterator[None]:
    """Gang and Squad, of which no role but the administrator's knows anything."""
    extensions = ApiextensionsV1Api(kubernetes_lab.admin)
    names = []
    for kind in ("Gang", "Squad"):
        plural = f"{kind.lower()}s"
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {"group": GROUP, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": [version]}
        names.append(f"{plural}.{GROUP}")
        body = V1CustomResourceDefinition.model_validate({"metadata": {"name": names[-1]}, "spec": spec})
        extensions.create_custom_resource_definition(body)
    for name in names:
        kubernetes_lab.control_plane.eventually(partial(_is_established, extensions, name), what=f"{name} is served")
    yield
    for name in names:
        extensions.delete_custom_resource_definition(name)


def _is_established(extensions: ApiextensionsV1Api, name: str) -> bool:
    seen: Any = extensions.read_custom_resource_definition(name)
    return any(each.type == "Established" and each.status == "True" for each in seen.status.conditions or ())


def _create_custom(lab: KubernetesLab, kind: str, name: str, *owners: Mapping[str, object]) -> Mapping[str, object]:
    """Returns the reference to it."""
    version = f"{GROUP}/v1"
    metadata = {"name": name, "ownerReferences": list(owners)}
    body = {"apiVersion": version, "kind": kind, "metadata": metadata}
    made: Any = CustomObjectsApi(lab.admin).create_namespaced_custom_object(
        GROUP, "v1", lab.namespace, f"{kind.lower()}s", body
    )
    uid = made["metadata"]["uid"]
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


def _create_pod(lab: KubernetesLab, name: str, node: str, *owners: Mapping[str, object], **spec: object) -> str:
    """On this node, whatever the scheduler thinks of it. Returns its uid."""
    shape = fleet.PodShape(gpus=0 if "resourceClaims" in spec else GPUS, spec={"nodeName": node, **spec})
    metadata = {"name": name, "labels": {"app": name}, "ownerReferences": list(owners)}
    body = V1Pod.model_validate({"metadata": metadata, "spec": shape.pod_spec()})
    made: Any = CoreV1Api(lab.admin).create_namespaced_pod(lab.namespace, body)
    return str(made.metadata.uid)


@pytest.mark.kubernetes
def test_a_deployment_is_found_above_its_pods(kubernetes_lab: KubernetesLab) -> None:
    fleet.create_deployment(
        kubernetes_lab.admin, kubernetes_lab.namespace, "web", replicas=2, shape=fleet.PodShape(gpus=1)
    )
    look = Looks(kubernetes_lab.opened_as("admin"), itertools.count())

    kubernetes_lab.control_plane.eventually(lambda: len(look.next().pods) == 2, what="both pods are placed")

    topology = look.next()
    assert set(topology.pods.values()) == {f"{kubernetes_lab.namespace}/Deployment/web"}
    assert topology.warnings == ()


@pytest.mark.kubernetes
@pytest.mark.usefixtures("custom_kinds")
def test_owners_are_climbed_as_far_as_they_may_be_read(kubernetes_lab: KubernetesLab) -> None:
    squad = _create_custom(kubernetes_lab, "Squad", "blue")
    gang = _create_custom(kubernetes_lab, "Gang", "blue-1", squad)
    _create_pod(kubernetes_lab, "worker", "gpu-1", gang)

    seen_by_all = kubernetes_lab.opened_as("admin").topology(START)
    seen_by_healer = kubernetes_lab.opened_as("healer").topology(START)

    assert seen_by_all.jobs == {"gpu-1": f"{kubernetes_lab.namespace}/Squad/blue"}
    assert seen_by_all.warnings == ()
    assert seen_by_healer.jobs == {"gpu-1": f"{kubernetes_lab.namespace}/Gang/blue-1"}
    assert f'add {{apiGroups: ["{GROUP}"], resources: ["gangs"], verbs: ["get"]}}' in " ".join(seen_by_healer.warnings)


@pytest.mark.kubernetes
@pytest.mark.usefixtures("custom_kinds")
def test_many_owners_are_read_by_one_list(kubernetes_lab: KubernetesLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("healer.adapters.kubernetes.owners.LIST_FROM", 1)
    squad = _create_custom(kubernetes_lab, "Squad", "red")
    for number in (1, 2):
        gang = _create_custom(kubernetes_lab, "Gang", f"red-{number}", squad)
        _create_pod(kubernetes_lab, f"worker-{number}", f"gpu-{number}", gang)

    topology = kubernetes_lab.opened_as("admin").topology(START)

    assert set(topology.jobs.values()) == {f"{kubernetes_lab.namespace}/Squad/red"}


@pytest.mark.kubernetes
def test_gpus_by_resource_claims_belong_to_the_job_of_their_pod(kubernetes_lab: KubernetesLab) -> None:
    claims, name = CustomObjectsApi(kubernetes_lab.admin), kubernetes_lab.namespace
    request = {"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
    made = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "mine"}}
    claims.create_namespaced_custom_object(
        "resource.k8s.io", "v1", name, "resourceclaims", {**made, "spec": {"devices": {"requests": [request]}}}
    )
    pod_claims = [{"name": "gpus", "resourceClaimName": "mine"}]
    uid = _create_pod(kubernetes_lab, "worker", "gpu-4", resourceClaims=pod_claims)
    result = {"request": "gpus", "driver": "gpu.nvidia.com", "pool": "gpu-4", "device": "gpu-0"}
    consumer = {"resource": "pods", "name": "worker", "uid": uid}
    status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [consumer]}
    claims.patch_namespaced_custom_object_status(
        "resource.k8s.io", "v1", name, "resourceclaims", "mine", {"status": status}
    )

    topology = kubernetes_lab.opened_as("admin").topology(START)

    assert topology.jobs_on("gpu-4") == (f"{name}/Pod/worker",)


# What only a real Slurm shows


@pytest.mark.slurm
def test_arrays_and_heterogeneous_jobs_have_the_gpus_that_slurm_gave_them(slurm_lab: SlurmLab) -> None:
    whole = slurm_lab.run("gpu-1", "gpu-2")
    first = slurm_lab.running.submit("--array=5-6", "--gres=gpu:2", "-wgpu-3")
    slurm_lab.running.eventually(
        lambda: slurm_lab.running.run("squeue", "-h", "-r", "-tR").count("\n") == 3, "both tasks run"
    )
    het = slurm_lab.running.allocate("--gres=gpu:4", "-wgpu-4", ":", "--gres=gpu:1", "-wgpu-3")

    topology = looks(slurm_lab).next()

    assert {job for (node, _), job in topology.gpu_jobs.items() if node in {"gpu-1", "gpu-2"}} == {whole}
    assert len([job for (node, _), job in topology.gpu_jobs.items() if node == "gpu-4" and job == str(het)]) == 4
    tasks = {topology.aliases[f"{first}_{task}"] for task in (5, 6)}
    assert set(topology.jobs_on("gpu-3")) == {*tasks, str(het)}
    on_third = [job for (node, _), job in topology.gpu_jobs.items() if node == "gpu-3"]
    assert sorted(on_third) == sorted([*tasks, *tasks, str(het)])
    assert topology.aliases[str(het + 1)] == str(het)
    assert topology.titles[str(het)].startswith("train of ")


@pytest.mark.slurm
def test_a_controller_that_is_gone_is_no_empty_queue(slurm_lab: SlurmLab) -> None:
    look = looks(slurm_lab)
    look.next()
    slurm_lab.running.stop_controller()

    with pytest.raises(Unavailable, match="fails"):
        look.next()

    slurm_lab.running.start_controller()
    assert look.next().places == PLACES


@pytest.fixture
def everybodys_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="healer-slurm-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.slurm
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
def test_jobs_that_slurm_hides_are_not_taken_for_none(everybodys_folder: Path) -> None:
    programs = slurm.require()
    for name in ("scontrol", "sinfo", "squeue"):
        script = f'#!/bin/sh\nexec {programs["setpriv"]} --reuid 65534 --clear-groups {programs[name]} "$@"\n'
        (everybodys_folder / name).write_text(script, encoding="utf-8")
        (everybodys_folder / name).chmod(0o755)
    private = slurm.Lab(nodes=[slurm.LabNode("gpu-1")], settings=["PrivateData=jobs"])
    with slurm.RunningSlurm(programs, private) as running:
        nobody = SlurmTopology(SlurmPrograms(folder=everybodys_folder, config=running.config), every=EVERY)
        assert nobody.topology(START).jobs == {}
        running.allocate("-wgpu-1", "--gres=gpu:8")

        with pytest.raises(Unavailable, match="gpu-1 is in use, but no job is shown there"):
            nobody.topology(START + EVERY)


@pytest.mark.slurm
def test_without_gpus_and_switches_in_its_configuration_slurm_tells_who_has_a_node() -> None:
    plain = slurm.Lab(nodes=[slurm.LabNode("n1", gpus=0, features=("rack-r1",)), slurm.LabNode("n2", gpus=0)])
    with slurm.RunningSlurm(slurm.require(), plain) as running:
        job = str(running.allocate("-wn1", "--exclusive"))
        running.allocate("-wn2", "-n1")

        topology = SlurmTopology(SlurmPrograms(config=running.config)).topology(START)

    assert topology.jobs == {"n1": job}
    assert len(topology.jobs_on("n2")) == 1
    assert topology.places == {"n1": Place(rack="r1")}
    assert topology.warnings == ()
