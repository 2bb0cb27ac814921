"""Topology from the metrics of kube-state-metrics in Prometheus: read once a minute, unknown where they are silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from healer.adapters.prometheus.api import PrometheusApi
from healer.adapters.topology.kube_state import KubeStateTopology
from healer.domain.topology import Place
from healer.errors import Unavailable
from tests.canned_http import Asked, Canned, canned_server

AT = datetime(2026, 3, 1, tzinfo=UTC)
POD = {"namespace": "team", "pod": "train-0"}
SHOWN = {
    "kube_node_labels": [{"node": "gpu-1", "label_topology_kubernetes_io_rack": "r7"}],
    "kube_node_status_allocatable": [{"node": "gpu-1", "resource": "nvidia_com_gpu", "value": "8"}],
    "kube_pod_info": [{**POD, "node": "gpu-1"}],
    "kube_pod_status_phase": [{**POD, "phase": "Running"}],
    "kube_pod_owner": [{**POD, "owner_kind": "Job", "owner_name": "train", "owner_is_controller": "true"}],
    "kube_pod_container_resource_requests": [{**POD, "resource": "nvidia_com_gpu", "value": "8"}],
}


class Server:
    def __init__(self) -> None:
        self.shown = dict(SHOWN)
        self.asked: list[str] = []

    def answer(self, asked: Asked) -> Canned:
        metric = asked.query["query"]
        self.asked.append(metric)
        result = [
            {
                "metric": {"__name__": metric, **{name: text for name, text in labels.items() if name != "value"}},
                "value": [AT.timestamp(), labels.get("value", "1")],
            }
            for labels in self.shown.get(metric, [])
        ]
        body = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return Canned(json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def source(server: Server) -> Iterator[KubeStateTopology]:
    with canned_server(server.answer) as web:
        api = PrometheusApi(web.url, headers={}, tenant=None, query={}, timeout_s=5.0)
        with closing(KubeStateTopology(api)) as made:
            yield made


def test_places_and_jobs_are_those_of_the_metrics(source: KubeStateTopology) -> None:
    topology = source.topology(AT)
    assert topology.places == {"gpu-1": Place(rack="r7")}
    assert topology.jobs == {"gpu-1": "team/Job/train"}


def test_within_a_minute_nothing_is_asked_again(source: KubeStateTopology, server: Server) -> None:
    first = source.topology(AT)
    asked = len(server.asked)
    assert source.topology(AT + timedelta(seconds=59)) is first
    assert len(server.asked) == asked
    assert source.topology(AT + timedelta(seconds=60)) is first
    assert len(server.asked) == 2 * asked


def test_without_the_metrics_that_tell_jobs_they_are_unknown(source: KubeStateTopology, server: Server) -> None:
    del server.shown["kube_pod_owner"]
    with pytest.raises(Unavailable, match="kube_pod_owner"):
        source.topology(AT)
