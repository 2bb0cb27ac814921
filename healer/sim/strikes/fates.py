"""What becomes of the work when something under it breaks: it hangs until somebody ends it, or dies at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Ints
from healer.sim.knobs import Effect, Knob
from healer.sim.strikes.blow import Blow, Gang, Interruption
from healer.sim.work import Hold

_NOTICED_S = (600.0, 2400.0)  # a watchdog of ten minutes, or a person
_TORN_DOWN_S = (3.0, 45.0)
_QUEUED_S = (60.0, 900.0)


@dataclass(frozen=True, slots=True)
class Fate:
    effects: tuple[Effect, ...] = ()
    interruptions: tuple[Interruption, ...] = ()


def dies(blow: Blow, *, after_s: float = 0.0, without_node: bool = False) -> Fate:
    """The rank's process ends, the others see it soon, and the scheduler starts all of them again."""
    gang = blow.gang
    if gang is None or not blow.scene.jobs_die:
        return Fate()
    stuck_s = blow.at_s + after_s
    killed_s = stuck_s + blow.rng.uniform(*_TORN_DOWN_S)
    held = Effect(Knob.HOLD, blow.gpus, Hold.DEAD, stuck_s, killed_s)
    return Fate((held,), (_interruption(blow, gang, stuck_s, killed_s, without_node=without_node),))


def hangs(blow: Blow, *, hold: Hold, after_s: float = 0.0, without_node: bool = False) -> Fate:
    """The rank stops, and all others wait for it until somebody ends the job."""
    gang = blow.gang
    if gang is None or not blow.scene.jobs_die:
        return Fate()
    stuck_s = blow.at_s + after_s
    killed_s = stuck_s + blow.rng.uniform(*_NOTICED_S)
    held = Effect(Knob.HOLD, blow.gpus, hold, stuck_s, killed_s)
    return Fate((held,), (_interruption(blow, gang, stuck_s, killed_s, without_node=without_node),))


def stalls(blow: Blow, gang: Gang, culprits: Ints, hold: Hold) -> Fate:
    """As long as the blow lasts; then the job is ended and starts again."""
    held = Effect(Knob.HOLD, culprits, hold, blow.at_s, blow.end_s)
    if not np.isfinite(blow.end_s):
        return Fate((held,))
    return Fate((held,), (_interruption(blow, gang, blow.at_s, blow.end_s),))


def hangs_or_dies(blow: Blow, *, hangs_in: float, hold: Hold, after_s: float = 0.0, without_node: bool = False) -> Fate:
    """Args:
    hangs_in: the share of cases in which it hangs.
    """
    if blow.rng.random() < hangs_in:
        return hangs(blow, hold=hold, after_s=after_s, without_node=without_node)
    return dies(blow, after_s=after_s, without_node=without_node)


def _interruption(
    blow: Blow, gang: Gang, stuck_s: float, killed_s: float, *, without_node: bool = False
) -> Interruption:
    back_s = killed_s + blow.rng.uniform(*_QUEUED_S)
    without = tuple(blow.nodes.tolist()) if without_node else ()
    return Interruption(gang, stuck_s, killed_s, back_s, without)
