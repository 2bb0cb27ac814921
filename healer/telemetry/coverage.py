"""Coverage: which signals a detector or a model reads that no exporter ever gave to some GPUs, and what brings them.

Absence is not health: most of what tells a sick GPU is off by default in the vendors' exporters. Whoever runs this
compares with what was said before, so that a gap is said once and its end once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from healer.domain.signal import Signal
from healer.telemetry.catalogue.amd import AMD_PREFIX
from healer.telemetry.catalogue.signals import Vendor, spelled
from healer.telemetry.catalogue.spelling import Listing

Bools = NDArray[np.bool_]

_WHERE = {Vendor.NVIDIA: "the counters file of dcgm-exporter", Vendor.AMD: "the configuration of AMD's exporter"}


@dataclass(frozen=True, slots=True)
class Gap:
    """A reader that does not see a signal.

    Attributes:
        vendor: whose GPUs; None for GPUs that do not show who made them.
        lacking, of: how many of the vendor's GPUs never had a value, and how many there are.
        metrics: every name under which the vendor's exporters could bring the signal; () if none of them can.
    """

    reader: str
    signal: Signal
    vendor: Vendor | None
    lacking: int
    of: int
    metrics: tuple[str, ...]

    @property
    def key(self) -> tuple[str, Signal, Vendor | None]:
        """What makes it the same gap when it grows or shrinks."""
        return self.reader, self.signal, self.vendor


@dataclass(frozen=True, slots=True)
class Change:
    """Gaps that were not there before, and gaps that are no longer there."""

    new: tuple[Gap, ...]
    mended: tuple[Gap, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.mended)


def gaps(
    reads: Mapping[str, Sequence[Signal]], offered: Mapping[Signal, Bools], vendors: Sequence[Vendor | None]
) -> tuple[Gap, ...]:
    """All gaps as things are.

    Args:
        reads: detector or model -> the signals that it reads.
        offered: signal -> (n_gpus,) whether the GPU ever had a value; a signal without an entry was never offered.
        vendors: (n_gpus,) who made each GPU.
    """
    made_by = {vendor: np.array([one is vendor for one in vendors], dtype=np.bool_) for vendor in (*Vendor, None)}
    never = np.zeros(len(vendors), dtype=np.bool_)
    found = []
    for signal in Signal:
        readers = [reader for reader, signals in reads.items() if signal in signals]
        if not readers:
            continue
        lacking = ~offered.get(signal, never)
        for vendor, theirs in made_by.items():
            count = int(np.count_nonzero(lacking & theirs))
            if count:
                metrics = _metrics(signal, vendor)
                of = int(np.count_nonzero(theirs))
                found += [Gap(reader, signal, vendor, count, of, metrics) for reader in readers]
    return tuple(found)


def change(before: Iterable[Gap], after: Iterable[Gap]) -> Change:
    """What is new and what is mended. A gap that has only grown or shrunk is neither."""
    old, now = {gap.key: gap for gap in before}, {gap.key: gap for gap in after}
    return Change(
        new=tuple(gap for key, gap in now.items() if key not in old),
        mended=tuple(gap for key, gap in old.items() if key not in now),
    )


def told(found: Collection[Gap]) -> tuple[str, ...]:
    """One sentence for each signal and vendor, with all its readers and what is to be done."""
    readers: dict[tuple[Signal, Vendor | None], list[Gap]] = {}
    for gap in found:
        readers.setdefault((gap.signal, gap.vendor), []).append(gap)
    return tuple(_sentence(together) for together in readers.values())


def _sentence(together: Sequence[Gap]) -> str:
    gap = together[0]
    made = f"{gap.vendor} " if gap.vendor is not None else ""
    whose = f"{gap.lacking} of {gap.of} {made}GPUs" if gap.lacking < gap.of else f"any of the {gap.of} {made}GPUs"
    said = f"no exporter offers {gap.signal} for {whose}: {', '.join(one.reader for one in together)} cannot see it"
    if gap.vendor is None or not gap.metrics:
        return said + ("; no exporter of theirs can" if gap.vendor is not None else "")
    return f"{said}; add {_advised(gap.signal, gap.vendor)} to {_WHERE[gap.vendor]}"


def _metrics(signal: Signal, vendor: Vendor | None) -> tuple[str, ...]:
    return tuple(spelling.metric for spelling in spelled(signal, vendor))


def _advised(signal: Signal, vendor: Vendor) -> str:
    """What to write there: DCGM's names as they are, AMD's as fields of its configuration."""
    spellings = spelled(signal, vendor)
    if vendor is Vendor.AMD:
        return " or ".join(s.metric.upper() for s in spellings if not s.metric.startswith(AMD_PREFIX))
    return " or ".join(s.metric for s in spellings if s.listing is not Listing.NONE)
