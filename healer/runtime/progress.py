"""What becomes of a run by what a look at it has found: pure, on values. The interpreter does the looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from healer.domain.playbook import OnError
from healer.domain.run import Done, Failed, Outcome, Refused, RetryAfter, Run, RunState, Unknown
from healer.domain.verdict import Guard

RETRY = timedelta(seconds=5)
# A person's word lifts these: until then the run's clock stands still.
HOLDS = frozenset({Guard.PAUSE, Guard.SILENCE, Guard.BREAKER})


def why_stop(run: Run, now: datetime) -> str:
    if run.cancelled_by:
        return f"cancelled by {run.cancelled_by}"
    if run.held_since is not None:
        return ""
    if now - run.started_at - run.held > run.plan.deadline:
        return f"not finished within its deadline: {run.detail}"
    return ""


def step_overdue(run: Run, now: datetime) -> str:
    step = run.plan.steps[run.position]
    if run.held_since is None and now - run.step_started_at > step.timeout:
        return f"step {step.id} not finished within its timeout: {run.detail}"
    return ""


def _clocked(run: Run, outcome: Outcome, now: datetime) -> Run:
    """Stop the run's clock while it is held: timing out would undo it in the middle of a person's work."""
    if run.paused_by or (isinstance(outcome, Refused) and outcome.verdict.guard in HOLDS):
        return replace(run, held_since=run.held_since or now)
    if run.held_since is None:
        return run
    held = now - run.held_since
    return replace(run, held_since=None, held=run.held + held, step_started_at=run.step_started_at + held)


def advanced(run: Run, outcome: Outcome, now: datetime) -> Run:
    run = _clocked(run, outcome, now)
    match outcome:
        case Done(detail) if run.position + 1 == len(run.plan.steps):
            return replace(run, state=RunState.SUCCEEDED, ended_at=now, detail=detail)
        case Done(detail):
            return _next_step(run, now, detail)
        case RetryAfter(wait, detail) | Unknown(wait, detail):
            return replace(run, next_look_at=now + wait, detail=detail)
        case Refused(verdict):
            return replace(run, next_look_at=now + RETRY, detail=f"held: {verdict}")
        case Failed(detail, by_person):
            return replace(undoing(run, detail, now), by_person=by_person)


def failed(run: Run, outcome: Failed, now: datetime) -> Run:
    """The step has failed by itself: it is tried again, or gone past, if its author wanted that."""
    step = run.plan.steps[run.position]
    failures = run.failures + 1
    if outcome.by_person:
        return advanced(run, outcome, now)
    if step.retry is not None and failures <= step.retry.times:
        wait = step.retry.after(failures)
        detail = f"{step.id} failed, attempt {failures + 1} of {step.retry.times + 1} follows: {outcome.detail}"
        return replace(run, failures=failures, next_look_at=now + wait, detail=detail)
    if step.on_error is OnError.STOP:
        return advanced(run, outcome, now)
    return gone_past(run, f"{step.id} failed: {outcome.detail}", now)


def gone_past(run: Run, why: str, now: datetime) -> Run:
    skipped = replace(run, skipped=(*run.skipped, run.plan.steps[run.position].id))
    return advanced(skipped, Done(f"gone on without it: {why}"), now)


def _next_step(run: Run, now: datetime, detail: str) -> Run:
    return replace(
        run,
        position=run.position + 1,
        step_started_at=now,
        next_look_at=now,
        failures=0,
        finished=(),
        detail=detail,
    )


def undoing(run: Run, cause: str, now: datetime) -> Run:
    return replace(run, state=RunState.UNDOING, cause=cause, next_look_at=now, detail=f"undoing: {cause}")


def of_all(outcomes: Sequence[Outcome], what: str, *, left: int) -> Outcome:
    """What a look at several parts of a step comes to: what ended it, else what takes the longest to know."""
    if not left:
        return Done(what)
    last = outcomes[-1]
    if isinstance(last, Failed):
        return replace(last, detail=f"{what}: {last.detail}")
    if isinstance(last, Refused):
        return last
    waits = [each for each in outcomes if isinstance(each, RetryAfter | Unknown)]
    if len(waits) < len(outcomes):
        return RetryAfter(timedelta(0), what)  # some are done: the next ones need not wait for these
    soonest = min(each.wait for each in waits)
    unknown = next((each for each in waits if isinstance(each, Unknown)), None)
    if unknown is not None:
        return Unknown(soonest, f"{what}: {unknown.detail}")
    return RetryAfter(soonest, f"{what}: {waits[0].detail}")
