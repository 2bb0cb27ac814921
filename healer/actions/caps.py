"""Power caps as the journal keeps them: one effect per node and change. A crash leaves no GPU unlike its gang.

What a run has capped and kept is also that of the later runs of its incident: they renew it, change it, and
put it back. A limit that is lower than ours, and none of those, was set by somebody else meanwhile: it is
neither raised again nor put back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from healer.actions.rack import TOLERANCE_W
from healer.decoding import decode
from healer.domain.run import Done, EffectRecord, EffectState, Outcome
from healer.errors import Rejected, Unavailable
from healer.ports import PowerControl
from healer.verb import Ledger

SUPERSEDED = "superseded by a later cap"


@dataclass(frozen=True, slots=True)
class NodeCap:
    """What one effect on one node set, as the journal keeps it.

    Attributes:
        cap_w: the limit of each GPU; the highest of them where they are unlike.
        default_w: the same of the limits that they go back to.
        each_w: the limits of `gpus`, one by one, where they are unlike; empty where all are `cap_w`.
    """

    cap_w: float
    fallback_w: float
    default_w: float
    lowest_w: float
    ttl_s: float
    gpus: tuple[int, ...]
    each_w: tuple[float, ...] = ()

    @property
    def limits(self) -> Mapping[int, float]:
        return dict(zip(self.gpus, self.each_w or (self.cap_w,) * len(self.gpus), strict=True))

    @property
    def ttl(self) -> timedelta:
        return timedelta(seconds=self.ttl_s)


def caps_of(ledger: Ledger) -> dict[str, NodeCap]:
    """The newest cap of this run on each node."""
    return _newest(ledger.standing("cap/", of_any_step=True))


def caps_in_line(ledger: Ledger) -> dict[str, NodeCap]:
    """The same, with those that earlier runs of the incident have kept."""
    return _newest(ledger.standing_in_line("cap/"))


def _newest(records: Iterable[EffectRecord]) -> dict[str, NodeCap]:
    return {_node(record.key): decode(record.found, NodeCap) for record in records}


def last_change(ledger: Ledger) -> datetime | None:
    settled = [record.settled_at for record in ledger.standing_in_line("cap/") if record.settled_at is not None]
    return max(settled, default=None)


def set_cap(ledger: Ledger, node: str, cap: NodeCap, *, number: int) -> None:
    power = ledger.world.power

    def set_limits() -> str:
        _set_present(power, node, cap)
        return f"{len(cap.gpus)} GPUs at {spread(cap.limits.values())}"

    def holds() -> bool:
        seen = {gpu.gpu: gpu.limit_w for gpu in power.limits(node)}
        return all(abs(seen[gpu] - watts) <= TOLERANCE_W for gpu, watts in cap.limits.items() if gpu in seen)

    ledger.effect(f"cap/{node}/{number}", do=set_limits, happened=holds, found=msgspec.json.encode(cap).decode())


def spread(watts: Collection[float]) -> str:
    """`490 W`, or `210 to 490 W` where they are unlike."""
    lowest, highest = min(watts), max(watts)
    return f"{highest:.0f} W" if highest - lowest <= TOLERANCE_W else f"{lowest:.0f} to {highest:.0f} W"


def _set_present(power: PowerControl, node: str, cap: NodeCap) -> None:
    """Set the limits of the node's GPUs; one that has been lost since must not cost the others their cap."""
    try:
        power.set_limits(node, cap.limits, ttl=cap.ttl, fallback_w=cap.fallback_w)
    except Rejected:
        seen = {gpu.gpu for gpu in power.limits(node)}
        present = {gpu: watts for gpu, watts in cap.limits.items() if gpu in seen}
        if len(present) == len(cap.gpus):
            raise
        if present:
            power.set_limits(node, present, ttl=cap.ttl, fallback_w=cap.fallback_w)


def renew(ledger: Ledger, node: str, cap: NodeCap) -> None:
    """Set the limits that are there once more. That changes nothing but their time to live, so it needs no intent."""
    limits = {gpu: cap.limits[gpu] for gpu in _still_ours(ledger, node, cap)}
    if limits:
        ledger.world.power.set_limits(node, limits, ttl=cap.ttl, fallback_w=cap.fallback_w)


def _still_ours(ledger: Ledger, node: str, cap: NodeCap) -> tuple[int, ...]:
    """The GPUs of the cap that the agent still reports, and whose limit nobody else has lowered since."""
    set_w = [
        watts
        for record in _of_node(ledger.standing_in_line("cap/"), node)
        for each in (decode(record.found, NodeCap),)
        for watts in (*each.limits.values(), each.fallback_w)
    ]
    return tuple(
        gpu.gpu
        for gpu in ledger.world.power.limits(node)
        if gpu.gpu in cap.limits
        and (
            gpu.limit_w >= cap.limits[gpu.gpu] - TOLERANCE_W
            or any(abs(gpu.limit_w - watts) <= TOLERANCE_W for watts in set_w)
        )
    )


def first_number(ledger: Ledger) -> int:
    """Of this run's first change: numbers rise over all runs of an incident."""
    return 1 + sum(record.key.startswith("cap/") for record in ledger.inherited())


def change_all(ledger: Ledger, caps: Mapping[str, NodeCap], wanted_w: float) -> None:
    number = first_number(ledger) + sum(record.key.startswith("cap/") for record in ledger.records)
    for node, cap in caps.items():
        changed = replace(cap, cap_w=wanted_w, fallback_w=min(cap.fallback_w, wanted_w), each_w=())
        set_cap(ledger, node, changed, number=number)


def finish_change(ledger: Ledger, caps: Iterable[EffectRecord]) -> bool:
    """Bring every node to the newest change, so that the ranks of a gang stay alike; False if it was complete.

    Args:
        caps: all that stand, oldest first.
    """
    newest_of = {_node(record.key): record for record in caps}
    newest = max(newest_of.values(), key=_number)
    wanted = decode(newest.found, NodeCap)
    late = [r for r in newest_of.values() if _number(r) < _number(newest) or r.state is EffectState.INTENT]
    for record in late:
        cap = replace(wanted, gpus=decode(record.found, NodeCap).gpus, each_w=())
        set_cap(ledger, _node(record.key), cap, number=_number(newest))
    return bool(late)


def restore_all(ledger: Ledger, *, in_line: bool = False) -> Outcome:
    """Put the default limits back on every node that this run capped; the earlier caps there go with the newest.

    A node that cannot be restored does not keep the others from it.

    Args:
        in_line: also on those that earlier runs of the incident have capped, and kept.
    """
    caps = ledger.standing_in_line("cap/") if in_line else ledger.standing("cap/", of_any_step=True)
    failures: list[Unavailable | Rejected] = []
    for node, cap in _newest(caps).items():

        def restore(node: str = node, cap: NodeCap = cap) -> str:
            ours = _still_ours(ledger, node, cap)
            if ours:
                ledger.world.power.restore(node, ours)
            return f"{len(ours)} of {len(cap.gpus)} GPUs back at their default limit"

        *earlier, newest = _of_node(caps, node)
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


def _of_node(caps: Iterable[EffectRecord], node: str) -> list[EffectRecord]:
    return [record for record in caps if _node(record.key) == node]


def _node(key: str) -> str:
    """`cap/NODE/NUMBER` as NODE."""
    return key.split("/")[1]


def _number(record: EffectRecord) -> int:
    """`cap/NODE/NUMBER` as NUMBER."""
    return int(record.key.rpartition("/")[2])
