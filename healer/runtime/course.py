"""The course of an incident: what was asked, done and came of it, in words that do not churn.

So that what healer did on two fleets, or would have done by two playbooks, can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from healer.domain.approval import Approval, ApprovalState
from healer.domain.incident import Incident
from healer.domain.plan import Plan
from healer.domain.run import EffectRecord, EffectState, Run

_LEFT = "left as it is"  # how an undo begins that found nothing of the run's to take back


@dataclass(frozen=True, slots=True)
class Moment:
    """Attributes:
    text: what happened, without ids, pods or figures: two courses are compared by it.
    note: for the reader: the figures and reasons.
    """

    at: datetime
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Carried:
    """A run with the effects that it intended, in that order."""

    run: Run
    records: tuple[EffectRecord, ...]


def course_of(incident: Incident, approvals: Iterable[Approval], runs: Iterable[Carried]) -> tuple[Moment, ...]:
    """All that the incident led to, oldest first.

    Args:
        approvals: its questions, oldest first.
        runs: its runs, oldest first.
    """
    moments = [
        *(moment for approval in approvals for moment in _question(approval)),
        *(moment for carried in runs for moment in _run(carried)),
    ]
    if incident.state.ended:
        at = incident.resolved_at or incident.changed_at
        moments.append(Moment(at, str(incident.state), incident.story))
    return tuple(sorted(moments, key=lambda moment: moment.at))


def planned(plan: Plan) -> str:
    """What a plan comes to, in one line, by names that do not churn."""
    effects = ", ".join(f"{effect.verb} {effect.target}" for effect in plan.effects)
    return f"{plan.playbook} on {plan.target}: {effects or 'nothing to do'}"


def deeds_of(carried: Carried) -> tuple[Moment, ...]:
    """What a run is known to have changed, each thing once, in the words of a playbook's `expect.effects`."""
    done: dict[str, Moment] = {}
    for moment in sorted(_deeds(carried), key=lambda moment: moment.at):
        done.setdefault(moment.text, moment)
    return tuple(done.values())


def owners_of(plan: Plan) -> Mapping[str, str]:
    """Each pod that the plan names, as NAMESPACE/NAME -> NAMESPACE/KIND/NAME of what makes it again."""
    return {
        f"{effect.target.partition('/')[0]}/{pod}": effect.target
        for effect in plan.effects
        if effect.verb == "evict"
        for pod in pods_of(effect.detail)
    }


def pods_of(detail: str) -> tuple[str, ...]:
    """The pods in an eviction's detail, which after a ; may say what is lost with them."""
    return tuple(pod for pod in detail.partition(";")[0].split(", ") if pod)


def owner_of(pod: str, plan: Plan) -> str:
    """What makes the pod NAMESPACE/NAME again, as far as the plan tells: by its name, or by how its name begins."""
    known = owners_of(plan).get(pod)
    if known is not None:
        return known
    namespace, _, name = pod.partition("/")
    shown = [effect.target.split(" on ")[0] for effect in plan.effects if effect.verb in {"evict", "restart"}]
    fitting = [
        owner
        for owner in shown
        if owner.startswith(f"{namespace}/") and name.startswith(f"{owner.rpartition('/')[2]}-")
    ]
    return max(fitting, key=len, default=pod)


def _question(approval: Approval) -> Iterator[Moment]:
    yield Moment(approval.asked_at, f"asks: {planned(approval.plan)}", approval.plan.budget)
    if approval.decided_at is not None and approval.state is not ApprovalState.PENDING:
        by = "" if approval.decided_by is None else f"by {approval.decided_by}"
        yield Moment(approval.decided_at, str(approval.state), ": ".join(filter(None, (by, approval.reason))))


def _run(carried: Carried) -> Iterator[Moment]:
    run = carried.run
    yield Moment(run.started_at, f"starts: {planned(run.plan)}", run.plan.budget)
    yield from deeds_of(carried)
    if run.ended_at is not None:
        yield Moment(run.ended_at, f"{run.plan.playbook} {run.state}", run.cause or run.detail)


def _deeds(carried: Carried) -> Iterator[Moment]:
    for record in carried.records:
        if record.state not in {EffectState.DONE, EffectState.UNDONE}:
            continue
        did, undid = _words(record, carried.run.plan)
        if not did:
            continue
        undone = record.state is EffectState.UNDONE
        # When it was done is written over when it is undone.
        at = record.intended_at if undone else record.settled_at or record.intended_at
        yield Moment(at, did, "" if undone else record.detail)
        if undone and undid and not record.detail.startswith(_LEFT):
            yield Moment(record.settled_at or at, undid, record.detail)


def _words(record: EffectRecord, plan: Plan) -> tuple[str, str]:
    """What the effect is called, and its undoing; an effect of a verb that is not known here by its key, and what is no
    effect by nothing.
    """
    verb, *names = record.key.split("/")
    if verb in {"evict", "restart"} and len(names) == 3:
        return f"evict {owner_of('/'.join(names[:2]), plan)}", ""
    if verb == "reset":
        whole = (effect.target for effect in plan.effects if effect.verb == "reset")
        return f"reset {next(whole, names[0])}", ""
    if verb in _OF_NOTHING:
        return _OF_NOTHING[verb], ""
    about = names[0] if verb in _NUMBERED else "/".join(names)
    did, undid = _DEEDS.get(verb, (verb, f"undo {verb}"))
    return f"{did} {about}", f"{undid} {about}" if undid else ""


# By the first part of an effect's key: what was done, and its undoing, if it has one.
_DEEDS = {
    "cordon": ("cordon", "uncordon"),
    "uncordon": ("uncordon", "cordon"),
    "suspend": ("suspend", "resume"),
    "resume": ("resume", ""),
    "cap": ("limit", "restore"),
    "reboot": ("reboot", ""),
    "burn_in": ("burn in", ""),
    "collect": ("collect", ""),
}
_NUMBERED = frozenset({"cap", "reboot", "burn_in", "collect"})  # after the node comes which change or attempt it was
# Changes nothing: since when a condition holds, that the pods of a job have gone.
_OF_NOTHING = {"ticket": "ticket", "met": "", "gone": ""}
