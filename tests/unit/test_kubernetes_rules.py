"""Kubernetes' answers, word for word as an API server gives them, and what healer makes of each."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from healer.adapters.kubernetes import rules
from healer.adapters.kubernetes.objects import (
    Budget,
    NodeList,
    NodeObject,
    Pod,
    PodList,
    Question,
    Selector,
    understood,
)
from healer.domain.fleet import Disposition, Node
from healer.errors import Conflict, HealerError, NotFound, Rejected, Unavailable
from healer.ports import EvictionAnswer

EVICTION = Question("create", "pods/eviction", name="train-0", namespace="ml")
READY = {"type": "Ready", "status": "True"}


def _pod(*, owner: str = "", **fields: Any) -> Pod:
    """`owner` is "Kind/name"; `fields` are laid over metadata, spec and status."""
    kind, _, name = owner.partition("/")
    owners = [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": True}] if owner else []
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train-0", "namespace": "ml", "uid": "u-1", "ownerReferences": owners}
        | fields.get("metadata", {}),
        "spec": {"nodeName": "gpu-1", "containers": []} | fields.get("spec", {}),
        "status": {"phase": "Running", "conditions": [READY]} | fields.get("status", {}),
    }
    return msgspec.json.decode(json.dumps(raw), type=Pod)


def _budget(name: str = "keep", *, selector: object = None, namespace: str = "ml", **fields: Any) -> Budget:
    status = {"observedGeneration": 3, "disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 3}
    raw = {
        "metadata": {"name": name, "namespace": namespace, "generation": 3},
        "spec": {"minAvailable": 3} | ({} if selector is None else {"selector": selector}) | fields.get("spec", {}),
        "status": status | fields.get("status", {}),
    }
    return msgspec.json.decode(json.dumps(raw), type=Budget)


EMPTY_DIR = {"volumes": [{"name": "token", "projected": {}}, {"name": "shm", "emptyDir": {}}]}
MIRROR = {"annotations": {"kubernetes.io/config.mirror": "hash"}}
LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("pod", "disposition", "why"),
    [
        pytest.param(_pod(owner="ReplicaSet/t"), Disposition.EVICT, "", id="managed"),
        pytest.param(_pod(owner="ReplicaSet/t", spec=EMPTY_DIR), Disposition.EVICT, "emptyDir", id="local storage"),
        pytest.param(_pod(), Disposition.REFUSES, "no controller", id="unmanaged"),
        pytest.param(_pod(spec=EMPTY_DIR), Disposition.REFUSES, "no controller", id="unmanaged with local storage"),
        pytest.param(_pod(metadata=LEAVING), Disposition.EVICT, "", id="unmanaged and leaving anyway"),
        pytest.param(_pod(owner="DaemonSet/dcgm"), Disposition.STAYS, "DaemonSet", id="daemon set"),
        pytest.param(
            _pod(owner="DaemonSet/dcgm", metadata=LEAVING), Disposition.STAYS, "DaemonSet", id="daemon set, leaving"
        ),
        pytest.param(_pod(owner="Node/gpu-1", metadata=MIRROR), Disposition.STAYS, "static", id="mirror"),
        pytest.param(_pod(owner="Job/t", status={"phase": "Succeeded"}), Disposition.STAYS, "finished", id="succeeded"),
        pytest.param(_pod(status={"phase": "Failed"}), Disposition.STAYS, "finished", id="unmanaged and failed"),
        pytest.param(_pod(owner="Job/t", status={"phase": "Pending"}), Disposition.EVICT, "", id="pending"),
    ],
)
def test_a_drain_treats_each_pod_as_kubectl_would_without_force(pod: Pod, disposition: Disposition, why: str) -> None:
    workload = rules.workload_of(pod, [])

    assert workload.disposition is disposition
    assert why in workload.why
    assert bool(workload.why) == bool(why)
    assert workload.leaving == (pod.metadata.deletion_timestamp is not None)


def test_an_owner_that_is_no_controller_makes_nothing_again() -> None:
    pod = _pod(metadata={"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "gpu-1", "uid": "u"}]})

    assert rules.workload_of(pod, []).disposition is Disposition.REFUSES


@pytest.mark.parametrize(
    ("controller", "template_hash", "owner"),
    [
        ("ReplicaSet/llm-serve-647c94fd57", "647c94fd57", "Deployment/llm-serve"),
        ("ReplicaSet/llm-serve-647c94fd57", None, "ReplicaSet/llm-serve-647c94fd57"),
        ("ReplicaSet/standalone", "647c94fd57", "ReplicaSet/standalone"),
        ("StatefulSet/db", None, "StatefulSet/db"),
        ("Job/pretrain-647c94fd57", "647c94fd57", "Job/pretrain-647c94fd57"),
        ("PyTorchJob/pretrain", None, "PyTorchJob/pretrain"),
        ("", None, "Pod/train-0"),
    ],
)
def test_the_owner_is_the_name_that_outlives_a_rollout(controller: str, template_hash: str | None, owner: str) -> None:
    labels = {"pod-template-hash": template_hash} if template_hash else {}

    assert rules.owner_of(_pod(owner=controller, metadata={"labels": labels})) == owner


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {"app": "a"}, True),
        ({}, {}, True),
        ({"matchLabels": {"app": "a"}}, {"app": "a", "tier": "x"}, True),
        ({"matchLabels": {"app": "a", "tier": "y"}}, {"app": "a", "tier": "x"}, False),
        ({"matchLabels": {"app": "a"}}, {}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, {"app": "b"}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, {"app": "a"}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, {}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {"app": ""}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, {"app": "a"}, False),
        (
            {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
            {"app": "a"},
            False,
        ),
    ],
)
def test_a_selector_matches_as_kubernetes_says(selector: object, labels: dict[str, str], *, matches: bool) -> None:
    assert msgspec.convert(selector, Selector).matches(labels) is matches


UNREADY = {"conditions": [{"type": "Ready", "status": "False"}]}
SPENT = "ml/keep (0 disruptions allowed)"


@pytest.mark.parametrize(
    ("pod", "budget", "blocker"),
    [
        pytest.param(_pod(owner="Job/t"), _budget(selector={}), SPENT, id="spent"),
        pytest.param(_pod(), _budget(selector={}), SPENT, id="an unmanaged pod is covered too"),
        pytest.param(_pod(owner="Job/t"), _budget(selector=None), None, id="no selector covers nothing"),
        pytest.param(_pod(owner="Job/t"), _budget(selector={}, namespace="web"), None, id="other namespace"),
        pytest.param(_pod(owner="Job/t"), _budget(selector={"matchLabels": {"app": "a"}}), None, id="other pods"),
        pytest.param(_pod(owner="Job/t"), _budget(selector={}, status={"disruptionsAllowed": 1}), None, id="healthy"),
        pytest.param(
            _pod(owner="Job/t"),
            _budget(selector={}, status={"disruptionsAllowed": 1, "observedGeneration": 2}),
            "ml/keep (not counted yet)",
            id="changed and not counted yet",
        ),
        pytest.param(_pod(owner="Job/t", status={"phase": "Pending"}), _budget(selector={}), None, id="pending"),
        pytest.param(_pod(owner="Job/t", metadata=LEAVING), _budget(selector={}), None, id="leaving"),
        pytest.param(_pod(owner="DaemonSet/d"), _budget(selector={}), None, id="stays anyway"),
        pytest.param(_pod(owner="Job/t", status=UNREADY), _budget(selector={}), SPENT, id="unready, budget broken"),
        pytest.param(
            _pod(owner="Job/t", status=UNREADY),
            _budget(selector={}, status={"currentHealthy": 3}),
            None,
            id="unready, budget healthy",
        ),
        pytest.param(
            _pod(owner="Job/t", status=UNREADY),
            _budget(selector={}, spec={"unhealthyPodEvictionPolicy": "AlwaysAllow"}),
            None,
            id="unready, always allowed",
        ),
    ],
)
def test_the_budget_that_would_refuse_now_is_named(pod: Pod, budget: Budget, blocker: str | None) -> None:
    assert rules.workload_of(pod, [budget]).blocked_by == blocker


def test_two_budgets_over_one_pod_are_both_named() -> None:
    budgets = [_budget("b", selector={}), _budget("a", selector={}, status={"disruptionsAllowed": 5})]

    blocked_by = rules.workload_of(_pod(owner="Job/t"), budgets).blocked_by

    assert blocked_by is not None
    assert blocked_by.startswith("ml/a, ml/b (")


def _node(
    *, annotations: dict[str, str] | None = None, manager: str = "", spec: object = None, ready: str = "True"
) -> NodeObject:
    fields: dict[str, object] = {"f:spec": {"f:unschedulable": {}}} if manager else {"f:status": {}}
    raw = {
        "metadata": {
            "name": "gpu-1",
            "labels": {"rack": "r1"},
            "annotations": annotations or {},
            "managedFields": [
                {"manager": "kubelet", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}},
                {"manager": manager or "kubectl", "fieldsType": "FieldsV1", "fieldsV1": fields},
            ],
        },
        "spec": {} if spec is None else spec,
        "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": ready}]},
    }
    return msgspec.json.decode(json.dumps(raw), type=NodeObject)


OURS = {"healer.dev/cordoned-by": "run-1"}
CORDONED = {"unschedulable": True}


@pytest.mark.parametrize(
    ("seen", "cordoned", "cordoned_by"),
    [
        pytest.param(_node(), False, None, id="free"),
        pytest.param(_node(spec=CORDONED, annotations=OURS, manager="healer"), True, "run-1", id="ours"),
        pytest.param(_node(spec=CORDONED, manager="kubectl"), True, None, id="a person's"),
        pytest.param(_node(annotations=OURS), False, None, id="lifted by a person"),
        pytest.param(_node(spec=CORDONED, annotations=OURS, manager="kubectl"), True, None, id="lifted and set again"),
        pytest.param(
            _node(spec=CORDONED, annotations=OURS), True, "run-1", id="nobody recorded: the annotation counts"
        ),
    ],
)
def test_a_cordon_belongs_to_who_set_it_last(seen: NodeObject, *, cordoned: bool, cordoned_by: str | None) -> None:
    expected = Node("gpu-1", ready=True, cordoned=cordoned, cordoned_by=cordoned_by, rack="r1")

    assert rules.node_of(seen, rack_label="rack") == expected


@pytest.mark.parametrize("ready", ["False", "Unknown"])
def test_a_node_that_is_not_known_to_be_ready_is_not_ready(ready: str) -> None:
    assert not rules.node_of(_node(ready=ready), rack_label=None).ready
    assert not rules.node_of(msgspec.convert({"metadata": {"name": "new"}}, NodeObject), rack_label=None).ready


def test_a_node_without_the_rack_label_has_no_rack() -> None:
    assert rules.node_of(_node(), rack_label="topology/rack").rack is None
    assert rules.node_of(_node(), rack_label=None).rack is None


@pytest.mark.parametrize(
    ("labels", "pool"),
    [({"pool": "inference"}, "inference"), ({"pool": ""}, None), ({"rack": "r1"}, None)],
    ids=["named", "empty", "without the label"],
)
def test_a_pool_is_what_the_pool_label_says(labels: dict[str, str], pool: str | None) -> None:
    seen = msgspec.convert({"metadata": {"name": "gpu-1", "labels": labels}}, NodeObject)
    assert rules.node_of(seen, rack_label=None, pool_label="pool").pool == pool
    assert rules.node_of(seen, rack_label=None).pool is None


def _status(code: int, message: str, **details: object) -> bytes:
    return json.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "details": details,
            "code": code,
        }
    ).encode()


SPENT_CAUSE = {"reason": "DisruptionBudget", "message": "The disruption budget keep needs 3 healthy pods and has 3"}
LATE_CAUSE = {"reason": "DisruptionBudget", "message": "The disruption budget keep is still being processed"}
TERMINATING_CAUSE = {"reason": "NamespaceTerminating", "message": "namespace ml is being terminated"}


@pytest.mark.parametrize(
    ("code", "body", "answer", "detail", "retry_after_s"),
    [
        (201, b'{"kind":"Status","apiVersion":"v1","status":"Success"}', EvictionAnswer.ACCEPTED, "", 5),
        (429, _status(429, "Cannot evict", causes=[SPENT_CAUSE]), EvictionAnswer.BLOCKED, "budget keep", 5),
        (
            429,
            _status(429, "Cannot evict", causes=[LATE_CAUSE], retryAfterSeconds=10),
            EvictionAnswer.BLOCKED,
            "budget keep",
            10,
        ),
        (404, _status(404, 'pods "train-0" not found', name="train-0", kind="pods"), EvictionAnswer.GONE, "", 5),
        (403, _status(403, "forbidden", causes=[TERMINATING_CAUSE]), EvictionAnswer.ACCEPTED, "namespace ml", 5),
    ],
)
def test_an_eviction_is_decided(
    code: int, body: bytes, answer: EvictionAnswer, detail: str, retry_after_s: int
) -> None:
    decided = rules.eviction_answer(code, body, EVICTION)

    assert decided.answer is answer
    assert detail in decided.detail
    assert decided.retry_after == timedelta(seconds=retry_after_s)


LOGIN_PAGE = b"<html><body>Please log in</body></html>"
FORBIDDEN = 'pods "train-0" is forbidden: User "healer" cannot create resource "pods/eviction" in the namespace "ml"'


@pytest.mark.parametrize(
    ("code", "body", "error", "words"),
    [
        pytest.param(200, LOGIN_PAGE, Unavailable, "not what Kubernetes sends", id="a login page is no yes"),
        pytest.param(200, _status(200, ""), Unavailable, "neither yes nor no", id="a success that says failure"),
        pytest.param(404, LOGIN_PAGE, Unavailable, "HTTP 404", id="a proxy's 404 is not gone"),
        pytest.param(404, _status(404, "no such path"), NotFound, "no such path", id="not about this pod"),
        pytest.param(429, _status(429, "too many requests"), Unavailable, "throttles", id="throttled"),
        pytest.param(429, b"slow down", Unavailable, "throttles", id="throttled by a proxy"),
        pytest.param(
            500, _status(500, "This pod has more than one PodDisruptionBudget"), Rejected, "more than", id="2"
        ),
        pytest.param(500, _status(500, "etcd: leader changed"), Unavailable, "leader changed", id="server error"),
        pytest.param(504, b"", Unavailable, "HTTP 504", id="gateway timeout"),
        pytest.param(403, _status(403, FORBIDDEN), Rejected, 'resources: ["pods/eviction"]', id="missing rule"),
        pytest.param(403, _status(403, "denied by policy x"), Rejected, "denied by policy x", id="policy"),
        pytest.param(401, _status(401, "Unauthorized"), Rejected, "credentials", id="unauthorized"),
        pytest.param(409, _status(409, "try again"), Conflict, "try again", id="conflict"),
        pytest.param(422, _status(422, "invalid grace"), Rejected, "invalid grace", id="invalid"),
        pytest.param(302, b"", Unavailable, "HTTP 302", id="redirected elsewhere"),
    ],
)
def test_an_answer_that_decides_nothing_is_an_error_that_says_whether_to_try_again(
    code: int, body: bytes, error: type[HealerError], words: str
) -> None:
    with pytest.raises(error) as raised:
        rules.eviction_answer(code, body, EVICTION)

    assert type(raised.value) is error
    assert words in str(raised.value)
    assert "kubernetes: " in str(raised.value)


def test_a_policys_refusal_is_not_explained_by_a_missing_rule() -> None:
    assert "ClusterRole" not in str(rules.refusal(403, _status(403, "denied by policy x"), EVICTION))


def test_an_expired_page_of_a_list_is_asked_for_again_later() -> None:
    error = rules.refusal(410, _status(410, "The provided continue parameter is too old"), Question("list", "pods"))

    assert isinstance(error, Unavailable)


@pytest.mark.parametrize(
    "body",
    [
        LOGIN_PAGE,
        b"",
        b"{}",
        b"null",
        b'{"kind":"NodeList","items":[',
        b'{"kind":"NodeList"}',
        b'{"kind":"PodList","items":[]}',
        b'{"kind":"Status","status":"Failure"}',
        b'{"kind":"NodeList","items":[{}]}',
        b'{"kind":"NodeList","items":[{"metadata":{"name":"a"},"spec":{"unschedulable":"yes"}}]}',
        b'{"kind":"NodeList","items":[{"metadata":{"name":"\xff"}}]}',
    ],
)
def test_anything_but_a_list_of_nodes_is_never_an_empty_list(body: bytes) -> None:
    with pytest.raises(Unavailable, match="list nodes"):
        understood(body, NodeList, Question("list", "nodes"))


@pytest.mark.parametrize("items", [b"[]", b"null"])
def test_an_empty_list_is_empty(items: bytes) -> None:
    page = understood(b'{"kind":"PodList","metadata":{"continue":"x"},"items":' + items + b"}", PodList, EVICTION)

    assert not page.items
    assert page.metadata.continue_ == "x"


@pytest.mark.parametrize(
    ("question", "path"),
    [
        (Question("list", "nodes"), "/api/v1/nodes"),
        (Question("get", "nodes", name="gpu-1"), "/api/v1/nodes/gpu-1"),
        (EVICTION, "/api/v1/namespaces/ml/pods/train-0/eviction"),
        (
            Question("list", "poddisruptionbudgets", namespace="ml", group="policy"),
            "/apis/policy/v1/namespaces/ml/poddisruptionbudgets",
        ),
    ],
)
def test_a_question_knows_its_path(question: Question, path: str) -> None:
    assert question.path == path


@pytest.mark.parametrize(
    ("capacity", "allocatable", "lost"),
    [
        ({"nvidia.com/gpu": "8", "cpu": "64"}, {"nvidia.com/gpu": "7", "cpu": "60"}, 1),
        ({"amd.com/gpu": "8"}, {"amd.com/gpu": "8"}, 0),
        ({"nvidia.com/mig-1g.10gb": "14"}, {"nvidia.com/mig-1g.10gb": "7"}, 7),
        ({"nvidia.com/gpu": "8"}, {}, 0),
        ({"nvidia.com/gpu": "many"}, {"nvidia.com/gpu": "7"}, 0),
        ({}, {}, 0),
    ],
    ids=["one of eight", "none", "slices", "not told", "no number", "no GPUs"],
)
def test_gpus_that_a_node_has_and_cannot_give_away_are_lost(
    capacity: dict[str, str], allocatable: dict[str, str], lost: int
) -> None:
    status = {"capacity": capacity, "allocatable": allocatable}
    seen = msgspec.convert({"metadata": {"name": "gpu-1"}, "status": status}, NodeObject)
    assert rules.node_of(seen, rack_label=None).lost_gpus == lost
