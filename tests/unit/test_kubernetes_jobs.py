"""Jobs as the API server tells them, kind by kind, and what healer makes of each."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from healer.adapters.kubernetes import jobs
from healer.adapters.kubernetes.jobs import KINDS
from healer.adapters.kubernetes.objects import JobObject
from healer.domain.fleet import GangEnd
from healer.errors import Unavailable

KUBEFLOW = ("MPIJob", "PaddleJob", "PyTorchJob", "TFJob", "XGBoostJob")
PLAIN = ("Job", "JobSet", "TrainJob")


def _job(*, spec: object = None, conditions: object = None, **metadata: Any) -> JobObject:
    raw = {
        "apiVersion": "v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "ml", "uid": "u-1"} | metadata,
        "spec": {} if spec is None else spec,
        "status": {"active": 2} | ({} if conditions is None else {"conditions": conditions}),
    }
    return msgspec.json.decode(json.dumps(raw), type=JobObject)


def _suspended(kind: str, *, by: str = "healer", annotated: bool = True) -> JobObject:
    """`by`: the field manager that set the field last."""
    spec: dict[str, object] = {"suspend": True}
    fields: dict[str, object] = {"f:suspend": {}}
    if kind in KUBEFLOW:
        spec, fields = {"runPolicy": spec}, {"f:runPolicy": fields}
    managers = [
        {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:parallelism": {}, "f:runPolicy": {"f:cleanPodPolicy": {}}}}},
        {"manager": by, "fieldsV1": {"f:spec": fields}},
    ]
    annotations = {"healer.dev/suspended-by": "run-1"} if annotated else {}
    return _job(spec=spec, annotations=annotations, managedFields=managers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_suspension_is_ours_if_it_says_so_and_the_server_says_that_we_set_it(kind: str) -> None:
    assert jobs.suspension_owner(_suspended(kind), KINDS[kind]) == "run-1"
    assert jobs.suspension_owner(_suspended(kind, by="kubectl-edit"), KINDS[kind]) is None
    assert jobs.suspension_owner(_suspended(kind, annotated=False), KINDS[kind]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_annotation_that_a_resumption_left_behind_is_no_suspension(kind: str) -> None:
    left = _job(spec={}, annotations={"healer.dev/suspended-by": "run-1"})
    assert not jobs.is_suspended(left, KINDS[kind])
    assert jobs.suspension_owner(left, KINDS[kind]) is None


@pytest.mark.parametrize(
    ("kinds", "change"),
    [(PLAIN, {"spec": {"suspend": True}}), (KUBEFLOW, {"spec": {"runPolicy": {"suspend": True}}})],
    ids=["suspend", "runPolicy.suspend"],
)
def test_the_field_is_where_the_kind_has_it(kinds: tuple[str, ...], change: object) -> None:
    assert [KINDS[kind].change(suspend=True) for kind in kinds] == [change] * len(kinds)
    assert sorted((*PLAIN, *KUBEFLOW)) == sorted(KINDS)


@pytest.mark.parametrize(
    ("spec", "suspended"),
    [
        ({}, False),
        ({"runPolicy": None}, False),
        ({"runPolicy": {}}, False),
        ({"runPolicy": {"suspend": None}}, False),
        ({"runPolicy": {"suspend": False}}, False),
        ({"runPolicy": {"suspend": True}}, True),
        ({"suspend": True}, False),
    ],
    ids=json.dumps,
)
def test_a_job_is_suspended_only_by_its_own_field(*, spec: object, suspended: bool) -> None:
    assert jobs.is_suspended(_job(spec=spec), KINDS["PyTorchJob"]) is suspended


@pytest.mark.parametrize("spec", [{"runPolicy": "Serial"}, {"runPolicy": {"suspend": "yes"}}], ids=json.dumps)
def test_a_field_of_another_type_is_unknown_and_not_false(spec: object) -> None:
    with pytest.raises(Unavailable, match=r"suspend.* of a job is not what Kubernetes sends"):
        jobs.is_suspended(_job(spec=spec), KINDS["PyTorchJob"])


@pytest.mark.parametrize(
    ("kind", "name", "controller", "why"),
    [
        ("JobSet", "train", True, "it is a part of JobSet/train, which decides whether it runs"),
        ("TrainJob", "train", True, "it is a part of TrainJob/train, which decides whether it runs"),
        ("CronJob", "nightly", True, ""),
        ("ConfigMap", "notes", False, ""),
    ],
)
def test_a_part_is_not_restarted_without_its_whole(kind: str, name: str, *, controller: bool, why: str) -> None:
    owner = {"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": controller}
    assert jobs.why_not(_job(ownerReferences=[owner])) == why


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (
            {"kueue.x-k8s.io/queue-name": "research"},
            "it is in Kueue's queue research, and Kueue decides whether it runs",
        ),
        ({"kueue.x-k8s.io/queue-name": ""}, ""),
        ({"app": "train"}, ""),
    ],
    ids=["queued", "no queue", "plain"],
)
def test_what_is_in_a_queue_is_its_queue_s(labels: dict[str, str], why: str) -> None:
    assert jobs.why_not(_job(labels=labels)) == why


def test_a_job_whose_pods_nothing_names_is_left_alone() -> None:
    assert "selected by hand" in jobs.why_not(_job(spec={"manualSelector": True}))
    assert jobs.why_not(_job(spec={"manualSelector": False})) == ""


@pytest.mark.parametrize(
    ("condition", "status", "end"),
    [
        ("Complete", "True", GangEnd.COMPLETE),  # Job, TrainJob
        ("Completed", "True", GangEnd.COMPLETE),  # JobSet
        ("Succeeded", "True", GangEnd.COMPLETE),  # Kubeflow
        ("Failed", "True", GangEnd.FAILED),
        ("Failed", "False", None),
        ("Suspended", "True", None),
        ("Running", "True", None),
    ],
)
def test_how_a_job_has_ended_its_conditions_say(condition: str, status: str, end: GangEnd | None) -> None:
    created = {"type": "Created", "status": "True"}
    assert jobs.end_of(_job(conditions=[created, {"type": condition, "status": status}])) is end


def test_a_job_without_conditions_has_not_ended() -> None:
    assert jobs.end_of(_job()) is None
