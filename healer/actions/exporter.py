"""The verb that repairs blindness: an exporter that does not answer is started anew, and nothing else is touched."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import ClassVar

from healer.actions.base import Ledger, NotNow, Proposal, World
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Disposition, Workload
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import NotFound
from healer.ports import EvictionAnswer
from healer.schema import Section

_LOOK_AGAIN = timedelta(seconds=5)


class RestartExporter:
    """exporter.restart: the exporter's pod on the node goes, and its DaemonSet starts another one there."""

    name: ClassVar[str] = "exporter.restart"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        owner: whose pod is the exporter, as Kind/name; * stands for anything. Only a DaemonSet's is started again.
        """

        owner: str = "DaemonSet/*-exporter*"

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:
        node = _name(target)
        if not world.cluster.node(node).ready:
            return Proposal(blockers=(f"{node} is not ready: nothing is started there",))
        exporters = _exporters(world, node, arguments.owner)
        if not exporters:
            return Proposal(blockers=(f"no {arguments.owner} is on {node}",))
        return Proposal(
            effects=tuple(Effect("restart", f"{each.stable_name} on {node}", harmless=True) for each in exporters)
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        exporters = _exporters(ledger.world, _name(target), arguments.owner)
        self._settle(exporters, ledger)
        begun = _restarted(ledger)
        # Those that were there when it began, and no other: what has been started since is the result.
        old = [each for each in exporters if not each.leaving and (not begun or each.uid in begun)]
        if not begun and not old:
            return Failed(f"no {arguments.owner} is on {_name(target)} any more")
        for each in old:
            self._restart(each, ledger)
        if old:
            return RetryAfter(_LOOK_AGAIN, f"{old[0]} was asked to go")
        return self.verify(arguments, target, ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node, begun = _name(target), _restarted(ledger)
        exporters = _exporters(ledger.world, node, arguments.owner)
        old = [each for each in exporters if each.uid in begun]
        if old:
            return RetryAfter(_LOOK_AGAIN, f"{old[0]} has not gone yet")
        if not exporters:
            return RetryAfter(_LOOK_AGAIN, f"no new {arguments.owner} is on {node} yet")
        return Done(f"{exporters[0]} was started on {node}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("an exporter that was started anew stays so")

    def _restart(self, exporter: Workload, ledger: Ledger) -> None:
        cluster = ledger.world.cluster

        def evict() -> str:
            answer = cluster.evict(exporter, grace=None)
            if answer.answer is EvictionAnswer.BLOCKED:
                raise NotNow(answer.retry_after, answer.detail)
            return answer.answer

        def gone_or_going() -> bool:
            return all(each.leaving for each in cluster.workloads(exporter.node) if each.uid == exporter.uid)

        ledger.effect(f"restart/{exporter}/{exporter.uid}", do=evict, happened=gone_or_going)

    def _settle(self, exporters: list[Workload], ledger: Ledger) -> None:
        """A restart whose answer was lost has happened if its pod is gone or going."""
        staying = {each.uid for each in exporters if not each.leaving}
        for record in ledger.standing("restart/"):
            if record.state is EffectState.INTENT and record.key.rpartition("/")[2] not in staying:
                ledger.observed(record)


def _restarted(ledger: Ledger) -> set[str]:
    """The uids of the pods that this run has asked to go, or may have."""
    return {record.key.rpartition("/")[2] for record in ledger.standing("restart/")}


def _exporters(world: World, node: str, owner: str) -> list[Workload]:
    return [
        each
        for each in world.cluster.workloads(node)
        if each.disposition is Disposition.STAYS
        and each.owner.startswith("DaemonSet/")
        and fnmatchcase(each.owner, owner)
    ]


def _name(target: Component) -> str:
    if target.node is None:
        raise NotFound("node", f"the target {target} names no node")
    return target.node
