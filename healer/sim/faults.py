"""What can be made to go wrong in a simulated fleet, and when: the kinds of fault and what each needs to be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from healer.errors import NotFound
from healer.sim.layout import Layout, nearest


class FaultKind(StrEnum):
    UNCORRECTABLE_ECC = "uncorrectable_ecc"
    LOAD_SURGE = "load_surge"
    EXPORTER_DOWN = "exporter_down"
    GPU_LOST = "gpu_lost"
    COOLING_LOSS = "cooling_loss"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `at_s` counts from the start of the simulation; without `duration_s` it stays.

    `severity` (cooling_loss only) is the fraction by which heat finds its way out worse: 0.5 adds half as many kelvins
    above the inlet at the same power.
    """

    kind: FaultKind
    at_s: float
    node: str | None = None
    gpu: int | None = None
    rack: str | None = None
    duration_s: float | None = None
    severity: float | None = None


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a fault cannot be: the field, what is wrong with it, and what may help; or that its name is unknown."""

    field: str
    text: str
    hint: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which fields name the target of a kind (one of these sets, exactly), and which others it understands."""

    targets: tuple[frozenset[str], ...]
    others: frozenset[str] = frozenset()


_NODE, _GPU, _RACK = frozenset({"node"}), frozenset({"node", "gpu"}), frozenset({"rack"})
_SHAPES = {
    FaultKind.UNCORRECTABLE_ECC: _Shape((_GPU,)),
    FaultKind.LOAD_SURGE: _Shape((_RACK,), frozenset({"duration"})),
    FaultKind.EXPORTER_DOWN: _Shape((_NODE,), frozenset({"duration"})),
    FaultKind.GPU_LOST: _Shape((_GPU,), frozenset({"duration"})),
    FaultKind.COOLING_LOSS: _Shape((_RACK, _NODE, _GPU), frozenset({"duration", "severity"})),
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
    shape = _SHAPES[fault.kind]
    named = {name for name in ("node", "gpu", "rack") if getattr(fault, name) is not None}
    found = []
    if named not in shape.targets:
        wanted = ", or ".join(" and ".join(sorted(target, reverse=True)) for target in shape.targets)
        given = " and ".join(sorted(named, reverse=True)) or "none"
        found.append(Objection("kind", f"{fault.kind} is aimed by {wanted}, not by {given}"))
    extra = {"duration": fault.duration_s, "severity": fault.severity}
    found += [
        Objection(name, f"does not apply to {fault.kind}")
        for name, value in extra.items()
        if value is not None and name not in shape.others
    ]
    return found


def _value_objections(fault: Fault) -> list[Objection]:
    found = []
    if not (math.isfinite(fault.at_s) and fault.at_s >= 0):
        found.append(Objection("at", f"{fault.at_s:g} s is not a time after the start"))
    if fault.duration_s is not None and not (math.isfinite(fault.duration_s) and fault.duration_s > 0):
        found.append(Objection("duration", f"{fault.duration_s:g} s is not longer than nothing"))
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
