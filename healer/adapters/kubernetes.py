"""Kubernetes as healer's scheduler, through the official client. What its answers mean is in kubernetes_rules.

The client library serves for what is hard to do oneself: kubeconfig files, credential plugins, rotating tokens, TLS.
Requests go out through it and bodies come back raw (see kubernetes_objects).
Each request ends within its timeout and is sent once: whoever asks decides about asking again.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import urllib3
import yaml
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

from healer.adapters import kubernetes_rules as rules
from healer.adapters.kubernetes_objects import (
    NAME,
    Budget,
    BudgetList,
    Decoded,
    NodeList,
    NodeObject,
    Pod,
    PodList,
    Question,
    decode,
)
from healer.domain.fleet import Node, Workload
from healer.errors import Conflict, InvalidDocument, NotFound, Problem, Unavailable
from healer.ports import Eviction, EvictionAnswer

PAGE = 500  # objects; what kubectl asks for at once
CORDON_ATTEMPTS = 5
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
METHODS = {"get": "GET", "list": "GET", "patch": "PATCH", "create": "POST"}

Page = TypeVar("Page", NodeList, PodList, BudgetList)


class KubernetesCluster:
    """Implements `healer.ports.Cluster`. Safe to use from several threads.

    Args:
        kubeconfig: None for the pod's own service account, or outside of a pod for the user's default kubeconfig.
        context: of the kubeconfig; None for its current one.
        node_selector: a label selector; `nodes` answers with these nodes only.
        rack_label: the node label that names the rack.
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
        timeout_s: float = 10.0,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._node_selector = node_selector
        self._rack_label = rack_label
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._api = _connect(kubeconfig, context)

    def close(self) -> None:
        with self._lock:
            self._api.rest_client.close()

    def nodes(self) -> tuple[Node, ...]:
        query = {"labelSelector": self._node_selector} if self._node_selector else {}
        pages = self._pages(NodeList, Question("list", "nodes"), query)
        return tuple(rules.node_of(seen, rack_label=self._rack_label) for page in pages for seen in page.items or ())

    def node(self, name: str) -> Node:
        return rules.node_of(self._read_node(name), rack_label=self._rack_label)

    def workloads(self, node: str) -> tuple[Workload, ...]:
        _check_node_name(node)
        pages = self._pages(PodList, Question("list", "pods"), {"fieldSelector": f"spec.nodeName={node}"})
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
        status, answer = self._send(question, body=body)
        if status == 409 and self._is_gone(workload):
            return Eviction(EvictionAnswer.GONE)
        return rules.eviction_answer(status, answer, question)

    def _check_cordon(self, node: str, *, by: str) -> None:
        """Somebody who lifts it in the same moment means it: the cordon is not set again."""
        if rules.cordon_owner(self._read_node(node)) != by:
            raise Conflict(NAME, f"node {node} was cordoned for {by}, and somebody changed that at once")

    def _is_gone(self, workload: Workload) -> bool:
        """Whether a conflict was about the uid: the name may belong to another pod by now."""
        try:
            seen = self._get(Pod, Question("get", "pods", name=workload.name, namespace=workload.namespace))
        except NotFound:
            return True
        return seen.metadata.uid != workload.uid

    def _read_node(self, name: str) -> NodeObject:
        _check_node_name(name)
        return self._get(NodeObject, Question("get", "nodes", name=name))

    def _budgets(self, namespace: str) -> Iterator[Budget]:
        question = Question("list", "poddisruptionbudgets", namespace=namespace, group="policy")
        for page in self._pages(BudgetList, question, {}):
            yield from page.items or ()

    def _patch_unless_changed(
        self, seen: NodeObject, change: Mapping[str, object], notes: Mapping[str, str | None]
    ) -> bool:
        """False if the node is no longer as it was seen."""
        question = Question("patch", "nodes", name=seen.metadata.name)
        metadata = {"resourceVersion": seen.metadata.resource_version, "annotations": dict(notes)}
        status, body = self._send(
            question, query={"fieldManager": rules.FIELD_MANAGER}, body={"metadata": metadata, **change}
        )
        if status == 409:
            return False
        if not 200 <= status <= 299:
            raise rules.refusal(status, body, question)
        return True

    def _get(self, kind: type[Decoded], question: Question) -> Decoded:
        return self._ask(kind, question, {})

    def _pages(self, kind: type[Page], question: Question, query: Mapping[str, str]) -> Iterator[Page]:
        rest = ""
        while True:
            page = self._ask(kind, question, {**query, "limit": str(PAGE), **({"continue": rest} if rest else {})})
            yield page
            if not page.metadata.continue_:
                return
            if page.metadata.continue_ == rest:
                raise Unavailable(NAME, f"the answer to {question} repeats itself")
            rest = page.metadata.continue_

    def _ask(self, kind: type[Decoded], question: Question, query: Mapping[str, str]) -> Decoded:
        status, body = self._send(question, query=query)
        if status != 200:
            raise rules.refusal(status, body, question)
        return decode(body, kind, question)

    def _send(
        self, question: Question, *, query: Mapping[str, str] | None = None, body: Mapping[str, object] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. Raises Unavailable when there is none: then nobody knows what the server did."""
        api = self._api
        status, answer = self._send_with(api, question, query or {}, body)
        if status == 401:  # nothing was done; the credentials may have been renewed in their file meanwhile
            status, answer = self._send_with(self._reconnected(api), question, query or {}, body)
        return status, answer

    def _send_with(
        self, api: ApiClient, question: Question, query: Mapping[str, str], body: Mapping[str, object] | None
    ) -> tuple[int, bytes]:
        method = METHODS[question.verb]
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            request = api.param_serialize(
                method,
                question.path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = api.call_api(*request, _request_timeout=self._timeout_s)
            return answer.status, bytes(answer.response.data)
        except (urllib3.exceptions.HTTPError, ApiException, ConfigException, OSError) as error:
            raise Unavailable(NAME, f"no answer to {question}: {_reason(error)}") from error

    def _reconnected(self, refused: ApiClient) -> ApiClient:
        with self._lock:
            if self._api is refused:
                self._api = _connect(self._kubeconfig, self._context)
                refused.rest_client.close()
            return self._api


def _connect(kubeconfig: Path | None, context: str | None) -> ApiClient:
    settings = Configuration(retries=False)
    in_pod = kubeconfig is None and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    source = "the pod's service account" if in_pod else str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
    try:
        if in_pod:
            load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            load_kube_config(  # type: ignore[no-untyped-call]
                source, context=context, client_configuration=settings, persist_config=False
            )
        api = ApiClient(settings)
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        # Not chained: the library's words may quote the file, and with it a token.
        raise InvalidDocument(
            Problem(source, 0, "", _config_fault(error), "see cluster.kubernetes.kubeconfig and context")
        ) from None
    api.user_agent = "healer"
    return api


def _config_fault(error: Exception) -> str:
    """What is wrong with a kubeconfig, without what the library quotes from it."""
    if isinstance(error, ConfigException):
        return str(error).partition("{")[0].strip()
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or type(error).__name__}"
    return "is not a kubeconfig file"


def _reason(error: Exception) -> str:
    words = str(error.reason) if isinstance(error, ApiException) else str(error)
    return " ".join(words.split()) or type(error).__name__


def _holder(seen: NodeObject) -> str:
    return rules.cordon_owner(seen) or "a person"


def _check_node_name(name: str) -> None:
    """Names come from telemetry; only what can be a node's name may become part of a request."""
    if not NODE_NAME.fullmatch(name):
        raise NotFound(NAME, f"no node can have the name {name!r}")
