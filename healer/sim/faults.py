"""What can be made to go wrong in a simulated fleet, and when: the kinds of fault and what each needs to be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from healer.errors import NotFound
from healer.sim.layout import Layout, nearest


class FaultKind(StrEnum):
    # Memory
    UNCORRECTABLE_ECC = "uncorrectable_ecc"
    CORRECTABLE_ECC_STORM = "correctable_ecc_storm"
    ROW_REMAP_PENDING = "row_remap_pending"
    ROW_REMAP_FAILED = "row_remap_failed"
    # Driver and bus
    GPU_LOST = "gpu_lost"
    GPU_XID = "gpu_xid"
    # Heat
    THERMAL_LIMIT = "thermal_limit"
    COOLING_LOSS = "cooling_loss"
    FAN_FAILURE = "fan_failure"
    RACK_COOLING_LOSS = "rack_cooling_loss"
    # Power and clocks
    POWER_BRAKE = "power_brake"
    LOAD_SURGE = "load_surge"
    POWER_FEED_LOST = "power_feed_lost"
    CLOCKS_STUCK = "clocks_stuck"
    # Links
    NVLINK_ERRORS = "nvlink_errors"
    NVLINK_DOWN = "nvlink_down"
    PCIE_DEGRADED = "pcie_degraded"
    FABRIC_LINK_FLAP = "fabric_link_flap"
    # Jobs
    JOB_STALLED = "job_stalled"
    JOB_STRAGGLER = "job_straggler"
    # Telemetry and nodes
    EXPORTER_DOWN = "exporter_down"
    EXPORTER_FROZEN = "exporter_frozen"
    EXPORTER_SLOW = "exporter_slow"
    FIELDS_MISSING = "fields_missing"
    SENTINELS = "sentinels"
    NODE_UNREACHABLE = "node_unreachable"
    SOURCE_GAP = "source_gap"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `at_s` counts from the start of the simulation; without `duration_s` it stays.

    Attributes:
        severity: above 0 and up to 1, from hardly visible to the worst that there is of its kind. For a cooling_loss
            it is the fraction by which heat finds its way out worse: 0.5 adds half as many kelvins above the inlet at
            the same power.
        variant: how it shows itself; None is the plainest.
        ramp_s: how long it takes to come on; None is as the kind does.
    """

    kind: FaultKind
    at_s: float
    node: str | None = None
    gpu: int | None = None
    rack: str | None = None
    duration_s: float | None = None
    severity: float | None = None
    variant: str | None = None
    ramp_s: float | None = None


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a fault cannot be: the field, what is wrong with it, and what may help; or that its name is unknown."""

    field: str
    text: str
    hint: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """Attributes:
    targets: which fields name the target (one of these sets, exactly).
    others: which other fields it understands.
    variants: the plainest first; none for a kind that is always alike.
    """

    targets: tuple[frozenset[str], ...]
    others: frozenset[str]
    variants: tuple[str, ...] = ()


_NODE, _GPU, _RACK = frozenset({"node"}), frozenset({"node", "gpu"}), frozenset({"rack"})
_NOBODY: frozenset[str] = frozenset()
_LASTS = frozenset({"duration"})
_GRADED = frozenset({"duration", "severity"})
_CREEPS = frozenset({"duration", "severity", "ramp"})

SHAPES = {
    FaultKind.UNCORRECTABLE_ECC: Shape(
        (_GPU,), _LASTS, ("double_bit", "uncontained", "contained", "counter_only", "sram_threshold", "repeating")
    ),
    FaultKind.CORRECTABLE_ECC_STORM: Shape((_GPU,), _CREEPS, ("steady", "rising", "bursts")),
    FaultKind.ROW_REMAP_PENDING: Shape((_GPU,), _LASTS, ("flag_and_xid", "flag_only", "correctable")),
    FaultKind.ROW_REMAP_FAILED: Shape((_GPU,), _LASTS, ("flag_and_xid", "flag_only", "exhausted")),
    FaultKind.GPU_LOST: Shape((_GPU,), _LASTS, ("silent", "xid_first", "blank_first")),
    FaultKind.GPU_XID: Shape((_GPU,), _LASTS, ("gsp", "engine", "quiet", "unknown")),
    FaultKind.THERMAL_LIMIT: Shape((_GPU,), _CREEPS, ("heat_sink", "memory", "regulator")),
    FaultKind.COOLING_LOSS: Shape((_RACK, _NODE, _GPU), _CREEPS, ("constant", "creeping")),
    FaultKind.FAN_FAILURE: Shape((_NODE,), _CREEPS, ("one", "several")),
    FaultKind.RACK_COOLING_LOSS: Shape((_RACK,), _CREEPS, ("inlet", "airflow", "both")),
    FaultKind.POWER_BRAKE: Shape((_GPU, _NODE), _LASTS, ("steady", "intermittent")),
    FaultKind.LOAD_SURGE: Shape((_RACK,), _GRADED, ("full_load", "caps_lost", "other_load")),
    FaultKind.POWER_FEED_LOST: Shape((_RACK,), _LASTS, ("dead", "silent", "weak", "dead_and_braked")),
    FaultKind.CLOCKS_STUCK: Shape((_GPU,), _GRADED, ("no_reason", "hw_slowdown", "sync_boost")),
    FaultKind.NVLINK_ERRORS: Shape((_GPU,), _CREEPS, ("checksums", "replays", "recoveries", "mixed")),
    FaultKind.NVLINK_DOWN: Shape((_GPU,), _LASTS, ("xid_74", "state_only", "errors_first")),
    FaultKind.PCIE_DEGRADED: Shape((_GPU,), _CREEPS, ("replays", "width", "generation", "width_and_replays")),
    FaultKind.FABRIC_LINK_FLAP: Shape((_NODE,), _LASTS, ("flaps", "down", "symbol_errors", "carrier")),
    FaultKind.JOB_STALLED: Shape(
        (_GPU, _NODE),
        _LASTS,
        ("processor", "process_dead", "kernel_spin", "kernel_memory", "kernel_narrow", "storage", "network"),
    ),
    FaultKind.JOB_STRAGGLER: Shape((_GPU, _NODE), _CREEPS, ("data_loader", "slow_memory", "slow_clocks")),
    FaultKind.EXPORTER_DOWN: Shape((_NODE,), _LASTS, ("no_answer", "empty_page")),
    FaultKind.EXPORTER_FROZEN: Shape((_NODE,), _LASTS),
    FaultKind.EXPORTER_SLOW: Shape((_NODE,), _GRADED),
    FaultKind.FIELDS_MISSING: Shape((_NODE, _GPU), _LASTS, ("profiling", "temperatures", "power", "most")),
    FaultKind.SENTINELS: Shape((_GPU,), _LASTS, ("int64", "int32", "float")),
    FaultKind.NODE_UNREACHABLE: Shape((_NODE,), _LASTS, ("crash", "network")),
    FaultKind.SOURCE_GAP: Shape((_NOBODY,), _LASTS),
}


def objections(fault: Fault, layout: Layout | None = None) -> tuple[Objection, ...]:
    """Everything wrong with a fault; with a layout, its names are looked up too."""
    return (*_shape_objections(fault), *_value_objections(fault), *_name_objections(fault, layout))


def demo_faults(layout: Layout, *, duration_s: float = 60.0) -> tuple[Fault, ...]:
    """A short and eventful stretch: a GPU's memory fails, the last rack draws too much, an exporter goes silent.

    Spread over `duration_s` so that each has time to be seen and dealt with, and placed on different nodes where the
    fleet has enough of them.
    """
    first_rack = layout.nodes_of(layout.racks[0])
    sick, silent = first_rack[len(first_rack) // 2], first_rack[0]
    return (
        Fault(FaultKind.UNCORRECTABLE_ECC, 0.12 * duration_s, node=sick, gpu=min(5, layout.gpus_per_node - 1)),
        Fault(FaultKind.LOAD_SURGE, 0.25 * duration_s, rack=layout.racks[-1], duration_s=0.5 * duration_s),
        Fault(FaultKind.EXPORTER_DOWN, 0.4 * duration_s, node=silent, duration_s=0.25 * duration_s),
    )


def _shape_objections(fault: Fault) -> list[Objection]:
    shape = SHAPES[fault.kind]
    named = {name for name in ("node", "gpu", "rack") if getattr(fault, name) is not None}
    found = []
    if named not in shape.targets:
        wanted = ", or ".join(_listed(target) for target in shape.targets)
        found.append(Objection("kind", f"{fault.kind} is aimed by {wanted}, not by {_listed(named)}"))
    extra = {"duration": fault.duration_s, "severity": fault.severity, "ramp": fault.ramp_s}
    found += [
        Objection(name, f"does not apply to {fault.kind}")
        for name, value in extra.items()
        if value is not None and name not in shape.others
    ]
    if fault.variant is not None and fault.variant not in shape.variants:
        hint = nearest(fault.variant, shape.variants) if shape.variants else "it has none"
        found.append(Objection("variant", f"{fault.variant!r} is not a variant of {fault.kind}", hint))
    return found


def _listed(names: frozenset[str] | set[str]) -> str:
    return " and ".join(sorted(names, reverse=True)) or "none"


def _value_objections(fault: Fault) -> list[Objection]:
    found = []
    if not (math.isfinite(fault.at_s) and fault.at_s >= 0):
        found.append(Objection("at", f"{fault.at_s:g} s is not a time after the start"))
    for name, value in (("duration", fault.duration_s), ("ramp", fault.ramp_s)):
        if value is not None and not (math.isfinite(value) and value > 0):
            found.append(Objection(name, f"{value:g} s is not longer than nothing"))
    if fault.severity is not None and not 0 < fault.severity <= 1:
        found.append(Objection("severity", f"{fault.severity:g} is not a fraction above 0 and up to 1"))
    return found


def _name_objections(fault: Fault, layout: Layout | None) -> list[Objection]:
    if layout is None:
        return []
    found = []
    if fault.rack is not None and fault.rack not in layout.racks:
        found.append(
            Objection("rack", f"there is no rack {fault.rack!r}", nearest(fault.rack, layout.racks), unknown=True)
        )
    if fault.node is not None and fault.node not in layout.nodes:
        found.append(
            Objection("node", f"there is no node {fault.node!r}", nearest(fault.node, layout.nodes), unknown=True)
        )
    elif fault.node is not None and fault.gpu is not None:
        try:
            layout.gpu_index(fault.node, fault.gpu)
        except NotFound as error:
            found.append(Objection("gpu", error.detail, unknown=True))
    return found
