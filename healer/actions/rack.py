"""A rack's power as the telemetry and its agents see it, and what each of its GPUs may draw. Watts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from healer.domain.component import Component
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.signal import Signal
from healer.errors import NotFound, Unavailable
from healer.verb import World

TOLERANCE_W = 1.0  # devices round a limit to what they can regulate
# A GPU this close to its limit would take more if it could: how much more is unknown.
_AT_THE_LIMIT = 0.95


@dataclass(frozen=True, slots=True)
class RackPower:
    """A rack as the telemetry and its agents see it now. Watts.

    Attributes:
        overhead_w: what the rack draws beside its GPUs.
        gpus: node -> its GPUs that nobody else has limited.
        foreign: GPUs whose limit somebody else lowered; they are left alone.
    """

    name: str
    power_w: float
    budget_w: float
    overhead_w: float
    gpus: Mapping[str, tuple[GpuPower, ...]]
    foreign: tuple[GpuPower, ...]

    @property
    def all_gpus(self) -> tuple[GpuPower, ...]:
        return tuple(gpu for gpus in self.gpus.values() for gpu in gpus)


def rack_power(target: Component, world: World) -> RackPower:
    """Raises Unavailable while the meter or an agent does not answer: an unknown part is never left out of the sum."""
    frame, row = measured(target, world)
    nodes = sorted({gpu.node for gpu in frame.gpus.components if gpu.rack == target.rack and gpu.node is not None})
    gpus = {node: world.power.limits(node) for node in nodes}
    power_w = float(frame.racks.power_w[-1, row])
    if np.isnan(power_w):
        raise Unavailable(f"rack {target.rack}", "its meter gives no current power")
    # Of the meter's own instant where the telemetry has it: while the load rises, what the agents read a moment later
    # would leave too little for the rest of the rack, and the cap would be too high.
    measured_w = frame.latest(Signal.POWER)[_members(target, frame)]
    read_w = sum(gpu.power_w for members in gpus.values() for gpu in members)
    drawn_w = read_w if np.isnan(measured_w).any() else float(measured_w.sum())
    ours = {
        node: tuple(gpu for gpu in members if gpu.limit_w >= gpu.default_w - TOLERANCE_W)
        for node, members in gpus.items()
    }
    return RackPower(
        name=str(target.rack),
        power_w=power_w,
        budget_w=float(frame.racks.budget_w[row]),
        overhead_w=max(0.0, power_w - drawn_w),
        gpus={node: members for node, members in ours.items() if members},
        foreign=tuple(gpu for members in gpus.values() for gpu in members if gpu.limit_w < gpu.default_w - TOLERANCE_W),
    )


def measured(target: Component, world: World) -> tuple[Frame, int]:
    frame = world.frame
    row = None if frame is None else frame.row_of(target)
    if frame is None or row is None:
        # Also right after a start. It is unknown, and a run that holds a cap must not give it up for that.
        raise Unavailable("telemetry", f"knows nothing of rack {target.rack} yet")
    if np.isnan(frame.racks.budget_w[row]):
        raise NotFound("rack", f"rack {target.rack} has no budget; set topology.rack_budget_watts")
    return frame, row


def share_of(rack: RackPower, share_of_budget: float, floor_w: float) -> float:
    """What each GPU may draw, in watts, if all of them draw it at once."""
    left_w = share_of_budget * rack.budget_w - rack.overhead_w - sum(gpu.limit_w for gpu in rack.foreign)
    return bounded(rack, left_w / len(rack.all_gpus), floor_w, at_most=max(gpu.default_w for gpu in rack.all_gpus))


def bounded(rack: RackPower, share_w: float, floor_w: float, *, at_most: float) -> float:
    lowest = lowest_of(rack, floor_w)
    highest = min([at_most, *(gpu.max_w for gpu in rack.all_gpus)])
    return min(max(float(math.floor(share_w)), lowest), highest)


def lowest_of(rack: RackPower, floor_w: float) -> float:
    """No cap goes below the configured floor, nor below what any of the devices takes."""
    return max([floor_w, *(gpu.min_w for gpu in rack.all_gpus)])


@dataclass(frozen=True, slots=True)
class Room:
    """Attributes:
    binding: how many GPUs are at their limit and might take more.
    each_w: what each of those may take more, in watts; negative when the rack must come down.
    """

    binding: int
    each_w: float
    over_budget: bool


def room_of(target: Component, frame: Frame, row: int, *, cap_w: float, share: float, since: datetime) -> Room | None:
    """By the samples after `since`; None while there are none, or anything that counts is unknown."""
    span = frame.at - since
    members = _members(target, frame)
    drawn_w = frame.window(Signal.POWER, span)[:, members]
    rack_w = frame.rack_window(span)[:, row]
    budget_w = float(frame.racks.budget_w[row])
    if span <= timedelta(0) or np.isnan(rack_w).any() or np.isnan(drawn_w).any():
        return None
    binding = int(np.count_nonzero(drawn_w.max(axis=0) >= _AT_THE_LIMIT * cap_w))
    over = float(rack_w[-1]) > budget_w
    power_w = float(rack_w[-1]) if over else float(rack_w.max())
    return Room(binding, (share * budget_w - power_w) / max(1, binding), over)


def _members(target: Component, frame: Frame) -> NDArray[np.bool_]:
    """(n_gpus,) which GPUs of the frame are in the rack."""
    return np.array([gpu.rack == target.rack for gpu in frame.gpus.components], dtype=np.bool_)
