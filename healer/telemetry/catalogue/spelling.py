"""Spelling: what one exported metric name means, and how its numbers become ours.

Everything is decided by the name of the metric, for that is what a query, a scrape and a push all have: the unit, what
the vendor writes when it has no value, and how several rows of one GPU make one number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np
from numpy.typing import NDArray

from healer.domain.reading import Labels
from healer.domain.signal import Signal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Vendor(StrEnum):
    NVIDIA = "NVIDIA"
    AMD = "AMD"


class Combine(Enum):
    """How rows of one GPU that differ in `Spelling.part` make one number; of those that do not the newest counts."""

    NEWEST = "newest"  # a GPU has no parts here
    SUM = "sum"
    MAX = "highest"
    MIN = "lowest"


class Listing(Enum):
    """Whether the name stands in the counters file that is shipped for the exporter."""

    NONE = "no"
    ALWAYS = "yes"
    RECENT = (
        "recent"  # in its last part: exporters that are still in use do not know the name, and do not start with it
    )


@dataclass(frozen=True, slots=True)
class Field:
    """How an exported field says that it has no value: with an ordinary number that is too large to be one.

    DCGM's int64 blanks start at 0x7ffffffffffffff0, its int32 ones at 0x7ffffff0, its fp64 ones at 2^47. AMD's are all
    bits set, in the width that the sensor has: 0xffff, 0xffffffff, 2^64-1.

    Attributes:
        sure_below: every number from 0 to here is a value.
        known_below: no number from here on is a value, whatever its sign.
        blanks: (first, end) of the numbers between the two that are none.
    """

    sure_below: float
    known_below: float
    blanks: tuple[tuple[float, float], ...] = ()

    @property
    def sure_bits(self) -> int:
        return int(struct.unpack("<Q", struct.pack("<d", self.sure_below))[0])


_UINT16_BLANK = float(0xFFFF)
_INT32_BLANKS = (float(0x7FFFFFF0), float(0x80000000))
_UINT32_BLANK = (float(0xFFFFFFFF), float(0x100000000))
_INT64_BLANK = 9.2e18  # a little lower than 0x7ffffffffffffff0: exporters print it rounded
_FP64_BLANK = float(1 << 47)

READING = Field(_UINT16_BLANK, _UINT16_BLANK)  # what sensors measure, ratios and states: never as much as 65,535
COUNT = Field(_INT32_BLANKS[0], _INT64_BLANK, (_INT32_BLANKS, _UINT32_BLANK))
LARGE = Field(
    _INT64_BLANK, _INT64_BLANK
)  # bytes, hertz, nanoseconds, millijoules: pass every smaller blank in normal life
SECONDS = Field(_FP64_BLANK, _FP64_BLANK)
# DCGM 4.6 gives the name of a ratio to a field in percent, DCGM 4.7 to a ratio: what is above 1 is percent.
RATIO_OR_PERCENT = Field(float(np.nextafter(1, 2)), _UINT16_BLANK)


@dataclass(frozen=True, slots=True)
class Spelling:
    """One exported metric name; `value * scale + offset` is in the signal's unit.

    Attributes:
        part: the label that tells parts of one GPU apart: its links, the XIDs it had.
        only: a label and the values that it must have for the row to be this signal.
        zero_is_blank: the exporter writes 0 where the sensor cannot be read (AMD guests and partitions other than 0).
    """

    metric: str
    signal: Signal
    vendor: Vendor
    field: Field = READING
    scale: float = 1.0
    offset: float = 0.0
    combine: Combine = Combine.NEWEST
    part: str = ""
    only: tuple[str, frozenset[str]] | None = None
    zero_is_blank: bool = False
    listing: Listing = Listing.NONE


def label_of(labels: Labels, name: str) -> str | None:
    """The exporter's own label before the scraper's of the same name; None if it is not there, or empty."""
    return labels.get(f"exported_{name}") or labels.get(name) or None


def convert(spelling: Spelling, exported: Floats) -> Floats:
    """Exported values (n,) in the signal's unit, as a new array; a vendor's "no value" becomes NaN."""
    converted = exported * spelling.scale if _all_sure(spelling, exported) else _known(spelling, exported)
    if spelling.offset:
        converted += spelling.offset
    return converted


def _all_sure(spelling: Spelling, exported: Floats) -> bool:
    """Whether every number is a value beyond doubt, told by one look at each.

    Read as a whole number, the bits of a double that is not negative keep its order; those of negative numbers,
    infinities and NaN are above them all.
    """
    bits = exported.view(np.uint64)
    if len(bits) and int(bits.max()) >= spelling.field.sure_bits:
        return False
    return not (spelling.zero_is_blank and len(bits) and int(bits.min()) == 0)


def _known(spelling: Spelling, exported: Floats) -> Floats:
    field = spelling.field
    unknown = ~(np.abs(exported) < field.known_below)
    for first, end in field.blanks:
        unknown |= (exported >= first) & (exported < end)
    if spelling.zero_is_blank:
        unknown |= exported == 0
    values = np.where(unknown, np.nan, exported)
    if field is RATIO_OR_PERCENT:
        return np.where(values > 1, values * 0.01, values)
    values *= spelling.scale
    return values


_FOLDS = {Combine.SUM: np.add, Combine.MAX: np.maximum, Combine.MIN: np.minimum}


def combined(combine: Combine, rows: Ints, parts: Ints, *, times: Floats, values: Floats, n: int) -> Floats:
    """(n,) one number for each row, the sum, the highest or the lowest of its parts; NaN for a row without any.

    A part that is told several times (by an HA pair, by a pod that has just gone) counts once, with its newest value.

    Args:
        rows, parts: (n_series,) numbers of the GPU and of the part. A part has the same number in every row.
        times: (n_series,) unix seconds, NaN where the source does not say.
        values: (n_series,) in the signal's unit; NaN does not count.
    """
    known = ~np.isnan(values)
    rows, parts, times, values = rows[known], parts[known], times[known], values[known]
    order = np.lexsort((np.nan_to_num(times, nan=-np.inf), parts, rows))
    rows, parts, values = rows[order], parts[order], values[order]
    newest = np.ones(len(rows), dtype=np.bool_)
    newest[:-1] = (rows[1:] != rows[:-1]) | (parts[1:] != parts[:-1])
    rows, values = rows[newest], values[newest]
    together = np.full(n, np.nan)
    if len(rows):
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        together[rows[first]] = _FOLDS[combine].reduceat(values, first)
    return together
