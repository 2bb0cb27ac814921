"""What the links of a simulated fleet carry and get wrong: NVLink and PCIe of GPUs, fabric ports of nodes; and the wear
of memory, which is counted the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healer.domain.axes import Bools, Floats, Ints
from healer.sim.activity import Row
from healer.sim.knobs import Knob, Knobs
from healer.sim.state import GpuState, PortState

ACTIVE, DOWN = 4.0, 1.0
LINK_UP, POLLING, DISABLED = 5.0, 2.0, 3.0

_NVLINK_MB = 1024.0 * 1000.0
_HEARTBEAT_BYTES = 40.0  # a second, on a fabric port that nobody uses
_BUSY_PERCENT = 1.0


@dataclass(frozen=True, slots=True)
class Background:
    """The harmless errors of a healthy fleet, per component and second. The luck of each differs a good deal."""

    sbe: float = 2e-7
    pcie_replay: float = 1e-5
    nvlink_crc: float = 2e-7
    nvlink_replay: float = 1e-7
    symbol: float = 2e-6


class Wear:
    """Counts errors: the background, and what knobs add to it.

    Args:
        luck: (n_gpus,) each GPU's share of the background.
    """

    def __init__(self, background: Background, luck: Floats) -> None:
        self._background = background
        self._chances = np.cumsum(luck / luck.sum())

    def step(self, state: GpuState, knobs: Knobs, *, dt_s: float, rng: np.random.Generator) -> None:
        common = self._background
        here = self._struck(common.sbe, dt_s, rng)
        _count(state.sbe_volatile, here)
        _count(state.sbe_aggregate, here)
        _count(state.pcie_replays, self._struck(common.pcie_replay, dt_s, rng))
        _count(state.nvlink_crc_data, self._struck(common.nvlink_crc, dt_s, rng))
        _count(state.nvlink_replays, self._struck(common.nvlink_replay, dt_s, rng))
        _grow((state.sbe_volatile, state.sbe_aggregate), knobs, Knob.SBE_RATE, dt_s=dt_s, rng=rng)
        _grow((state.pcie_replays, state.pcie_correctable), knobs, Knob.PCIE_REPLAY_RATE, dt_s=dt_s, rng=rng)
        crc = (state.nvlink_crc_flit, state.nvlink_crc_data, state.nvlink_crc)
        _grow(crc, knobs, Knob.NVLINK_CRC_RATE, dt_s=dt_s, rng=rng)
        _grow((state.nvlink_replays,), knobs, Knob.NVLINK_REPLAY_RATE, dt_s=dt_s, rng=rng)
        _grow((state.nvlink_recoveries,), knobs, Knob.NVLINK_RECOVERY_RATE, dt_s=dt_s, rng=rng)

    def _struck(self, rate: float, dt_s: float, rng: np.random.Generator) -> Ints:
        """Rare, so drawn for the fleet and dealt out, not drawn for each GPU."""
        errors = rng.poisson(rate * len(self._chances) * dt_s)
        return np.searchsorted(self._chances, rng.random(errors)) if errors else np.empty(0, dtype=np.int64)


def carry(state: GpuState, knobs: Knobs, activity: Floats, *, sleepy: Bools, dt_s: float) -> None:
    """Moves the traffic of NVLink and PCIe, and says what state the links are in.

    Args:
        sleepy: (n_gpus,) whether the GPU's PCIe link falls to its lowest generation while nothing is done.
    """
    nvlink = activity[Row.NVLINK]
    if knobs.is_turned(Knob.NVLINK_DOWN):
        nvlink = np.where(knobs[Knob.NVLINK_DOWN] > 0, 0.8 * nvlink, nvlink)
    state.nvlink_tx[:] = nvlink
    state.nvlink_rx[:] = 0.985 * nvlink
    state.nvlink_mb[:] = np.floor(1.985 * nvlink / _NVLINK_MB)
    state.nvlink_sent[:] += np.floor(nvlink * dt_s)
    state.nvlink_received[:] += np.floor(0.985 * nvlink * dt_s)
    state.nvlink_state[:] = knobs[Knob.NVLINK_DOWN] <= 0
    lanes = knobs[Knob.PCIE_WIDTH]
    share = np.minimum(1.0, lanes / 16.0 * 2.0 ** (knobs[Knob.PCIE_GENERATION] - 5.0))
    # Most work is far from what 16 lanes carry; what is not gets its share of it.
    ceiling = 5.5e10 * share
    state.pcie_tx[:] = np.minimum(activity[Row.PCIE_SENT], ceiling)
    state.pcie_rx[:] = np.minimum(activity[Row.PCIE_RECEIVED], ceiling)
    state.pcie_width[:] = lanes
    asleep = sleepy & (state.util_percent < _BUSY_PERCENT)
    state.pcie_generation[:] = np.where(asleep, 1.0, knobs[Knob.PCIE_GENERATION])


class Fabric:
    """The fabric ports of all nodes.

    Args:
        used: (n_ports,) whether a cable was ever plugged in.
        of_gpu: (n_gpus,) which port carries the GPU's traffic.
    """

    def __init__(self, used: Bools, of_gpu: Ints, background: Background) -> None:
        self._used = used
        self._of_gpu = of_gpu
        self._symbol_rate = background.symbol
        self._was_down = ~used

    def settle(self, state: PortState) -> None:
        state.state_id[:] = np.where(self._used, ACTIVE, DOWN)
        state.physical_state_id[:] = np.where(self._used, LINK_UP, DISABLED)

    def step(self, state: PortState, knobs: Knobs, activity: Floats, *, dt_s: float, rng: np.random.Generator) -> None:
        n = len(self._used)
        if not n:
            return
        down = ~self._used
        if knobs.is_turned(Knob.PORT_DOWN):
            down = down | (knobs[Knob.PORT_DOWN] > 0)
        if (down != self._was_down).any():
            fell = down & ~self._was_down
            state.link_downed[fell] += 1
            state.carrier_changes[down != self._was_down] += 1
            state.state_id[:] = np.where(down, DOWN, ACTIVE)
            state.physical_state_id[:] = np.where(down, np.where(self._used, POLLING, DISABLED), LINK_UP)
            self._was_down = down
        moved = np.bincount(self._of_gpu, weights=activity[Row.FABRIC], minlength=n) + _HEARTBEAT_BYTES
        moved = np.floor(moved * ~down * dt_s)
        state.sent[:] += moved
        state.received[:] += np.floor(0.99 * moved)
        struck = rng.poisson(self._symbol_rate * n * dt_s)
        if struck:
            _count(state.symbol_errors, rng.integers(0, n, struck))
        _grow((state.symbol_errors,), knobs, Knob.SYMBOL_RATE, dt_s=dt_s, rng=rng)
        _grow((state.receive_errors,), knobs, Knob.PORT_ERROR_RATE, dt_s=dt_s, rng=rng)


def _count(counter: Floats, where: Ints) -> None:
    if len(where):
        np.add.at(counter, where, 1.0)


def _grow(counters: tuple[Floats, ...], knobs: Knobs, knob: Knob, *, dt_s: float, rng: np.random.Generator) -> None:
    """The same errors count in all of these."""
    if knobs.is_turned(knob):
        where = np.flatnonzero(knobs[knob])
        grown = rng.poisson(knobs[knob][where] * dt_s)
        for counter in counters:
            counter[where] += grown
