"""Power caps as the journal keeps them: one effect per node and change. A crash leaves no GPU unlike its gang."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from healer.actions.rack import TOLERANCE_W
from healer.domain.run import Done, EffectRecord, EffectState, Outcome
from healer.errors import Rejected, Unavailable
from healer.ports import PowerControl
from healer.verb import Ledger

SUPERSEDED = "superseded by a later cap"


@dataclass(frozen=True, slots=True)
class NodeCap:
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


def caps_of(ledger: Ledger) -> dict[str, NodeCap]:
    """The newest cap of this run on each node."""
    return {
        _node(record.key): msgspec.json.decode(record.found, type=NodeCap)
        for record in ledger.standing("cap/", of_any_step=True)
    }


def last_change(ledger: Ledger) -> datetime | None:
    settled = [
        record.settled_at for record in ledger.standing("cap/", of_any_step=True) if record.settled_at is not None
    ]
    return max(settled, default=None)


def set_cap(ledger: Ledger, node: str, cap: NodeCap, *, number: int) -> None:
    power = ledger.world.power

    def set_limits() -> str:
        set_present(power, node, cap)
        return f"{len(cap.gpus)} GPUs at {cap.cap_w:.0f} W"

    def holds() -> bool:
        seen = {gpu.gpu: gpu.limit_w for gpu in power.limits(node)}
        return all(abs(seen[gpu] - watts) <= TOLERANCE_W for gpu, watts in cap.limits.items() if gpu in seen)

    ledger.effect(f"cap/{node}/{number}", do=set_limits, happened=holds, found=msgspec.json.encode(cap).decode())


def set_present(power: PowerControl, node: str, cap: NodeCap) -> None:
    """Set the limits of the node's GPUs; one that has been lost since must not cost the others their cap."""
    try:
        power.set_limits(node, cap.limits, ttl=cap.ttl, fallback_w=cap.fallback_w)
    except Rejected:
        present = _present(power, node, cap)
        if len(present) == len(cap.gpus):
            raise
        if present:
            power.set_limits(node, dict.fromkeys(present, cap.cap_w), ttl=cap.ttl, fallback_w=cap.fallback_w)


def _restore_present(power: PowerControl, node: str, cap: NodeCap) -> None:
    try:
        power.restore(node, cap.gpus)
    except Rejected:
        present = _present(power, node, cap)
        if len(present) == len(cap.gpus):
            raise
        if present:
            power.restore(node, present)


def _present(power: PowerControl, node: str, cap: NodeCap) -> tuple[int, ...]:
    """The GPUs of the cap that the agent still reports."""
    seen = {gpu.gpu for gpu in power.limits(node)}
    return tuple(gpu for gpu in cap.gpus if gpu in seen)


def change_all(ledger: Ledger, caps: Mapping[str, NodeCap], wanted_w: float) -> None:
    number = 1 + len([record for record in ledger.records if record.key.startswith("cap/")])
    for node, cap in caps.items():
        changed = replace(cap, cap_w=wanted_w, fallback_w=min(cap.fallback_w, wanted_w))
        set_cap(ledger, node, changed, number=number)


def finish_change(ledger: Ledger) -> bool:
    """Bring every node to the newest change, so that the ranks of a gang stay alike; False if it was complete."""
    newest_of = {_node(record.key): record for record in ledger.standing("cap/", of_any_step=True)}
    newest = max(newest_of.values(), key=_number)
    wanted = msgspec.json.decode(newest.found, type=NodeCap)
    late = [r for r in newest_of.values() if _number(r) < _number(newest) or r.state is EffectState.INTENT]
    for record in late:
        cap = replace(wanted, gpus=msgspec.json.decode(record.found, type=NodeCap).gpus)
        set_cap(ledger, _node(record.key), cap, number=_number(newest))
    return bool(late)


def restore_all(ledger: Ledger) -> Outcome:
    """Put the default limits back on every node that this run capped; the earlier caps there go with the newest.

    A node that cannot be restored does not keep the others from it.
    """
    failures: list[Unavailable | Rejected] = []
    for node, cap in caps_of(ledger).items():

        def restore(node: str = node, cap: NodeCap = cap) -> str:
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
