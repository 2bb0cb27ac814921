"""What tests put into a cluster: workloads, disruption budgets, and what the users healer and reader may do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import (
    ApiClient,
    ApiException,
    ApiextensionsV1Api,
    AppsV1Api,
    AuthorizationV1Api,
    BatchV1Api,
    CoreV1Api,
    CustomObjectsApi,
    PolicyV1Api,
    RbacAuthorizationV1Api,
    V1ClusterRole,
    V1ClusterRoleBinding,
    V1CustomResourceDefinition,
    V1DaemonSet,
    V1Deployment,
    V1Job,
    V1Pod,
    V1PodDisruptionBudget,
    V1SubjectAccessReview,
)

from tests.controlplane.controlplane import ControlPlane

RBAC_FILE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "rbac.yaml"
READ_VERBS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class PodShape:
    """What the pods of a workload ask for; `spec` is laid over the rest (affinity, tolerations, volumes)."""

    gpus: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def pod_spec(self) -> dict[str, Any]:
        limits = {"nvidia.com/gpu": str(self.gpus)} if self.gpus else {}
        container = {"name": "main", "image": "busybox", "resources": {"limits": limits}}
        return {"containers": [container], "nodeSelector": dict(self.node_selector), **self.spec}


@dataclass(frozen=True, slots=True)
class PodSeen:
    name: str
    uid: str
    node: str


ANY_NODE = PodShape()


def create_deployment(api: ApiClient, namespace: str, name: str, *, replicas: int, shape: PodShape = ANY_NODE) -> None:
    """Its pods carry the label app=`name`, like those of every workload here."""
    spec = {"replicas": replicas, **_pod_template(name, shape)}
    body = V1Deployment.model_validate({"metadata": {"name": name}, "spec": spec})
    AppsV1Api(api).create_namespaced_deployment(namespace, body)


def create_daemon_set(api: ApiClient, namespace: str, name: str, *, shape: PodShape = ANY_NODE) -> None:
    body = V1DaemonSet.model_validate({"metadata": {"name": name}, "spec": _pod_template(name, shape)})
    AppsV1Api(api).create_namespaced_daemon_set(namespace, body)


def create_bare_pod(
    api: ApiClient,
    namespace: str,
    name: str,
    *,
    shape: PodShape = ANY_NODE,
    labels: Mapping[str, str] | None = None,
) -> None:
    """A pod that no controller makes again."""
    metadata = {"name": name, "labels": {"app": name, **(labels or {})}}
    body = V1Pod.model_validate({"metadata": metadata, "spec": shape.pod_spec()})
    CoreV1Api(api).create_namespaced_pod(namespace, body)


def create_job(
    api: ApiClient,
    namespace: str,
    name: str,
    *,
    pods: int,
    shape: PodShape = ANY_NODE,
    labels: Mapping[str, str] | None = None,
    owner: Mapping[str, Any] | None = None,
) -> None:
    """A gang: so many pods at once, each of which has to succeed.

    Args:
        labels: of the job itself.
        owner: the reference to the object that it is a part of.
    """
    template = {"metadata": {"labels": {"app": name}}, "spec": {**shape.pod_spec(), "restartPolicy": "Never"}}
    metadata = {"name": name, "labels": dict(labels or {}), "ownerReferences": [owner] if owner else []}
    spec = {"parallelism": pods, "completions": pods, "completionMode": "Indexed", "template": template}
    BatchV1Api(api).create_namespaced_job(namespace, V1Job.model_validate({"metadata": metadata, "spec": spec}))


@contextlib.contextmanager
def custom_kind(control_plane: ControlPlane, kind: str, plural: str, *, group: str, version: str) -> Iterator[None]:
    """While it is entered, the server keeps objects of this kind as they are written; nobody acts upon them."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    serves = {"name": version, "served": True, "storage": True, "schema": schema}
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [serves]}
    body = V1CustomResourceDefinition.model_validate({"metadata": {"name": f"{plural}.{group}"}, "spec": spec})
    with control_plane.client("admin") as api:
        definitions, custom = ApiextensionsV1Api(api), CustomObjectsApi(api)
        definitions.create_custom_resource_definition(body)
        try:
            control_plane.eventually(lambda: _is_served(custom, group, version, plural), what=f"{plural} are served")
            yield
        finally:
            definitions.delete_custom_resource_definition(f"{plural}.{group}")


def create_budget(control_plane: ControlPlane, namespace: str, name: str, *, app: str, min_available: int) -> None:
    """A PodDisruptionBudget over the pods of `app`; returns once the disruption controller has counted them."""
    spec = {"minAvailable": min_available, "selector": {"matchLabels": {"app": app}}}
    body = V1PodDisruptionBudget.model_validate({"metadata": {"name": name}, "spec": spec})
    with control_plane.client("admin") as api:
        policy = PolicyV1Api(api)
        policy.create_namespaced_pod_disruption_budget(namespace, body)
        control_plane.eventually(
            lambda: _is_counted(policy.read_namespaced_pod_disruption_budget(name, namespace)),
            what=f"the disruption controller has counted the pods of budget {name}",
        )


def running_pods(api: ApiClient, namespace: str, app: str) -> tuple[PodSeen, ...]:
    """The ready pods of a workload that nobody has told to end, by name."""
    pods: list[Any] = CoreV1Api(api).list_namespaced_pod(namespace, label_selector=f"app={app}").items
    return tuple(
        PodSeen(name=pod.metadata.name, uid=pod.metadata.uid, node=pod.spec.node_name)
        for pod in sorted(pods, key=lambda pod: pod.metadata.name)
        if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None
    )


def grant_roles(control_plane: ControlPlane) -> None:
    """Lets user healer do what deploy/kubernetes/rbac.yaml allows, and user reader the reading part of it."""
    rules = _healer_rules()
    reading = [{**rule, "verbs": sorted(READ_VERBS.intersection(rule["verbs"]))} for rule in rules]
    rules_by_user = {"healer": rules, "reader": [rule for rule in reading if rule["verbs"]]}
    with control_plane.client("admin") as api:
        for user, granted in rules_by_user.items():
            _grant(api, user, granted)
        control_plane.eventually(
            lambda: all(_may_list_pods(api, user) for user in rules_by_user), what="healer and reader may list pods"
        )


def _grant(api: ApiClient, user: str, rules: list[dict[str, Any]]) -> None:
    group = "rbac.authorization.k8s.io"
    rbac = RbacAuthorizationV1Api(api)
    rbac.create_cluster_role(V1ClusterRole.model_validate({"metadata": {"name": user}, "rules": rules}))
    role = {"apiGroup": group, "kind": "ClusterRole", "name": user}
    subject = {"apiGroup": group, "kind": "User", "name": user}
    binding = {"metadata": {"name": user}, "roleRef": role, "subjects": [subject]}
    rbac.create_cluster_role_binding(V1ClusterRoleBinding.model_validate(binding))


def _healer_rules() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(RBAC_FILE.read_text(encoding="utf-8"))
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")
    rules: list[dict[str, Any]] = role["rules"]
    return rules


def _may_list_pods(api: ApiClient, user: str) -> bool:
    """The server learns of a new role a moment after it is created."""
    spec = {"user": user, "resourceAttributes": {"verb": "list", "resource": "pods"}}
    question = V1SubjectAccessReview.model_validate({"spec": spec})
    review: Any = AuthorizationV1Api(api).create_subject_access_review(question)
    return bool(review.status.allowed)


def _is_served(custom: CustomObjectsApi, group: str, version: str, plural: str) -> bool:
    try:
        custom.list_cluster_custom_object(group, version, plural)
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    return True


def _pod_template(name: str, shape: PodShape) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": shape.pod_spec()},
    }


def _is_counted(budget: Any) -> bool:
    return budget.status is not None and budget.status.observed_generation == budget.metadata.generation
