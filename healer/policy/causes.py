"""Causes: which finding explains which, so that one fault is one incident and not one for each of its consequences.

A table says what follows from what, and over which distance: a GPU that fell off the bus explains its own XIDs, the
errors of the links to its neighbours, and the stall of its job. It is ordered: nothing explains what stands above it,
so explanations never go in circles. Time must fit, too: what began much later than its supposed effect is not its
cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from healer.domain.axes import NOWHERE_ROW
from healer.domain.component import Component
from healer.domain.finding import FailureMode as Mode
from healer.domain.frame import Frame

_LATE = timedelta(minutes=15)  # a cause may be noticed so much later than its effect
_AT_ONCE = timedelta(minutes=5)
_FRESH = timedelta(minutes=30)  # after so long a fault that a job has lived with is not why it stalls now


class Reach(Enum):
    """Over which distance a cause has an effect."""

    WITHIN = "within"  # on itself, and on what is part of it
    AT_ONCE = "at once"  # on what is part of it, if both came within minutes
    PARTS = "parts"  # on what is part of it and not all of it
    NEAR = "near"  # on other GPUs of its nodes
    JOB = "job"  # on a job that runs there, which names nobody else as the culprit
    ANY_JOB = "any job"  # on a job that runs there, whomever that suspects: what is this sure outweighs a suspicion


_JOBS = (Mode.JOB_STALLED, Mode.JOB_STRAGGLER)
_LINKS = (Mode.NVLINK_DOWN, Mode.NVLINK_ERRORS)
_OF_A_GPU = tuple(mode for mode in Mode if mode.startswith(("Gpu", "Nvlink", "Pcie")))
_HEAT = (Mode.GPU_COOLING_DEGRADED, Mode.GPU_THERMAL_LIMIT, Mode.GPU_THROTTLED)

# What explains what, the deepest cause first.
EXPLAINS: Mapping[Mode, Mapping[Reach, tuple[Mode, ...]]] = {
    Mode.RACK_POWER_FEED_LOST: {
        Reach.AT_ONCE: (Mode.NODE_UNREACHABLE, Mode.TELEMETRY_LOST),
        Reach.WITHIN: (Mode.GPU_POWER_BRAKE, Mode.GPU_THROTTLED),
        Reach.JOB: _JOBS,
    },
    Mode.NODE_UNREACHABLE: {
        Reach.WITHIN: (*_OF_A_GPU, Mode.TELEMETRY_LOST, Mode.FABRIC_LINK_FLAP),
        Reach.ANY_JOB: _JOBS,
    },
    # A GPU whose own values go blank may be about to fall off the bus; that of a node whose exporter is down has not.
    Mode.TELEMETRY_LOST: {Reach.PARTS: (Mode.GPU_FELL_OFF_BUS,), Reach.WITHIN: (Mode.GPU_ANOMALY,)},
    Mode.RACK_COOLING_DEGRADED: {Reach.WITHIN: (*_HEAT, Mode.GPU_ANOMALY), Reach.JOB: (Mode.JOB_STRAGGLER,)},
    Mode.GPU_FELL_OFF_BUS: {
        Reach.WITHIN: (*(mode for mode in _OF_A_GPU if mode is not Mode.GPU_FELL_OFF_BUS), Mode.TELEMETRY_LOST),
        Reach.NEAR: _LINKS,
        Reach.ANY_JOB: _JOBS,
    },
    Mode.GPU_ROW_REMAP_FAILED: {
        Reach.WITHIN: (
            *(Mode.GPU_UNCORRECTABLE_ECC, Mode.GPU_CORRECTABLE_ECC_STORM, Mode.GPU_ROW_REMAP_PENDING, Mode.GPU_XID),
        ),
        Reach.ANY_JOB: _JOBS,
    },
    Mode.GPU_UNCORRECTABLE_ECC: {
        Reach.WITHIN: (Mode.GPU_CORRECTABLE_ECC_STORM, Mode.GPU_ROW_REMAP_PENDING, Mode.GPU_XID),
        Reach.ANY_JOB: _JOBS,
    },
    Mode.NVLINK_DOWN: {
        Reach.WITHIN: (Mode.NVLINK_ERRORS, Mode.GPU_XID),
        Reach.NEAR: _LINKS,
        Reach.ANY_JOB: _JOBS,
    },
    # A driver that hangs on a GPU answers nothing about it any more.
    Mode.GPU_XID: {Reach.WITHIN: (Mode.TELEMETRY_LOST,), Reach.ANY_JOB: _JOBS},
    Mode.GPU_CORRECTABLE_ECC_STORM: {Reach.WITHIN: (Mode.GPU_ROW_REMAP_PENDING,), Reach.JOB: (Mode.JOB_STRAGGLER,)},
    Mode.GPU_THERMAL_LIMIT: {
        Reach.WITHIN: (Mode.GPU_COOLING_DEGRADED, Mode.GPU_THROTTLED, Mode.GPU_ANOMALY),
        Reach.JOB: (Mode.JOB_STRAGGLER,),
    },
    Mode.GPU_COOLING_DEGRADED: {
        Reach.WITHIN: (Mode.GPU_THROTTLED, Mode.GPU_ANOMALY),
        Reach.JOB: (Mode.JOB_STRAGGLER,),
    },
    Mode.GPU_POWER_BRAKE: {Reach.WITHIN: (Mode.GPU_THROTTLED, Mode.GPU_ANOMALY), Reach.JOB: _JOBS},
    Mode.NVLINK_ERRORS: {Reach.JOB: _JOBS},
    Mode.PCIE_DEGRADED: {Reach.JOB: _JOBS},
    Mode.FABRIC_LINK_FLAP: {Reach.JOB: _JOBS},
    Mode.GPU_THROTTLED: {Reach.WITHIN: (Mode.GPU_ANOMALY,), Reach.JOB: (Mode.JOB_STRAGGLER,)},
    Mode.JOB_STALLED: {Reach.WITHIN: (Mode.JOB_STRAGGLER, Mode.GPU_ANOMALY)},
    Mode.JOB_STRAGGLER: {Reach.WITHIN: (Mode.GPU_ANOMALY,)},
}
_DEPTH = {mode: depth for depth, mode in enumerate(EXPLAINS)}


@dataclass(frozen=True, slots=True)
class Case:
    """A finding or a live incident, as far as it takes part in explaining.

    Attributes:
        rows: the GPUs that it is about.
        first: when it was first found.
        culprit: the GPUs of the part that it blames; empty for nobody.
    only: the keys of all that it can still explain, as it is over; None while it is not.
    """

    key: str
    mode: Mode
    rows: frozenset[int]
    first: datetime
    culprit: frozenset[int] = frozenset()
    only: frozenset[str] | None = None


def rows_of(component: Component, frame: Frame, members: Iterable[Component] = ()) -> frozenset[int]:
    """The GPUs that a component is about; those of its members where it has none of its own."""
    own = frame.parts_of(component).tolist()
    return frozenset(own or (row for member in members for row in frame.parts_of(member).tolist()))


def roots(cases: Iterable[Case], frame: Frame) -> dict[str, str]:
    """The key of each case -> the key of what explains it in the end; its own for what nothing explains."""
    by_key = {case.key: case for case in cases}
    by_row: dict[int, list[Case]] = {}
    by_node: dict[int, list[Case]] = {}
    node_of = frame.nodes.groups.of_gpu
    for case in by_key.values():
        for row in case.rows:
            by_row.setdefault(row, []).append(case)
        for node in {int(node_of[row]) for row in case.rows} - {NOWHERE_ROW}:
            by_node.setdefault(node, []).append(case)
    causes: dict[str, list[Case]] = {}
    for case in by_key.values():
        here = {other.key: other for row in case.rows for other in by_row[row]}
        nodes = {int(node_of[row]) for row in case.rows} - {NOWHERE_ROW}
        near = {other.key: other for node in nodes for other in by_node[node]}
        found = [other for other in {**here, **near}.values() if _explains(other, case, is_here=other.key in here)]
        causes[case.key] = sorted(found, key=_deepest)
    return {key: _root(key, by_key, causes) for key in by_key}


def _root(key: str, by_key: Mapping[str, Case], causes: Mapping[str, list[Case]]) -> str:
    """What explains a case in the end, by its deepest cause whose own explanation is also its own."""
    roots_of_causes = (_root(cause.key, by_key, causes) for cause in causes[key])
    return next((root for root in roots_of_causes if _is_for(by_key[root], by_key[key])), key)


def _deepest(case: Case) -> tuple[int, int, datetime, str]:
    return (_DEPTH.get(case.mode, len(_DEPTH)), -len(case.rows), case.first, case.key)


def _is_for(root: Case, effect: Case) -> bool:
    """What is over explains what it had explained before, and not what that explains by now."""
    return root.only is None or effect.key in root.only


def _explains(cause: Case, effect: Case, *, is_here: bool) -> bool:
    if cause.key == effect.key or cause.first > effect.first + _LATE:
        return False
    if not _is_for(cause, effect):
        return False
    if cause.mode is effect.mode:
        # One of the same kind for a larger part: the node for its GPU, the rack for its node.
        return cause.rows > effect.rows
    return any(
        effect.mode in modes and _reaches(reach, cause, effect, is_here=is_here)
        for reach, modes in EXPLAINS.get(cause.mode, {}).items()
    )


def _reaches(reach: Reach, cause: Case, effect: Case, *, is_here: bool) -> bool:
    match reach:
        case Reach.WITHIN:
            return is_here and cause.rows >= effect.rows
        case Reach.AT_ONCE:
            return is_here and cause.rows >= effect.rows and abs(effect.first - cause.first) <= _AT_ONCE
        case Reach.PARTS:
            return is_here and cause.rows > effect.rows
        case Reach.NEAR:
            return not is_here
        case Reach.JOB:
            return is_here and (not effect.culprit or bool(effect.culprit & cause.rows))
        case Reach.ANY_JOB:  # pragma: no branch
            lately = effect.first - cause.first <= _FRESH
            return is_here and (lately or bool(effect.culprit & cause.rows))
