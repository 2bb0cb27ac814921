"""The query API of Prometheus and its kin: typed answers, and every way of failing as one of two errors.

`Rejected` when the query or the credentials are wrong, `Unavailable` for everything that may pass. An answer is only
believed when it is whole: status, shape and every number. Only a well-formed empty answer means "none".

The connection is prometheus-api-client's, so whatever that can authenticate against works here. Its decoding is not
used: it drops the warnings of a partial answer and fails with a KeyError on an error that arrives with status 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import requests
from numpy.typing import NDArray
from prometheus_api_client import PrometheusConnect
from urllib3.util import Retry

from healer.adapters.bounded_http import Answer, Bounds, exchange, redacted
from healer.domain.reading import Labels
from healer.errors import Rejected, Unavailable

_LIMIT_BYTES = 512 << 20
_TRANSIENT = frozenset({408, 425, 429})
_MOST_WARNINGS = 10

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One query's answer.

    Attributes:
        labels: by series, without `__name__`.
        lengths: (n_series,) how many of the samples belong to each series, in order.
        stamps_s: (n_samples,) the times of the evaluation, unix seconds; never the times of the samples.
        values: (n_samples,) float64.
    """

    labels: Sequence[Labels]
    lengths: NDArray[np.int64]
    stamps_s: NDArray[np.float64]
    values: NDArray[np.float64]
    warnings: tuple[str, ...]


class _Envelope(msgspec.Struct, rename="camel"):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"")
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []
    is_partial: bool = False


class _Result(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class PrometheusApi:
    """One server, one set of credentials."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str], tenant: str | None, query: Mapping[str, str], timeout_s: float
    ) -> None:
        # Compression costs the server a quarter more and saves little on a LAN; the configured headers may ask for it.
        sent = {"Accept-Encoding": "identity", **headers}
        if tenant is not None:
            sent["X-Scope-OrgID"] = tenant
        self.component = f"prometheus {redacted(url)}"
        self._url = url.rstrip("/")
        # No retries below us: the next turn of the loop is the retry, and three silent ones would outlast it.
        self._connection: Any = PrometheusConnect(
            url=self._url, headers=sent, retry=Retry(total=0, read=False), timeout=timeout_s
        )
        self._query = {"timeout": f"{timeout_s:g}s", **query}
        self._bounds = Bounds(timeout_s, _LIMIT_BYTES)

    def close(self) -> None:
        self._connection.close()

    def metric_names(self, parameters: Mapping[str, str]) -> tuple[frozenset[str], tuple[str, ...]]:
        """The names of all metrics, and the answer's warnings."""
        envelope = self._get("/api/v1/label/__name__/values", parameters, subject="the names of the metrics")
        names = self._decoded(envelope.data, list[str], subject="the names of the metrics")
        return frozenset(names), _warnings(envelope)

    def query(self, query: str, parameters: Mapping[str, str]) -> Page:
        """Evaluate at one instant. Raises Rejected if the query is not one for series."""
        subject = f"the query {query!r}"
        envelope = self._get("/api/v1/query", {"query": query, **parameters}, subject=subject)
        samples = self._decoded(self._series_of(envelope, "vector", subject=subject), list[_Sample], subject=subject)
        labels = [_without_name(sample.metric) for sample in samples]
        return self._page(labels, [[sample.value] for sample in samples], envelope, subject=subject)

    def query_range(self, query: str, parameters: Mapping[str, str]) -> Page:
        """Evaluate at every step. Raises Rejected if the query is not one for series."""
        subject = f"the query {query!r}"
        # VictoriaMetrics moves the steps to where its cache wants them, unless told not to use it.
        asked = {"query": query, "nocache": "1", **parameters}
        envelope = self._get("/api/v1/query_range", asked, subject=subject)
        series = self._decoded(self._series_of(envelope, "matrix", subject=subject), list[_Series], subject=subject)
        labels = [_without_name(one.metric) for one in series]
        return self._page(labels, [one.values for one in series], envelope, subject=subject)

    def _get(self, path: str, parameters: Mapping[str, str], *, subject: str) -> _Envelope:
        connection = self._connection
        request = requests.Request(
            "GET",
            f"{self._url}{path}",
            headers=connection.headers,
            params={**self._query, **parameters},
            auth=connection.auth,
        )
        session: requests.Session = connection._session  # noqa: SLF001 - its only door; the client decodes what it returns
        answer = exchange(session, request, self._bounds, component=self.component)
        if answer.status != requests.codes.ok:
            raise self._refusal(answer, subject=subject)
        envelope = self._decoded(answer.body, _Envelope, subject=subject)
        if envelope.status != "success":
            raise self._error(envelope, subject=subject)
        return envelope

    def _refusal(self, answer: Answer, *, subject: str) -> Rejected | Unavailable:
        """What an answer other than 200 means."""
        if answer.status in {401, 403}:
            text = f"refused the credentials ({answer.status}); check telemetry.prometheus.headers and tenant"
            return Rejected(self.component, text)
        if answer.status == requests.codes.not_found:
            return Rejected(self.component, "has no query API at this address (404); check the path of the URL")
        try:
            reason = msgspec.json.decode(answer.body, type=_Envelope).error[:300]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            reason = ""
        said = f"{answer.status}: {reason}" if reason else f"{answer.status}"
        if 400 <= answer.status < 500 and answer.status not in _TRANSIENT:
            return Rejected(self.component, f"refused {subject} ({said}); correct it")
        return Unavailable(self.component, f"could not answer {subject} ({said}); check its load and its log")

    def _error(self, envelope: _Envelope, *, subject: str) -> Rejected | Unavailable:
        """What an error that came with status 200 means."""
        if envelope.error_type == "bad_data":
            return Rejected(self.component, f"refused {subject} ({envelope.error[:300]}); correct it")
        said = envelope.error[:300] or f"status {envelope.status!r}"
        return Unavailable(self.component, f"could not answer {subject} ({said}); check its load and its log")

    def _series_of(self, envelope: _Envelope, kind: str, *, subject: str) -> msgspec.Raw:
        result = self._decoded(envelope.data, _Result, subject=subject)
        if result.result_type in {"scalar", "string"}:
            raise Rejected(self.component, f"{subject} gives a {result.result_type}, not series; correct it")
        if result.result_type != kind:
            raise self._nonsense(subject, f"a {result.result_type[:40]} instead of a {kind}")
        return result.result

    def _page(
        self, labels: list[dict[str, str]], samples: list[list[tuple[float, str]]], envelope: _Envelope, *, subject: str
    ) -> Page:
        try:
            values = np.array([float(text) for one in samples for _, text in one])
        except ValueError:
            raise self._nonsense(subject, "a value that is not a number") from None
        return Page(
            labels=labels,
            lengths=np.array([len(one) for one in samples], dtype=np.int64),
            stamps_s=np.array([stamp for one in samples for stamp, _ in one], dtype=np.float64),
            values=values,
            warnings=_warnings(envelope),
        )

    def _decoded(self, body: bytes | msgspec.Raw, wanted: type[_T], *, subject: str) -> _T:
        try:
            return msgspec.json.decode(body, type=wanted)
        except msgspec.ValidationError as error:
            raise self._nonsense(subject, f"JSON of another shape: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            looks = "a web page" if bytes(body).lstrip().startswith(b"<") else "no whole JSON"
            raise self._nonsense(subject, looks) from error

    def _nonsense(self, subject: str, what: str) -> Unavailable:
        text = f"answered {subject} with {what}; check that the URL is Prometheus itself, not a proxy's page"
        return Unavailable(self.component, text)


def _without_name(labels: dict[str, str]) -> dict[str, str]:
    labels.pop("__name__", None)
    return labels


def _warnings(envelope: _Envelope) -> tuple[str, ...]:
    partial = ("prometheus: the answer is partial",) if envelope.is_partial else ()
    said = envelope.warnings[:_MOST_WARNINGS]
    return partial + tuple(f"prometheus: {text[:300]}" for text in said)
