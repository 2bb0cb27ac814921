"""Reading: what one look at the telemetry brought, before it is known which GPU each series belongs to.

Columnar by metric, because a hundred thousand GPUs are three million series; and a series is a number into a list of
label sets that grows and never changes, so that whoever resolves labels does so once for each set and not once for each
sample.
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
        series: (n_series,) int64, which of the reading's label sets each series has.
        values: (n_series,) float64 as exported: the vendor's unit, sentinels included.
        times: (n_series,) float64 unix seconds of each sample; NaN where the source does not say.
    """

    metric: str
    series: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Attributes:
    label_sets: without `__name__`. The same object from one reading to the next as long as its entries stay where
        they are; it may grow at its end.
    silent: targets that did not answer, by their `instance`: their components are unknown, not gone.
    warnings: a source's own words about partial or doubtful answers.
    """

    at: datetime
    columns: tuple[Column, ...]
    label_sets: Sequence[Labels]
    silent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    down: tuple[Labels, ...] = ()

    @property
    def samples(self) -> int:
        return sum(len(column.values) for column in self.columns)

    def labels(self, column: Column) -> list[Labels]:
        """The labels of each series of the column."""
        return [self.label_sets[number] for number in column.series.tolist()]
