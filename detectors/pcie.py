"""PCIe: a link that sends everything twice, or has lost lanes or speed.

Mechanism: a dirty slot, a riser, a retimer: packets arrive damaged and are sent again, or the link trains down to fewer
lanes or an older generation. Data loading and checkpoints get slow, and a gang waits for that GPU.
Sources: DCGM field 202 (replays), 235 to 238 (width and generation, and the highest that slot and GPU allow);
DCGM's own limit is 0.15 (Gen1) to 1.92 (Gen5) replays per lane and minute, from a bit error rate of 1e-12. The
generation falls while a GPU idles and means nothing then. Down-training went unnoticed in NVSentinel 890.
Cost of a false positive: a person reseats a board for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Bools,
    ComponentKind,
    FailureMode,
    Findings,
    Frame,
    Health,
    Said,
    Signal,
    evidence,
    findings,
    lasting,
)

MODES = (FailureMode.PCIE_DEGRADED,)
_RETRIES = (Signal.PCIE_REPLAY, Signal.PCIE_CORRECTABLE)
READS = (
    *_RETRIES,
    Signal.PCIE_WIDTH,
    Signal.PCIE_WIDTH_MAX,
    Signal.PCIE_GENERATION,
    Signal.PCIE_GENERATION_MAX,
    Signal.PCIE_SPEED,
    Signal.PCIE_SPEED_MAX,
    Signal.UTILIZATION,
)
REMEMBERS = _RETRIES


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    window_s: packets sent again are counted over this long.
    least: so many of them within the window, at most of its looks, ...
    ratio: ... are too many if they are so many times what the GPU's own past has.
    """

    window_s: float = 300.0
    least: float = 30.0
    ratio: float = 10.0


_LOOKS = 4
_BUSY = 0.2
_LASTS = 3


def detect(frame: Frame, settings: Settings) -> Findings:
    span = timedelta(seconds=settings.window_s)
    grown = np.maximum.reduce([frame.growth(counter, span) for counter in _RETRIES])
    looks = np.maximum.reduce([frame.signals.growing_ticks(counter, span) for counter in _RETRIES])
    usual = np.maximum.reduce([frame.past.most_grown(counter) for counter in _RETRIES])
    retries = (grown >= settings.least) & (looks >= _LOOKS) & (grown >= settings.ratio * usual)
    narrow, slow = _narrow(frame), _slow(frame)

    known = ~np.isnan(frame.latest(Signal.PCIE_REPLAY)) | ~np.isnan(frame.latest(Signal.PCIE_WIDTH))
    health = np.full(len(frame.gpus), Health.UNKNOWN, dtype=np.int8)
    health[known & ~_narrower_than_peers(frame)] = Health.HEALTHY
    health[retries | narrow | slow] = Health.DEGRADED

    def describe(row: int) -> Said:
        parts = []
        if retries[row]:
            span_min = settings.window_s / 60
            parts.append(
                f"{grown[row]:.0f} packets sent again in {span_min:g} minutes, at most {usual[row]:.0f} before"
            )
        if narrow[row]:
            width, most = frame.latest(Signal.PCIE_WIDTH)[row], frame.latest(Signal.PCIE_WIDTH_MAX)[row]
            parts.append(f"{width:.0f} lanes" + ("" if np.isnan(most) else f" of {most:.0f}"))
        if slow[row]:
            generation, speed = frame.latest(Signal.PCIE_GENERATION)[row], frame.latest(Signal.PCIE_SPEED)[row]
            newest, fastest = frame.latest(Signal.PCIE_GENERATION_MAX)[row], frame.latest(Signal.PCIE_SPEED_MAX)[row]
            below = f"generation {generation:.0f} of {newest:.0f}"
            if not np.isnan(speed):  # AMD's exporter tells no generation
                below = f"{speed / 1e9:g} of {fastest / 1e9:g} GT/s"
            parts.append(f"{below} under load")
        return Said("; ".join(parts), evidence(frame, *READS, row=row))

    return findings(MODES[0], ComponentKind.GPU, health, frame.gpus.components, describe)


def _narrow(frame: Frame) -> Bools:
    """(n_gpus,) whose link has fewer lanes than it could have; where nobody tells that, fewer than it had.

    A link that was seen with all its lanes is believed at once, another one when it is seen twice.
    """
    if Signal.PCIE_WIDTH not in frame.signals:
        return np.zeros(len(frame.gpus), dtype=np.bool_)
    width = frame.window(Signal.PCIE_WIDTH, timedelta(minutes=10))
    most = frame.latest(Signal.PCIE_WIDTH_MAX)
    had = np.nanmax(np.vstack([width, np.zeros(len(most))]), axis=0)
    narrow = (width > 0) & (width < np.where(np.isnan(most), had, most))
    judged: Bools = narrow[-1] & (lasting(narrow, 2) | (width == had).any(axis=0) & (width[-1] < had))
    return judged


def _narrower_than_peers(frame: Frame) -> Bools:
    """(n_gpus,) of which nobody tells how many lanes they could have, while others of their model have more."""
    width, most = frame.latest(Signal.PCIE_WIDTH), frame.latest(Signal.PCIE_WIDTH_MAX)
    widest = np.full(int(frame.gpus.peers.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(widest, frame.gpus.peers, np.nan_to_num(width))
    narrower: Bools = np.isnan(most) & (width < widest[frame.gpus.peers])
    return narrower


def _slow(frame: Frame) -> Bools:
    """(n_gpus,) whose link runs below its best speed while the GPU is busy."""
    span = timedelta(minutes=5)
    busy = lasting(frame.window(Signal.UTILIZATION, span) >= _BUSY, _LASTS)
    slow = np.zeros(len(frame.gpus), dtype=np.bool_)
    for now, best in (
        (Signal.PCIE_GENERATION, Signal.PCIE_GENERATION_MAX),
        (Signal.PCIE_SPEED, Signal.PCIE_SPEED_MAX),
    ):
        below = frame.latest(now) < frame.latest(best)
        if (below & busy).any():
            slow |= lasting(frame.window(now, span) < frame.latest(best), _LASTS)
    return slow & busy
