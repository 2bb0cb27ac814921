"""Readings written down by hand: for each metric its series, as labels, value and the sample's unix time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from healer.domain.reading import Column, Labels, Reading
from healer.telemetry.wire.series import LabelSets

Series = tuple[Labels, float, float]


def reading_of(
    at: datetime,
    columns: Mapping[str, Sequence[Series]],
    *,
    label_sets: LabelSets | None = None,
    silent: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Reading:
    """`label_sets`: of the earlier readings, to go on with; else new ones."""
    sets = LabelSets() if label_sets is None else label_sets
    return Reading(
        at,
        tuple(
            Column(
                metric,
                np.array([sets.add(labels) for labels, _, _ in series], dtype=np.int64),
                np.array([value for _, value, _ in series], dtype=np.float64),
                np.array([time for _, _, time in series], dtype=np.float64),
            )
            for metric, series in columns.items()
        ),
        sets,
        silent,
        warnings,
    )
