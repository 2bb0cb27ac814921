"""Rules: where each kind of fault strikes on a random day, how often, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from healer.sim.days.site import Site
from healer.sim.exporters.fields import shows
from healer.sim.faults import SHAPES, FaultKind

MINUTE_S, HOUR_S = 60.0, 3600.0


class Aim(StrEnum):
    GPU = "gpu"
    NODE = "node"
    RACK = "rack"
    SITE = "site"


class Needs(StrEnum):
    """What must be under way where it strikes, for anybody to be able to see it."""

    NOTHING = "nothing"
    WORK = "work"
    HEAT = "work that draws much"
    GANG = "a gang"


@dataclass(frozen=True, slots=True)
class Rule:
    """Attributes:
    weight: how often, against the others.
    lasts_s: from and to, in equal factors.
    stays: the share of cases that nobody ends before the day does.
    repaired: whether what ends it is a repair: the node is cordoned, and rebooted.
    swapped: the share of repairs in which the board is another one afterwards.
    aims: at what, with weights.
    ramps_s: from and to, of the time it takes to come on; None for at once.
    grades: from and to, of its severity: what nobody would call a fault is none.
    """

    weight: float
    lasts_s: tuple[float, float]
    needs: Needs = Needs.NOTHING
    stays: float = 0.2
    repaired: bool = False
    swapped: float = 0.0
    aims: tuple[tuple[Aim, float], ...] = ((Aim.GPU, 1.0),)
    ramps_s: tuple[float, float] | None = None
    grades: tuple[float, float] = (0.05, 1.0)


_NODE = ((Aim.NODE, 1.0),)
_RACK = ((Aim.RACK, 1.0),)
_LATCHED = (0.5 * HOUR_S, 8 * HOUR_S)
_SILENCE = (4 * MINUTE_S, 3 * HOUR_S)

RULES: Mapping[FaultKind, Rule] = {
    FaultKind.UNCORRECTABLE_ECC: Rule(1.6, _LATCHED, repaired=True, swapped=0.1),
    FaultKind.CORRECTABLE_ECC_STORM: Rule(1.0, (10 * MINUTE_S, 6 * HOUR_S), ramps_s=None),
    FaultKind.ROW_REMAP_PENDING: Rule(0.8, _LATCHED, repaired=True),
    FaultKind.ROW_REMAP_FAILED: Rule(0.6, _LATCHED, repaired=True, swapped=0.8),
    FaultKind.GPU_LOST: Rule(1.4, _LATCHED, repaired=True, swapped=0.3),
    FaultKind.GPU_XID: Rule(1.4, _LATCHED, repaired=True, swapped=0.05),
    FaultKind.THERMAL_LIMIT: Rule(1.0, (8 * MINUTE_S, 3 * HOUR_S), Needs.HEAT),
    FaultKind.COOLING_LOSS: Rule(
        1.6, (1 * HOUR_S, 8 * HOUR_S), Needs.HEAT, ramps_s=(2 * MINUTE_S, 3 * HOUR_S), grades=(0.25, 0.6)
    ),
    FaultKind.FAN_FAILURE: Rule(0.8, (20 * MINUTE_S, 5 * HOUR_S), Needs.HEAT, aims=_NODE, grades=(0.3, 1.0)),
    FaultKind.RACK_COOLING_LOSS: Rule(0.8, (30 * MINUTE_S, 4 * HOUR_S), Needs.HEAT, aims=_RACK, grades=(0.4, 1.0)),
    FaultKind.POWER_BRAKE: Rule(1.0, (5 * MINUTE_S, 6 * HOUR_S), Needs.WORK, aims=((Aim.GPU, 0.5), (Aim.NODE, 0.5))),
    FaultKind.LOAD_SURGE: Rule(0.9, (3 * MINUTE_S, 60 * MINUTE_S), Needs.HEAT, stays=0.0, aims=_RACK),
    FaultKind.POWER_FEED_LOST: Rule(0.8, (5 * MINUTE_S, 4 * HOUR_S), aims=_RACK),
    FaultKind.CLOCKS_STUCK: Rule(1.0, (10 * MINUTE_S, 6 * HOUR_S), Needs.WORK),
    FaultKind.NVLINK_ERRORS: Rule(1.0, (10 * MINUTE_S, 6 * HOUR_S), Needs.WORK),
    FaultKind.NVLINK_DOWN: Rule(0.9, _LATCHED, Needs.WORK, repaired=True),
    FaultKind.PCIE_DEGRADED: Rule(1.0, (10 * MINUTE_S, 8 * HOUR_S), Needs.WORK),
    FaultKind.FABRIC_LINK_FLAP: Rule(1.2, (5 * MINUTE_S, 4 * HOUR_S), aims=_NODE),
    FaultKind.JOB_STALLED: Rule(
        1.8, (8 * MINUTE_S, 60 * MINUTE_S), Needs.GANG, stays=0.0, aims=((Aim.GPU, 0.8), (Aim.NODE, 0.2))
    ),
    FaultKind.JOB_STRAGGLER: Rule(
        1.6, (15 * MINUTE_S, 5 * HOUR_S), Needs.GANG, aims=((Aim.GPU, 0.7), (Aim.NODE, 0.3)), ramps_s=(30.0, HOUR_S)
    ),
    FaultKind.EXPORTER_DOWN: Rule(1.2, _SILENCE, aims=_NODE),
    FaultKind.EXPORTER_FROZEN: Rule(1.0, (10 * MINUTE_S, 6 * HOUR_S), Needs.WORK, aims=_NODE),
    FaultKind.EXPORTER_SLOW: Rule(0.6, (20 * MINUTE_S, 3 * HOUR_S), aims=_NODE),
    FaultKind.FIELDS_MISSING: Rule(0.7, _SILENCE, aims=((Aim.GPU, 0.5), (Aim.NODE, 0.5))),
    FaultKind.SENTINELS: Rule(0.7, _SILENCE),
    FaultKind.NODE_UNREACHABLE: Rule(1.2, (5 * MINUTE_S, 4 * HOUR_S), aims=_NODE),
    FaultKind.SOURCE_GAP: Rule(0.2, (6 * MINUTE_S, 25 * MINUTE_S), stays=0.0, aims=((Aim.SITE, 1.0),)),
}

# What a variant needs to be exported, for anybody to be able to tell.
_SEEN_BY: Mapping[tuple[FaultKind, str], str] = {
    (FaultKind.ROW_REMAP_PENDING, "flag_only"): "remap_pending",
    (FaultKind.ROW_REMAP_FAILED, "flag_only"): "remap_failed",
    (FaultKind.THERMAL_LIMIT, "regulator"): "clock_reasons",
    (FaultKind.NVLINK_DOWN, "xid_74"): "nvlink_state",  # the XID alone says that the link errs, not that it is down
    (FaultKind.NVLINK_DOWN, "state_only"): "nvlink_state",
    (FaultKind.NVLINK_DOWN, "errors_first"): "nvlink_state",
    (FaultKind.PCIE_DEGRADED, "width"): "pcie_width",
    (FaultKind.PCIE_DEGRADED, "generation"): "pcie_generation",
    (FaultKind.FIELDS_MISSING, "profiling"): "tensor_active",
}
_KINDS_SEEN_BY: Mapping[FaultKind, str] = {
    FaultKind.NVLINK_ERRORS: "nvlink_replays",
    FaultKind.CORRECTABLE_ECC_STORM: "sbe_volatile",
    FaultKind.POWER_BRAKE: "clock_reasons",  # without them it is a GPU that is slow for no stated reason
}
_PLANNED = {FaultKind.LOAD_SURGE: ("caps_lost", "other_load")}


def visible_variants(kind: FaultKind, site: Site) -> tuple[str, ...] | None:
    """Those of which this site's telemetry tells anything; None if it tells of none."""
    fields = site.style.fields
    if kind in _KINDS_SEEN_BY and not shows(fields, _KINDS_SEEN_BY[kind]):
        return None
    if kind is FaultKind.POWER_FEED_LOST and not site.style.feeds:
        return None
    variants = _PLANNED.get(kind, SHAPES[kind].variants)
    if not variants:
        return ("",)
    seen = tuple(name for name in variants if shows(fields, _SEEN_BY.get((kind, name), "power_w")))
    return seen or None
