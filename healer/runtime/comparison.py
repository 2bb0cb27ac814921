"""What changed playbooks would have done otherwise than the deployed ones, on the same history. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from healer.domain.approval import Approval
from healer.domain.incident import Incident
from healer.domain.playbook import Playbook
from healer.domain.run import EffectState, RunState
from healer.domain.verdict import Mode
from healer.runtime.course import Carried, Moment, course_of, planned
from healer.runtime.side import Account, Hold
from healer.runtime.web.views import ComponentView, PlanView, component_view, plan_view, utc
from healer.schema import format_duration


@dataclass(frozen=True, slots=True)
class Change:
    """What the deployed playbooks are compared with, and how.

    Attributes:
        given: those that were changed or added, as they were read.
        playbooks: all that would be deployed then, in the order in which they are asked.
        mode: in which both sides plan and act.
        answer_after: so long after a question on-call says yes.
    """

    given: tuple[Playbook, ...]
    playbooks: tuple[Playbook, ...]
    mode: Mode
    answer_after: timedelta = timedelta(0)


class GivenView(msgspec.Struct, frozen=True):
    """Attributes:
    change: changed | added | same, if its text is the deployed one's.
    """

    name: str
    file: str
    change: str


class TallyView(msgspec.Struct, frozen=True):
    """Attributes:
    plans: incidents that it made a plan for.
    nodes_out: how often it took a node out of service.
    node_hours: for which they were out within the window.
    """

    playbook: str
    plans: int
    questions: int
    runs: int
    failed_runs: int
    nodes_out: int
    node_hours: float


class StormView(msgspec.Struct, frozen=True):
    at: datetime
    reason: str


class SideView(msgspec.Struct, frozen=True):
    playbooks: list[TallyView]
    breaker: list[StormView]


class ComparisonView(msgspec.Struct, frozen=True):
    mode: str
    answer_after: str
    given: list[GivenView]
    deployed: SideView
    changed: SideView


class MomentView(msgspec.Struct, frozen=True):
    at: datetime
    what: str
    note: str


class CourseView(msgspec.Struct, frozen=True):
    """Attributes:
    plan: the first that was made, with what spoke against it then.
    """

    state: str
    plan: PlanView | None
    moments: list[MomentView]


class DifferenceView(msgspec.Struct, frozen=True):
    """Attributes:
    deployed, changed: null where there is no such incident: its fault stands for another one there.
    """

    incident: str
    failure_mode: str
    component: ComponentView
    opened_at: datetime
    deployed: CourseView | None
    changed: CourseView | None


def compared(change: Change, deployed: Sequence[Playbook], before: Account, after: Account) -> ComparisonView:
    """The figures of both sides, and how they came about."""
    texts = {each.name: each.text for each in deployed}
    return ComparisonView(
        mode=str(change.mode),
        answer_after=format_duration(change.answer_after),
        given=[GivenView(each.name, each.file, _kind_of(each, texts.get(each.name))) for each in change.given],
        deployed=_side(deployed, before),
        changed=_side(change.playbooks, after),
    )


def differences(before: Account, after: Account) -> list[DifferenceView]:
    """Every incident that went another way: another first plan, or something else done or asked, or at another time."""
    sides = _courses(before), _courses(after)
    incidents = {incident.id: incident for incident in (*after.incidents, *before.incidents)}
    found = []
    for incident in sorted(incidents.values(), key=lambda each: (each.opened_at, each.id)):
        deployed, changed = (side.get(incident.id) for side in sides)
        if deployed is None or changed is None or _key(deployed) != _key(changed):
            found.append(
                DifferenceView(
                    incident=incident.id,
                    failure_mode=str(incident.failure_mode),
                    component=component_view(incident.component),
                    opened_at=utc(incident.opened_at),
                    deployed=None if deployed is None else deployed.view(),
                    changed=None if changed is None else changed.view(),
                )
            )
    return found


def _kind_of(given: Playbook, deployed: str | None) -> str:
    if deployed is None:
        return "added"
    return "same" if given.text == deployed else "changed"


# Figures


def _side(playbooks: Sequence[Playbook], account: Account) -> SideView:
    plans = Counter(playbook for _, playbook in account.plans)
    questions = Counter(approval.plan.playbook for approval in account.approvals)
    runs = Counter(carried.run.plan.playbook for carried in account.runs)
    failed = Counter(each.run.plan.playbook for each in account.runs if each.run.state is RunState.FAILED)
    out = Counter({each.name: 0 for each in playbooks})
    for carried in account.runs:
        out[carried.run.plan.playbook] += _cordons(carried)
    return SideView(
        playbooks=[
            TallyView(
                playbook=name,
                plans=plans[name],
                questions=questions[name],
                runs=runs[name],
                failed_runs=failed[name],
                nodes_out=out[name],
                node_hours=round(account.out_h.get(name, 0.0), 2),
            )
            for name in out
        ],
        breaker=[StormView(utc(trip.at), trip.reason) for trip in account.trips],
    )


def _cordons(carried: Carried) -> int:
    happened = {EffectState.DONE, EffectState.UNDONE}
    return sum(each.key.startswith("cordon/") and each.state in happened for each in carried.records)


# Courses


@dataclass(frozen=True, slots=True)
class _Course:
    incident: Incident
    account: Account
    moments: tuple[Moment, ...]

    @property
    def plan_text(self) -> str:
        first = self.account.first_plans.get(self.incident.id)
        return "" if first is None else planned(first.plan) + ("; asks" if first.plan.needs_approval else "")

    def view(self) -> CourseView:
        first = self.account.first_plans.get(self.incident.id)
        return CourseView(
            state=str(self.incident.state),
            plan=None if first is None else plan_view(first.plan, first.verdict),
            moments=[MomentView(utc(each.at), each.text, each.note) for each in self.moments],
        )


def _key(course: _Course) -> tuple[str, tuple[tuple[datetime, str], ...]]:
    """What makes two courses the same: ids, pods and figures are left out."""
    return course.plan_text, tuple((moment.at, moment.text) for moment in course.moments)


def _courses(account: Account) -> dict[str, _Course]:
    """By incident."""
    approvals: dict[str, list[Approval]] = {}
    runs: dict[str, list[Carried]] = {}
    for approval in account.approvals:
        approvals.setdefault(approval.incident_id, []).append(approval)
    for carried in account.runs:
        runs.setdefault(carried.run.incident_id, []).append(carried)
    return {
        incident.id: _Course(
            incident,
            account,
            _with_holds(
                course_of(incident, approvals.get(incident.id, ()), runs.get(incident.id, ())),
                account.holds.get(incident.id, ()),
            ),
        )
        for incident in account.incidents
    }


def _with_holds(moments: Sequence[Moment], holds: Sequence[Hold]) -> tuple[Moment, ...]:
    held = [
        Moment(hold.since, f"held by {hold.by}", f"{_until(hold)}; {hold.why.partition(': ')[2]}") for hold in holds
    ]
    return tuple(sorted([*held, *moments], key=lambda moment: moment.at))


def _until(hold: Hold) -> str:
    return "to the end" if hold.until is None else f"until {utc(hold.until):%Y-%m-%d %H:%M:%S}"
