"""Axes: who the rows of a frame's arrays are. GPUs, and what they are in: nodes, racks, jobs, fabric ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component

Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

NOWHERE_ROW = -1  # in place of a row: it is in none, or nobody knows in which


@dataclass(frozen=True, slots=True, eq=False)
class GpuAxis:
    """Attributes:
    rows: finds a row by `Component.key`.
    targets: by row, the exporter (`instance`) that showed the GPU last; "" where none is named.
    peers: (n_gpus,) numbers that GPUs of one model share.
    exporters: (n_gpus,) numbers that GPUs of one target share.
    devices: (n_gpus,) numbers that the MIG instances of one physical GPU share.
    """

    components: tuple[Component, ...]
    models: tuple[str, ...]
    rows: Mapping[str, int]
    targets: tuple[str, ...]
    peers: Ints
    exporters: Ints
    devices: Ints

    @classmethod
    def of(cls, components: Sequence[Component], models: Sequence[str], targets: Sequence[str] = ()) -> GpuAxis:
        named = tuple(targets) or ("",) * len(components)
        return cls(
            components=tuple(components),
            models=tuple(models),
            rows={component.key: row for row, component in enumerate(components)},
            targets=named,
            peers=numbered(models),
            exporters=numbered(named),
            devices=numbered([component.device for component in components]),
        )

    def __len__(self) -> int:
        return len(self.components)


@dataclass(frozen=True, slots=True, eq=False)
class GroupAxis:
    """What GPUs are in: the nodes, the racks, or the jobs of a frame.

    Attributes:
        of_gpu: (n_gpus,) the row of each GPU's group, NOWHERE_ROW for none.
        sizes: (n_groups,) how many GPUs each has.
    """

    components: tuple[Component, ...]
    rows: Mapping[str, int]
    of_gpu: Ints
    sizes: Ints

    @classmethod
    def of(cls, components: Sequence[Component], of_gpu: Ints) -> GroupAxis:
        return cls(
            components=tuple(components),
            rows={component.key: row for row, component in enumerate(components)},
            of_gpu=of_gpu,
            sizes=np.bincount(of_gpu[of_gpu >= 0], minlength=len(components)),
        )

    def __len__(self) -> int:
        return len(self.components)

    def members(self, row: int) -> Ints:
        """The rows of its GPUs."""
        return np.flatnonzero(self.of_gpu == row)

    def count(self, picked: Bools) -> Ints:
        """(n_groups,) how many of its GPUs are `picked` (n_gpus,)."""
        counts: Ints = np.bincount(self.of_gpu[picked & (self.of_gpu >= 0)], minlength=len(self))
        return counts

    def sums(self, values: Floats) -> Floats:
        """(n_groups,) the sum of `values` (n_gpus,) over its GPUs; the unknown add nothing."""
        known = ~np.isnan(values) & (self.of_gpu >= 0)
        sums: Floats = np.bincount(self.of_gpu[known], weights=values[known], minlength=len(self)).astype(np.float64)
        return sums

    def means(self, values: Floats) -> Floats:
        """(n_groups,) the mean of the known `values` (n_gpus,) of its GPUs; NaN where none is known."""
        counts = self.count(~np.isnan(values))
        means: Floats = np.divide(self.sums(values), counts, out=np.full(len(self), np.nan), where=counts > 0)
        return means

    def spread(self, values: Floats) -> Floats:
        """(n_gpus,) each GPU's own group's value, of `values` (n_groups,); NaN for a GPU in none."""
        known = self.of_gpu >= 0
        return np.where(known, values[np.where(known, self.of_gpu, 0)], np.nan) if len(self) else _unknown(self.of_gpu)

    def medians(self, values: Floats) -> Floats:
        """(n_groups,) the median of the known `values` (n_gpus,) of its GPUs; NaN where none is known."""
        return grouped_medians(self.of_gpu, values, len(self))


def grouped_medians(groups: Ints, values: Floats, n_groups: int) -> Floats:
    """(n_groups,) the median of the known `values` (n,) of each group; NaN where none is known.

    Args:
        groups: (n,) which group each value is in, negative for none.
    """
    known = np.flatnonzero(~np.isnan(values) & (groups >= 0))
    order = known[np.argsort(values[known])]
    order = order[np.argsort(groups[order].astype(np.min_scalar_type(n_groups)), kind="stable")]  # by radix if small
    counts = np.bincount(groups[order], minlength=n_groups)
    first = np.cumsum(counts) - counts
    medians = np.full(n_groups, np.nan)
    there = np.flatnonzero(counts)
    low, high = first[there] + (counts[there] - 1) // 2, first[there] + counts[there] // 2
    medians[there] = 0.5 * (values[order[low]] + values[order[high]])
    return medians


def numbered(names: Sequence[str]) -> Ints:
    """A number for each name, the same for equal ones."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _unknown(like: Ints) -> Floats:
    return np.full(len(like), np.nan)
