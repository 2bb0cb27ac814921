"""Plots: series as the lines of a small SVG of SPARK_WIDTH by SPARK_HEIGHT, by pure functions."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from healer.domain.finding import Evidence
from healer.domain.frame import Bools, Floats

SPARK_WIDTH, SPARK_HEIGHT = 160.0, 32.0
_MOST_POINTS = 80
_MARGIN = 2.0  # of a trace, so that its highest and lowest points are drawn whole
_GAP = 2.5  # times the usual distance between two points: nothing was known in between


@dataclass(frozen=True, slots=True)
class PowerPlot:
    """Rack power against its budget.

    Attributes:
        lines: one polyline per stretch without a gap.
        budget_y: where the budget lies; None without a budget.
    """

    power_w: float | None
    budget_w: float | None
    lines: tuple[str, ...]
    budget_y: float | None

    @property
    def over(self) -> bool:
        return self.power_w is not None and self.budget_w is not None and self.power_w > self.budget_w

    @property
    def share(self) -> float | None:
        """Of the budget, 0 to 1 and more."""
        return None if self.power_w is None or self.budget_w is None else self.power_w / self.budget_w


@dataclass(frozen=True, slots=True)
class Trace:
    """A series that convinced a detector.

    Attributes:
        lines: one polyline per stretch without a gap.
        start, end: when its first and its last point are from.
    """

    lines: tuple[str, ...]
    start: datetime
    end: datetime
    lowest: float
    highest: float


def power_plot(power_w: Floats, budget_w: float) -> PowerPlot:
    """`power_w`: (n_ticks,) oldest first, NaN where unknown."""
    history = power_w[:: -max(1, -(-len(power_w) // _MOST_POINTS))][::-1]
    top = np.nanmax([*history, budget_w, 1.0]) * 1.03
    bottom = np.nanmin([*history, budget_w, top]) * 0.97  # not zero: a rack's power moves in its upper third
    xs = np.linspace(0.0, SPARK_WIDTH, len(history)) if len(history) > 1 else np.array([SPARK_WIDTH])
    ys = SPARK_HEIGHT * (top - history) / (top - bottom)
    latest, budgeted = float(power_w[-1]), bool(np.isfinite(budget_w))
    return PowerPlot(
        power_w=latest if np.isfinite(latest) else None,
        budget_w=budget_w if budgeted else None,
        lines=_polylines(xs, ys, broken=np.zeros(len(xs) - 1, dtype=np.bool_)),
        budget_y=round(float(SPARK_HEIGHT * (top - budget_w) / (top - bottom)), 1) if budgeted else None,
    )


@functools.lru_cache(maxsize=1024)  # evidence is renewed every few minutes, and readers come every two seconds
def trace(evidence: Evidence) -> Trace | None:
    """None where there is no course of time to see: fewer than two known points."""
    known = [(at, value) for at, value in evidence.points if math.isfinite(value)]
    if len(known) < 2:
        return None
    start, end = known[0][0], known[-1][0]
    times_s = np.array([(at - start).total_seconds() for at, _ in known])
    values = np.array([value for _, value in known])
    lowest, highest = float(values.min()), float(values.max())
    steps_s = np.diff(times_s)
    share = (values - lowest) / (highest - lowest) if highest > lowest else np.full(len(values), 0.5)
    return Trace(
        lines=_polylines(
            SPARK_WIDTH * times_s / max(times_s[-1], 1e-9),
            SPARK_HEIGHT - _MARGIN - share * (SPARK_HEIGHT - 2 * _MARGIN),
            broken=steps_s > _GAP * np.median(steps_s),
        ),
        start=start,
        end=end,
        lowest=lowest,
        highest=highest,
    )


def _polylines(xs: Floats, ys: Floats, *, broken: Bools) -> tuple[str, ...]:
    """One for each stretch without a gap; a point on its own is a line to itself, which is drawn as a dot.

    Args:
        ys: (n_points,), NaN where unknown, which is a gap.
        broken: (n_points - 1,) where there is one between two points.
    """
    known = np.isfinite(ys)
    edges = np.flatnonzero(np.diff(known) | broken) + 1
    stretches = [part.tolist() for part in np.split(np.arange(len(ys)), edges) if known[part[0]]]
    dots = [f"{x:.1f},{y:.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]
    return tuple(" ".join(dots[i] for i in (part if len(part) > 1 else part * 2)) for part in stretches)
