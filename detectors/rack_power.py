"""A rack that draws more than its feeds are meant to carry, or has lost one of them.

Mechanism: synchronous training puts every GPU of a rack at its limit at once; breakers and shelves are sized for less
than the sum of the limits. The rack's own meter decides, never the sum of the GPUs, which leaves out fans, CPUs and
conversion. A rack has two feeds or more; if one is lost the others carry its share, until they do not.
Source: rack power as configured under `topology.rack_power`, by rack or by rack and feed, against
`topology.rack_budget_watts`. The maximum of a short window reacts in seconds where its mean reacts in minutes (a toy
rack was 35 s over budget instead of 502 s). The sum of the GPUs' power is a lower bound of the rack's: a meter that
shows less does not see all of it.
Cost of a false positive: over budget, the jobs of one rack run somewhat slower for a few minutes; a feed lost, a person
who walks to the rack.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from healer.sdk import (
    Bools,
    ComponentKind,
    Evidence,
    FailureMode,
    Findings,
    Floats,
    Frame,
    Health,
    Ints,
    Said,
    Signal,
    findings,
    lasting,
    points,
)

MODES = (FailureMode.RACK_POWER_OVER_BUDGET, FailureMode.RACK_POWER_FEED_LOST)
READS = (Signal.POWER,)


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    window_s: the rack is over its budget as long as its maximum over this window is.
    dead_share: a feed that carries less than this share of the rack, and carried at least four times as much before,
        is lost.
    moved_share: a feed that carries less of its rack than it usually does, by this share of the rack, is failing.
    unseen_share: a meter that shows less than this share of what the rack's GPUs alone draw has lost sight of a feed.
    """

    window_s: float = 60.0
    dead_share: float = 0.05
    moved_share: float = 0.2
    unseen_share: float = 0.85


def detect(frame: Frame, settings: Settings) -> Findings:
    shares = _shares(frame)
    return _over_budget(frame, settings, shares) + _feed_lost(frame, settings, shares)


def _over_budget(frame: Frame, settings: Settings, shares: Floats) -> Findings:
    racks = frame.racks
    window = frame.rack_window(timedelta(seconds=settings.window_s))
    # What is added up from feeds may have been read at different times, while load moved from one to another.
    doubtful = _added_up(frame) & ~_alike(frame, shares)[-len(window) :]
    highest = _highest(np.where(doubtful, np.nan, window))
    highest = np.fmax(highest, _second_highest(racks.power_w[-max(len(window), 2) :]))
    current = racks.power_w[-1]

    health = np.full(len(racks), Health.HEALTHY, dtype=np.int8)
    health[highest > racks.budget_w] = Health.FAILED
    health[np.isnan(current) | np.isnan(racks.budget_w)] = Health.UNKNOWN

    def describe(row: int) -> Said:
        over = 100 * (highest[row] / racks.budget_w[row] - 1)
        reason = f"{highest[row]:.0f} W against a budget of {racks.budget_w[row]:.0f} W, {over:.0f} % over"
        return Said(
            reason,
            (_measured(frame, "rack_power", racks.power_w[:, row], float(highest[row]), "maximum of the window"),),
        )

    return findings(MODES[0], ComponentKind.RACK, health, racks.components, describe)


def _feed_lost(frame: Frame, settings: Settings, shares: Floats) -> Findings:
    racks = frame.racks
    measured = ~np.isnan(racks.power_w[-1])
    blind = _meter_blind(frame, settings)
    dead, doubtful = _dead_feeds(frame, shares, settings)
    weak = _weak_feeds(frame, shares, settings) & ~dead
    of_feed = [racks.rows[f"rack/{feed.rack}"] for feed in racks.feeds]
    failing: dict[int, list[int]] = {}
    for feed in (*np.flatnonzero(dead).tolist(), *np.flatnonzero(weak).tolist()):
        failing.setdefault(of_feed[feed], []).append(feed)

    health = np.full(len(racks), Health.UNKNOWN, dtype=np.int8)
    health[measured] = Health.HEALTHY
    health[[of_feed[feed] for feed in np.flatnonzero(doubtful).tolist()]] = Health.UNKNOWN
    health[blind] = Health.DEGRADED
    health[list(failing)] = Health.DEGRADED
    health[[of_feed[feed] for feed in np.flatnonzero(dead).tolist()]] = Health.FAILED

    def describe(row: int) -> Said:
        parts, told = [], []
        for feed in failing.get(row, ()):
            history, name = racks.feed_w[:, feed], str(racks.feeds[feed].link).rpartition("/")[2]
            if weak[feed]:
                usual = racks.feed_usual[feed]
                parts.append(f"feed {name} carries {shares[-1, feed]:.0%} of the rack, usually {usual:.0%}")
                continue
            now = "is no longer measured" if np.isnan(history[-1]) else f"carries {history[-1]:.0f} W"
            before = f", after {highest:.0f} W" if (highest := float(np.nanmax(np.append(history, 0.0)))) else ""
            parts.append(f"feed {name} {now}{before}")
        told += [
            _measured(frame, f"feed {feed.link}", racks.feed_w[:, number], float(racks.feed_w[-1, number]))
            for number, feed in enumerate(racks.feeds)
            if of_feed[number] == row
        ]
        if blind[row]:
            gpus = _gpu_power(frame)[-1, row]
            parts.append(
                f"the rack's meter shows {racks.power_w[-1, row]:.0f} W while its GPUs alone draw {gpus:.0f} W"
            )
        told.append(_measured(frame, "rack_power", racks.power_w[:, row], float(racks.power_w[-1, row])))
        culprit = racks.feeds[failing[row][0]] if row in failing else None
        return Said("; ".join(parts), tuple(told), culprit=culprit)

    return findings(MODES[1], ComponentKind.RACK, health, racks.components, describe)


_LASTING_TICKS, _WEAK_TICKS = 2, 3
_SAME_SHARE = 0.03


def _shares(frame: Frame) -> Floats:
    """(n_ticks, n_feeds) of what the feeds of its rack carry together; 0 where that is nothing."""
    watts = np.nan_to_num(frame.racks.feed_w)
    together = _of_their_racks(frame, watts)
    return np.divide(watts, together, out=np.zeros_like(watts), where=together > 0)


def _of_their_racks(frame: Frame, of_feeds: Floats) -> Floats:
    """(n_ticks, n_feeds) the sum of `of_feeds` (n_ticks, n_feeds) over all feeds of each one's rack."""
    rows = _racks_of_feeds(frame)
    total = np.zeros((len(frame.racks), len(of_feeds)))
    np.add.at(total, rows, of_feeds.T)
    return total[rows].T


def _racks_of_feeds(frame: Frame) -> Ints:
    """(n_feeds,) the row of the rack of each."""
    return np.array([frame.racks.rows[f"rack/{feed.rack}"] for feed in frame.racks.feeds], dtype=np.int64)


def _weak_feeds(frame: Frame, shares: Floats, settings: Settings) -> Bools:
    """(n_feeds,) which carry less of their rack than they usually do, while all of its feeds are measured."""
    racks, rows = frame.racks, _racks_of_feeds(frame)
    if not racks.feeds:
        return np.zeros(0, dtype=np.bool_)
    blind = rows[np.isnan(racks.feed_w[-_WEAK_TICKS:]).any(axis=0)]
    return lasting(racks.feed_usual - shares >= settings.moved_share, _WEAK_TICKS) & ~np.isin(rows, blind)


def _dead_feeds(frame: Frame, shares: Floats, settings: Settings) -> tuple[Bools, Bools]:
    """(n_feeds,) which are lost, and of which nobody can say it: they carry nothing, or are not measured, while another
    one of their rack is. Those that are remembered to have carried are lost once that lasts. One that is not may be a
    spare, or may have been lost for longer than anybody remembers.
    """
    racks = frame.racks
    if not racks.feeds:
        return np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_)
    once = np.fmax(_highest(shares), racks.feed_usual) >= 4 * settings.dead_share
    # Another feed of the rack is still measured: else it is the meter that is lost.
    carries = (np.nan_to_num(racks.feed_w) > 0).astype(np.float64)
    seen = _of_their_racks(frame, carries) - carries > 0
    unloaded = (shares < settings.dead_share) & seen
    return once & lasting(unloaded, _LASTING_TICKS), ~once & unloaded[-1]


def _meter_blind(frame: Frame, settings: Settings) -> Bools:
    """(n_racks,) whose meter shows less than the rack's GPUs alone draw, as means over some minutes."""
    span = frame.rack_window(timedelta(minutes=2))
    gpus = _gpu_power(frame)[-len(span) :]
    shown = np.divide(span, gpus, out=np.ones_like(span), where=gpus > 0)
    return lasting(shown < settings.unseen_share, 3)


def _gpu_power(frame: Frame) -> Floats:
    """(n_ticks, n_racks) what the GPUs of each rack draw together, over the last minutes."""
    window = frame.window(Signal.POWER, timedelta(minutes=2))
    return np.array([frame.racks.groups.sums(tick) for tick in window])


def _added_up(frame: Frame) -> Bools:
    """(n_racks,) whose power is the sum of their feeds'."""
    racks, total = frame.racks, np.zeros(len(frame.racks))
    if racks.feeds:
        np.add.at(total, _racks_of_feeds(frame), np.nan_to_num(racks.feed_w[-1]))
    added: Bools = (total > 0) & np.isclose(total, racks.power_w[-1])
    return added


def _alike(frame: Frame, shares: Floats) -> Bools:
    """(n_ticks, n_racks) at which looks all feeds of a rack carried the share that they did at the look before: no load
    has moved between them.
    """
    alike = np.zeros((len(shares), len(frame.racks)), dtype=np.bool_)
    alike[1:] = True
    tick, feed = np.nonzero(np.abs(np.diff(shares, axis=0)) > _SAME_SHARE)
    alike[tick + 1, _racks_of_feeds(frame)[feed]] = False
    return alike


def _second_highest(window: Floats) -> Floats:
    """(n,) the second largest of `window` (n_ticks, n), NaN where there is but one."""
    if len(window) <= 1:
        return np.full(window.shape[1], np.nan)
    second: Floats = -np.sort(-window, axis=0)[1]  # NaN comes last
    return second


def _highest(window: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what has no sample at all has no maximum, which is NaN
        highest: Floats = np.nanmax(window, axis=0)
    return highest


def _measured(frame: Frame, name: str, history: Floats, value: float, note: str = "") -> Evidence:
    return Evidence(name, value, "W", frame.at, note, points(frame.signals.times_s, history))
