"""Which function says what each kind of fault does."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from healer.domain.axes import Ints
from healer.sim.faults import SHAPES, Fault, FaultKind
from healer.sim.layout import Layout
from healer.sim.strikes import driver, heat, jobs, links, memory, power, telemetry
from healer.sim.strikes.blow import Blow, Happening, Scene, Strike

STRIKES: Mapping[FaultKind, Strike] = {
    FaultKind.UNCORRECTABLE_ECC: memory.uncorrectable_ecc,
    FaultKind.CORRECTABLE_ECC_STORM: memory.correctable_ecc_storm,
    FaultKind.ROW_REMAP_PENDING: memory.row_remap_pending,
    FaultKind.ROW_REMAP_FAILED: memory.row_remap_failed,
    FaultKind.GPU_LOST: driver.gpu_lost,
    FaultKind.GPU_XID: driver.gpu_xid,
    FaultKind.THERMAL_LIMIT: heat.thermal_limit,
    FaultKind.COOLING_LOSS: heat.cooling_loss,
    FaultKind.FAN_FAILURE: heat.fan_failure,
    FaultKind.RACK_COOLING_LOSS: heat.rack_cooling_loss,
    FaultKind.POWER_BRAKE: power.power_brake,
    FaultKind.LOAD_SURGE: power.load_surge,
    FaultKind.POWER_FEED_LOST: power.power_feed_lost,
    FaultKind.CLOCKS_STUCK: power.clocks_stuck,
    FaultKind.NVLINK_ERRORS: links.nvlink_errors,
    FaultKind.NVLINK_DOWN: links.nvlink_down,
    FaultKind.PCIE_DEGRADED: links.pcie_degraded,
    FaultKind.FABRIC_LINK_FLAP: links.fabric_link_flap,
    FaultKind.JOB_STALLED: jobs.job_stalled,
    FaultKind.JOB_STRAGGLER: jobs.job_straggler,
    FaultKind.EXPORTER_DOWN: telemetry.exporter_down,
    FaultKind.EXPORTER_FROZEN: telemetry.exporter_frozen,
    FaultKind.EXPORTER_SLOW: telemetry.exporter_slow,
    FaultKind.FIELDS_MISSING: telemetry.fields_missing,
    FaultKind.SENTINELS: telemetry.sentinels,
    FaultKind.NODE_UNREACHABLE: telemetry.node_unreachable,
    FaultKind.SOURCE_GAP: telemetry.source_gap,
}


def struck(fault: Fault, scene: Scene, *, at_s: float, rng: np.random.Generator) -> Happening:
    """What comes of a fault that strikes at `at_s`, whatever its own time. It has been found to be possible."""
    blow = Blow(
        fault=fault,
        scene=scene,
        variant=fault.variant or next(iter(SHAPES[fault.kind].variants), ""),
        gpus=aimed_at(fault, scene.layout),
        at_s=at_s,
        rng=rng,
        end_s=math.inf if fault.duration_s is None else at_s + fault.duration_s,
    )
    return STRIKES[fault.kind](blow)


def aimed_at(fault: Fault, layout: Layout) -> Ints:
    """The GPUs that the fault names: one, those of a node, those of a rack; none if it names none."""
    if fault.rack is not None:
        return np.flatnonzero(layout.gpus_of_rack(fault.rack))
    if fault.node is None:
        return np.empty(0, dtype=np.int64)
    if fault.gpu is not None:
        return np.array([layout.gpu_index(fault.node, fault.gpu)])
    there = layout.gpus_of_node(fault.node)
    return np.arange(there.start, there.stop)
