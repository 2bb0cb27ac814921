"""Exporters are found through a real Kubernetes API as they come, move and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kubernetes.client import ApiClient, CoreV1Api

from healer.adapters.kubernetes.client import KubernetesClient
from healer.adapters.scrape.discovery import Discovery, Found, TargetGroup, TargetSource
from healer.adapters.scrape.kubernetes import KubernetesTargets
from healer.adapters.scrape.source import ScrapeSource
from healer.errors import Rejected, Unavailable
from tests.canned_http import Canned, canned_server
from tests.controlplane import fleet
from tests.controlplane.controlplane import ControlPlane

pytestmark = pytest.mark.kubernetes

AT = datetime(2026, 3, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=2)
SELECTOR = "app=exporter"


@dataclass(slots=True)
class Lab:
    """A namespace into which a person puts exporters."""

    control_plane: ControlPlane
    admin: ApiClient
    namespace: str
    opened: ExitStack

    def deploy(self, name: str, *, node: str, app: str = "exporter", ports: Mapping[str, int] | None = None) -> None:
        """A pod on the node that its kubelet has not started yet."""
        listed = [{"name": each, "containerPort": number} for each, number in (ports or {}).items()]
        containers = [
            {"name": "agent", "image": "busybox"},
            {"name": "exporter", "image": "busybox", "ports": listed},
        ]
        fleet.create_bare_pod(
            self.admin, self.namespace, name, shape=fleet.PodShape(spec={"nodeName": node, "containers": containers})
        )
        self.core.patch_namespaced_pod(name, self.namespace, {"metadata": {"labels": {"app": app}}})

    def report(self, name: str, *, phase: str = "Running", address: str | None = None) -> None:
        """What the pod's kubelet would."""
        addresses = {} if address is None else {"podIP": address, "podIPs": [{"ip": address}]}
        self.core.patch_namespaced_pod_status(name, self.namespace, {"status": {"phase": phase, **addresses}})

    def source(self, port: int | str, *, user: str = "healer", namespace: str | None = "") -> KubernetesTargets:
        """Of this namespace, or of the one that is named."""
        client = KubernetesClient(kubeconfig=self.control_plane.kubeconfig(user), timeout_s=10.0)
        self.opened.callback(client.close)
        return KubernetesTargets(client, SELECTOR, port, namespace=self.namespace if namespace == "" else namespace)

    def group(self, address: str, *, node: str, pod: str) -> TargetGroup:
        return TargetGroup([address], {"node": node, "namespace": self.namespace, "pod": pod})

    @property
    def core(self) -> CoreV1Api:
        return CoreV1Api(self.admin)


@pytest.fixture
def lab(control_plane: ControlPlane, namespace: str) -> Iterator[Lab]:
    with control_plane.client("admin") as admin, ExitStack() as opened:
        yield Lab(control_plane, admin, namespace, opened)


def test_running_pods_are_targets_that_know_their_node(lab: Lab) -> None:
    lab.deploy("a", node="gpu-1")
    lab.deploy("b", node="gpu-2")
    lab.report("a", address="10.1.0.1")
    lab.report("b", address="fd00::2")

    expected = [lab.group("10.1.0.1:9400", node="gpu-1", pod="a"), lab.group("[fd00::2]:9400", node="gpu-2", pod="b")]
    assert lab.source(9400).find() == Found(expected)
    assert lab.source(9400, user="reader").find() == Found(expected)


def test_pods_that_do_not_serve_are_left_out(lab: Lab) -> None:
    lab.deploy("waiting", node="gpu-1")
    lab.deploy("without-address", node="gpu-1")
    lab.report("without-address")
    for number, phase in enumerate(("Succeeded", "Failed", "Running")):
        lab.deploy(phase.lower(), node="gpu-1")
        lab.report(phase.lower(), phase=phase, address=f"10.1.0.{number}")
    lab.deploy("leaving", node="gpu-2")
    lab.report("leaving", address="10.1.0.9")
    lab.core.delete_namespaced_pod("leaving", lab.namespace, grace_period_seconds=600)
    lab.deploy("other", node="gpu-2", app="other")
    lab.report("other", address="10.1.0.8")

    assert lab.source(9400).find() == Found([lab.group("10.1.0.2:9400", node="gpu-1", pod="running")])


def test_a_port_may_be_named_as_in_the_pod(lab: Lab) -> None:
    for number, ports in enumerate(({"health": 80, "metrics": 9400}, {"metrics": 9401}, {"health": 80})):
        lab.deploy(f"pod-{number}", node="gpu-1", ports=ports)
        lab.report(f"pod-{number}", address=f"10.1.0.{number}")

    found = lab.source("metrics").find()

    assert [group.targets for group in found.groups] == [["10.1.0.0:9400"], ["10.1.0.1:9401"]]
    assert len(found.warnings) == 1
    assert "1 of them have no port named metrics" in found.warnings[0]


def test_all_namespaces_are_searched_unless_one_is_named(lab: Lab) -> None:
    lab.deploy("a", node="gpu-1")
    lab.report("a", address="10.1.0.1")

    assert lab.group("10.1.0.1:9400", node="gpu-1", pod="a") in lab.source(9400, namespace=None).find().groups
    assert lab.source(9400, namespace="default").find() == Found([])


def test_an_exporter_that_moves_is_followed(lab: Lab) -> None:
    lab.deploy("a", node="gpu-1")
    lab.report("a", address="10.1.0.1")
    with closing(Discovery((), [lab.source(9400)], timeout_s=10.0)) as discovery:
        (before,), _ = discovery.targets(AT)
        lab.deploy("b", node="gpu-1")
        lab.report("b", address="10.1.0.2")
        lab.core.delete_namespaced_pod("a", lab.namespace, grace_period_seconds=0)
        (after,), warnings = discovery.targets(LATER)

    assert (before.url, before.labels["pod"]) == ("http://10.1.0.1:9400/metrics", "a")
    assert (after.url, after.labels["pod"]) == ("http://10.1.0.2:9400/metrics", "b")
    assert before.labels["node"] == after.labels["node"] == "gpu-1"
    assert warnings == ()


@dataclass(slots=True)
class Cable:
    """A source whose way to the API server may be cut."""

    source: TargetSource
    every: timedelta = timedelta(seconds=60)

    @property
    def name(self) -> str:
        return self.source.name

    def find(self) -> Found:
        return self.source.find()

    def close(self) -> None:
        self.source.close()


def _changed(lab: Lab, folder: Path, *, server: str | None = None, token: str | None = None) -> KubernetesTargets:
    config = yaml.safe_load(lab.control_plane.kubeconfig("healer").read_text(encoding="utf-8"))
    if server is not None:
        config["clusters"][0]["cluster"]["server"] = server
    text = yaml.safe_dump(config)
    path = folder / "kubeconfig"
    path.write_text(text if token is None else text.replace(lab.control_plane.token("healer"), token), encoding="utf-8")
    client = KubernetesClient(kubeconfig=path, timeout_s=5.0)
    lab.opened.callback(client.close)
    return KubernetesTargets(client, SELECTOR, 9400, namespace=lab.namespace)


@pytest.mark.parametrize("broken", ["unplugged", "expired"])
def test_a_list_that_fails_keeps_the_earlier_targets_and_warns(lab: Lab, tmp_path: Path, broken: str) -> None:
    lab.deploy("a", node="gpu-1")
    lab.report("a", address="10.1.0.1")
    works = lab.source(9400)
    cable = Cable(works)
    fails = (
        _changed(lab, tmp_path, server="https://127.0.0.1:1")
        if broken == "unplugged"
        else _changed(lab, tmp_path, token="expired")
    )
    with pytest.raises(Unavailable if broken == "unplugged" else Rejected):
        fails.find()
    with closing(Discovery((), [cable], timeout_s=10.0)) as discovery:
        before, _ = discovery.targets(AT)
        cable.source = fails
        targets, warnings = discovery.targets(LATER)
        assert targets is before
        assert "kubernetes" in warnings[0]
        assert warnings[0].endswith("the targets found earlier are used")
        cable.source = works
        assert discovery.targets(LATER + timedelta(seconds=1)) == (before, ())


def test_a_selector_that_suddenly_picks_nobody_is_not_believed(lab: Lab) -> None:
    lab.deploy("a", node="gpu-1")
    lab.report("a", address="10.1.0.1")
    with closing(Discovery((), [lab.source(9400)], timeout_s=10.0)) as discovery:
        before, _ = discovery.targets(AT)
        lab.core.patch_namespaced_pod("a", lab.namespace, {"metadata": {"labels": {"app": "renamed"}}})
        targets, warnings = discovery.targets(LATER)
    assert targets is before
    assert "names no targets any more" in warnings[0]


def _shown(source: ScrapeSource, at: datetime) -> Sequence[Mapping[str, str]]:
    reading = source.read(at)
    return [labels for column in reading.columns for labels in reading.labels(column)]


def test_what_is_scraped_carries_the_node_of_its_pod(lab: Lab) -> None:
    line = b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",Hostname="exporter-x7",pod="train-0",namespace="ml"} 40\n'
    with canned_server(lambda _: Canned(line)) as web:
        lab.deploy("exporter-x7", node="gpu-1", ports={"metrics": int(web.url.rpartition(":")[2])})
        lab.report("exporter-x7", address="127.0.0.1")
        with closing(ScrapeSource(sources=[lab.source("metrics")])) as source:
            (labels,) = _shown(source, AT)
    assert labels == {
        "gpu": "0",
        "UUID": "GPU-1",
        "Hostname": "exporter-x7",
        "exported_pod": "train-0",
        "exported_namespace": "ml",
        "node": "gpu-1",
        "namespace": lab.namespace,
        "pod": "exporter-x7",
        "instance": web.url.removeprefix("http://"),
    }
