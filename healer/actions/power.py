"""Verbs on the power of a rack: cap its GPUs alike, hold the cap while it is needed, put the limits back.

All ranks of a gang wait for the slowest, so every GPU of the rack gets the same share. A cap has a time to live and
falls back to the static safe share, not to the maximum, when nobody renews it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from pydantic import Field

from healer.actions.base import Ledger, Proposal, World
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import GpuPower
from healer.domain.frame import Frame
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import NotFound, Rejected, Unavailable
from healer.ports import PowerControl
from healer.schema import Duration, Section

_LOOK_AGAIN = timedelta(seconds=2)
_TOLERANCE_W = 1.0
_SMALLEST_CHANGE_W = 10.0
SUPERSEDED = "superseded by a later cap"
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
    target: ClassVar[ComponentKind] = ComponentKind.RACK
    Arguments: ClassVar[type[_CapArguments]] = _CapArguments

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
        begun = _caps_of(ledger)
        if begun and not _finish_change(ledger) and _correct(ledger, arguments.share_of_budget, target):
            return RetryAfter(_LOOK_AGAIN, "the caps were lowered further; waiting for the rack's meter")
        rack = _rack(target, ledger.world)
        if not begun and not rack.gpus:
            return Failed(f"no GPU of rack {rack.name} has a limit that is ours to change")
        first = next(iter(begun.values()), None) or _first_cap(rack, arguments, ledger.world.power_floor_w)
        for node, gpus in rack.gpus.items():
            if node not in begun:
                _set_cap(ledger, node, replace(first, gpus=tuple(gpu.gpu for gpu in gpus)), number=1)
        return Done(f"GPUs of {len(begun.keys() | rack.gpus.keys())} nodes are limited to {first.cap_w:.0f} W")

    def verify(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """The rack's own meter has the word, and it must have measured after the cap was set."""
        frame, row = _measured(target, ledger.world)
        changed_at = _last_change(ledger)
        power_w, budget_w = float(frame.racks.power_w[-1, row]), float(frame.racks.budget_w[row])
        if changed_at is None or frame.at <= changed_at or np.isnan(power_w):
            return RetryAfter(_LOOK_AGAIN, "waiting for the rack's meter")
        if power_w > budget_w:
            return RetryAfter(_LOOK_AGAIN, f"{power_w:.0f} W are still over the budget of {budget_w:.0f} W")
        return Done(f"the rack draws {power_w:.0f} W of {budget_w:.0f} W")

    def undo(self, arguments: _CapArguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return _restore(ledger)


class Hold:
    """power.hold: keep the caps of this run alive, and raise or lower them with the demand, until they no longer bind.

    A raise gives the GPUs that are at their limit no more than the room that the meter shows, so that it cannot bring
    the rack over its budget; a rack that is over it again is lowered at once.
    """

    name: ClassVar[str] = "power.hold"
    target: ClassVar[ComponentKind] = ComponentKind.RACK

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
        if _finish_change(ledger):
            return RetryAfter(_LOOK_AGAIN, "finished a change that was interrupted")
        caps = _caps_of(ledger)
        for node, cap in caps.items():
            # The same limit again changes nothing but its time to live, so it needs no intent of its own.
            _set_present(ledger.world.power, node, cap)
        frame, row = _measured(target, ledger.world)
        cap_w = max(cap.cap_w for cap in caps.values())
        default_w = max(cap.default_w for cap in caps.values())
        since = max(_last_change(ledger) or frame.at, frame.at - arguments.lasting)
        room = _room(target, frame, row, cap_w=cap_w, share=arguments.share_of_budget, since=since)
        if room is None:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; the meter or a GPU is unknown")
        if frame.at - since < arguments.lasting and not room.over_budget:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; waiting for what the last change does")
        if not room.over_budget and (room.binding == 0 or cap_w + room.each_w >= default_w):
            return Done(f"the limit of {cap_w:.0f} W is not needed any more")
        if not room.over_budget and room.each_w < 0:
            return RetryAfter(_LOOK_AGAIN, f"at {cap_w:.0f} W; there is no room for more")
        wanted_w = max(float(math.floor(cap_w + room.each_w)), *(cap.lowest_w for cap in caps.values()))
        if abs(wanted_w - cap_w) >= _SMALLEST_CHANGE_W:
            _change(ledger, caps, wanted_w)
        return RetryAfter(_LOOK_AGAIN, f"at {wanted_w:.0f} W; {room.binding} GPUs would take more")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("the caps do not bind")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return _restore(ledger)


class Restore:
    """power.restore: the limits that this run lowered are the device's defaults again, as they were found."""

    name: ClassVar[str] = "power.restore"
    target: ClassVar[ComponentKind] = ComponentKind.RACK

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        return Proposal(effects=(Effect("restore power", f"rack {target.rack}", "when the demand fits again"),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return _restore(ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        left = ledger.standing("cap/", of_any_step=True)
        return RetryAfter(_LOOK_AGAIN, f"{left[0].key} stands") if left else Done("every limit is back as it was found")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        return self.run(arguments, target, ledger)


def _rack(target: Component, world: World) -> _Rack:
    """Raises Unavailable while the meter or an agent does not answer: an unknown part is never left out of the sum."""
    frame, row = _measured(target, world)
    nodes = sorted({gpu.node for gpu in frame.gpus.components if gpu.rack == target.rack and gpu.node is not None})
    gpus = {node: world.power.limits(node) for node in nodes}
    power_w = float(frame.racks.power_w[-1, row])
    if np.isnan(power_w):
        raise Unavailable(f"rack {target.rack}", "its meter gives no current power")
    # Of the meter's own instant where the telemetry has it: while the load rises, what the agents read a moment later
    # would leave too little for the rest of the rack, and the cap would be too high.
    measured_w = frame.latest(Signal.POWER)[[gpu.rack == target.rack for gpu in frame.gpus.components]]
    read_w = sum(gpu.power_w for members in gpus.values() for gpu in members)
    drawn_w = read_w if np.isnan(measured_w).any() else float(measured_w.sum())
    ours = {
        node: tuple(gpu for gpu in members if gpu.limit_w >= gpu.default_w - _TOLERANCE_W)
        for node, members in gpus.items()
    }
    return _Rack(
        name=str(target.rack),
        power_w=power_w,
        budget_w=float(frame.racks.budget_w[row]),
        overhead_w=max(0.0, power_w - drawn_w),
        gpus={node: members for node, members in ours.items() if members},
        foreign=tuple(
            gpu for members in gpus.values() for gpu in members if gpu.limit_w < gpu.default_w - _TOLERANCE_W
        ),
    )


def _measured(target: Component, world: World) -> tuple[Frame, int]:
    frame = world.frame
    row = None if frame is None else frame.row_of(target)
    if frame is None or row is None:
        # Also right after a start. It is unknown, and a run that holds a cap must not give it up for that.
        raise Unavailable("telemetry", f"knows nothing of rack {target.rack} yet")
    if np.isnan(frame.racks.budget_w[row]):
        raise NotFound("rack", f"rack {target.rack} has no budget; set topology.rack_budget_watts")
    return frame, row


def _share(rack: _Rack, share_of_budget: float, floor_w: float) -> float:
    """What each GPU may draw, in watts, if all of them draw it at once."""
    left_w = share_of_budget * rack.budget_w - rack.overhead_w - sum(gpu.limit_w for gpu in rack.foreign)
    return _bounded(rack, left_w / len(rack.all_gpus), floor_w, at_most=max(gpu.default_w for gpu in rack.all_gpus))


def _bounded(rack: _Rack, share_w: float, floor_w: float, *, at_most: float) -> float:
    lowest = _lowest(rack, floor_w)
    highest = min([at_most, *(gpu.max_w for gpu in rack.all_gpus)])
    return min(max(float(math.floor(share_w)), lowest), highest)


def _lowest(rack: _Rack, floor_w: float) -> float:
    """No cap goes below the configured floor, nor below what any of the devices takes."""
    return max([floor_w, *(gpu.min_w for gpu in rack.all_gpus)])


@dataclass(frozen=True, slots=True)
class _Room:
    """Attributes:
    binding: how many GPUs are at their limit and might take more.
    each_w: what each of those may take more, in watts; negative when the rack must come down.
    """

    binding: int
    each_w: float
    over_budget: bool


def _room(target: Component, frame: Frame, row: int, *, cap_w: float, share: float, since: datetime) -> _Room | None:
    """By the samples after `since`; None while there are none, or anything that counts is unknown."""
    span = frame.at - since
    members = np.array([gpu.rack == target.rack for gpu in frame.gpus.components])
    drawn_w = frame.window(Signal.POWER, span)[:, members]
    rack_w = frame.rack_window(span)[:, row]
    budget_w = float(frame.racks.budget_w[row])
    if span <= timedelta(0) or np.isnan(rack_w).any() or np.isnan(drawn_w).any():
        return None
    binding = int(np.count_nonzero(drawn_w.max(axis=0) >= _AT_THE_LIMIT * cap_w))
    over = float(rack_w[-1]) > budget_w
    power_w = float(rack_w[-1]) if over else float(rack_w.max())
    return _Room(binding, (share * budget_w - power_w) / max(1, binding), over)


def _first_cap(rack: _Rack, arguments: _CapArguments, floor_w: float) -> _NodeCap:
    cap_w = _share(rack, arguments.share_of_budget, floor_w)
    static_w = arguments.fallback_share * rack.budget_w / len(rack.all_gpus)
    return _NodeCap(
        cap_w=cap_w,
        fallback_w=_bounded(rack, static_w, floor_w, at_most=cap_w),
        default_w=max(gpu.default_w for gpu in rack.all_gpus),
        lowest_w=_lowest(rack, floor_w),
        ttl_s=arguments.ttl.total_seconds(),
        gpus=(),
    )


@dataclass(frozen=True, slots=True)
class _NodeCap:
    """What one effect on one node set, as the journal keeps it."""

    cap_w: float
    fallback_w: float
    default_w: float
    lowest_w: float
    ttl_s: float
    gpus: tuple[int, ...]

    @property
    def limits(self) -> Mapping[int, float]:
        return dict.fromkeys(self.gpus, self.cap_w)

    @property
    def ttl(self) -> timedelta:
        return timedelta(seconds=self.ttl_s)


def _caps_of(ledger: Ledger) -> dict[str, _NodeCap]:
    """The newest cap of this run on each node."""
    return {
        _node(record.key): msgspec.json.decode(record.found, type=_NodeCap)
        for record in ledger.standing("cap/", of_any_step=True)
    }


def _last_change(ledger: Ledger) -> datetime | None:
    settled = [
        record.settled_at for record in ledger.standing("cap/", of_any_step=True) if record.settled_at is not None
    ]
    return max(settled, default=None)


def _set_cap(ledger: Ledger, node: str, cap: _NodeCap, *, number: int) -> None:
    power = ledger.world.power

    def set_limits() -> str:
        _set_present(power, node, cap)
        return f"{len(cap.gpus)} GPUs at {cap.cap_w:.0f} W"

    def holds() -> bool:
        seen = {gpu.gpu: gpu.limit_w for gpu in power.limits(node)}
        return all(abs(seen[gpu] - watts) <= _TOLERANCE_W for gpu, watts in cap.limits.items() if gpu in seen)

    ledger.effect(f"cap/{node}/{number}", do=set_limits, happened=holds, found=msgspec.json.encode(cap).decode())


def _set_present(power: PowerControl, node: str, cap: _NodeCap) -> None:
    """Set the limits of the node's GPUs; one that has been lost since must not cost the others their cap."""
    try:
        power.set_limits(node, cap.limits, ttl=cap.ttl, fallback_w=cap.fallback_w)
    except Rejected:
        present = _present(power, node, cap)
        if len(present) == len(cap.gpus):
            raise
        if present:
            power.set_limits(node, dict.fromkeys(present, cap.cap_w), ttl=cap.ttl, fallback_w=cap.fallback_w)


def _restore_present(power: PowerControl, node: str, cap: _NodeCap) -> None:
    try:
        power.restore(node, cap.gpus)
    except Rejected:
        present = _present(power, node, cap)
        if len(present) == len(cap.gpus):
            raise
        if present:
            power.restore(node, present)


def _present(power: PowerControl, node: str, cap: _NodeCap) -> tuple[int, ...]:
    """The GPUs of the cap that the agent still reports."""
    seen = {gpu.gpu for gpu in power.limits(node)}
    return tuple(gpu for gpu in cap.gpus if gpu in seen)


def _change(ledger: Ledger, caps: Mapping[str, _NodeCap], wanted_w: float) -> None:
    number = 1 + len([record for record in ledger.records if record.key.startswith("cap/")])
    for node, cap in caps.items():
        changed = replace(cap, cap_w=wanted_w, fallback_w=min(cap.fallback_w, wanted_w))
        _set_cap(ledger, node, changed, number=number)


def _correct(ledger: Ledger, share_of_budget: float, target: Component) -> bool:
    """Lower the caps by what the meter shows beyond the share; False if they are within the budget, or not known to be.

    The first cap is an estimate from readings that the rising load has overtaken.
    """
    frame, row = _measured(target, ledger.world)
    changed_at, caps = _last_change(ledger), _caps_of(ledger)
    if changed_at is None or frame.at <= changed_at:
        return False
    since_w, budget_w = frame.rack_window(frame.at - changed_at)[:, row], float(frame.racks.budget_w[row])
    if len(since_w) < 2 or not since_w[-1] > budget_w:  # the first reading may have been taken before the change
        return False
    cap_w, lowest_w = max(cap.cap_w for cap in caps.values()), max(cap.lowest_w for cap in caps.values())
    over_w = float(since_w[-1]) - share_of_budget * budget_w
    wanted_w = max(float(math.floor(cap_w - over_w / sum(len(cap.gpus) for cap in caps.values()))), lowest_w)
    if cap_w - wanted_w < _SMALLEST_CHANGE_W:
        return False
    _change(ledger, caps, wanted_w)
    return True


def _finish_change(ledger: Ledger) -> bool:
    """Bring every node to the newest change, so that the ranks of a gang stay alike; False if it was complete."""
    newest_of = {_node(record.key): record for record in ledger.standing("cap/", of_any_step=True)}
    newest = max(newest_of.values(), key=_number)
    wanted = msgspec.json.decode(newest.found, type=_NodeCap)
    late = [r for r in newest_of.values() if _number(r) < _number(newest) or r.state is EffectState.INTENT]
    for record in late:
        cap = replace(wanted, gpus=msgspec.json.decode(record.found, type=_NodeCap).gpus)
        _set_cap(ledger, _node(record.key), cap, number=_number(newest))
    return bool(late)


def _restore(ledger: Ledger) -> Outcome:
    """Put the default limits back on every node that this run capped; the earlier caps there go with the newest.

    A node that cannot be restored does not keep the others from it.
    """
    failures: list[Unavailable | Rejected] = []
    for node, cap in _caps_of(ledger).items():

        def restore(node: str = node, cap: _NodeCap = cap) -> str:
            _restore_present(ledger.world.power, node, cap)
            return f"{len(cap.gpus)} GPUs back at {cap.default_w:.0f} W"

        *earlier, newest = [r for r in ledger.standing("cap/", of_any_step=True) if _node(r.key) == node]
        try:
            ledger.undo(newest, do=restore)
        except (Unavailable, Rejected) as error:
            failures.append(error)
            continue
        for record in earlier:
            ledger.undo(record, do=lambda: SUPERSEDED)
    if failures:
        # One that may answer later is asked again before the step is given up.
        raise next((error for error in failures if isinstance(error, Unavailable)), failures[0])
    return Done("the GPUs have their default limits again")


def _node(key: str) -> str:
    """`cap/NODE/NUMBER` as NODE."""
    return key.split("/")[1]


def _number(record: EffectRecord) -> int:
    """`cap/NODE/NUMBER` as NUMBER."""
    return int(record.key.rpartition("/")[2])
