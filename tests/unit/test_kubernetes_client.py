"""The Kubernetes adapter towards servers that misbehave, and kubeconfig files that cannot be used."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from healer.adapters.kubernetes.cluster import KubernetesCluster
from healer.domain.fleet import Disposition, Workload
from healer.errors import Conflict, InvalidDocument, Unavailable
from healer.ports import EvictionAnswer

TOKEN = "sekret-0123456789"
WORKLOAD = Workload("ml", "train-0", "u-1", "gpu-1", "Job/train", Disposition.EVICT)
NODE = "/api/v1/nodes/gpu-1"
POD = "/api/v1/namespaces/ml/pods/train-0"
CONFLICT = {"kind": "Status", "status": "Failure", "message": "it changed", "details": {"name": "x"}}
FIRST_PAGE = {"kind": "NodeList", "metadata": {"continue": "next"}, "items": [{"metadata": {"name": "gpu-1"}}]}


@dataclass(slots=True)
class Front:
    """What stands where the API server should be, and what it was sent.

    Attributes:
        answers: status and body by method and path; the path of a further page ends with `?continue`.
    """

    url: str
    answers: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    received: list[tuple[str, str, bytes]] = field(default_factory=list)

    def answer(self, method: str, path: str, status: int, body: object) -> None:
        self.answers[method, path] = status, body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def front() -> Iterator[Front]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            path, _, query = self.path.partition("?")
            path += "?continue" if "continue=" in query else ""
            seen.received.append((self.command, path, content))
            status, body = seen.answers.get((self.command, path), (200, b"<html>Please log in</html>"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815  the names are http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the names are http.server's
            """A test's output is no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen = Front(url=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield seen
        server.shutdown()
        thread.join()


@pytest.fixture
def cluster(front: Front, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with contextlib.closing(KubernetesCluster(kubeconfig=_kubeconfig(tmp_path, front.url), timeout_s=5)) as opened:
        yield opened


def _kubeconfig(folder: Path, server: str) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_a_login_page_in_front_of_the_cluster_is_never_an_empty_cluster(cluster: KubernetesCluster) -> None:
    for question in (cluster.nodes, lambda: cluster.node("gpu-1"), lambda: cluster.workloads("gpu-1")):
        with pytest.raises(Unavailable, match="not what Kubernetes sends"):
            question()
    with pytest.raises(Unavailable, match="not what Kubernetes sends"):
        cluster.evict(WORKLOAD, grace=None)


def test_budgets_that_cannot_be_listed_are_not_no_budgets(cluster: KubernetesCluster, front: Front) -> None:
    pod = {
        "metadata": {"name": "train-0", "namespace": "ml", "uid": "u-1"},
        "spec": {"nodeName": "gpu-1"},
        "status": {"phase": "Running"},
    }
    front.answer("GET", "/api/v1/pods", 200, {"kind": "PodList", "metadata": {}, "items": [pod]})
    front.answer("GET", "/apis/policy/v1/namespaces/ml/poddisruptionbudgets", 500, b"")

    with pytest.raises(Unavailable, match="list poddisruptionbudgets in namespace ml"):
        cluster.workloads("gpu-1")


def test_a_second_page_that_fails_takes_the_first_with_it(cluster: KubernetesCluster, front: Front) -> None:
    front.answer("GET", "/api/v1/nodes", 200, FIRST_PAGE)
    front.answer("GET", "/api/v1/nodes?continue", 410, CONFLICT)

    with pytest.raises(Unavailable, match="410"):
        cluster.nodes()


def test_a_list_that_never_ends_is_given_up(cluster: KubernetesCluster, front: Front) -> None:
    front.answer("GET", "/api/v1/nodes", 200, FIRST_PAGE)
    front.answer("GET", "/api/v1/nodes?continue", 200, FIRST_PAGE)

    with pytest.raises(Unavailable, match="repeats itself"):
        cluster.nodes()


def test_a_server_that_accepts_and_says_nothing_is_unavailable_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig = _kubeconfig(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with contextlib.closing(KubernetesCluster(kubeconfig=kubeconfig, timeout_s=0.2)) as cluster:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="timed out"):
                cluster.nodes()

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("grace", "options"),
    [
        (None, {"preconditions": {"uid": "u-1"}}),
        (timedelta(seconds=90.2), {"preconditions": {"uid": "u-1"}, "gracePeriodSeconds": 91}),
        (timedelta(0), {"preconditions": {"uid": "u-1"}, "gracePeriodSeconds": 0}),
    ],
)
def test_an_eviction_asks_for_this_pod_only_and_for_its_grace(
    cluster: KubernetesCluster, front: Front, grace: timedelta | None, options: dict[str, object]
) -> None:
    front.answer("POST", f"{POD}/eviction", 201, {"kind": "Status", "status": "Success"})

    assert cluster.evict(WORKLOAD, grace=grace).answer is EvictionAnswer.ACCEPTED

    ((_, _, body),) = front.received
    assert json.loads(body)["deleteOptions"] == options


def test_a_conflict_over_a_pod_that_is_still_the_same_is_not_gone(cluster: KubernetesCluster, front: Front) -> None:
    front.answer("POST", f"{POD}/eviction", 409, CONFLICT)
    front.answer("GET", POD, 200, {"metadata": {"name": "train-0", "namespace": "ml", "uid": "u-1"}})

    with pytest.raises(Conflict, match="it changed"):
        cluster.evict(WORKLOAD, grace=None)


def test_a_node_that_changes_under_every_attempt_is_given_up(cluster: KubernetesCluster, front: Front) -> None:
    front.answer("GET", NODE, 200, {"metadata": {"name": "gpu-1", "resourceVersion": "7"}})
    front.answer("PATCH", NODE, 409, CONFLICT)

    with pytest.raises(Unavailable, match="changed under each of 5 attempts to cordon"):
        cluster.cordon("gpu-1", by="run-1", reason="XID 79")

    assert [method for method, _, _ in front.received] == ["GET", "PATCH"] * 5
    assert all(json.loads(body)["metadata"]["resourceVersion"] == "7" for _, _, body in front.received[1::2])


def test_a_cordon_that_is_not_there_when_read_back_is_a_conflict_and_not_tried_again(
    cluster: KubernetesCluster, front: Front
) -> None:
    front.answer("GET", NODE, 200, {"metadata": {"name": "gpu-1", "resourceVersion": "7"}})
    front.answer("PATCH", NODE, 200, {"metadata": {"name": "gpu-1", "resourceVersion": "8"}})

    with pytest.raises(Conflict, match="at once"):
        cluster.cordon("gpu-1", by="run-1", reason="XID 79")

    assert [method for method, _, _ in front.received] == ["GET", "PATCH", "GET"]


USER = f"users: [{{name: u, user: {{token: {TOKEN}}}}}]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(None, "No configuration found", id="missing"),
        pytest.param("", "empty", id="empty"),
        pytest.param(f"token: [{TOKEN}", "not a kubeconfig", id="not YAML"),
        pytest.param(f"- {TOKEN}\n", "not a kubeconfig", id="a list"),
        pytest.param(f"clusters: []\ncontexts: []\n{USER}\ncurrent-context: x\n", "name x", id="no such context"),
        pytest.param(
            f"clusters: []\ncontexts: [{{name: x, context: {{token: {TOKEN}}}}}]\n{USER}\ncurrent-context: x\n",
            "cluster",
            id="no cluster",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named_and_never_quoted(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(InvalidDocument) as raised:
        KubernetesCluster(kubeconfig=path)

    assert str(path) in str(raised.value)
    assert words in str(raised.value)
    assert TOKEN not in "".join(traceback.format_exception(raised.value))


def test_an_error_never_carries_the_token(cluster: KubernetesCluster, front: Front) -> None:
    front.answer("GET", "/api/v1/nodes", 500, b"")

    with pytest.raises(Unavailable) as raised:
        cluster.nodes()

    assert TOKEN not in "".join(traceback.format_exception(raised.value))
