"""The messages that Slack shows: pure functions from an approval to Block Kit, within Slack's limits.

Everything that telemetry, pods or people wrote is escaped before it becomes part of a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from healer.domain.approval import Approval, ApprovalState, Person
from healer.domain.breaker import Trip
from healer.domain.incident import Incident, Severity
from healer.domain.people import is_usergroup
from healer.domain.plan import Plan
from healer.policy.approval import progress

Block: TypeAlias = dict[str, object]

_MOST_SECTION = 3000  # characters that Slack takes in a section's text
_MOST_HEADER = 150
_MOST_LINE = 300  # of one untrusted text; five times that when escaped still fits a section
_MOST_JOBS = 3
_MOST_MENTIONED = 20
_SLACK_PERSON = re.compile(r"slack:([UW][A-Z0-9]{1,30})")


def question_blocks(approval: Approval, incident: Incident) -> list[Block]:
    named = approval.plan.asking.who is not None
    asked = [f"*May answer:* {_mentions(approval.who or ())}"] if named else []
    title = f"Approve {approval.plan.playbook} on {approval.plan.target}?"
    return [_header(title), *_case(approval, incident), *_asked(approval, asked)]


def escalation_blocks(approval: Approval, incident: Incident) -> list[Block]:
    """The question once more, to those who may answer it by now, too."""
    asked = [f"*May answer now, too:* {_mentions(approval.escalate_to)}"]
    title = f"Still open: approve {approval.plan.playbook} on {approval.plan.target}?"
    return [_header(title), *_case(approval, incident), *_asked(approval, asked)]


def trip_blocks(trip: Trip) -> list[Block]:
    return [
        _header("The breaker is open: no node is taken out of service"),
        _section([f":rotating_light: {escape(trip.reason)}"]),
        _context(
            f"Since {_moment(trip.at)}. Look for what these nodes share. When it may go on: `healer breaker reset`"
        ),
    ]


def answer_blocks(approval: Approval, incident: Incident) -> list[Block]:
    return [
        _header(f"{_TITLES[approval.state]}: {approval.plan.playbook} on {approval.plan.target}"),
        _section([outcome(approval)]),
        *_case(approval, incident),
    ]


def _asked(approval: Approval, asked: Sequence[str]) -> Iterable[Block]:
    """Who is asked, what their answers amount to by now, and the buttons."""
    if approval.quorum > 1:
        asked = [*asked, f"*{approval.quorum} people have to agree*, one no is a no. {_progress(approval)}"]
    if asked:
        yield _section(asked)
    until = f"Expires {_moment(approval.expires_at)}. Unanswered means no."
    if approval.escalate_at is not None and not approval.escalated:
        until = f"Escalates {_moment(approval.escalate_at)}. {until}"
    yield _context(until)
    approve = _button("Approve", "approve", approval.id, "primary")
    deny = _button("Deny", "deny", approval.id, "danger")
    yield {"type": "actions", "block_id": "answer", "elements": [approve, deny]}


def _progress(approval: Approval) -> str:
    who = ", ".join(_who(agreement.person) for agreement in approval.agreed)
    return progress(approval) + (f": {who}" if who else "")


def _mentions(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST_MENTIONED} more" if len(ids) > _MOST_MENTIONED else ""
    return (" ".join(_mention(member) for member in ids[:_MOST_MENTIONED]) or "nobody") + more


def _mention(member: str) -> str:
    if is_usergroup(member):
        return f"<!subteam^{member.removeprefix('slack:')}>"
    return _who(Person(member))


_TITLES: Mapping[ApprovalState, str] = {
    ApprovalState.PENDING: "Open",
    ApprovalState.APPROVED: "Approved",
    ApprovalState.DENIED: "Denied",
    ApprovalState.EXPIRED: "Expired",
    ApprovalState.VOID: "Void",
}


def _case(approval: Approval, incident: Incident) -> Iterable[Block]:
    """What failed, what would be done about it, and what stands in the way."""
    plan = approval.plan
    why, disputed = incident.reasons[:1], incident.reasons[1:]
    disagreement = (f"*Sources disagree:* {escape(text)}" for text in disputed)
    yield _section([_failure(incident), *(escape(text) for text in why), *_reach(incident), *disagreement])
    yield _section(["*What would be done*", *_effects(plan)])
    if plan.impediments:
        yield _section(["*In the way*", *(f"• {escape(text)}" for text in plan.impediments)])
    yield _context(f"{escape(plan.budget or 'no disruption budget is touched')} · plan `{approval.digest[:12]}`")


def _failure(incident: Incident) -> str:
    mark = ":red_circle:" if incident.severity is Severity.CRITICAL else ":large_orange_circle:"
    what = f"{mark} *{escape(incident.failure_mode)}* on *{escape(str(incident.component))}*"
    return f"{what}: {incident.severity}, score {incident.score:.2f} ({incident.basis})"


def _reach(incident: Incident) -> Iterable[str]:
    """Who is to blame, who is hurt, and how much else it explains; nothing of what there is not."""
    if incident.culprit is not None:
        rack = f" in rack {incident.culprit.rack}" if incident.culprit.rack else ""
        yield f"*To blame:* {escape(f'{incident.culprit}{rack}')}"
    if incident.jobs:
        more = f" and {len(incident.jobs) - _MOST_JOBS} more" if len(incident.jobs) > _MOST_JOBS else ""
        yield f"*Jobs hurt:* {escape(', '.join(incident.jobs[:_MOST_JOBS]))}{more}"
    if incident.symptoms:
        yield f"*Explains:* {_counted(len(incident.symptoms), 'symptom')}"
    if incident.tried:
        yield f"*Tried before:* {escape(incident.tried[-1])}"
    if incident.reopened:
        yield f"*Came back:* {_counted(incident.reopened, 'time')} after it had gone away by itself"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _effects(plan: Plan) -> Iterable[str]:
    if not plan.effects:
        return ["• nothing: the world already is as the playbook would leave it"]
    return [f"• {escape(str(effect))}" for effect in plan.effects]


def outcome(approval: Approval) -> str:
    when = f" {_moment(approval.decided_at)}" if approval.decided_at else ""
    why = f": {escape(approval.reason)}" if approval.reason else ""
    agreed = f" ({_progress(approval)})" if approval.agreed else ""
    match approval.state:
        case ApprovalState.APPROVED:
            by = " and ".join(_who(agreement.person) for agreement in approval.agreed) or _who(approval.decided_by)
            return f":white_check_mark: *Approved* by {by}{when}{why}"
        case ApprovalState.DENIED:
            return f":no_entry_sign: *Denied* by {_who(approval.decided_by)}{when}{why}{agreed}"
        case ApprovalState.VOID:
            return f":wastebasket: *Void*{when}{why or ': the plan no longer stands'}{agreed}"
        case ApprovalState.PENDING | ApprovalState.EXPIRED:
            return f":hourglass: *Expired* {_moment(approval.expires_at)} without an answer{agreed}"


def fallback(approval: Approval, incident: Incident) -> str:
    """What notifications and screen readers say."""
    blame = f" ({incident.culprit} is to blame)" if incident.culprit else ""
    still = "still open: " if approval.escalated else ""
    asked = f"{still}approve {approval.plan.playbook}?"
    return escape(f"{incident.failure_mode} on {incident.component}{blame}: {asked}")


def _who(person: Person | None) -> str:
    if person is None:
        return "somebody"
    slack_id = _SLACK_PERSON.fullmatch(person.id)
    return f"<@{slack_id[1]}>" if slack_id else escape(str(person))


def _moment(at: datetime) -> str:
    """A time that Slack shows in the reader's own time zone."""
    utc = at.astimezone(UTC)
    return f"<!date^{int(utc.timestamp())}^{{date_short_pretty}} {{time_secs}}|{utc:%Y-%m-%d %H:%M:%S} UTC>"


def _header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": clean(text, _MOST_HEADER), "emoji": False}}


def _section(lines: Sequence[str]) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _fitted(lines)}}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def _button(label: str, action_id: str, value: str, style: str) -> Block:
    text = {"type": "plain_text", "text": label}
    return {"type": "button", "text": text, "action_id": action_id, "value": value, "style": style}


def _fitted(lines: Sequence[str]) -> str:
    """As many whole lines as a section takes, and how many more there are."""
    text = "\n".join(lines)
    if len(text) <= _MOST_SECTION:
        return text
    shown = list(lines)
    while shown and len(text) > _MOST_SECTION:
        shown.pop()
        text = "\n".join([*shown, f"…and {len(lines) - len(shown)} more: see console"])
    return text


def escape(text: str) -> str:
    """Untrusted text as one line of mrkdwn that can neither mention, link nor pretend to be another line."""
    return clean(text, _MOST_LINE).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clean(text: str, most: int) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(printable.split())
    return line if len(line) <= most else line[: most - 1] + "…"
