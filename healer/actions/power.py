"""Verbs on the power of a rack: cap its GPUs alike, hold the cap while it is needed, put the limits back.

All ranks of a gang wait for the slowest, so every GPU of the rack gets the same share. A cap has a time to live and
falls back to the static safe share, not to the maximum, when nobody renews it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from healer.actions.caps import (
    NodeCap,
    caps_in_line,
    caps_of,
    change_all,
    finish_change,
    first_number,
    last_change,
    renew,
    restore_all,
    set_cap,
)
from healer.actions.rack import RackPower, bounded, lowest_of, measured, rack_power, room_of, share_of
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.schema import Duration, Section
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=2)
_SMALLEST_CHANGE_W = 10.0


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
    target: ClassVar[ComponentKind | None] = ComponentKind.RACK
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False
    Arguments: ClassVar[type[_CapArguments]] = _CapArguments

    def plan(self, arguments: _CapArguments, target: Component, world: World) -> Proposal:
        rack = rack_power(target, world)
        if not rack.all_gpus:
            return Proposal(blockers=(f"no GPU of rack {rack.name} has a limit that is ours to change",))
        cap_w = share_of(rack, arguments.share_of_budget, world.power_floor_w)
        default_w = max(gpu.default_w for gpu in rack.all_gpus)
        detail = f"{len(rack.all_gpus)} GPUs on {len(rack.gpus)} nodes from {default_w:.0f} W to {cap_w:.0f} W each"
        reachable_w = rack.overhead_w + sum(min(gpu.limit_w, cap_w) for gpu in (*rack.all_gpus, *rack.foreign))
        short = f"even at the floor of {world.power_floor_w:.0f} W the rack may draw {reachable_w:.0f} W"
        return Proposal(
            effects=(Effect("cap power", f"rack {rack.name}", detail),),
            impediments=(short,) if reachable_w > rack.budget_w else (),
        )

    def run(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:
        begun = caps_of(ledger)
        own = ledger.standing("cap/", of_any_step=True)
        if begun and not finish_change(ledger, own) and _correct(ledger, arguments.share_of_budget, target):
            return RetryAfter(_LOOK_AGAIN, "the caps were lowered further; waiting for the rack's meter")
        rack = rack_power(target, ledger.world)
        if not begun and not rack.gpus:
            return Failed(f"no GPU of rack {rack.name} has a limit that is ours to change")
        first = next(iter(begun.values()), None) or _first_cap(rack, arguments, ledger.world.power_floor_w)
        number = first_number(ledger)
        for node, gpus in rack.gpus.items():
            if node not in begun:
                set_cap(ledger, node, replace(first, gpus=tuple(gpu.gpu for gpu in gpus)), number=number)
        return Done(f"GPUs of {len(begun.keys() | rack.gpus.keys())} nodes are limited to {first.cap_w:.0f} W")

    def verify(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """The rack's own meter has the word, and it must have measured after the cap was set."""
        frame, row = measured(target, ledger.world)
        changed_at = last_change(ledger)
        power_w, budget_w = float(frame.racks.power_w[-1, row]), float(frame.racks.budget_w[row])
        if changed_at is None or frame.at <= changed_at or np.isnan(power_w):
            return RetryAfter(_LOOK_AGAIN, "waiting for the rack's meter")
        if power_w > budget_w:
            return RetryAfter(_LOOK_AGAIN, f"{power_w:.0f} W are still over the budget of {budget_w:.0f} W")
        return Done(f"the rack draws {power_w:.0f} W of {budget_w:.0f} W")

    def undo(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return restore_all(ledger)


class Hold:
    """power.hold: keep the caps of this run alive, and raise or lower them with the demand, until they no longer bind.

    A raise gives the GPUs that are at their limit no more than the room that the meter shows, so that it cannot bring
    the rack over its budget; a rack that is over it again is lowered at once. Caps that earlier runs of the
    incident have kept are held as well.
    """

    name: ClassVar[str] = "power.hold"
    target: ClassVar[ComponentKind | None] = ComponentKind.RACK
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        share_of_budget: limits are raised as long as the rack would stay below this share of its budget,
        lasting: and it has been so for this long, which is also the pause after each raise.
        """

        share_of_budget: Annotated[float, Field(gt=0, le=1)] = 0.9
        lasting: Duration = timedelta(minutes=1)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal()

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        caps = caps_in_line(ledger)
        if not caps:
            return Done("there is no cap to hold")
        if finish_change(ledger, ledger.standing_in_line("cap/")):
            return RetryAfter(_LOOK_AGAIN, "finished a change that was interrupted")
        for node, cap in caps.items():
            renew(ledger, node, cap)
        return self._adjusted(arguments, target, ledger, caps)

    def _adjusted(
        self, arguments: Arguments, target: Component, ledger: Ledger, caps: Mapping[str, NodeCap]
    ) -> Outcome:
        frame, row = measured(target, ledger.world)
        cap_w = max(cap.cap_w for cap in caps.values())
        default_w = max(cap.default_w for cap in caps.values())
        since = max(last_change(ledger) or frame.at, frame.at - arguments.lasting)
        room = room_of(target, frame, row, cap_w=cap_w, share=arguments.share_of_budget, since=since)
        if room is None:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; the meter or a GPU is unknown")
        if frame.at - since < arguments.lasting and not room.over_budget:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; waiting for what the last change does")
        if not room.over_budget and (room.binding == 0 or cap_w + room.each_w >= default_w):
            return Done(f"the limit of {cap_w:.0f} W is not needed any more")
        if not room.over_budget and room.each_w < 0:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; there is no room for more")
        wanted_w = float(math.floor(cap_w + room.each_w))
        if room.over_budget:
            wanted_w = _lowered(caps, cap_w, wanted_w)
        if wanted_w < cap_w or wanted_w >= cap_w + _SMALLEST_CHANGE_W:
            change_all(ledger, caps, wanted_w)
        return RetryAfter(_LOOK_AGAIN, f"at {wanted_w:.0f} W; {room.binding} GPUs would take more")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("the caps do not bind")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return restore_all(ledger)


class Restore:
    """power.restore: the limits that this run lowered are the device's defaults again, as they were found; those, too,
    that earlier runs of the incident have kept.
    """

    name: ClassVar[str] = "power.restore"
    target: ClassVar[ComponentKind | None] = None
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal(effects=(Effect("restore power", str(target), "when the limits are not needed any more"),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return restore_all(ledger, in_line=True)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        left = ledger.standing_in_line("cap/")
        return RetryAfter(_LOOK_AGAIN, f"{left[0].key} stands") if left else Done("every limit is back as it was found")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        return self.run(arguments, target, ledger)


def _first_cap(rack: RackPower, arguments: _CapArguments, floor_w: float) -> NodeCap:
    cap_w = share_of(rack, arguments.share_of_budget, floor_w)
    static_w = arguments.fallback_share * rack.budget_w / len(rack.all_gpus)
    return NodeCap(
        cap_w=cap_w,
        fallback_w=bounded(rack, static_w, floor_w, at_most=cap_w),
        default_w=max(gpu.default_w for gpu in rack.all_gpus),
        lowest_w=lowest_of(rack, floor_w),
        ttl_s=arguments.ttl.total_seconds(),
        gpus=(),
    )


def _correct(ledger: Ledger, share_of_budget: float, target: Component) -> bool:
    """Lower the caps by what the meter shows beyond the share; False if they are within the budget, or not known to be.

    The first cap is an estimate from readings that the rising load has overtaken.
    """
    frame, row = measured(target, ledger.world)
    changed_at, caps = last_change(ledger), caps_of(ledger)
    if changed_at is None or frame.at <= changed_at:
        return False
    since_w, budget_w = frame.rack_window(frame.at - changed_at)[:, row], float(frame.racks.budget_w[row])
    if len(since_w) < 2 or not since_w[-1] > budget_w:  # the first reading may have been taken before the change
        return False
    cap_w = max(cap.cap_w for cap in caps.values())
    over_w = float(since_w[-1]) - share_of_budget * budget_w
    wanted_w = _lowered(caps, cap_w, math.floor(cap_w - over_w / sum(len(cap.gpus) for cap in caps.values())))
    if wanted_w >= cap_w:
        return False
    change_all(ledger, caps, wanted_w)
    return True


def _lowered(caps: Mapping[str, NodeCap], cap_w: float, wanted_w: float) -> float:
    """The next limit of a rack that is over its budget: a step at least, however little it is over, to the floor."""
    return max(min(wanted_w, cap_w - _SMALLEST_CHANGE_W), *(cap.lowest_w for cap in caps.values()))
