"""Reading: what one look at the telemetry brought, before it is known which GPU each series belongs to.

Columnar by metric, because a hundred thousand GPUs are three million series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """All series of one exported metric.

    Attributes:
        labels: one mapping per series, without `__name__`.
        values: (n_series,) float64 as exported: the vendor's unit, sentinels included.
        times: (n_series,) float64 unix seconds of each sample; NaN where the source does not say.
    """

    metric: str
    labels: Sequence[Labels]
    values: NDArray[np.float64]
    times: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Attributes:
    silent: targets or sources that did not answer, by name: their components are unknown, not gone.
    warnings: a source's own words about partial or doubtful answers.
    """

    at: datetime
    columns: tuple[Column, ...]
    silent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        return sum(len(column.values) for column in self.columns)
