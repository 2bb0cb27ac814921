"""Verbs on the power of a rack: cap its GPUs alike, hold the cap until the demand would fit, put the limits back.

All ranks of a gang wait for the slowest, so every GPU of the rack gets the same share. A cap has a time to live and falls
back to the static safe share, not to the maximum, when nobody renews it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from healer.actions.base import Ledger, Proposal, World
from healer.domain.component import Component
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.plan import Effect
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import NotFound, Unavailable
from healer.schema import Duration, Section

_LOOK_AGAIN = timedelta(seconds=2)
_TOLERANCE_W = 1.0
# A GPU this close to its limit would take more if it could: how much more is unknown.
_AT_THE_LIMIT = 0.95


@dataclass(frozen=True, slots=True)
class _Rack:
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


class _CapArguments(Section):
    """Attributes:
    share_of_budget: what the rack may draw while it is capped, as a share of its budget.
    fallback_share: the static safe share, should the daemon not come back to renew the cap.
    """

    share_of_budget: Annotated[float, Field(gt=0, le=1)] = 0.95
    fallback_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    ttl: Duration = timedelta(minutes=2)


class Cap:
    """power.cap: every GPU of the rack gets the same lower power limit, so that the rack is within its budget."""

    name: ClassVar[str] = "power.cap"
    Arguments: ClassVar[type[Section]] = _CapArguments

    def plan(self, arguments: _CapArguments, target: Component, world: World) -> Proposal:
        rack = _rack(target, world)
        if not rack.all_gpus:
            return Proposal(blockers=(f"no GPU of rack {rack.name} has a limit that is ours to change",))
        cap_w = _share(rack, arguments.share_of_budget, world.power_floor_w)
        default_w = max(gpu.default_w for gpu in rack.all_gpus)
        detail = f"{len(rack.all_gpus)} GPUs on {len(rack.gpus)} nodes from {default_w:.0f} W to {cap_w:.0f} W each"
        reachable_w = rack.overhead_w + sum(min(gpu.limit_w, cap_w) for gpu in (*rack.all_gpus, *rack.foreign))
        short = f"even at the floor of {world.power_floor_w:.0f} W the rack may draw {reachable_w:.0f} W"
        return Proposal(
            effects=(Effect("cap power", f"rack {rack.name}", detail),),
            impediments=(short,) if reachable_w > rack.budget_w else (),
        )

    def run(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:
        world = ledger.world
        rack = _rack(target, world)
        capped = {record.key: json.loads(record.found) for record in ledger.standing("cap/")}
        cap_w = max((found["cap_w"] for found in capped.values()), default=0.0) or _share(
            rack, arguments.share_of_budget, world.power_floor_w
        )
        fallback_w = _bounded(
            rack, arguments.fallback_share * rack.budget_w / max(1, len(rack.all_gpus)), world.power_floor_w, at_most=cap_w
        )
        for node, gpus in rack.gpus.items():
            limits = {gpu.gpu: cap_w for gpu in gpus}
            found = {"cap_w": cap_w, "fallback_w": fallback_w, "ttl_s": arguments.ttl.total_seconds(), "gpus": list(limits)}
            ledger.effect(
                f"cap/{node}",
                do=lambda node=node, limits=limits: _set(world, node, limits, arguments.ttl, fallback_w),  # type: ignore[misc]
                happened=lambda node=node, limits=limits: _holds(world, node, limits),  # type: ignore[misc]
                found=json.dumps(found),
            )
        return Done(f"{len(rack.all_gpus)} GPUs are limited to {cap_w:.0f} W")

    def verify(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """The rack's own meter has the word, and it must have measured after the cap was set."""
        settled = [r.settled_at for r in ledger.standing("cap/") if r.settled_at is not None]
        frame, row = _measured(target, ledger.world)
        power_w, budget_w = float(frame.racks.power_w[-1, row]), float(frame.racks.budget_w[row])
        if not settled or frame.at <= max(settled) or np.isnan(power_w):
            return RetryAfter(_LOOK_AGAIN, "waiting for the rack's meter")
        if power_w > budget_w:
            return RetryAfter(_LOOK_AGAIN, f"{power_w:.0f} W are still over the budget of {budget_w:.0f} W")
        return Done(f"the rack draws {power_w:.0f} W of {budget_w:.0f} W")

    def undo(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return _restore(ledger)


class AwaitHeadroom:
    """power.await_headroom: keep the caps of this run alive until the demand would fit without them."""

    name: ClassVar[str] = "power.await_headroom"

    class Arguments(Section):
        """Attributes:
        share_of_budget: the estimated demand without caps must be below this share of the budget,
        lasting: for this long.
        """

        share_of_budget: Annotated[float, Field(gt=0, le=1)] = 0.9
        lasting: Duration = timedelta(minutes=1)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal()

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        self._renew(ledger)
        frame, row = _measured(target, ledger.world)
        demand_w = _demand_without_caps(target, frame, row, arguments.lasting)
        limit_w = arguments.share_of_budget * float(frame.racks.budget_w[row])
        if np.isnan(demand_w):
            return RetryAfter(_LOOK_AGAIN, "the demand is unknown")
        if demand_w > limit_w:
            return RetryAfter(_LOOK_AGAIN, f"without caps up to {demand_w:.0f} W; waiting for {limit_w:.0f} W")
        return Done(f"without caps the rack would draw at most {demand_w:.0f} W")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()

    def _renew(self, ledger: Ledger) -> None:
        """Setting the same limit again changes nothing but its time to live, so it needs no intent of its own."""
        for record in ledger.standing("cap/", of_any_step=True):
            found = json.loads(record.found)
            ttl = timedelta(seconds=found["ttl_s"])
            limits = dict.fromkeys(found["gpus"], found["cap_w"])
            ledger.world.power.set_limits(_node(record.key), limits, ttl=ttl, fallback_w=found["fallback_w"])


class Restore:
    """power.restore: the limits that this run lowered are the device's defaults again, as they were found."""

    name: ClassVar[str] = "power.restore"

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal(effects=(Effect("restore power", f"rack {target.rack}", "when the demand fits again"),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return _restore(ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done()


def _rack(target: Component, world: World) -> _Rack:
    """Raises Unavailable while the meter or an agent does not answer: an unknown part is never left out of the sum."""
    frame, row = _measured(target, world)
    nodes = sorted({gpu.node for gpu in frame.gpus.components if gpu.rack == target.rack and gpu.node is not None})
    gpus = {node: world.power.limits(node) for node in nodes}
    power_w = float(frame.racks.power_w[-1, row])
    if np.isnan(power_w):
        raise Unavailable(f"rack {target.rack}", "its meter gives no current power")
    drawn_w = sum(gpu.power_w for members in gpus.values() for gpu in members)
    ours = {node: tuple(gpu for gpu in members if gpu.limit_w >= gpu.default_w - _TOLERANCE_W) for node, members in gpus.items()}
    return _Rack(
        name=str(target.rack),
        power_w=power_w,
        budget_w=float(frame.racks.budget_w[row]),
        overhead_w=max(0.0, power_w - drawn_w),
        gpus={node: members for node, members in ours.items() if members},
        foreign=tuple(gpu for members in gpus.values() for gpu in members if gpu.limit_w < gpu.default_w - _TOLERANCE_W),
    )


def _measured(target: Component, world: World) -> tuple[Frame, int]:
    frame = world.frame
    row = None if frame is None else frame.row_of(target)
    if frame is None or row is None:
        raise NotFound("rack", f"the telemetry has no rack {target.rack}")
    if np.isnan(frame.racks.budget_w[row]):
        raise NotFound("rack", f"rack {target.rack} has no budget; set topology.rack_budget_watts")
    return frame, row


def _share(rack: _Rack, share_of_budget: float, floor_w: float) -> float:
    """What each GPU may draw, in watts, if all of them draw it at once."""
    left_w = share_of_budget * rack.budget_w - rack.overhead_w - sum(gpu.limit_w for gpu in rack.foreign)
    return _bounded(rack, left_w / len(rack.all_gpus), floor_w, at_most=max(gpu.default_w for gpu in rack.all_gpus))


def _bounded(rack: _Rack, share_w: float, floor_w: float, *, at_most: float) -> float:
    lowest = max([floor_w, *(gpu.min_w for gpu in rack.all_gpus)])
    highest = min([at_most, *(gpu.max_w for gpu in rack.all_gpus)])
    return float(round(min(max(share_w, lowest), highest)))


def _demand_without_caps(target: Component, frame: Frame, row: int, lasting: timedelta) -> float:
    """An upper bound in watts: a GPU at its limit may want all of its default, any other what it draws."""
    members = np.array([gpu.rack == target.rack for gpu in frame.gpus.components])
    drawn = frame.window(Signal.POWER, lasting)[:, members]
    limit = frame.latest(Signal.POWER_LIMIT)[members]
    default = np.nanmax(frame.values[Signal.POWER_LIMIT][:, members], axis=0) if Signal.POWER_LIMIT in frame.values else limit
    rack_w = frame.rack_window(lasting)[:, row]
    if len(rack_w) < 2 or np.isnan(rack_w).any() or np.isnan(drawn).any() or np.isnan(limit).any():
        return float("nan")
    peak = drawn.max(axis=0)
    wanted = np.where(peak >= _AT_THE_LIMIT * limit, default, peak)
    overhead = np.maximum(0.0, rack_w - drawn.sum(axis=1)).max()
    return float(overhead + wanted.sum())


def _set(world: World, node: str, limits: Mapping[int, float], ttl: timedelta, fallback_w: float) -> str:
    world.power.set_limits(node, limits, ttl=ttl, fallback_w=fallback_w)
    return f"{len(limits)} GPUs limited"


def _holds(world: World, node: str, limits: Mapping[int, float]) -> bool:
    seen = {gpu.gpu: gpu.limit_w for gpu in world.power.limits(node)}
    return all(abs(seen.get(gpu, 0.0) - limit) <= _TOLERANCE_W for gpu, limit in limits.items())


def _restore(ledger: Ledger) -> Outcome:
    restored = 0
    for record in ledger.standing("cap/", of_any_step=True):
        gpus = json.loads(record.found)["gpus"]

        def restore(node: str = _node(record.key), gpus: list[int] = gpus) -> str:  # noqa: B006
            ledger.world.power.restore(node, gpus)
            return "restored"

        ledger.undo(record, do=restore)
        restored += len(gpus)
    return Done(f"{restored} GPUs have their default limit again")


def _node(key: str) -> str:
    return key.removeprefix("cap/")
