"""How a verb has a node's agent do one long thing: once, also across a crash or a lost answer, and never on a node that
serves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from healer.domain.care import CareOrder, CareReport, CareState
from healer.domain.fleet import Disposition, Workload
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.errors import Rejected, Unavailable
from healer.verb import Ledger, NotNow

LOOK_AGAIN = timedelta(seconds=5)


def key_of(node: str, prefix: str, ledger: Ledger) -> str:
    """The agent's name of the operation. A step that is tried again asks for another one, unless its last did not fail:
    of several nodes, another one's may have.
    """
    key = f"{ledger.run.id}.{ledger.step_id}.{ledger.run.failures + 1}".replace("/", "-")
    earlier = newest(ledger, prefix)
    if earlier is None or earlier.key == f"{prefix}/{node}/{key}":
        return key
    last = earlier.key.rpartition("/")[2]
    report = ledger.world.care.report(node, last)
    return key if report is None or report.state is CareState.FAILED else last


def newest(ledger: Ledger, prefix: str) -> EffectRecord | None:
    """The last attempt of this step that was begun, or may have been."""
    standing = ledger.standing(f"{prefix}/")
    return standing[-1] if standing else None


def carry_out(
    node: str, prefix: str, order: CareOrder, ledger: Ledger, *, before: Callable[[], None] = lambda: None
) -> Outcome:
    """Begin the operation if it was not, else say how far it is.

    Args:
        prefix: of the effect's key.
        before: raises what speaks against beginning it now.
    """
    care, key = ledger.world.care, key_of(node, prefix, ledger)
    effect = f"{prefix}/{node}/{key}"
    # The agent is asked before the intent is written: one that does not answer leaves nothing in doubt.
    report, record = care.report(node, key), ledger.record(effect)
    begun = record is not None and record.state is EffectState.DONE
    if report is None and not begun:
        before()

    def start() -> str:
        return f"its agent says: {care.start(node, key, order).state}"

    ledger.effect(effect, do=start, happened=lambda: report is not None)
    if report is None and not begun:
        return RetryAfter(LOOK_AGAIN, f"{order.operation} of {node} has begun")
    return told(node, report)


def told(node: str, report: CareReport | None) -> Outcome:
    """What the agent's report of something that was begun comes to."""
    if report is None:
        return Failed(f"the agent of {node} knows nothing of it any more; look at the node")
    match report.state:
        case CareState.RUNNING:
            return RetryAfter(LOOK_AGAIN, f"under way on {node} since {report.started_at:%H:%M:%S}Z: {report.detail}")
        case CareState.FAILED:
            return Failed(f"{node}: {report.detail}")
        case CareState.DONE:
            return Done(f"{node}: {report.detail}")


def reported(node: str, prefix: str, ledger: Ledger) -> Outcome:
    """The agent's word on the last attempt of the step."""
    record = newest(ledger, prefix)
    if record is None:
        return Failed(f"{prefix} of {node} was never asked for")
    return told(node, ledger.world.care.report(node, record.key.rpartition("/")[2]))


def let_end(node: str, prefix: str, ledger: Ledger) -> Outcome:
    """The undo of what cannot be taken back: it is over before the node may serve again, as far as that can be seen.

    Waited for is no longer than the step itself might have taken: a node that never comes back is a person's.
    """
    record = newest(ledger, prefix)
    if record is None:
        return Done("nothing was begun")
    may_take = next((step.timeout for step in ledger.run.plan.steps if step.id == ledger.step_id), timedelta(0))
    if ledger.world.now - record.intended_at >= may_take:
        return Done("it cannot be taken back")
    try:
        report = ledger.world.care.report(node, record.key.rpartition("/")[2])
    except Unavailable as error:
        return RetryAfter(LOOK_AGAIN, f"it may be under way: {error}")
    if report is not None and report.state is CareState.RUNNING:
        return RetryAfter(LOOK_AGAIN, f"{prefix} of {node} is still under way, and the node is not given back before")
    return Done("it is over, and cannot be taken back")


def check_out_of_service(node: str, ledger: Ledger) -> None:
    """Raises Rejected unless the run keeps the node out of service itself."""
    seen, owner = ledger.world.cluster.node(node), ledger.run.owner
    if not seen.cordoned:
        raise Rejected(node, f"is in service: nothing is done to it before it is cordoned in the name of {owner}")
    if seen.cordoned_by != owner:
        by = seen.cordoned_by or "a person"
        raise Rejected(node, f"is cordoned by {by}, not by {owner}: nothing is done to it")


def check_empty(node: str, ledger: Ledger) -> None:
    """Raises NotNow while work is there that would be lost or would have to move."""
    left = working(ledger.world.cluster.workloads(node))
    if left:
        raise NotNow(LOOK_AGAIN, f"{len(left)} workloads are still on {node}, e.g. {left[0]}")


def working(workloads: tuple[Workload, ...]) -> list[Workload]:
    return [each for each in workloads if each.disposition is not Disposition.STAYS]
