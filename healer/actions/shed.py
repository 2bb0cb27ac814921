"""Verbs that take load off a rack when lower limits do not do: jobs are suspended, the least important first, and
resumed when the rack has room for them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from pydantic import Field

from healer.actions.gangs import blocker_of, described, job_in, pods_left, resume, suspend, take_back
from healer.actions.rack import measured
from healer.decoding import decode
from healer.domain.component import Component, ComponentKind
from healer.domain.fleet import Gang
from healer.domain.frame import Frame
from healer.domain.plan import Effect
from healer.domain.run import Done, EffectRecord, EffectState, Failed, Outcome, RetryAfter
from healer.domain.signal import Signal
from healer.errors import Conflict, NoMeans, NotFound, Unavailable
from healer.schema import Duration, Section
from healer.verb import Ledger, Proposal, World

_LOOK_AGAIN = timedelta(seconds=5)
_OVER_FOR = timedelta(minutes=1)  # what comes back may draw more than it will


class _Found(msgspec.Struct, frozen=True):
    """What the job drew in the rack when it was suspended, in watts: so much room it needs to come back."""

    power_w: float


@dataclass(frozen=True, slots=True)
class _Load:
    """A job as the rack has it.

    Attributes:
        power_w: of its GPUs in the rack; NaN if one of them is unknown.
        gpus, elsewhere: how many it has in the rack, and outside.
    """

    job: str
    power_w: float
    gpus: int
    elsewhere: int

    def __str__(self) -> str:
        outside = f" and {self.elsewhere} elsewhere" if self.elsewhere else ""
        return f"{self.power_w:.0f} W on {self.gpus} GPUs in the rack{outside}"


class Shed:
    """power.shed: jobs of the rack are suspended one after the other, until it is within its budget.

    The least important first, by the scheduler's priority, and of several those that stop the fewest GPUs elsewhere; no
    more than the meter asks for, and none but those that were approved.
    """

    name: ClassVar[str] = "power.shed"
    target: ClassVar[ComponentKind | None] = ComponentKind.RACK
    disrupts: ClassVar[bool] = True
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        share_of_budget: as many jobs go as it takes to come down to this; the others only if the meter asks for it.
        """

        share_of_budget: Annotated[float, Field(gt=0, le=1)] = 0.95

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:
        cluster = world.cluster
        frame, row = measured(target, world)
        power_w, budget_w = _now(frame, row)
        if np.isnan(power_w):
            raise Unavailable(str(target), "its meter gives no current power")
        over_w = power_w - arguments.share_of_budget * budget_w
        movable: list[tuple[Gang, _Load]] = []
        left_alone = []
        for load in _loads(frame, target) if over_w > 0 else ():
            try:
                gang = cluster.job(load.job)
            except NotFound as error:
                left_alone.append(f"{load.job} is left alone: {error.detail}")
                continue
            if why := blocker_of(gang) or ("" if load.power_w > 0 else "what it draws is unknown"):
                left_alone.append(f"{load.job} is left alone: {why}")
            else:
                movable.append((gang, load))
        # By what does not change from look to look, or the question would be another one each time.
        movable.sort(key=lambda each: (each[0].priority, each[1].elsewhere, -each[1].gpus, each[1].job))
        chosen = _fewest(movable, over_w)
        reserve = [each for each in movable if each not in chosen]  # the load may have risen until then
        if over_w > 0 and not chosen:
            raise NoMeans(str(target), "; ".join(["no job in it can be suspended", *left_alone]))
        left_w = power_w - sum(load.power_w for _, load in chosen)
        short = f"even without them the rack may draw {left_w:.0f} W of {budget_w:.0f} W" if left_w > budget_w else ""
        return Proposal(
            effects=(
                *(_suspension(gang, load) for gang, load in chosen),
                *(_suspension(gang, load, "only if that is not enough: ") for gang, load in reserve),
            ),
            impediments=(*left_alone, *filter(None, [short])),
        )

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        waits = _settled(ledger)
        if waits:
            return RetryAfter(_LOOK_AGAIN, waits)
        frame, row = measured(target, ledger.world)
        power_w, budget_w = _measured_since(frame, row, _changed_at(ledger))
        if np.isnan(power_w):
            return RetryAfter(_LOOK_AGAIN, "waiting for the rack's meter")
        if power_w <= budget_w:
            return Done(f"the rack draws {power_w:.0f} W of {budget_w:.0f} W{_without(ledger)}")
        over = f"{power_w:.0f} W are still over the budget of {budget_w:.0f} W"
        loads = {load.job: load for load in _loads(frame, target)}
        done = {job_in(record) for record in ledger.standing("suspend/")}
        approved = (effect.target for effect in ledger.run.plan.effects if effect.verb == "suspend")
        left = [loads[job] for job in approved if job in loads and job not in done]
        for load in left:
            if load.power_w > 0 and _was_suspended(load, ledger):
                return RetryAfter(_LOOK_AGAIN, f"{load.job} was suspended; waiting for its pods to go")
        if any(np.isnan(load.power_w) for load in left):
            return RetryAfter(_LOOK_AGAIN, f"{over}, and what the jobs draw is unknown")
        return Failed(f"{over}, and no job is left that may be suspended{_without(ledger)}")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        frame, row = measured(target, ledger.world)
        power_w, budget_w = _now(frame, row)
        if not power_w <= budget_w:
            return RetryAfter(_LOOK_AGAIN, f"the rack draws {power_w:.0f} W of {budget_w:.0f} W")
        return Done(f"the rack draws {power_w:.0f} W of {budget_w:.0f} W{_without(ledger)}")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        take_back(ledger.standing("suspend/"), ledger)
        return Done("no job is suspended by this run")


class Readmit:
    """power.readmit: the jobs that this run suspended are resumed one after the other, the last one first, each when
    the rack has room for what it drew.
    """

    name: ClassVar[str] = "power.readmit"
    target: ClassVar[ComponentKind | None] = ComponentKind.RACK
    disrupts: ClassVar[bool] = False
    keeps_work_away: ClassVar[bool] = False

    class Arguments(Section):
        """Attributes:
        share_of_budget: a job is resumed when the rack would stay below this share of its budget with it,
        lasting: and it has been so for this long, which is also the pause after each: it takes a while to draw.
        """

        share_of_budget: Annotated[float, Field(gt=0, le=1)] = 0.9
        lasting: Duration = timedelta(minutes=10)

    def plan(self, arguments: Arguments, target: Component, world: World) -> Proposal:  # noqa: ARG002
        # Of no interest without what is suspended, which is shown with power.shed.
        return Proposal()

    def run(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:
        for resumed in ledger.standing("resume/"):
            gang = _gang(job_in(resumed), ledger)
            if _settle(resumed, ledger, happened=gang is None or gang.suspended_by != ledger.run.id):
                return RetryAfter(_LOOK_AGAIN, f"whether {job_in(resumed)} was resumed was in doubt")
        frame, row = measured(target, ledger.world)
        left, changed_at = [*_ours(ledger)], _changed_at(ledger)
        if left:
            return _readmit(left, arguments, (frame, row), changed_at or frame.at, ledger)
        if changed_at is not None and frame.at - changed_at < arguments.lasting:
            return RetryAfter(_LOOK_AGAIN, "every job was resumed; waiting for what they draw")
        return Done("no job is suspended by this run any more")

    def verify(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        """They were resumed, and what becomes of them is not this run's any more."""
        return Done("every job that was suspended may run again")

    def undo(self, arguments: Arguments, target: Component, ledger: Ledger) -> Outcome:  # noqa: ARG002
        return Done("what was resumed goes on")


def _readmit(
    left: Sequence[tuple[Gang, EffectRecord]],
    arguments: Readmit.Arguments,
    rack: tuple[Frame, int],
    changed_at: datetime,
    ledger: Ledger,
) -> Outcome:
    """Resume the first of these, if the rack has room for it."""
    frame, row = rack
    gang, record = left[0]
    budget_w = _now(frame, row)[1]
    if (frame.rack_window(_OVER_FOR)[:, row] > budget_w).all():
        return Failed(f"the rack is over its budget of {budget_w:.0f} W again{_without(ledger)}")
    since = max(changed_at, frame.at - arguments.lasting)
    suspended = f"{', '.join(str(each) for each, _ in left)} suspended"
    window_w = frame.rack_window(frame.at - since)[:, row]
    if frame.at - since < arguments.lasting or np.isnan(window_w).any():
        return RetryAfter(_LOOK_AGAIN, f"{suspended}; waiting for what the rack draws now")
    needed_w = float(window_w.max()) + decode(record.found, _Found).power_w
    room_w = arguments.share_of_budget * budget_w
    if needed_w > room_w:
        wants = f"with {gang} the rack would draw {needed_w:.0f} W, and may {room_w:.0f} W"
        return RetryAfter(_LOOK_AGAIN, f"{suspended}; {wants}")
    resume(gang, ledger)
    return RetryAfter(_LOOK_AGAIN, f"{gang} was resumed")


def _loads(frame: Frame, target: Component) -> Iterator[_Load]:
    """The jobs that have GPUs in the rack."""
    here = frame.parts_of(target)
    power_w = np.where(frame.current, frame.latest(Signal.POWER), np.nan)
    of_gpu = frame.jobs.of_gpu[here]
    for row in np.unique(of_gpu[of_gpu >= 0]).tolist():
        theirs = here[of_gpu == row]
        elsewhere = len(frame.jobs.members(row)) - len(theirs)
        yield _Load(str(frame.jobs.components[row].job), float(power_w[theirs].sum()), len(theirs), elsewhere)


def _suspension(gang: Gang, load: _Load, when: str = "") -> Effect:
    return Effect("suspend", load.job, f"{when}{load}; {described(gang)}", interrupts=True)


def _fewest(movable: Sequence[tuple[Gang, _Load]], over_w: float) -> list[tuple[Gang, _Load]]:
    """The first that together draw `over_w` at least, all of them if they do not; none that is not needed."""
    chosen: list[tuple[Gang, _Load]] = []
    for each in movable:
        if sum(load.power_w for _, load in chosen) < over_w:
            chosen.append(each)
    for each in reversed(chosen[:-1]):
        if sum(load.power_w for _, load in chosen) - each[1].power_w >= over_w:
            chosen.remove(each)
    return chosen


def _now(frame: Frame, row: int) -> tuple[float, float]:
    """What the meter shows, NaN if that is unknown, and the budget, in watts."""
    return float(frame.racks.power_w[-1, row]), float(frame.racks.budget_w[row])


def _measured_since(frame: Frame, row: int, changed_at: datetime | None) -> tuple[float, float]:
    """As `_now`, but NaN until the meter has surely measured after the last change."""
    power_w, budget_w = _now(frame, row)
    if changed_at is not None and (frame.at <= changed_at or len(frame.rack_window(frame.at - changed_at)) < 2):
        return float("nan"), budget_w  # the first reading may have been taken before the change
    return power_w, budget_w


def _settled(ledger: Ledger) -> str:
    """Settle what a crash left open, and note when the pods of a job have gone; empty if nothing was to do."""
    for record in ledger.records:
        if record.step_id != ledger.step_id or not record.key.startswith("suspend/"):
            continue
        name = job_in(record)
        gang = _gang(name, ledger)
        ours = gang is not None and gang.suspended_by == ledger.run.id
        if record.state is EffectState.FAILED and not ours:
            continue
        if _settle(record, ledger, happened=ours):
            return f"whether {name} was suspended was in doubt"
        if gang is not None and ours and gang.pods:
            return pods_left(gang)
        if ledger.record(f"gone/{name}") is None:
            why = "its pods have gone" if ours else "it is not suspended by this run any more"
            ledger.note(f"gone/{name}", why)
            return f"{name}: {why}; waiting for the rack's meter"
    return ""


def _settle(record: EffectRecord, ledger: Ledger, *, happened: bool) -> bool:
    """Settle the record, by what is seen now, if a crash or a lost answer left it open; whether it had to be.

    What has not happened may not be needed any more: that is decided anew. And a request may arrive late after all.
    """
    if record.state is EffectState.DONE or (record.state is EffectState.FAILED and not happened):
        return False
    if happened:
        ledger.observed(record)
    else:
        ledger.missed(record)
    return True


def _was_suspended(load: _Load, ledger: Ledger) -> bool:
    """False if it cannot be suspended any more: it has ended meanwhile, or a person was quicker."""
    gang = _gang(load.job, ledger)
    if gang is None or blocker_of(gang):
        return False
    try:
        found = msgspec.json.encode(_Found(load.power_w)).decode()
        suspend(gang, ledger, to="takes it off a rack that draws too much", found=found)
    except (Conflict, NotFound):
        return False
    return True


def _changed_at(ledger: Ledger) -> datetime | None:
    """When this run has last changed what the rack draws: pods had gone, or might come back."""
    records = (record for verb in ("gone/", "resume/") for record in ledger.standing(verb, of_any_step=True))
    return max((record.settled_at for record in records if record.settled_at is not None), default=None)


def _ours(ledger: Ledger) -> Iterator[tuple[Gang, EffectRecord]]:
    """The jobs that are suspended by this run, the last one first."""
    for record in reversed(ledger.standing("suspend/", of_any_step=True)):
        gang = _gang(job_in(record), ledger)
        if gang is not None and gang.suspended_by == ledger.run.id:
            yield gang, record


def _gang(job: str, ledger: Ledger) -> Gang | None:
    """None if it has gone."""
    try:
        return ledger.world.cluster.job(job)
    except NotFound:
        return None


def _without(ledger: Ledger) -> str:
    suspended = sorted(str(gang) for gang, _ in _ours(ledger))
    return f", without {', '.join(suspended)}" if suspended else ""
