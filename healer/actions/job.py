"""The verb on a job: it starts anew as a whole, all of its ranks or none."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import msgspec

from healer.actions.gangs import blocker_of, described, pods, pods_left, resume, suspend, take_back, taken_over
from healer.decoding import decode
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Gang, GangEnd
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectState, Failed, Outcome, RetryAfter
from healer.errors import NotFound
from healer.schema import Section
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=5)


class _Found(msgspec.Struct, frozen=True):
    """How many pods ran before: so many have to run again."""

    pods: int


class RestartJob:
    """job.restart: the job is suspended, all its pods go, it is resumed, and as many run again."""

    name: ClassVar[str] = "job.restart"
    target: ClassVar[ComponentKind | None] = ComponentKind.JOB
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        pass

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        gang = world.cluster.job(_job_of(target))
        if blocker := blocker_of(gang):
            return Proposal(blockers=(blocker,))
        return Proposal(effects=(Effect("restart", gang.stable_name, described(gang), interrupts=True),))

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
                return Failed(taken_over(gang), by_person=True)
            if gang.pods:
                return RetryAfter(_LOOK_AGAIN, pods_left(gang))
        if resumed is None or resumed.state is not EffectState.DONE:
            resume(gang, ledger)
            return RetryAfter(_LOOK_AGAIN, f"{name} was resumed")
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
        take_back(ledger.standing("suspend/"), ledger)
        return Done(f"{name} is not suspended by this run")


def _suspend(gang: Gang, ledger: Ledger) -> Outcome:
    if gang.suspended_by != ledger.run.id and (blocker := blocker_of(gang)):
        return Failed(blocker, by_person=gang.suspended and gang.suspended_by is None)
    suspend(gang, ledger, to="restarts it", found=msgspec.json.encode(_Found(gang.running)).decode())
    return RetryAfter(_LOOK_AGAIN, f"{gang} was suspended")


def _runs_again(gang: Gang, ledger: Ledger) -> Outcome:
    name, before = gang.stable_name, _pods_before(ledger)
    if gang.end is GangEnd.COMPLETE:
        return Done(f"{name} is complete")
    if gang.end is GangEnd.FAILED:
        return Failed(f"{name} was restarted, and has failed since")
    if gang.suspended:
        return Failed(taken_over(gang), by_person=gang.suspended_by is None)
    if gang.running < before:
        return RetryAfter(_LOOK_AGAIN, f"{gang.running} of {pods(before)} of {name} run again")
    return Done(f"{pods(before)} of {name} run again")


def _gone(name: str, ledger: Ledger) -> Failed:
    if ledger.standing("resume/"):
        return Failed(f"{name} was resumed, and has gone before all its pods ran")
    if ledger.standing("suspend/"):
        return Failed(f"{name} was deleted while it was suspended", by_person=True)
    return Failed(f"{name} has gone: nothing was restarted")


def _pods_before(ledger: Ledger) -> int:
    (record,) = ledger.standing("suspend/")
    return decode(record.found, _Found).pods


def _job_of(target: Component) -> str:
    """Raises NotFound."""
    if target.job is None:
        raise NotFound("job", f"the target {target} names no job")
    return target.job
