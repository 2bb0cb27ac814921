"""The verb on a job: it starts anew as a whole, all of its ranks or none."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import msgspec

from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Gang, GangEnd
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import Conflict, NotFound
from healer.schema import Section
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=5)
_MOST_PODS = 8


class _Found(msgspec.Struct, frozen=True):
    """How many pods ran before: so many have to run again."""

    pods: int


class RestartJob:
    """job.restart: the job is suspended, all its pods go, it is resumed, and as many run again. The suspension carries
    the run's name, and no guard holds the resumption: a job is not left suspended.
    """

    name: ClassVar[str] = "job.restart"
    target: ClassVar[ComponentKind | None] = ComponentKind.JOB
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        gang = world.cluster.job(_job_of(target))
        if blocker := _blocker(gang):
            return Proposal(blockers=(blocker,))
        return Proposal(effects=(Effect("restart", gang.stable_name, _described(gang), interrupts=True),))

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        name = _job_of(target)
        suspended, resumed = ledger.record(f"suspend/{name}"), ledger.record(f"resume/{name}")
        try:
            gang = ledger.world.cluster.job(name)
        except NotFound:
            return _gone(name, ledger)
        if suspended is None or suspended.state is not EffectState.DONE:
            return _suspend(gang, ledger)
        if resumed is None or resumed.state is EffectState.FAILED:
            if gang.suspended_by != ledger.run.id:
                return Failed(_taken_over(gang), by_person=True)
            if gang.pods:
                return RetryAfter(_LOOK_AGAIN, f"{_pods(len(gang.pods))} of {name} have not gone yet: {_where(gang)}")
        if resumed is None or resumed.state is not EffectState.DONE:
            return _resume(gang, ledger)
        return _runs_again(gang, ledger)

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        name = _job_of(target)
        try:
            gang = ledger.world.cluster.job(name)
        except NotFound:
            return Done(f"{name} ran again, and has gone since")
        return _runs_again(gang, ledger)

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        name = _job_of(target)
        resumed = ledger.record(f"resume/{name}")
        if resumed is not None and resumed.state is EffectState.DONE:
            return Done(f"{name} was restarted, and that cannot be taken back")

        def resume() -> str:
            try:
                ledger.world.cluster.resume(name, by=ledger.run.id)
            except (Conflict, NotFound) as error:
                return f"left as it is: {error}"
            return "resumed"

        for record in ledger.standing("suspend/"):
            ledger.undo(record, do=resume)
        return Done(f"{name} is not suspended by this run")


def _suspend(gang: Gang, ledger: Ledger) -> Outcome:
    cluster, name, owner = ledger.world.cluster, gang.stable_name, ledger.run.id
    if gang.suspended_by != owner and (blocker := _blocker(gang)):
        return Failed(blocker, by_person=gang.suspended and gang.suspended_by is None)

    def suspend() -> str:
        cluster.suspend(name, by=owner, reason=f"healer restarts it: {ledger.run.plan.reason}")
        return f"suspended, {_described(gang)}"

    found = msgspec.json.encode(_Found(gang.running)).decode()
    ledger.effect(f"suspend/{name}", do=suspend, happened=lambda: cluster.job(name).suspended_by == owner, found=found)
    return RetryAfter(_LOOK_AGAIN, f"{name} was suspended")


def _resume(gang: Gang, ledger: Ledger) -> Outcome:
    cluster, name, owner = ledger.world.cluster, gang.stable_name, ledger.run.id

    def resume() -> str:
        cluster.resume(name, by=owner)
        return "resumed"

    ledger.give_back(f"resume/{name}", do=resume, happened=lambda: cluster.job(name).suspended_by != owner)
    return RetryAfter(_LOOK_AGAIN, f"{name} was resumed")


def _runs_again(gang: Gang, ledger: Ledger) -> Outcome:
    name, before = gang.stable_name, _pods_before(ledger)
    if gang.end is GangEnd.COMPLETE:
        return Done(f"{name} is complete")
    if gang.end is GangEnd.FAILED:
        return Failed(f"{name} was restarted, and has failed since")
    if gang.suspended:
        return Failed(_taken_over(gang), by_person=gang.suspended_by is None)
    if gang.running < before:
        return RetryAfter(_LOOK_AGAIN, f"{gang.running} of {_pods(before)} of {name} run again")
    return Done(f"{_pods(before)} of {name} run again")


def _gone(name: str, ledger: Ledger) -> Failed:
    if ledger.standing("resume/"):
        return Failed(f"{name} was resumed, and has gone before all its pods ran")
    if ledger.standing("suspend/"):
        return Failed(f"{name} was deleted while it was suspended", by_person=True)
    return Failed(f"{name} has gone: nothing was restarted")


def _pods_before(ledger: Ledger) -> int:
    (record,) = ledger.standing("suspend/")
    return msgspec.json.decode(record.found, type=_Found).pods


def _blocker(gang: Gang) -> str:
    """Why it cannot be restarted; empty if it can."""
    if gang.why_not:
        return f"{gang} cannot be restarted whole: {gang.why_not}"
    if gang.end is not None:
        return f"{gang} has ended: it is {gang.end}"
    if gang.suspended:
        return f"{gang} is already suspended by {gang.suspended_by or 'a person'}"
    if not gang.running:
        return f"no pod of {gang} runs"
    return ""


def _taken_over(gang: Gang) -> str:
    if gang.suspended:
        return f"{gang} is suspended by {gang.suspended_by or 'a person'}: their decision stands"
    return f"a person resumed {gang}: their decision stands"


def _described(gang: Gang) -> str:
    names = [pod.name for pod in gang.pods if pod.running]
    more = f" and {len(names) - _MOST_PODS} more" if len(names) > _MOST_PODS else ""
    shown = ", ".join(sorted(names)[:_MOST_PODS])
    return f"{shown}{more} on {', '.join(gang.nodes)}; loses its work since the last checkpoint"


def _where(gang: Gang) -> str:
    """The first of its pods."""
    first = min(gang.pods, key=lambda pod: pod.name)
    return f"{first.name} is on {first.node or 'no node'}"


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _job_of(target: Component) -> str:
    """Raises NotFound."""
    if target.job is None:
        raise NotFound("job", f"the target {target} names no job")
    return target.job
