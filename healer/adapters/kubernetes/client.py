"""Requests to the Kubernetes API server, through the official client.

The client library serves for what is hard to do oneself: kubeconfig files, credential plugins, rotating tokens, TLS.
Requests go out through it and bodies come back raw (see kubernetes_objects).
Each request ends within its timeout and is sent once: whoever asks decides about asking again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import urllib3
import yaml
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigException,
    load_incluster_config,
    load_kube_config,
)

from healer.adapters.kubernetes import rules
from healer.adapters.kubernetes.objects import NAME, Decoded, ListMetadata, Metadata, Question, understood
from healer.errors import InvalidDocument, Problem, Unavailable

PAGE = 500  # objects; what kubectl asks for at once
JSON = "application/json"
METHODS = {"get": "GET", "list": "GET", "patch": "PATCH", "create": "POST"}


class _Paged(Protocol):
    @property
    def metadata(self) -> ListMetadata: ...


Page = TypeVar("Page", bound=_Paged)


class KubernetesClient:
    """Safe to use from several threads.

    Args:
        kubeconfig: None for the pod's own service account, or outside of a pod for the user's default kubeconfig.
        context: of the kubeconfig; None for its current one.
        timeout_s: for each request; a list is several requests.

    Raises:
        InvalidDocument: the kubeconfig cannot be used. Whether anybody answers is seen at the first question.
    """

    def __init__(self, *, kubeconfig: Path | None = None, context: str | None = None, timeout_s: float = 10.0) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._api = _connect(kubeconfig, context)

    def close(self) -> None:
        with self._lock:
            self._api.rest_client.close()

    def ask(
        self, kind: type[Decoded], question: Question, query: Mapping[str, str] | None = None, *, accept: str = JSON
    ) -> Decoded:
        """The answer to a get or a list. Raises what `kubernetes_rules.refusal` makes of any status but 200."""
        status, body = self.send(question, query=query, accept=accept)
        if status != 200:
            raise rules.refusal(status, body, question)
        return understood(body, kind, question)

    def pages(
        self,
        kind: type[Page],
        question: Question,
        query: Mapping[str, str],
        *,
        size: int = PAGE,
        accept: str = JSON,
    ) -> Iterator[Page]:
        rest = ""
        while True:
            more = {"continue": rest} if rest else {}
            page = self.ask(kind, question, {**query, "limit": str(size), **more}, accept=accept)
            yield page
            if not page.metadata.continue_:
                return
            if page.metadata.continue_ == rest:
                raise Unavailable(NAME, f"the answer to {question} repeats itself")
            rest = page.metadata.continue_

    def send(
        self,
        question: Question,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        accept: str = JSON,
    ) -> tuple[int, bytes]:
        """Status and body. Raises Unavailable when there is none: then nobody knows what the server did."""
        method = METHODS[question.verb]
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else JSON
        api = self._api
        status, answer = self._send_with(api, question, query or {}, body, headers)
        if status == 401:  # nothing was done; the credentials may have been renewed in their file meanwhile
            status, answer = self._send_with(self._reconnected(api), question, query or {}, body, headers)
        return status, answer

    def patch_unless_changed(
        self, question: Question, seen: Metadata, change: Mapping[str, object], notes: Mapping[str, str | None]
    ) -> bool:
        """Change an object, in healer's name; False if it is no longer as it was seen.

        Args:
            change: what is merged into it beside its metadata.
            notes: its annotations; None takes one away.
        """
        metadata = {"resourceVersion": seen.resource_version, "annotations": dict(notes)}
        body = {"metadata": metadata, **change}
        status, answer = self.send(question, query={"fieldManager": rules.FIELD_MANAGER}, body=body)
        if status == 409:
            return False
        if not 200 <= status <= 299:
            raise rules.refusal(status, answer, question)
        return True

    def _send_with(
        self,
        api: ApiClient,
        question: Question,
        query: Mapping[str, str],
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        try:
            request = api.param_serialize(
                METHODS[question.verb],
                question.path,
                query_params=list(query.items()),
                header_params=dict(headers),
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
