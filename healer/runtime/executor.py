"""The interpreter of runs: one look at a time, over the journal. Where it stopped is a row, so a crash loses nothing.

A look does a bounded piece of one step. Before it, the effects of the earlier steps are verified again: a person who
uncordons a node in the middle of a drain has ended the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from healer.actions.registry import bound_arguments
from healer.content.boundary import Defect, call
from healer.domain.playbook import OnError, OnFailure
from healer.domain.run import (
    Done,
    EffectRecord,
    EffectState,
    Failed,
    Outcome,
    Refused,
    RetryAfter,
    Run,
    RunState,
    Unknown,
)
from healer.domain.verdict import Guard, Verdict
from healer.errors import Fenced, HealerError, Unavailable
from healer.ports import Clock, Journal
from healer.verb import Action, GuardSpoke, Ledger, NotNow, Unresolved, Verbs, World

_RETRY = timedelta(seconds=5)
_HOLDS = frozenset({Guard.SILENCE, Guard.BREAKER})  # a person's word lifts it: until then the run's clock stands still
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Executor:
    """Attributes:
    permit: asks the guards on behalf of a run.
    """

    journal: Journal
    verbs: Verbs
    permit: Callable[[Run], Verdict | None]
    clock: Clock

    def look(self, run: Run, world: World) -> Run:
        """Carry the run on by one look and return it as it now is; nothing is saved but effects."""
        if run.state is RunState.UNDOING:
            return self._undo(run, world)
        cause = _why_stop(run, world.now)
        if cause:
            held = None if run.cancelled_by else self._held(run)
            return _undoing(run, cause, world.now) if held is None else _advanced(run, held, world.now)
        overdue = _step_overdue(run, world.now)
        if overdue:
            return self._held_or_stopped(run, overdue, world.now)
        earlier = self._earlier_steps(run, world)
        if not isinstance(earlier, Done):
            return _advanced(run, earlier, world.now)
        outcome = self._step(run, world)
        if isinstance(outcome, Failed):
            return _failed(run, outcome, world.now)
        return _advanced(run, outcome, world.now)

    def still_holds(self, run: Run, world: World) -> Outcome:
        """Whether every effect of a run that has succeeded is still there: Done, or the first that says otherwise."""
        for position, step in enumerate(run.plan.steps):
            outcome = Done() if step.id in run.skipped else self._verified(run, position, world)
            if not isinstance(outcome, Done):
                return outcome
        return Done("observed again")

    def _held(self, run: Run) -> Refused | None:
        """What the guards say if a person's word will lift it: a run that is out of time waits for that."""
        verdict = self.permit(run)
        return Refused(verdict) if verdict is not None and verdict.guard in _HOLDS else None

    def _held_or_stopped(self, run: Run, overdue: str, now: datetime) -> Run:
        """What becomes of a run whose step takes too long: it is gone past only if nothing of it is in doubt."""
        held = self._held(run)
        if held is not None:
            return _advanced(run, held, now)
        step = run.plan.steps[run.position]
        records = [each for each in self.journal.effects(run.id) if each.step_id == step.id]
        if step.on_error is OnError.GO_ON and not any(each.state is EffectState.INTENT for each in records):
            return _gone_past(run, overdue, now)
        return _undoing(run, overdue, now)

    def _earlier_steps(self, run: Run, world: World) -> Outcome:
        """Failed if an earlier step's effect is gone, Unknown if that cannot be seen, else Done."""
        for position, step in enumerate(run.plan.steps[: run.position]):
            outcome = Done() if step.id in run.skipped else self._verified(run, position, world)
            if isinstance(outcome, Failed | Unknown):
                return outcome
        return Done()

    def _step(self, run: Run, world: World) -> Outcome:
        outcome = self._call(run, run.position, world, lambda action: action.run)
        if isinstance(outcome, Done):
            return self._verified(run, run.position, world)
        return outcome

    def _verified(self, run: Run, position: int, world: World) -> Outcome:
        return self._call(run, position, world, lambda action: action.verify)

    def _undo(self, run: Run, world: World) -> Run:
        """One step back, or the end if there is none left."""
        if run.position < 0:
            state = RunState.CANCELLED if run.cancelled_by else RunState.FAILED
            return replace(run, state=state, ended_at=world.now, detail=run.cause)
        step = run.plan.steps[run.position]
        if step.on_failure is OnFailure.KEEP and not run.cancelled_by:
            return replace(run, position=run.position - 1, detail=f"{step.id}: kept")
        outcome = self._call(run, run.position, world, lambda action: action.undo)
        match outcome:
            case Done(detail):
                return replace(run, position=run.position - 1, detail=f"{step.id}: {detail}")
            case Failed(detail):
                # The steps before it are undone all the same; a person reads what could not be.
                cause = f"{run.cause}; could not undo {step.id}: {detail}"
                return replace(run, position=run.position - 1, cause=cause)
            case RetryAfter(wait, detail) | Unknown(wait, detail):
                return replace(run, next_look_at=world.now + wait, detail=f"undoing {step.id}: {detail}")
            case Refused(verdict):
                return replace(run, next_look_at=world.now + _RETRY, detail=f"undoing {step.id}: {verdict}")

    def _call(self, run: Run, position: int, world: World, part: Callable[[Action], Callable[..., Outcome]]) -> Outcome:
        step = run.plan.steps[position]
        action = self.verbs.get(step.use)
        if action is None:
            return Failed(f"this release has no verb {step.use}")
        ledger = Ledger(
            world=world,
            run=run,
            step_id=step.id,
            records=self.journal.effects(run.id),
            save=self._save,
            permit=lambda: self.permit(run),
            clock=self.clock,
        )
        arguments = step.arguments
        try:
            return call(step.use, lambda: part(action)(bound_arguments(action, arguments), run.plan.target, ledger))
        except HealerError as error:
            return _outcome_of(error)

    def _save(self, record: EffectRecord) -> None:
        with self.journal.transaction() as write:
            write.save_effect(record)
            detail: dict[str, Any] = {"step": record.step_id, "found": record.found}
            action = f"effect.{record.state}"
            subject = f"{record.run_id}/{record.key}"
            write.audit(self.clock.now(), "healer", action, subject, reason=record.detail, detail=detail)
        _log.info("effect", run=record.run_id, key=record.key, state=str(record.state), detail=record.detail)


def _why_stop(run: Run, now: datetime) -> str:
    if run.cancelled_by:
        return f"cancelled by {run.cancelled_by}"
    if run.held_since is not None:
        return ""
    if now - run.started_at - run.held > run.plan.deadline:
        return f"not finished within its deadline: {run.detail}"
    return ""


def _step_overdue(run: Run, now: datetime) -> str:
    step = run.plan.steps[run.position]
    if run.held_since is None and now - run.step_started_at > step.timeout:
        return f"step {step.id} not finished within its timeout: {run.detail}"
    return ""


def _outcome_of(error: HealerError) -> Outcome:
    match error:
        case Fenced():
            raise error
        case GuardSpoke():
            return Refused(error.verdict)
        case NotNow():
            return RetryAfter(error.wait, str(error))
        case Unresolved() | Unavailable():
            return Unknown(_RETRY, str(error))
        case Defect():
            _log.error("verb failed", error=str(error), exc_info=error)
            return Unknown(_RETRY, str(error))
        case _:
            return Failed(str(error))


def _clocked(run: Run, outcome: Outcome, now: datetime) -> Run:
    """Stop the run's clock while it is held: timing out would undo it in the middle of a person's work."""
    if isinstance(outcome, Refused) and outcome.verdict.guard in _HOLDS:
        return replace(run, held_since=run.held_since or now)
    if run.held_since is None:
        return run
    held = now - run.held_since
    return replace(run, held_since=None, held=run.held + held, step_started_at=run.step_started_at + held)


def _advanced(run: Run, outcome: Outcome, now: datetime) -> Run:
    run = _clocked(run, outcome, now)
    match outcome:
        case Done(detail) if run.position + 1 == len(run.plan.steps):
            return replace(run, state=RunState.SUCCEEDED, ended_at=now, detail=detail)
        case Done(detail):
            return _next_step(run, now, detail)
        case RetryAfter(wait, detail) | Unknown(wait, detail):
            return replace(run, next_look_at=now + wait, detail=detail)
        case Refused(verdict):
            return replace(run, next_look_at=now + _RETRY, detail=f"held: {verdict}")
        case Failed(detail, by_person):
            return replace(_undoing(run, detail, now), by_person=by_person)


def _failed(run: Run, outcome: Failed, now: datetime) -> Run:
    """The step has failed by itself: it is tried again, or gone past, if its author wanted that."""
    step = run.plan.steps[run.position]
    failures = run.failures + 1
    if outcome.by_person:
        return _advanced(run, outcome, now)
    if step.retry is not None and failures <= step.retry.times:
        wait = step.retry.after(failures)
        detail = f"{step.id} failed, attempt {failures + 1} of {step.retry.times + 1} follows: {outcome.detail}"
        return replace(run, failures=failures, next_look_at=now + wait, detail=detail)
    if step.on_error is OnError.STOP:
        return _advanced(run, outcome, now)
    return _gone_past(run, f"{step.id} failed: {outcome.detail}", now)


def _gone_past(run: Run, why: str, now: datetime) -> Run:
    skipped = replace(run, skipped=(*run.skipped, run.plan.steps[run.position].id))
    return _advanced(skipped, Done(f"gone on without it: {why}"), now)


def _next_step(run: Run, now: datetime, detail: str) -> Run:
    return replace(run, position=run.position + 1, step_started_at=now, next_look_at=now, failures=0, detail=detail)


def _undoing(run: Run, cause: str, now: datetime) -> Run:
    return replace(run, state=RunState.UNDOING, cause=cause, next_look_at=now, detail=f"undoing: {cause}")
