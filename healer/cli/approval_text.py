"""Approvals as the commands print them: as a row of a table, all that there is to say of one, or what an answer did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from healer.cli.incident_text import named
from healer.cli.options import age, one_line, view_of
from healer.domain.approval import ApprovalState
from healer.runtime.web.record_views import ApprovalView, PersonView

COLUMNS = ("ID", "AGE", "STATE", "PLAYBOOK", "TARGET", "EXPIRES", "AGREED", "BY")


def parsed(item: dict[str, Any]) -> ApprovalView:
    """Raises HealerError if the daemon is of another version."""
    return view_of(item, ApprovalView, what="approvals")


def row(approval: ApprovalView, now: datetime) -> tuple[str, ...]:
    return (
        approval.id,
        age(approval.asked_at, now),
        approval.state,
        approval.plan.playbook,
        named(approval.plan.target),
        _moment(approval.expires_at),
        f"{len(approval.agreed)}/{approval.quorum}",
        "" if approval.decided_by is None else approval.decided_by.id,
    )


def outcome(approval: ApprovalView) -> str:
    """What became of it by the answer that was just given."""
    if approval.state != ApprovalState.PENDING:
        return f"{approval.id} is {approval.state}"
    more = f"{approval.missing} more {'has' if approval.missing == 1 else 'have'} to agree"
    return f"{approval.id}: {_progress(approval)}; {more} before {_moment(approval.expires_at)}"


def lines(approval: ApprovalView, now: datetime) -> Iterable[str]:
    yield one_line(f"{approval.id}: {approval.plan.playbook} on {named(approval.plan.target)}")
    for name, texts in _facts(approval, now):
        for number, text in enumerate(filter(None, texts)):
            yield f"  {'' if number else name:10} {one_line(text)}"


def _facts(approval: ApprovalView, now: datetime) -> Iterable[tuple[str, Sequence[str]]]:
    plan, pending = approval.plan, approval.state == ApprovalState.PENDING
    yield "state", [f"{approval.state}, asked {_moment(approval.asked_at)}, {age(approval.asked_at, now)} ago"]
    yield "for", [approval.incident_id, plan.reason]
    yield "decided", [] if approval.decided_at is None else [_decided(approval, approval.decided_at)]
    yield "effects", [_effect(effect.verb, effect.target, effect.detail) for effect in plan.effects]
    yield "in the way", plan.impediments
    yield "budget", [plan.budget]
    yield "plan", [approval.digest]
    given = [f"{_named(a.person)} at {_moment(a.at)}: {a.reason}" for a in approval.agreed]
    yield "agreed", [_progress(approval), *given]
    yield "who", ["all of approvals.approvers" if approval.who is None else _members(plan.asking.who, approval.who)]
    if approval.escalates_at is not None:
        at = f"{'since' if approval.escalated else 'from'} {_moment(approval.escalates_at)}"
        yield "escalation", [f"{at}, these may answer, too: {_members(plan.asking.escalate_to, approval.escalate_to)}"]
    yield "expires", [f"{_moment(approval.expires_at)}; unanswered means no"] if pending else []


def _progress(approval: ApprovalView) -> str:
    return f"{len(approval.agreed)} of {approval.quorum} have agreed"


def _decided(approval: ApprovalView, at: datetime) -> str:
    by = "" if approval.decided_by is None else f" by {_named(approval.decided_by)}"
    return f"{_moment(at)}{by}" + (f": {approval.reason}" if approval.reason else "")


def _members(names: Sequence[str] | None, ids: Sequence[str]) -> str:
    """The groups as the playbook names them, and who was in them when the question was put."""
    people = ", ".join(ids) or "nobody"
    return people if names is None or list(names) == list(ids) else f"{', '.join(names)} ({people})"


def _named(person: PersonView) -> str:
    return f"{person.name} ({person.id})" if person.name else person.id


def _effect(verb: str, target: str, detail: str) -> str:
    return f"{verb} {target}" + (f" ({detail})" if detail else "")


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
