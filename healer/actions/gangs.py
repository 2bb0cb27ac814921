"""How a verb suspends a job, and resumes it. The suspension carries the run's name, and no guard holds the resumption:
what this run suspended is not left so because of one.
"""

from __future__ import annotations

from collections.abc import Iterable

from healer.domain.fleet import Gang
from healer.domain.run import EffectRecord
from healer.errors import Conflict, NotFound
from healer.verb import Ledger

_MOST_PODS = 8


def blocker_of(gang: Gang) -> str:
    """Why it cannot be suspended; empty if it can."""
    if gang.why_not:
        return f"{gang} cannot be restarted whole: {gang.why_not}"
    if gang.end is not None:
        return f"{gang} has ended: it is {gang.end}"
    if gang.suspended:
        return f"{gang} is already suspended by {gang.suspended_by or 'a person'}"
    if not gang.running:
        return f"no pod of {gang} runs"
    return ""


def suspend(gang: Gang, ledger: Ledger, *, to: str, found: str) -> None:
    """Args:
    to: what healer suspends it for, as in "restarts it".
    found: for later looks of this run, as JSON.
    """
    cluster, name, owner = ledger.world.cluster, gang.stable_name, ledger.run.id

    def act() -> str:
        cluster.suspend(name, by=owner, reason=f"healer {to}: {ledger.run.plan.reason}")
        return f"suspended, {described(gang)}"

    ledger.effect(f"suspend/{name}", do=act, happened=lambda: cluster.job(name).suspended_by == owner, found=found)


def resume(gang: Gang, ledger: Ledger) -> None:
    cluster, name, owner = ledger.world.cluster, gang.stable_name, ledger.run.id

    def act() -> str:
        cluster.resume(name, by=owner)
        return "resumed"

    ledger.give_back(f"resume/{name}", do=act, happened=lambda: cluster.job(name).suspended_by != owner)


def take_back(records: Iterable[EffectRecord], ledger: Ledger) -> None:
    """Resume what these suspended, as far as it still is."""
    for record in records:
        name = job_in(record)

        def act(name: str = name) -> str:
            try:
                ledger.world.cluster.resume(name, by=ledger.run.id)
            except (Conflict, NotFound) as error:
                return f"left as it is: {error}"
            return "resumed"

        ledger.undo(record, do=act)


def job_in(record: EffectRecord) -> str:
    """`VERB/NAMESPACE/KIND/NAME` as NAMESPACE/KIND/NAME."""
    return record.key.partition("/")[2]


def taken_over(gang: Gang) -> str:
    if gang.suspended:
        return f"{gang} is suspended by {gang.suspended_by or 'a person'}: their decision stands"
    return f"a person resumed {gang}: their decision stands"


def described(gang: Gang) -> str:
    names = [pod.name for pod in gang.pods if pod.running]
    more = f" and {len(names) - _MOST_PODS} more" if len(names) > _MOST_PODS else ""
    shown = ", ".join(sorted(names)[:_MOST_PODS])
    return f"{shown}{more} on {', '.join(gang.nodes)}; loses its work since the last checkpoint"


def pods_left(gang: Gang) -> str:
    """How many of its pods have not gone, and where the first of them is."""
    first = min(gang.pods, key=lambda pod: pod.name)
    where = f"{first.name} is on {first.node or 'no node'}"
    return f"{pods(len(gang.pods))} of {gang} have not gone yet: {where}"


def pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"
