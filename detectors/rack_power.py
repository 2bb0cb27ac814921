"""A rack that draws more than its feed is meant to carry.

Mechanism: synchronous training puts every GPU of a rack at its limit at once; breakers and shelves are sized for less
than the sum of the limits. The rack's own meter decides, never the sum of the GPUs, which leaves out fans, CPUs and
conversion.
Source: rack power as configured under `topology.rack_power`, against `topology.rack_budget_watts`. The
maximum of a short window reacts in seconds where its mean reacts in minutes (a toy rack was 35 s over budget instead
of 502 s).
Cost of a false positive: the jobs of one rack run somewhat slower for a few minutes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import ComponentKind, Evidence, FailureMode, Findings, Frame, Health, findings

MODES = (FailureMode.RACK_POWER_OVER_BUDGET,)
READS = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    window_s: the rack is over its budget as long as its maximum over this window is.
    """

    window_s: float = 60.0


def detect(frame: Frame, settings: Settings) -> Findings:
    racks = frame.racks
    window = frame.rack_window(timedelta(seconds=settings.window_s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rack without any sample has no maximum, which is NaN
        highest = np.nanmax(window, axis=0)
    current = racks.power_w[-1]

    health = np.full(len(racks), Health.HEALTHY, dtype=np.int8)
    health[highest > racks.budget_w] = Health.FAILED
    health[np.isnan(current) | np.isnan(racks.budget_w)] = Health.UNKNOWN

    def describe(row: int) -> tuple[float, str, tuple[Evidence, ...]]:
        over = 100 * (highest[row] / racks.budget_w[row] - 1)
        reason = f"{highest[row]:.0f} W against a budget of {racks.budget_w[row]:.0f} W, {over:.0f} % over"
        return 1.0, reason, (Evidence("rack_power", float(highest[row]), "W", frame.at, "maximum of the window"),)

    return findings(MODES[0], ComponentKind.RACK, health, racks.components, describe)
