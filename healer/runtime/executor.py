"""The interpreter of runs: one look at a time, over the journal. Where it stopped is a row, so a crash loses nothing.

A look does a bounded piece of one step. Before it, the effects of the earlier steps are verified again: a person who
uncordons a node in the middle of a drain has ended the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import structlog

from healer.actions.registry import bound_arguments
from healer.content.boundary import Defect, call
from healer.content.playbooks import WAIT
from healer.domain.plan import Part, PlannedStep
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
from healer.domain.verdict import Verdict
from healer.errors import Fenced, HealerError, Unavailable
from healer.ports import Clock, Journal
from healer.runtime.progress import (
    HOLDS,
    RETRY,
    advanced,
    failed,
    gone_past,
    of_all,
    step_overdue,
    undoing,
    why_stop,
)
from healer.verb import Action, GuardSpoke, Ledger, NotNow, Unresolved, Verbs, World

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
        cause = why_stop(run, world.now)
        if cause:
            held = None if run.cancelled_by else self._held(run)
            return undoing(run, cause, world.now) if held is None else advanced(run, held, world.now)
        overdue = step_overdue(run, world.now)
        if overdue:
            return self._held_or_stopped(run, overdue, world.now)
        earlier = self._earlier_steps(run, world)
        if not isinstance(earlier, Done):
            return advanced(run, earlier, world.now)
        run, outcome = self._step(run, world)
        if isinstance(outcome, Failed):
            return failed(run, outcome, world.now)
        return advanced(run, outcome, world.now)

    def still_holds(self, run: Run, world: World) -> Outcome:
        """Whether every effect of a run that has succeeded is still there: Done, or the first that says otherwise."""
        return self._verified_again(
            run, len(run.plan.steps), world, stops=lambda outcome: not isinstance(outcome, Done)
        )

    def _held(self, run: Run) -> Refused | None:
        """What the guards say if a person's word will lift it: a run that is out of time waits for that."""
        verdict = self.permit(run)
        return Refused(verdict) if verdict is not None and verdict.guard in HOLDS else None

    def _held_or_stopped(self, run: Run, overdue: str, now: datetime) -> Run:
        """What becomes of a run whose step takes too long: it is gone past only if nothing of it is in doubt."""
        held = self._held(run)
        if held is not None:
            return advanced(run, held, now)
        step = run.plan.steps[run.position]
        ids = {part.step_id for part in step.parts(run.plan.target)}
        records = [each for each in self.journal.effects(run.id) if each.step_id in ids]
        if step.on_error is OnError.GO_ON and not any(each.state is EffectState.INTENT for each in records):
            return gone_past(run, overdue, now)
        return undoing(run, overdue, now)

    def _earlier_steps(self, run: Run, world: World) -> Outcome:
        """Failed if an earlier step's effect is gone, Unknown if that cannot be seen, else Done."""
        return self._verified_again(
            run, run.position, world, stops=lambda outcome: isinstance(outcome, Failed | Unknown)
        )

    def _verified_again(self, run: Run, count: int, world: World, *, stops: Callable[[Outcome], bool]) -> Outcome:
        """The first of what the first `count` steps say now that `stops`; Done if none does."""
        for step in run.plan.steps[:count]:
            for part in () if step.id in run.skipped else step.parts(run.plan.target):
                outcome = self._verified(run, step, part, world)
                if stops(outcome):
                    return outcome
        return Done("observed again")

    def _step(self, run: Run, world: World) -> tuple[Run, Outcome]:
        """One look at the present step: at each of the parts that are in work, if it has several."""
        step = run.plan.steps[run.position]
        parts = step.parts(run.plan.target)
        outcomes: list[Outcome] = []
        for part in [part for part in parts if part.step_id not in run.finished][: step.max_parallel]:
            outcome = self._part(run, step, part, world)
            if isinstance(outcome, Done) and step.items:
                run = replace(run, finished=(*run.finished, part.step_id))
            outcomes.append(outcome)
            if isinstance(outcome, Failed | Refused):
                break
        left = len(parts) - len(run.finished)
        if not step.items:
            return run, outcomes[0]
        return run, of_all(outcomes, f"{len(run.finished)} of {len(parts)} {step.id}", left=left)

    def _part(self, run: Run, step: PlannedStep, part: Part, world: World) -> Outcome:
        outcome = self._call(run, step, part, world, lambda action: action.run)
        if isinstance(outcome, Done):
            outcome = self._verified(run, step, part, world)
        if isinstance(outcome, Done) and step.verify:
            waited = self._call(run, _wait_for(step), part, world, lambda action: action.run)
            return waited if not isinstance(waited, Done) else outcome
        return outcome

    def _verified(self, run: Run, step: PlannedStep, part: Part, world: World) -> Outcome:
        return self._call(run, step, part, world, lambda action: action.verify)

    def _undo(self, run: Run, world: World) -> Run:
        """One step back, or the end if there is none left."""
        if run.position < 0:
            state = RunState.CANCELLED if run.cancelled_by else RunState.FAILED
            return replace(run, state=state, ended_at=world.now, detail=run.cause)
        step = run.plan.steps[run.position]
        if step.on_failure is OnFailure.KEEP and not run.cancelled_by:
            return replace(run, position=run.position - 1, detail=f"{step.id}: kept")
        match self._undone(run, step, world):
            case Done(detail):
                return replace(run, position=run.position - 1, detail=f"{step.id}: {detail}")
            case Failed(detail):
                # The steps before it are undone all the same; a person reads what could not be.
                cause = f"{run.cause}; could not undo {step.id}: {detail}"
                return replace(run, position=run.position - 1, cause=cause)
            case RetryAfter(wait, detail) | Unknown(wait, detail):
                return replace(run, next_look_at=world.now + wait, detail=f"undoing {step.id}: {detail}")
            case Refused(verdict):
                return replace(run, next_look_at=world.now + RETRY, detail=f"undoing {step.id}: {verdict}")

    def _undone(self, run: Run, step: PlannedStep, world: World) -> Outcome:
        """All parts are undone, the last first; what cannot be undone of one does not keep the others."""
        failed: list[Failed] = []
        outcome: Outcome = Done()
        for part in reversed(step.parts(run.plan.target)):
            outcome = self._call(run, step, part, world, lambda action: action.undo)
            if isinstance(outcome, Failed):
                failed.append(outcome)
            elif not isinstance(outcome, Done):
                return outcome
        return Failed("; ".join(each.detail for each in failed)) if failed else outcome

    def _call(
        self,
        run: Run,
        step: PlannedStep,
        part: Part,
        world: World,
        method: Callable[[Action], Callable[..., Outcome]],
    ) -> Outcome:
        action = self.verbs.get(step.use)
        if action is None:
            return Failed(f"this release has no verb {step.use}")
        ledger = Ledger(
            world=world,
            run=run,
            step_id=part.step_id,
            records=self.journal.effects(run.id),
            save=self._save,
            permit=lambda: self.permit(run),
            clock=self.clock,
            inherited=cache(lambda: self.journal.inherited(run) if run.owner != run.id else ()),
        )
        arguments = step.arguments
        try:
            return call(step.use, lambda: method(action)(bound_arguments(action, arguments), part.target, ledger))
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


def _wait_for(step: PlannedStep) -> PlannedStep:
    """What the step's author wants to see before it counts as done, as a step of its own."""
    return PlannedStep(step.id, WAIT, {"until": step.verify}, step.timeout)


def _outcome_of(error: HealerError) -> Outcome:
    match error:
        case Fenced():
            raise error
        case GuardSpoke():
            return Refused(error.verdict)
        case NotNow():
            return RetryAfter(error.wait, str(error))
        case Unresolved() | Unavailable():
            return Unknown(RETRY, str(error))
        case Defect():
            _log.error("verb failed", error=str(error), exc_info=error)
            return Unknown(RETRY, str(error))
        case _:
            return Failed(str(error))
