"""How a verb has one workload go: once, also across a crash or a lost answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from healer.domain.component import Component
from healer.domain.fleet import Workload
from healer.domain.run import EffectState
from healer.errors import NotFound
from healer.ports import EvictionAnswer
from healer.verb import Ledger, NotNow


def node_of(target: Component) -> str:
    """Raises NotFound."""
    if target.node is None:
        raise NotFound("node", f"the target {target} names no node")
    return target.node


def evict_once(workload: Workload, effect: str, ledger: Ledger, *, grace: timedelta | None = None) -> None:
    """Ask it to go, as the effect `EFFECT/NAME/UID`. Raises NotNow while a disruption budget says no.

    Args:
        grace: how long it may take to end; None for its own.
    """
    cluster = ledger.world.cluster

    def evict() -> str:
        answer = cluster.evict(workload, grace=grace)
        if answer.answer is EvictionAnswer.BLOCKED:
            raise NotNow(answer.retry_after, answer.detail)
        return answer.answer

    def gone_or_going() -> bool:
        return all(each.leaving for each in cluster.workloads(workload.node) if each.uid == workload.uid)

    ledger.effect(f"{effect}/{workload}/{workload.uid}", do=evict, happened=gone_or_going)


def settle_departures(workloads: Iterable[Workload], effect: str, ledger: Ledger) -> None:
    """An eviction whose answer was lost has happened if its workload is gone or going: nothing asks for it again."""
    staying = {workload.uid for workload in workloads if not workload.leaving}
    for record in ledger.standing(f"{effect}/"):
        if record.state is EffectState.INTENT and record.key.rpartition("/")[2] not in staying:
            ledger.observed(record)
