"""Stretch: what a fetch of stored telemetry brings at a time, raw samples as they were stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from healer.domain.reading import Labels
from healer.telemetry.wire.series import STALE_BITS

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

PLAIN_NAN_BITS = 0x7FF8000000000001  # the NaN that Prometheus stores for an exported NaN; text formats lose the bits


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Every sample of some series of one metric within a span of time.

    A series is in one stretch of its span only. Its samples are in order, no two have the same time. Stale markers are
    left out: they say that a series has ended, and not every server tells of them.

    Attributes:
        start_ms, end_ms: the span, unix ms, its end excluded. What was asked for is the sum of the spans.
        labels: by series, without `__name__`.
        lengths: (n_series,) how many of the samples belong to each series, in order; none is 0.
        stamps_ms: (n_samples,) when each sample was taken, unix ms.
        values: (n_samples,) as stored, bit for bit: the vendor's unit, sentinels and NaN included.
        warnings: the server's own words about a partial or doubtful answer, and what was left out.
    """

    metric: str
    start_ms: int
    end_ms: int
    labels: Sequence[Labels]
    lengths: Ints
    stamps_ms: Ints
    values: Floats
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Attributes:
    share: how much of what was asked for has been brought, 0 to 1.
    samples: how many samples that was.
    """

    share: float
    samples: int


def stretch_of(
    metric: str,
    span_ms: tuple[int, int],
    labels: Sequence[Labels],
    samples: tuple[Ints, Ints, Floats],
    *,
    warnings: tuple[str, ...] = (),
) -> Stretch:
    """Make whole what came in whatever order: cut to the span, in order, each time once, no stale markers.

    Of two samples of one time, the one that came first stays. `samples`: lengths (0 is allowed), times, values.
    """
    start_ms, end_ms = span_ms
    lengths, stamps, values = samples
    wanted = (stamps >= start_ms) & (stamps < end_ms)
    wanted &= values.view(np.int64) != STALE_BITS
    if not wanted.all():
        lengths, stamps, values = _selected(wanted, lengths, stamps, values)
    if len(stamps) and not _rising(lengths, stamps):
        lengths, stamps, values = _ordered(lengths, stamps, values)
    filled = np.flatnonzero(lengths)
    if len(filled) < len(lengths):
        lengths, labels = lengths[filled], [labels[number] for number in filled.tolist()]
    return Stretch(metric, start_ms, end_ms, labels, lengths, stamps, values, warnings)


def _selected(wanted: NDArray[np.bool_], lengths: Ints, stamps: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    before = np.zeros(len(wanted) + 1, dtype=np.int64)
    np.cumsum(wanted, out=before[1:])
    ends = np.cumsum(lengths)
    return before[ends] - before[ends - lengths], stamps[wanted], values[wanted]


def _rising(lengths: Ints, stamps: Ints) -> bool:
    rising = np.ones(len(stamps) + 1, dtype=np.bool_)
    np.greater(stamps[1:], stamps[:-1], out=rising[1:-1])
    rising[np.cumsum(lengths)] = True  # where the next series begins
    return bool(rising.all())


def _ordered(lengths: Ints, stamps: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    series = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((stamps, series))  # stable: the first to come stays first
    stamps, values = stamps[order], values[order]
    new = np.ones(len(stamps), dtype=np.bool_)
    new[1:] = (stamps[1:] != stamps[:-1]) | (series[1:] != series[:-1])
    return _selected(new, lengths, stamps, values)
