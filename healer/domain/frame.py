"""Frame: every signal of the fleet at one instant, with the window of history behind it, as arrays.

Row i is the same GPU in every array of one frame. Unknown is NaN: absent, stale, frozen, or a vendor's "no value".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component, ComponentKind
from healer.domain.signal import Signal
from healer.domain.topology import Place

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Presences = NDArray[np.int8]  # of Presence


class Presence(IntEnum):
    """How a GPU stands in the newest reading. Everything but CURRENT is unknown to a detector, for unlike reasons."""

    CURRENT = 0
    MISSING = 1  # its exporter answers and shows others, but not this one: the GPU is the suspect
    UNREACHABLE = 2  # its exporter does not answer: the telemetry is the suspect
    ABSENT = 3  # nothing is shown by its exporter, and nothing is said about it: taken out, or discovery is at fault
    STALE = 4  # its samples are older than permitted: whoever collects them has stopped
    FROZEN = 5  # its exporter repeats old values under fresh times


@dataclass(frozen=True, slots=True, eq=False)
class GpuAxis:
    """Who the rows are.

    Attributes:
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
            peers=_numbered(models),
            exporters=_numbered(named),
            devices=_numbered([component.device for component in components]),
        )

    def __len__(self) -> int:
        return len(self.components)


@dataclass(frozen=True, slots=True, eq=False)
class RackAxis:
    """Racks with their measured power and their budget.

    Attributes:
        power_w: (n_ticks, n_racks) watts as measured at the rack, oldest first, NaN where unknown.
        budget_w: (n_racks,) watts, NaN where no budget is configured.
    """

    components: tuple[Component, ...]
    rows: Mapping[str, int]
    power_w: Floats
    budget_w: Floats

    def __len__(self) -> int:
        return len(self.components)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """All that is known at `at`. The arrays are read-only.

    Attributes:
        at: when the frame was taken, aware UTC.
        times: (n_ticks,) seconds relative to `at`, oldest first, the last is 0.
        values: signal -> (n_ticks, n_gpus) float64, oldest first. A signal that no exporter offers has no entry.
        age_s: (n_gpus,) seconds since the newest sample of the GPU, since its newest change if it is frozen, NaN where
            never seen.
        presence: (n_gpus,) int8 of Presence.
        offered: signal -> (n_gpus,) whether the GPU's exporter ever gave it a value.
        places: by node, the rack, feed, NVLink domain and switch that it belongs to.
        warnings: what the sources said beside the data; a warned answer may be partial.
        scores: model -> (n_gpus,) float64.
    """

    at: datetime
    gpus: GpuAxis
    racks: RackAxis
    times: Floats
    values: Mapping[Signal, Floats]
    age_s: Floats
    presence: Presences
    offered: Mapping[Signal, Bools] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scores: Mapping[str, Floats] = field(default_factory=dict)

    def latest(self, signal: Signal) -> Floats:
        """(n_gpus,) the newest values; all NaN if no exporter offers the signal."""
        history = self.values.get(signal)
        return np.full(len(self.gpus), np.nan) if history is None else history[-1]

    def window(self, signal: Signal, span: timedelta) -> Floats:
        """(n_ticks_in_span, n_gpus) the values of the last `span`, oldest first."""
        history = self.values.get(signal)
        if history is None:
            return np.full((1, len(self.gpus)), np.nan)
        return history[self._first_tick(span) :]

    def rack_window(self, span: timedelta) -> Floats:
        """(n_ticks_in_span, n_racks) measured rack power in watts, oldest first."""
        return self.racks.power_w[self._first_tick(span) :]

    def row_of(self, component: Component) -> int | None:
        """The row of the component on the axis of its kind; None when the frame does not have it."""
        match component.kind:
            case ComponentKind.GPU:
                return self.gpus.rows.get(component.key)
            case ComponentKind.RACK:
                return self.racks.rows.get(component.key)
            case _:
                return None

    def age_of(self, component: Component) -> float:
        """Seconds since the newest sample of the component, or of any GPU that is part of it; NaN if there is none."""
        if component.kind is ComponentKind.RACK:
            row = self.row_of(component)
            return float("nan") if row is None or np.isnan(self.racks.power_w[-1, row]) else 0.0
        ages = self.age_s[self._parts_of(component)]
        return float(np.nanmin(ages, initial=np.inf)) if not np.isnan(ages).all() else float("nan")

    def _parts_of(self, component: Component) -> list[int]:
        """The GPUs that are the component, or part of it."""
        gpus = self.gpus.components
        match component.kind:
            case ComponentKind.GPU:
                row = self.row_of(component)
                return [] if row is None else [row]
            case ComponentKind.NODE:
                return [row for row, gpu in enumerate(gpus) if gpu.node == component.node]
            case ComponentKind.JOB:
                return [row for row, gpu in enumerate(gpus) if gpu.job == component.job]
            case _:
                return []

    def _first_tick(self, span: timedelta) -> int:
        return int(np.searchsorted(self.times, -span.total_seconds()))


def _numbered(names: Sequence[str]) -> Ints:
    """A number for each name, the same for equal ones."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
