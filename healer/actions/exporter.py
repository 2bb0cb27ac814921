"""The verb that repairs blindness: an exporter that does not answer is started anew, and nothing else is touched."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import ClassVar

from healer.actions.evictions import evict_once, node_of, settle_departures
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Disposition, Workload
from healer.domain.plan import Effect
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.schema import Section
from healer.verb import Ledger, Proposal, World

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
        node = node_of(target)
        if not world.cluster.node(node).ready:
            return Proposal(blockers=(f"{node} is not ready: nothing is started there",))
        exporters = _exporters(world, node, arguments.owner)
        if not exporters:
            return Proposal(blockers=(f"no {arguments.owner} is on {node}",))
        return Proposal(
            effects=tuple(Effect("restart", f"{each.stable_name} on {node}", harmless=True) for each in exporters)
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        exporters = _exporters(ledger.world, node_of(target), arguments.owner)
        settle_departures(exporters, "restart", ledger)
        begun = _restarted(ledger)
        # Those that were there when it began, and no other: what has been started since is the result.
        old = [each for each in exporters if not each.leaving and (not begun or each.uid in begun)]
        if not begun and not old:
            return Failed(f"no {arguments.owner} is on {node_of(target)} any more")
        for each in old:
            evict_once(each, "restart", ledger)
        if old:
            return RetryAfter(_LOOK_AGAIN, f"{old[0]} was asked to go")
        return self.verify(arguments, target, ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node, begun = node_of(target), _restarted(ledger)
        exporters = _exporters(ledger.world, node, arguments.owner)
        old = [each for each in exporters if each.uid in begun]
        if old:
            return RetryAfter(_LOOK_AGAIN, f"{old[0]} has not gone yet")
        if not exporters:
            return RetryAfter(_LOOK_AGAIN, f"no new {arguments.owner} is on {node} yet")
        return Done(f"{exporters[0]} was started on {node}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("an exporter that was started anew stays so")


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
