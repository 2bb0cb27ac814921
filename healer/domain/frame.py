"""Frame: every signal of the fleet at one instant, with the window of history behind it, as arrays.

Row i is the same GPU in every array of one frame. Unknown is NaN: absent, stale, or a vendor's "no value".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component, ComponentKind
from healer.domain.signal import Signal

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GpuAxis:
    """Who the rows are. `rows` finds a row by `Component.key`."""

    components: tuple[Component, ...]
    models: tuple[str, ...]
    rows: Mapping[str, int]

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
    """All that is known at `at`.

    Attributes:
        at: when the frame was taken, aware UTC.
        times: (n_ticks,) seconds relative to `at`, oldest first, the last is 0.
        values: signal -> (n_ticks, n_gpus) float64, oldest first. A signal that no exporter offers has no entry.
        age_s: (n_gpus,) seconds since the newest sample of the GPU, NaN where never seen.
        warnings: what the sources said beside the data; a warned answer may be partial.
    """

    at: datetime
    gpus: GpuAxis
    racks: RackAxis
    times: Floats
    values: Mapping[Signal, Floats]
    age_s: Floats
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
        window: Floats = history[self.times >= -span.total_seconds()]
        return window

    def rack_window(self, span: timedelta) -> Floats:
        """(n_ticks_in_span, n_racks) measured rack power in watts, oldest first."""
        window: Floats = self.racks.power_w[self.times >= -span.total_seconds()]
        return window

    def row_of(self, component: Component) -> int | None:
        """The row of the component on the axis of its kind; None when the frame does not have it."""
        match component.kind:
            case ComponentKind.GPU:
                return self.gpus.rows.get(component.key)
            case ComponentKind.RACK:
                return self.racks.rows.get(component.key)
            case _:
                return None
