"""The query API of Prometheus and its kin: series as they arrive, and every way of failing as one of two errors.

`Rejected` when the query or the credentials are wrong, `Unavailable` for everything that may pass. An answer is only
believed when it is whole: status, shape and every number. Only a well-formed empty answer means "none".

The connection is prometheus-api-client's, so whatever that can authenticate against works here. Its decoding is not
used: it drops the warnings of a partial answer and fails with a KeyError on an error that arrives with status 200.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util import Retry

from healer.adapters.http.bounded import Arriving, Bounds, redacted, streamed
from healer.adapters.prometheus.answer import (
    Envelope,
    NotAnAnswer,
    OtherKind,
    Said,
    Sample,
    Series,
    SeriesReader,
    Taker,
    decoded,
)
from healer.errors import Rejected, Unavailable

_LIMIT_BYTES = 512 << 20
_NAMES_LIMIT_BYTES = 16 << 20
_REFUSAL_BYTES = 1 << 20
_REASON_LENGTH = 300
# 422 is for a query that cannot be carried out, for its own fault or for that of a store which is down.
_TRANSIENT = frozenset({408, 422, 425, 429})

_Row = TypeVar("_Row", Sample, Series)


class PrometheusApi:
    """One server, one set of credentials.

    Attributes:
        query: parameters of every request; a server ignores those that it does not know.
    """

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
        """The names of all metrics, and what the server remarks."""
        subject = "the names of the metrics"
        with self._asked("/api/v1/label/__name__/values", parameters, subject=subject) as chunks:
            envelope = decoded(_first(chunks, _NAMES_LIMIT_BYTES), Envelope)
            self._check(envelope, subject=subject)
            return frozenset(decoded(envelope.data, list[str])), envelope.remarks()

    def query(self, query: str, parameters: Mapping[str, str], taker: Taker[Sample]) -> tuple[str, ...]:
        """Evaluate at one instant. Returns what the server remarks; raises Rejected if it is no query for series."""
        return self._series(Sample, "/api/v1/query", {"query": query, **parameters}, taker)

    def query_range(self, query: str, parameters: Mapping[str, str], taker: Taker[Series]) -> tuple[str, ...]:
        """Evaluate at every step; else as `query`."""
        # VictoriaMetrics moves the steps to where its cache wants them, unless told not to use it.
        return self._series(Series, "/api/v1/query_range", {"query": query, "nocache": "1", **parameters}, taker)

    def _series(self, row: type[_Row], path: str, parameters: Mapping[str, str], taker: Taker[_Row]) -> tuple[str, ...]:
        subject = f"the query {parameters['query']!r}"
        reader = SeriesReader(row, taker)
        with self._asked(path, parameters, subject=subject) as chunks:
            for chunk in chunks:
                reader.feed(chunk)
            said = reader.finish()
        self._check(said, subject=subject)
        return said.remarks()

    @contextmanager
    def _asked(self, path: str, parameters: Mapping[str, str], *, subject: str) -> Iterator[Iterator[bytes]]:
        """The body of an answer with status 200, as it arrives. Turns NotAnAnswer into what it means."""
        connection = self._connection
        request = requests.Request(
            "GET",
            f"{self._url}{path}",
            headers=connection.headers,
            params={**self._query, **parameters},
            auth=connection.auth,
        )
        session: requests.Session = connection._session  # noqa: SLF001 - its only door; the client decodes what it returns
        try:
            with streamed(session, request, self._bounds, component=self.component) as answer:
                if answer.status != requests.codes.ok:
                    raise self._refusal(answer, subject=subject)
                yield answer.chunks
        except OtherKind as error:
            if error.kind in {"scalar", "string"}:
                raise Rejected(self.component, f"{subject} gives {error}, not series; correct it") from None
            raise self._nonsense(subject, f"{error} instead of series") from None
        except NotAnAnswer as error:
            raise self._nonsense(subject, str(error)) from error

    def _refusal(self, answer: Arriving, *, subject: str) -> Rejected | Unavailable:
        """What an answer other than 200 means."""
        if answer.status in {401, 403}:
            text = f"refused the credentials ({answer.status}); check telemetry.prometheus.headers and tenant"
            return Rejected(self.component, text)
        if answer.status == requests.codes.not_found:
            return Rejected(self.component, "has no query API at this address (404); check the path of the URL")
        try:
            reason = decoded(_first(answer.chunks, _REFUSAL_BYTES), Envelope).error[:_REASON_LENGTH]
        except NotAnAnswer:
            reason = ""
        said = f"{answer.status}: {reason}" if reason else f"{answer.status}"
        if 400 <= answer.status < 500 and answer.status not in _TRANSIENT:
            return Rejected(self.component, f"refused {subject} ({said}); correct it")
        return Unavailable(self.component, f"could not answer {subject} ({said}); check its load and its log")

    def _check(self, said: Said, *, subject: str) -> None:
        """Raises what an error that came with status 200 means."""
        if said.status == "success":
            return
        if said.error_type == "bad_data":
            raise Rejected(self.component, f"refused {subject} ({said.error[:_REASON_LENGTH]}); correct it")
        reason = said.error[:_REASON_LENGTH] or f"status {said.status[:_REASON_LENGTH]!r}"
        raise Unavailable(self.component, f"could not answer {subject} ({reason}); check its load and its log")

    def _nonsense(self, subject: str, what: str) -> Unavailable:
        text = f"answered {subject} with {what}; check that the URL is Prometheus itself, not a proxy's page"
        return Unavailable(self.component, text)


def _first(chunks: Iterator[bytes], limit_bytes: int) -> bytes:
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > limit_bytes:
            break
    return body
