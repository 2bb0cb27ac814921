"""A run as `healer runs explain` prints it: where it stands, what it has done, and what would move it on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from healer.cli.incident_text import named
from healer.cli.options import age, one_line, view_of
from healer.domain.run import RunState
from healer.runtime.web.record_views import RunDetailView

_HELD = "held: "


def parsed(item: dict[str, Any]) -> RunDetailView:
    """Raises HealerError if the daemon is of another version."""
    return view_of(item, RunDetailView, what="runs")


def lines(run: RunDetailView, now: datetime) -> Iterator[str]:
    yield one_line(f"{run.id}: {run.plan.playbook} on {named(run.plan.target)}")
    for name, text in (*_about(run, now), *_steps(run), *_stands(run, now), *_effects(run)):
        yield f"  {name:10} {one_line(text)}"


def _about(run: RunDetailView, now: datetime) -> Iterator[tuple[str, str]]:
    yield "state", f"{run.state}, started {_time(run.started_at)}, {age(run.started_at, now)} ago"
    yield "deadline", f"{run.plan.deadline} after its start"
    asked = f"approved as {run.approval_id}" if run.approval_id else "nobody had to be asked"
    yield "for", f"{run.incident_id}, {asked}"


def _steps(run: RunDetailView) -> Iterator[tuple[str, str]]:
    state = RunState(run.state)
    for number, step in enumerate(run.plan.steps):
        here = "undoing" if state is RunState.UNDOING else "here"
        done = state is RunState.SUCCEEDED or (state is RunState.RUNNING and number < run.position)
        where = f", {here}" if number == run.position and not state.ended else ", done" if done else ""
        yield "step" if not number else "", f"{step.id}: {step.use}{where}"


def _stands(run: RunDetailView, now: datetime) -> Iterator[tuple[str, str]]:
    """What it says, and, if a guard holds it, which one, with its figures, and what would lift it."""
    state = RunState(run.state)
    if run.cause:
        yield "because", run.cause
    if state.ended:
        yield "ended", run.detail
        return
    held = run.detail.startswith(_HELD)
    yield ("held by", run.detail.removeprefix(_HELD)) if held else ("now", run.detail)
    if run.paused_by:
        yield "paused by", f"{run.paused_by}; healer runs resume {run.id} --reason TEXT lets it go on"
    yield "next look", f"in {max(0.0, (run.next_look_at - now).total_seconds()):.0f} s"
    if state is RunState.RUNNING:
        yield "to stop it", f"healer runs cancel {run.id} --reason TEXT; what it did is undone"


def _effects(run: RunDetailView) -> Iterator[tuple[str, str]]:
    for number, effect in enumerate(run.effects):
        detail = f": {effect.detail}" if effect.detail else ""
        at = _time(effect.settled_at or effect.intended_at)
        yield "effects" if not number else "", f"{at} {effect.key} {effect.state}{detail}"


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}Z"
