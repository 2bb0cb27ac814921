"""The history of some metrics as it is stored, for training: in slices, by the cheapest way that the server offers.

Prometheus and Mimir offer remote read, VictoriaMetrics its export, and what offers neither (Thanos) is queried. The
samples are the same whatever the way, but for what the server itself did to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from healer.adapters.http.stream import StreamingServer
from healer.adapters.prometheus.raw_samples import Export, RawQuery
from healer.adapters.prometheus.remote_read import RemoteRead
from healer.domain.reading import Labels
from healer.errors import Rejected
from healer.telemetry.history import Progress, Stretch

_log = structlog.get_logger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Way(Protocol):
    """How stored samples are asked for."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str:
        """Why this server does not offer it, "" if it does. Raises Unavailable or Rejected where neither is known."""
        ...

    def stretches(self, metric: str, labels: Labels, start_ms: int, end_ms: int) -> Iterator[Stretch]:
        """All samples of the metric's series that have these labels, with `start_ms` <= time < `end_ms`."""
        ...


class PrometheusHistory:
    """Attributes:
    timeout_s: how long the server may be silent, or bring nearly nothing, while it is waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tenant: str | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._server = StreamingServer(
            url, headers=headers or {}, tenant=tenant, query=query or {}, timeout_s=timeout_s
        )
        self._way: Way | None = None

    def close(self) -> None:
        self._server.close()

    def fetch(
        self,
        metrics: Sequence[str],
        start: datetime,
        end: datetime,
        *,
        labels: Mapping[str, str] | None = None,
        slice_length: timedelta = timedelta(days=1),
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Stretch]:
        """Every sample with `start` <= time < `end`, each exactly once: slice after slice, in each all the metrics.

        Slices end at multiples of their length since 1970, because Prometheus' blocks end there, too. A slice of a
        metric with many series comes as several stretches, of other series or of shorter spans; one without a sample
        does not come at all. The server waits between two stretches: it, or a proxy, may lose patience after minutes.

        Args:
            labels: what the series have to have, exactly.
            slice_length: the longest span of a stretch. Shorter ones cost more, because labels come with each.
            progress: called after each metric of each slice.

        Raises Unavailable, also in the middle (what has come by then is whole, stretch by stretch), and Rejected.
        """
        first_ms, last_ms = _milliseconds(start), _milliseconds(end)
        step_ms = slice_length // _MILLISECOND
        if last_ms < first_ms or step_ms <= 0:
            raise ValueError(f"cannot fetch from {start} to {end} in slices of {slice_length}")
        way = self._chosen()
        asked = len(metrics) * (last_ms - first_ms)
        brought = samples = 0
        for from_ms, until_ms in _slices(first_ms, last_ms, step_ms):
            for metric in metrics:
                for stretch in way.stretches(metric, labels or {}, from_ms, until_ms):
                    samples += len(stretch.values)
                    yield stretch
                brought += until_ms - from_ms
                if progress is not None:
                    progress(Progress(brought / asked, samples))

    def _chosen(self) -> Way:
        """The first way that the server offers, asked once."""
        if self._way is None:
            refused: list[str] = []
            ways: tuple[Way, ...] = (RemoteRead(self._server), Export(self._server), RawQuery(self._server))
            for way in ways:
                reason = way.missing()
                if not reason:
                    self._way = way
                    break
                refused.append(f"{way.name} {reason}")
            else:
                text = f"offers no way to its history ({'; '.join(refused)}); check the path of the URL"
                raise Rejected(self._server.component, text)
            _log.info("history", server=self._server.component, way=self._way.name, not_offered=refused)
        return self._way


def _slices(first_ms: int, last_ms: int, step_ms: int) -> Iterator[tuple[int, int]]:
    while first_ms < last_ms:
        until_ms = min((first_ms // step_ms + 1) * step_ms, last_ms)
        yield first_ms, until_ms
        first_ms = until_ms


def _milliseconds(at: datetime) -> int:
    """The first whole one that is not before `at`."""
    return -((_EPOCH - at) // _MILLISECOND)
