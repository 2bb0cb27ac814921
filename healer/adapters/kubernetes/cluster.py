"""Kubernetes as healer's scheduler. What its answers mean is in kubernetes_rules.

Each request ends within its timeout and is sent once: whoever asks decides about asking again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from healer.adapters.kubernetes import rules
from healer.adapters.kubernetes.client import PAGE, KubernetesClient
from healer.adapters.kubernetes.jobs import KubernetesJobs
from healer.adapters.kubernetes.objects import (
    NAME,
    Budget,
    BudgetList,
    NodeList,
    NodeObject,
    Pod,
    PodList,
    Question,
)
from healer.domain.fleet import Gang, Node, Workload
from healer.errors import Conflict, NotFound, Unavailable
from healer.ports import Eviction, EvictionAnswer

CORDON_ATTEMPTS = 5
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class KubernetesCluster:
    """Implements `healer.ports.Cluster`. Safe to use from several threads.

    Args:
        kubeconfig: None for the pod's own service account, or outside of a pod for the user's default kubeconfig.
        context: of the kubeconfig; None for its current one.
        node_selector: a label selector; `nodes` answers with these nodes only.
        rack_label: the node label that names the rack.
        pool_label: the node label that names the pool: what shares a disruption budget.
        timeout_s: for each request; a list is several requests.

    Raises:
        InvalidDocument: the kubeconfig cannot be used. Whether anybody answers is seen at the first question.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        node_selector: str = "",
        rack_label: str | None = None,
        pool_label: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._node_selector = node_selector
        self._rack_label = rack_label
        self._pool_label = pool_label
        self._client = KubernetesClient(kubeconfig=kubeconfig, context=context, timeout_s=timeout_s)
        self._jobs = KubernetesJobs(self._client)

    def close(self) -> None:
        self._client.close()

    def nodes(self) -> tuple[Node, ...]:
        query = {"labelSelector": self._node_selector} if self._node_selector else {}
        pages = self._client.pages(NodeList, Question("list", "nodes"), query, size=PAGE)
        return tuple(self._node_of(seen) for page in pages for seen in page.items or ())

    def node(self, name: str) -> Node:
        return self._node_of(self._read_node(name))

    def workloads(self, node: str) -> tuple[Workload, ...]:
        _check_node_name(node)
        query = {"fieldSelector": f"spec.nodeName={node}"}
        pages = self._client.pages(PodList, Question("list", "pods"), query, size=PAGE)
        pods = [pod for page in pages for pod in page.items or ()]
        if not pods:
            self._read_node(node)  # a name that no node has must not read as a node that is empty
        movable = {pod.metadata.namespace for pod in pods if rules.is_movable(pod)}
        budgets = [budget for namespace in sorted(movable) for budget in self._budgets(namespace)]
        return tuple(rules.workload_of(pod, budgets) for pod in pods)

    def cordon(self, node: str, *, by: str, reason: str) -> None:
        change = {"spec": {"unschedulable": True}}
        notes = {rules.CORDONED_BY: by, rules.CORDON_REASON: reason}
        for _ in range(CORDON_ATTEMPTS):
            seen = self._read_node(node)
            if seen.spec.unschedulable and rules.cordon_owner(seen) == by:
                return
            if seen.spec.unschedulable:
                raise Conflict(NAME, f"node {node} is already cordoned by {_holder(seen)}")
            if self._patch_unless_changed(seen, change, notes):
                self._check_cordon(node, by=by)
                return
        raise Unavailable(NAME, f"node {node} changed under each of {CORDON_ATTEMPTS} attempts to cordon it")

    def uncordon(self, node: str, *, by: str) -> None:
        change = {"spec": {"unschedulable": None}}
        notes = {rules.CORDONED_BY: None, rules.CORDON_REASON: None}
        for _ in range(CORDON_ATTEMPTS):
            seen = self._read_node(node)
            if not seen.spec.unschedulable:
                raise Conflict(NAME, f"node {node} is not cordoned any more: somebody has lifted the cordon of {by}")
            if rules.cordon_owner(seen) != by:
                raise Conflict(NAME, f"node {node} is cordoned by {_holder(seen)}, not by {by}")
            if self._patch_unless_changed(seen, change, notes):
                return
        raise Unavailable(NAME, f"node {node} changed under each of {CORDON_ATTEMPTS} attempts to uncordon it")

    def evict(self, workload: Workload, *, grace: timedelta | None) -> Eviction:
        question = Question("create", "pods/eviction", name=workload.name, namespace=workload.namespace)
        options: dict[str, object] = {"preconditions": {"uid": workload.uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = math.ceil(grace.total_seconds())
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": workload.name, "namespace": workload.namespace},
            "deleteOptions": options,
        }
        status, answer = self._client.send(question, body=body)
        if status == 409 and self._is_gone(workload):
            return Eviction(EvictionAnswer.GONE)
        return rules.eviction_answer(status, answer, question)

    def job(self, name: str) -> Gang:
        return self._jobs.job(name)

    def suspend(self, job: str, *, by: str, reason: str) -> None:
        self._jobs.suspend(job, by=by, reason=reason)

    def resume(self, job: str, *, by: str) -> None:
        self._jobs.resume(job, by=by)

    def _check_cordon(self, node: str, *, by: str) -> None:
        """Somebody who lifts it in the same moment means it: the cordon is not set again."""
        if rules.cordon_owner(self._read_node(node)) != by:
            raise Conflict(NAME, f"node {node} was cordoned for {by}, and somebody changed that at once")

    def _is_gone(self, workload: Workload) -> bool:
        """Whether a conflict was about the uid: the name may belong to another pod by now."""
        try:
            seen = self._client.ask(Pod, Question("get", "pods", name=workload.name, namespace=workload.namespace))
        except NotFound:
            return True
        return seen.metadata.uid != workload.uid

    def _read_node(self, name: str) -> NodeObject:
        _check_node_name(name)
        return self._client.ask(NodeObject, Question("get", "nodes", name=name))

    def _node_of(self, seen: NodeObject) -> Node:
        return rules.node_of(seen, rack_label=self._rack_label, pool_label=self._pool_label)

    def _budgets(self, namespace: str) -> Iterator[Budget]:
        question = Question("list", "poddisruptionbudgets", namespace=namespace, group="policy")
        for page in self._client.pages(BudgetList, question, {}, size=PAGE):
            yield from page.items or ()

    def _patch_unless_changed(
        self, seen: NodeObject, change: Mapping[str, object], notes: Mapping[str, str | None]
    ) -> bool:
        """False if the node is no longer as it was seen."""
        question = Question("patch", "nodes", name=seen.metadata.name)
        return self._client.patch_unless_changed(question, seen.metadata, change, notes)


def _holder(seen: NodeObject) -> str:
    return rules.cordon_owner(seen) or "a person"


def _check_node_name(name: str) -> None:
    """Names come from telemetry; only what can be a node's name may become part of a request."""
    if not NODE_NAME.fullmatch(name):
        raise NotFound(NAME, f"no node can have the name {name!r}")
