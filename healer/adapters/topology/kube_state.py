"""Where the nodes are and which jobs have their GPUs, from what kube-state-metrics shows in Prometheus."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from healer.adapters.prometheus.api import PrometheusApi
from healer.adapters.prometheus.series import SeriesBook
from healer.adapters.prometheus.tables import Instants, ask
from healer.adapters.topology.layers import Kept
from healer.domain.reading import Column, Reading
from healer.domain.topology import Topology
from healer.telemetry.places.kube import NodeLabels
from healer.telemetry.places.kube_state import METRICS, topology_of


class KubeStateTopology:
    """Implements `healer.ports.TopologySource`.

    Args:
        every: what was read counts for this long.
    """

    def __init__(
        self, api: PrometheusApi, labels: NodeLabels | None = None, *, every: timedelta = timedelta(minutes=1)
    ) -> None:
        self._api = api
        self._labels = labels or NodeLabels()
        self._kept = Kept(every)

    def close(self) -> None:
        self._api.close()

    def topology(self, at: datetime) -> Topology:
        """Raises Unavailable or Rejected, also when a metric is missing without which jobs would be missed."""
        return self._kept.get(at, lambda: self._read(at))

    def _read(self, at: datetime) -> Topology:
        book, now = SeriesBook(None, ()), Instants(round(at.timestamp() * 1000), 1, 1)
        tables = [ask(self._api, book, metric, now) for metric in METRICS]
        columns = tuple(
            Column(table.query, table.shape.series, table.values[:, 0], np.full(len(table.values), np.nan))
            for table in tables
            if len(table.values)
        )
        return topology_of(Reading(at, columns, book.label_sets), self._labels)
