"""Verbs that a node's agent carries out: reset a GPU, reboot the node, test its devices, put evidence aside."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import msgspec

from healer.actions.evictions import node_of
from healer.actions.operations import (
    LOOK_AGAIN,
    carry_out,
    check_empty,
    check_out_of_service,
    key_of,
    let_end,
    newest,
    reported,
    told,
    working,
)
from healer.domain.care import CareOrder, CareState, GpuUse, NodeCondition, Operation
from healer.domain.component import Component, ComponentKind
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import Rejected, Unavailable
from healer.schema import Duration, Section, format_duration
from healer.verb import Ledger, NotNow, Proposal, World


class _Nothing(Section):
    pass


class Reset:
    """gpu.reset: the driver resets the GPU, which nothing uses, on a node that the run keeps out of service."""

    name: ClassVar[str] = "gpu.reset"
    target: ClassVar[ComponentKind | None] = ComponentKind.GPU
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False
    Arguments: ClassVar[type[_Nothing]] = _Nothing

    def plan(self, arguments: _Nothing, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        use = world.care.condition(node).use_of(target)
        if use is None:
            return Proposal(blockers=(f"the driver of {node} does not list {target}: only a reboot may bring it back",))
        used = f"{use.processes} processes use {target} now, and have to end first"
        return Proposal(
            effects=(Effect("reset", f"{node}/{use.gpu}", use.uuid, takes_out=node, interrupts=True),),
            impediments=(used,) if use.processes else (),
        )

    def run(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)
        use = ledger.world.care.condition(node).use_of(target)

        def check() -> None:
            check_out_of_service(node, ledger)
            if use is None:
                raise Rejected(node, f"its driver does not list {target} any more: there is nothing to reset")
            if use.processes:
                raise NotNow(LOOK_AGAIN, f"{use.processes} processes still use {target}")

        return carry_out(node, "reset", _reset(use), ledger, before=check)

    def verify(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)
        outcome = reported(node, "reset", ledger)
        if isinstance(outcome, Done) and ledger.world.care.condition(node).use_of(target) is None:
            return Failed(f"the driver of {node} does not list {target} after its reset")
        return outcome

    def undo(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return let_end(node_of(target), "reset", ledger)


class Reboot:
    """node.reboot: the node boots anew, and its scheduler calls it ready again."""

    name: ClassVar[str] = "node.reboot"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False
    Arguments: ClassVar[type[_Nothing]] = _Nothing

    def plan(self, arguments: _Nothing, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        silent = _silent(node, world)
        left = working(world.cluster.workloads(node))
        there = (f"{len(left)} workloads are on {node} now, and have to be gone first",) if left else ()
        return Proposal(
            effects=(Effect("reboot", node, takes_out=node, interrupts=True),), impediments=(*silent, *there)
        )

    def run(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)
        try:
            condition = ledger.world.care.condition(node)
            key = key_of(node, "reboot", ledger)
            report = ledger.world.care.report(node, key)
        except Unavailable as error:
            if newest(ledger, "reboot") is not None:
                return RetryAfter(LOOK_AGAIN, f"{node} is not back yet: {error}")
            raise
        effect = f"reboot/{node}/{key}"
        record = ledger.record(effect)
        maybe_begun = record is not None and record.state in {EffectState.INTENT, EffectState.DONE}
        before = _boot_of(record.found) if record is not None and maybe_begun else condition.boot_id
        happened = report is not None or condition.boot_id != before
        if not happened:
            check_out_of_service(node, ledger)
            check_empty(node, ledger)

        def reboot() -> str:
            return f"its agent says: {ledger.world.care.start(node, key, CareOrder(Operation.REBOOT)).state}"

        found = msgspec.json.encode({"boot_id": before}).decode()
        ledger.effect(effect, do=reboot, happened=lambda: happened, found=found)
        if report is not None and report.state is CareState.FAILED:
            return told(node, report)
        return _booted(node, before, condition, ledger)

    def verify(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        node = node_of(target)
        record = newest(ledger, "reboot")
        if record is None:
            return Failed(f"a reboot of {node} was never asked for")
        return _booted(node, _boot_of(record.found), ledger.world.care.condition(node), ledger)

    def undo(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return let_end(node_of(target), "reboot", ledger)


class BurnIn:
    """node.burn_in: the agent tests the node's devices under load; one that fails fails the step."""

    name: ClassVar[str] = "node.burn_in"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        duration: of the test; the step's timeout has to be longer.
        """

        duration: Duration = timedelta(minutes=10)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:
        node = node_of(target)
        takes = format_duration(arguments.duration)
        return Proposal(
            effects=(Effect("burn in", node, f"for {takes}", takes_out=node),), impediments=_silent(node, world)
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        node = node_of(target)

        def check() -> None:
            check_out_of_service(node, ledger)
            check_empty(node, ledger)

        order = CareOrder(Operation.BURN_IN, duration=arguments.duration)
        return carry_out(node, "burn_in", order, ledger, before=check)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return reported(node_of(target), "burn_in", ledger)

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return let_end(node_of(target), "burn_in", ledger)


class Collect:
    """evidence.collect: logs and the state of the devices are put aside, before a remedy wipes them away."""

    name: ClassVar[str] = "evidence.collect"
    target: ClassVar[ComponentKind | None] = ComponentKind.NODE
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False
    Arguments: ClassVar[type[_Nothing]] = _Nothing

    def plan(self, arguments: _Nothing, target: Component, world: World) -> Proposal:  # noqa: ARG002
        node = node_of(target)
        return Proposal(
            effects=(Effect("collect evidence", f"on {node}", harmless=True),), impediments=_silent(node, world)
        )

    def run(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return carry_out(node_of(target), "collect", CareOrder(Operation.COLLECT), ledger)

    def verify(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """What was put aside stays there, also while a later step boots the node and nobody answers."""
        try:
            return reported(node_of(target), "collect", ledger)
        except Unavailable as error:
            return Done(f"it was put aside; {error}")

    def undo(self, arguments: _Nothing, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("evidence stays where it is")


def _reset(use: GpuUse | None) -> CareOrder:
    return CareOrder(Operation.RESET_GPU, None if use is None else use.gpu, None if use is None else use.uuid)


def _silent(node: str, world: World) -> tuple[str, ...]:
    """Why the agent cannot be asked now, if so. Its node can be taken out of service all the same."""
    try:
        world.care.condition(node)
    except Unavailable as error:
        return (f"nothing can be done there until its agent answers: {error}",)
    return ()


def _boot_of(found: str) -> str:
    return str(msgspec.json.decode(found)["boot_id"])


def _booted(node: str, before: str, condition: NodeCondition, ledger: Ledger) -> Outcome:
    if condition.boot_id == before:
        return RetryAfter(LOOK_AGAIN, f"{node} has not booted yet")
    if not ledger.world.cluster.node(node).ready:
        return RetryAfter(LOOK_AGAIN, f"{node} has booted, and is not ready yet")
    return Done(f"{node} has booted and is ready")
