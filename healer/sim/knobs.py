"""Knobs: everything about a simulated fleet that a fault, or a person, can turn, and the effects that turn it.

An effect holds one knob of some components at a value for a while, at once or over a ramp. Several may hold the same
knob: each knob says how they fold together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

import numpy as np

from healer.domain.axes import Floats, Ints


class Scope(StrEnum):
    """What a knob has one value for."""

    GPU = "gpu"
    NODE = "node"
    PORT = "port"
    RACK = "rack"
    SITE = "site"


class Fold(Enum):
    ADD = "add"
    TIMES = "times"
    LEAST = "least"
    MOST = "most"


class Knob(Enum):
    """Each is its scope, how effects fold, and its value when nothing holds it."""

    # Heat
    RESISTANCE = (Scope.GPU, Fold.TIMES, 1.0, "resistance")
    MEMORY_RESISTANCE = (Scope.GPU, Fold.TIMES, 1.0, "memory resistance")
    INLET = (Scope.GPU, Fold.ADD, 0.0, "inlet, K")
    AIRFLOW = (Scope.GPU, Fold.TIMES, 1.0, "airflow")
    # Clocks
    CLOCK_CAP = (Scope.GPU, Fold.LEAST, math.inf, "clock cap, MHz")
    CLOCK_REASON = (Scope.GPU, Fold.MOST, 0.0, "clock event reason of the cap")
    MEMORY_CLOCK = (Scope.GPU, Fold.LEAST, math.inf, "memory clock cap, MHz")
    BRAKE = (Scope.GPU, Fold.MOST, 0.0, "power brake")
    HW_THERMAL = (Scope.GPU, Fold.MOST, 0.0, "hardware thermal slowdown without a hot core")
    # Work
    SPEED = (Scope.GPU, Fold.TIMES, 1.0, "work done at equal clocks")
    DATA_STALL = (Scope.GPU, Fold.ADD, 0.0, "time without work, as a share of a step")
    HOLD = (Scope.GPU, Fold.MOST, 0.0, "where the rank hangs")
    SURGE = (Scope.GPU, Fold.MOST, 0.0, "full load")
    IDLE = (Scope.GPU, Fold.MOST, 0.0, "taken off its work")
    # Errors, per second
    SBE_RATE = (Scope.GPU, Fold.ADD, 0.0, "corrected memory errors")
    PCIE_REPLAY_RATE = (Scope.GPU, Fold.ADD, 0.0, "PCIe replays")
    NVLINK_CRC_RATE = (Scope.GPU, Fold.ADD, 0.0, "NVLink checksum errors")
    NVLINK_REPLAY_RATE = (Scope.GPU, Fold.ADD, 0.0, "NVLink replays")
    NVLINK_RECOVERY_RATE = (Scope.GPU, Fold.ADD, 0.0, "NVLink recoveries")
    # Links
    NVLINK_DOWN = (Scope.GPU, Fold.MOST, 0.0, "NVLink down")
    PCIE_WIDTH = (Scope.GPU, Fold.LEAST, 16.0, "PCIe lanes")
    PCIE_GENERATION = (Scope.GPU, Fold.LEAST, 5.0, "PCIe generation")
    PORT_DOWN = (Scope.PORT, Fold.MOST, 0.0, "fabric port down")
    SYMBOL_RATE = (Scope.PORT, Fold.ADD, 0.0, "symbol errors per second")
    PORT_ERROR_RATE = (Scope.PORT, Fold.ADD, 0.0, "receive errors per second")
    NETWORK_DOWN = (Scope.NODE, Fold.MOST, 0.0, "Ethernet down")
    # Who can be seen
    LOST = (Scope.GPU, Fold.MOST, 0.0, "off the bus")
    EXPORTER_DOWN = (Scope.NODE, Fold.MOST, 0.0, "GPU exporter does not answer")
    EXPORTER_EMPTY = (Scope.NODE, Fold.MOST, 0.0, "GPU exporter shows an empty page")
    EXPORTER_FROZEN = (Scope.NODE, Fold.MOST, 0.0, "GPU exporter repeats itself")
    EXPORTER_SLOW = (Scope.NODE, Fold.MOST, 0.0, "share of scrapes that time out")
    EXPORTER_VERSION = (Scope.NODE, Fold.MOST, 0.0, "1 once the GPU exporter was upgraded")
    HOST_EXPORTER_DOWN = (Scope.NODE, Fold.MOST, 0.0, "the node's other exporters do not answer")
    NOT_READY = (Scope.NODE, Fold.MOST, 0.0, "the scheduler calls it not ready")
    CORDONED = (Scope.NODE, Fold.MOST, 0.0, "cordoned")
    GONE = (Scope.NODE, Fold.MOST, 0.0, "out of the scheduler and of discovery")
    METER_DOWN = (Scope.RACK, Fold.MOST, 0.0, "the rack's meter does not answer")
    SOURCE_DOWN = (Scope.SITE, Fold.MOST, 0.0, "nothing is scraped")
    # Racks
    RACK_LOAD = (Scope.RACK, Fold.ADD, 0.0, "power of other things in the rack, W")
    FEED_A = (Scope.RACK, Fold.TIMES, 1.0, "share that feed A still carries")
    FEED_A_SILENT = (Scope.RACK, Fold.MOST, 0.0, "the meter of feed A is gone with it")

    @property
    def scope(self) -> Scope:
        return self.value[0]

    @property
    def fold(self) -> Fold:
        return self.value[1]

    @property
    def neutral(self) -> float:
        return self.value[2]


class Ramp(Enum):
    """How an effect comes on."""

    LINEAR = "linear"
    CREEPING = "creeping"  # fast at first, then ever slower: 95 % after the ramp


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """Attributes:
    where: which components of the knob's scope.
    value: when it has come on fully. A knob that folds by LEAST or MOST knows no half way: it jumps.
    """

    knob: Knob
    where: Ints
    value: float
    start_s: float
    end_s: float = math.inf
    ramp_s: float = 0.0
    ramp: Ramp = Ramp.LINEAR

    def level(self, now_s: float) -> float:
        """0 to 1, how far it has come on."""
        if self.ramp_s <= 0:
            return 1.0
        share = (now_s - self.start_s) / self.ramp_s
        return -math.expm1(-3.0 * share) if self.ramp is Ramp.CREEPING else min(1.0, share)

    def settles_at_s(self) -> float:
        if self.ramp_s <= 0:
            return self.start_s
        return math.inf if self.ramp is Ramp.CREEPING else self.start_s + self.ramp_s


class Knobs:
    """The values of all knobs, as the effects of the moment have them."""

    def __init__(self, sizes: Mapping[Scope, int]) -> None:
        self._values = {knob: np.full(sizes[knob.scope], knob.neutral) for knob in Knob}
        self._effects: list[Effect] = []
        self._turned: set[Knob] = set()
        self._unchanged_until_s = -math.inf

    def __getitem__(self, knob: Knob) -> Floats:
        return self._values[knob]

    def add(self, effects: Iterable[Effect]) -> None:
        self._effects.extend(effects)
        self._unchanged_until_s = -math.inf

    def end(self, knob: Knob, where: Ints, at_s: float) -> None:
        """What holds the knob of these components, and of no others, lets go by then."""
        self._effects = [
            replace(effect, end_s=min(effect.end_s, at_s))
            if effect.knob is knob and np.isin(effect.where, where).all()
            else effect
            for effect in self._effects
        ]
        self._unchanged_until_s = -math.inf

    def is_turned(self, knob: Knob) -> bool:
        """Whether anything holds it now. If not, all its values are neutral."""
        return knob in self._turned

    def refresh(self, now_s: float) -> None:
        if now_s < self._unchanged_until_s:
            return
        for knob in self._turned:
            self._values[knob][:] = knob.neutral
        self._effects = [effect for effect in self._effects if effect.end_s > now_s]
        acting = [effect for effect in self._effects if effect.start_s <= now_s]
        self._turned = {effect.knob for effect in acting}
        for effect in acting:
            _turn(self._values[effect.knob], effect, now_s)
        changes = [effect.start_s for effect in self._effects if effect.start_s > now_s]
        changes += [effect.end_s for effect in acting]
        changes += [now_s for effect in acting if effect.settles_at_s() > now_s]
        self._unchanged_until_s = min(changes, default=math.inf)


def _turn(values: Floats, effect: Effect, now_s: float) -> None:
    where, value = effect.where, effect.value
    match effect.knob.fold:
        case Fold.ADD:
            values[where] += value * effect.level(now_s)
        case Fold.TIMES:
            values[where] *= 1.0 + (value - 1.0) * effect.level(now_s)
        case Fold.LEAST:
            values[where] = np.minimum(values[where], value)
        case Fold.MOST:
            values[where] = np.maximum(values[where], value)
