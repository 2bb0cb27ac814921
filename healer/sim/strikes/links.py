"""Links that err, slow down or go: NVLink, PCIe, the fabric.

Sources: DCGM's NVLink counters and link states, XID 74; PCIe width and generation against what the slot allows; the
port counters of InfiniBand and the carrier changes of Ethernet, as node_exporter has them.
"""

from __future__ import annotations

import numpy as np

from healer.domain.axes import Ints
from healer.domain.component import Component
from healer.domain.finding import FailureMode
from healer.sim.knobs import Effect, Knob, Ramp
from healer.sim.marks import Reload, Xid
from healer.sim.strikes.blow import Blow, Claim, Happening
from healer.sim.strikes.fates import Fate, hangs_or_dies
from healer.sim.work import Hold
from healer.sim.world import Mark

_NVLINK_ERROR = 74
_SLOWS = (FailureMode.JOB_STRAGGLER,)


def nvlink_errors(blow: Blow) -> Happening:
    rate = blow.graded_log(0.05, 500.0)
    effects = []
    if blow.variant in {"checksums", "mixed"}:
        effects.append(blow.turn(Knob.NVLINK_CRC_RATE, rate))
    if blow.variant in {"replays", "mixed"}:
        effects.append(blow.turn(Knob.NVLINK_REPLAY_RATE, 0.3 * rate if blow.variant == "mixed" else rate))
    if blow.variant in {"recoveries", "mixed"}:
        effects.append(blow.turn(Knob.NVLINK_RECOVERY_RATE, blow.graded_log(0.01, 2.0)))
    if rate > 50.0:  # a link that sends everything twice is a slow one
        effects.append(blow.turn(Knob.SPEED, blow.rng.uniform(0.8, 0.97)))
    claim = Claim(
        FailureMode.NVLINK_ERRORS,
        blow.component,
        full_s=blow.at_s + (blow.fault.ramp_s or 0.0),
        hard=False,
        jobs=blow.jobs,
        symptoms=_SLOWS,
    )
    return Happening(claim, tuple(effects))


def nvlink_down(blow: Blow) -> Happening:
    at_s, gpus, rng = blow.at_s, blow.gpus, blow.rng
    down_s = at_s + rng.uniform(60.0, 1200.0) if blow.variant == "errors_first" else at_s
    down_s = min(down_s, blow.at_s + 0.5 * blow.lasts_s)
    effects = [Effect(Knob.NVLINK_DOWN, gpus, 1.0, down_s, blow.end_s)]
    if blow.variant == "errors_first":
        rate = blow.rng.uniform(0.5, 40.0)
        effects += [Effect(knob, gpus, rate, at_s, down_s) for knob in (Knob.NVLINK_CRC_RATE, Knob.NVLINK_REPLAY_RATE)]
    marks: list[Mark] = [] if blow.variant == "state_only" else [Xid(down_s, gpus, _NVLINK_ERROR)]
    if np.isfinite(blow.end_s):
        marks.append(Reload(blow.end_s, gpus))
    if rng.random() < 0.6:
        fate = hangs_or_dies(blow, hangs_in=0.4, hold=Hold.COLLECTIVE, after_s=down_s - at_s)
    else:
        fate = Fate()
        effects.append(Effect(Knob.SPEED, gpus, rng.uniform(0.6, 0.95), down_s, blow.end_s))
    claim = Claim(
        FailureMode.NVLINK_DOWN,
        blow.component,
        full_s=down_s,
        hard=blow.variant == "xid_74" or (blow.variant == "state_only" and blow.scene.shown("nvlink_state")),
        jobs=blow.jobs,
        symptoms=(FailureMode.NVLINK_ERRORS, FailureMode.JOB_STALLED, *_SLOWS),
    )
    return Happening(claim, (*effects, *fate.effects), tuple(marks), interruptions=fate.interruptions)


def pcie_degraded(blow: Blow) -> Happening:
    effects = []
    if blow.variant in {"replays", "width_and_replays"}:
        effects.append(blow.turn(Knob.PCIE_REPLAY_RATE, blow.graded_log(0.1, 500.0)))
    if blow.variant in {"width", "width_and_replays"}:
        effects.append(blow.turn(Knob.PCIE_WIDTH, float(blow.rng.choice([8.0, 8.0, 4.0, 1.0]))))
    if blow.variant == "generation":
        effects.append(blow.turn(Knob.PCIE_GENERATION, float(blow.rng.integers(1, 5))))
    slowed = blow.rng.random() < 0.4
    if slowed:
        effects.append(blow.turn(Knob.DATA_STALL, blow.graded(0.02, 0.25), ramp=Ramp.LINEAR))
    claim = Claim(
        FailureMode.PCIE_DEGRADED,
        blow.component,
        full_s=blow.at_s + (blow.fault.ramp_s or 0.0),
        hard="width" in blow.variant and blow.scene.shown("pcie_width"),  # links that sleep change generation, too
        jobs=blow.jobs,
        symptoms=_SLOWS,
    )
    return Happening(claim, tuple(effects))


def fabric_link_flap(blow: Blow) -> Happening:
    """One port of a node. What its GPUs send elsewhere waits while it is down."""
    rng, node = blow.rng, int(blow.nodes[0])
    if blow.variant == "carrier":
        downs = blow.episodes(on_s=(10.0, 60.0), off_s=(30.0, 600.0))
        effects = [Effect(Knob.NETWORK_DOWN, blow.nodes, 1.0, on, off) for on, off in downs]
        return Happening(_flapped(blow, "eth0"), tuple(effects))
    port = int(rng.integers(blow.scene.ports))
    where = np.array([node * blow.scene.ports + port])
    match blow.variant:
        case "down":
            downs = [(blow.at_s, blow.end_s)]
        case "symbol_errors":
            downs = []
        case _:
            downs = blow.episodes(on_s=(10.0, 150.0), off_s=(20.0, 900.0))
    effects = [Effect(Knob.PORT_DOWN, where, 1.0, on, off) for on, off in downs]
    if blow.variant == "symbol_errors" or rng.random() < 0.5:
        effects.append(blow.turn(Knob.SYMBOL_RATE, blow.rng.uniform(0.5, 60.0), where))
        effects.append(blow.turn(Knob.PORT_ERROR_RATE, blow.rng.uniform(0.05, 5.0), where))
    effects += _waits(blow, port, downs)
    return Happening(_flapped(blow, blow.scene.port_name(port)), tuple(effects))


def _waits(blow: Blow, port: int, downs: list[tuple[float, float]]) -> list[Effect]:
    """Gangs of several nodes wait for a port that is back soon; for one that is not, others carry its load."""
    gang = blow.scene.gang(_gpu_at(blow, port), blow.at_s)
    if gang is None or len(np.unique(gang.gpus // blow.scene.layout.gpus_per_node)) < 2:
        return []
    gpu: Ints = np.array([_gpu_at(blow, port)])
    if blow.variant == "down":
        return [blow.turn(Knob.SPEED, blow.rng.uniform(0.6, 0.95), gpu)]
    return [Effect(Knob.HOLD, gpu, Hold.COLLECTIVE, on, off) for on, off in downs]


def _gpu_at(blow: Blow, port: int) -> int:
    """The first GPU that the port serves."""
    per_node = blow.scene.layout.gpus_per_node
    return int(blow.nodes[0]) * per_node + min(port, per_node - 1)


def _flapped(blow: Blow, device: str) -> Claim:
    node = blow.scene.node(int(blow.nodes[0]))
    named = Component(node.kind, rack=node.rack, node=node.node, link=device)
    symptoms = (FailureMode.JOB_STALLED, *_SLOWS)
    return Claim(FailureMode.FABRIC_LINK_FLAP, named, hard=False, jobs=blow.jobs, symptoms=symptoms)
