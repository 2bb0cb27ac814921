"""Telemetry that goes missing, repeats itself or shows what is no value; and nodes that are gone altogether."""

from __future__ import annotations

import math

import numpy as np

from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob
from healer.sim.marks import Reload
from healer.sim.strikes.blow import Blow, Claim, Happening, Hidden
from healer.sim.strikes.fates import hangs
from healer.sim.work import Hold
from healer.sim.world import Mark

_PROFILING = frozenset({"graphics_active", "sm_active", "tensor_active", "dram_active", "pcie_tx", "pcie_rx"})
_FIELDS = {
    "profiling": _PROFILING,
    "temperatures": frozenset({"core_c", "memory_c", "margin_c"}),
    "power": frozenset({"power_w", "limit_w", "energy_mj"}),
    "most": _PROFILING | {"core_c", "memory_c", "power_w", "sm_clock_mhz", "util_percent", "dbe_volatile", "xid"},
}
_BLANKS = {"int64": float(0x7FFFFFFFFFFFFFF0), "int32": float(0x7FFFFFF0), "float": 140737488355328.0}
_SENSORS = (
    frozenset({"core_c", "memory_c"}),
    frozenset({"power_w", "energy_mj"}),
    frozenset({"core_c", "memory_c", "power_w", "sm_clock_mhz", "util_percent", "memory_util_percent"}),
)


def exporter_down(blow: Blow) -> Happening:
    knob = Knob.EXPORTER_EMPTY if blow.variant == "empty_page" else Knob.EXPORTER_DOWN
    return _silenced(blow, blow.turn(knob, 1.0, blow.nodes))  # so does a restart


def exporter_frozen(blow: Blow) -> Happening:
    return _silenced(blow, blow.turn(Knob.EXPORTER_FROZEN, 1.0, blow.nodes))


def exporter_slow(blow: Blow) -> Happening:
    """It answers too late for most scrapes: what there is, is old."""
    return _silenced(blow, blow.turn(Knob.EXPORTER_SLOW, blow.graded(0.75, 0.97), blow.nodes))


def fields_missing(blow: Blow) -> Happening:
    hidden = Hidden(_FIELDS[blow.variant], frozenset(blow.gpus.tolist()), blow.at_s, blow.end_s)
    return Happening(_claim(blow), hidden=(hidden,))


def sentinels(blow: Blow) -> Happening:
    """Numbers that are no values, where there were some."""
    rows = _SENSORS[int(blow.rng.integers(len(_SENSORS)))]
    hidden = Hidden(rows, frozenset(blow.gpus.tolist()), blow.at_s, blow.end_s, _BLANKS[blow.variant])
    return Happening(_claim(blow), hidden=(hidden,))


def source_gap(blow: Blow) -> Happening:
    effect = Effect(Knob.SOURCE_DOWN, np.array([0]), 1.0, blow.at_s, blow.end_s)
    return Happening(_claim(blow), (effect,))


def node_unreachable(blow: Blow) -> Happening:
    """It crashed, or its network is gone; the scheduler notices after its grace period."""
    nodes, rng = blow.nodes, blow.rng
    grace_s = rng.uniform(40.0, 60.0)
    effects = [
        Effect(Knob.EXPORTER_DOWN, nodes, 1.0, blow.at_s, blow.end_s),
        Effect(Knob.HOST_EXPORTER_DOWN, nodes, 1.0, blow.at_s, blow.end_s),
        Effect(Knob.NOT_READY, nodes, 1.0, blow.at_s + grace_s, blow.end_s + rng.uniform(5.0, 40.0)),
    ]
    marks: tuple[Mark, ...] = ()
    if blow.variant == "crash" and math.isfinite(blow.end_s):
        marks = (Reload(blow.end_s, blow.gpus),)
    fate = hangs(blow, hold=Hold.DEAD, without_node=True)
    claim = Claim(
        FailureMode.NODE_UNREACHABLE,
        blow.component,
        full_s=blow.at_s + grace_s,
        hard=False,
        jobs=blow.jobs,
        symptoms=(FailureMode.TELEMETRY_LOST, FailureMode.JOB_STALLED),
    )
    return Happening(claim, (*effects, *fate.effects), marks, interruptions=fate.interruptions)


def _silenced(blow: Blow, effect: Effect) -> Happening:
    return Happening(_claim(blow), (effect,))


def _claim(blow: Blow) -> Claim:
    return Claim(FailureMode.TELEMETRY_LOST, blow.component, hard=False)
