"""InfiniBand and RoCE: ports that go down, come back, or damage what they carry.

Mechanism: a cable, a transceiver or a switch port gives out by halves: the link drops and trains again, or symbols
arrive damaged. Each drop stalls a collective for seconds, some kill it.
Sources: node_exporter's infiniband, netclass and netdev collectors. gpud calls a port down after 4 minutes and flapping
after three returns in 12 hours, and keeps that for ever (1247) or clears it too fast (1110); NVSentinel calls a single
drop fatal, and symbol errors from 10 a second or 120 an hour on. A port that was never up is unused, and one bounce is
a cable that somebody touched.
Cost of a false positive: a node taken from a gang, a transceiver exchanged for nothing.
"""

from __future__ import annotations

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
    PortSignal,
    Said,
    findings,
    lasting,
    points,
)

MODES = (FailureMode.FABRIC_LINK_FLAP,)
READS = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Attributes:
    window_s: what is counted lately is counted over this long.
    drops_lately, drops: so often down lately, or within hours.
    damaged: so many symbol errors lately, at several looks, and so many times what the hours before had.
    ratio: that many times.
    """

    window_s: float = 600.0
    drops_lately: float = 2.0
    drops: float = 3.0
    damaged: float = 20.0
    ratio: float = 10.0


_SEVERAL = 3
_DOWN_LOOKS, _DOWN_FOR = 2, timedelta(seconds=30)  # a port that trains anew is up again by then


def detect(frame: Frame, settings: Settings) -> Findings:
    ports = frame.ports
    drops_lately, drops = _drops(frame, settings)
    down, active = _down(frame)
    damaged = _damaged(frame, settings)
    known = ~np.isnan(active) | ~np.isnan(ports.signals.latest(PortSignal.LINK_DOWNED))
    flapping = (drops_lately >= settings.drops_lately) | (drops >= settings.drops)
    of_port = np.full(len(ports), Health.UNKNOWN, dtype=np.int8)
    of_port[known & (active != 0)] = Health.HEALTHY
    of_port[flapping | (damaged > 0)] = Health.DEGRADED
    of_port[down] = Health.FAILED

    health = np.full(len(frame.nodes), Health.UNKNOWN, dtype=np.int8)
    there = ports.of_node >= 0
    np.maximum.at(health, ports.of_node[there], of_port[there])

    def describe(node: int) -> Said:
        sick = [port for port in np.flatnonzero(ports.of_node == node).tolist() if of_port[port] > Health.HEALTHY]
        parts, told = [], []
        span = f"{settings.window_s / 60:g} minutes"
        sick.sort(key=lambda port: (-of_port[port], -(drops_lately[port] if flapping[port] else 0.0), -damaged[port]))
        for port in sick:
            link = ports.components[port].link
            if down[port]:
                parts.append(f"{link} is down")
            if flapping[port]:
                often = f"{drops_lately[port]:.0f} times in {span}, {drops[port]:.0f} times in hours"
                parts.append(f"{link} went down {often}")
            if damaged[port] > 0:
                parts.append(f"{link} counts {damaged[port]:.0f} damaged symbols and packets in {span}")
            told += [
                Evidence(
                    f"{signal} {link}", float(history[-1]), "", frame.at, points=points(ports.signals.times_s, history)
                )
                for signal in PortSignal
                if signal in ports.signals and not np.isnan(history := ports.signals.of_row(signal, port)).all()
            ]
        return Said("; ".join(parts[:_MOST_TOLD]), tuple(told[: 2 * _MOST_TOLD]), culprit=ports.components[sick[0]])

    return findings(MODES[0], ComponentKind.NODE, health, frame.nodes.components, describe)


_MOST_TOLD = 6


def _drops(frame: Frame, settings: Settings) -> tuple[Floats, Floats]:
    """(n_ports,) how often each went down lately, and within hours: by its counter, by its state, by its carrier."""
    signals, past = frame.ports.signals, frame.ports.past
    span = timedelta(seconds=settings.window_s)
    counted = signals.growth(PortSignal.LINK_DOWNED, span)
    seen = signals.growing_ticks(PortSignal.ACTIVE, span).astype(np.float64)  # it came back so often
    carrier = signals.growth(PortSignal.CARRIER_CHANGES, span) / 2.0  # down and up are two changes
    lately: Floats = np.maximum.reduce([counted, seen, carrier])
    before = np.maximum(past.growth(PortSignal.LINK_DOWNED), past.growth(PortSignal.CARRIER_CHANGES) / 2.0)
    return lately, lately + before


def _down(frame: Frame) -> tuple[Bools, Floats]:
    """(n_ports,) which are down that were up within the window, and their state now."""
    signals = frame.ports.signals
    active = signals.latest(PortSignal.ACTIVE)
    if PortSignal.ACTIVE not in signals or not (active == 0).any():
        return np.zeros(len(active), dtype=np.bool_), active
    history = signals.window(PortSignal.ACTIVE, timedelta(minutes=10))
    looks = max(_DOWN_LOOKS, len(signals.window(PortSignal.ACTIVE, _DOWN_FOR)))
    return lasting(history == 0, looks) & (history == 1).any(axis=0), active


def _damaged(frame: Frame, settings: Settings) -> Floats:
    """(n_ports,) how much arrived damaged lately; 0 where it is as always, or too little to matter."""
    signals, past = frame.ports.signals, frame.ports.past
    span = timedelta(seconds=settings.window_s)
    total = np.zeros(len(frame.ports))
    for counter in (PortSignal.SYMBOL_ERRORS, PortSignal.RECEIVE_ERRORS, PortSignal.LINK_RECOVERY):
        grown = signals.growth(counter, span)
        often = signals.growing_ticks(counter, span) >= _SEVERAL
        # A slot of the past is half as long as the window.
        unusual = grown >= settings.ratio * 2.0 * past.most_grown(counter)
        total += np.where(often & unusual & (grown >= settings.damaged), grown, 0.0)
    return total
