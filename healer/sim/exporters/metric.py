"""Metric: one exported name, and which quantity of the simulated fleet it shows, how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from healer.domain.axes import Floats


class MetricKind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Metric:
    """Attributes:
    row: the quantity; empty for a `constant`.
    labels: that its series have beside those of what they are about.
    """

    name: str
    kind: MetricKind
    meaning: str
    row: str
    scale: float = 1.0
    decimals: int = 0
    constant: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()


class Formats:
    """How the metrics of one page turn quantities into numbers as they are exported.

    Attributes:
        metrics: in the order of the rows.
    """

    def __init__(self, metrics: Sequence[Metric], rows: Sequence[str]) -> None:
        place = {name: number for number, name in enumerate(rows)}
        self.metrics = tuple(metrics)
        self._rows = np.array([place.get(metric.row, 0) for metric in metrics], dtype=np.int64)
        self._scale = np.array([[metric.scale if metric.row else 0.0] for metric in metrics])
        self._constant = np.array([[metric.constant] for metric in metrics])
        self._power = np.array([[10.0**metric.decimals] for metric in metrics])

    def values(self, quantities: Floats) -> Floats:
        """(n_metrics, n) of quantities (n_rows, n), rounded as the exporter prints them."""
        raw = quantities[self._rows] * self._scale + self._constant
        values: Floats = np.rint(raw * self._power) / self._power
        return values

    def index_of(self, rows: frozenset[str]) -> list[int]:
        """The metrics that show one of these quantities."""
        return [number for number, metric in enumerate(self.metrics) if metric.row in rows]
