"""Topology from kube-state-metrics, and what names in Kubernetes mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest

from healer.domain.reading import Labels
from healer.domain.topology import NOWHERE, Place, Topology
from healer.errors import Unavailable
from healer.telemetry.places.kube import NodeLabels, is_above_jobs, is_gpu
from healer.telemetry.places.kube_state import METRICS, topology_of
from tests.readings import reading_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = NodeLabels(rack=("example.com/rackName",), feed=("example.com/feed",))
Metrics = dict[str, list[tuple[Labels, float]]]


def pod(
    name: str,
    node: str,
    *owner: str,
    gpus: int = 8,
    phase: str = "Running",
    resource: str = "nvidia_com_gpu",
) -> Metrics:
    """What is exported of one pod; `owner` is a kind and a name."""
    own = {"namespace": "ml", "pod": name}
    kind, of = owner or ("<none>", "<none>")
    phases: list[tuple[Labels, float]] = [
        ({**own, "phase": each}, float(each == phase)) for each in ("Pending", "Running", "Succeeded", "Failed")
    ]
    requests: list[tuple[Labels, float]] = [
        ({**own, "node": node, "container": "main", "resource": resource, "unit": "integer"}, float(gpus))
    ]
    return {
        "kube_pod_info": [({**own, "node": node, "created_by_kind": kind}, 1.0)],
        "kube_pod_owner": [({**own, "owner_kind": kind, "owner_name": of, "owner_is_controller": "true"}, 1.0)],
        "kube_pod_status_phase": phases,
        "kube_pod_container_resource_requests": [
            *requests,
            ({**own, "node": node, "container": "main", "resource": "cpu", "unit": "core"}, 4.0),
        ],
    }


def node(name: str, gpus: int = 8, **labels: str) -> Metrics:
    return {
        "kube_node_labels": [({"node": name, **labels}, 1.0)],
        "kube_node_status_allocatable": [
            ({"node": name, "resource": "nvidia_com_gpu", "unit": "integer"}, float(gpus)),
            ({"node": name, "resource": "memory", "unit": "byte"}, 1e12),
        ],
    }


def owned(metric: str, name_label: str, name: str, kind: str, owner: str) -> Metrics:
    labels = {"namespace": "ml", name_label: name, "owner_kind": kind, "owner_name": owner}
    return {metric: [({**labels, "owner_is_controller": "true"}, 1.0)]}


def told(*parts: Metrics, renamed: Mapping[str, str] | None = None) -> Topology:
    together: dict[str, list[tuple[Labels, float, float]]] = {"up": [({"instance": "a"}, 1.0, math.nan)]}
    for part in parts:
        for metric, series in part.items():
            for labels, value in series:
                spelled = {(renamed or {}).get(name, name): text for name, text in labels.items()}
                together.setdefault(metric, []).append((spelled, value, AT.timestamp()))
    return topology_of(reading_of(AT, together), LABELS)


PLACED = node("gpu-1", label_example_com_rack_name="r1", label_example_com_feed="A")


def test_a_node_is_where_its_labels_say() -> None:
    topology = told(
        node("gpu-1", label_example_com_rack_name="r1", label_example_com_feed="A", label_nvidia_com_gpu_clique="u.1"),
        node("gpu-2", label_network_topology_nvidia_com_leaf="leaf-2"),
        pod("a", "gpu-1"),
    )

    assert topology.places == {"gpu-1": Place("r1", "A", "u.1"), "gpu-2": Place(switch="leaf-2")}
    assert topology.warnings == ()


def test_a_job_with_all_gpus_of_a_node_has_it_and_others_share() -> None:
    topology = told(
        PLACED,
        node("gpu-2"),
        pod("a-0", "gpu-1", "Job", "a", gpus=4),
        pod("a-1", "gpu-1", "Job", "a", gpus=4),
        pod("b-0", "gpu-2", "StatefulSet", "b", gpus=2),
        pod("c", "gpu-2", gpus=2, phase="Pending"),
    )

    assert topology.jobs == {"gpu-1": "ml/Job/a"}
    assert topology.sharing == {"gpu-2": ("ml/Pod/c", "ml/StatefulSet/b")}
    assert topology.pods == {
        ("ml", "a-0"): "ml/Job/a",
        ("ml", "a-1"): "ml/Job/a",
        ("ml", "b-0"): "ml/StatefulSet/b",
        ("ml", "c"): "ml/Pod/c",
    }


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_has_nothing(phase: str) -> None:
    assert told(PLACED, pod("a", "gpu-1", "Job", "a", phase=phase)).jobs_on("gpu-1") == ()


def test_a_pod_that_asks_for_no_gpu_or_is_not_placed_has_nothing() -> None:
    topology = told(PLACED, pod("cpu", "gpu-1", resource="cpu"), pod("none", "gpu-1", gpus=0), pod("waits", ""))

    assert topology.pods == {}


def test_mig_instances_are_counted_by_profile() -> None:
    sliced: Metrics = {
        "kube_node_status_allocatable": [
            ({"node": "gpu-1", "resource": "nvidia_com_gpu"}, 0.0),
            ({"node": "gpu-1", "resource": "nvidia_com_mig_1g_10gb"}, 2.0),
        ]
    }
    one, two = (pod(name, "gpu-1", "Job", "a", gpus=1, resource="nvidia_com_mig_1g_10gb") for name in ("a-0", "a-1"))

    assert told(PLACED, {**sliced, **one}).sharing == {"gpu-1": ("ml/Job/a",)}
    assert told(node("gpu-1", 0), sliced, one, two).jobs == {"gpu-1": "ml/Job/a"}


def test_a_job_is_named_for_the_topmost_owner_that_the_metrics_know() -> None:
    topology = told(
        PLACED,
        pod("set-0", "gpu-1", "Job", "set-workers", gpus=1),
        owned("kube_job_owner", "job_name", "set-workers", "JobSet", "set"),
        pod("web-1", "gpu-1", "ReplicaSet", "web-5d9", gpus=1),
        owned("kube_replicaset_owner", "replicaset", "web-5d9", "Deployment", "web"),
        pod("nightly-1", "gpu-1", "Job", "nightly-123", gpus=1),
        owned("kube_job_owner", "job_name", "nightly-123", "CronJob", "nightly"),
        pod("static", "gpu-1", "Node", "gpu-1", gpus=1),
    )

    assert topology.sharing["gpu-1"] == ("ml/Deployment/web", "ml/Job/nightly-123", "ml/JobSet/set", "ml/Pod/static")


def test_the_controller_of_several_owners_counts() -> None:
    owners: Metrics = {
        "kube_pod_owner": [
            ({"namespace": "ml", "pod": "a", "owner_kind": kind, "owner_name": "x", "owner_is_controller": flag}, 1.0)
            for kind, flag in (("Other", "false"), ("Job", "true"), ("Third", "false"))
        ]
    }

    assert told(PLACED, {**pod("a", "gpu-1"), **owners}).jobs == {"gpu-1": "ml/Job/x"}


def test_owners_that_own_each_other_end() -> None:
    topology = told(PLACED, pod("a", "gpu-1", "Job", "a"), owned("kube_job_owner", "job_name", "a", "Job", "a"))

    assert topology.jobs == {"gpu-1": "ml/Job/a"}


def test_labels_that_the_scraper_pushed_aside_are_read() -> None:
    aside = {name: f"exported_{name}" for name in ("namespace", "pod", "node")}

    assert told(PLACED, pod("a", "gpu-1", "Job", "a"), renamed=aside).jobs == {"gpu-1": "ml/Job/a"}


@pytest.mark.parametrize("missing", ["kube_pod_info", "kube_pod_owner", "kube_pod_status_phase"])
def test_without_a_metric_that_tells_jobs_they_are_unknown_and_never_none(missing: str) -> None:
    shown = {metric: series for metric, series in pod("a", "gpu-1").items() if metric != missing}

    with pytest.raises(Unavailable, match=f"shows no {missing}; which jobs there are is unknown"):
        told(PLACED, shown)


def test_without_any_pod_that_asks_for_gpus_there_are_no_jobs() -> None:
    shown = {metric: series for metric, series in pod("a", "gpu-1").items() if "requests" not in metric}

    assert told(PLACED, shown).jobs == {}


def test_labels_that_are_not_allowed_to_be_shown_are_asked_for() -> None:
    (warning,) = told(node("gpu-1"), pod("a", "gpu-1")).warnings

    assert "--metric-labels-allowlist=nodes=[example.com/rackName,example.com/feed,nvidia.com/gpu.clique," in warning


def test_the_metrics_that_are_read_are_listed() -> None:
    shown = {*pod("a", "n"), *node("n"), "kube_job_owner", "kube_replicaset_owner"}

    assert shown == set(METRICS)


# Names


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        ({"topology.kubernetes.io/rack": "r1"}, Place(rack="r1")),
        ({"topology.kubernetes.io/rack": "", "oci.oraclecloud.com/host.rack_id": "r2"}, Place(rack="r2")),
        (
            {"nvidia.com/gpu.clique": "d65a7a4d-1f0e-4c3d-9a2f-0c6e4bb2f6a1.3"},
            Place(nvlink_domain="d65a7a4d-1f0e-4c3d-9a2f-0c6e4bb2f6a1.3"),
        ),
        ({"nvidia.com/gpu.clique": "00000000-0000-0000-0000-000000000000.0"}, NOWHERE),
        (
            {"nvidia.com/gpu.clique": "0000.0", "network.topology.nvidia.com/accelerator": "nvl1"},
            Place(nvlink_domain="nvl1"),
        ),
        ({"network.topology.nvidia.com/leaf": "s1", "network.topology.nvidia.com/spine": "s2"}, Place(switch="s1")),
        (
            {f"topology.k8s.aws/network-node-layer-{layer}": f"nn-{layer}" for layer in (1, 2, 3)},
            Place(switch="nn-3"),
        ),
        (
            {f"topology.k8s.aws/network-node-layer-{layer}": f"nn-{layer}" for layer in (1, 2, 3, 4)},
            Place(switch="nn-4"),
        ),
        ({"cloud.google.com/gce-topology-subblock": "sb-1"}, Place(switch="sb-1")),
        ({"kubernetes.io/hostname": "gpu-1"}, NOWHERE),
    ],
)
def test_node_labels_that_are_in_use_say_where_a_node_is(labels: dict[str, str], place: Place) -> None:
    assert NodeLabels().place(labels) == place


@pytest.mark.parametrize(
    ("resource", "gpu"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/gpu.shared", True),
        ("nvidia.com/mig-1g.5gb", True),
        ("nvidia_com_mig_1g_5gb", True),
        ("amd.com/gpu", True),
        ("amd.com/cpx_nps4", True),
        ("gpu.intel.com/i915", True),
        ("rdma/hca_shared_devices_a", False),
        ("nvidia.com/hostdev", False),
        ("cpu", False),
    ],
)
def test_gpus_are_told_from_other_resources(resource: str, *, gpu: bool) -> None:
    assert is_gpu(resource) is gpu


@pytest.mark.parametrize(
    ("kinds", "above"),
    [
        (["Node", "CronJob", "CronWorkflow", "RayCronJob", "ScheduledSparkApplication"], True),
        (["Job", "JobSet", "PyTorchJob", "RayJob", "LeaderWorkerSet", "Deployment", "Workflow"], False),
    ],
)
def test_what_starts_jobs_by_the_clock_is_not_the_job(kinds: Sequence[str], *, above: bool) -> None:
    assert {is_above_jobs(kind) for kind in kinds} == {above}
