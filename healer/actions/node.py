"""Verbs on a node of the scheduler: keep work away from it, move its work elsewhere, and give it back to service."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from healer.actions.evictions import evict_once, node_of, settle_departures
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Disposition, Workload
from healer.domain.plan import Effect
from healer.domain.run import Done, Failed, Outcome, RetryAfter
from healer.errors import Conflict, NotFound
from healer.schema import Duration, Section
from healer.verb import Ledger, NotNow, Proposal, World

_LOOK_AGAIN = timedelta(seconds=2)


class Cordon:
    """node.cordon: no new work is placed on the node. Owned by the run, persisted, and read back before anything
    else.
    """

    name: ClassVar[str] = "node.cordon"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = True

    class Arguments(Section):
        reason: str = ""

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        seen = world.cluster.node(node)
        if seen.cordoned_by is not None:
            return Proposal()  # another run has it out of service: nothing is left to do here
        if seen.cordoned:
            return Proposal(blockers=(f"{node} is already cordoned by a person",))
        return Proposal(effects=(Effect("cordon", node, takes_out=node),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node, owner = node_of(target), ledger.run.owner
        cluster = ledger.world.cluster

        def cordon() -> str:
            cluster.cordon(node, by=owner, reason=arguments.reason or f"healer: {ledger.run.plan.reason}")
            return "cordoned"

        ledger.effect(f"cordon/{node}", do=cordon, happened=lambda: cluster.node(node).cordoned_by == owner)
        return Done(f"{node} is cordoned")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        seen = ledger.world.cluster.node(node_of(target))
        if ledger.standing(f"uncordon/{seen.name}", of_any_step=True):
            return Done(f"this run has given {seen.name} back to service")
        if seen.cordoned and seen.cordoned_by == ledger.run.owner:
            return Done(f"{seen.name} is out of service")
        if seen.cordoned:
            return Failed(f"the cordon of {seen.name} is not ours any more", by_person=True)
        return Failed(f"a person uncordoned {seen.name}: their decision stands", by_person=True)

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)

        def uncordon() -> str:
            try:
                ledger.world.cluster.uncordon(node, by=ledger.run.owner)
            except (Conflict, NotFound) as error:
                return f"left as it is: {error}"
            return "uncordoned"

        for record in ledger.standing("cordon/"):
            ledger.undo(record, do=uncordon)
        return Done(f"{node} is as it was found")


class Drain:
    """node.drain: every workload that can run elsewhere is evicted, by kubectl drain's rules, and has gone."""

    name: ClassVar[str] = "node.drain"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        grace: how long a workload may take to end; by default its own.
        at_once: evictions per look.
        """

        grace: Duration | None = None
        at_once: Annotated[int, Field(ge=1)] = 20

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        workloads = world.cluster.workloads(node)
        by_owner: dict[str, list[Workload]] = defaultdict(list)
        for workload in _movable(workloads):
            by_owner[workload.stable_name].append(workload)
        return Proposal(
            effects=tuple(
                Effect("evict", owner, _described(members), takes_out=node, interrupts=True)
                for owner, members in sorted(by_owner.items())
            ),
            impediments=tuple(
                f"{workload} is held by the disruption budget {workload.blocked_by}"
                for workload in _movable(workloads)
                if workload.blocked_by is not None
            ),
            blockers=_unmovable(workloads),
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node = node_of(target)
        workloads = ledger.world.cluster.workloads(node)
        settle_departures(workloads, "evict", ledger)
        unmovable = _unmovable(workloads)
        if unmovable:
            return Failed("; ".join(unmovable))
        approved = {effect.target for effect in ledger.run.plan.effects if effect.verb == "evict"}
        strangers = [w for w in _movable(workloads) if w.stable_name not in approved and not w.leaving]
        if strangers:
            return Failed(f"{strangers[0]} was not there when the plan was made; it must be planned anew")
        left = _movable(workloads)
        staying = [workload for workload in left if not workload.leaving]
        # A budget that is known to be spent is not asked: each refusal would be a line in the journal, for as long as
        # it lasts. What it lets go by the next look is seen then.
        waiting = [f"{w} waits for the disruption budget {w.blocked_by}" for w in staying if w.blocked_by is not None]
        wait = _LOOK_AGAIN
        for workload in [w for w in staying if w.blocked_by is None][: arguments.at_once]:
            try:
                evict_once(workload, "evict", ledger, grace=arguments.grace)
            except NotNow as error:
                waiting.append(f"{workload} waits: {error}")
                wait = max(wait, error.wait)
        if not left:
            return Done(f"{node} is empty")
        return RetryAfter(wait, "; ".join([f"{len(left)} workloads have not gone yet", *waiting[:1]]))

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)
        left = _movable(ledger.world.cluster.workloads(node))
        if left:
            return RetryAfter(_LOOK_AGAIN, f"{left[0]} is on {node}")
        return Done(f"nothing that can be moved is on {node}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """An eviction cannot be taken back: the workloads run elsewhere by now."""
        return Done(f"{len(ledger.standing('evict/'))} evictions stay as they are")


class Uncordon:
    """node.uncordon: back to service. Only the cordon of the run itself is lifted; a person's stands."""

    name: ClassVar[str] = "node.uncordon"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        seen = world.cluster.node(node)
        if seen.cordoned and seen.cordoned_by is None:
            return Proposal(blockers=(f"{node} is cordoned by a person: their decision stands",))
        return Proposal(effects=(Effect("uncordon", node, "back to service"),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node, owner = node_of(target), ledger.run.owner
        cluster = ledger.world.cluster

        def uncordon() -> str:
            cluster.uncordon(node, by=owner)
            return "back to service"

        if cluster.node(node).cordoned_by == owner or ledger.standing("uncordon/"):
            ledger.effect(f"uncordon/{node}", do=uncordon, happened=lambda: cluster.node(node).cordoned_by != owner)
        return self.verify(arguments, target, ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        seen = ledger.world.cluster.node(node_of(target))
        if not seen.cordoned:
            return Done(f"{seen.name} is in service")
        if seen.cordoned_by is None:
            return Failed(f"{seen.name} is cordoned by a person: their decision stands", by_person=True)
        return Failed(f"{seen.name} is still cordoned by {seen.cordoned_by}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """Out of service again, in the name of the run: what comes after the return to service has failed."""
        node = node_of(target)

        def cordon() -> str:
            try:
                ledger.world.cluster.cordon(node, by=ledger.run.owner, reason=f"healer: {ledger.run.cause}")
            except (Conflict, NotFound) as error:
                return f"left as it is: {error}"
            return "out of service again"

        for record in ledger.standing("uncordon/"):
            ledger.undo(record, do=cordon)
        return Done(f"{node} is as the run found it before it gave it back")


def _movable(workloads: tuple[Workload, ...]) -> list[Workload]:
    return [workload for workload in workloads if workload.disposition is Disposition.EVICT]


def _unmovable(workloads: tuple[Workload, ...]) -> tuple[str, ...]:
    """What forbids the drain as a whole: kubectl, too, refuses before the first eviction."""
    return tuple(
        f"{w} would be lost: {w.why}" for w in workloads if w.disposition is Disposition.REFUSES and not w.leaving
    )


def _described(members: list[Workload]) -> str:
    names = ", ".join(sorted(member.name for member in members))
    losses = sorted({member.why for member in members if member.why})
    return names + (f"; {'; '.join(losses)}" if losses else "")
